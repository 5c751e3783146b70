//! How the databases go about a claim: by its rows, never by all of them.

use super::candidates;
use crate::{
    Encoding, ImportStart, Ledger, NewCampaign, NewChunk, NewImport, NewRow, NewText,
    db::{Db, Dialect, sql},
    packs::kept_from_sending,
};
use campaign::{ChunkId, ImportId, Msisdn, RowState, SenderId, TextId};
use jiff::Timestamp;
use sqlx::Row;

const CHUNKS: u32 = 40;
const ROWS: u32 = 300;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn row(import: ImportId, n: u32) -> NewRow {
    NewRow {
        row_number: n + 2,
        state: RowState::Queued,
        reason: None,
        destination_raw: String::new(),
        destination: Msisdn::from_digits(447_700_000_000 + u64::from(n)),
        sender: SenderId::parse("SHOP").ok(),
        text: Some(TextId::first_used(import, 2)),
        reference: None,
        scheduled_for: None,
        valid_until: None,
    }
}

/// A ledger of 12,000 rows, some of them live, that its database has looked at.
async fn loaded(url: &str) -> (Ledger, ChunkId) {
    let ledger = Ledger::open(url).await.unwrap();
    ledger.migrate().await.unwrap();
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
    let text =
        NewText { id: TextId::first_used(import, 2), body: "hello".to_owned(), encoding: Encoding::Gsm7, segments: 1 };
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
    for chunk in &chunks[..20] {
        ledger.feed(&[chunk.id], jiff::SignedDuration::ZERO, at(1)).await.unwrap();
        ledger.claim(chunk.id, &owner, 100, at(2)).await.unwrap();
    }
    match &ledger.db {
        Db::Sqlite(db) => sqlx::query("ANALYZE").execute(&db.read).await.map(|_| ()).unwrap(),
        Db::Postgres(pool) => sqlx::query("ANALYZE").execute(pool).await.map(|_| ()).unwrap(),
    }
    (ledger, chunks[30].id)
}

/// The plan of a statement with these parameters.
async fn plan(ledger: &Ledger, statement: String, parameters: &[&str]) -> String {
    let statement = (1..).zip(parameters).fold(statement, |said, (n, is)| said.replace(&format!("${n}"), is));
    let lines: Vec<String> = match &ledger.db {
        Db::Sqlite(db) => sqlx::query(sql(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&db.read)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get::<String, _>(3))
            .collect(),
        Db::Postgres(pool) => sqlx::query(sql(format!("EXPLAIN {statement}")))
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get::<String, _>(0))
            .collect(),
    };
    lines.join("\n")
}

async fn check(url: &str) {
    let (ledger, chunk) = loaded(url).await;
    let dialect = if ledger.is_embedded() { Dialect::Sqlite } else { Dialect::Postgres };
    let (first, last) = chunk.row_range();
    let (first, last, now) = (first.to_string(), last.to_string(), at(3).as_millisecond().to_string());
    let numbers = "'[447700000001, 447700000002]'";
    for plan in [
        plan(&ledger, candidates(dialect), &[&first, &last, &now]).await,
        plan(&ledger, format!("SELECT {}", kept_from_sending(dialect, 1, 2)), &[numbers, "'SHOP'"]).await,
    ] {
        assert!(!plan.contains("Seq Scan on messages") && !plan.contains("SCAN messages"), "{plan}");
        // What a row may wait behind is asked for one recipient, not for all live rows.
        assert!(!plan.contains("SCAN o") && !plan.contains("Seq Scan on messages o"), "{plan}");
        assert_eq!(plan.matches("one_open_attempt_per_recipient").count(), 1, "{plan}");
        assert!(!plan.contains("hashed SubPlan"), "{plan}");
    }
}

#[tokio::test]
async fn a_claim_reads_its_own_rows_alone_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    check(&format!("sqlite:{}", dir.path().join("ledger.db").display())).await;
}

#[tokio::test]
async fn a_claim_reads_its_own_rows_alone_on_postgres() {
    check(&testbed::database().url()).await;
}
