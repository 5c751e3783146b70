//! Life in production: services are replaced while a campaign runs, and old and new ones stand beside each other.

use crate::harness::{DEADLINE, Database, Mailing, Place, Production, Redis, Service, Signal, database};
use campaign::{CampaignId, ChunkId};
use queue::{Job, Queue};
use serde_json::json;

/// What a migration of a version that is yet to come may do beside this one: it takes nothing away.
const EXPANDED: &str = "
    ALTER TABLE messages ADD COLUMN of_the_next_version TEXT;
    ALTER TABLE attempts ADD COLUMN of_the_next_version BIGINT NOT NULL DEFAULT 0;
    CREATE TABLE of_the_next_version (id BIGINT PRIMARY KEY);
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (1000, 'expand', true, '', 0);";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn change(database: &Database, statements: &'static str) {
    runtime().block_on(async {
        let pool = sqlx::PgPool::connect(&database.url()).await.expect("the database is there");
        sqlx::raw_sql(statements).execute(&pool).await.expect("the statements are right");
    });
}

/// The version before (see `CRIER_OLD`), this one and the traces of the next one on one ledger and one queue.
#[test]
fn a_new_version_takes_the_place_of_the_old_one_while_a_campaign_runs() {
    let mut production = Production::new(&json!({}));
    // A ledger as the version before has it.
    let new = production.crier.clone();
    production.database = database();
    let new = new.ledger(&production.database.url());
    let old = new.clone().of_the_version_before();
    old.expect(0, ["migrate"]);
    production.crier = old.clone().set("WORKER__BATCH_LEN_MAX", "20").set("WORKER__CONCURRENCY", "2");
    let new = new.set("WORKER__BATCH_LEN_MAX", "20").set("WORKER__CONCURRENCY", "2");
    production.place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "delay", "ms": 300}]));
    production.start();
    let mailing = Mailing::of(3_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(100);

    // An upgrade migrates first, and starts the new ones one by one; a rollout has each start before the old one ends.
    new.expect(0, ["migrate"]);
    change(&production.database, EXPANDED);
    let mut texts = production.texts() + 100;
    for n in 0..production.workers.len() {
        production.wait_for_texts(texts);
        let new = new.spawn(["worker"]);
        // What a newer one has put on the queue is not for the old ones, whose job for the same rows comes again.
        runtime().block_on(async {
            let chunks = "SELECT id FROM chunks ORDER BY id";
            let pool = sqlx::PgPool::connect(&production.database.url()).await.expect("the database is there");
            let chunks: Vec<i64> = sqlx::query_scalar(chunks).fetch_all(&pool).await.expect("the query is right");
            let newer = |chunk| Job { version: queue::JOB_VERSION + 1, ..Job::new(CampaignId(1), ChunkId(chunk)) };
            let queue = Queue::redis(&production.redis.url(), "crier").await.expect("it is there");
            queue.push(&chunks.into_iter().map(newer).collect::<Vec<_>>()).await.expect("it takes jobs");
        });
        let mut old = std::mem::replace(&mut production.workers[n], new);
        old.signal(Signal::Term);
        let ended = old.wait(DEADLINE);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        texts = production.texts() + 100;
    }
    let mut old = production.reconciler.replace(new.spawn(["reconciler"])).expect("it runs");
    old.signal(Signal::Term);
    assert_eq!(old.wait(DEADLINE).code, Some(0));
    assert!(production.texts() < mailing.valid.len() as u64, "all was sent before all were replaced");
    // The watcher stays of the old version, and a worker of it comes back: a deployment that stands still half-way.
    production.workers.push(production.crier.spawn(["worker"]));
    production.crier = new;
    let account = production.account("spring", &mailing);
    assert_eq!((account.held, account.confirmed()), (0, mailing.valid.len() as u64));
    let unknown: i64 = production.ask("SELECT count(*) FROM events WHERE kind = 'unknown'");
    assert_eq!(unknown, 0, "an outcome was unknown");
    let senders: i64 = production.ask("SELECT count(DISTINCT owner_id) FROM attempts");
    assert!(senders >= 4, "{senders} of the seven workers sent");
    let said: String = production.workers.iter().map(|worker| worker.stderr()).collect();
    assert!(said.contains("left a job of a newer version to its own program"), "{said}");
    production.assert_good_manners();
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

    // A newer program migrates it and takes nothing away: the older ones go on, and can be started.
    change(&database, "UPDATE _sqlx_migrations SET version = version + 1000");
    worker.wait_for("readyz", 200, "newer, and this program works with it");
    let beside = Service::start(&crier, &["worker"]);
    beside.wait_for("readyz", 200, "newer, and this program works with it");
    let file = place.file("one.csv", "destination,sender,text\n07400000001,ACME,Hi\n");
    crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);
    testbed::eventually("the text is sent", DEADLINE, || place.sandbox.book()["accepted"] == 1);
    // It takes something away.
    change(&database, "UPDATE schema_floor SET oldest = 1000");
    worker.wait_for("readyz", 503, "FAIL schema: newer than this program knows");
    let late = Service::start(&crier, &["worker"]);
    late.wait_for("readyz", 503, "is on a newer schema than this crier knows. Update this crier.");
}
