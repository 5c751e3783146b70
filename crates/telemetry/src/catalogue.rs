//! The table of all metrics.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// As it is at the moment of the scrape.
    Gauge,
    /// How many observations there were up to each of these bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name; the unit comes last.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Values of its labels that are shown from the start, so that a rate has a zero to begin from.
    pub begin_with: &'static [&'static [&'static str]],
}

const NO_LABELS: &[&[&str]] = &[&[]];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    begin_with: &'static [&'static [&'static str]],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, help, labels, begin_with }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help, labels, begin_with: &[] }
}

/// From a call on a good day to one that is given up.
const CALL_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From a small campaign to one that waits for the next day.
const ROW_SECONDS: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0];

/// Every metric that there is. A service shows them all, those of other services at zero.
pub const CATALOGUE: &[Metric] = &[
    gauge("crier_build_info", &["version"], "Always 1; the version of this program"),
    gauge("crier_ready", &[], "1 while /readyz answers 200"),
    gauge("crier_dependency_up", &["dependency"], "1 for each of ledger, schema, queue and token that can be used"),
    gauge("crier_loop_turned_seconds", &["loop"], "How long ago each loop of this process last turned"),
    gauge("crier_processes", &["kind"], "Processes that the ledger has heard of within a minute"),
    gauge(
        "crier_queue_chunks",
        &["state"],
        "Chunks of rows to be sent: waiting for their turn, fed to the queue, working",
    ),
    gauge("crier_queue_rows", &["state"], "Rows of these chunks, as they were loaded"),
    gauge(
        "crier_queue_oldest_seconds",
        &[],
        "Age of the oldest chunk that is due, of an active campaign, and not claimed",
    ),
    gauge("crier_attempts_open", &["state"], "Send calls that are not yet settled by the gateway's list"),
    gauge("crier_attempt_recipients_open", &["state"], "Recipients of these calls"),
    gauge("crier_reconcile_lag_seconds", &[], "Age of the oldest send call that is not yet settled"),
    gauge("crier_rows_held", &[], "Rows that wait for a person: crier held"),
    gauge("crier_texts_unexplained", &[], "Listed texts from our senders that crier did not send: crier doctor"),
    gauge("crier_quarantined", &[], "1 while nothing is sent because the ledger was restored: crier quarantine"),
    gauge("crier_budget_calls_left", &[], "Gateway calls that are left in this window, for all processes together"),
    gauge("crier_budget_calls_limit", &[], "Gateway calls that a window allows"),
    gauge("crier_token_age_seconds", &[], "Age of the access token"),
    gauge("crier_token_left_seconds", &[], "How long the access token lasts; it is renewed before"),
    gauge("crier_token_trouble", &[], "1 while no new token can be had: crier doctor"),
    counter(
        "crier_rows_total",
        &["state"],
        &[
            &["queued"],
            &["sending"],
            &["unknown"],
            &["held"],
            &["accepted"],
            &["sent"],
            &["failed"],
            &["rejected"],
            &["expired"],
            &["cancelled"],
            &["invalid"],
            &["duplicate"],
            &["suppressed"],
        ],
        "Rows that entered a state by the doing of this process",
    ),
    counter(
        "crier_rows_refused_total",
        &["code"],
        &[&["invalid_number"]],
        "Rows that can't be sent as they are written, by the code in NAME.rejected.csv",
    ),
    counter("crier_files_total", &["result"], &[&["launched"], &["refused"]], "Dropped files by what became of them"),
    counter(
        "crier_gateway_requests_total",
        &["operation", "outcome"],
        &[
            &["token", "ok"],
            &["send", "ok"],
            &["bulk_send", "ok"],
            &["list", "ok"],
            &["detail", "ok"],
            &["senders", "ok"],
        ],
        "Gateway calls by what they asked and how they ended",
    ),
    counter("crier_gateway_throttled_total", &[], NO_LABELS, "Gateway calls that were answered 429"),
    Metric {
        name: "crier_gateway_request_seconds",
        kind: Kind::Histogram(CALL_SECONDS),
        help: "How long gateway calls took",
        labels: &["operation"],
        begin_with: &[&["send"], &["bulk_send"], &["list"]],
    },
    Metric {
        name: "crier_row_queued_to_sent_seconds",
        kind: Kind::Histogram(ROW_SECONDS),
        help: "From when a row was queued, or due, to the gateway's status sent",
        labels: &[],
        begin_with: NO_LABELS,
    },
];
