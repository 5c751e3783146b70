//! Life in production: services are replaced while a campaign runs, and old and new ones stand beside each other.

use crate::harness::{DEADLINE, Mailing, Place, Production, Redis, Service, Signal, database};
use campaign::{CampaignId, ChunkId};
use queue::{Job, Queue};
use serde_json::json;

#[test]
fn services_that_are_replaced_one_after_another_lose_and_double_nothing() {
    let mut production = Production::new(&json!({}));
    production.set("WORKER__BATCH_LEN_MAX", "20");
    production.set("WORKER__CONCURRENCY", "2");
    production.place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "delay", "ms": 300}]));
    production.start();
    let mailing = Mailing::of(3_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    let mut texts = 200;
    for n in 0..production.workers.len() {
        production.wait_for_texts(texts);
        // A rollout starts the new one first.
        let new = production.crier.spawn(["worker"]);
        let mut old = std::mem::replace(&mut production.workers[n], new);
        old.signal(Signal::Term);
        let ended = old.wait(DEADLINE);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        texts = production.texts() + 200;
    }
    let mut old = production.reconciler.replace(production.crier.spawn(["reconciler"])).expect("it runs");
    old.signal(Signal::Term);
    assert_eq!(old.wait(DEADLINE).code, Some(0));
    assert!(production.texts() < mailing.valid.len() as u64, "all was sent before all were replaced");
    let account = production.account("spring", &mailing);
    assert_eq!((account.held, account.confirmed()), (0, mailing.valid.len() as u64));
    let unknown: i64 = production.ask("SELECT count(*) FROM events WHERE kind = 'unknown'");
    assert_eq!(unknown, 0, "an outcome was unknown");
    production.assert_good_manners();
    production.stop();
}

#[test]
fn jobs_of_another_version_on_the_same_queue_do_no_harm() {
    let mut production = Production::new(&json!({}));
    production.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let queue = Queue::redis(&production.redis.url(), "crier").await.expect("it is there");
        let newer = (0..50).map(|n| Job { version: queue::JOB_VERSION + 1, ..Job::new(CampaignId(1), ChunkId(n)) });
        let older = (0..50).map(|n| Job { version: 0, ..Job::new(CampaignId(1), ChunkId(n)) });
        queue.push(&newer.chain(older).collect::<Vec<_>>()).await.expect("it takes jobs");
    });
    let mailing = Mailing::of(500, 2);
    production.drop_in("spring.csv", &mailing.csv);
    let account = production.account("spring", &mailing);
    assert_eq!(account.confirmed(), mailing.valid.len() as u64);
    let workers: String = production.workers.iter().map(|worker| worker.stderr()).collect();
    assert!(workers.contains("left a job of another version to its own program"), "{workers}");
    production.stop();
}

#[test]
fn a_service_waits_for_a_schema_that_fits_and_says_so() {
    let (place, database, redis) = (Place::new(), database(), Redis::start());
    let crier = place.crier_on(&database, &redis);
    let worker = Service::start(&crier, &["worker"]);
    worker.wait_for("readyz", 503, "is on an old schema. Run crier migrate.");
    crier.expect(0, ["migrate"]);
    worker.wait_for("readyz", 200, "ok   schema: current");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let change = |statement: &'static str| {
        runtime.block_on(async {
            let pool = sqlx::PgPool::connect(&database.url()).await.expect("the database is there");
            sqlx::query(statement).execute(&pool).await.expect("the statement is right");
        });
    };
    // A newer program migrates it and takes nothing away: the older ones go on, and can be started.
    change("UPDATE _sqlx_migrations SET version = 1000");
    worker.wait_for("readyz", 200, "newer, and this program works with it");
    let beside = Service::start(&crier, &["worker"]);
    beside.wait_for("readyz", 200, "newer, and this program works with it");
    let file = place.file("one.csv", "destination,sender,text\n07400000001,ACME,Hi\n");
    crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);
    testbed::eventually("the text is sent", DEADLINE, || place.sandbox.book()["accepted"] == 1);
    // It takes something away.
    change("UPDATE schema_floor SET oldest = 1000");
    worker.wait_for("readyz", 503, "FAIL schema: newer than this program knows");
    let late = Service::start(&crier, &["worker"]);
    late.wait_for("readyz", 503, "is on a newer schema than this crier knows. Update this crier.");
}
