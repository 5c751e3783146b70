//! Migrations, and telling a ledger of another version.

use crate::{Bench, on_both};
use ledger::{Ledger, Schema};

on_both! {
    a_ledger_that_is_migrated_twice_is_current
    a_ledger_of_an_older_and_of_a_newer_program_is_told_apart
    a_ledger_whose_schema_has_the_same_number_and_other_words_is_told_apart
}

async fn a_ledger_that_is_migrated_twice_is_current(bench: &Bench) {
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Current);
    bench.ledger.migrate().await.unwrap();
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Current);
    assert_eq!(bench.ledger.is_embedded(), bench.url.starts_with("sqlite:"));
}

async fn a_ledger_of_an_older_and_of_a_newer_program_is_told_apart(bench: &Bench) {
    bench.raw.execute("UPDATE _sqlx_migrations SET version = version + 1000").await.unwrap();
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Newer, "nothing was taken away");
    bench.raw.execute("UPDATE schema_floor SET oldest = 1000").await.unwrap();
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Ahead);
    bench.raw.execute("DELETE FROM _sqlx_migrations").await.unwrap();
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Behind);
}

async fn a_ledger_whose_schema_has_the_same_number_and_other_words_is_told_apart(bench: &Bench) {
    bench.raw.execute("UPDATE _sqlx_migrations SET checksum = (SELECT checksum FROM _sqlx_migrations WHERE version = 2) WHERE version = 1").await.unwrap();
    assert_eq!(bench.ledger.schema().await.unwrap(), Schema::Foreign);
    assert!(bench.ledger.migrate().await.is_err(), "nothing can be brought up to date");
}

#[tokio::test]
async fn an_empty_sqlite_file_is_behind_until_it_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&format!("sqlite:{}", dir.path().join("new.db").display())).await.unwrap();
    assert_eq!(ledger.schema().await.unwrap(), Schema::Behind);
    ledger.migrate().await.unwrap();
    assert_eq!(ledger.schema().await.unwrap(), Schema::Current);
}

#[tokio::test]
async fn an_empty_postgres_database_is_behind_until_it_is_migrated() {
    let database = testbed::database();
    let ledger = Ledger::open(&database.url()).await.unwrap();
    assert_eq!(ledger.schema().await.unwrap(), Schema::Behind);
    ledger.migrate().await.unwrap();
    assert_eq!(ledger.schema().await.unwrap(), Schema::Current);
}

#[tokio::test]
async fn no_index_on_postgres_names_what_changes_while_a_row_waits() {
    let bench = Bench::postgres().await;
    // A column of a key or of a condition: if one changes, each index of the row is written anew.
    let named = "SELECT DISTINCT CAST(a.attname AS TEXT) FROM pg_index i
         JOIN pg_depend d ON d.objid = i.indexrelid AND d.refobjid = i.indrelid
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid WHERE i.indrelid = 'messages'::regclass";
    let named = bench.raw.strings(named).await;
    assert!(["live", "held", "final_at"].iter().all(|column| named.iter().any(|name| name == column)), "{named:?}");
    for column in ["state", "reason", "accepted_at", "updated_at"] {
        assert!(named.iter().all(|name| name != column), "{named:?}");
    }
}
