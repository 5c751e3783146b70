//! Waiting for the disk, outside of the writer's turn.
//!
//! SQLite could wait for the disk itself in each commit that has to last, and all other writers with it. Here commits don't wait
//! (`synchronous = NORMAL`); who needs one to last waits for the log after it, while others write on, and all who wait
//! meanwhile wait for the disk once. A log that is put into the ledger's file meanwhile is on the disk before it is written over.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The log of a SQLite ledger.
#[derive(Debug)]
pub(crate) struct Disk {
    log: PathBuf,
    /// Commits that have to last, so far.
    asked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// So many of them are on the disk.
    Lasting(u64),
    /// The disk failed.
    Failed,
}

impl Disk {
    /// Of the ledger in this file.
    pub(crate) fn of(ledger: &std::path::Path) -> Self {
        let mut log = ledger.as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), asked: AtomicU64::new(0), state: Mutex::new(State::Lasting(0)) }
    }

    /// Waits until all that is committed is on the disk.
    ///
    /// Errors: the disk's; once it has failed, each call does until the program is started again: the system tells of pages that it
    /// could not write only once, and a log that lacks one ends there.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut state = self.state.lock().await;
        match *state {
            State::Lasting(up_to) if up_to >= own => return Ok(()),
            State::Lasting(_) => {}
            State::Failed => {
                return Err(io::Error::other(
                    "the disk failed to keep the ledger's log; start again when it is mended",
                ));
            }
        }
        let up_to = self.asked.load(Ordering::SeqCst);
        let log = self.log.clone();
        let synced =
            spawn_blocking(move || File::open(log)?.sync_data()).await.expect("waiting for a disk does not panic");
        *state = if synced.is_ok() { State::Lasting(up_to) } else { State::Failed };
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_at_once_waits_together_and_a_failure_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, log) = (dir.path().join("ledger.db"), dir.path().join("ledger.db-wal"));
        std::fs::write(&log, "frames").unwrap();
        let disk = Disk::of(&ledger);
        let held = disk.state.lock().await;
        let waiting = futures::future::join_all((0..8).map(|_| disk.wait()));
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        assert!(waiting.await.iter().all(Result::is_ok));
        assert!(matches!(*disk.state.lock().await, State::Lasting(8)));

        std::fs::remove_file(&log).unwrap();
        assert_eq!(disk.wait().await.unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&log, "frames").unwrap();
        assert!(disk.wait().await.is_err(), "what was lost may be lost for good");
    }
}
