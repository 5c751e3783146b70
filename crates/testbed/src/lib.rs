//! The ground that tests stand on: throw-away Postgres and Redis servers, processes with a deadline, waiting, odd bytes.
//!
//! Guarantees: a server listens on the loopback interface only, on a port and in a directory of its own, and ends with
//! the value that stands for it; only processes started here are ever ended. Nothing is shared between two tests but
//! the Postgres *server* that `tests/run` names in `CRIER_TEST_POSTGRES`, on which each test makes its own database.
//!
//! Deliberately not here: anything of the product. This crate is a development dependency alone, and everything in it
//! panics with a sentence where a test can't go on.

pub mod bytes;
pub mod http;
mod port;
mod postgres;
mod process;
mod redis;
mod waiting;

pub use port::Port;
pub use postgres::{Database, Postgres, database};
pub use process::{Finished, Process, Signal};
pub use redis::Redis;
pub use waiting::{eventually, eventually_async};

/// How long a server may take to start or to end. A loaded machine is slow; a healthy one needs a hundredth of it.
const SERVER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
