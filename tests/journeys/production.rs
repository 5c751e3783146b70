//! The main journey as it runs in production: several processes over Redis and Postgres, and a file in a drop folder.

use crate::harness::{Account, DEADLINE, Mailing, Production, Signal, Spy, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_dropped_file_reaches_everybody_once() {
    // A tight window: the processes must share it.
    let mut production = Production::new(&json!({"rate_limit": 1000, "rate_window_ms": 5000}));
    production.set("GATEWAY__CALLS_PER_WINDOW", "1000");
    production.set("GATEWAY__WINDOW", "5s");
    let spy = Spy::on(&production.redis);
    production.start();
    let mailing = Mailing::of(20_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    let account = production.account("spring", &mailing);

    assert_eq!((account.held, account.confirmed()), (0, mailing.valid.len() as u64));
    production.assert_good_manners();
    println!("gateway calls for each confirmed recipient: {:.4}", account.calls_each());
    assert!(account.calls_each() <= 0.13, "{} calls for {} recipients", account.calls, account.confirmed());
    assert!(production.folder().join("done/spring.csv").is_file());
    production.stop();

    let heard = spy.stop();
    assert!(heard.commands > 100, "the spy heard {} commands", heard.commands);
    assert_eq!(heard.leaks, Vec::<String>::new(), "Redis was told numbers or texts");
}

/// Lost rows of a mailing end `sent`, `failed` or `held`: how many of which, for whoever reads the run.
fn with_a_killed_worker(faults: &Value, on_absent: &str) -> Account {
    let mut production = Production::new(&json!({"seed": 7}));
    production.set("RECONCILE__ON_ABSENT", on_absent);
    production.set("WORKER__CONCURRENCY", "4");

    production.place.sandbox.faults(faults);
    production.start();
    let mailing = Mailing::of(20_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(4_000);
    production.workers.remove(0).kill();
    assert!(production.texts() < mailing.valid.len() as u64, "the worker was killed too late");
    let account = production.account("spring", &mailing);
    let book = production.place.sandbox.book();
    println!("{on_absent}: {account:?}, faults {}", book["faults"]);
    assert!(book["faults"].as_object().is_some_and(|faults| !faults.is_empty()), "nothing went wrong");
    production.assert_good_manners();
    production.stop();
    account
}

#[test]
fn lost_answers_and_a_killed_worker_lose_nobody() {
    let faults = json!([{"operation": "bulk_send", "fault": "drop_answer", "share": 0.05}]);
    let account = with_a_killed_worker(&faults, "hold");
    // What was accepted is in the list: nobody need be held but those whose request the kill stopped on its way.
    assert!(account.held <= 400, "{account:?}");
    assert_eq!(account.held_and_sent, 0, "the list has them: {account:?}");
}

#[test]
fn bulk_calls_that_fail_half_way_lose_nobody() {
    let faults = json!([
        {"operation": "bulk_send", "fault": "process_part", "share": 0.03},
        {"operation": "bulk_send", "fault": "process_then_fail", "share": 0.03},
        {"operation": "bulk_send", "fault": "html_200", "effect": "before", "share": 0.02},
        {"operation": "bulk_send", "fault": "cut_answer", "share": 0.02},
    ]);
    let account = with_a_killed_worker(&faults, "hold");
    assert!(account.held > 0, "half of some batches was never taken: {account:?}");
    assert_eq!(account.held_and_sent, 0, "the list has them: {account:?}");
}

#[test]
fn what_is_proven_absent_is_sent_once_more_where_that_is_wanted() {
    let faults = json!([
        {"operation": "bulk_send", "fault": "process_part", "share": 0.05, "times": 6},
        {"operation": "bulk_send", "fault": "drop_answer", "share": 0.05},
    ]);
    let account = with_a_killed_worker(&faults, "resend_once");
    // Half of each of six batches was never taken. Of the last batches no later text shows that the list has caught up: theirs
    // are held, and no others.
    assert!(account.held <= 150, "{account:?}");
}

/// A mailing of 2,000 rows in the middle of which something happens; batches of 20 make it long enough.
fn with_trouble(
    mut production: Production,
    faults: &Value,
    trouble: impl FnOnce(&mut Production),
) -> (Production, Account) {
    production.set("WORKER__BATCH_LEN_MAX", "20");
    production.set("WORKER__CONCURRENCY", "2");
    let mut rules = vec![json!({"operation": "bulk_send", "fault": "delay", "ms": 300})];
    rules.splice(0..0, faults.as_array().expect("a list").iter().cloned());
    production.place.sandbox.faults(&json!(rules));
    production.start();
    let mailing = Mailing::of(2_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(200);
    trouble(&mut production);
    let account = production.account("spring", &mailing);
    println!("{account:?}");
    (production, account)
}

fn no_faults() -> Value {
    json!([])
}

#[test]
fn a_frozen_worker_sends_nothing_twice() {
    let mut production = Production::new(&json!({}));
    // Shorter than the freeze: the others take it for silent and look into what it left.
    production.set("WORKER__LEASE", "1s");
    let (mut production, _) = with_trouble(production, &no_faults(), |production| {
        production.workers[0].signal(Signal::Stop);
        let frozen_at = production.texts();
        let begun = Instant::now();
        eventually("the others go on for a while", DEADLINE, || {
            production.texts() > frozen_at + 400 && begun.elapsed() > Duration::from_secs(4)
        });
        production.workers[0].signal(Signal::Continue);
    });
    production.assert_good_manners();
    production.stop();
}

#[test]
fn the_lease_of_a_dead_reconciler_is_not_waited_out() {
    let mut production = Production::new(&json!({}));
    production.start();
    let holder = |production: &Production| production.ask::<i64>("SELECT coalesce(max(owner_id), 0) FROM leases");
    eventually("a reconciler holds the lease", DEADLINE, || holder(&production) > 0);
    let first = holder(&production);
    production.reconciler.take().expect("it runs").kill();
    let until: i64 = production.ask("SELECT max(until) FROM leases");
    production.reconciler = Some(production.crier.spawn(["reconciler"]));
    eventually("another holds the lease", DEADLINE, || holder(&production) != first);
    // A lease is taken for 30 s.
    let taken: i64 = production.ask("SELECT max(until) - 30000 FROM leases");
    assert!(taken < until, "the lease was waited out");
    production.stop();
}

#[test]
fn a_flushed_redis_costs_time_only() {
    let (mut production, account) = with_trouble(Production::new(&json!({})), &no_faults(), |production| {
        production.redis.flush();
    });
    assert_eq!(account.held, 0);
    production.assert_good_manners();
    production.stop();
}

#[test]
fn a_restarted_redis_costs_time_only() {
    let (mut production, account) = with_trouble(Production::new(&json!({})), &no_faults(), |production| {
        production.redis.restart();
    });
    assert_eq!(account.held, 0);
    production.assert_good_manners();
    production.stop();
}

#[test]
fn a_restarted_postgres_loses_nobody() {
    let production = Production::on_its_own_postgres(&json!({}));
    let (mut production, account) = with_trouble(production, &no_faults(), |production| {
        production.postgres.as_mut().expect("it has its own").restart();
    });
    assert_eq!(account.held, 0, "outcomes are recorded when the ledger is back");
    production.assert_good_manners();
    production.stop();
}

#[test]
fn a_worker_that_is_asked_to_end_leaves_nothing_unknown() {
    let (production, account) = with_trouble(Production::new(&json!({})), &no_faults(), |production| {
        let mut worker = production.workers.remove(0);
        worker.signal(Signal::Term);
        let ended = worker.wait(Duration::from_secs(40));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    });
    assert_eq!(account.held, 0);
    let unknown: i64 = production.ask("SELECT count(*) FROM events WHERE kind = 'unknown'");
    assert_eq!(unknown, 0, "an outcome was unknown");
    production.assert_good_manners();
}

#[test]
fn tokens_that_expire_are_refreshed_once_each() {
    let (production, account) = with_trouble(Production::new(&json!({"expires_in_s": 4})), &no_faults(), |_| {});
    assert_eq!(account.held, 0);
    let book = production.place.sandbox.book();
    assert!(book["refresh_grants"].as_u64() > Some(0), "nothing was refreshed");
    production.assert_good_manners();
}

#[test]
fn a_revoked_token_is_replaced_once_for_all() {
    let (production, account) = with_trouble(Production::new(&json!({})), &no_faults(), |production| {
        production.place.sandbox.control("POST", "tokens", Some(&json!({"revoke_access": true})));
    });
    assert_eq!(account.held, 0);
    assert_eq!(production.place.sandbox.book()["refresh_grants"], 1);
    production.assert_good_manners();
}

#[test]
fn a_storm_of_429_is_waited_out() {
    let storm = json!([{"operation": "bulk_send", "fault": "throttle", "ms": 2500, "retry_after_s": 3, "after": 30, "times": 1}]);
    let (production, account) = with_trouble(Production::new(&json!({})), &storm, |_| {});
    assert_eq!(account.held, 0);
    let book = production.place.sandbox.book();
    let throttled = book["throttled"].as_u64().expect("a count");
    // Those that were on their way when the first was refused.
    assert!((1..=12).contains(&throttled), "{throttled} calls were throttled");
    let calls = production.place.sandbox.calls();
    let calls = calls.as_array().expect("a list");
    let told = calls.iter().find(|call| call["status"] == 429).expect("a call was throttled");
    let told = told["at_ms"].as_i64().expect("a time");
    // A call that was under way when the first 429 was written could not know of it.
    let early = calls.iter().filter(|call| {
        let at = call["at_ms"].as_i64().expect("a time");
        (told + 250..told + 2_950).contains(&at)
    });
    assert_eq!(early.count(), 0, "calls were made before Retry-After had ended");
}
