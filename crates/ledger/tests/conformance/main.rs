//! What the ledger promises, the same on SQLite and on Postgres: each test runs one body on both.
//!
//! Between the steps of a test the whole ledger is checked for what must hold at every commit ([`Bench::check`]).

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

mod bench;
mod claiming;
mod consistency;
mod deciding;
mod feeding;
mod loading;
mod looking;
mod opting_out;
mod overlapping;
mod owning;
mod purging;
mod quarantining;
mod races;
mod recording;
mod replying;
mod schema;
mod shuffled;
mod steering;
mod timing;
mod views;

pub(crate) use bench::{Bench, SHOP, at, on_both};
