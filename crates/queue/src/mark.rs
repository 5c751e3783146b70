//! How far the sending has come, remembered outside of the ledger: a ledger that knows less was restored from a backup.

use redis::aio::ConnectionManager;
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
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

/// One line for each ledger: its name and the mark, always of the same length. It is raised in its place by one small write, which
/// a crash leaves undone or done; it does not wait for the disk, since what a machine takes with it is the mark of its last
/// seconds.
fn raise_in_file(path: &Path, name: &str, call: i64) -> io::Result<i64> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    // Two processes may share the ledger.
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let number = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')?.strip_suffix('\n'));
        if let Some(before) = number.and_then(|number| number.parse().ok()) {
            if call > before {
                file.write_all_at(format!("{call:020}").as_bytes(), at + name.len() as u64 + 1)?;
            }
            return Ok(before);
        }
        at += line.len() as u64;
    }
    // Over what a crash may have left of a line.
    let whole = text.rfind('\n').map_or(0, |end| end as u64 + 1);
    file.write_all_at(format!("{name} {call:020}\n").as_bytes(), whole)?;
    file.sync_data()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

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
        assert_eq!(fs::read_to_string(path).unwrap(), "one 00000000000000000009\ntwo 00000000000000000004\n");
    }

    #[test]
    fn what_a_crash_left_of_a_line_is_no_mark_and_in_no_ones_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.sent");
        assert_eq!(raise_in_file(&path, "one", 12).unwrap(), 0);
        File::options().append(true).open(&path).unwrap().write_all(b"two 0000").unwrap();
        assert_eq!(raise_in_file(&path, "one", 13).unwrap(), 12);
        assert_eq!(raise_in_file(&path, "two", 5).unwrap(), 0);
        assert_eq!(raise_in_file(&path, "two", 0).unwrap(), 5);
        assert_eq!(raise_in_file(&path, "one", 0).unwrap(), 13);
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
