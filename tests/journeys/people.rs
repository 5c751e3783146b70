//! Opt-outs, replies and retention, as an operator meets them.

use crate::harness::{DEADLINE, Place, Production, eventually};
use serde_json::{Value, json};

const THREE: &str = "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Hi\n07400000003,ACME,Hi\n";

fn write_back(place: &Place, from: &str, text: &str) {
    place.sandbox.control("POST", "inbound", Some(&json!({ "from": from, "to": "ACME", "text": text })));
}

fn accepted(place: &Place) -> u64 {
    place.sandbox.book()["accepted"].as_u64().expect("a count")
}

#[test]
fn who_is_suppressed_gets_no_text() {
    let place = Place::new();
    let crier = place.crier();
    let out = place.file("out.csv", "destination,reason\n07400 000002,rang us\n");
    let bad = place.file("bad.csv", "07400000003\n0740\n");
    let printed = crier.expect(0, ["suppress", "add", "07400000001", "--reason", "asked by mail"]);
    assert_eq!(printed.trim(), "1 opt-out entered, 0 there before");
    crier.expect(0, ["suppress".as_ref(), "import".as_ref(), out.as_os_str()]);
    let refused = crier.run(["suppress".as_ref(), "import".as_ref(), bad.as_os_str(), "--reason=x".as_ref()]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("row 2: the number is too short: 4 digits"), "{}", refused.stderr);
    let listed = crier.json(0, &["suppress", "list"]);
    assert_eq!(listed.as_array().expect("a list").len(), 2, "nothing of the bad file is entered: {listed}");
    assert_eq!([&listed[0]["destination"], &listed[1]["reason"]], ["447400000001", "rang us"]);

    let file = place.file("spring.csv", THREE);
    crier.expect(0, ["run".as_ref(), file.as_os_str()]);
    assert_eq!(accepted(&place), 1);
    assert_eq!(crier.json(0, &["status"])[0]["states"], json!({ "suppressed": 2, "sent": 1 }));

    crier.expect(1, ["suppress", "remove", "07400000009", "--reason", "x"]);
    crier.expect(0, ["suppress", "remove", "07400000001", "--reason", "wants them again"]);
    crier.expect(0, ["run".as_ref(), file.as_os_str(), "--again".as_ref()]);
    assert_eq!(accepted(&place), 3);
    crier.expect(0, ["verify"]);
}

#[test]
fn a_stop_by_message_stops_the_next_text_and_start_brings_them_back() {
    let mut production = Production::new(&json!({}));
    production.set("RECONCILE__INBOUND_EVERY", "1s");
    let (place, crier) = (&production.place, production.crier.clone());
    let inbox = |of: &[&str]| crier.json(0, of).as_array().expect("a list").len();
    // The first reading needs to know which senders there are.
    crier.expect(0, ["senders", "list"]);
    let reconciler = crier.spawn(["reconciler"]);
    write_back(place, "447400000001", "“Stop.”");
    write_back(place, "447400000002", "stop by tomorrow please");
    eventually("both messages are read", DEADLINE, || inbox(&["inbox", "--all"]) == 2);
    assert_eq!(inbox(&["inbox"]), 1);

    let file = place.file("spring.csv", THREE);
    crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);
    crier.expect(0, ["worker", "--drain"]);
    assert_eq!(accepted(place), 2);
    reconciler.kill();
    let listed = crier.json(0, &["suppress", "list"]);
    assert_eq!([&listed[0]["destination"], &listed[0]["sender"]], ["447400000001", "ACME"]);

    // Texts of ours are in the window now, and more replies than a page holds.
    write_back(place, "447400000001", "START");
    for n in 0..25 {
        write_back(place, "447400000003", &format!("reply {n}"));
    }
    let reconciler = crier.spawn(["reconciler"]);
    eventually("all messages are read", DEADLINE, || inbox(&["inbox", "--all"]) == 28);
    assert_eq!(crier.json(0, &["suppress", "list"]), json!([]));
    reconciler.kill();
}

#[test]
fn an_idle_reconciler_looks_for_messages_no_more_than_once_in_its_time() {
    let production = Production::new(&json!({}));
    let (place, crier) = (&production.place, &production.crier);
    crier.expect(0, ["senders", "list"]);
    let lists = || place.sandbox.book()["calls"]["list"].as_u64().unwrap_or(0);
    let reconciler = crier.spawn(["reconciler"]);
    let looked = || production.ask::<i64>("SELECT count(*) FROM learned WHERE name = 'inbound_read_to'");
    eventually("it has looked once", DEADLINE, || looked() == 1);
    reconciler.kill();
    let first = lists();
    // A restart is no reason to look again, and many rounds pass.
    let reconciler = crier.spawn(["reconciler"]);
    let rounds = || production.ask::<i64>("SELECT until FROM leases WHERE name = 'reconciler'");
    let began = rounds();
    eventually("it has gone round for ten seconds", DEADLINE, || rounds() > began + 10_000);
    // Two for the second process, one to measure the gateway's clock and one to read, and one for each minute that a loaded
    // machine takes.
    assert!(lists() <= first + 3, "it made {} calls after {first}", lists());
    reconciler.kill();
}

#[test]
fn what_is_old_is_purged_and_the_report_keeps_its_lines() {
    let place = Place::new();
    let crier = place.crier();
    let file = place.file("spring.csv", THREE);
    crier.expect(0, ["run".as_ref(), file.as_os_str()]);
    let nothing = crier.json(0, &["purge"]);
    assert_eq!([&nothing["texts"], &nothing["numbers"]], [0, 0]);
    let crier = crier.set("RETENTION__TEXTS", "1ms").set("RETENTION__NUMBERS", "1ms");
    let would = crier.json(0, &["purge", "--dry-run"]);
    assert_eq!([&would["texts"], &would["numbers"]], [1, 3]);
    let done = crier.json(0, &["purge"]);
    assert_eq!([&done["texts"], &done["numbers"]], [1, 3]);
    let report = crier.json(0, &["results", "--format", "json"]);
    let seen = |row: &Value| [row["destination"].clone(), row["text"].clone(), row["state"].clone()];
    assert_eq!(seen(&report[0]), [json!("44…001"), Value::Null, json!("sent")]);
    assert_eq!(report.as_array().expect("rows").len(), 3);
    crier.expect(0, ["verify"]);
    // The same bytes are still known.
    crier.expect(1, ["run".as_ref(), file.as_os_str()]);
}
