//! Loading a file: import, campaigns, texts, chunks, rows.

use crate::{Ledger, Result};
use campaign::{CampaignId, ChunkId, ImportId, Msisdn, RowState, SenderId, TextId};
use jiff::Timestamp;

/// How a text is encoded on the air.
pub use campaign::text::Encoding;

/// A file that is about to be loaded.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// Its name, without folders.
    pub file_name: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Lines below the header, rejected ones too.
    pub rows_in_file: u64,
    /// Load it although the same bytes were launched before.
    pub again: bool,
    /// Who launches it.
    pub launched_by: String,
    /// Its campaigns, by the name that the file gives them.
    pub campaigns: Vec<NewCampaign>,
}

/// One campaign of a file.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// The name that the file gives it.
    pub name: String,
    /// Higher goes first.
    pub priority: i32,
}

/// What [`Ledger::begin_import`] found.
#[derive(Clone, Debug)]
pub enum ImportStart {
    /// Load all chunks. Also after a crash in the middle: chunks that are there already are skipped by
    /// [`Ledger::append_chunks`].
    Load {
        /// The import.
        import: ImportId,
        /// The ids of its campaigns, in the order in which they were given, each with the name that it got: a name that
        /// is taken by an earlier launch gets `-2`, `-3`, ….
        campaigns: Vec<(CampaignId, String)>,
        /// Some of it was loaded before.
        resumed: bool,
    },
    /// The same bytes were launched before.
    Launched {
        /// The earlier import.
        import: ImportId,
        /// Its file name then.
        file_name: String,
        /// When.
        launched_at: Timestamp,
        /// By whom.
        launched_by: String,
        /// The names of its campaigns.
        campaigns: Vec<String>,
        /// Some of its rows are neither final nor held yet.
        unfinished: bool,
    },
}

/// A text, once, however many rows share it.
#[derive(Clone, Debug)]
pub struct NewText {
    /// [`TextId::first_used`].
    pub id: TextId,
    /// The rendered text.
    pub body: String,
    /// Its encoding.
    pub encoding: Encoding,
    /// Its segments.
    pub segments: u32,
}

/// A run of rows of one campaign, 1..=[`campaign::id::CHUNK_ROWS_MAX`].
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// [`ChunkId::nth`]: the same on every reading of the file.
    pub id: ChunkId,
    /// Its campaign.
    pub campaign: CampaignId,
    /// Texts that its rows use and that no earlier chunk brought. A text that is there already is skipped.
    pub texts: Vec<NewText>,
    /// Its rows; the n-th has the id `id.row(n)`.
    pub rows: Vec<NewRow>,
}

/// One line of the file.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The spreadsheet's: the header is row 1.
    pub row_number: u32,
    /// `Invalid`, `Duplicate`, `Suppressed`, `Scheduled` or `Queued`.
    pub state: RowState,
    /// Why, for the first three.
    pub reason: Option<String>,
    /// The destination as written.
    pub destination_raw: String,
    /// The number, unless it is none.
    pub destination: Option<Msisdn>,
    /// Who it is from, unless that is what is wrong.
    pub sender: Option<SenderId>,
    /// Its text, unless that is what is wrong.
    pub text: Option<TextId>,
    /// The person's own reference.
    pub reference: Option<String>,
    /// Not before.
    pub scheduled_for: Option<Timestamp>,
    /// Not after.
    pub valid_until: Option<Timestamp>,
}

/// Rows of an import by what became of them at loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queued or scheduled.
    pub sendable: u64,
    /// Invalid.
    pub invalid: u64,
    /// Duplicate.
    pub duplicate: u64,
    /// Suppressed.
    pub suppressed: u64,
}

impl Ledger {
    /// Starts or resumes loading a file. The same bytes are loaded once, by any number of processes, unless `again`.
    pub async fn begin_import(&self, _new: &NewImport, _now: Timestamp) -> Result<ImportStart> {
        todo!()
    }

    /// Adds chunks in one transaction. A chunk that is there already is skipped whole.
    pub async fn append_chunks(&self, _import: ImportId, _chunks: &[NewChunk], _now: Timestamp) -> Result<()> {
        todo!()
    }

    /// Makes the campaigns of a fully loaded import active: nothing of it was sent before. Checks that the rows in the
    /// ledger are as many as the file has. Harmless when repeated.
    pub async fn finish_import(&self, _import: ImportId, _now: Timestamp) -> Result<Totals> {
        todo!()
    }

    /// Removes an import that was never finished, with all its rows: the file changed while it was read.
    pub async fn abandon_import(&self, _import: ImportId) -> Result<()> {
        todo!()
    }

    /// Which of these recipients have opted out of texts from their sender.
    pub async fn suppressed_among(&self, _recipients: &[(SenderId, Msisdn)]) -> Result<Vec<bool>> {
        todo!()
    }

    /// The sender ids that the gateway had approved when they were last read, and when that was; `None` if never.
    pub async fn approved_senders(&self) -> Result<Option<(Timestamp, Vec<SenderId>)>> {
        todo!()
    }

    /// Records the gateway's sender ids, each with whether it is approved.
    pub async fn record_senders(&self, _senders: &[(SenderId, bool)], _now: Timestamp) -> Result<()> {
        todo!()
    }
}
