//! The command line of the real binary: its help, its error lines, its exit codes. What several processes do together is
//! shown by the journeys.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use assert_cmd::Command;
use std::{fs, path::Path};
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../campaigns.example.csv");
const NUMBERS: &str = "destination,sender,text\n07700 900001,ACME,Hello\n07700 900002,ACME,=1+1\n12,ACME,Hello\n";

/// A folder to work in, and the binary in it with no setting from outside.
struct Place(TempDir);

/// What a command did.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self::new();
        for (name, content) in files {
            fs::write(place.path().join(name), content).unwrap();
        }
        place
    }

    /// The ledger of this folder, as a reconciler leaves it that has read the gateway's senders.
    fn know_acme(&self) {
        let url = format!("sqlite://{}", self.path().join("crier.db").display());
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let ledger = ledger::Ledger::open(&url).await.unwrap();
            ledger.migrate().await.unwrap();
            let acme = campaign::SenderId::parse("ACME").unwrap();
            ledger.record_senders(&[(acme, true)], ledger.now()).await.unwrap();
        });
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::cargo_bin("crier").unwrap();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRIER_")) {
            command.env_remove(name);
        }
        command.current_dir(self.path()).envs(environment.iter().copied()).env("COLUMNS", "100").args(args);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The exit code and all that was said, for a snapshot.
fn shown(ran: &Ran) -> String {
    format!("exit {}\n{}{}", ran.code, ran.stdout, ran.stderr)
}

#[test]
fn help_of_the_main_commands() {
    let place = Place::new();
    for command in ["run", "ingest", "worker", "status", "results", "resolve", "doctor", "demo"] {
        insta::assert_snapshot!(format!("help_{command}"), place.run(&[command, "--help"]).stdout);
    }
    insta::assert_snapshot!("help", place.run(&["--help"]).stdout);
}

#[test]
fn each_error_is_one_line_that_names_it_and_says_what_to_do() {
    let place = Place::with(&[("list.csv", NUMBERS), ("typo.toml", "[worker]\nbatch_len = 5\n")]);
    let cases: [(&str, &[&str]); 12] = [
        ("an_unknown_setting", &["status", "--set", "queue.nam=x"]),
        ("an_unknown_setting_in_a_file", &["status", "--config", "typo.toml"]),
        ("a_setting_out_of_bounds", &["status", "--set", "worker.batch_len_max=501"]),
        ("a_file_of_settings_that_is_absent", &["status", "--config", "absent.toml"]),
        ("no_credentials", &["run", "list.csv"]),
        ("a_worker_without_redis", &["worker"]),
        ("a_reconciler_without_redis", &["reconciler", "--drain"]),
        ("no_ledger", &["status"]),
        ("a_ledger_that_is_down", &["status", "--set", "ledger.url=postgres://crier:s3cret@127.0.0.1:1/crier"]),
        (
            "a_queue_that_is_down",
            &[
                "senders",
                "list",
                "--set",
                "queue.url=redis://127.0.0.1:1",
                "--set",
                "gateway.client_id=a",
                "--set",
                "gateway.client_secret=b",
                "--set",
                "gateway.username=c",
                "--set",
                "gateway.password=d",
            ],
        ),
        ("a_file_that_is_absent", &["check", "absent.csv"]),
        ("half_of_a_decision", &["resolve", "list", "2", "--resend"]),
    ];
    for (name, args) in cases {
        let ran = place.run(args);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
        insta::assert_snapshot!(format!("error_{name}"), shown(&ran));
    }
}

#[test]
fn exit_codes_tell_what_kind_of_end_it_was() {
    let place = Place::with(&[("list.csv", NUMBERS), ("good.csv", "destination,sender,text\n07700900001,ACME,Hi\n")]);
    let codes = [
        (0, vec!["check", "good.csv"]),
        (3, vec!["check", "list.csv"]),
        (1, vec!["check", "absent.csv"]),
        (2, vec!["check"]),
        (2, vec!["status", "--colour"]),
        (4, vec!["status", "--set", "nothing=1"]),
        (4, vec!["run", "good.csv"]),
        (5, vec!["status"]),
        (4, vec!["ingest", "good.csv"]),
    ];
    for (code, args) in codes {
        let ran = place.run(&args);
        assert_eq!(ran.code, code, "{args:?}\n{}", shown(&ran));
    }
    place.know_acme();
    let codes = [
        (0, vec!["ingest", "good.csv"]),
        (1, vec!["ingest", "good.csv"]),
        (0, vec!["verify"]),
        (1, vec!["status", "winter"]),
    ];
    for (code, args) in codes {
        let ran = place.run(&args);
        assert_eq!(ran.code, code, "{args:?}\n{}", shown(&ran));
    }
}

#[test]
fn a_command_that_only_reads_makes_no_ledger() {
    let place = Place::new();
    for command in ["status", "verify", "held", "log", "results", "doctor"] {
        place.run(&[command]);
    }
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn checking_and_planning_touch_nothing() {
    let place = Place::with(&[("list.csv", NUMBERS)]);
    let plan = place.run(&["plan", "list.csv", "--set", "plan.prices.44=0.5"]);
    assert!(plan.stdout.contains("cost: 1.00 GBP for 2 segments (44: 2 × 0.50)"), "{}", plan.stdout);
    assert!(plan.stdout.contains("queued already: nothing"), "{}", plan.stdout);
    let json: serde_json::Value = serde_json::from_str(&place.run(&["plan", "list.csv", "--json"]).stdout).unwrap();
    assert_eq!((json["plan"]["calls"]["single"].as_u64(), json["plan"]["calls"]["list"].as_u64()), (Some(2), Some(1)));
    assert_eq!(json["plan"]["cost"]["unpriced"][0]["country_code"], "+44");
    assert_eq!(place.names(), ["list.csv"]);
}

#[test]
fn secrets_are_masked_and_each_value_names_its_source() {
    let place = Place::with(&[("crier.toml", "[gateway]\nusername = \"ada\"\n[queue]\nname = \"ours\"\n")]);
    let environment =
        [("CRIER_GATEWAY__PASSWORD", "hunter2"), ("CRIER_LEDGER__URL", "postgres://crier:s3cret@db/crier")];
    let ran = place.run_with(&["config", "--set", "worker.concurrency=2"], &environment);
    assert!(!ran.stdout.contains("hunter2") && !ran.stdout.contains("s3cret") && !ran.stdout.contains("ada"));
    for line in [
        "gateway.username\tset\tfile crier.toml",
        "gateway.password\tset\tenvironment CRIER_GATEWAY__PASSWORD",
        "gateway.client_id\tnot set\tdefault",
        "ledger.url\tpostgres://crier:***@db/crier\tenvironment CRIER_LEDGER__URL",
        "queue.name\tours\tfile crier.toml",
        "worker.concurrency\t2\t--set",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "{line}\n{}", ran.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&place.run_with(&["config", "--json"], &environment).stdout).unwrap();
    assert!(json.as_array().unwrap().iter().all(|entry| entry["variable"].as_str().unwrap().starts_with("CRIER_")));
}

#[test]
fn a_loaded_file_is_shown_in_every_form() {
    let place = Place::with(&[("list.csv", NUMBERS)]);
    place.know_acme();
    assert_eq!(place.run(&["ingest", "list.csv"]).code, 3, "a row is invalid");
    let status: serde_json::Value = serde_json::from_str(&place.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!((&status[0]["campaign"], &status[0]["states"]["queued"]), (&"list".into(), &2.into()));
    assert!(place.run(&["status"]).stdout.contains("list: 2 queued: wait for their turn"));

    let csv = place.run(&["results", "list", "--format", "csv"]).stdout;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(
        reader.headers().unwrap().iter().take(5).collect::<Vec<_>>(),
        ["campaign", "row_number", "reference", "destination_raw", "destination"]
    );
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), &rows[1][4], &rows[1][6]), (3, "447700900002", "'=1+1"));

    let rejects = place.run(&["results", "--rejects-only", "--format", "json"]).stdout;
    let rejects: serde_json::Value = serde_json::from_str(&rejects).unwrap();
    assert_eq!((rejects.as_array().unwrap().len(), &rejects[0]["row_number"]), (1, &4.into()));
    assert_eq!(place.run(&["results", "--state", "failed", "--json"]).stdout, "[]\n");

    let story = place.run(&["show", "list", "4"]).stdout;
    assert!(story.starts_with("Row 4 of list (list.csv) is invalid: "), "{story}");
    assert!(place.run(&["verify"]).stdout.ends_with("The rows balance.\n"));
    let undecided = place.run(&["resolve", "list", "2", "9", "--cancel", "--reason", "test"]);
    assert!(undecided.stderr.contains("the campaign list has no row 9. Nothing was decided."), "{}", undecided.stderr);
    let undecided = place.run(&["resolve", "list", "2", "--cancel", "--reason", "test"]);
    assert_eq!((undecided.code, undecided.stdout.as_str()), (1, "row 2: left as it is: it is queued, not held\n"));
}

#[test]
fn the_demo_shows_every_row_of_the_example_and_leaves_one_file() {
    let place = Place::new();
    // Whatever is configured, the demo talks to its own sandbox only.
    let environment =
        [("CRIER_GATEWAY__BASE_URL", "https://gateway.invalid/api"), ("CRIER_LEDGER__URL", "sqlite://mine.db")];
    let ran = place.run_with(&["demo"], &environment);
    assert_eq!(ran.code, 0, "{}", shown(&ran));
    assert_eq!(place.names(), ["crier-demo-report.csv"]);
    let report = fs::read_to_string(place.path().join("crier-demo-report.csv")).unwrap();
    let reported: Vec<_> = csv::Reader::from_reader(report.as_bytes()).into_records().map(Result::unwrap).collect();
    let lines = csv::ReaderBuilder::new().flexible(true).from_reader(EXAMPLE.as_bytes()).into_records().count();
    assert!(lines > 0 && reported.len() == lines, "{} of {lines} rows", reported.len());
    assert!(ran.stdout.contains("the spreadsheet destroyed the digits"), "{}", ran.stdout);
    assert!(ran.stdout.contains("nobody was texted twice") && ran.stdout.contains("verify: "), "{}", ran.stdout);
    assert!(ran.stderr.contains("no real text"), "{}", ran.stderr);
}

#[test]
fn a_sandbox_says_where_it_is_in_its_first_line() {
    let place = Place::new();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("crier"));
    command.args(["sandbox", "--listen", "127.0.0.1:0"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRIER_")) {
        command.env_remove(name);
    }
    let mut sandbox = testbed::Process::spawn("sandbox", command, place.path());
    let url = sandbox.first_line(std::time::Duration::from_secs(20));
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/api"), "{url}");
    let set = |pair: &str| ["--set".to_owned(), pair.to_owned()];
    let mut args = vec!["senders".to_owned(), "list".to_owned()];
    args.extend(set(&format!("gateway.base_url={url}")));
    for pair in
        ["client_id=sandbox-client", "client_secret=sandbox-secret", "username=sandbox", "password=sandbox-password"]
    {
        args.extend(set(&format!("gateway.{pair}")));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = place.run(&args);
    assert_eq!((ran.code, ran.stdout.contains("ACME\tapproved")), (0, true), "{}", shown(&ran));
    let dialled = place.run(&[&["dial", "07700 900001"], &args[2..]].concat());
    assert_eq!(dialled.code, 0, "{}", shown(&dialled));
    sandbox.signal(testbed::Signal::Term);
    let _ = sandbox.wait(std::time::Duration::from_secs(20));
}
