//! The whole way of a campaign against the sandbox, with the real binary: `cargo bench -p crier --bench pipeline`.
//!
//! Prints rows/s ingested, recipients/s sent and confirmed, gateway calls per confirmed recipient, the time from a dropped
//! file to the first gateway call, and peak memory. Smaller sizes: `-- --rows 100000 --recipients 1000 --drops 5`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use testbed::{Process, Redis, eventually, http};

const LONG: Duration = Duration::from_secs(600);

fn main() {
    let size = |name: &str, default: u32| {
        let args: Vec<String> = std::env::args().collect();
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (rows, recipients, drops) = (size("--rows", 1_000_000), size("--recipients", 10_000), size("--drops", 30));
    ingest(rows);
    send_and_confirm(recipients);
    drop_to_first_call(drops);
}

/// A file of one text to as many numbers, all of them mobile numbers of Great Britain.
fn file(path: &Path, rows: u32, text: &str) {
    let mut csv = String::from("destination,sender,text,reference\n");
    for n in 0..rows {
        writeln!(csv, "4475{:08},ACME,{text},order-{n}", u64::from(n) * 97).expect("a String takes all");
    }
    fs::write(path, csv).expect("the bench may write its file");
}

struct Bench {
    dir: tempfile::TempDir,
    sandbox: Process,
    base_url: String,
}

impl Bench {
    fn start(config: &Value) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crier"));
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--config-json", &config.to_string()]);
        let mut sandbox = Process::spawn("sandbox", command, dir.path());
        let base_url = sandbox.first_line(LONG).trim().to_owned();
        Self { dir, sandbox, base_url }
    }

    fn crier(&self, queue: &str, args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crier"));
        command.args(args).current_dir(self.dir.path());
        for (key, value) in [
            ("GATEWAY__BASE_URL", self.base_url.as_str()),
            ("GATEWAY__CLIENT_ID", "sandbox-client"),
            ("GATEWAY__CLIENT_SECRET", "sandbox-secret"),
            ("GATEWAY__USERNAME", "sandbox"),
            ("GATEWAY__PASSWORD", "sandbox-password"),
            ("GATEWAY__CALLS_PER_WINDOW", "1000000"),
            ("LEDGER__URL", "sqlite://bench.db"),
            ("QUEUE__URL", queue),
            ("RECONCILE__FIRST_LOOK", "3s"),
            ("LOG__FILTER", "warn"),
        ] {
            command.env(format!("CRIER_{key}"), value);
        }
        Process::spawn(args[0], command, self.dir.path())
    }

    fn control(&self, path: &str) -> Value {
        http::json("GET", &format!("{}/sandbox/{path}", self.base_url.trim_end_matches("/api")), None)
    }
}

/// Waits for a process and answers its time and its peak resident memory in MB.
fn measured(mut process: Process) -> (Duration, f64) {
    let began = Instant::now();
    let status = format!("/proc/{}/status", process.id());
    let mut peak_kb: f64 = 0.0;
    while process.is_running() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kb = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(peak_kb).max(peak_kb);
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let took = began.elapsed();
    let finished = process.wait(LONG);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    (took, peak_kb / 1024.0)
}

fn ingest(rows: u32) {
    let bench = Bench::start(&json!({ "rate_limited": false, "rate_limit": 1_000_000 }));
    file(&bench.dir.path().join("big.csv"), rows, "Our spring sale starts on Friday at nine. Reply STOP to opt out.");
    let (took, peak) = measured(bench.crier("memory:", &["ingest", "big.csv"]));
    println!(
        "ingest           {rows} rows in {:.1} s: {:.0} rows/s, peak {peak:.0} MB resident",
        took.as_secs_f64(),
        f64::from(rows) / took.as_secs_f64()
    );
    drop(bench.sandbox);
}

fn send_and_confirm(recipients: u32) {
    let config =
        json!({ "rate_limited": false, "rate_limit": 1_000_000, "delivery_min_ms": 100, "delivery_max_ms": 2000 });
    let bench = Bench::start(&config);
    file(&bench.dir.path().join("sale.csv"), recipients, "Our spring sale starts on Friday at nine.");
    let began = Instant::now();
    let run = bench.crier("memory:", &["run", "sale.csv"]);
    let mut sent = None;
    eventually("everything is sent", LONG, || {
        let accepted = bench.control("book")["accepted"].as_u64();
        sent = Some(began.elapsed());
        accepted == Some(u64::from(recipients))
    });
    let (_, peak) = measured(run);
    let confirmed = began.elapsed();
    let book = bench.control("book");
    let calls: u64 = book["calls"].as_object().map_or(0, |calls| calls.values().filter_map(Value::as_u64).sum());
    let per_second = |took: Duration| f64::from(recipients) / took.as_secs_f64();
    println!(
        "send             {recipients} recipients: {:.0} sent/s from the start of the program",
        per_second(sent.unwrap_or_default())
    );
    println!(
        "send and confirm {:.0} recipients/s, {:.4} gateway calls for each (0.11 is the least), peak {peak:.0} MB resident",
        per_second(confirmed),
        f64::from(u32::try_from(calls).unwrap_or(u32::MAX)) / f64::from(recipients)
    );
}

fn drop_to_first_call(drops: u32) {
    let bench = Bench::start(&json!({ "rate_limited": false, "rate_limit": 1_000_000 }));
    let redis = Redis::start();
    let mut services: Vec<Process> =
        vec![bench.crier(&redis.url(), &["worker"]), bench.crier(&redis.url(), &["ingest", "--watch", "drop"])];
    let inbox = bench.dir.path().join("drop/inbox");
    eventually("the watcher has made its folders", LONG, || inbox.is_dir());
    let mut waits: Vec<Duration> = Vec::new();
    for n in 0..drops + 2 {
        let staged = bench.dir.path().join("staged.csv");
        let number = format!("destination,sender,text\n4475{n:08},ACME,Drop {n}\n4474{n:08},ACME,Drop {n}\n");
        fs::write(&staged, number).expect("the bench may write its file");
        let began = Instant::now();
        fs::rename(&staged, inbox.join(format!("drop-{n}.csv"))).expect("the inbox is on the same disk");
        eventually("the file's first gateway call", LONG, || {
            bench.control("book")["accepted"].as_u64() >= Some(u64::from(n + 1) * 2)
        });
        // The first two start everything up.
        if n >= 2 {
            waits.push(began.elapsed());
        }
    }
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64();
    println!("drop to call     {} files over Redis: p50 {:.3} s, p99 {:.3} s", waits.len(), at(50), at(99));
    services.clear();
}
