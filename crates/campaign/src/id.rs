//! Distinct types for the ids of the ledger and of the gateway.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// One launch of one file.
    ImportId
    /// One named campaign of an import.
    CampaignId
    /// A run of rows of one campaign that is claimed together.
    ChunkId
    /// One line of the file.
    RowId
    /// One rendered text.
    TextId
    /// One gateway call that sends a batch.
    AttemptId
    /// A running process that sends or reconciles.
    OwnerId
    /// The gateway's own id of a text it took (collection: `sms_id`).
    SmsId
}

/// Most rows a chunk may hold; the id space of a chunk.
pub const CHUNK_ROWS_MAX: usize = 500;

const ROWS_PER_CHUNK: i64 = 512;
const CHUNKS_PER_IMPORT: i64 = 1 << 24;

impl ChunkId {
    /// The id of the `ordinal`-th chunk of an import: the same on every reading of the same file, so that loading a
    /// file again after a crash can't load a chunk twice.
    pub fn nth(import: ImportId, ordinal: u32) -> Self {
        Self(import.0 * CHUNKS_PER_IMPORT + i64::from(ordinal))
    }

    /// The id of the `offset`-th row of this chunk; `offset` is below [`CHUNK_ROWS_MAX`].
    pub fn row(self, offset: u16) -> RowId {
        RowId(self.0 * ROWS_PER_CHUNK + i64::from(offset))
    }

    /// First and last possible row id of this chunk: its rows are one range of the primary key.
    pub fn row_range(self) -> (RowId, RowId) {
        (RowId(self.0 * ROWS_PER_CHUNK), RowId(self.0 * ROWS_PER_CHUNK + ROWS_PER_CHUNK - 1))
    }
}

impl RowId {
    /// The chunk that holds this row.
    pub fn chunk(self) -> ChunkId {
        ChunkId(self.0 / ROWS_PER_CHUNK)
    }
}

impl TextId {
    /// The id of the text first used by the row `row_number` of an import.
    pub fn first_used(import: ImportId, row_number: u32) -> Self {
        Self((import.0 << 32) | i64::from(row_number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_owns_its_rows_and_no_others() {
        let chunk = ChunkId::nth(ImportId(3), 7);
        let (first, last) = chunk.row_range();
        assert_eq!(chunk.row(0), first);
        assert!(chunk.row(u16::try_from(CHUNK_ROWS_MAX).unwrap() - 1) <= last);
        assert_eq!(last.chunk(), chunk);
        assert_eq!(RowId(last.0 + 1).chunk(), ChunkId::nth(ImportId(3), 8));
    }
}
