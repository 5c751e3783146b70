//! What a journey needs: the real binary in a clean environment, a sandbox to send to, a ledger and a queue.
//!
//! A journey owns everything that it starts; see `testbed` for the servers and for waiting.

mod collector;
mod crier;
mod mailing;
mod oracle;
mod production;
mod sandbox;
mod service;
mod spy;

pub(crate) use collector::Collector;
pub(crate) use crier::Crier;
pub(crate) use mailing::Mailing;
pub(crate) use oracle::{Account, account};
pub(crate) use production::{Production, is_all_settled};
pub(crate) use sandbox::Sandbox;
pub(crate) use service::{Notified, Service};
pub(crate) use spy::Spy;
pub(crate) use testbed::{Database, Finished, Port, Postgres, Process, Redis, Signal, database, eventually};

use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;

/// Longer than anything that a journey waits for on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(75);

/// The place of one journey: a directory of its own, and a sandbox that knows the sender `ACME`.
pub(crate) struct Place {
    pub(crate) sandbox: Sandbox,
    pub(crate) dir: TempDir,
}

impl Place {
    /// With a gateway that delivers fast and allows more calls than a journey makes.
    pub(crate) fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With a gateway that is like this besides.
    pub(crate) fn with(config: &Value) -> Self {
        let dir =
            tempfile::Builder::new().prefix("crier-journey-").tempdir().expect("temporary directories can be made");
        let mut fast = json!({
            "delivery_min_ms": 100, "delivery_max_ms": 500, "rate_limit": 100_000, "fail_endings": ["999"],
        });
        for (key, value) in config.as_object().into_iter().flatten() {
            fast[key] = value.clone();
        }
        let sandbox = Sandbox::start(dir.path(), &fast);
        Self { sandbox, dir }
    }

    /// Writes a file and names its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("the journey's directory is writable");
        path
    }

    /// The address of an embedded ledger of this journey.
    pub(crate) fn sqlite(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("ledger.db").display())
    }

    /// `crier` with the sandbox as its gateway, an embedded ledger and a queue inside of the process.
    pub(crate) fn crier(&self) -> Crier {
        Crier::new(self.dir.path())
            .gateway(&self.sandbox)
            .ledger(&self.sqlite())
            .queue("memory:")
            .set("GATEWAY__CALLS_PER_WINDOW", "100000")
            .set("GATEWAY__CONNECT_TIMEOUT", "2s")
            .set("GATEWAY__READ_TIMEOUT", "10s")
            .set("GATEWAY__SEND_TIMEOUT", "5s")
            .set("METRICS__LISTEN", "off")
            .set("RECONCILE__SETTLE", "2s")
            .set("RECONCILE__FIRST_LOOK", "1s")
    }

    /// `crier` as in production: a ledger and a queue that processes share.
    pub(crate) fn crier_on(&self, ledger: &Database, queue: &Redis) -> Crier {
        self.crier().ledger(&ledger.url()).queue(&queue.url())
    }
}
