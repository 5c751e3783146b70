//! The client of the provider's SMS gateway: all nine calls, tokens, and the call budget that every process shares.
//!
//! Guarantees: a send call is made once, by no layer twice; a refresh token is presented once, by any number of processes
//! (and a second time only after a crash in the middle); no call is made without a grant of the budget. What one send
//! call did is decided by [`campaign::outcome::classify`].
//!
//! Deliberately not here: what becomes of a row (`campaign`, `ledger`), and any retry of a send.

mod budget;
mod client;
mod error;
mod http;
mod patience;
mod seal;
mod settings;
#[cfg(feature = "simulated")]
pub mod simulated;
mod tokens;
pub mod wire;

pub use budget::{Budget, Heard};
pub use campaign::budget::CallClass;
pub use client::{Dialled, Gateway, ListQuery, Listed, Permit, Sent};
pub use error::{CallError, CallErrorKind};
pub use settings::Settings;
pub use tokens::renewals_are_over;
