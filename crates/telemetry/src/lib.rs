//! What a service tells of itself: every metric in one table, with its unit and its labels, the pulses of its loops, and, with
//! the feature `otlp`, what took how long.
//!
//! Guarantee: a label's value is one of a few words of ours; no number, text, campaign or sender can become one, since only
//! static words are taken. Counting costs a lock and a look into a map, once for a batch or a call.
//!
//! Deliberately not here: serving what was counted (the binary does), and any client of a metrics system: what is counted is
//! so little that the Prometheus text is simpler written than had from a library.

mod catalogue;
#[cfg(feature = "otlp")]
mod otlp;
mod pulse;
mod registry;
mod spans;

pub use catalogue::{CATALOGUE, Kind, Metric};
#[cfg(feature = "otlp")]
pub use otlp::export;
pub use pulse::Pulse;
pub use registry::{render, set, unset};
pub use spans::{Span, span};

use std::time::Duration;

/// Whether this program can send traces: it was built with the feature `otlp`.
pub const CAN_EXPORT: bool = cfg!(feature = "otlp");

/// Sends nothing: this program was built without the feature `otlp`.
#[cfg(not(feature = "otlp"))]
pub async fn export(_endpoint: String, _service: &'static str, stop: impl Future<Output = ()>) {
    stop.await;
}

/// Rows entered a state.
pub fn rows_became(state: &'static str, rows: u64) {
    if rows > 0 {
        registry::add("crier_rows_total", &[state], rows);
    }
}

/// Rows of a file can't be sent as they are written.
pub fn rows_refused(code: &'static str, rows: u64) {
    registry::add("crier_rows_refused_total", &[code], rows);
}

/// A file came to its end: `launched` or `refused`.
pub fn file_ended(result: &'static str) {
    registry::add("crier_files_total", &[result], 1);
}

/// A gateway call ended.
pub fn gateway_called(operation: &'static str, outcome: &'static str, took: Duration) {
    registry::add("crier_gateway_requests_total", &[operation, outcome], 1);
    registry::observe("crier_gateway_request_seconds", &[operation], [took.as_secs_f64()]);
    if outcome == "throttled" {
        registry::add("crier_gateway_throttled_total", &[], 1);
    }
}

/// Rows are `sent`, each so long after it could have been.
pub fn rows_sent_after(waited: impl Iterator<Item = Duration>) {
    registry::observe("crier_row_queued_to_sent_seconds", &[], waited.map(|waited| waited.as_secs_f64()));
}
