//! What bare programs reach on this machine: the limits that the figures are compared with.

use crate::bench::{Bench, Place, number};
use futures::{StreamExt, stream};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

const TEXT: &str = "Our spring sale starts on Friday at nine. Reply STOP to opt out.";

/// The columns of a row that a launch fills.
const COLUMNS: &str = "id BIGINT PRIMARY KEY, campaign_id BIGINT, row_number BIGINT, state TEXT, destination_raw TEXT, \
    destination BIGINT, sender TEXT, text_id BIGINT, reference TEXT, queued_at BIGINT, updated_at BIGINT";
/// Their names.
const NAMES: &str = "id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference, queued_at, updated_at";

/// Inserts the rows of the file into a table of their columns and nothing else, as they are in memory: SQLite by a prepared
/// statement of many rows in one transaction, by the same driver, Postgres by COPY.
pub(crate) fn bare_insert(bench: &Bench, rows: u32) -> Duration {
    match &bench.place {
        Place::Embedded | Place::Redis(_) => runtime().block_on(async {
            const ROWS: u32 = 125;
            let file = bench.dir.path().join("bare.db");
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(file)
                .create_if_missing(true)
                .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
            let mut conn = options.connect().await.expect("a file can be made");
            // The row's id is SQLite's own key.
            let columns = COLUMNS.replace("BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY");
            run(&mut conn, format!("CREATE TABLE bare ({columns})")).await;
            let mut insert = format!("INSERT INTO bare ({NAMES}) VALUES ");
            insert.push_str(&vec!["(?, 1, ?, 'queued', ?, ?, 'ACME', 4294967298, ?, 1, 1)"; ROWS as usize].join(", "));
            let began = Instant::now();
            let mut tx = conn.begin().await.expect("nobody else is there");
            for first in (0..rows).step_by(ROWS as usize) {
                let mut statement = sqlx::query(AssertSqlSafe(insert.as_str()));
                for n in first..first + ROWS {
                    let number = number(n);
                    statement = statement
                        .bind(8_589_934_592 + i64::from(n))
                        .bind(i64::from(n) + 2)
                        .bind(number.to_string())
                        .bind(number.cast_signed())
                        .bind(format!("order-{n}"));
                }
                statement.execute(&mut *tx).await.expect("rows can be inserted");
            }
            tx.commit().await.expect("the disk has room");
            began.elapsed()
        }),
        Place::Servers(_) => runtime().block_on(async {
            let mut conn = connect(&bench.place.ledger()).await;
            statement(&mut conn, format!("CREATE TABLE bare ({COLUMNS})")).await;
            let began = Instant::now();
            let mut copy = conn.copy_in_raw(&format!("COPY bare ({NAMES}) FROM STDIN")).await.expect("COPY begins");
            let mut lines = String::new();
            for n in 0..rows {
                let (id, number) = (8_589_934_592 + u64::from(n), number(n));
                writeln!(lines, "{id}\t1\t{}\tqueued\t{number}\t{number}\tACME\t4294967298\torder-{n}\t1\t1", n + 2)
                    .expect("a String takes all");
                if lines.len() > 60_000 {
                    copy.send(lines.as_bytes()).await.expect("COPY goes on");
                    lines.clear();
                }
            }
            copy.send(lines.as_bytes()).await.expect("COPY goes on");
            copy.finish().await.expect("COPY ends");
            let took = began.elapsed();
            statement(&mut conn, "DROP TABLE bare".to_owned()).await;
            took
        }),
    }
}

async fn statement(conn: &mut sqlx::PgConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(conn).await.expect("the statement is right");
}

async fn run(conn: &mut SqliteConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(conn).await.expect("the statement is right");
}

async fn connect(url: &str) -> sqlx::PgConnection {
    <sqlx::PgConnection as sqlx::Connection>::connect(url).await.expect("Postgres is up")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("threads can be had")
}

/// What firing the calls of a campaign takes.
pub(crate) struct Fired {
    /// The bulk calls.
    pub(crate) sends: Duration,
    /// The pages of the list.
    pub(crate) pages: Duration,
}

/// Fires the bulk calls of so many recipients, 100 in each and as many at a time as a worker makes, then reads as many pages of
/// the list as hold them, 8 at a time, asking for the sender and the seconds in which they were sent as the reconciler does; over
/// kept connections, parsing nothing and storing nothing.
pub(crate) fn bare_calls(bench: &Bench, recipients: u32) -> Fired {
    _ = rustls::crypto::ring::default_provider().install_default();
    runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().http1_only().build().expect("a client can be built");
        let base = &bench.base_url;
        let form = [
            ("grant_type", "password"),
            ("client_id", "sandbox-client"),
            ("client_secret", "sandbox-secret"),
            ("username", "sandbox"),
            ("password", "sandbox-password"),
        ];
        let form = form.into_iter().fold(reqwest::multipart::Form::new(), |form, (name, value)| form.text(name, value));
        let answer =
            client.post(format!("{base}/oauth/token")).multipart(form).send().await.expect("the sandbox answers");
        let answer: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.expect("a whole answer")).expect("a token");
        let token = answer["access_token"].as_str().unwrap_or_default();
        let second = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let (since, began) = (second(jiff::Timestamp::now()), Instant::now());
        stream::iter((0..recipients).step_by(100))
            .for_each_concurrent(worker::Settings::default().concurrency, |first| {
                let form = reqwest::multipart::Form::new().text("source", "ACME").text("text", TEXT);
                let last = (first + 100).min(recipients);
                let form = (first..last).fold(form, |form, n| form.text("destination[]", number(n).to_string()));
                let request = client.post(format!("{base}/sms/bulk-send")).bearer_auth(token).multipart(form);
                async move {
                    let answer = request.send().await.expect("the sandbox answers");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await.expect("a whole answer");
                }
            })
            .await;
        let sends = began.elapsed();
        let until = second(jiff::Timestamp::now());
        let began = Instant::now();
        stream::iter(1..=recipients.div_ceil(10))
            .for_each_concurrent(8, |page| {
                let page = page.to_string();
                let window = [("sender", "ACME"), ("sent_since", &since), ("sent_until", &until), ("page", &page)];
                let request = client.get(format!("{base}/sms/list")).query(&window).bearer_auth(token);
                async move {
                    let answer = request.send().await.expect("the sandbox answers");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await.expect("a whole answer");
                }
            })
            .await;
        Fired { sends, pages: began.elapsed() }
    })
}
