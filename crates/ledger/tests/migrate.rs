//! Bringing a schema up to date while others do the same.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use ledger::{Ledger, Schema};

async fn processes_that_start_at_once_migrate_once(url: &str) {
    let mut starting = Vec::new();
    for _ in 0..8 {
        let url = url.to_owned();
        starting.push(tokio::spawn(async move {
            let ledger = Ledger::open(&url).await.unwrap();
            ledger.migrate().await.unwrap();
            ledger.schema().await.unwrap()
        }));
    }
    for started in starting {
        assert_eq!(started.await.unwrap(), Schema::Current);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_at_once_on_sqlite_migrate_once() {
    // A race shows itself in one run of a few.
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        processes_that_start_at_once_migrate_once(&format!("sqlite://{}/ledger.db", directory.path().display())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_at_once_on_postgres_migrate_once() {
    let database = testbed::database();
    processes_that_start_at_once_migrate_once(&database.url()).await;
}

#[tokio::test]
async fn a_postgres_that_refuses_connections_is_named_at_once_and_not_waited_for() {
    let began = std::time::Instant::now();
    let error = Ledger::open("postgres://crier@127.0.0.1:1/crier").await.unwrap_err();
    assert_eq!(error.kind(), ledger::ErrorKind::Down);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("refused"), "{cause}");
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}
