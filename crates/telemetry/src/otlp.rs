//! The export of spans to an OpenTelemetry collector: OTLP over HTTP, as JSON.
//!
//! Written out instead of had from the OpenTelemetry crates: what is told are three kinds of spans without context, and those
//! would bring a second way of serving, a second HTTP client's features and a code generator for it.

use crate::spans::{self, Finished};
use std::{
    fmt::Write,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often what has ended is sent.
const EVERY: Duration = Duration::from_secs(2);

/// Spans of one request.
const SPANS_A_REQUEST: usize = 512;

/// How long a collector may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Sends spans to the collector at this base URL until `stop`, then those that are left. A collector that is away costs the
/// spans, nothing else. `service`: what this process is, in a word.
pub async fn export(endpoint: String, service: &'static str, stop: impl Future<Output = ()>) {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none()).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return tracing::warn!(%error, "no traces are sent: there is no HTTP client"),
    };
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    spans::keep();
    let mut stop = pin!(stop);
    let mut every = tokio::time::interval(EVERY);
    let mut troubled = false;
    loop {
        let last = tokio::select! {
            () = &mut stop => true,
            _ = every.tick() => false,
        };
        loop {
            let (spans, dropped) = spans::take(SPANS_A_REQUEST);
            if spans.is_empty() {
                break;
            }
            if dropped > 0 {
                tracing::warn!(dropped, "spans were dropped: the collector is too slow");
            }
            let sent = client.post(&url).header("content-type", "application/json").body(body(&spans, service)).send();
            let sent = sent.await.and_then(reqwest::Response::error_for_status).map_err(reqwest::Error::without_url);
            match sent {
                Ok(_) => troubled = false,
                Err(error) if troubled => tracing::debug!(%error, "traces still can't be sent"),
                Err(error) => {
                    tracing::warn!(%error, "traces can't be sent; those of this time are lost");
                    troubled = true;
                }
            }
            if troubled {
                break;
            }
        }
        if last {
            return;
        }
    }
}

/// An `ExportTraceServiceRequest`. Every word is static and has no character that JSON would escape.
///
/// Source: opentelemetry-proto, `trace/v1/trace.proto`; ids in hex and times as strings, as "OTLP/HTTP" says of JSON.
fn body(spans: &[Finished], service: &'static str) -> String {
    let text = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
    let count = |key: &str, many: u64| format!(r#"{{"key":"{key}","value":{{"intValue":"{many}"}}}}"#);
    let ids = RandomState::new();
    let mut json = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{},{},{},{}]}},"scopeSpans":[{{"scope":{{"name":"crier"}},"spans":["#,
        text("service.name", "crier"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("crier.service", service),
        count("process.pid", u64::from(std::process::id())),
    );
    for (n, span) in spans.iter().enumerate() {
        let id = |part: u8| ids.hash_one((n, part)).max(1);
        let attributes = span.counts.iter().map(|(what, many)| count(what, *many));
        let attributes: Vec<_> = attributes.chain([text("outcome", span.outcome)]).collect();
        // 1: what happens inside; 3: a call to somebody else.
        let kind = if span.name == "load file" { 1 } else { 3 };
        // 2: an error.
        let status = if span.outcome == "failed" { r#"{"code":2}"# } else { "{}" };
        _ = write!(
            json,
            r#"{}{{"traceId":"{:016x}{:016x}","spanId":"{:016x}","name":"{}","kind":{kind},"startTimeUnixNano":"{}","endTimeUnixNano":"{}","attributes":[{}],"status":{status}}}"#,
            if n == 0 { "" } else { "," },
            id(0),
            id(1),
            id(2),
            span.name,
            nanos(span.began),
            nanos(span.ended),
            attributes.join(","),
        );
    }
    json.push_str("]}]}]}");
    json
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
