//! What a person does with a campaign under way: pause, resume, cancel, retry.

use crate::harness::{DEADLINE, Mailing, Place, Production, account, eventually};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Two workers and a slow gateway, in the middle of a mailing.
fn in_the_middle(mailing: &Mailing) -> Production {
    let mut production = Production::new(&json!({}));
    production.set("WORKER__BATCH_LEN_MAX", "20");
    production.set("WORKER__CONCURRENCY", "2");
    production.place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "delay", "ms": 300}]));
    production.start();
    production.workers.pop();
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(200);
    production
}

/// When the calls reached the gateway that send, in its milliseconds.
fn sends(production: &Production) -> Vec<i64> {
    let calls = production.place.sandbox.calls();
    let calls = calls.as_array().expect("a list").iter();
    let of_sends = calls.filter(|call| call["operation"].as_str().is_some_and(|name| name.ends_with("send")));
    of_sends.map(|call| call["at_ms"].as_i64().expect("a time")).collect()
}

fn states(production: &Production) -> Value {
    production.crier.json(0, &["status", "spring"])[0]["states"].clone()
}

#[test]
fn a_paused_campaign_begins_nothing_until_it_is_resumed() {
    let mailing = Mailing::of(2_000, 5);
    let mut production = in_the_middle(&mailing);
    production.crier.expect(0, ["pause", "spring", "--reason", "the price is wrong"]);
    let paused = Instant::now();
    eventually("a second has passed", DEADLINE, || paused.elapsed() > Duration::from_secs(1));
    let before = sends(&production).len();
    let status = production.crier.json(0, &["status", "spring"]);
    assert_eq!(status[0]["campaign_state"], "paused");
    assert!(status[0]["states"]["queued"].as_u64() > Some(500), "{status}");
    eventually("more than a replay's time has passed", DEADLINE, || paused.elapsed() > Duration::from_secs(8));
    assert_eq!(sends(&production).len(), before, "something of it was sent while it was paused");
    production.crier.expect(0, ["pause", "spring"]);

    production.crier.expect(0, ["resume", "spring"]);
    let account = production.account("spring", &mailing);
    assert_eq!(account.held, 0, "{account:?}");
    production.crier.expect(1, ["resume", "summer"]);
    production.stop();
}

#[test]
fn a_cancelled_campaign_sends_nothing_more_and_resolves_what_is_in_flight() {
    let mailing = Mailing::of(2_000, 5);
    let mut production = in_the_middle(&mailing);
    let said = production.crier.run(["cancel", "spring"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.contains("unsent and would be cancelled"), "{}", said.stdout);
    assert!(said.stdout.contains("can't be recalled"), "{}", said.stdout);
    assert!(said.stderr.contains("--confirm=spring"), "{}", said.stderr);
    assert_eq!(production.crier.run(["cancel", "spring", "--confirm=summer"]).code, Some(1));
    assert_eq!(states(&production).get("cancelled"), None);

    let told = production.crier.expect(0, ["cancel", "spring", "--confirm=spring", "--reason", "wrong list"]);
    println!("{told}");
    eventually("nothing of it is left to do", DEADLINE, || {
        let states = states(&production);
        ["queued", "scheduled", "sending", "unknown", "accepted"].iter().all(|state| states.get(state).is_none())
    });
    let states = states(&production);
    let texts = production.texts();
    let count = |state: &str| states[state].as_u64().unwrap_or(0);
    assert_eq!(count("sent") + count("failed"), texts, "{states}");
    assert!(count("cancelled") > 500, "{states}");
    assert_eq!(count("cancelled") + texts, mailing.valid.len() as u64, "{states}");
    assert!(production.place.sandbox.twice().as_array().is_some_and(Vec::is_empty));
    production.crier.expect(0, ["verify"]);
    production.crier.expect(1, ["resume", "spring"]);
    production.stop();
}

#[test]
fn a_retry_texts_exactly_those_whose_text_failed() {
    let place = Place::new();
    let crier = place.crier();
    let mailing = Mailing::of(3_000, 5);
    let file = place.file("spring.csv", &mailing.csv);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let first = account(&crier, &place.sandbox, "spring", &mailing);
    assert!(first.failed > 0);
    let dry = crier.json(0, &["retry", "spring", "--failed", "--dry-run"]);
    assert_eq!((&dry["rows"], &dry["retry"]), (&json!(first.failed), &Value::Null));

    place.sandbox.configure(&json!({"fail_endings": []}));
    let retried = crier.json(0, &["retry", "spring", "--failed", "--reason", "the network was down"]);
    assert_eq!((&retried["rows"], &retried["retry"]), (&json!(first.failed), &json!("spring-retry")));
    assert_eq!(crier.json(0, &["retry", "spring", "--failed"])["rows"], 0);
    crier.expect(0, ["run"]);
    let of = |campaign: &str, state: &str| -> BTreeSet<String> {
        let rows = crier.json(0, &["results", campaign, "--state", state, "--format", "json"]);
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| format!("{} {} {} {}", row["row_number"], row["destination"], row["sender"], row["text"]))
            .collect()
    };
    assert_eq!(of("spring", "failed"), of("spring-retry", "sent"));
    let book = place.sandbox.book();
    assert_eq!(book["accepted"].as_u64(), Some(first.confirmed() + first.failed));
    crier.expect(0, ["verify"]);
}
