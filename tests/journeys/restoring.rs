//! A ledger that is restored from a backup while its campaign was half sent: nobody is texted twice.

use crate::harness::{DEADLINE, Mailing, Place, Production, account, eventually};
use serde_json::json;
use std::{fs, path::Path};

fn slow() -> serde_json::Value {
    json!([{"operation": "bulk_send", "fault": "delay", "ms": 300}])
}

/// A consistent copy of an embedded ledger that is in use.
fn back_up(ledger: &Path, copy: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", ledger.display())).await.expect("it is there");
        let statement = format!("VACUUM INTO '{}'", copy.display());
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("it can be copied");
        pool.close().await;
    });
}

#[test]
fn a_restored_sqlite_ledger_sends_nothing_before_the_list_was_read_back() {
    let place = Place::new();
    place.sandbox.faults(&slow());
    let crier = place.crier().set("WORKER__BATCH_LEN_MAX", "20").set("WORKER__CONCURRENCY", "2");
    let mailing = Mailing::of(600, 3);
    let file = place.file("spring.csv", &mailing.csv);
    let texts = || place.sandbox.book()["accepted"].as_u64().expect("a count");
    let running = crier.spawn(["run".as_ref(), file.as_os_str()]);
    eventually("some texts are sent", DEADLINE, || texts() >= 80);
    let (ledger, backup) = (place.dir.path().join("ledger.db"), place.dir.path().join("backup.db"));
    back_up(&ledger, &backup);
    let at_backup = texts();
    eventually("more texts are sent", DEADLINE, || texts() >= at_backup + 120);
    running.kill();

    for left in ["ledger.db-wal", "ledger.db-shm"] {
        _ = fs::remove_file(place.dir.path().join(left));
    }
    fs::rename(&backup, &ledger).expect("it can be put back");
    let ended = crier.run(["run".as_ref(), file.as_os_str()]);
    assert!(matches!(ended.code, Some(0 | 3)), "{}", ended.stderr);
    assert!(ended.stderr.contains("restored from a backup"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the quarantine is over"), "{}", ended.stderr);
    let account = account(&crier, &place.sandbox, "spring", &mailing);
    println!("{account:?}");
    assert_eq!(account.held_and_sent, 0);
    // Those whose call the kill cut off may be held; whoever was texted is known to be.
    assert!(account.held <= 40, "{account:?}");
    let log = crier.expect(0, ["log"]);
    assert!(log.contains("nothing is sent until the gateway's list was read back"), "{log}");
}

/// A production whose Postgres is replaced by a backup in the middle of a campaign; `then` happens before the services start
/// on it.
fn restored(then: impl FnOnce(&mut Production)) {
    let mut production = Production::new(&json!({}));
    production.set("WORKER__BATCH_LEN_MAX", "20");
    production.set("WORKER__CONCURRENCY", "2");
    production.place.sandbox.faults(&slow());
    production.start();
    let mailing = Mailing::of(2_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(200);
    let backup = production.database.copy();
    let at_backup = production.texts();
    production.wait_for_texts(at_backup + 200);
    for service in production.workers.drain(..).chain(production.reconciler.take()).chain(production.watcher.take()) {
        service.kill();
    }
    production.crier = production.crier.clone().ledger(&backup.url());
    production.database = backup;
    then(&mut production);
    production.start();
    eventually("the ledger is in quarantine", DEADLINE, || {
        production.crier.json(0, &["quarantine"])["why"].as_str().is_some()
    });
    let account = production.account("spring", &mailing);
    println!("{account:?}");
    assert!(production.crier.json(0, &["quarantine"]).is_null());
    assert_eq!(account.held_and_sent, 0);
    assert!(account.held <= 200, "{account:?}");
    production.stop();
}

#[test]
fn a_restored_postgres_ledger_is_noticed_and_sends_nothing_before_the_list_was_read_back() {
    restored(|_| {});
}

#[test]
fn a_quarantine_that_a_person_begins_needs_nothing_but_the_ledger() {
    restored(|production| {
        // Whoever restores the ledger may have lost Redis too.
        production.redis.flush();
        let since = production.ask::<String>(
            "SELECT to_char(to_timestamp((max(seen_at) - 60000) / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
             FROM owners WHERE kind = 'worker'",
        );
        let why = ["--reason", "the disk was lost"];
        production.crier.expect(1, ["quarantine", "begin"].into_iter().chain(why));
        let said =
            production.crier.expect(0, ["quarantine", "begin", "--since", since.as_str()].into_iter().chain(why));
        assert!(said.contains("Quarantine: nothing is sent"), "{said}");
        production.crier.expect(2, ["quarantine", "end"].into_iter().chain(why));
    });
}
