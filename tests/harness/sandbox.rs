//! The fake gateway as a process of its own, scripted over HTTP (see `crates/sandbox/src/control.rs`).

use super::{Crier, DEADLINE, Process};
use serde_json::{Value, json};
use std::path::Path;
use testbed::http;

/// A running `crier sandbox`.
#[derive(Debug)]
pub(crate) struct Sandbox {
    process: Process,
    base_url: String,
}

impl Sandbox {
    /// Starts one on a free port; it says which in its first line.
    pub(crate) fn start(dir: &Path, config: &Value) -> Self {
        Self::start_at(dir, config, "127.0.0.1:0")
    }

    /// Starts one at this address.
    pub(crate) fn start_at(dir: &Path, config: &Value, listen: &str) -> Self {
        let config = config.to_string();
        let mut process = Crier::new(dir).spawn(["sandbox", "--listen", listen, "--config-json", &config]);
        let line = process.first_line(DEADLINE);
        let base_url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let base_url = base_url.unwrap_or_else(|| panic!("the sandbox did not say its address: {line}")).to_owned();
        Self { process, base_url }
    }

    /// `http://127.0.0.1:PORT/api`
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What it accepted.
    pub(crate) fn book(&self) -> Value {
        self.get("book")
    }

    /// What it accepted, with each text.
    pub(crate) fn full_book(&self) -> Value {
        self.get("book?full=1")
    }

    /// Texts that it accepted more than once for one number: must stay an empty list.
    pub(crate) fn twice(&self) -> Value {
        self.get("twice")
    }

    /// Every call that reached it.
    pub(crate) fn calls(&self) -> Value {
        self.get("calls")
    }

    /// Replaces the script of faults.
    pub(crate) fn faults(&self, rules: &Value) {
        self.control("PUT", "faults", Some(rules));
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.faults(&json!([]));
    }

    /// Changes a part of its settings.
    pub(crate) fn configure(&self, part: &Value) {
        self.control("PATCH", "config", Some(part));
    }

    /// Anything else of its control calls.
    pub(crate) fn control(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let origin = self.base_url.trim_end_matches('/').trim_end_matches("/api");
        http::json(method, &format!("{origin}/sandbox/{path}"), body)
    }

    /// Takes it away, with everything it knew.
    pub(crate) fn stop(self) {
        self.process.kill();
    }

    fn get(&self, path: &str) -> Value {
        self.control("GET", path, None)
    }
}
