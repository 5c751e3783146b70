//! How far the sending has come, remembered outside of the ledger: a ledger that knows less was restored from a backup.

use redis::aio::ConnectionManager;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// Raises the mark of a ledger, never lowers it; answers what it was. ARGV: the ledger, the number of the call.
static RAISE: LazyLock<redis::Script> = LazyLock::new(|| {
    redis::Script::new(
        "local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
         if tonumber(ARGV[2]) > before then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
         return before",
    )
});

/// The mark of one ledger; clones share its name.
#[derive(Clone)]
pub struct Mark {
    place: Place,
    ledger: Arc<Mutex<String>>,
}

#[derive(Clone)]
enum Place {
    Redis { connection: ConnectionManager, key: Arc<str> },
    File(PathBuf),
    Nowhere,
}

/// The mark could not be read or raised.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Redis did not answer.
    #[error("raise the mark of what was sent on Redis")]
    Redis(#[from] redis::RedisError),
    /// The file beside the ledger can't be used.
    #[error("raise the mark of what was sent in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Mark {
    /// No mark: a restored ledger is not noticed by itself.
    pub fn nowhere() -> Self {
        Self::at(Place::Nowhere)
    }

    pub(crate) fn on_redis(connection: ConnectionManager, queue: &str) -> Self {
        Self::at(Place::Redis { connection, key: format!("{queue}:sent").into() })
    }

    /// In a file, of a ledger that one machine has for itself.
    pub fn in_file(path: PathBuf) -> Self {
        Self::at(Place::File(path))
    }

    /// Whether there is none.
    pub fn is_nowhere(&self) -> bool {
        matches!(self.place, Place::Nowhere)
    }

    fn at(place: Place) -> Self {
        Self { place, ledger: Arc::default() }
    }

    /// The name of the ledger whose mark this is; empty before it was given one.
    pub fn ledger(&self) -> String {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the mark is that of the ledger of this name.
    pub fn be_of(&self, ledger: &str) {
        ledger.clone_into(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Raises the mark to a call that the ledger has as begun; 0 only reads it. Answers what it was before.
    pub async fn raise(&self, call: i64) -> Result<i64, MarkError> {
        let ledger = self.ledger();
        match &self.place {
            Place::Nowhere => Ok(0),
            Place::Redis { connection, key } => {
                let mut invocation = RAISE.prepare_invoke();
                invocation.key(&**key).arg(&ledger).arg(call);
                Ok(invocation.invoke_async::<i64>(&mut connection.clone()).await?)
            }
            Place::File(path) => {
                let path = path.clone();
                let raised = tokio::task::spawn_blocking(move || {
                    raise_in_file(&path, &ledger, call).map_err(|source| MarkError::File { path, source })
                });
                raised.await.expect("reading a file does not panic")
            }
        }
    }
}

/// Where it is.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Redis { key, .. } => write!(f, "{key} on Redis"),
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// One line for each ledger: its name and the mark. A new file takes the place of the old one, so that a crash leaves either
/// of them whole: half a line would read as a lower mark, or as none.
fn raise_in_file(path: &Path, name: &str, call: i64) -> io::Result<i64> {
    let locked = locked(path)?;
    let text = io::read_to_string(&locked)?;
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<i64>().ok();
    let before = text.lines().find_map(of).unwrap_or(0);
    if call > before {
        let others = text.lines().filter(|line| of(line).is_none());
        let lines: String =
            others.map(str::to_owned).chain([format!("{name} {call}")]).map(|line| line + "\n").collect();
        let mut new_path = path.as_os_str().to_owned();
        new_path.push(".new");
        let mut new = File::create(&new_path)?;
        new.write_all(lines.as_bytes())?;
        // Before the rename, which the disk may otherwise get first. The rename itself may wait: what is lost with the machine
        // is the mark of its last seconds.
        new.sync_data()?;
        fs::rename(&new_path, path)?;
    }
    Ok(before)
}

/// The file with its lock, for two processes may share the ledger. Whoever waited for the lock of a file that was replaced
/// meanwhile takes the new one.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        let (ours, there) = (file.metadata()?, fs::metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_only_rises_and_each_ledger_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sent");
        let mark = Mark::in_file(path.clone());
        mark.be_of("one");
        assert_eq!(mark.raise(7).await.unwrap(), 0);
        assert_eq!(mark.raise(9).await.unwrap(), 7);
        assert_eq!(mark.raise(8).await.unwrap(), 9);
        assert_eq!(mark.raise(0).await.unwrap(), 9);
        mark.be_of("two");
        assert_eq!(mark.raise(4).await.unwrap(), 0);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one 9\ntwo 4\n");
    }

    #[test]
    fn a_crash_while_the_mark_is_written_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sent");
        assert_eq!(raise_in_file(&path, "one", 12).unwrap(), 0);
        let mut reader = File::open(&path).unwrap();
        // What an earlier crash left beside it is no mark.
        fs::write(dir.path().join("ledger.sent.new"), "one 9").unwrap();
        assert_eq!(raise_in_file(&path, "one", 13).unwrap(), 12);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "one 12\n", "the file of before is never written to");
        assert_eq!(raise_in_file(&path, "one", 0).unwrap(), 13);
        assert!(!dir.path().join("ledger.sent.new").exists());
    }

    #[test]
    fn of_many_that_raise_the_mark_at_once_none_takes_it_back() {
        const THREADS: i64 = 8;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sent");
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let path = &path;
                scope.spawn(move || {
                    for call in (1..=10).map(|round| round * THREADS + thread) {
                        raise_in_file(path, "one", call).unwrap();
                        let now = raise_in_file(path, "one", 0).unwrap();
                        assert!(now >= call, "{call} was marked, and then {now}");
                    }
                });
            }
        });
    }
}
