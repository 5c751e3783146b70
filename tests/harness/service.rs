//! A running service as its operator sees it: what it serves over HTTP, and what it tells systemd.

use super::{Crier, DEADLINE, Process, eventually};
use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A service that serves its metrics on a port of its own.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Service {
    /// Starts it and waits until it serves; it may still wait for what it needs.
    pub(crate) fn start(crier: &Crier, args: &[&str]) -> Self {
        let mut process = crier.clone().set("METRICS__LISTEN", "127.0.0.1:0").spawn(args);
        let mut address = String::new();
        eventually("a service says where it serves", DEADLINE, || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            let said = process.stderr();
            let line = said.lines().find(|line| line.contains("serves /metrics"));
            let found = line.and_then(|line| line.split("address=").nth(1)).and_then(|rest| rest.split(' ').next());
            address = found.unwrap_or_default().to_owned();
            !address.is_empty()
        });
        Self { process, address }
    }

    /// The status and the text of a page.
    pub(crate) fn get(&self, page: &str) -> (u16, String) {
        testbed::http::get(&format!("http://{}/{page}", self.address)).expect("the service answers")
    }

    /// Waits until a page has this status and these words.
    pub(crate) fn wait_for(&self, page: &str, status: u16, words: &str) {
        let mut last = (0, String::new());
        let what = format!("{page} answers {status} with {words:?}");
        let mut asked: Option<Instant> = None;
        eventually(&what, DEADLINE, || {
            if asked.is_some_and(|at| at.elapsed() < Duration::from_millis(100)) {
                return false;
            }
            last = self.get(page);
            asked = Some(Instant::now());
            last.0 == status && last.1.contains(words)
        });
    }

    /// The sum of a metric over all of its labels that have this in them; `None` where the metric is not shown at all.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let (_, text) = self.get("metrics");
        let of = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(labels)
        };
        let values: Vec<f64> =
            text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

/// The socket that systemd would listen to.
pub(crate) struct Notified {
    socket: UnixDatagram,
    pub(crate) path: PathBuf,
}

impl Notified {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { socket: UnixDatagram::bind(&path).expect("a socket can be made"), path }
    }

    /// The next message, if one comes in time.
    pub(crate) fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a time limit can be set");
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("the socket fails: {error}"),
        }
    }

    /// Reads messages until one has this in it; answers all that were read.
    pub(crate) fn until(&self, words: &str) -> Vec<String> {
        let began = Instant::now();
        let mut read = Vec::new();
        while began.elapsed() < DEADLINE {
            if let Some(message) = self.next(Duration::from_millis(200)) {
                read.push(message);
                if read.last().is_some_and(|message| message.contains(words)) {
                    return read;
                }
            }
        }
        panic!("no {words:?} in {read:#?}");
    }

    /// Forgets what has come until now.
    pub(crate) fn forget(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}
