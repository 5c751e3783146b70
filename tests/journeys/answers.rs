//! What a person asks of a campaign that has been sent.

use crate::harness::{Crier, Mailing, Place, account};
use serde_json::{Value, json};
use std::fs;

/// A campaign of which some rows failed and some are held.
struct Sent {
    crier: Crier,
    place: Place,
    mailing: Mailing,
}

impl Sent {
    fn new() -> Self {
        let place = Place::with(&json!({"fail_endings": ["7"]}));
        // Of the last batch the gateway takes half and says that it failed.
        place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "process_part", "after": 5, "times": 1}]));
        let crier = place.crier().set("WORKER__BATCH_LEN_MAX", "10");
        let mailing = Mailing::of(60, 3);
        let file = place.file("spring.csv", &mailing.csv);
        crier.expect(3, ["run".as_ref(), file.as_os_str()]);
        place.sandbox.heal();
        Self { crier, place, mailing }
    }

    fn rows(&self, campaign: &str, state: &str) -> Vec<Value> {
        let printed = self.crier.expect(0, ["results", campaign, "--state", state, "--format", "json"]);
        serde_json::from_str(&printed).expect("results are JSON")
    }
}

fn number(row: &Value) -> String {
    row["row_number"].to_string()
}

#[test]
fn what_happened_to_row_17() {
    let sent = Sent::new();
    let story = sent.crier.json(0, &["show", "spring", "17"]);
    assert_eq!(story["row"]["row_number"], 17);
    assert_eq!(story["row"]["destination"], "447400000015");
    let told = sent.crier.expect(0, ["show", "spring", "17"]);
    for words in [
        "Row 17 of spring (spring.csv) is ",
        "447400000015",
        "Text 0 of the campaign",
        "launched spring.csv, of which this is row 17",
        "It was put into call ",
        "with 9 others",
        "the gateway took it",
        "The gateway's list from ",
        "this one is among them, as ",
        "that is final",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    let failed = sent.rows("spring", "failed");
    let told = sent.crier.expect(0, ["show", "spring", &number(&failed[0])]);
    assert!(told.contains("is failed: the gateway reports that it could not be sent"), "{told}");
    let ended = sent.crier.run(["show", "spring", "1700"]);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("no row 1700"), "{}", ended.stderr);
    let ended = sent.crier.run(["show", "summer", "17"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("no campaign summer") && ended.stderr.contains("spring"), "{}", ended.stderr);
}

#[test]
fn why_a_row_is_held_and_what_a_person_may_decide() {
    let sent = Sent::new();
    let held = sent.crier.json(0, &["held", "spring"]);
    let held = held.as_array().expect("a list");
    assert_eq!(held.len(), 5, "{held:?}");
    let listed = sent.crier.expect(0, ["held"]);
    for row in held {
        let (number, why) = (number(row), row["reason"].as_str().expect("a reason"));
        assert!(listed.lines().any(|line| line.contains(&number) && line.contains(why)), "{listed}");
        let told = sent.crier.expect(0, ["show", "spring", &number]);
        assert!(told.contains(&format!("is held: {why}")) && told.contains("500"), "{told}");
    }
    let rows: Vec<String> = held.iter().map(number).collect();
    let before = sent.place.sandbox.book()["accepted"].clone();

    // A mistyped number decides nothing, and a decision needs a reason.
    sent.crier.expect(1, ["resolve", "spring", &rows[0], "1700", "--cancel", "--reason", "typo"]);
    sent.crier.expect(2, ["resolve", "spring", &rows[0], "--cancel"]);
    assert_eq!(sent.rows("spring", "held").len(), 5);

    sent.crier.expect(0, ["resolve", "spring", &rows[0], "--assume-sent", "--reason", "she called back"]);
    sent.crier.expect(0, ["resolve", "spring", &rows[1], &rows[2], "--cancel", "--reason", "too late now"]);
    // He may get it twice: that is said in one line, and not done unless it is confirmed.
    let ended = sent.crier.run(["resolve", "spring", &rows[3], "--resend", "--reason", "he asked for it"]);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the person gets it twice") && ended.stderr.contains("--confirm"),
        "{}",
        ended.stderr
    );
    assert_eq!(sent.rows("spring", "held").len(), 2);
    sent.crier.expect(0, ["resolve", "spring", &rows[3], "--resend", "--confirm", "--reason", "he asked for it"]);
    // Whoever comes second is told who came first.
    let second =
        ["--as", "Bob", "resolve", "spring", &rows[0], "--resend", "--confirm", "--reason", "not held any more"];
    let told = sent.crier.expect(1, second);
    assert!(told.contains("left as it is, sent: ") && told.contains("she called back"), "{told}");
    assert_eq!(sent.place.sandbox.book()["accepted"], before, "something was sent by deciding");
    sent.crier.expect(3, ["run"]);
    let after = sent.place.sandbox.book()["accepted"].as_u64();
    assert_eq!(after, before.as_u64().map(|texts| texts + 1), "exactly one was to be sent once more");

    let told = sent.crier.expect(0, ["show", "spring", &rows[0]]);
    assert!(told.contains("is sent") && told.contains("she called back"), "{told}");
    let told = sent.crier.expect(0, ["show", "spring", &rows[1]]);
    assert!(told.contains("is cancelled") && told.contains("too late now"), "{told}");
    let told = sent.crier.expect(0, ["show", "spring", &rows[3]]);
    assert!((told.contains("is sent") || told.contains("is failed")) && told.contains("he asked for it"), "{told}");
    let left: Vec<String> = sent.rows("spring", "held").iter().map(number).collect();
    assert_eq!(left, [rows[4].clone()]);
    assert_eq!(sent.place.sandbox.twice(), json!([]));
    sent.crier.expect(0, ["verify"]);
}

#[test]
fn only_what_failed_is_sent_again() {
    let sent = Sent::new();
    account(&sent.crier, &sent.place.sandbox, "spring", &sent.mailing);
    let failed = sent.rows("spring", "failed");
    assert!(failed.len() > 2, "{failed:?}");
    let printed = sent.crier.expect(0, ["results", "spring", "--state", "failed", "--format", "csv"]);
    let file = sent.place.file("failed.csv", &printed);
    let preview = sent.crier.json(0, &["check", file.to_str().expect("a plain name")]);
    assert_eq!((&preview["sendable"], &preview["rows"]), (&json!(failed.len()), &json!(failed.len())), "{preview}");
    sent.crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);

    let campaigns = sent.crier.json(0, &["status"]);
    let names: Vec<&str> =
        campaigns.as_array().expect("a list").iter().filter_map(|c| c["campaign"].as_str()).collect();
    let [first, again] = names[..] else { panic!("{names:?}") };
    assert_eq!(first, "spring");
    let essence = |rows: &[Value]| -> Vec<[Value; 3]> {
        let mut all: Vec<_> =
            rows.iter().map(|row| ["destination", "sender", "text"].map(|column| row[column].clone())).collect();
        all.sort_by_key(|row| row[0].to_string());
        all
    };
    assert_eq!(essence(&sent.rows(again, "queued")), essence(&failed), "exactly what failed is queued, as it was");

    // They can be reached now.
    sent.place.sandbox.configure(&json!({"fail_endings": []}));
    sent.crier.expect(0, ["run"]);
    assert_eq!(sent.rows(again, "sent").len(), failed.len());
    sent.crier.expect(0, ["verify"]);
}

#[test]
fn results_are_safe_to_open_in_a_spreadsheet() {
    let place = Place::new();
    let crier = place.crier();
    let file = place.file(
        "spring.csv",
        "destination,sender,text,reference\n+447400000001,ACME,=1+1 is two,\"=HYPERLINK(\"\"http://x\"\")\"\n=cmd|x,ACME,Hi,@SUM(A1)\n",
    );
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let printed = crier.expect(0, ["results", "spring", "--format", "csv"]);
    for cell in printed.split([',', '\n']) {
        let cell = cell.trim_start_matches('"');
        assert!(!cell.starts_with(['=', '@']), "a formula: {cell}");
    }
    assert!(printed.contains(",+447400000001,447400000001,"), "numbers stay as they are: {printed}");
    let text = &place.sandbox.full_book()["texts"][0]["text"];
    assert_eq!(text, "=1+1 is two", "what is sent is what was written");
    let rejects = fs::read_to_string(place.dir.path().join("spring.rejected.csv")).expect("rejects are listed");
    assert!(!rejects.contains(",@SUM") && !rejects.contains("\n=cmd"), "{rejects}");
}
