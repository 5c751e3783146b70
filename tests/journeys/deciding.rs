//! What a person decides about many held rows, and what `crier log` tells of it.

use crate::harness::{Mailing, Place};
use serde_json::{Value, json};

fn numbers(rows: &Value) -> Vec<i64> {
    rows.as_array().expect("a list").iter().filter_map(|row| row["row_number"].as_i64()).collect()
}

#[test]
fn many_held_rows_are_decided_by_range_and_at_once_and_the_log_tells_it() {
    let place = Place::new();
    // Of two calls of ten nothing goes out, and nobody says so.
    let lost = json!([{"operation": "bulk_send", "fault": "status", "status": 500, "after": 1, "times": 2}]);
    place.sandbox.faults(&lost);
    let crier = place.crier().set("WORKER__BATCH_LEN_MAX", "10").set("WORKER__CONCURRENCY", "1");
    let mailing = Mailing::of(40, 1);
    let file = place.file("spring.csv", &mailing.csv);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let held = numbers(&crier.json(0, &["held", "spring"]));
    assert_eq!(held.len(), 20, "{held:?}");
    // A second campaign to one of them waits behind him.
    let behind = format!("destination,sender,text\n0{},ACME,Another\n", 7_400_000_000_i64 + held[19] - 2);
    let behind = place.file("behind.csv", &behind);
    crier.expect(0, ["run".as_ref(), behind.as_os_str()]);
    assert_eq!(crier.json(0, &["status", "behind"])[0]["states"], json!({"queued": 1}));

    let range = format!("{}-{}", held[0], held[4]);
    crier.expect(1, ["resolve", "spring", "2000-3000", "--cancel", "--reason", "typo"]);
    crier.expect(2, ["resolve", "spring", "9-3", "--cancel", "--reason", "typo"]);
    crier.expect(2, ["resolve", "spring", "--all", "--cancel", "--reason", "all of them"]);
    crier.expect(2, ["resolve", "spring", &range, "--all", "--cancel", "--reason", "which?"]);
    assert_eq!(numbers(&crier.json(0, &["held", "spring"])).len(), 20);

    crier.expect(0, ["--as", "Ann", "resolve", "spring", &range, "--resend", "--confirm", "--reason", "they asked"]);
    let before = place.sandbox.book()["accepted"].as_u64().expect("a count");
    crier.expect(0, ["--as", "Bob", "resolve", "spring", "--all", "--cancel", "--confirm", "--reason", "too late"]);
    assert_eq!(crier.json(0, &["held"]), json!([]));
    crier.expect(0, ["run"]);
    let after = place.sandbox.book()["accepted"].as_u64().expect("a count");
    assert_eq!(after, before + 6, "five were to be sent once more, and one had waited behind a held one");
    assert_eq!(place.sandbox.twice(), json!([]));
    assert_eq!(crier.json(0, &["status", "behind"])[0]["states"], json!({"sent": 1}));
    crier.expect(0, ["verify"]);

    let log = crier.expect(0, ["log", "spring"]);
    let mut rest = log.as_str();
    for words in [
        "launched spring.csv: 40 rows to send",
        "the first text went out",
        "the gateway answered 500, which says nothing of what it did (20 rows, 2 times",
        "(20 rows, 2 times",
        &format!(" (rows {range}), because: they asked"),
        "held row given up (rows ",
        "because: too late",
        "every row is final: 25 sent, 15 cancelled",
    ] {
        let (_, after) = rest.split_once(words).unwrap_or_else(|| panic!("no {words:?} in order in {log}"));
        rest = after;
    }
    assert!(log.contains("Ann (") && log.contains("Bob ("), "{log}");
    assert!(!log.lines().any(Mailing::is_in), "{log}");
    assert_eq!(crier.expect(0, ["log", "spring", "--limit", "2"]).lines().count(), 2);
    let entries = crier.json(0, &["log"]);
    let kinds: Vec<&str> =
        entries.as_array().expect("a list").iter().filter_map(|entry| entry["kind"].as_str()).collect();
    assert_eq!(kinds, ["launched", "unknown", "held", "launched", "decided", "decided"], "{entries}");
    crier.expect(1, ["log", "summer"]);

    let told = crier.expect(0, ["show", "spring", &held[0].to_string()]);
    for words in
        ["this one is not among them", "held row sent once more, because: they asked", "this one is among them"]
    {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
}

#[test]
fn a_text_that_shows_up_after_its_row_was_taken_for_sent_is_no_stranger() {
    let place = Place::new();
    // The answer is lost, and the list lags behind longer than crier was told to wait.
    place.sandbox.faults(&json!([{"operation": "send", "fault": "late_effect", "ms": 12_000, "times": 1}]));
    let crier = place.crier();
    let mailing = Mailing::of(1, 1);
    let file = place.file("spring.csv", &mailing.csv);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    crier.expect(0, ["resolve", "spring", "2", "--assume-sent", "--reason", "she has it"]);
    testbed::eventually("the late text goes out", crate::harness::DEADLINE, || {
        place.sandbox.book()["accepted"] == json!(1)
    });
    // Another text from the same sender has the list read past the late one.
    let later = place.file("later.csv", "destination,sender,text\n07400000077,ACME,Later\n07400000078,ACME,Later\n");
    crier.expect(0, ["run".as_ref(), later.as_os_str()]);
    let told = crier.expect(0, ["show", "spring", "2"]);
    assert!(told.contains("is sent") && told.contains("had gone out before it was decided"), "{told}");
    let doctor = crier.run(["doctor"]);
    assert!(!doctor.stdout.contains("nothing here explains"), "{}", doctor.stdout);
    let id = &crier.json(0, &["show", "spring", "2"])["row"]["gateway_sms_id"];
    assert_eq!(*id, place.sandbox.full_book()["texts"][0]["sms_id"]);
}
