//! The one connection of a process that writes to a SQLite ledger.
//!
//! Each statement crosses over to SQLite's thread and back, and a writer's turn lasts for all of its crossings. sqlx's pool and its
//! transactions add some six to those of the statements; here BEGIN goes with the first of them, and COMMIT is the only one more.

use futures::{
    TryStreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream, StreamExt as _},
};
use sqlx::{
    Describe, Either, Execute, Executor, SqlStr, SqliteConnection,
    sqlite::{SqliteQueryResult, SqliteRow, SqliteStatement, SqliteTypeInfo},
};
use std::ops::{Deref, DerefMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    None,
    /// It begins with the next statement.
    Begins,
    /// It has begun. At the beginning of a turn: it was left by who failed or ended in it.
    Open,
}

/// A connection that knows of its transaction.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sqlite: SqliteConnection,
    pub(crate) transaction: Transaction,
    /// The one before is done, and COMMIT goes before the next statement, whoever makes it. Only in the simulation, where nobody
    /// can look in between.
    pub(crate) commits: bool,
}

impl Connection {
    pub(crate) fn of(sqlite: SqliteConnection) -> Self {
        Self { sqlite, transaction: Transaction::None, commits: false }
    }

    /// A transaction that takes the ledger's lock with its first statement.
    pub(crate) fn begin(&mut self) -> Tx<'_> {
        self.transaction = Transaction::Begins;
        Tx(self)
    }

    /// Rolls back what was left open. Answers whether the connection can be used.
    pub(crate) async fn take_back(&mut self) -> bool {
        let was = std::mem::replace(&mut self.transaction, Transaction::None);
        was != Transaction::Open
            || match sqlx::query("ROLLBACK").execute(&mut self.sqlite).await {
                Ok(_) => true,
                // It did not even begin, or a full disk has rolled it back.
                Err(sqlx::Error::Database(error)) => error.message().contains("no transaction is active"),
                Err(_) => false,
            }
    }

    /// The connection itself, in the transaction that was to begin.
    pub(crate) async fn begun(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        let (first, statements) = self.first();
        if statements > 0 {
            sqlx::query(first).execute(&mut self.sqlite).await?;
        }
        Ok(&mut self.sqlite)
    }

    /// What goes before the next statement, and how many statements that are.
    fn first(&mut self) -> (&'static str, usize) {
        let begins = self.transaction == Transaction::Begins;
        if begins {
            self.transaction = Transaction::Open;
        }
        match (std::mem::replace(&mut self.commits, false), begins) {
            (false, false) => ("", 0),
            (false, true) => ("BEGIN IMMEDIATE; ", 1),
            (true, false) => ("COMMIT; ", 1),
            (true, true) => ("COMMIT; BEGIN IMMEDIATE; ", 2),
        }
    }
}

/// A transaction; rolled back unless it is committed.
pub(crate) struct Tx<'a>(pub(crate) &'a mut Connection);

impl Tx<'_> {
    #[cfg(not(feature = "simulated"))]
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        if self.transaction == Transaction::Open {
            sqlx::query("COMMIT").execute(&mut self.0.sqlite).await?;
        }
        self.0.transaction = Transaction::None;
        Ok(())
    }

    #[cfg(feature = "simulated")]
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        self.0.commits |= self.transaction == Transaction::Open;
        self.0.transaction = Transaction::None;
        Ok(())
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.0
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0
    }
}

type Steps<'e> = BoxStream<'e, sqlx::Result<Either<SqliteQueryResult, SqliteRow>>>;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = sqlx::Sqlite;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> Steps<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        let arguments = match query.take_arguments() {
            Ok(arguments) => arguments,
            Err(error) => return stream::once(ready(Err(sqlx::Error::Encode(error)))).boxed(),
        };
        let (first, mut before) = self.first();
        if before == 0 {
            return self.sqlite.fetch_many((query.sql(), arguments));
        }
        let all = crate::db::sql(format!("{first}{}", query.sql().as_str()));
        let asked_for = move |step: &sqlx::Result<_>| {
            let is_before = before > 0 && step.is_ok();
            before -= usize::from(is_before);
            ready(!is_before)
        };
        self.sqlite.fetch_many((all, arguments)).filter(asked_for).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<SqliteRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        if !self.commits && self.transaction != Transaction::Begins {
            // One that commits by itself has done so when it answers.
            return self.sqlite.fetch_optional(query);
        }
        let mut steps = self.fetch_many(query);
        Box::pin(async move {
            while let Some(step) = steps.try_next().await? {
                if let Either::Right(row) = step {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [SqliteTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<SqliteStatement>>
    where
        'c: 'e,
    {
        self.sqlite.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Self::Database>>>
    where
        'c: 'e,
    {
        self.sqlite.describe(sql)
    }
}

#[cfg(not(feature = "simulated"))]
pub(crate) use real::Writer;

/// Whose turn it is, where there is no simulation that says so.
#[cfg(not(feature = "simulated"))]
mod real {
    use super::{Connection, Transaction};
    use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
    use std::{
        ops::{Deref, DerefMut},
        sync::Arc,
        time::Duration,
    };
    use tokio::sync::{Mutex, OwnedMutexGuard};

    /// How long a writer waits for its turn.
    const TURN_WITHIN: Duration = Duration::from_secs(60);

    /// Lets one of this process write at a time.
    #[derive(Clone, Debug)]
    pub(crate) struct Writer {
        options: Arc<SqliteConnectOptions>,
        /// None until the first turn.
        connection: Arc<Mutex<Option<Connection>>>,
    }

    impl Writer {
        /// One with this connection.
        pub(crate) fn of(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
            Self { options: Arc::new(options), connection: Arc::new(Mutex::new(Some(Connection::of(connection)))) }
        }

        /// One that connects at its first turn.
        pub(crate) fn lazy(options: SqliteConnectOptions) -> Self {
            Self { options: Arc::new(options), connection: Arc::default() }
        }

        /// Waits for the others. Errors: `PoolTimedOut` after a minute.
        pub(crate) async fn turn(&self) -> sqlx::Result<Turn> {
            let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.connection).lock_owned());
            let mut turn = turn.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
            let usable = match &mut *turn {
                Some(connection) => connection.take_back().await,
                None => false,
            };
            if !usable {
                *turn = None;
                *turn = Some(Connection::of(SqliteConnection::connect_with(&self.options).await?));
            }
            Ok(Turn(Some(turn)))
        }
    }

    /// The right to write.
    pub(crate) struct Turn(Option<OwnedMutexGuard<Option<Connection>>>);

    impl Deref for Turn {
        type Target = Connection;
        fn deref(&self) -> &Connection {
            self.0.as_ref().and_then(|turn| turn.as_ref()).expect("a turn has a connection until it ends")
        }
    }

    impl DerefMut for Turn {
        fn deref_mut(&mut self) -> &mut Connection {
            self.0.as_mut().and_then(|turn| turn.as_mut()).expect("a turn has a connection until it ends")
        }
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            // Who failed, or was stopped, in a transaction keeps the ledger's lock, and other processes wait: not until somebody
            // here writes again.
            let left_open = self.transaction == Transaction::Open;
            let mut turn = self.0.take();
            if let (true, Ok(runtime)) = (left_open, tokio::runtime::Handle::try_current()) {
                runtime.spawn(async move {
                    let Some(turn) = turn.as_deref_mut() else { return };
                    if let Some(connection) = turn
                        && !connection.take_back().await
                    {
                        *turn = None;
                    }
                });
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn who_is_stopped_in_a_transaction_keeps_no_lock_and_leaves_nothing() {
            let dir = tempfile::tempdir().unwrap();
            let file = SqliteConnectOptions::new().filename(dir.path().join("a.db")).create_if_missing(true);
            let writer = Writer::lazy(file.clone());
            let mut other = SqliteConnection::connect_with(&file.busy_timeout(Duration::from_secs(20))).await.unwrap();
            sqlx::query("CREATE TABLE t (n)").execute(&mut other).await.unwrap();
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin();
            sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *tx).await.unwrap();
            drop(turn);
            // Waits for the lock, which is given back although nobody has a turn any more.
            sqlx::query("INSERT INTO t VALUES (2)").execute(&mut other).await.unwrap();
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin();
            sqlx::query("INSERT INTO t VALUES (3)").execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            let rows: Vec<i64> = sqlx::query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut other).await.unwrap();
            assert_eq!(rows, [2, 3]);
        }

        #[tokio::test]
        async fn a_connection_that_is_of_no_use_is_made_anew() {
            let dir = tempfile::tempdir().unwrap();
            let file = SqliteConnectOptions::new().filename(dir.path().join("a.db")).create_if_missing(true);
            let writer = Writer::lazy(file);
            let mut turn = writer.turn().await.unwrap();
            sqlx::query("CREATE TEMP TABLE mine (n)").execute(&mut *turn).await.unwrap();
            let gone = "SELECT * FROM mine";
            sqlx::query(gone).fetch_all(&mut *turn).await.unwrap();
            // Its transaction is taken for open, and the database says something else of it than that it is not.
            turn.transaction = Transaction::Open;
            turn.sqlite.lock_handle().await.unwrap().set_progress_handler(1, || false);
            drop(turn);
            let mut turn = writer.turn().await.unwrap();
            sqlx::query("SELECT 1").fetch_one(&mut *turn).await.unwrap();
            assert!(sqlx::query(gone).fetch_all(&mut *turn).await.is_err(), "it is another connection");
        }
    }
}
