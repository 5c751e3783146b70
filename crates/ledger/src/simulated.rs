//! Where the simulation takes hold of the ledger. Compiled for it only: in the product none of this exists.
//!
//! The database is the real one. What is added: a transaction or a reading has its turn, one at a time, so that a run is the
//! same each time; before and after each the simulation may end or freeze the process, or have the database fail; and a log
//! that triggers write tells what each commit changed.

use crate::{
    Ledger, Result,
    clock::Clock,
    db::{Db, Sqlite},
    error::During,
    writer::{Connection, Transaction, Tx},
};
use campaign::mutant::Mutant;
use jiff::{SignedDuration, Timestamp};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    cell::RefCell,
    future::Future,
    io,
    ops::{Deref, DerefMut},
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard, oneshot};

/// What happens at a place of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Go,
    /// The process ends here.
    Crash,
    /// The process stands still for a while.
    Freeze,
    /// The database fails: its disk is full, or its answer is lost.
    Fail,
}

/// One line of the log that triggers write.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Change {
    /// Its number.
    pub seq: i64,
    /// Which table: `row`, `attempt`, `campaign`, `opt_out`, `unexplained`, `token`.
    pub kind: String,
    /// The id of what changed.
    pub id: i64,
    /// What the kind says.
    pub was: Option<String>,
    /// Likewise.
    pub is: Option<String>,
    /// Likewise.
    pub a: Option<i64>,
    /// Likewise.
    pub b: Option<i64>,
    /// Likewise.
    pub text: Option<String>,
}

/// What the simulation is asked and told, on the one thread that it runs on.
pub trait World {
    /// Before a transaction or a reading.
    fn before(&self, operation: &'static str) -> Fate;
    /// Its commands are done and not committed.
    fn commits(&self, operation: &'static str) -> Fate;
    /// It is committed.
    fn committed(&self, operation: &'static str, changes: Vec<Change>) -> Fate;
    /// A statement is in flight from here, or is no more.
    fn in_flight(&self, holds: bool);
    /// A task of the process that runs now.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>);
    /// The running process' own clock minus the ledger's.
    fn clock_error(&self) -> SignedDuration;
    /// The ledger's time.
    fn now(&self) -> Timestamp;
    /// Where the log was read up to.
    fn log_read_to(&self) -> i64;
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Sets the world of this thread.
pub fn install(world: Option<Rc<dyn World>>) {
    WORLD.set(world);
}

/// Asks the world of this thread.
pub fn world<T>(ask: impl FnOnce(&dyn World) -> T) -> Option<T> {
    let world = WORLD.with_borrow(|world| world.as_ref().map(Rc::clone));
    world.map(|world| ask(&*world))
}

/// The one connection of a simulated ledger. It is in no pool: a pool asks a connection that comes back whether it lives.
#[derive(Clone, Debug)]
pub(crate) struct Only {
    connection: Arc<Mutex<Connection>>,
    /// The log has lines that nobody has read.
    logged: Arc<AtomicBool>,
}

/// The right to use the database.
pub(crate) struct Turn<'a>(MutexGuard<'a, Connection>);

impl Deref for Turn<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        world(|world| world.in_flight(false));
    }
}

/// Lets the others of this task go first, once.
async fn step_aside() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Once(false).await;
}

/// Stops here until the simulation goes on with the process, which is never after a crash.
pub async fn stop(fate: Fate) {
    match fate {
        Fate::Go | Fate::Fail => {}
        Fate::Crash => std::future::pending().await,
        Fate::Freeze => step_aside().await,
    }
}

fn failed(fate: Fate, why: &str) -> io::Result<()> {
    if fate == Fate::Fail { Err(io::Error::other(why.to_owned())) } else { Ok(()) }
}

impl Only {
    pub(crate) async fn of(mut connection: SqliteConnection) -> sqlx::Result<Self> {
        let logged = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&logged);
        connection.lock_handle().await?.set_update_hook(move |change| {
            if change.table == "sim_log" {
                seen.store(true, Ordering::Release);
            }
        });
        let connection = Connection::of(connection);
        Ok(Self { connection: Arc::new(Mutex::new(connection)), logged })
    }

    pub(crate) async fn turn(&self, operation: &'static str) -> io::Result<Turn<'_>> {
        let fate = world(|world| world.before(operation)).unwrap_or(Fate::Go);
        stop(fate).await;
        failed(fate, "the database is away")?;
        let mut turn = Turn(self.connection.lock().await);
        world(|world| world.in_flight(true));
        // The database may answer at once or in some microseconds. Whoever else of this task can go on does so before.
        step_aside().await;
        turn.0.take_back().await;
        Ok(turn)
    }

    /// The database between two runs.
    async fn idle(&self) -> MutexGuard<'_, Connection> {
        let mut connection = self.connection.lock().await;
        connection.take_back().await;
        if std::mem::replace(&mut connection.commits, false) {
            sqlx::query("COMMIT").execute(&mut connection.sqlite).await.expect("nothing of it is left to be checked");
        }
        connection
    }

    /// Reads what the transaction changed, and commits it with that where it changed anything.
    pub(crate) async fn commits(&self, tx: &mut Tx<'_>, operation: &'static str) -> Result<Vec<Change>> {
        let Some(read_to) = world(|world| world.log_read_to()) else { return Ok(Vec::new()) };
        failed(world(|world| world.commits(operation)).unwrap_or(Fate::Go), "the disk is full").during(operation)?;
        if tx.0.owes() {
            tx.0.caught_up().await.during(operation)?;
        }
        if !self.logged.swap(false, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let changes: Vec<String> = sqlx::query_scalar(
            "SELECT json_group_array(json_array(seq, kind, id, was, \"is\", a, b, text) ORDER BY seq) FROM sim_log WHERE seq > $1; COMMIT",
        )
        .bind(read_to)
        .fetch_all(&mut *tx.0)
        .await
        .during(operation)?;
        let changes: Vec<Change> = serde_json::from_str(&changes[0]).expect("it is as asked for");
        tx.0.transaction = Transaction::None;
        Ok(changes)
    }
}

pub(crate) async fn committed(turn: Turn<'_>, operation: &'static str, changes: Vec<Change>) -> io::Result<()> {
    drop(turn);
    let fate = world(|world| world.committed(operation, changes)).unwrap_or(Fate::Go);
    stop(fate).await;
    failed(fate, "the answer to a commit was lost")
}

/// For the mutants that end attempts whose texts are not all found.
pub(crate) fn or_settled() -> &'static str {
    if Mutant::BulkIsAtomic.is_on() {
        " OR EXISTS (SELECT 1 FROM messages m WHERE m.attempt_id = attempts.id AND m.sms_id IS NOT NULL)"
    } else if Mutant::AcceptedIsNotAudited.is_on() {
        " OR state = 'accepted'"
    } else {
        ""
    }
}

/// The tables of the ledger. What refers to another stands after it, as it was made.
const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sim_log' ORDER BY name LIKE 'sqlite_%', rowid";

/// Stands in for [`tokio::spawn`]: the task ends with its process.
pub fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> oneshot::Receiver<T> {
    let (done, wait) = oneshot::channel();
    let task = async move {
        let _ = done.send(task.await);
    };
    world(|world| world.spawn(Box::pin(task)));
    wait
}

/// Stands in for [`std::time::SystemTime`]: a process' own clock, which may be wrong.
#[derive(Clone, Copy)]
pub struct SystemTime(Timestamp);

impl SystemTime {
    /// Now, by this process.
    pub fn now() -> Self {
        Self(world(|world| world.now() + world.clock_error()).unwrap_or_default())
    }

    /// How long ago that was, by this process; an error where it lies ahead.
    pub fn elapsed(&self) -> std::result::Result<Duration, jiff::Error> {
        Duration::try_from(Self::now().0.duration_since(self.0))
    }
}

impl Ledger {
    /// An SQLite ledger on the virtual clock, which shows `now`. What the disk does is left out: it is in memory, and one
    /// connection both reads and writes. `path` names the folder of its processes' locks.
    pub async fn simulated(path: &Path, now: Timestamp) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(":memory:")
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(true)
            // With and without BEGIN and COMMIT.
            .statement_cache_capacity(1_600)
            // All of an answer, so that the database need not wait for its reader.
            .row_buffer_size(10_000)
            .pragma("temp_store", "memory");
        let operation = "open the simulated ledger";
        let connection = SqliteConnection::connect_with(&options).await.during(operation)?;
        let only = Only::of(connection).await.during(operation)?;
        // Nobody asks the pool of the simulation: what it opened would be another ledger.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options);
        let sqlite = Sqlite { read: pool, path: path.to_owned(), only };
        Ok(Self { db: Db::Sqlite(sqlite), clock: Clock::at(now) })
    }

    /// Has the clock show `now` from here on.
    pub fn simulated_clock(&mut self, now: Timestamp) {
        self.clock = Clock::at(now);
    }

    /// Migrates it: the pool that a migration asks is closed to it in the simulation.
    pub async fn simulated_migrate(&self) -> Result<()> {
        let Db::Sqlite(db) = &self.db else { return Ok(()) };
        crate::db::SQLITE.run(&mut db.only.idle().await.sqlite).await.during("migrate the simulated ledger")
    }

    /// Runs statements that the simulation needs: its log, the beginning of a run. They stay prepared.
    pub async fn simulated_script(&self, script: String) -> Result<()> {
        let Db::Sqlite(db) = &self.db else { return Ok(()) };
        let mut connection = db.only.idle().await;
        sqlx::query(crate::db::sql(script))
            .execute(&mut connection.sqlite)
            .await
            .during("prepare the simulated ledger")?;
        db.only.logged.store(false, Ordering::Release);
        Ok(())
    }

    /// Keeps a copy of all that it holds.
    pub async fn simulated_copy(&self) -> Result<()> {
        self.simulated_tables_do("copy the ledger", |tables| {
            // Made once: a new temporary table has SQLite prepare every statement anew.
            let copy = |table: &String| {
                format!(
                    "CREATE TEMP TABLE IF NOT EXISTS copy_{table} AS SELECT * FROM main.{table} WHERE 0;
                     DELETE FROM temp.copy_{table}; INSERT INTO temp.copy_{table} SELECT * FROM main.{table};"
                )
            };
            tables.iter().map(copy).collect()
        })
        .await
    }

    /// Puts the copy in its place, with a log in which nothing stands.
    pub async fn simulated_restore(&self) -> Result<()> {
        self.simulated_tables_do("restore the ledger", |tables| Self::simulated_fill(tables, "temp.copy_")).await
    }

    /// A script that puts into each table what stands in its twin, whose name begins as given; the log is empty then.
    ///
    /// In this order no row refers to one that is not there. Were that left to the commit instead, by a pragma, SQLite would
    /// prepare every statement anew.
    pub fn simulated_fill(tables: &[String], twin: &str) -> String {
        let empty = tables.iter().rev().map(|table| format!("DELETE FROM main.{table};\n"));
        let fill = tables.iter().map(|table| format!("INSERT INTO main.{table} SELECT * FROM {twin}{table};\n"));
        format!("{}DELETE FROM sim_log;\n", empty.chain(fill).collect::<String>())
    }

    async fn simulated_tables_do(
        &self,
        operation: &'static str,
        script: impl FnOnce(&[String]) -> String,
    ) -> Result<()> {
        let Db::Sqlite(db) = &self.db else { return Ok(()) };
        let mut turn = db.only.turn(operation).await.during(operation)?;
        let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut *turn).await.during(operation)?;
        let script = format!("BEGIN; {} COMMIT", script(&tables));
        sqlx::raw_sql(crate::db::sql(script)).execute(&mut *turn).await.during(operation)?;
        db.only.logged.store(false, Ordering::Release);
        Ok(())
    }

    /// Its tables.
    pub async fn simulated_tables(&self) -> Result<Vec<String>> {
        let Db::Sqlite(db) = &self.db else { return Ok(Vec::new()) };
        let mut connection = db.only.idle().await;
        sqlx::query_scalar(TABLES).fetch_all(&mut connection.sqlite).await.during("prepare the simulated ledger")
    }

    /// Removes what processes that are no more left beside it.
    pub fn simulated_forget_owners(&self) {
        if let Db::Sqlite(db) = &self.db {
            let _ = std::fs::remove_dir_all(db.path.with_extension("owners"));
        }
    }
}
