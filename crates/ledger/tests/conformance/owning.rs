//! Who lives, who is proven dead, and who may do what one process does at a time.

use crate::{Bench, at, bench::sender, on_both};
use ledger::Ledger;
use std::{env, process::Command, time::Duration};
use testbed::{Process, Signal, eventually_async};

on_both! {
    the_living_are_never_proven_dead
    a_killed_process_is_proven_dead_and_a_frozen_one_is_not
    an_ended_registration_is_over
    who_is_silent_does_not_count_as_running
    a_lease_is_held_by_one_until_it_runs_out_or_its_holder_ends
    senders_that_are_no_longer_listed_are_forgotten
}

const CHILD: &str = "CRIER_TEST_REGISTERS_AT";
const DEADLINE: Duration = Duration::from_secs(30);

/// Not a test of its own: the process that another test kills.
#[tokio::test]
async fn a_child_registers_and_waits_to_be_killed() {
    let Ok(url) = env::var(CHILD) else { return };
    let ledger = Ledger::open(&url).await.unwrap();
    let _guard = ledger.register_owner("child", "here", std::process::id(), at(0)).await.unwrap();
    std::future::pending::<()>().await;
}

async fn child(bench: &Bench, dir: &std::path::Path) -> Process {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "owning::a_child_registers_and_waits_to_be_killed"]).env(CHILD, &bench.url);
    let child = Process::spawn("child", command, dir);
    eventually_async("the child is registered", DEADLINE, async || {
        bench.ledger.live_owners().await.unwrap().iter().any(|owner| owner.kind == "child")
    })
    .await;
    child
}

async fn the_living_are_never_proven_dead(bench: &Bench) {
    let other = bench.ledger.register_owner("other", "here", 1, at(0)).await.unwrap();
    assert_eq!(bench.ledger.prove_deaths(at(9999)).await.unwrap(), []);
    assert!(other.beat(at(9999)).await.unwrap() && bench.owner.beat(at(9999)).await.unwrap());
    let id = other.id();
    drop(other);
    eventually_async("its session ends", DEADLINE, async || {
        bench.ledger.prove_deaths(at(10_000)).await.unwrap() == [id]
    })
    .await;
}

async fn a_killed_process_is_proven_dead_and_a_frozen_one_is_not(bench: &Bench) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child(bench, dir.path()).await;
    assert_eq!(bench.ledger.prove_deaths(at(100)).await.unwrap(), []);
    child.signal(Signal::Stop);
    assert_eq!(bench.ledger.prove_deaths(at(200)).await.unwrap(), []);
    child.kill();
    eventually_async("its death is proven", DEADLINE, async || {
        bench.ledger.prove_deaths(at(300)).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(bench.raw.strings("SELECT ended_how FROM owners WHERE kind = 'child'").await, ["died"]);
    assert_eq!(bench.ledger.prove_deaths(at(400)).await.unwrap(), []);
}

async fn an_ended_registration_is_over(bench: &Bench) {
    let other = bench.ledger.register_owner("other", "here", 1, at(0)).await.unwrap();
    other.end(at(5)).await.unwrap();
    assert_eq!(bench.ledger.prove_deaths(at(6)).await.unwrap(), []);
    assert_eq!(bench.raw.strings("SELECT ended_how FROM owners WHERE kind = 'other'").await, ["exited"]);
}

async fn a_lease_is_held_by_one_until_it_runs_out_or_its_holder_ends(bench: &Bench) {
    let other = bench.ledger.register_owner("other", "here", 1, at(0)).await.unwrap();
    let take = async |owner, until, now| bench.ledger.take_lease("tidy", owner, at(until), at(now)).await.unwrap();
    let (ours, others) = (bench.owner.id(), other.id());
    assert!(take(others, 30, 0).await);
    assert!(!take(ours, 40, 10).await);
    assert!(take(others, 50, 20).await, "it renews");
    assert!(!take(ours, 60, 40).await);
    assert!(take(ours, 90, 51).await, "it ran out");
    assert!(take(others, 150, 91).await);
    other.end(at(92)).await.unwrap();
    assert!(take(ours, 200, 93).await, "its holder ended");
}

async fn senders_that_are_no_longer_listed_are_forgotten(bench: &Bench) {
    assert!(bench.ledger.approved_senders().await.unwrap().is_none());
    let (shop, club) = (sender("SHOP"), sender("CLUB"));
    bench.ledger.record_senders(&[(shop.clone(), true), (club.clone(), true)], at(1)).await.unwrap();
    bench.ledger.record_senders(&[(shop.clone(), true), (sender("NEW"), false)], at(2)).await.unwrap();
    let (read_at, approved) = bench.ledger.approved_senders().await.unwrap().unwrap();
    assert_eq!((read_at, approved), (at(2), vec![shop]));
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_reached_by_another_name_has_the_same_locks() {
    let bench = Bench::sqlite().await;
    let dir = tempfile::tempdir().unwrap();
    let path = bench.url.strip_prefix("sqlite://").unwrap();
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(path, &link).unwrap();
    let other = Ledger::open(&format!("sqlite://{}", link.display())).await.unwrap();
    assert_eq!(other.prove_deaths(at(9)).await.unwrap(), [], "a living process was proven dead");
}

#[tokio::test]
async fn a_lost_session_is_locked_again_by_the_next_beat() {
    let bench = Bench::postgres().await;
    // In one statement: the session is gone before anyone could look for its lock, and a beat comes first.
    bench
        .raw
        .strings(
            "SELECT CAST(pg_terminate_backend(l.pid, 5000) AS TEXT) FROM pg_locks l
             WHERE l.locktype = 'advisory' AND l.classid = 3185
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
    assert!(bench.owner.beat(at(10)).await.unwrap());
    assert_eq!(bench.ledger.prove_deaths(at(11)).await.unwrap(), []);
    assert!(bench.owner.beat(at(12)).await.unwrap());
}

#[tokio::test]
async fn a_restart_of_the_server_proves_nobody_dead() {
    let mut server = testbed::Postgres::start();
    let database = server.new_database();
    let ledger = Ledger::open(&database.url()).await.unwrap();
    ledger.migrate().await.unwrap();
    let owner = ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    server.restart();
    let mut proven = None;
    eventually_async("the ledger is back", DEADLINE, async || {
        proven = ledger.prove_deaths(at(1)).await.ok();
        proven.is_some()
    })
    .await;
    assert_eq!(proven, Some(vec![]));
    assert!(owner.beat(at(2)).await.unwrap());
    assert_eq!(ledger.prove_deaths(at(3)).await.unwrap(), []);
    drop(owner);
    eventually_async("its session ends", DEADLINE, async || ledger.prove_deaths(at(4)).await.unwrap().len() == 1).await;
}

async fn who_is_silent_does_not_count_as_running(bench: &Bench) {
    let worker = bench.ledger.register_owner("worker", "here", 1, at(0)).await.unwrap();
    let running = async |second: i64| bench.ledger.gauges(at(second)).await.unwrap().processes;
    assert!(running(60).await.contains(&("worker".to_owned(), 1)));
    // Its death may never be proven.
    assert!(running(61).await.is_empty());
    assert!(worker.beat(at(62)).await.unwrap());
    assert_eq!(running(63).await, [("worker".to_owned(), 1)]);
}
