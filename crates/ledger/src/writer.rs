//! The one connection of a process that writes to a SQLite ledger.
//!
//! Each statement crosses over to SQLite's thread and back, and a writer's turn lasts for all of its crossings. sqlx's pool and its
//! transactions add some six to those of the statements; here BEGIN goes with the first of them, COMMIT may go with the last, and one
//! whose answer nobody waits for goes with the next.

use futures::{
    TryStreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream, StreamExt as _},
};
use sqlx::{
    Arguments as _, Describe, Either, Execute, Executor, PgConnection, SqlStr, SqliteConnection,
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow, SqliteStatement, SqliteTypeInfo},
};
use std::{
    fmt::Write as _,
    ops::{Deref, DerefMut},
    sync::Arc,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    None,
    /// It begins with the next statement.
    Begins,
    /// It has begun. At the beginning of a turn: it was left by who failed or ended in it.
    Open,
    /// COMMIT went with its last statement: it is done if that answered.
    Ends,
}

impl Transaction {
    fn may_be_open(self) -> bool {
        matches!(self, Self::Open | Self::Ends)
    }
}

/// A connection that knows of its transaction.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sqlite: SqliteConnection,
    pub(crate) transaction: Transaction,
    /// What is being done.
    operation: &'static str,
    /// What goes before the next statement or COMMIT.
    later: Vec<(String, Vec<Value>)>,
    /// COMMIT goes with the next statement.
    closing: bool,
    /// The one before is done, and COMMIT goes before the next statement, whoever makes it. Only in the simulation, where nobody
    /// can look in between.
    pub(crate) commits: bool,
}

/// Most statements that go with another: each number of them is prepared by itself.
const LATER_MAX: usize = 16;

/// What a statement is given.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(i64),
    Text(Arc<str>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// Makes a statement whose answer nobody waits for: [`Later::later`] with values of any kinds.
macro_rules! later {
    ($tx:expr, $statement:expr, [$($value:expr),*]) => {
        $crate::writer::Later::later(&mut *$tx, $statement.into(), vec![$($crate::writer::Value::from($value)),*]).await
    };
}
pub(crate) use later;

/// What [`later`] does on either database.
pub(crate) trait Later {
    /// The statement's `$n` are given these values. SQLite has it made with the next one, or with COMMIT: if it fails, so does that,
    /// and rows that it answers come with those of that.
    fn later(&mut self, statement: String, values: Vec<Value>) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The next statement is the last one of its transaction, and asked for rows: on SQLite COMMIT goes with it.
    fn closing(&mut self) -> &mut Self;
}

impl Later for Connection {
    async fn later(&mut self, statement: String, values: Vec<Value>) -> sqlx::Result<()> {
        debug_assert_ne!(self.transaction, Transaction::Ends, "nothing comes after the last statement");
        if self.later.len() == LATER_MAX {
            self.caught_up().await?;
        }
        self.later.push((statement, values));
        Ok(())
    }

    fn closing(&mut self) -> &mut Self {
        // The simulation looks at what is done before it is committed.
        self.closing = cfg!(not(feature = "simulated"));
        self
    }
}

impl Later for PgConnection {
    async fn later(&mut self, statement: String, values: Vec<Value>) -> sqlx::Result<()> {
        let mut query = sqlx::query(crate::db::sql(statement));
        for value in values {
            query = match value {
                Value::Number(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            };
        }
        query.execute(self).await.map(|_| ())
    }

    fn closing(&mut self) -> &mut Self {
        self
    }
}

impl Connection {
    pub(crate) fn of(sqlite: SqliteConnection) -> Self {
        Self {
            sqlite,
            transaction: Transaction::None,
            operation: "",
            later: Vec::new(),
            closing: false,
            commits: false,
        }
    }

    /// A transaction that takes the ledger's lock with its first statement.
    pub(crate) fn begin(&mut self, operation: &'static str) -> Tx<'_> {
        self.transaction = Transaction::Begins;
        self.operation = operation;
        Tx(self)
    }

    /// Rolls back what was left open. Answers whether the connection can be used.
    pub(crate) async fn take_back(&mut self) -> bool {
        self.later.clear();
        self.closing = false;
        !std::mem::replace(&mut self.transaction, Transaction::None).may_be_open()
            || match sqlx::query("ROLLBACK").execute(&mut self.sqlite).await {
                Ok(_) => true,
                // It did not even begin, it is committed, or a full disk has rolled it back.
                Err(sqlx::Error::Database(error)) => error.message().contains("no transaction is active"),
                Err(_) => false,
            }
    }

    /// Makes what was left for the next statement.
    pub(crate) async fn caught_up(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        if self.is_behind() {
            self.make("").await?;
        }
        Ok(&mut self.sqlite)
    }

    /// Makes a statement that is given nothing, after all that goes before it.
    async fn make(&mut self, statement: &str) -> sqlx::Result<()> {
        let mut values = SqliteArguments::default();
        let (before, _) = self.before(&mut values)?;
        let all = crate::db::sql(format!("{before}{statement}"));
        sqlx::query_with(all, values).execute(&mut self.sqlite).await.map(|_| ())
    }

    /// Something goes before the next statement.
    fn is_behind(&self) -> bool {
        self.commits || self.closing || self.transaction == Transaction::Begins || self.owes()
    }

    /// A statement was left for the next one.
    pub(crate) fn owes(&self) -> bool {
        !self.later.is_empty()
    }

    /// What goes before the next statement, and how many statements that are. Their values are put behind those of that one, which
    /// may have `?` that take the first.
    fn before(&mut self, values: &mut SqliteArguments) -> sqlx::Result<(String, usize)> {
        let (mut all, mut statements) = (String::new(), 0);
        if std::mem::replace(&mut self.commits, false) {
            all.push_str("COMMIT; ");
            statements += 1;
        }
        if self.transaction == Transaction::Begins {
            self.transaction = Transaction::Open;
            all.push_str("BEGIN IMMEDIATE; ");
            statements += 1;
        }
        for (statement, own) in self.later.drain(..) {
            count_on(&mut all, &statement, values.len());
            all.push_str("; ");
            statements += 1;
            for value in own {
                match value {
                    Value::Number(number) => values.add(number),
                    Value::Text(text) => values.add(text),
                }
                .map_err(sqlx::Error::Encode)?;
            }
        }
        Ok((all, statements))
    }
}

/// Appends a statement whose `$1` is the value after the first `taken`, and so on.
fn count_on(all: &mut String, statement: &str, taken: usize) {
    let mut parts = statement.split('$');
    all.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        match number.parse::<usize>() {
            Ok(number) => write!(all, "${}{rest}", number + taken),
            Err(_) => write!(all, "${part}"),
        }
        .expect("text takes text");
    }
}

/// A transaction; rolled back unless it is committed.
pub(crate) struct Tx<'a>(pub(crate) &'a mut Connection);

impl Tx<'_> {
    #[cfg(not(feature = "simulated"))]
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        let ends = self.transaction == Transaction::Ends;
        if !ends {
            crash::before_commit(self.operation);
        }
        if !ends && (self.transaction == Transaction::Open || self.owes()) {
            self.0.make("COMMIT").await?;
        }
        self.0.transaction = Transaction::None;
        Ok(())
    }

    #[cfg(feature = "simulated")]
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        if self.owes() {
            self.0.caught_up().await?;
        }
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
        debug_assert_ne!(self.transaction, Transaction::Ends, "nothing comes after the last statement");
        let values = match query.take_arguments() {
            Ok(values) => values,
            Err(error) => return stream::once(ready(Err(sqlx::Error::Encode(error)))).boxed(),
        };
        if !self.is_behind() {
            return self.sqlite.fetch_many((query.sql(), values));
        }
        let mut values = values.unwrap_or_default();
        let (first, mut before) = match self.before(&mut values) {
            Ok(before) => before,
            Err(error) => return stream::once(ready(Err(error))).boxed(),
        };
        let last = if std::mem::take(&mut self.closing) { "; COMMIT" } else { "" };
        if !last.is_empty() {
            crash::before_commit(self.operation);
            self.transaction = Transaction::Ends;
        }
        let all = crate::db::sql(format!("{first}{}{last}", query.sql().as_str()));
        let asked_for = move |step: &sqlx::Result<Either<SqliteQueryResult, SqliteRow>>| {
            let is_before = before > 0 && matches!(step, Ok(Either::Left(_)));
            before -= usize::from(is_before);
            ready(!is_before)
        };
        self.sqlite.fetch_many((all, Some(values))).filter(asked_for).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<SqliteRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Self::Database>,
    {
        if !self.is_behind() {
            // One that commits by itself has done so when it answers.
            return self.sqlite.fetch_optional(query);
        }
        let mut steps = self.fetch_many(query);
        Box::pin(async move {
            let mut first = None;
            // To the end: COMMIT may come after the row.
            while let Some(step) = steps.try_next().await? {
                first = first.or(step.right());
            }
            Ok(first)
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
    use super::Connection;
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
            let left_open = self.transaction.may_be_open();
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
        use crate::writer::Later as _;

        #[tokio::test]
        async fn who_is_stopped_in_a_transaction_keeps_no_lock_and_leaves_nothing() {
            let dir = tempfile::tempdir().unwrap();
            let file = SqliteConnectOptions::new().filename(dir.path().join("a.db")).create_if_missing(true);
            let writer = Writer::lazy(file.clone());
            let mut other = SqliteConnection::connect_with(&file.busy_timeout(Duration::from_secs(20))).await.unwrap();
            sqlx::query("CREATE TABLE t (n)").execute(&mut other).await.unwrap();
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin("write");
            sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *tx).await.unwrap();
            drop(turn);
            // Waits for the lock, which is given back although nobody has a turn any more.
            sqlx::query("INSERT INTO t VALUES (2)").execute(&mut other).await.unwrap();
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin("write");
            sqlx::query("INSERT INTO t VALUES (3)").execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            let rows: Vec<i64> = sqlx::query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut other).await.unwrap();
            assert_eq!(rows, [2, 3]);
        }

        /// A writer, and another connection to its file, in which there is a table.
        async fn two_of(dir: &tempfile::TempDir) -> (Writer, SqliteConnection) {
            let file = SqliteConnectOptions::new().filename(dir.path().join("a.db")).create_if_missing(true);
            let mut other = SqliteConnection::connect_with(&file).await.unwrap();
            sqlx::query("CREATE TABLE t (n UNIQUE, word)").execute(&mut other).await.unwrap();
            (Writer::lazy(file), other)
        }

        async fn rows(other: &mut SqliteConnection) -> Vec<(i64, String)> {
            sqlx::query_as("SELECT n, word FROM t ORDER BY n").fetch_all(other).await.unwrap()
        }

        const INSERT: &str = "INSERT INTO t (n, word) VALUES ($1, $2)";

        #[tokio::test]
        async fn what_is_left_for_later_goes_with_the_next_statement_or_with_commit() {
            let dir = tempfile::tempdir().unwrap();
            let (writer, mut other) = two_of(&dir).await;
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin("write");
            later!(tx, INSERT, [1, "one"]).unwrap();
            later!(tx, INSERT, [2, "$2"]).unwrap();
            // Its values stand before those of the others.
            let found: Vec<i64> = sqlx::query_scalar("SELECT n FROM t WHERE n IN (?, ?) AND word <> ? ORDER BY n")
                .bind(1)
                .bind(2)
                .bind("two")
                .fetch_all(&mut *tx)
                .await
                .unwrap();
            assert_eq!(found, [1, 2]);
            later!(tx, INSERT, [3, "three"]).unwrap();
            assert!(rows(&mut other).await.is_empty());
            tx.commit().await.unwrap();
            assert_eq!(rows(&mut other).await, [(1, "one".into()), (2, "$2".into()), (3, "three".into())]);
        }

        #[tokio::test]
        async fn a_transaction_is_committed_with_its_last_statement() {
            let dir = tempfile::tempdir().unwrap();
            let (writer, mut other) = two_of(&dir).await;
            let mut turn = writer.turn().await.unwrap();
            let mut tx = turn.begin("write");
            later!(tx, format!("{INSERT} RETURNING n"), [1, "one"]).unwrap();
            let inserted = sqlx::query_scalar("INSERT INTO t (n, word) VALUES (2, 'two') RETURNING n");
            let inserted: Vec<i64> = inserted.fetch_all(tx.closing()).await.unwrap();
            assert_eq!(inserted, [1, 2], "what was left for later answers, too");
            assert_eq!(rows(&mut other).await.len(), 2);
            tx.commit().await.unwrap();
            drop(turn);
            let mut turn = writer.turn().await.unwrap();
            sqlx::query("INSERT INTO t (n, word) VALUES (3, 'three')").execute(&mut *turn).await.unwrap();
            assert_eq!(rows(&mut other).await.len(), 3, "it is a statement by itself again");
        }

        #[tokio::test]
        async fn what_fails_later_takes_all_of_its_transaction_back_and_nothing_of_the_next() {
            let dir = tempfile::tempdir().unwrap();
            let (writer, mut other) = two_of(&dir).await;
            for closes in [false, true] {
                let mut turn = writer.turn().await.unwrap();
                let mut tx = turn.begin("write");
                later!(tx, INSERT, [1, "one"]).unwrap();
                later!(tx, INSERT, [1, "one again"]).unwrap();
                later!(tx, INSERT, [2, "two"]).unwrap();
                let ended = match closes {
                    false => tx.commit().await,
                    true => sqlx::query("SELECT 1").fetch_all(tx.closing()).await.map(|_| ()),
                };
                assert!(ended.unwrap_err().to_string().contains("UNIQUE"));
                drop(turn);
                // Nor is anything left of one that ends before what it had left was made.
                let mut turn = writer.turn().await.unwrap();
                let mut tx = turn.begin("write");
                later!(tx, INSERT, [3, "three"]).unwrap();
                tx.closing();
                drop(turn);
                let mut turn = writer.turn().await.unwrap();
                let mut tx = turn.begin("write");
                sqlx::query("SELECT 1").fetch_all(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
                assert!(rows(&mut other).await.is_empty());
            }
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
            turn.transaction = super::super::Transaction::Open;
            turn.sqlite.lock_handle().await.unwrap().set_progress_handler(1, || false);
            drop(turn);
            let mut turn = writer.turn().await.unwrap();
            sqlx::query("SELECT 1").fetch_one(&mut *turn).await.unwrap();
            assert!(sqlx::query(gone).fetch_all(&mut *turn).await.is_err(), "it is another connection");
        }
    }
}
