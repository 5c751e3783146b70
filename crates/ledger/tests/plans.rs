//! How the databases go about the way of a row: every statement that it runs is written down and its plan is asked for. None
//! may read all messages, attempts, chunks or texts: what a row costs would grow with the table.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use campaign::{
    ChunkId, ImportId, Msisdn, Outcome, RowState, SenderId, SmsId, TextId, matching::Listed, sweep::Window,
};
use jiff::{SignedDuration, Timestamp};
use ledger::{
    Claim, Delivery, Encoding, ImportStart, Ledger, ListedText, NewCampaign, NewChunk, NewImport, NewRow, NewText,
    NotedReading, PendingWindow, RetryPolicy, Start,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Mutex, PoisonError},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const CHUNKS: u32 = 60;
const ROWS: u32 = 300;
const LOOK: SignedDuration = SignedDuration::from_secs(10);

/// The statements that sqlx has told of.
static STATEMENTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Hears what sqlx says of each statement.
struct Listener;

#[derive(Default)]
struct Told {
    summary: String,
    statement: String,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query" && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        let statement = if told.statement.is_empty() { told.summary } else { told.statement };
        STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner).insert(statement);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn number(n: u32) -> Option<Msisdn> {
    Msisdn::from_digits(447_700_000_000 + u64::from(n))
}

fn row(import: ImportId, n: u32) -> NewRow {
    NewRow {
        row_number: n + 2,
        state: RowState::Queued,
        reason: None,
        destination_raw: String::new(),
        destination: number(n),
        sender: SenderId::parse("SHOP").ok(),
        text: Some(TextId::first_used(import, 2)),
        reference: None,
        scheduled_for: None,
        valid_until: None,
    }
}

/// Loads a file, sends a part of it and confirms a part of that.
async fn way(ledger: &Ledger, analyze: impl AsyncFnOnce()) {
    let owner = ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let new = NewImport {
        file_name: "big.csv".to_owned(),
        sha256: "00".to_owned(),
        bytes: 1,
        rows_in_file: u64::from(CHUNKS * ROWS),
        again: false,
        launched_by: "ann".to_owned(),
        owner: owner.id(),
        campaigns: vec![NewCampaign { name: "big".to_owned(), ..NewCampaign::default() }],
    };
    let ImportStart::Load { import, campaigns } = ledger.begin_import(&new, at(0)).await.unwrap() else {
        panic!("a new file is loaded")
    };
    let body = "hello".to_owned();
    let text = NewText { id: TextId::first_used(import, 2), body: body.clone(), encoding: Encoding::Gsm7, segments: 1 };
    let chunks: Vec<NewChunk> = (0..CHUNKS)
        .map(|nth| NewChunk {
            id: ChunkId::nth(import, nth),
            campaign: campaigns[0].0,
            texts: vec![text.clone()],
            rows: (0..ROWS).map(|n| row(import, nth * ROWS + n)).collect(),
        })
        .collect();
    ledger.append_chunks(import, &chunks, at(0)).await.unwrap();
    ledger.finish_import(import, at(0)).await.unwrap();
    analyze().await;
    STATEMENTS.lock().unwrap().clear();

    let sender = SenderId::parse("SHOP").unwrap();
    let retry = RetryPolicy { first: LOOK, longest: LOOK };
    for (nth, second) in (0..3).zip(1..) {
        let backlog = ledger.backlog(64, LOOK, at(second)).await.unwrap();
        let chunk = backlog.waiting[0].chunks[0];
        ledger.feed(&[chunk], LOOK, at(second)).await.unwrap();
        let chunk = ledger.most_urgent(chunk).await.unwrap().unwrap();
        let Claim::Batches(batches) = ledger.claim(chunk, &owner, 100, at(second)).await.unwrap() else {
            panic!("the chunk was not claimed")
        };
        for batch in batches {
            let Start::Send(sending) = ledger.start(batch, at(second)).await.unwrap() else {
                panic!("a batch was taken back")
            };
            let outcome = Outcome::Accepted { sms_id: None };
            ledger.record(&sending, &outcome, &retry, LOOK, at(second)).await.unwrap();
        }
        ledger.finish_chunk(chunk, &owner, at(second)).await.unwrap();
        ledger.more_to_send().await.unwrap();
        assert_eq!(ledger.open_senders().await.unwrap(), std::slice::from_ref(&sender));
        let open = ledger.unread_attempts(&sender, 2_000).await.unwrap();
        ledger.due_attempts(&sender, at(second), 50).await.unwrap();
        ledger.sending_since(&sender).await.unwrap();
        ledger.last_accepted(&sender).await.unwrap();
        ledger.cursor(&sender).await.unwrap();
        // All but the last are listed, of which the last is pending.
        let listed: Vec<ListedText> = (nth * ROWS..(nth + 1) * ROWS - 1)
            .map(|n| ListedText {
                text: Listed {
                    sms_id: SmsId(i64::from(n) + 1),
                    destination: number(n),
                    text: body.as_str().into(),
                    time: at(second).as_second(),
                },
                delivery: Some(if n % ROWS == ROWS - 2 { Delivery::Pending } else { Delivery::Sent }),
            })
            .collect();
        let applied =
            ledger.apply_listing(&sender, &listed.iter().collect(), SignedDuration::ZERO, at(second)).await.unwrap();
        assert_eq!((applied.found, applied.pending), (299, 1));
        let window = Window { since: at(second).as_second(), until: at(second).as_second() };
        let noted = NotedReading {
            sender: &sender,
            row: None,
            window,
            skew: SignedDuration::ZERO,
            began: at(second),
            listed: Some(299),
            found: 299,
        };
        ledger.note_reading(&noted, at(second)).await.unwrap();
        ledger
            .keep_window(&sender, &PendingWindow { id: -1, window, listed: 299, looks: 1 }, at(second))
            .await
            .unwrap();
        for (_, window) in ledger.due_windows(at(second)).await.unwrap() {
            ledger.drop_window(window.id).await.unwrap();
        }
        ledger.ask_details(&[SmsId(i64::from((nth + 1) * ROWS) - 1)], at(second)).await.unwrap();
        for due in ledger.due_details(200, at(second)).await.unwrap() {
            ledger.record_detail(&due, Some(Delivery::Sent), None, at(second)).await.unwrap();
        }
        ledger.advance_cursor(&sender, window.until, LOOK).await.unwrap();
        let ids: Vec<_> = open.iter().map(|attempt| attempt.id).collect();
        let settled = ledger.settle_found(&ids, at(second)).await.unwrap();
        let left = open.iter().find(|attempt| !settled.contains(&attempt.id)).unwrap();
        let absent = ledger.absent_rows(left).await.unwrap();
        assert_eq!(absent.len(), 1);
        ledger.destinations_of(&absent).await.unwrap();
        ledger.recipients_between(&sender, at(second), at(second)).await.unwrap();
        ledger.look_again(left, at(second), Some((at(second), &absent))).await.unwrap();
        ledger.sweep_owners(LOOK, LOOK, at(second)).await.unwrap();
        ledger.sweep_cancelled(None, 50, at(second)).await.unwrap();
        ledger.sweep_expired(50, at(second)).await.unwrap();
        ledger.todo().await.unwrap();
    }
}

/// What was heard since the file was loaded, but for what only ends or begins.
fn heard() -> Vec<String> {
    let heard = std::mem::take(&mut *STATEMENTS.lock().unwrap());
    let plans = |statement: &&str| {
        ["SELECT", "UPDATE", "DELETE", "INSERT", "WITH"].iter().any(|verb| statement.starts_with(verb))
    };
    // Several go to SQLite at a time.
    let heard = heard.iter().flat_map(|statements| statements.split("; ")).filter(plans);
    let heard: Vec<String> = heard.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect();
    assert!(heard.len() > 30, "{heard:#?}");
    heard
}

/// The tables that grow with what is sent, as the statements call them.
const LARGE: [&str; 11] = ["messages", "m", "o", "packs", "p", "attempts", "a", "chunks", "k", "texts", "t"];

#[tokio::test]
async fn no_statement_on_the_way_of_a_row_reads_a_whole_table() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("ledger.db").display());
    let ledger = Ledger::open(&url).await.unwrap();
    ledger.migrate().await.unwrap();
    way(&ledger, async || {}).await;
    let statements = heard();
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    let mut whole = Vec::new();
    for statement in statements {
        let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan: Vec<String> =
            sqlx::query(explained).fetch_all(&mut conn).await.unwrap().iter().map(|row| row.get(3)).collect();
        for line in &plan {
            // A partial index holds what is open alone.
            let scans = line.starts_with("SCAN") && !line.contains("USING");
            let large = LARGE.iter().any(|table| line.split(' ').nth(1) == Some(table));
            // All that was ever sent from one sender.
            let of_sender = line.ends_with("attempts_by_time (sender=?)");
            if scans && large || of_sender {
                whole.push(format!("{line}\nin the plan of {statement}\n{plan:#?}"));
            }
        }
    }

    let database = testbed::database();
    let ledger = Ledger::open(&database.url()).await.unwrap();
    ledger.migrate().await.unwrap();
    assert!(whole.is_empty(), "{}", whole.join("\n\n"));
    let mut conn = PgConnection::connect(&database.url()).await.unwrap();
    way(&ledger, async || {
        let mut conn = PgConnection::connect(&database.url()).await.unwrap();
        sqlx::query("ANALYZE").execute(&mut conn).await.unwrap();
    })
    .await;
    let statements = heard();
    sqlx::query("ANALYZE").execute(&mut conn).await.unwrap();
    sqlx::query("SET plan_cache_mode = force_generic_plan").execute(&mut conn).await.unwrap();
    // Tables as small as these are read whole because that is quicker; what is left is what no index can answer.
    sqlx::query("SET enable_seqscan = off").execute(&mut conn).await.unwrap();
    for (n, statement) in statements.into_iter().enumerate() {
        let count = (1..30).filter(|n| statement.contains(&format!("${n}"))).count();
        // The driver names the types of its parameters; here they are tried.
        let types = |choice: u32| {
            let types = (0..count).map(|n| if choice >> n & 1 == 0 { "bigint" } else { "text" });
            types.collect::<Vec<_>>().join(", ")
        };
        let typed =
            (0..1_u32 << count.min(12)).map(|choice| format!("PREPARE s{n} ({}) AS {statement}", types(choice)));
        let mut prepared = false;
        for prepare in std::iter::once(format!("PREPARE s{n} AS {statement}")).chain(typed) {
            prepared = sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut conn).await.is_ok();
            if prepared {
                break;
            }
        }
        assert!(prepared, "{statement}");
        let parameters = if count == 0 { String::new() } else { format!("({})", vec!["NULL"; count].join(", ")) };
        let explained = AssertSqlSafe(format!("EXPLAIN EXECUTE s{n}{parameters}"));
        let plan: Vec<String> =
            sqlx::raw_sql(explained).fetch_all(&mut conn).await.unwrap().iter().map(|row| row.get(0)).collect();
        for line in &plan {
            let large = ["messages", "packs", "attempts", "chunks", "texts"];
            if large.iter().any(|table| line.contains(&format!("Seq Scan on {table}"))) {
                whole.push(format!("{line}\nin the plan of {statement}\n{plan:#?}"));
            }
        }
    }
    assert!(whole.is_empty(), "{}", whole.join("\n\n"));
}
