//! How far the sending has come, remembered outside of the ledger: a ledger that knows less was restored from a backup.

use redis::aio::ConnectionManager;
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
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

/// One line for each ledger: its name and the mark. Locked, for two processes may share the ledger.
fn raise_in_file(path: &Path, name: &str, call: i64) -> io::Result<i64> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<i64>().ok();
    let before = text.lines().find_map(of).unwrap_or(0);
    if call > before {
        let others = text.lines().filter(|line| of(line).is_none());
        let lines: String =
            others.map(str::to_owned).chain([format!("{name} {call}")]).map(|line| line + "\n").collect();
        file.rewind()?;
        file.write_all(lines.as_bytes())?;
        file.set_len(lines.len() as u64)?;
    }
    Ok(before)
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
}
