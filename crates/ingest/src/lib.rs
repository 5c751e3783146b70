//! A CSV file, or a folder that files are dropped into, becomes rows of the ledger.
//!
//! ```no_run
//! # fn main() -> Result<(), ingest::Refusal> {
//! use ingest::{Checks, Options, check};
//! let now = "2026-03-01T09:00:00Z".parse().expect("a literal");
//! let preview = check("march.csv".as_ref(), &Options::default(), &Checks::at(now))?;
//! assert_eq!(preview.rows, preview.sendable + preview.invalid + preview.duplicates);
//! # Ok(()) }
//! ```
//!
//! Guarantee: a file is refused whole, with one line that says why, before anything of it is queued; or each of its rows
//! is in the ledger exactly once, in one state, however often loading it was broken off. Memory is bounded whatever the
//! file's size: it is read twice ([`check`], [`load`]) and never held.
//!
//! Deliberately not here: the gateway (nothing in this crate can reach it) and the order in which rows are sent.

mod ahead;
mod check;
mod chunker;
mod columns;
mod copies;
mod decode;
mod dialect;
pub mod feeder;
mod folder;
mod guard;
mod load;
mod opt_outs;
mod options;
mod plan;
mod plan_id;
mod preview;
mod records;
mod refusal;
mod rejects;
mod row;
mod seen;
mod source;
mod texts;
mod times;
mod watch;

pub use check::{Checks, check};
pub use copies::{CopiesError, purge_copies};
pub use load::{Earlier, Launch, LoadError, Loaded, Outcome, load};
pub use opt_outs::{OptOutLine, Wish, opt_outs};
pub use options::{Options, parse_priority};
pub use plan::{Cost, CostOf, NotHeld, Overlap, Survey, SurveyError, Terms, Unpriced, checked, survey};
pub use plan_id::{NoPlanId, PlanId};
pub use preview::{CampaignPreview, Preview, RejectSample, TextSample};
pub use refusal::Refusal;
pub use row::CAMPAIGNS_MAX;
pub use times::{Bound, NoTime, ReadTime, Times};
pub use watch::{Happened, WatchError, WatchSettings, watch};
