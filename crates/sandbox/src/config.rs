//! What a sandbox is like when it starts.

use crate::fault::Rule;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings of a sandbox, each with the gateway's recorded or assumed value as its default.
///
/// Units: every duration ends in `_ms` or `_s`. The credentials are made up and open nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// OAuth client id that is let in.
    pub client_id: String,
    /// OAuth client secret that is let in.
    pub client_secret: String,
    /// User name that is let in.
    pub username: String,
    /// Password that is let in.
    pub password: String,
    /// `customer_user_name` in token answers, `created_by` in sender ids.
    pub customer_user_name: String,
    /// `customer_user_id`: a number after the password grant, a string after the refresh grant.
    pub customer_user_id: u64,
    /// Life of an access token, and `expires_in`.
    pub expires_in_s: u32,
    /// Sender ids that are approved from the start.
    pub senders: Vec<String>,
    /// Sender ids that await approval.
    pub unapproved_senders: Vec<String>,
    /// False switches the limiter off (benchmarks); the headers stay.
    pub rate_limited: bool,
    /// Calls in one window.
    pub rate_limit: u32,
    /// Length of the fixed window, which starts at its first call.
    pub rate_window_ms: u64,
    /// Destinations of one bulk call beyond this many are dropped without a word (PHP's `max_input_vars`).
    pub max_destinations: usize,
    /// A text becomes final this long after it was accepted, at the earliest.
    pub delivery_min_ms: u64,
    /// And at the latest.
    pub delivery_max_ms: u64,
    /// Share of the well-formed numbers that fail, 0 to 1.
    pub fail_share: f64,
    /// Numbers with one of these endings fail.
    pub fail_endings: Vec<String>,
    /// A text is neither listed nor found by id until this long after it was accepted.
    pub list_lag_ms: u64,
    /// The sandbox's clock minus the real one; `Date` and the rows' `time` follow it.
    pub clock_skew_ms: i64,
    /// An idle connection is closed after this long.
    pub keep_alive_ms: u64,
    /// A connection is closed after this many requests.
    pub requests_per_connection: u32,
    /// Seed of every share and delay.
    pub seed: u64,
    /// Faults from the start.
    pub faults: Vec<Rule>,
    /// Each accepted text is also appended here, as a line of JSON.
    pub book_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_id: "sandbox-client".into(),
            client_secret: "sandbox-secret".into(),
            username: "sandbox".into(),
            password: "sandbox-password".into(),
            customer_user_name: "200-Sandbox".into(),
            customer_user_id: 2,
            expires_in_s: 3600,
            senders: vec!["CRIER".into(), "ACME".into(), "447520602706".into()],
            unapproved_senders: vec!["SMTEST".into()],
            rate_limited: true,
            rate_limit: 1200,
            rate_window_ms: 60_000,
            max_destinations: 1000,
            delivery_min_ms: 1000,
            delivery_max_ms: 3000,
            fail_share: 0.0,
            fail_endings: Vec::new(),
            list_lag_ms: 0,
            clock_skew_ms: 0,
            keep_alive_ms: 5000,
            requests_per_connection: 100,
            seed: 1,
            faults: Vec::new(),
            book_file: None,
        }
    }
}
