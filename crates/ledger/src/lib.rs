//! The truth about every row, in SQL: SQLite or Postgres behind one API.
//!
//! Each transition is one guarded statement, whose zero-rows answer has a name. Instants are stored as UTC milliseconds.
//! A transaction that lets a call go out survives a crash of the machine before it is answered (`disk.rs`).
//!
//! Deliberately not here: files, queues and HTTP; no call of this crate waits for any of them.

mod abandoned;
mod attempts;
mod claims;
mod clock;
mod db;
mod decisions;
#[cfg(not(feature = "simulated"))]
mod disk;
mod error;
mod events;
mod feed;
mod imports;
mod inbound;
mod listing;
mod opt_outs;
mod outcomes;
mod overlap;
mod owners;
mod packs;
mod quarantine;
mod rates;
mod readings;
mod reports;
mod reschedule;
mod retention;
mod retry;
mod rounds;
#[cfg(feature = "simulated")]
pub mod simulated;
mod statuses;
mod steering;
mod time;
mod tokens;
mod transitions;
mod writer;

pub use attempts::OpenAttempt;
pub use campaign::token::TokenPhase;
pub use claims::{Claim, ClaimedBatch, SendingBatch, Unsent};
pub use db::{Ledger, Schema};
pub use decisions::{Decided, EarlierDecision, FoundRow, Todo, Verdict};
pub use error::{Error, ErrorKind, chain};
pub use events::Event;
pub use feed::{Backlog, Out, Waiting};
pub use imports::{Encoding, ImportStart, NewCampaign, NewChunk, NewImport, NewRow, NewText, OptOuts, Totals};
pub use inbound::{Inbound, InboundText, TakenInbound};
pub use listing::{Applied, Delivery, ListedText, Listing, TEXTS_A_COMMIT};
pub use opt_outs::{MadeBy, NewOptOut, OptOut, OptedIn, OptedOut};
pub use outcomes::{Recorded, RetryPolicy};
pub use overlap::{QueuedWork, Recipient, Texted};
pub use owners::OwnerGuard;
pub use quarantine::{Identity, Quarantine};
pub use readings::NotedReading;
pub use reports::{
    CampaignSummary, Check, FailureReason, Gauges, HeldRow, LiveOwner, Log, LogEntry, REPORT_COLUMNS, ReportRow,
    Results, Story, StoryAttempt, StoryEvent, StoryReading, Trouble, WaitingRows,
};
pub use reschedule::{NewTimes, Rescheduled};
pub use retention::{Purged, Retention};
pub use retry::{Retriable, Retry};
pub use rounds::{MarkedBatch, Round, Rounded, Start};
pub use statuses::{DueDetail, PendingWindow};
pub use steering::{By, CampaignState, Steered, Swept};
pub use tokens::{TokenClaim, TokenRow, TokenTrouble, TokenTroubleKind};

/// Result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;
