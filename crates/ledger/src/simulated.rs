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
};
use campaign::mutant::Mutant;
use jiff::{SignedDuration, Timestamp};
use sqlx::{
    SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    cell::RefCell,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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
#[derive(Clone, Debug, sqlx::FromRow)]
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
    static WORLD: RefCell<Option<(Rc<dyn World>, Arc<Semaphore>)>> = const { RefCell::new(None) };
}

/// Sets the world of this thread.
pub fn install(world: Option<Rc<dyn World>>) {
    WORLD.set(world.map(|world| (world, Arc::new(Semaphore::new(1)))));
}

/// Asks the world of this thread.
pub fn world<T>(ask: impl FnOnce(&dyn World) -> T) -> Option<T> {
    let world = WORLD.with_borrow(|world| world.as_ref().map(|(world, _)| Rc::clone(world)));
    world.map(|world| ask(&*world))
}

/// The right to use the database.
pub struct Turn {
    operation: &'static str,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        world(|world| world.in_flight(false));
    }
}

/// Stops here until the simulation goes on with the process, which is never after a crash.
pub async fn stop(fate: Fate) {
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
    match fate {
        Fate::Go | Fate::Fail => {}
        Fate::Crash => std::future::pending().await,
        Fate::Freeze => Once(false).await,
    }
}

fn failed(fate: Fate, why: &str) -> io::Result<()> {
    if fate == Fate::Fail { Err(io::Error::other(why.to_owned())) } else { Ok(()) }
}

pub(crate) async fn turn(operation: &'static str) -> io::Result<Turn> {
    let fate = world(|world| world.before(operation)).unwrap_or(Fate::Go);
    stop(fate).await;
    failed(fate, "the database is away")?;
    let line = WORLD.with_borrow(|world| world.as_ref().map(|(_, line)| Arc::clone(line)));
    let permit = match line {
        Some(line) => Some(line.acquire_owned().await.expect("never closed")),
        None => None,
    };
    world(|world| world.in_flight(true));
    Ok(Turn { operation, _permit: permit })
}

/// Reads what the transaction changed, just before it is committed.
pub(crate) async fn commits(tx: &mut SqliteConnection, turn: &Turn) -> Result<Vec<Change>> {
    let Some(read_to) = world(|world| world.log_read_to()) else { return Ok(Vec::new()) };
    failed(world(|world| world.commits(turn.operation)).unwrap_or(Fate::Go), "the disk is full")
        .during(turn.operation)?;
    sqlx::query_as("SELECT seq, kind, id, was, \"is\", a, b, text FROM sim_log WHERE seq > $1 ORDER BY seq")
        .bind(read_to)
        .fetch_all(tx)
        .await
        .during(turn.operation)
}

pub(crate) async fn committed(turn: Turn, changes: Vec<Change>) -> io::Result<()> {
    let operation = turn.operation;
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
    /// The SQLite ledger at `path` on the virtual clock, which shows `now`. What the disk does is left out: nothing is
    /// synced, and one connection both reads and writes.
    pub async fn simulated(path: &Path, now: Timestamp) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(true)
            .statement_cache_capacity(400)
            .pragma("locking_mode", "exclusive")
            .pragma("temp_store", "memory");
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .during("open the simulated ledger")?;
        let sqlite = Sqlite { write: pool.clone(), load: pool.clone(), read: pool, path: path.to_owned() };
        Ok(Self { db: Db::Sqlite(sqlite), clock: Clock::at(now) })
    }

    /// Has the clock show `now` from here on.
    pub fn simulated_clock(&mut self, now: Timestamp) {
        self.clock = Clock::at(now);
    }

    /// Runs statements that the simulation needs: its log, its clock.
    pub async fn simulated_script(&self, script: &'static str) -> Result<()> {
        let Db::Sqlite(db) = &self.db else { return Ok(()) };
        sqlx::raw_sql(script).execute(&db.write).await.during("prepare the simulated ledger")?;
        // The pool takes its connection back in a task of this runtime, and the run has another.
        while db.write.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Lets go of the database.
    pub async fn simulated_close(&self) {
        if let Db::Sqlite(db) = &self.db {
            db.write.close().await;
        }
    }
}
