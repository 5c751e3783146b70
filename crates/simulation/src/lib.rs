//! The protocol under a seeded simulator: the product's own ledger on SQLite, worker, reconciler, feeder, tokens and budget, in
//! virtual time on one thread, while a gateway, a queue, processes and people do to it whatever the fault model allows.
//!
//! Guarantee: a seed is a run, the same each time. After each commit and each call the invariants of `model` are checked, and
//! at the end the gateway's own book is compared with the ledger.
//!
//! Deliberately not here: a second copy of the protocol. Time is virtual, the network is [`gateway`]'s wire of the
//! simulation, and the database is the real one without its disk.

#[cfg(feature = "simulated")]
pub mod book;
#[cfg(feature = "simulated")]
mod driver;
#[cfg(feature = "simulated")]
pub mod fault;
#[cfg(feature = "simulated")]
pub mod model;
#[cfg(feature = "simulated")]
mod process;
#[cfg(feature = "simulated")]
mod rng;
#[cfg(feature = "simulated")]
pub mod run;
#[cfg(feature = "simulated")]
pub mod scenario;
#[cfg(feature = "simulated")]
mod world;

#[cfg(feature = "simulated")]
pub use fault::Fault;
#[cfg(feature = "simulated")]
pub use run::{Ended, Template, run, shrink};
#[cfg(feature = "simulated")]
pub use scenario::Scenario;
