//! The second pass: the rows of a checked file go into the ledger.
//!
//! Crash points. Before `begin_import`: nothing happened. Between it and `finish_import`: the import is loading, none of
//! its campaigns is active, nothing of it can be sent; the next launch of the same bytes removes what is there and begins
//! anew, once the first process is known to be dead. After `finish_import`: the same bytes are answered with the earlier
//! launch.

use crate::{
    ahead::read_ahead,
    check::Opened,
    chunker::Chunker,
    preview::Preview,
    records::Records,
    refusal::Refusal,
    rejects::{Rejects, rejects_path},
    row::{Row, Verdict},
    seen::Numbers,
    texts::Text,
};
use campaign::{CampaignId, ChunkId, ImportId, Msisdn, OwnerId, RowState, SenderId, TextId, id::CHUNK_ROWS_MAX};
use jiff::Timestamp;
use ledger::{ErrorKind, ImportStart, Ledger, NewCampaign, NewChunk, NewImport, NewRow, NewText, OptOuts, Totals};
use roaring::RoaringBitmap;
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{Mutex, mpsc},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

/// Rows that wait for others of their text, and texts that they have: the more of one text, the nearer are the numbers of a batch.
pub(crate) const BUFFERED_ROWS_MAX: usize = 32_000;
/// See [`BUFFERED_ROWS_MAX`].
pub(crate) const BUFFERED_TEXTS_MAX: usize = 8_000;
/// Rows of one transaction, about. While those of one cut are written the next are read: as many as are buffered wait at most.
pub(crate) const ROWS_PER_APPEND: usize = 2_000;
/// The same for a server: each COPY costs it as much as some hundred rows.
const ROWS_PER_COPY: usize = 4_000;
/// Opt-outs that are known by heart while a file is loaded, in less than a megabyte.
const OPT_OUTS_KNOWN_MAX: u32 = 5_000;
/// Times a call is made again at once because another transaction won.
const CONFLICTS_MAX: u32 = 20;

/// How a file is launched.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Launch it although the same bytes were launched before.
    pub again: bool,
    /// Who launches it.
    pub launched_by: String,
    /// The process that loads it, as the ledger has registered it.
    pub owner: OwnerId,
    /// Where the rejects file goes; beside the file unless set.
    pub rejects_dir: Option<PathBuf>,
}

/// What became of a launch.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its campaigns are active.
    Loaded(Loaded),
    /// The same bytes were launched before and are still being sent: nothing was loaded, `run` may go on with them.
    AlreadyUnfinished(Earlier),
}

/// A file whose campaigns are active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The import.
    pub import: ImportId,
    /// Its campaigns, each with the name that it got.
    pub campaigns: Vec<(CampaignId, String)>,
    /// Rows that can be sent.
    pub sendable: u64,
    /// Rows that can't be sent as they are written.
    pub invalid: u64,
    /// Rows whose number stood on an earlier one.
    pub duplicate: u64,
    /// Rows whose person has opted out.
    pub suppressed: u64,
    /// Where the rejects are, if there are any.
    pub rejects_file: Option<PathBuf>,
    /// Why the rejects could not be written; the ledger has them all.
    pub rejects_problem: Option<String>,
}

/// An earlier launch of the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The import.
    pub import: ImportId,
    /// Its file name then.
    pub file_name: String,
    /// When.
    pub launched_at: Timestamp,
    /// By whom.
    pub launched_by: String,
    /// The names of its campaigns.
    pub campaigns: Vec<String>,
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file_name, launched_at, launched_by, campaigns, .. } = self;
        let shown = campaigns.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if campaigns.len() > 5 { ", …" } else { "" };
        let at = launched_at.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "as {file_name} on {at} by {launched_by} (campaigns: {shown}{more})")
    }
}

/// Why a file was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The same bytes were launched before, and all of it is settled.
    #[error("the same bytes were launched before, {0}; to send them once more, say `--again`")]
    Launched(Earlier),
    /// Another process is loading the same bytes right now.
    #[error("{launched_by} is loading the same bytes right now, as {file_name}")]
    Busy {
        /// Its file name.
        file_name: String,
        /// By whom.
        launched_by: String,
    },
    /// The ledger was restored to the middle of loading it, and it was sent since.
    #[error(
        "the ledger was restored to the middle of loading the same bytes (as {file_name} on {}, by {launched_by}), and the \
         gateway's list shows that they were sent since; launch a file of those who are known to have got nothing",
        launched_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    )]
    SentSince {
        /// Its file name then.
        file_name: String,
        /// When.
        launched_at: Timestamp,
        /// By whom.
        launched_by: String,
    },
    /// It can't be read any more.
    #[error(transparent)]
    Refused(Refusal),
    /// It is not the file that was checked. Nothing of it was queued.
    #[error("{file_name} changed while it was read; nothing was queued: wait until it is written and launch it again")]
    Changed {
        /// Its name.
        file_name: String,
    },
    /// It was told to stop.
    #[error("loading was stopped; nothing was queued, launch the same file again")]
    Cancelled,
    /// Nothing was queued; the same launch may go through later.
    #[error("the ledger did not take the file")]
    Ledger(#[source] ledger::Error),
}

/// Loads a checked file. `progress` hears the number of rows so far.
///
/// What `preview` was checked with is in force; if the file is another by now, nothing is queued. The caller tells the
/// feeder that there is something to do. `clock` tells the time now: rows are judged by one reading of it.
///
/// # Errors
/// [`LoadError`]; after each nothing of this launch is queued, and the same call may be made again.
pub async fn load(
    ledger: &Ledger,
    path: &Path,
    preview: &Preview,
    launch: &Launch,
    clock: impl Fn() -> Timestamp,
    progress: impl Fn(u64),
    cancel: &CancellationToken,
) -> Result<Outcome, LoadError> {
    match begin(ledger, preview, launch, clock()).await? {
        Begun::Load(begun) => {
            let dir = launch.rejects_dir.as_deref().or(path.parent()).unwrap_or(Path::new("."));
            let rejects = rejects_path(dir, &preview.file_name);
            fill(ledger, path, preview, begun, rejects, clock, progress, cancel).await.map(Outcome::Loaded)
        }
        Begun::Launched { earlier, unfinished: true } => Ok(Outcome::AlreadyUnfinished(earlier)),
        Begun::Launched { earlier, unfinished: false } => Err(LoadError::Launched(earlier)),
    }
}

/// What the ledger said to a launch.
pub(crate) enum Begun {
    Load(Loading),
    Launched { earlier: Earlier, unfinished: bool },
}

/// An import that is loading.
pub(crate) struct Loading {
    pub(crate) import: ImportId,
    campaigns: Vec<(CampaignId, String)>,
}

pub(crate) async fn begin(
    ledger: &Ledger,
    preview: &Preview,
    launch: &Launch,
    now: Timestamp,
) -> Result<Begun, LoadError> {
    let priority = preview.options.priority.unwrap_or(0);
    let new = NewImport {
        file_name: preview.file_name.clone(),
        sha256: preview.sha256.clone(),
        bytes: preview.bytes,
        rows_in_file: preview.rows,
        again: launch.again,
        launched_by: launch.launched_by.clone(),
        owner: launch.owner,
        campaigns: preview
            .campaigns
            .iter()
            .map(|campaign| NewCampaign {
                name: campaign.name.clone(),
                priority,
                quiet: preview.options.quiet.clone(),
                weekdays: preview.options.weekdays.clone(),
                zone: preview.options.zone.clone(),
                // It was read when the file was checked.
                rate: preview.options.rate().ok().flatten(),
            })
            .collect(),
    };
    Ok(match past_conflicts(|| ledger.begin_import(&new, now)).await? {
        ImportStart::Load { import, campaigns } => Begun::Load(Loading { import, campaigns }),
        ImportStart::Busy { file_name, launched_by } => return Err(LoadError::Busy { file_name, launched_by }),
        ImportStart::SentSince { file_name, launched_at, launched_by } => {
            return Err(LoadError::SentSince { file_name, launched_at, launched_by });
        }
        ImportStart::Launched { import, file_name, launched_at, launched_by, campaigns, unfinished } => {
            let earlier = Earlier { import, file_name, launched_at, launched_by, campaigns };
            Begun::Launched { earlier, unfinished }
        }
    })
}

/// Loads the rows and makes the campaigns active.
#[expect(clippy::too_many_arguments, reason = "each is its own thing, and both callers stand by")]
pub(crate) async fn fill(
    ledger: &Ledger,
    path: &Path,
    preview: &Preview,
    loading: Loading,
    rejects: PathBuf,
    clock: impl Fn() -> Timestamp,
    progress: impl Fn(u64),
    cancel: &CancellationToken,
) -> Result<Loaded, LoadError> {
    let Loading { import, campaigns } = loading;
    let mut span = telemetry::span("load file");
    let now = clock();
    let rows_per_block = if ledger.is_embedded() { ROWS_PER_APPEND } else { ROWS_PER_COPY };
    // The chunker makes many chunks at once: while they are written, rows for the next are gathered.
    let (blocks, to_write) = mpsc::channel::<Vec<NewChunk>>(BUFFERED_ROWS_MAX / rows_per_block);
    let reader = Reader {
        path: path.to_owned(),
        preview: preview.clone(),
        import,
        campaigns: campaigns.iter().map(|(id, _)| *id).collect(),
        now,
        rows_per_block,
    };
    let reading = spawn_blocking(move || reader.read(rejects, &blocks));

    let opt_outs = past_conflicts(|| ledger.opt_outs_if_few(OPT_OUTS_KNOWN_MAX)).await?;
    let (to_write, rows) = (Mutex::new(to_write), AtomicU64::new(0));
    let write = async || {
        let mut suppressed = RoaringBitmap::new();
        loop {
            let Some(mut chunks) = to_write.lock().await.recv().await else { return Ok(suppressed) };
            if cancel.is_cancelled() {
                return Err(LoadError::Cancelled);
            }
            mark_suppressed(ledger, opt_outs.as_ref(), &mut chunks, &mut suppressed).await?;
            past_conflicts(|| ledger.append_chunks(import, &chunks, clock())).await?;
            let more = chunks.iter().map(|chunk| chunk.rows.len() as u64).sum();
            progress(rows.fetch_add(more, Ordering::Relaxed) + more);
        }
    };
    let suppressed = if ledger.is_embedded() {
        write().await?
    } else {
        // A server has a process for each connection, and a file's blocks may come in any order.
        let (one, other) = tokio::try_join!(write(), write())?;
        one | other
    };
    let changed = || LoadError::Changed { file_name: preview.file_name.clone() };
    let read = match reading.await.expect("the reading thread hands panics on") {
        Ok(read) if (&read.sha256, read.rows) == (&preview.sha256, preview.rows) => read,
        Ok(_) | Err(Stop::Changed) => {
            past_conflicts(|| ledger.abandon_import(import)).await?;
            return Err(changed());
        }
        Err(Stop::Unreadable(refusal)) => {
            past_conflicts(|| ledger.abandon_import(import)).await?;
            return Err(LoadError::Refused(refusal));
        }
        Err(Stop::NobodyWrites) => return Err(LoadError::Cancelled),
    };
    // Before the import is finished: after it, nobody would come back for them.
    let (path, encoding) = (path.to_owned(), preview.options.encoding().map_err(LoadError::Refused)?);
    let (mut rejects, mut rejects_problem) = (read.rejects, read.rejects_problem);
    let shown = spawn_blocking(move || {
        if rejects_problem.is_none() {
            rejects_problem = add_suppressed(&path, encoding, &suppressed, &mut rejects).err();
        }
        match rejects_problem {
            None => rejects.finish().map_err(|error| error.to_string()),
            Some(problem) => Err(problem),
        }
    })
    .await
    .expect("the writing thread hands panics on");
    let Totals { sendable, invalid, duplicate, suppressed } =
        past_conflicts(|| ledger.finish_import(import, clock())).await?;
    span.count("rows", preview.rows);
    span.count("sendable", sendable);
    span.end("loaded");
    let (rejects_file, rejects_problem) = match shown {
        Ok(file) => (file, None),
        Err(problem) => (None, Some(problem)),
    };
    Ok(Loaded { import, campaigns, sendable, invalid, duplicate, suppressed, rejects_file, rejects_problem })
}

/// Marks who has opted out, by what was known when loading began or else by looking them up. The claim looks again before
/// anything is sent.
async fn mark_suppressed(
    ledger: &Ledger,
    known: Option<&OptOuts>,
    chunks: &mut [NewChunk],
    suppressed: &mut RoaringBitmap,
) -> Result<(), LoadError> {
    let mut mark = |row: &mut NewRow| {
        row.state = RowState::Suppressed;
        row.reason = Some(OPTED_OUT.to_owned());
        suppressed.insert(row.row_number);
    };
    let rows = chunks.iter_mut().flat_map(|chunk| &mut chunk.rows);
    let waiting = rows.filter(|row| matches!(row.state, RowState::Queued | RowState::Scheduled));
    if let Some(known) = known {
        let out = |row: &NewRow| known.include(row.sender.as_ref()?, row.destination?).then_some(());
        waiting.filter(|row| out(row).is_some()).for_each(&mut mark);
        return Ok(());
    }
    let waiting: Vec<&mut NewRow> = waiting.collect();
    let recipients: Vec<_> = waiting.iter().filter_map(|row| Some((row.sender.clone()?, row.destination?))).collect();
    if recipients.is_empty() {
        return Ok(());
    }
    let opted_out = past_conflicts(|| ledger.suppressed_among(&recipients)).await?;
    waiting.into_iter().zip(opted_out).filter(|(_, out)| *out).for_each(|(row, _)| mark(row));
    Ok(())
}

const OPTED_OUT: &str = "has opted out";

/// A ledger call, made again while another transaction wins. All calls of this module may be repeated.
async fn past_conflicts<T, F: Future<Output = ledger::Result<T>>>(call: impl Fn() -> F) -> Result<T, LoadError> {
    let mut conflicts = 0;
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Conflict && conflicts < CONFLICTS_MAX => conflicts += 1,
            other => return other.map_err(LoadError::Ledger),
        }
    }
}

/// Why reading ended early.
enum Stop {
    Changed,
    Unreadable(Refusal),
    NobodyWrites,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreadable { .. } => Self::Unreadable(refusal),
            // It was checked a moment ago and had no fault.
            _ => Self::Changed,
        }
    }
}

struct ReadThrough {
    sha256: String,
    rows: u64,
    rejects: Rejects,
    rejects_problem: Option<String>,
}

/// What rows of one chunk should share: sender, text (by its first row), time.
pub(crate) type Shared = (Option<Arc<SenderId>>, u32, Option<Timestamp>);

/// Where the chunker puts a row.
pub(crate) struct Place {
    /// With those of its campaign that are sent, or that are not.
    pub(crate) group: (u16, bool),
    pub(crate) shared: Shared,
    pub(crate) number: u64,
}

pub(crate) fn place(row: &Row) -> Place {
    let sendable = row.verdict.is_placed_with_sendable();
    let shared = match &row.text {
        Some(text) if sendable => (row.sender.clone(), text.first_row, row.send_at),
        _ => (None, 0, None),
    };
    let number = row.destination.filter(|_| sendable).map_or(0, Msisdn::as_u64);
    Place { group: (row.campaign, !sendable), shared, number }
}

/// The blocking half: file → chunks.
struct Reader {
    path: PathBuf,
    preview: Preview,
    import: ImportId,
    campaigns: Vec<CampaignId>,
    now: Timestamp,
    rows_per_block: usize,
}

impl Reader {
    fn read(self, rejects: PathBuf, blocks: &mpsc::Sender<Vec<NewChunk>>) -> Result<ReadThrough, Stop> {
        let preview = &self.preview;
        let numbers = Numbers::Known(Arc::clone(&preview.repeats));
        let Opened { records, mut assessor } =
            Opened::new(&self.path, &preview.file_name, &preview.options, None, numbers, self.now)?;
        let mut rejects = Rejects::new(rejects, records.header().clone(), Some(assessor.destination_column()));
        let mut rejects_problem = None;
        let mut chunker = Chunker::new(CHUNK_ROWS_MAX, BUFFERED_ROWS_MAX, BUFFERED_TEXTS_MAX);
        let mut block = Block { reader: &self, ordinal: 0, chunks: Vec::new(), rows: 0 };
        let mut rows = 0;
        let records = read_ahead(records, |number, record| {
            let row = assessor.assess(number, record)?;
            rows += 1;
            if let Some(reject) = row.verdict.reject()
                && rejects_problem.is_none()
            {
                rejects_problem =
                    rejects.write(number, record, reject.code, &reject.reason).err().map(|error| error.to_string());
            }
            let Place { group, shared, number } = place(&row);
            chunker.push(group, shared, number, row);
            while let Some(((campaign, _), rows)) = chunker.pop() {
                block.add(campaign, rows, blocks)?;
            }
            Ok::<_, Stop>(())
        })?;
        chunker.finish();
        while let Some(((campaign, _), rows)) = chunker.pop() {
            block.add(campaign, rows, blocks)?;
        }
        block.send(blocks)?;
        let (sha256, _) = records.digest();
        Ok(ReadThrough { sha256, rows, rejects, rejects_problem })
    }

    fn chunk(&self, ordinal: u32, campaign: u16, rows: Vec<Row>) -> Result<NewChunk, Stop> {
        let campaign = *self.campaigns.get(usize::from(campaign)).ok_or(Stop::Changed)?;
        let mut texts = Vec::new();
        let rows = rows
            .into_iter()
            .map(|row| {
                if let Some(text) = row.text.as_ref().filter(|text| text.is_brought_now()) {
                    texts.push(self.new_text(text));
                }
                self.new_row(row)
            })
            .collect();
        Ok(NewChunk { id: ChunkId::nth(self.import, ordinal), campaign, texts, rows })
    }

    fn new_text(&self, text: &Text) -> NewText {
        NewText {
            id: TextId::first_used(self.import, text.first_row),
            body: text.body.to_string(),
            encoding: text.stats.encoding,
            segments: text.stats.segments,
        }
    }

    fn new_row(&self, row: Row) -> NewRow {
        let (state, reason) = match row.verdict {
            Verdict::Sendable if row.send_at.is_some_and(|at| at > self.now) => (RowState::Scheduled, None),
            Verdict::Sendable => (RowState::Queued, None),
            Verdict::Invalid(reject) | Verdict::Late(reject) => (RowState::Invalid, Some(reject.reason)),
            Verdict::Duplicate(reject) => (RowState::Duplicate, Some(reject.reason)),
        };
        NewRow {
            row_number: row.number,
            state,
            reason,
            destination_raw: row.destination_raw,
            destination: row.destination,
            sender: row.sender.map(|sender| sender.as_ref().clone()),
            text: row.text.map(|text| TextId::first_used(self.import, text.first_row)),
            reference: row.reference,
            scheduled_for: row.send_at,
            valid_until: row.valid_until,
        }
    }
}

/// Chunks that go to the ledger in one transaction.
struct Block<'a> {
    reader: &'a Reader,
    ordinal: u32,
    chunks: Vec<NewChunk>,
    rows: usize,
}

impl Block<'_> {
    fn add(&mut self, campaign: u16, rows: Vec<Row>, blocks: &mpsc::Sender<Vec<NewChunk>>) -> Result<(), Stop> {
        self.rows += rows.len();
        self.chunks.push(self.reader.chunk(self.ordinal, campaign, rows)?);
        self.ordinal += 1;
        if self.rows >= self.reader.rows_per_block { self.send(blocks) } else { Ok(()) }
    }

    fn send(&mut self, blocks: &mpsc::Sender<Vec<NewChunk>>) -> Result<(), Stop> {
        self.rows = 0;
        let chunks = std::mem::take(&mut self.chunks);
        if chunks.is_empty() {
            return Ok(());
        }
        blocks.blocking_send(chunks).map_err(|_| Stop::NobodyWrites)
    }
}

/// Adds those who have opted out to the rejects: their lines are read once more, since nobody kept them.
fn add_suppressed(
    path: &Path,
    encoding: Option<&'static encoding_rs::Encoding>,
    suppressed: &RoaringBitmap,
    rejects: &mut Rejects,
) -> Result<(), String> {
    if suppressed.is_empty() {
        return Ok(());
    }
    let mut records = Records::open(path, encoding).map_err(|refusal| refusal.to_string())?;
    while let Some((number, record)) = records.next().map_err(|refusal| refusal.to_string())? {
        if suppressed.contains(number) {
            rejects.write(number, record, "suppressed", OPTED_OUT).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
