//! Files go into a ledger, whole or not at all.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

use campaign::SenderId;
use ingest::{Checks, Launch, LoadError, Loaded, Options, Outcome, check, load};
use jiff::Timestamp;
use ledger::{Ledger, OwnerGuard};
use sqlx::{Connection, SqliteConnection};
use std::{cell::Cell, collections::HashSet, fs, path::PathBuf};
use tokio_util::sync::CancellationToken;

struct House {
    dir: tempfile::TempDir,
    ledger: Ledger,
    owner: OwnerGuard,
}

fn now() -> Timestamp {
    "2026-03-02T09:00:00Z".parse().unwrap()
}

fn flags() -> Options {
    Options { sender: Some("ACME".into()), text: Some("hi".into()), ..Options::default() }
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let owner = ledger.register_owner("test", "here", 1, now()).await.unwrap();
        Self { dir, ledger, owner }
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn launch(&self) -> Launch {
        Launch { again: false, launched_by: "ann".into(), owner: self.owner.id(), rejects_dir: None }
    }

    async fn load(&self, path: &std::path::Path, launch: &Launch) -> Result<Outcome, LoadError> {
        let preview = check(path, &flags(), &Checks::at(now())).unwrap();
        load(&self.ledger, path, &preview, launch, now, |_| {}, &CancellationToken::new()).await
    }

    async fn loaded(&self, path: &std::path::Path) -> Loaded {
        match self.load(path, &self.launch()).await.unwrap() {
            Outcome::Loaded(loaded) => loaded,
            other @ Outcome::AlreadyUnfinished(_) => panic!("{other:?}"),
        }
    }

    async fn sql(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite://{}", self.dir.path().join("ledger.db").display())).await.unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(query).fetch_one(&mut self.sql().await).await.unwrap()
    }
}

#[tokio::test]
async fn every_row_is_in_the_ledger_in_one_state_with_its_reason() {
    let house = House::new().await;
    let mut sql = house.sql().await;
    sqlx::query(
        "INSERT INTO suppressions (destination, reason, added_by, added_at) VALUES (447700900004, 'STOP', 'ann', 0)",
    )
    .execute(&mut sql)
    .await
    .unwrap();
    let path = house.file(
        "march.csv",
        "phone,name,text,send_at\n07700900001,Ann,Hi {{name}},\n7700900001,Ann,Hi {{name}},\n07700900002,,Hi {{name}},\n\
         07700900003,Cy,,2026-04-01 09:00\n07700900004,=Dan,Hi {{name}},\n0770,Eve,,\n07700900005\n",
    );
    let loaded = house.loaded(&path).await;
    assert_eq!((loaded.sendable, loaded.invalid, loaded.duplicate, loaded.suppressed), (2, 3, 1, 1));

    type Report = (i64, String, Option<String>, Option<String>, Option<String>);
    let rows: Vec<Report> =
        sqlx::query_as("SELECT row_number, state, reason, destination, text FROM delivery_reports ORDER BY row_number")
            .fetch_all(&mut sql)
            .await
            .unwrap();
    let shown =
        rows.iter().map(|(row, state, _, number, text)| (*row, state.as_str(), number.as_deref(), text.as_deref()));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (2, "queued", Some("447700900001"), Some("Hi Ann")),
            (3, "duplicate", Some("447700900001"), Some("Hi Ann")),
            (4, "invalid", Some("447700900002"), None),
            (5, "scheduled", Some("447700900003"), Some("hi")),
            (6, "suppressed", Some("447700900004"), Some("Hi =Dan")),
            (7, "invalid", None, Some("hi")),
            (8, "invalid", None, None),
        ]
    );
    assert!(rows.iter().all(|(_, state, reason, ..)| reason.is_none() == matches!(&state[..], "queued" | "scheduled")));

    let rejects = fs::read_to_string(loaded.rejects_file.unwrap()).unwrap();
    let lines: Vec<_> = rejects.lines().collect();
    assert_eq!(lines[0], "phone,name,text,send_at,row_number,code,reason");
    assert_eq!(lines.len(), 6, "{rejects}");
    assert!(lines[1].starts_with("7700900001,Ann,Hi {{name}},,3,duplicate,same number as row 2"), "{rejects}");
    assert!(lines[5].starts_with("07700900004,'=Dan,Hi {{name}},,6,suppressed,"), "{rejects}");
}

#[tokio::test]
async fn more_opt_outs_than_are_known_by_heart_are_looked_up() {
    let house = House::new().await;
    let mut sql = house.sql().await;
    let many = "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 5100)
         INSERT INTO suppressions (destination, sender, reason, added_by, added_at)
         SELECT 447700100000 + n, CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN 'ACME' ELSE 'OTHER' END, 'STOP', 'ann', 0 FROM n";
    let file = house.file("march.csv", "phone\n07700100300\n07700100301\n07700100302\n07700900001\n");
    let again = Launch { again: true, ..house.launch() };
    for (prepare, suppressed) in
        [(None, 0), (Some(many), 2), (Some("DELETE FROM suppressions WHERE destination > 447700100400"), 2)]
    {
        if let Some(prepare) = prepare {
            sqlx::query(prepare).execute(&mut sql).await.unwrap();
        }
        let Outcome::Loaded(loaded) = house.load(&file, &again).await.unwrap() else { panic!("it was launched again") };
        assert_eq!((loaded.suppressed, loaded.sendable), (suppressed, 4 - suppressed));
    }
}

#[tokio::test]
async fn a_file_without_rejects_leaves_no_rejects_file() {
    let house = House::new().await;
    let loaded = house.loaded(&house.file("a.csv", "phone\n07700900001\n")).await;
    assert_eq!((loaded.rejects_file, loaded.rejects_problem), (None, None));
    assert!(!house.dir.path().join("a.rejected.csv").exists());
}

#[tokio::test]
async fn many_rows_of_few_texts_make_full_chunks_of_one_text() {
    let house = House::new().await;
    let rows: String =
        (0..12_345).map(|n| format!("07700 {n:06},text number {}\n", n % 5).replace("07700 0", "07400 2")).collect();
    let path = house.file("a.csv", format!("phone,text\n{rows}"));
    let preview = check(&path, &flags(), &Checks::at(now())).unwrap();
    assert_eq!(preview.sendable, 12_345, "{:?}", preview.rejects);
    let heard = Cell::new(0);
    let nothing = CancellationToken::new();
    load(&house.ledger, &path, &preview, &house.launch(), now, |rows| heard.set(rows), &nothing).await.unwrap();
    assert_eq!(heard.get(), 12_345);
    assert_eq!(house.count("(SELECT DISTINCT row_number FROM all_rows)").await, 12_345);
    assert_eq!(house.count("texts").await, 5);
    let per_chunk: Vec<(i64, i64)> =
        sqlx::query_as("SELECT count(*), count(DISTINCT text_id) FROM all_rows GROUP BY id / 512")
            .fetch_all(&mut house.sql().await)
            .await
            .unwrap();
    assert!(per_chunk.len() <= 29, "{} chunks", per_chunk.len());
    assert!(per_chunk.iter().filter(|(_, texts)| *texts > 1).count() <= 4, "{per_chunk:?}");
}

#[tokio::test]
async fn the_report_is_in_the_files_order_although_chunks_are_of_near_numbers() {
    // More than a page of the report.
    const ROWS: u32 = 33_000;
    const NUMBERS: u32 = 40_000;
    let house = House::new().await;
    // In no order of their numbers.
    let lines: String = (0..ROWS).map(|n| format!("074002{:05}\n", n * 7_919 % NUMBERS)).collect();
    let path = house.file("big.csv", format!("phone\n{lines}"));
    assert_eq!(house.loaded(&path).await.sendable, u64::from(ROWS));
    let mut sql = house.sql().await;
    let (spread,): (i64,) = sqlx::query_as(
        "SELECT max(spread) FROM (SELECT max(destination) - min(destination) AS spread FROM all_rows GROUP BY id / 512)",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert!(spread < i64::from(NUMBERS) * 8 / 10, "a chunk of numbers from all of the file: {spread}");
    let mut results = house.ledger.results("big", &[]).await.unwrap().unwrap();
    let mut rows = Vec::new();
    while let Some(page) = results.next_page().await.unwrap() {
        rows.extend(page.iter().map(|row| row.row_number));
    }
    assert!(rows.iter().copied().eq(2..i64::from(ROWS) + 2), "not in the file's order");
}

#[tokio::test]
async fn the_same_bytes_are_launched_again_only_on_purpose() {
    let house = House::new().await;
    let live = house.file("live.csv", "phone\n07700900001\n");
    house.loaded(&live).await;
    let renamed = house.file("renamed.csv", fs::read(&live).unwrap());
    match house.load(&renamed, &house.launch()).await.unwrap() {
        Outcome::AlreadyUnfinished(earlier) => {
            assert_eq!(earlier.to_string(), "as live.csv on 2026-03-02 09:00:00 UTC by ann (campaigns: live)");
        }
        Outcome::Loaded(loaded) => panic!("loaded twice: {loaded:?}"),
    }
    let settled = house.file("settled.csv", "phone\n0770\n");
    house.loaded(&settled).await;
    let error = house.load(&settled, &house.launch()).await.unwrap_err();
    assert!(matches!(error, LoadError::Launched(_)) && error.to_string().contains("--again"), "{error}");
    let again = Launch { again: true, ..house.launch() };
    let Outcome::Loaded(loaded) = house.load(&settled, &again).await.unwrap() else { panic!() };
    assert_eq!(loaded.campaigns[0].1, "settled-2");
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_checked_queues_nothing() {
    let house = House::new().await;
    let path = house.file("a.csv", "phone\n07700900001\n");
    let preview = check(&path, &flags(), &Checks::at(now())).unwrap();
    for bytes in ["phone\n07700900002\n", "phone\n07700900001\n07700900002\n", "phone\n\"07700900001\n"] {
        house.file("a.csv", bytes);
        let nothing = CancellationToken::new();
        let error = load(&house.ledger, &path, &preview, &house.launch(), now, |_| {}, &nothing).await.unwrap_err();
        assert!(matches!(error, LoadError::Changed { .. }), "{error:?}");
        assert_eq!((house.count("imports").await, house.count("all_rows").await), (0, 0));
    }
}

#[tokio::test]
async fn a_load_that_was_stopped_is_made_whole_by_the_next() {
    let house = House::new().await;
    let rows: String = (0..15_000).map(|n| format!("07400 {:06}\n", 200_000 + n)).collect();
    let path = house.file("a.csv", format!("phone\n{rows}"));
    let preview = check(&path, &flags(), &Checks::at(now())).unwrap();
    let cancel = CancellationToken::new();
    let stopped = load(&house.ledger, &path, &preview, &house.launch(), now, |_| cancel.cancel(), &cancel).await;
    assert!(matches!(stopped, Err(LoadError::Cancelled)), "{stopped:?}");
    assert!((1..15_000).contains(&house.count("all_rows").await));
    assert_eq!(house.count("campaigns WHERE state = 'active'").await, 0);

    assert_eq!(house.loaded(&path).await.sendable, 15_000);
    assert_eq!(house.count("all_rows").await, 15_000);
    assert_eq!(house.count("(SELECT DISTINCT row_number FROM all_rows)").await, 15_000);
}

#[tokio::test]
async fn a_refused_file_queues_nothing() {
    let house = House::new().await;
    let path = house.file("a.csv", "phone,from\n07700900001,ACME\n07700900002,SMTEST\n");
    let approved: HashSet<_> = [SenderId::parse("ACME").unwrap()].into();
    check(&path, &flags(), &Checks { approved: Some(approved), ..Checks::at(now()) }).unwrap_err();
    assert_eq!(house.count("imports").await, 0);
}
