//! Plants known secrets, a number and a text, and looks for them in everything that the processes wrote.

use crate::harness::{DEADLINE, Place, Production, Redis, Signal, Spy, database, eventually};
use serde_json::json;
use std::{fs, path::Path};

const SECRETS: [&str; 6] = [
    "canary-client-secret",
    "canary-password",
    "canary-wrong-password",
    "canary-ledger-password",
    "canary-redis-password",
    // How the gateway's access and refresh tokens begin.
    "eyJ",
];
const REFRESH_TOKEN: &str = "def50200";
/// In each number that is written; longer than the fraction of a second in a log line.
const NUMBERS: &str = "74005500";
const TEXT: &str = "canary text";

/// The first thing in `written` that should not be there.
fn leak(written: &str) -> Option<&'static str> {
    let planted = SECRETS.into_iter().chain([REFRESH_TOKEN, TEXT, NUMBERS]);
    planted.into_iter().find(|secret| written.contains(secret))
}

/// Looks through what the processes of a journey said on stderr; answers how many there were.
#[track_caller]
fn nothing_leaked_to_stderr(dir: &Path) -> u32 {
    let mut read = 0;
    for entry in fs::read_dir(dir).expect("the journey's directory is there").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "err") {
            let said = fs::read(&path).expect("it can be read");
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().find(|line| leak(line).is_some());
            assert_eq!(line, None, "{} said it", path.display());
            read += 1;
        }
    }
    read
}

#[test]
fn nothing_that_is_written_shows_a_secret_a_number_or_a_text() {
    let place = Place::with(&json!({"client_secret": SECRETS[0], "password": SECRETS[1], "fail_endings": ["9"]}));
    // Something is refused, something is lost, something goes well.
    place.sandbox.faults(&json!([
        {"operation": "bulk_send", "fault": "status", "status": 422, "field": "destination.1", "times": 1},
        {"operation": "bulk_send", "fault": "process_part", "after": 1, "times": 1},
        {"operation": "list", "fault": "status", "status": 500, "times": 1},
    ]));
    let (database, redis) = (database(), Redis::start());
    let spy = Spy::hearing(&redis, |command| leak(command).is_some());
    let crier = place
        .crier_on(&database, &redis)
        .set("GATEWAY__CLIENT_SECRET", SECRETS[0])
        .set("GATEWAY__PASSWORD", SECRETS[1])
        .set("WORKER__BATCH_LEN_MAX", "4")
        .set("LOG__FILTER", "trace");
    crier.expect(0, ["migrate"]);
    let rows: String = (0..12).map(|n| format!("074005500{n:02},ACME,{TEXT} {}\n", n % 2)).collect();
    let file = place.file("spring.csv", format!("destination,sender,text\n{rows}074005500,ACME,{TEXT}\n"));
    crier.expect(0, ["senders", "list"]);
    let services = ["worker", "reconciler"].map(|service| crier.spawn([service]));
    crier.expect(3, ["ingest".as_ref(), file.as_os_str()]);
    eventually("every row is final or held", DEADLINE, || {
        let states = crier.json(0, &["status", "spring"])[0]["states"].clone();
        ["queued", "sending", "unknown", "accepted"].iter().all(|state| states.get(state).is_none())
    });
    for mut service in services {
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", service.id())).expect("it runs");
        assert_eq!(leak(&arguments), None, "on its command line: {arguments}");
        service.signal(Signal::Term);
        let ended = service.wait(DEADLINE);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains(" INFO "), "nothing was logged");
    }
    for command in [&["config"][..], &["config", "--json"], &["doctor"], &["status"], &["log"], &["verify"]] {
        let ended = crier.run(command);
        assert_eq!(leak(&ended.stdout), None, "{command:?} printed {}", ended.stdout);
    }
    let down = "http://127.0.0.1:1/api";
    let wrong = [
        crier.clone().set("GATEWAY__PASSWORD", SECRETS[2]).ledger(&place.sqlite()).queue("memory:"),
        crier.clone().set("GATEWAY__BASE_URL", down).ledger(&place.sqlite()).queue("memory:"),
        crier.clone().ledger(&format!("postgres://crier:{}@127.0.0.1:1/crier", SECRETS[3])),
        crier.clone().queue(&format!("redis://:{}@127.0.0.1:1", SECRETS[4])),
    ];
    for (wrong, code) in wrong.into_iter().zip([4, 5, 5, 5]) {
        for command in [&["senders", "list"][..], &["doctor"]] {
            let ended = wrong.run(command);
            assert_eq!(leak(&ended.stdout), None, "{command:?} printed {}", ended.stdout);
            assert_ne!(ended.code, Some(0), "{command:?}");
            assert!(command != ["senders", "list"] || ended.code == Some(code), "{:?}: {}", ended.code, ended.stderr);
        }
    }
    let read = nothing_leaked_to_stderr(place.dir.path());
    assert!(read > 10, "only {read} processes said anything");
    let heard = spy.stop();
    assert!(heard.commands > 20, "the spy heard {} commands", heard.commands);
    assert_eq!(heard.leaks, Vec::<String>::new(), "Redis was told a secret, a number or a text");
}

/// The drop folder, replies, opt-outs and calls, with the secrets in files.
#[test]
fn nothing_that_is_dropped_or_written_back_is_told_by_a_process() {
    let secrets = json!({"client_secret": SECRETS[0], "password": SECRETS[1]});
    let mut production = Production::new(&secrets);
    let spy = Spy::hearing(&production.redis, |command| leak(command).is_some());
    let files =
        ["client_secret", "password"].map(|name| production.place.file(name, secrets[name].as_str().unwrap_or("")));
    production.crier = production
        .crier
        .clone()
        .set_file("GATEWAY__CLIENT_SECRET", &files[0])
        .set_file("GATEWAY__PASSWORD", &files[1])
        .set("RECONCILE__INBOUND_EVERY", "1s")
        .set("LOG__FILTER", "trace");
    let crier = production.crier.clone();
    crier.expect(0, ["senders", "list"]);
    production.start();
    // Whatever is wrong with a file, the line about it would best quote what stands there.
    let number = format!("0{NUMBERS}42");
    let bad: [(&str, Vec<u8>, Option<String>); 6] = [
        ("headless", format!("{number},ACME,{TEXT}\n{number},ACME,{TEXT}\n").into(), None),
        ("twice", format!("{number},{number},text\n1,2,{TEXT}\n").into(), None),
        ("latin", [format!("to,sender,text\n{number},ACME,{TEXT} caf").as_bytes(), b"\xe9\n"].concat(), None),
        ("toml", format!("to\n{number}\n").into(), Some(format!("priority = \"{number}\"\ntext = \"{TEXT}\"\n"))),
        ("limit", format!("to\n{number}\n").into(), Some(format!("text = \"{TEXT}\"\nmax_segments = \"{number}\"\n"))),
        ("hole", format!("to,sender\n{number},ACME\n").into(), Some(format!("text = \"{TEXT} {{{{{number}}}}}\"\n"))),
    ];
    for (name, csv, toml) in bad {
        if let Some(toml) = toml {
            fs::write(production.folder().join(format!("inbox/{name}.toml")), toml).expect("the inbox is writable");
        }
        production.drop_in(&format!("{name}.csv"), csv);
        let told = production.folder().join(format!("refused/{name}.refused.txt"));
        eventually(&format!("{name}.csv is refused"), DEADLINE, || told.exists());
        let told = fs::read_to_string(told).expect("it can be read");
        assert!(!told.contains(NUMBERS) && SECRETS.iter().all(|secret| !told.contains(secret)), "{name}: {told}");
    }
    let rows: String = (0..4).map(|n| format!("0{NUMBERS}0{n},ACME,{TEXT}\n")).collect();
    production.drop_in("good.csv", format!("destination,sender,text\n{rows}"));
    production.wait_for_texts(4);
    production.wait_till_settled();
    for text in [TEXT, "STOP"] {
        let written = json!({ "from": format!("44{NUMBERS}00"), "to": "ACME", "text": text });
        production.place.sandbox.control("POST", "inbound", Some(&written));
    }
    eventually("what was written back is read", DEADLINE, || {
        crier.json(0, &["inbox", "--all"]).as_array().expect("a list").len() == 2
    });
    let number = format!("0{NUMBERS}01");
    crier.expect(0, ["suppress", "add", &number, "--reason", "asked by mail"]);
    crier.run(["suppress", "remove", &number, "--reason", "asked again"]);
    let purge = ["purge", "--dry-run", "--set", "retention.texts=1s"];
    for fault in [json!([]), json!([{"operation": "dial", "fault": "status", "status": 422, "field": "destination"}])] {
        production.place.sandbox.faults(&fault);
        crier.run(["dial", &number]);
    }
    for command in [&["config"][..], &["doctor"], &["log"], &["held"], &["status"], &["verify"], &purge] {
        let ended = crier.run(command);
        assert_eq!(leak(&ended.stdout), None, "{command:?} printed {}", ended.stdout);
    }
    let missing = production.place.dir.path().join("no-such-secret");
    let without = crier.set_file("GATEWAY__PASSWORD", &missing);
    assert_ne!(without.run(["senders", "list"]).code, Some(0));
    production.stop();
    let read = nothing_leaked_to_stderr(production.place.dir.path());
    assert!(read > 15, "only {read} processes said anything");
    assert_eq!(spy.stop().leaks, Vec::<String>::new(), "Redis was told a secret, a number or a text");
}
