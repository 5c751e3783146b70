//! The drop folder: files that are put into `DIR/inbox` are loaded, then found in `done` or `refused`.
//!
//! A file is taken at once when it is renamed in, else after it has been unchanged for a while: nothing tells when a writer
//! is done. While the ledger is down, files wait in `processing` and are tried again with growing waits. `folder.rs` says
//! what survives which crash.

use crate::{
    Checks, Loaded, Options, Preview, Refusal, SurveyError, Terms, check, checked,
    folder::{Claimed, End, Folder, Inheritance, Kind, Note, Size},
    load::{Begun, Launch, LoadError, begin, fill},
};
use campaign::{ImportId, OwnerId};
use jiff::Timestamp;
use ledger::Ledger;
use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{ModifyKind, RenameMode},
};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use telemetry::Pulse;
use tokio::{sync::mpsc, task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a drop folder is watched.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// The folder that holds `inbox`, `processing`, `done` and `refused`; what is absent is created.
    pub folder: PathBuf,
    /// Names this watcher and no other one, ever: host, process id and start.
    pub name: String,
    /// The process, as the ledger has registered it.
    pub owner: OwnerId,
    /// Who launches what is dropped.
    pub launched_by: String,
    /// What holds where neither a row nor `NAME.toml` says otherwise.
    pub options: Options,
    /// What a file costs and how it is sent, where `NAME.toml` sets conditions.
    pub terms: Terms,
    /// A file that was not renamed in is taken after it did not change for so long.
    pub unchanged_for: Duration,
    /// How often the folder is looked through: for such files, and for those of dead watchers.
    pub rescan_every: Duration,
    /// Beats with each look at the folder and with each part of a file that is loaded.
    pub pulse: Pulse,
}

impl WatchSettings {
    /// With the usual waits: 10 s unchanged, looked through every second.
    pub fn new(folder: PathBuf, name: String, owner: OwnerId) -> Self {
        let launched_by = name.clone();
        let (unchanged_for, rescan_every) = (Duration::from_secs(10), Duration::from_secs(1));
        Self {
            folder,
            name,
            owner,
            launched_by,
            options: Options::default(),
            terms: Terms::default(),
            unchanged_for,
            rescan_every,
            pulse: Pulse::default(),
        }
    }
}

/// What a watcher tells while it works.
#[derive(Debug)]
pub enum Happened<'a> {
    /// The campaigns of a file became active: the feeder has something to do.
    Launched {
        /// Where the file is now.
        file: &'a Path,
        /// What it was found to be.
        preview: &'a Preview,
        /// What was loaded; `None` if a watcher that died had loaded it and this one only moved it on.
        loaded: Option<&'a Loaded>,
    },
    /// A file was refused whole.
    Refused {
        /// Where the file is now.
        file: &'a Path,
        /// A stable word.
        code: &'static str,
        /// One line: what, where, what to do.
        why: &'a str,
    },
    /// The ledger can't be used: files wait.
    Waiting {
        /// Why.
        why: &'a str,
    },
    /// The ledger can be used again.
    GoesOn,
    /// A name in the inbox that means nothing, is too long or no UTF-8; it is left there.
    Foreign {
        /// The name.
        name: &'a str,
    },
}

/// Why a drop folder can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It can't be opened or created, or a file can't be moved in it.
    #[error("the drop folder {folder} can't be used")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Watches a drop folder until it is cancelled; a load in the middle is broken off between two transactions then, and
/// gone on with by the next watcher.
///
/// # Errors
/// Only what a person must mend: the folder itself. A ledger that is down is waited for.
pub async fn watch(
    ledger: &Ledger,
    settings: &WatchSettings,
    clock: impl Fn() -> Timestamp,
    happened: impl FnMut(Happened<'_>),
    cancel: &CancellationToken,
) -> Result<(), WatchError> {
    let failed = |source| WatchError::Folder { folder: settings.folder.clone(), source };
    let inbox = Folder::create(&settings.folder).map_err(failed)?;
    let (moved_in, mut names) = mpsc::channel(1024);
    // Before anything else, so that nothing is renamed in unheard once this watcher shows by its lock. Without it (no
    // inotify left) the rescan takes all files, later.
    let _events =
        moved_in_events(&inbox, moved_in).inspect_err(|error| warn!(%error, "files are found by looking alone")).ok();
    let folder = Folder::open(&settings.folder, &settings.name).map_err(failed)?;
    let pending = folder.left_behind().map_err(failed)?.into_iter().map(Pending::new).collect();
    let mut watcher = Watcher {
        ledger,
        settings,
        folder,
        clock,
        happened,
        cancel,
        sizes: HashMap::new(),
        foreign: HashSet::new(),
        pending,
        inherited: HashMap::new(),
        is_down: false,
    };
    let mut rescan = tokio::time::interval(settings.rescan_every);
    rescan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        settings.pulse.beat();
        let moved = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(name) = names.recv() => Some(name),
            _ = rescan.tick() => None,
        };
        match moved {
            Some(name) => watcher.take(&name).map_err(failed)?,
            None => watcher.look_through().map_err(failed)?,
        }
        watcher.work().await.map_err(failed)?;
    }
}

/// Hears of files that are renamed into a folder.
fn moved_in_events(inbox: &Path, names: mpsc::Sender<String>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // `Both` comes after its `To`, and tells nothing new.
        if event.kind == EventKind::Modify(ModifyKind::Name(RenameMode::To))
            && let Some(name) = event.paths.last().and_then(|path| path.file_name())
        {
            // A full channel loses nothing: the rescan finds the file.
            let _ = names.try_send(name.to_string_lossy().into_owned());
        }
    })?;
    watcher.watch(inbox, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

struct Watcher<'a, C, H> {
    ledger: &'a Ledger,
    settings: &'a WatchSettings,
    folder: Folder,
    clock: C,
    happened: H,
    cancel: &'a CancellationToken,
    /// Length and time of change of each file in the inbox, and since when they are so.
    sizes: HashMap<String, (Size, Instant)>,
    foreign: HashSet<String>,
    pending: Vec<Pending>,
    inherited: HashMap<String, Inheritance>,
    is_down: bool,
}

struct Pending {
    claimed: Claimed,
    due: Instant,
    wait: Duration,
}

impl Pending {
    fn new(claimed: Claimed) -> Self {
        Self { claimed, due: Instant::now(), wait: FIRST_WAIT }
    }
}

/// What a file came to.
enum Settled {
    Done {
        preview: Box<Preview>,
        import: ImportId,
        loaded: Option<Loaded>,
    },
    Refused {
        code: &'static str,
        why: String,
    },
    /// To be tried again.
    Waits {
        why: String,
        for_all: bool,
    },
    Gone,
    Stopped,
}

/// What lies beside a file in `done`.
#[derive(Serialize)]
struct Summary<'a> {
    import: ImportId,
    loaded: Option<&'a Loaded>,
    preview: &'a Preview,
}

impl<C: Fn() -> Timestamp, H: FnMut(Happened<'_>)> Watcher<'_, C, H> {
    fn take(&mut self, name: &str) -> io::Result<()> {
        if Kind::of(name) == Kind::Campaign
            && let Some(claimed) = self.folder.claim(name)?
        {
            self.sizes.remove(name);
            self.pending.push(Pending::new(claimed));
        }
        Ok(())
    }

    /// Takes what has been unchanged for long enough, and what dead watchers left.
    fn look_through(&mut self) -> io::Result<()> {
        let listing = self.folder.listing()?;
        self.sizes.retain(|name, _| listing.iter().any(|(listed, _)| listed == name));
        for (name, size) in listing {
            match Kind::of(&name) {
                Kind::Campaign => {
                    let now = Instant::now();
                    let (known, since) = self.sizes.entry(name.clone()).or_insert((size, now));
                    if *known != size {
                        (*known, *since) = (size, now);
                    }
                    if since.elapsed() >= self.settings.unchanged_for {
                        self.take(&name)?;
                    }
                }
                Kind::Foreign if self.foreign.insert(name.clone()) => {
                    (self.happened)(Happened::Foreign { name: &name });
                }
                Kind::Foreign | Kind::Settings | Kind::Unfinished => {}
            }
        }
        let held = self.inherited.keys().cloned().collect();
        for (inheritance, files) in self.folder.inherit(&held)? {
            debug!(owner = inheritance.owner, files = files.len(), "going on with the files of a dead watcher");
            self.pending.extend(files.into_iter().map(Pending::new));
            self.inherited.insert(inheritance.owner.clone(), inheritance);
        }
        Ok(())
    }

    /// Loads what is due, one file after the other.
    async fn work(&mut self) -> io::Result<()> {
        let mut waiting = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            if pending.due > Instant::now() || self.cancel.is_cancelled() {
                waiting.push(pending);
                continue;
            }
            match self.settle(&pending.claimed).await? {
                Settled::Waits { why, for_all } => {
                    if for_all && !self.is_down {
                        self.is_down = true;
                        (self.happened)(Happened::Waiting { why: &why });
                    }
                    pending.due = Instant::now() + pending.wait;
                    pending.wait = (pending.wait * 2).min(LONGEST_WAIT);
                    waiting.push(pending);
                }
                Settled::Stopped => waiting.push(pending),
                settled => {
                    if std::mem::take(&mut self.is_down) {
                        (self.happened)(Happened::GoesOn);
                        waiting.iter_mut().for_each(|other| other.due = Instant::now());
                    }
                    self.end(&pending.claimed, settled)?;
                }
            }
        }
        self.pending.append(&mut waiting);
        let pending = &self.pending;
        let over = |owner: &String| !pending.iter().any(|pending| pending.claimed.owner == *owner);
        for (_, inheritance) in self.inherited.extract_if(|owner, _| over(owner)) {
            inheritance.end();
        }
        Ok(())
    }

    async fn settle(&self, claimed: &Claimed) -> io::Result<Settled> {
        let note = self.folder.note(claimed)?.unwrap_or_default();
        let approved = match self.ledger.approved_senders().await {
            // It had passed before it was begun, and may be launched by now: too late to refuse it for a sender.
            Ok(_) if note.import.is_some() => None,
            Ok(Some((_, senders))) => Some(senders.into_iter().collect()),
            Ok(None) => return Ok(Settled::Waits { why: SENDERS_UNKNOWN.to_owned(), for_all: true }),
            Err(error) => return Ok(down(&error)),
        };
        let path = self.folder.path(claimed);
        let checks = Checks {
            approved,
            file_name: Some(claimed.name.clone()),
            fallback: self.settings.options.clone(),
            ..Checks::at((self.clock)())
        };
        let flags = Options::default();
        let result = if note.import.is_some() {
            // It had held before it was begun: what it costs and who has opted out are no matter any more.
            let to_check = path.clone();
            spawn_blocking(move || check(&to_check, &flags, &checks))
                .await
                .map_err(io::Error::other)?
                .map_err(Into::into)
        } else {
            checked(self.ledger, &path, &flags, &checks, &self.settings.terms, false).await
        };
        let preview = match result {
            Ok(preview) => preview,
            Err(SurveyError::Refused(Refusal::Unreadable { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(Settled::Gone);
            }
            Err(SurveyError::Refused(refusal)) => {
                return Ok(Settled::Refused { code: refusal.code(), why: refusal.to_string() });
            }
            Err(SurveyError::NotHeld(why)) => {
                return Ok(Settled::Refused { code: "conditions", why: why.to_string() });
            }
            Err(SurveyError::Ledger(error)) => return Ok(down(&error)),
        };
        let launch = Launch {
            again: false,
            launched_by: self.settings.launched_by.clone(),
            owner: self.settings.owner,
            rejects_dir: None,
        };
        let loading = match begin(self.ledger, &preview, &launch, (self.clock)()).await {
            Ok(Begun::Load(loading)) => loading,
            Ok(Begun::Launched { earlier, .. }) => {
                // Crash point 3: it is this very file that was launched.
                return Ok(if note.import == Some(earlier.import) {
                    Settled::Done { preview: Box::new(preview), import: earlier.import, loaded: None }
                } else {
                    let why = LoadError::Launched(earlier).to_string();
                    Settled::Refused { code: "launched_before", why }
                });
            }
            Err(error) => return Ok(settled(error)),
        };
        let import = loading.import;
        // Before the import can be finished; see crash point 3.
        self.folder.write_note(claimed, &Note { import: Some(import), moves_to: None })?;
        crash::reach("the import is noted");
        let rejects = self.folder.rejects_path(claimed);
        let progress = |_| self.settings.pulse.beat();
        let filled = fill(self.ledger, &path, &preview, loading, rejects, &self.clock, progress, self.cancel).await;
        Ok(match filled {
            Ok(loaded) => Settled::Done { preview: Box::new(preview), import, loaded: Some(loaded) },
            Err(error) => settled(error),
        })
    }

    fn end(&mut self, claimed: &Claimed, settled: Settled) -> io::Result<()> {
        match settled {
            Settled::Done { preview, import, mut loaded } => {
                let rejects = loaded.as_mut().and_then(|loaded| loaded.rejects_file.take());
                let summary = Summary { import, loaded: loaded.as_ref(), preview: &preview };
                let summary = serde_json::to_vec_pretty(&summary).map_err(io::Error::from)?;
                let file = self.folder.finish(claimed, End::Done, &summary)?;
                if let Some(loaded) = &mut loaded {
                    loaded.rejects_file = rejects.map(|_| file.with_extension("rejected.csv"));
                }
                (self.happened)(Happened::Launched { file: &file, preview: &preview, loaded: loaded.as_ref() });
            }
            Settled::Refused { code, why } => {
                let file = self.folder.finish(claimed, End::Refused, format!("{why}\n").as_bytes())?;
                (self.happened)(Happened::Refused { file: &file, code, why: &why });
            }
            Settled::Gone => warn!(file = claimed.name, "a file vanished from processing"),
            Settled::Waits { .. } | Settled::Stopped => {}
        }
        Ok(())
    }
}

fn settled(error: LoadError) -> Settled {
    let why = error.to_string();
    match error {
        LoadError::Launched(_) => Settled::Refused { code: "launched_before", why },
        LoadError::SentSince { .. } => Settled::Refused { code: "sent_since_backup", why },
        LoadError::Changed { .. } => Settled::Refused { code: "changed", why },
        LoadError::Refused(refusal) => Settled::Refused { code: refusal.code(), why },
        LoadError::Ledger(error) => down(&error),
        LoadError::Busy { .. } => Settled::Waits { why, for_all: false },
        LoadError::Cancelled => Settled::Stopped,
    }
}

/// Nothing is queued from a sender that may not be approved.
const SENDERS_UNKNOWN: &str = "it is not known which senders are approved: a reconciler reads that from the gateway, or \
                               this watcher does when it has the gateway's credentials";

fn down(error: &ledger::Error) -> Settled {
    Settled::Waits { why: ledger::chain(error), for_all: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_sent_since_the_backup_is_refused_and_holds_no_other_up() {
        let (file_name, launched_by) = ("spring.csv".to_owned(), "ann".to_owned());
        let error = LoadError::SentSince { file_name, launched_at: jiff::Timestamp::UNIX_EPOCH, launched_by };
        let Settled::Refused { code, why } = settled(error) else { panic!("it is waited for") };
        assert_eq!(code, "sent_since_backup");
        assert!(why.contains("as spring.csv on 1970-01-01 00:00:00 UTC, by ann"), "{why}");
    }
}
