//! Opening a ledger, and running one body on either database.

#[cfg(not(feature = "simulated"))]
use crate::writer::Writer;
use crate::{
    Result,
    clock::Clock,
    error::{During, Error, Source},
};
use jiff::Timestamp;
use sqlx::{
    Connection, PgConnection, PgPool, SqliteConnection, SqlitePool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

pub(crate) static SQLITE: Migrator = sqlx::migrate!("../../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../../migrations/postgres");

/// A handle on the ledger; clones share its connections.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
}

#[derive(Clone, Debug)]
pub(crate) enum Db {
    Sqlite(Sqlite),
    Postgres(PgPool),
}

/// SQLite takes one writer at a time: one connection writes, so that writers wait in line instead of polling a lock.
#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    #[cfg(not(feature = "simulated"))]
    pub(crate) write: Writer,
    /// Writes what nothing hangs on yet, without waiting for the disk at each commit: see [`load_tx`].
    #[cfg(not(feature = "simulated"))]
    pub(crate) load: Writer,
    #[cfg_attr(feature = "simulated", allow(dead_code, clippy::allow_attributes, reason = "`only` does it"))]
    pub(crate) read: SqlitePool,
    pub(crate) path: PathBuf,
    /// The simulation has no disk.
    #[cfg(not(feature = "simulated"))]
    pub(crate) disk: std::sync::Arc<crate::disk::Disk>,
    /// The connection that does all of this in the simulation.
    #[cfg(feature = "simulated")]
    pub(crate) only: crate::simulated::Only,
}

/// What the schema of a ledger is, compared with what this program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// As needed.
    Current,
    /// `crier migrate` has not run yet.
    Behind,
    /// A newer program has migrated it, and this one still works with it.
    Newer,
    /// A newer program has migrated it, and taken away what this one needs.
    Ahead,
    /// A program whose migrations have the same numbers and other words has made it.
    Foreign,
}

/// Which SQL a statement is written in, where the two must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// "Is one of the numbers in the JSON array that is bound as parameter `n`". An array, since Postgres takes a subquery for
    /// a table, and sooner reads all of the other one than looks the numbers up.
    pub(crate) fn ids(self, n: u8) -> String {
        match self {
            Self::Sqlite => format!("IN (SELECT value FROM json_each(${n}))"),
            Self::Postgres => format!("= ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(${n}::json)))"),
        }
    }

    /// The pairs of numbers that are bound as a JSON object as parameter 1, as a table of two columns, `key` and `value`.
    pub(crate) fn pairs(self) -> &'static str {
        match self {
            Self::Sqlite => "(SELECT CAST(key AS INTEGER) AS key, value FROM json_each($1)) AS pairs",
            Self::Postgres => "(SELECT key::bigint, value::bigint FROM json_each_text($1::json)) AS pairs",
        }
    }

    /// A query about the rows of chunks `k`, wherever they stand: `{rows}` in the statement joins them as `m`. What it groups
    /// comes once for those in `messages`, with what their attempts tell, and once for those in packs.
    pub(crate) fn all_rows(self, statement: &str) -> String {
        let join = self.then_join();
        let open = format!("{join} told_rows m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511");
        let packed = format!("{join} packed_rows m ON m.chunk_id = k.id");
        format!("{} UNION ALL {}", statement.replace("{rows}", &open), statement.replace("{rows}", &packed))
    }

    /// Joins in the order in which the tables are named. SQLite would read all messages first and look at every chunk for
    /// each of them: minutes for a million rows.
    pub(crate) fn then_join(self) -> &'static str {
        match self {
            Self::Sqlite => "CROSS JOIN",
            Self::Postgres => "JOIN",
        }
    }

    /// A query for these columns of these rows as one JSON array of arrays, in any order. Each row comes as a message of its
    /// own otherwise, which for SQLite wakes another thread each time.
    pub(crate) fn packed(self, columns: &str, from: &str) -> String {
        match self {
            Self::Sqlite => format!("SELECT json_group_array(json_array({columns})) FROM {from}"),
            Self::Postgres => format!("SELECT coalesce(json_agg(json_build_array({columns})), '[]') FROM {from}"),
        }
    }

    /// Begins an update of many rows whose failure ends the transaction. Otherwise SQLite keeps a copy of each page that it writes,
    /// to take back the one statement.
    pub(crate) fn update(self) -> &'static str {
        match self {
            Self::Sqlite => "UPDATE OR FAIL",
            Self::Postgres => "UPDATE",
        }
    }

    /// Locks the selected rows until the transaction ends; SQLite's transactions lock the whole file.
    pub(crate) fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }
}

/// A statement whose text was put together from this crate's own words and the dialect.
pub(crate) fn sql(text: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(text)
}

/// Runs `$body` in a writing transaction of whichever database it is, and commits. `$tx` is the transaction, `$dialect`
/// says which SQL it speaks; `?` rolls back. The body is compiled once for each database.
macro_rules! write_tx {
    ($ledger:expr, $operation:expr, |$tx:ident, $dialect:ident| $body:expr) => {
        $crate::db::write_tx!($ledger, $operation, write, lasting, |$tx, $dialect| $body)
    };
    ($ledger:expr, $operation:expr, $pool:ident, $lasts:ident, |$tx:ident, $dialect:ident| $body:expr) => {
        match &$ledger.db {
            $crate::db::Db::Sqlite(db) => {
                #[allow(unused_variables, clippy::allow_attributes, reason = "not every body asks for the dialect")]
                let $dialect = $crate::db::Dialect::Sqlite;
                #[cfg(feature = "simulated")]
                let mut turn = $crate::error::During::during(db.only.turn($operation).await, $operation)?;
                #[cfg(not(feature = "simulated"))]
                let mut turn = $crate::error::During::during(db.$pool.turn().await, $operation)?;
                let mut $tx = turn.begin($operation);
                let out = $body;
                #[cfg(feature = "simulated")]
                let changes = db.only.commits(&mut $tx, $operation).await?;
                $crate::error::During::during($tx.commit().await, $operation)?;
                // Others write while this one waits for the disk.
                #[cfg(not(feature = "simulated"))]
                drop(turn);
                $crate::db::wait_for_disk!($lasts, db, $operation);
                crash::after_commit($operation);
                #[cfg(feature = "simulated")]
                $crate::error::During::during(
                    $crate::simulated::committed(turn, $operation, changes).await,
                    $operation,
                )?;
                out
            }
            $crate::db::Db::Postgres(pool) => {
                #[allow(unused_variables, clippy::allow_attributes, reason = "not every body asks for the dialect")]
                let $dialect = $crate::db::Dialect::Postgres;
                let mut $tx = $crate::error::During::during(pool.begin().await, $operation)?;
                let out = $body;
                crash::before_commit($operation);
                $crate::error::During::during($tx.commit().await, $operation)?;
                crash::after_commit($operation);
                out
            }
        }
    };
}

/// Waits for the disk after a commit that lasts.
macro_rules! wait_for_disk {
    (lasting, $db:ident, $operation:expr) => {
        #[cfg(not(feature = "simulated"))]
        $crate::error::During::during($db.disk.wait().await, $operation)?;
    };
    (quick, $db:ident, $operation:expr) => {};
}

/// Like [`write_tx`], for what may be lost with the machine, together with all that came after it: SQLite does not wait for the
/// disk. Whoever waits for the disk next waits for this one, too, as each does that lets a call go out (`Ledger::lasting`). A process
/// that dies loses nothing by it.
///
/// Not for Postgres: there the server can crash alone, and its clients go on with what it has forgotten.
macro_rules! quick_tx {
    ($ledger:expr, $operation:expr, |$tx:ident, $dialect:ident| $body:expr) => {
        $crate::db::write_tx!($ledger, $operation, write, quick, |$tx, $dialect| $body)
    };
}

/// Like [`write_tx`], for rows of a file that is still being loaded: no commit waits for the disk.
///
/// If the machine stops, the last of them may be gone, in order from the end: nothing of the file can be sent yet, and the next
/// launch begins anew. The commit that makes them count waits for the disk, and so for all that was written before it; who goes
/// on with a server that was started again in between finds fewer rows than the file has.
macro_rules! load_tx {
    ($ledger:expr, $operation:expr, |$tx:ident, $dialect:ident| $body:expr) => {{
        // The writers of this process wait in line here as ever, instead of polling the file's lock. The simulation has one
        // connection for all.
        let _turn = match &$ledger.db {
            #[cfg(not(feature = "simulated"))]
            $crate::db::Db::Sqlite(db) => Some($crate::error::During::during(db.write.turn().await, $operation)?),
            #[cfg(feature = "simulated")]
            $crate::db::Db::Sqlite(_) => None::<()>,
            $crate::db::Db::Postgres(_) => None,
        };
        $crate::db::write_tx!($ledger, $operation, load, quick, |$tx, $dialect| {
            if $dialect == $crate::db::Dialect::Postgres {
                let statement = "SET LOCAL synchronous_commit TO off";
                $crate::error::During::during(sqlx::query(statement).execute(&mut *$tx).await, $operation)?;
            }
            $body
        })
    }};
}

/// Runs `$body` with a reading connection of whichever database it is.
macro_rules! read_conn {
    ($ledger:expr, $operation:expr, |$conn:ident, $dialect:ident| $body:expr) => {
        match &$ledger.db {
            $crate::db::Db::Sqlite(db) => {
                #[allow(unused_variables, clippy::allow_attributes, reason = "not every body asks for the dialect")]
                let $dialect = $crate::db::Dialect::Sqlite;
                #[cfg(feature = "simulated")]
                let mut $conn = $crate::error::During::during(db.only.turn($operation).await, $operation)?;
                #[cfg(not(feature = "simulated"))]
                let mut $conn = $crate::error::During::during(db.read.acquire().await, $operation)?;
                $body
            }
            $crate::db::Db::Postgres(pool) => {
                #[allow(unused_variables, clippy::allow_attributes, reason = "not every body asks for the dialect")]
                let $dialect = $crate::db::Dialect::Postgres;
                let mut $conn = $crate::error::During::during(pool.acquire().await, $operation)?;
                $body
            }
        }
    };
}

pub(crate) use {load_tx, quick_tx, read_conn, wait_for_disk, write_tx};

/// Each lost race is a migration that another process has finished.
const MIGRATION_TRIES: u32 = 5;

/// How long a transaction waits on Postgres for its process to go on, in milliseconds.
const FROZEN_AFTER: &str = "5000";

/// How long an idle connection is taken to be alive.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// How long to try to open a file that others are just making.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// SQLite's SQLITE_BUSY, in any of its extended forms.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

impl Ledger {
    /// Opens the ledger at `url`: `sqlite://path/to/file.db` (made when absent) or `postgres://…`.
    ///
    /// Errors: `Broken` for a URL of another kind, `Down` when the database can't be reached within 10 s.
    pub async fn open(url: &str) -> Result<Self> {
        let operation = "open the ledger";
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .foreign_keys(true)
                .busy_timeout(Duration::from_secs(30))
                // Rows come from a thread of SQLite's own: it need not be woken for every fifty of a page of results.
                .row_buffer_size(4096)
                .pragma("cache_size", "-2048")
                // Numbers come in no order: each commit touches pages all over the indexes, and many commits the same ones. The
                // later they go from the log to the file, the fewer of these writes there are.
                .pragma("wal_autocheckpoint", "8000")
                .pragma("temp_store", "memory");
            // Two processes that meet at a new file both turn its WAL on, and SQLite tells one of them at once that the file
            // is locked, whatever its timeout says.
            let began = Instant::now();
            let write = loop {
                match SqliteConnection::connect_with(&options).await {
                    Err(error) if is_busy(&error) && began.elapsed() < OPEN_WITHIN => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    opened => break opened.during(operation)?,
                }
            };
            // One file has one folder of locks, whatever name it is reached by: or the living would be proven dead.
            let path = std::fs::canonicalize(&path).during(operation)?;
            // Rows that come in their keys' order need few pages at a time, and so does who only reads: each reader would fill its
            // cache with the same pages, which the machine has in memory anyway. Two, so that a long report keeps no other waiting.
            let read = SqlitePoolOptions::new().max_connections(2).test_before_acquire(false);
            let read = read.connect_lazy_with(options.clone().pragma("cache_size", "-512"));
            let sqlite = Sqlite {
                #[cfg(not(feature = "simulated"))]
                write: Writer::of(options.clone(), write),
                #[cfg(not(feature = "simulated"))]
                load: Writer::lazy(options.clone()),
                read,
                #[cfg(not(feature = "simulated"))]
                disk: std::sync::Arc::new(crate::disk::Disk::of(&path)),
                path,
                #[cfg(feature = "simulated")]
                only: crate::simulated::Only::of(write).await.during(operation)?,
            };
            Ok(Self { db: Db::Sqlite(sqlite), clock: Clock::at(Timestamp::now()) })
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url).during(operation)?.application_name("crier").options([
                // Compiling a statement takes Postgres seconds, and it does so whenever statistics are older than the rows.
                ("jit", "off"),
                // A process that was frozen in a transaction holds locks that all others wait for: the server takes them back,
                // and the transaction with them.
                ("idle_in_transaction_session_timeout", FROZEN_AFTER),
                // A table begins empty, and a plan that is kept from then reads all of it, however large it is by now.
                ("plan_cache_mode", "force_custom_plan"),
            ]);
            // A pool would try again and in the end only say that it waited in vain; this says why.
            let first = tokio::time::timeout(Duration::from_secs(10), PgConnection::connect_with(&options)).await;
            let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            first.map_err(timed_out).during(operation)?.during(operation)?.close().await.during(operation)?;
            let pool = PgPoolOptions::new()
                .max_connections(8)
                .acquire_timeout(Duration::from_secs(10))
                // A connection is asked whether it lives when it is given back: not once more if that was a moment ago.
                .test_before_acquire(false)
                .before_acquire(|connection, since| {
                    Box::pin(async move {
                        if since.idle_for > ASK_AFTER {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .connect_with(options)
                .await
                .during(operation)?;
            let ledger = Self { db: Db::Postgres(pool), clock: Clock::at(Timestamp::now()) };
            ledger.set_clock().await?;
            Ok(ledger)
        } else {
            Err(Error::new(operation, Source::Url("ledger.url must begin with sqlite:// or postgres://".to_owned())))
        }
    }

    /// Whether the ledger is one file on this machine, which this program migrates by itself.
    pub fn is_embedded(&self) -> bool {
        matches!(self.db, Db::Sqlite(_))
    }

    /// Brings the schema up to date. Migrations only go forward.
    pub async fn migrate(&self) -> Result<()> {
        let operation = "migrate the ledger";
        match &self.db {
            Db::Postgres(pool) => POSTGRES.run(pool).await.during(operation),
            Db::Sqlite(db) => {
                // Several processes may begin on one new file at once, and SQLite has no lock that spans a migration's
                // check and its work: one of them wins, and the others find its work done.
                let mut tries = 0;
                loop {
                    let Err(error) = SQLITE.run(&db.read).await else { return Ok(()) };
                    tries += 1;
                    if matches!(self.schema().await, Ok(Schema::Current)) {
                        return Ok(());
                    }
                    if tries == MIGRATION_TRIES {
                        return Err(Error::new(operation, error));
                    }
                }
            }
        }
    }

    /// Compares the ledger's schema with what this program needs.
    pub async fn schema(&self) -> Result<Schema> {
        let operation = "read the ledger's schema version";
        let known = match &self.db {
            Db::Sqlite(_) => &SQLITE,
            Db::Postgres(_) => &POSTGRES,
        };
        let needed = known.iter().map(|migration| migration.version).max().unwrap_or(0);
        let applied: Vec<(i64, Vec<u8>)> = read_conn!(self, operation, |conn, dialect| {
            let exists: i64 = sqlx::query_scalar(match dialect {
                Dialect::Sqlite => "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
                Dialect::Postgres => "SELECT count(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')",
            })
            .fetch_one(&mut *conn)
            .await
            .during(operation)?;
            if exists == 0 {
                Vec::new()
            } else {
                sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?
            }
        });
        let other_words = |(version, checksum): &(i64, Vec<u8>)| {
            known.iter().any(|migration| migration.version == *version && *migration.checksum != **checksum)
        };
        if applied.iter().any(other_words) {
            return Ok(Schema::Foreign);
        }
        let found = applied.iter().map(|(version, _)| *version).max();
        Ok(match found.unwrap_or(0) {
            version if version < needed => Schema::Behind,
            version if version > needed => {
                let oldest: i64 = read_conn!(self, operation, |conn, dialect| {
                    sqlx::query_scalar("SELECT max(oldest) FROM schema_floor")
                        .fetch_one(&mut *conn)
                        .await
                        .during(operation)?
                });
                if oldest <= needed { Schema::Newer } else { Schema::Ahead }
            }
            _ => Schema::Current,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_is_frozen_in_a_transaction_stops_nobody_for_long() {
        let database = testbed::database();
        let (frozen, other) =
            (Ledger::open(&database.url()).await.unwrap(), Ledger::open(&database.url()).await.unwrap());
        other.migrate().await.unwrap();
        let (Db::Postgres(frozen), Db::Postgres(other)) = (&frozen.db, &other.db) else { panic!("it is a server") };
        let mut tx = frozen.begin().await.unwrap();
        sqlx::query("UPDATE quarantine SET started = started + 1").execute(&mut *tx).await.unwrap();
        let start = sqlx::query("UPDATE quarantine SET started = started + 1").execute(other);
        tokio::time::timeout(Duration::from_secs(30), start).await.unwrap().unwrap();
        assert!(tx.commit().await.is_err(), "what it began is gone");
        let started: i64 = sqlx::query_scalar("SELECT started FROM quarantine").fetch_one(other).await.unwrap();
        assert_eq!(started, 1);
    }
}
