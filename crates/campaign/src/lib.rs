//! The words and the rules of a bulk SMS campaign.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no randomness. The send-and-resolve protocol
//! (claim, classify, match, resolve, feed, tokens, call budget) lives here once and is driven by the worker, the
//! reconciler and the tests alike.
//!
//! Deliberately not here: SQL (`ledger`), HTTP (`gateway`), files (`ingest`).

pub mod batch;
pub mod budget;
pub mod forecast;
pub mod id;
pub mod keyword;
pub mod matching;
pub mod money;
pub mod msisdn;
#[cfg(feature = "simulated")]
pub mod mutant;
pub mod outcome;
pub mod quiet;
pub mod rate;
pub mod resolve;
pub mod sender;
pub mod state;
pub mod sweep;
pub mod template;
pub mod text;
pub mod token;

pub use id::{AttemptId, CampaignId, ChunkId, ImportId, OwnerId, RowId, SmsId, TextId};
pub use keyword::Keyword;
pub use money::{Money, Prices};
pub use msisdn::{Msisdn, Region};
pub use outcome::Outcome;
pub use sender::SenderId;
pub use state::RowState;
