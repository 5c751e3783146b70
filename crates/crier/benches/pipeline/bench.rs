//! The ground of a part: a sandbox, a ledger and a queue of its own, the real binary, and what it took.

use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use testbed::{Database, Postgres, Process, Redis, Signal, http};

/// Longer than any part takes.
pub(crate) const LONG: Duration = Duration::from_secs(1200);

/// Where a part's ledger and queue are.
pub(crate) enum Place {
    /// SQLite and a queue within the process.
    Embedded,
    /// SQLite and Redis.
    Redis(Redis),
    /// Postgres and Redis.
    Servers(Box<(Postgres, Database, Redis)>),
}

impl Place {
    pub(crate) fn redis() -> Self {
        Self::Redis(Redis::start())
    }

    pub(crate) fn servers() -> Self {
        let postgres = Postgres::start();
        let database = postgres.new_database();
        Self::Servers(Box::new((postgres, database, Redis::start())))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "SQLite",
            Self::Redis(_) => "SQLite+Redis",
            Self::Servers(_) => "Postgres+Redis",
        }
    }

    pub(crate) fn ledger(&self) -> String {
        match self {
            Self::Embedded | Self::Redis(_) => "sqlite://bench.db".to_owned(),
            Self::Servers(servers) => servers.1.url(),
        }
    }

    fn queue(&self) -> String {
        match self {
            Self::Embedded => "memory:".to_owned(),
            Self::Redis(redis) => redis.url(),
            Self::Servers(servers) => servers.2.url(),
        }
    }
}

/// A sandbox with a folder, a ledger and a queue.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) place: Place,
    pub(crate) base_url: String,
    pub(crate) settings: Vec<(&'static str, String)>,
    _sandbox: Process,
}

/// A sandbox without a limit, whose texts are final at once.
pub(crate) fn unlimited() -> Value {
    json!({ "rate_limited": false, "rate_limit": 1_000_000, "delivery_min_ms": 0, "delivery_max_ms": 0 })
}

impl Bench {
    pub(crate) fn start(place: Place, config: &Value) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crier"));
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--config-json", &config.to_string()]);
        command.env_remove("CRIER_TEST_POSTGRES");
        let mut sandbox = Process::spawn("sandbox", command, dir.path());
        let base_url = sandbox.first_line(LONG).trim().to_owned();
        let settings = vec![("GATEWAY__CALLS_PER_WINDOW", "1000000".to_owned()), ("LOG__FILTER", "warn".to_owned())];
        let bench = Self { dir, place, base_url, settings, _sandbox: sandbox };
        if matches!(bench.place, Place::Servers(_)) {
            bench.done(bench.crier(&["migrate"]));
        }
        bench
    }

    pub(crate) fn set(mut self, key: &'static str, value: &str) -> Self {
        self.settings.retain(|(set, _)| *set != key);
        self.settings.push((key, value.to_owned()));
        self
    }

    pub(crate) fn crier(&self, args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crier"));
        command.args(args).current_dir(self.dir.path()).env_remove("CRIER_TEST_POSTGRES");
        for (key, value) in [
            ("GATEWAY__BASE_URL", self.base_url.as_str()),
            ("GATEWAY__CLIENT_ID", "sandbox-client"),
            ("GATEWAY__CLIENT_SECRET", "sandbox-secret"),
            ("GATEWAY__USERNAME", "sandbox"),
            ("GATEWAY__PASSWORD", "sandbox-password"),
            ("LEDGER__URL", &self.place.ledger()),
            ("QUEUE__URL", &self.place.queue()),
        ] {
            command.env(format!("CRIER_{key}"), value);
        }
        for (key, value) in &self.settings {
            command.env(format!("CRIER_{key}"), value);
        }
        Process::spawn(args[0], command, self.dir.path())
    }

    /// Waits for a command that has to end well, and answers what it printed.
    pub(crate) fn done(&self, process: Process) -> String {
        let finished = process.wait(LONG);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    }

    pub(crate) fn control(&self, path: &str) -> Value {
        http::json("GET", &format!("{}/sandbox/{path}", self.base_url.trim_end_matches("/api")), None)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.control("book")["accepted"].as_u64().unwrap_or(0)
    }

    /// All calls that the gateway saw.
    pub(crate) fn calls(&self) -> u64 {
        let book = self.control("book");
        book["calls"].as_object().map_or(0, |calls| calls.values().filter_map(Value::as_u64).sum())
    }

    /// Waits until nothing is left to do, which a reconciler that drains says by ending; ends the others.
    pub(crate) fn drained(&self, reconciler: Process, others: Vec<Process>) -> Vec<Used> {
        let mut used = vec![measured(reconciler)];
        for mut other in others {
            other.signal(Signal::Term);
            used.push(measured(other));
        }
        used
    }

    /// A file of so many recipients, whose n-th line says what `line` makes of n and a number.
    pub(crate) fn file(&self, name: &str, rows: u32, line: impl Fn(u32, u64) -> String) {
        let path = self.dir.path().join(name);
        let mut file = BufWriter::new(File::create(path).expect("the bench may write its file"));
        writeln!(file, "destination,sender,text,reference").expect("the bench may write its file");
        for n in 0..rows {
            writeln!(file, "{}", line(n, number(n))).expect("the bench may write its file");
        }
        file.flush().expect("the bench may write its file");
    }

    /// One text from one sender.
    pub(crate) fn one_text(&self, name: &str, rows: u32) {
        self.file(name, rows, |n, number| {
            format!("{number},ACME,Our spring sale starts on Friday at nine. Reply STOP to opt out.,order-{n}")
        });
    }
}

/// The n-th of 300,000,000 British mobile numbers, all different, in no order.
pub(crate) fn number(n: u32) -> u64 {
    447_100_000_000 + u64::from(n) * 27_644_437 % 300_000_000
}

/// What a process took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_mb: f64,
}

/// Waits for a process; its time from now on, its processor time and its peak of resident memory.
pub(crate) fn measured(mut process: Process) -> Used {
    let (began, before) = (Instant::now(), ended_children());
    let status = format!("/proc/{}/status", process.id());
    let mut peak_kb: f64 = 0.0;
    while process.is_running() {
        peak_kb = peak_kb.max(peak(&status));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let wall = began.elapsed();
    let finished = process.wait(LONG);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    Used { wall, cpu: ended_children().saturating_sub(before), peak_mb: peak_kb / 1024.0 }
}

fn peak(status: &str) -> f64 {
    let status = fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Processor time of all processes of this one that have ended: hundredths of a second.
pub(crate) fn ended_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    Duration::from_millis(fields.get(12..14).map_or(0, |ticks| ticks.iter().sum::<u64>()) * 10)
}

/// The peaks of running processes, in MB.
pub(crate) fn peaks_mb(processes: &[&Process]) -> Vec<f64> {
    processes.iter().map(|process| peak(&format!("/proc/{}/status", process.id())) / 1024.0).collect()
}

/// Bytes that a file or folder's files take.
pub(crate) fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// So many in a second.
pub(crate) fn rate(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}
