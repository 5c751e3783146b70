//! What a journey needs: the real binary in a clean environment, a sandbox to send to, a ledger and a queue.
//!
//! A journey owns everything that it starts; see `testbed` for the servers and for waiting.

mod crier;
mod sandbox;

pub(crate) use crier::Crier;
pub(crate) use sandbox::Sandbox;
pub(crate) use testbed::{Database, Finished, Postgres, Process, Redis, Signal, database, eventually};

use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;

/// Longer than anything that a journey waits for on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The place of one journey: a directory of its own, and a sandbox that knows the sender `ACME`.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) sandbox: Sandbox,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("crier-journey-").tempdir().expect("temporary directories can be made");
        let sandbox = Sandbox::start(dir.path());
        Self { dir, sandbox }
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
            .set("RECONCILE__SETTLE", "1s")
    }

    /// `crier` as in production: a ledger and a queue that processes share.
    pub(crate) fn crier_on(&self, ledger: &Database, queue: &Redis) -> Crier {
        self.crier().ledger(&ledger.url()).queue(&queue.url())
    }
}

/// A file of `rows` recipients, each with its own valid number that nobody has a phone for, in `texts` different texts.
pub(crate) fn campaign(rows: u32, texts: u32) -> String {
    let row = |n: u32| format!("447{:09},ACME,Text {} of the campaign\n", 400_000_000 + n, n % texts);
    std::iter::once("destination,sender,text\n".to_owned()).chain((0..rows).map(row)).collect()
}
