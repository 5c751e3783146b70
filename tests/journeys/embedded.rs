//! The same promise in one process: `crier run FILE` on SQLite, whatever interrupts it.

use crate::harness::{Crier, DEADLINE, Mailing, Place, Process, Signal, account, eventually};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::Path};

fn run(crier: &Crier, file: &Path) -> Process {
    crier.spawn(["run".as_ref(), file.as_os_str()])
}

fn texts(place: &Place) -> u64 {
    place.sandbox.book()["accepted"].as_u64().expect("a count")
}

/// Waits until this many texts are out, while some are not.
fn wait_for_texts(place: &Place, at_least: u64, of: &Mailing) {
    eventually(&format!("{at_least} texts are in the book"), DEADLINE, || texts(place) >= at_least);
    assert!(texts(place) < of.valid.len() as u64, "all is out already");
}

/// The first call of each batch takes its time, so that there is a middle.
fn slow(place: &Place) {
    place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "delay", "ms": 150}]));
}

#[test]
fn a_killed_run_goes_on_where_it_was_and_knows_the_file_again() {
    let place = Place::new();
    let crier = place.crier().set("WORKER__CONCURRENCY", "4");
    let mailing = Mailing::of(20_000, 5);
    let file = place.file("spring.csv", &mailing.csv);
    slow(&place);
    let first = run(&crier, &file);
    wait_for_texts(&place, 6_000, &mailing);
    assert_eq!(first.kill().code, None);

    let second = run(&crier, &file).wait(DEADLINE);
    assert_eq!(second.code, Some(3), "some rows are invalid and some failed: {}", second.stderr);
    assert!(second.stderr.contains("Going on with what was launched before"), "{}", second.stderr);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    println!("{result:?}");
    // At most the four calls that were under way when it was killed.
    assert!(result.held <= 400, "{result:?}");
    let book = place.sandbox.book();
    assert_eq!([&book["refresh_tokens_presented_twice"], &book["password_grants"]], [0, 1]);

    let third = run(&crier, &file).wait(DEADLINE);
    assert_eq!(third.code, Some(1), "{}", third.stderr);
    let line = third.stderr;
    assert!(line.contains("launched before, as spring.csv on 20") && line.contains("spring"), "{line}");
    assert!(line.contains("--again"), "{line}");
    assert_eq!(texts(&place), result.confirmed() + result.held_and_sent, "it was sent again");
}

#[test]
fn the_same_file_is_sent_again_only_on_demand_and_under_a_name_of_its_own() {
    let place = Place::new();
    let crier = place.crier();
    let file = place.file("spring.csv", "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Hi\n");
    crier.expect(0, ["run".as_ref(), file.as_os_str()]);
    crier.expect(1, ["run".as_ref(), file.as_os_str()]);
    crier.expect(1, ["ingest".as_ref(), file.as_os_str()]);
    // The name of the file is no matter, its bytes are.
    let copy = place.file("summer.csv", "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Hi\n");
    crier.expect(1, ["run".as_ref(), copy.as_os_str()]);
    assert_eq!(texts(&place), 2);
    crier.expect(0, ["run".as_ref(), file.as_os_str(), "--again".as_ref()]);
    assert_eq!(texts(&place), 4);
    let campaigns = crier.json(0, &["status"]);
    let names: Vec<&Value> =
        campaigns.as_array().expect("a list").iter().map(|campaign| &campaign["campaign"]).collect();
    assert_eq!(names, ["spring", "spring-2"]);
    crier.expect(0, ["verify"]);
}

#[test]
fn ctrl_c_finishes_what_is_under_way_and_the_next_run_the_rest() {
    let place = Place::new();
    let crier = place.crier().set("WORKER__BATCH_LEN_MAX", "20");
    let mailing = Mailing::of(2_000, 5);
    let file = place.file("spring.csv", &mailing.csv);
    slow(&place);
    let mut first = run(&crier, &file);
    wait_for_texts(&place, 300, &mailing);
    first.signal(Signal::Interrupt);
    let first = first.wait(DEADLINE);
    assert_eq!(first.code, Some(130), "{}", first.stderr);
    assert!(first.stderr.contains("the same command goes on with them"), "{}", first.stderr);
    let campaigns = crier.json(0, &["status"]);
    let states = &campaigns[0]["states"];
    assert_eq!([&states["sending"], &states["unknown"]], [&Value::Null; 2], "something was left under way: {states}");

    let second = run(&crier, &file).wait(DEADLINE);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    assert_eq!(result.held, 0);
}

#[test]
fn lost_answers_are_found_in_the_list() {
    let place = Place::new();
    place.sandbox.faults(&json!([
        {"operation": "bulk_send", "fault": "drop_answer", "share": 0.2},
        {"operation": "bulk_send", "fault": "redirect", "effect": "before", "share": 0.1},
        {"operation": "bulk_send", "fault": "delay", "ms": 7000, "effect": "after", "share": 0.1},
    ]));
    let crier = place.crier();
    let mailing = Mailing::of(2_000, 5);
    let file = place.file("spring.csv", &mailing.csv);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    println!("{result:?}");
    assert_eq!(result.held, 0, "{result:?}");
}

#[test]
fn a_kill_while_the_file_is_loaded_doubles_no_row() {
    let place = Place::new();
    let crier = place.crier();
    let mailing = Mailing::of(20_000, 5);
    let file = place.file("spring.csv", &mailing.csv);
    let ledger = place.dir.path().join("ledger.db-wal");
    for _ in 0..3 {
        let loading = crier.spawn([OsStr::new("ingest"), file.as_os_str()]);
        eventually("it has begun to write", DEADLINE, || ledger.metadata().is_ok_and(|wal| wal.len() > 400_000));
        loading.kill();
        if crier.json(0, &["status"])[0]["campaign_state"] == "active" {
            break;
        }
    }
    let last = run(&crier, &file).wait(DEADLINE);
    assert_eq!(last.code, Some(3), "{}", last.stderr);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    assert_eq!(result.held, 0);
}
