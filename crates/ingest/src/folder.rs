//! The drop folder on disk: who has which file, and how files move without loss.
//!
//! `inbox/NAME.csv` → `processing/OWNER--NAME.csv` → `done/NAME.csv` or `refused/NAME.csv`.
//!
//! *Who has it.* A rename out of `inbox` succeeds for one watcher only. OWNER is a watcher that holds an OS lock on
//! `processing/.OWNER.lock`; the kernel drops it however the watcher ends. Whoever gets the lock of a dead owner holds all
//! of its files, in place, and no third one can.
//!
//! *Crash points.* (1) Between claiming `NAME.csv` and its `NAME.toml`: without a claim note the claim was not complete, and
//! the heir fetches the toml. (2) Before the import is finished: the heir loads again; the ledger removes the half. (3) After
//! the import is finished, before the file is in `done`: the ledger answers "launched before", with the id of the import
//! that the claim note holds, so the file is not refused but moved on. The same bytes dropped again have another claim
//! note, or none, and are refused. (4) In the middle of moving on: the place is in the claim note; companions move first,
//! the CSV last.

use campaign::ImportId;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

const LOCK_SUFFIX: &str = ".lock";
const BETWEEN: &str = "--";
const TAKEN: [&str; 3] = ["csv", "tsv", "txt"];
/// Longest name that is taken, in bytes: with an owner before it and an ending behind it, it must still be a file's name.
const NAME_MAX: usize = 150;
const UNFINISHED: [&str; 4] = ["part", "tmp", "filepart", "crdownload"];

/// The four folders, and this watcher's lock.
pub(crate) struct Folder {
    pub(crate) inbox: PathBuf,
    processing: PathBuf,
    done: PathBuf,
    refused: PathBuf,
    owner: String,
    _lock: File,
}

/// What a name in the inbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be taken.
    Campaign,
    /// Hidden, or by its ending still being written.
    Unfinished,
    /// Waits for its CSV.
    Settings,
    /// Nothing that is known, or a name that can't be worked with.
    Foreign,
}

impl Kind {
    pub(crate) fn of(name: &str) -> Self {
        let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            _ if name.starts_with('.') => Self::Unfinished,
            // A name that is no UTF-8 is listed with this in it, and can't be renamed.
            _ if name.len() > NAME_MAX || name.contains(char::REPLACEMENT_CHARACTER) => Self::Foreign,
            Some(ending) if UNFINISHED.contains(&ending) => Self::Unfinished,
            Some(ending) if TAKEN.contains(&ending) => Self::Campaign,
            Some("toml") => Self::Settings,
            _ => Self::Foreign,
        }
    }
}

/// Length and time of change of a file: the same while nobody writes it.
pub(crate) type Size = (u64, Option<SystemTime>);

/// A file that this watcher has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// As it was dropped.
    pub(crate) name: String,
    pub(crate) owner: String,
}

/// What is written down about a claimed file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// The import that loads it, written before it is finished.
    pub(crate) import: Option<ImportId>,
    /// The name that it gets in `done` or `refused`, without ending.
    pub(crate) moves_to: Option<String>,
}

/// Where a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Refused,
}

impl Folder {
    /// Creates what is absent of a drop folder, and gives its inbox.
    pub(crate) fn create(root: &Path) -> io::Result<PathBuf> {
        for folder in ["processing", "done", "refused", "inbox"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(root.join("inbox"))
    }

    /// Opens a drop folder that is [`Self::create`]d. `owner` names this watcher and no other, ever.
    pub(crate) fn open(root: &Path, owner: &str) -> io::Result<Self> {
        let owner: String = owner.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let [inbox, processing, done, refused] = ["inbox", "processing", "done", "refused"].map(|name| root.join(name));
        let lock = own_lock(&lock_path(&processing, &owner))?;
        let folder = Self { inbox, processing, done, refused, owner, _lock: lock };
        folder.check_renames()?;
        Ok(folder)
    }

    /// A claim is a rename, which can't cross file systems: found out at the start, not at the first file.
    fn check_renames(&self) -> io::Result<()> {
        let probe = self.processing.join(format!(".{}.probe", self.owner));
        fs::write(&probe, b"")?;
        let mut at = probe;
        for folder in [&self.inbox, &self.done, &self.refused, &self.processing] {
            let to = folder.join(format!(".{}.probe", self.owner));
            if at != to {
                fs::rename(&at, &to).map_err(|error| {
                    let _ = fs::remove_file(&at);
                    let problem = "inbox, processing, done and refused must be on one file system";
                    if error.kind() == io::ErrorKind::CrossesDevices {
                        io::Error::new(error.kind(), problem)
                    } else {
                        error
                    }
                })?;
                at = to;
            }
        }
        fs::remove_file(at)
    }

    /// What lies in the inbox: names, lengths and times of change.
    pub(crate) fn listing(&self) -> io::Result<Vec<(String, Size)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.inbox)? {
            let entry = entry?;
            // Gone in between: another watcher has it.
            if let Ok(metadata) = entry.path().symlink_metadata() {
                let name = entry.file_name().to_string_lossy().into_owned();
                names.push((name, (metadata.len(), metadata.modified().ok())));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Takes a file out of the inbox, with the settings beside it; `None` if another watcher was faster.
    pub(crate) fn claim(&self, name: &str) -> io::Result<Option<Claimed>> {
        let claimed = Claimed { name: name.to_owned(), owner: self.owner.clone() };
        // One name can be claimed twice by one watcher, when it is dropped again while the first is at work.
        if self.path(&claimed).exists() || self.note_path(&claimed).exists() {
            return Ok(None);
        }
        if !rename_if_there(&self.inbox.join(name), &self.path(&claimed))? {
            return Ok(None);
        }
        crash::reach("the file is renamed out of the inbox");
        self.complete_claim(&claimed)?;
        crash::reach("the claim is noted");
        Ok(Some(claimed))
    }

    /// The CSV is ours by now, and with it its settings. Crash point 1 ends here.
    fn complete_claim(&self, claimed: &Claimed) -> io::Result<()> {
        let settings = Path::new(&claimed.name).with_extension("toml");
        rename_if_there(&self.inbox.join(&settings), &self.path(claimed).with_extension("toml"))?;
        crash::reach("its settings are renamed, too");
        self.write_note(claimed, &Note::default())
    }

    /// Files of watchers that are dead, to be gone on with under their locks; each lock is held until its files are gone.
    /// Those in `held` are this watcher's already.
    pub(crate) fn inherit(&self, held: &HashSet<String>) -> io::Result<Vec<(Inheritance, Vec<Claimed>)>> {
        let mut owners = BTreeSet::new();
        for entry in fs::read_dir(&self.processing)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let lock = name.strip_prefix('.').and_then(|name| name.strip_suffix(LOCK_SUFFIX));
            let file = name.split_once(BETWEEN).map(|(owner, _)| owner).filter(|owner| !owner.starts_with('.'));
            owners.extend(lock.or(file).map(str::to_owned));
        }
        let mut inherited = Vec::new();
        for owner in owners {
            if owner == self.owner || owner == FINISH || held.contains(&owner) {
                continue;
            }
            let path = lock_path(&self.processing, &owner);
            let lock = OpenOptions::new().create(true).append(true).open(&path)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Looked up again under the lock: another heir may have gone on with them in between.
            let files = self.completed_files_of(&owner)?;
            inherited.push((Inheritance { owner, path, _lock: lock }, files));
        }
        Ok(inherited)
    }

    /// Files of an earlier watcher of this name, which is dead: this one has its lock.
    pub(crate) fn left_behind(&self) -> io::Result<Vec<Claimed>> {
        self.completed_files_of(&self.owner)
    }

    fn completed_files_of(&self, owner: &str) -> io::Result<Vec<Claimed>> {
        let files = self.files_of(owner)?;
        for claimed in &files {
            if self.note(claimed)?.is_none() {
                self.complete_claim(claimed)?;
            }
        }
        Ok(files)
    }

    fn files_of(&self, owner: &str) -> io::Result<Vec<Claimed>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.processing)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let Some(name) = file.strip_prefix(&format!("{owner}{BETWEEN}")) else { continue };
            let claimed = Claimed { name: name.to_owned(), owner: owner.to_owned() };
            if Kind::of(name) == Kind::Campaign {
                files.push(claimed);
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Where a claimed file lies.
    pub(crate) fn path(&self, claimed: &Claimed) -> PathBuf {
        self.processing.join(format!("{}{BETWEEN}{}", claimed.owner, claimed.name))
    }

    /// Where its rejects are gathered. Their ending makes them no campaign: `NAME.rejected.csv` may be dropped as one.
    pub(crate) fn rejects_path(&self, claimed: &Claimed) -> PathBuf {
        self.processing.join(format!("{}{BETWEEN}{}.rejects", claimed.owner, claimed.name))
    }

    fn note_path(&self, claimed: &Claimed) -> PathBuf {
        self.processing.join(format!("{}{BETWEEN}{}.claim", claimed.owner, claimed.name))
    }

    pub(crate) fn note(&self, claimed: &Claimed) -> io::Result<Option<Note>> {
        match fs::read(self.note_path(claimed)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write_note(&self, claimed: &Claimed, note: &Note) -> io::Result<()> {
        write_whole(&self.note_path(claimed), &serde_json::to_vec(note).map_err(io::Error::from)?)
    }

    /// Moves a file and what belongs to it to its end; `word` is what is said about it there. Gives its path.
    pub(crate) fn finish(&self, claimed: &Claimed, end: End, word: &[u8]) -> io::Result<PathBuf> {
        // Choosing a free name and taking it is one step for all watchers.
        let lock = OpenOptions::new().create(true).append(true).open(lock_path(&self.processing, FINISH))?;
        lock.lock()?;
        let (folder, word_ending) = match end {
            End::Done => (&self.done, "summary.json"),
            End::Refused => (&self.refused, "refused.txt"),
        };
        let name = Path::new(&claimed.name);
        let ending = name.extension().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let place = |stem: &str, ending: &str| folder.join(format!("{stem}.{ending}"));
        let free = |stem: &String| {
            [&ending, word_ending, "rejected.csv", "toml"].iter().all(|ending| !place(stem, ending).exists())
        };
        let mut note = self.note(claimed)?.unwrap_or_default();
        let moves_to = match note.moves_to.take() {
            // A crash in the middle of this: the companions that are there are ours, unless another took the name.
            Some(begun) if !place(&begun, &ending).exists() => begun,
            _ => std::iter::once(stem.clone())
                .chain((2u64..).map(|nth| format!("{stem}-{nth}")))
                .find(free)
                .expect("some name is free"),
        };
        note.moves_to = Some(moves_to.clone());
        self.write_note(claimed, &note)?;
        crash::reach("its place in done is noted");
        write_whole(&place(&moves_to, word_ending), word)?;
        crash::reach("its summary is written");
        let from = self.path(claimed);
        rename_if_there(&from.with_extension("toml"), &place(&moves_to, "toml"))?;
        crash::reach("its settings are in done");
        match end {
            End::Done => rename_if_there(&self.rejects_path(claimed), &place(&moves_to, "rejected.csv"))?,
            End::Refused => remove_if_there(&self.rejects_path(claimed))?,
        };
        crash::reach("its rejects are in done");
        let to = place(&moves_to, &ending);
        fs::rename(&from, &to)?;
        crash::reach("the file is in done");
        remove_if_there(&self.note_path(claimed))?;
        Ok(to)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // With files left, the lock file stays: whoever gets its lock goes on with them.
        if self.files_of(&self.owner).is_ok_and(|files| files.is_empty()) {
            let _ = fs::remove_file(lock_path(&self.processing, &self.owner));
        }
    }
}

/// The lock of a dead watcher, held while its files are gone on with.
pub(crate) struct Inheritance {
    pub(crate) owner: String,
    path: PathBuf,
    _lock: File,
}

impl Inheritance {
    /// All of its files are gone: removes the lock, notes of files that had just moved on when it died, and what it had
    /// half written.
    pub(crate) fn end(self) {
        let beside = self.path.parent().and_then(|processing| fs::read_dir(processing).ok());
        for entry in beside.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let its = |name: &str| name.starts_with(&format!("{}{BETWEEN}", self.owner));
            let is_note = name.ends_with(".claim") && its(&name);
            let is_half_written = name.ends_with(".tmp") && name.strip_prefix('.').is_some_and(its);
            if is_note || is_half_written {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// No watcher has this name: names of watchers are made by [`Folder::open`], without a `-`.
const FINISH: &str = "finish-";

/// A watcher's own lock: that of an earlier watcher of this name, or a new one.
///
/// A new one is locked before it has its name: others take a lock file that nobody holds for that of a dead watcher, and remove
/// it, and its owner would then hold a lock that nobody sees.
fn own_lock(path: &Path) -> io::Result<File> {
    match OpenOptions::new().append(true).open(path) {
        Ok(lock) => {
            lock.try_lock()?;
            // Its heir may have been done with it, and removed it, a moment ago.
            let is_there =
                fs::metadata(path).is_ok_and(|there| lock.metadata().is_ok_and(|own| own.ino() == there.ino()));
            if is_there { Ok(lock) } else { own_lock(path) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let unnamed = path.with_extension("lock.new");
            let lock = OpenOptions::new().create(true).append(true).open(&unnamed)?;
            lock.try_lock()?;
            fs::rename(&unnamed, path)?;
            Ok(lock)
        }
        Err(error) => Err(error),
    }
}

fn lock_path(processing: &Path, owner: &str) -> PathBuf {
    processing.join(format!(".{owner}{LOCK_SUFFIX}"))
}

/// Whether there was something to rename.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file that is there whole or not at all, also after a power cut.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}.tmp"));
    let mut file = File::create(&hidden)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&hidden, path)
}
