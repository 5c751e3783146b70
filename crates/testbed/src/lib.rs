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
mod postgres;
mod process;
mod redis;
mod waiting;

pub use postgres::{Database, Postgres, database};
pub use process::{Finished, Process, Signal};
pub use redis::Redis;
pub use waiting::{eventually, eventually_async};

use std::net::TcpListener;

/// How long a server may take to start or to end. A loaded machine is slow; a healthy one needs a hundredth of it.
const SERVER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// A server on a port that was free a moment ago. Somebody else may take it first: then the server ends by itself and
/// the next port is tried.
fn on_a_free_port<S>(start: impl Fn(u16) -> Option<S>) -> S {
    for _ in 0..20 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        drop(listener);
        if let Some(server) = start(port) {
            return server;
        }
    }
    panic!("a server did not start on any of 20 ports")
}
