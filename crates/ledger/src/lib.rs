//! The truth about every row, in SQL: SQLite or Postgres behind one API.
//!
//! Each transition is one guarded statement, whose zero-rows answer has a name. Instants are stored as UTC milliseconds.
//! A committed transaction survives a crash (`synchronous=FULL`).
//!
//! Deliberately not here: files, queues and HTTP; no call of this crate waits for any of them.

mod claims;
mod clock;
mod db;
mod decisions;
mod error;
mod events;
mod feed;
mod imports;
mod listing;
mod owners;
mod time;
mod tokens;

pub use campaign::token::TokenPhase;
pub use claims::{Claim, ClaimedBatch, Recorded, RetryPolicy, SendingBatch, Start, Unsent};
pub use db::{Ledger, Schema};
pub use decisions::{Todo, Verdict};
pub use error::{Error, ErrorKind};
pub use events::Event;
pub use feed::{Backlog, Waiting};
pub use imports::{Encoding, ImportStart, NewCampaign, NewChunk, NewImport, NewRow, NewText, Totals};
pub use listing::{Applied, Delivery, DueDetail, ListedText, OpenAttempt, PendingWindow};
pub use owners::OwnerGuard;
pub use tokens::{TokenClaim, TokenRow, TokenTrouble, TokenTroubleKind};

/// Result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;
