//! Waiting for the disk, outside of the writer's turn.
//!
//! SQLite could wait for the disk itself in each commit that has to last, and all other writers with it. Here commits don't wait
//! (`synchronous = NORMAL`); who needs one to last waits for the log after it, while others write on, and all who wait
//! meanwhile wait for the disk once. A log that is put into the ledger's file meanwhile is on the disk before it is written over.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The log of a SQLite ledger.
#[derive(Debug)]
pub(crate) struct Disk {
    log: PathBuf,
    /// Commits that have to last, so far.
    asked: AtomicU64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// Nobody has waited yet.
    Unopened,
    /// So many of them are on the disk. The file stays open: the system tells each open file once of pages that it could not write,
    /// and one that is opened later may hear nothing of it.
    Lasting(File, u64),
    /// The disk failed.
    Failed,
}

impl Disk {
    /// Of the ledger in this file.
    pub(crate) fn of(ledger: &Path) -> Self {
        let mut log = ledger.as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), asked: AtomicU64::new(0), state: Arc::new(Mutex::new(State::Unopened)) }
    }

    /// Waits until all that is committed is on the disk.
    ///
    /// Errors: the disk's. Once it has failed each call does, as long as the program runs: a log that lacks a page ends there, and
    /// what was committed after it would be lost with the machine. The last of its programs that ends puts the log into the file.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut state = Arc::clone(&self.state).lock_owned().await;
        if let State::Unopened = *state {
            *state = State::Lasting(File::open(&self.log)?, 0);
        }
        match &*state {
            State::Lasting(_, up_to) if *up_to >= own => return Ok(()),
            State::Lasting(..) | State::Unopened => {}
            State::Failed => {
                return Err(io::Error::other(
                    "the disk failed to keep it; mend the disk, end all that use the ledger, and start again",
                ));
            }
        }
        let asked = self.asked.load(Ordering::SeqCst);
        // What came of it is known to all even if this one does not wait for its end.
        let synced = spawn_blocking(move || {
            let State::Lasting(file, up_to) = &mut *state else { return Ok(()) };
            let synced = file.sync_data();
            match synced {
                Ok(()) => *up_to = asked,
                Err(_) => *state = State::Failed,
            }
            synced
        });
        synced.await.expect("waiting for a disk does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ledger, db::Db};
    use campaign::ChunkId;
    use jiff::{SignedDuration, Timestamp};
    use std::{os::fd::AsFd, time::Duration};

    #[tokio::test]
    async fn others_write_while_one_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let Db::Sqlite(db) = &ledger.db else { panic!("it is a file") };
        let held = db.disk.state.lock().await;
        let lasting = ledger.record_senders(&[], Timestamp::UNIX_EPOCH);
        tokio::pin!(lasting);
        let other = async {
            while db.disk.asked.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            ledger.feed(&[ChunkId(1)], SignedDuration::ZERO, Timestamp::UNIX_EPOCH).await.unwrap()
        };
        tokio::select! {
            biased;
            _ = &mut lasting => panic!("it waits for the disk"),
            fed = tokio::time::timeout(Duration::from_secs(20), other) => assert!(fed.unwrap().is_empty()),
        }
        drop(held);
        lasting.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_at_once_waits_together_and_a_failure_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, log) = (dir.path().join("ledger.db"), dir.path().join("ledger.db-wal"));
        let disk = Disk::of(&ledger);
        assert_eq!(disk.wait().await.unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&log, "frames").unwrap();
        let held = disk.state.lock().await;
        let waiting = futures::future::join_all((0..8).map(|_| disk.wait()));
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        assert!(waiting.await.iter().all(Result::is_ok), "that there was no log yet is forgotten");
        assert!(matches!(*disk.state.lock().await, State::Lasting(_, 9)));

        // A pipe can't be made to last.
        let (_reader, pipe) = io::pipe().unwrap();
        let pipe = File::from(pipe.as_fd().try_clone_to_owned().unwrap());
        *disk.state.lock().await = State::Lasting(pipe, 0);
        assert!(disk.wait().await.is_err());
        assert!(disk.wait().await.unwrap_err().to_string().contains("mend the disk"), "what was lost stays lost");
    }
}
