//! What an operator sees of running services: metrics, health, and what systemd is told.

use crate::harness::{Collector, DEADLINE, Mailing, Notified, Production, Service, Signal, eventually};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn services_show_every_metric_and_no_number_text_sender_or_campaign() {
    let mut production = Production::new(&json!({}));
    let collector = Collector::start();
    production.set("TELEMETRY__OTLP_ENDPOINT", &collector.endpoint);
    production.place.sandbox.faults(&json!([
        {"operation": "bulk_send", "fault": "process_part", "times": 1},
        {"operation": "bulk_send", "fault": "throttle", "ms": 500, "retry_after_s": 1, "after": 3, "times": 1},
    ]));
    let folder = production.folder();
    let watch = ["ingest", "--watch", folder.to_str().expect("a plain name")];
    let start = |args: &[&str]| Service::start(&production.crier, args);
    let services = [start(&["worker"]), start(&["reconciler"]), start(&watch)];
    let inbox = folder.join("inbox");
    eventually("the watcher makes its inbox", DEADLINE, || inbox.is_dir());
    let mailing = Mailing::of(2_000, 5);
    production.drop_in("canary-spring.csv", &mailing.csv);
    let account = production.account("canary-spring", &mailing);
    assert!(account.held > 0 && account.failed > 0, "{account:?}");

    for service in &services {
        let (status, text) = service.get("metrics");
        assert_eq!(status, 200);
        for metric in telemetry::CATALOGUE {
            let kind = text.lines().any(|line| line.starts_with(&format!("# TYPE {} ", metric.name)));
            let shown = text.lines().any(|line| line.starts_with(metric.name));
            assert!(kind && shown, "{} is not shown:\n{text}", metric.name);
        }
        let leak = text
            .lines()
            .find(|line| Mailing::is_in(line) || ["canary", "spring", "ACME"].iter().any(|word| line.contains(word)));
        assert_eq!(leak, None);
        assert_eq!(service.metric("crier_ready", ""), Some(1.0));
        assert_eq!(service.get("livez").0, 200);
        let asked = production.crier.clone().set("METRICS__LISTEN", &service.address);
        asked.expect(0, ["doctor", "--live"]);
        assert!(asked.expect(0, ["doctor", "--ready"]).contains("ok   schema: current"));
    }
    let [worker, reconciler, watcher] = &services;
    let value = |service: &Service, name: &str, labels: &str| service.metric(name, labels).expect("it is shown");
    let sendable = mailing.valid.len() as f64;
    assert!(value(worker, "crier_rows_total", "\"sending\"") >= sendable);
    assert!(value(worker, "crier_gateway_requests_total", "\"bulk_send\"") >= sendable / 100.0);
    assert!(value(worker, "crier_gateway_throttled_total", "") >= 1.0);
    assert!(value(worker, "crier_gateway_request_seconds_count", "\"bulk_send\"") >= sendable / 100.0);
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let (sent, held) = (account.sent as f64, account.held as f64);
    assert_eq!(value(reconciler, "crier_rows_total", "\"sent\""), sent);
    assert_eq!(value(reconciler, "crier_rows_total", "\"held\""), held);
    assert!(value(reconciler, "crier_row_queued_to_sent_seconds_count", "") > 0.0);
    assert!(value(reconciler, "crier_token_left_seconds", "") > 0.0);
    assert!(value(reconciler, "crier_budget_calls_left", "") > 0.0);
    assert_eq!(value(watcher, "crier_files_total", "\"launched\""), 1.0);
    assert_eq!(value(watcher, "crier_rows_refused_total", ""), 2.0, "rows whose number can't be");
    // What the ledger tells, everybody shows.
    for service in &services {
        assert_eq!(value(service, "crier_rows_held", ""), held);
        assert_eq!(value(service, "crier_queue_rows", ""), 0.0);
        for kind in ["worker", "reconciler", "ingest"] {
            assert_eq!(value(service, "crier_processes", &format!("\"{kind}\"")), 1.0);
        }
    }
    let told = [("worker", "send batch"), ("reconciler", "read list"), ("ingest", "load file")];
    eventually("each service tells of its spans", DEADLINE, || {
        let spans = spans(&collector);
        told.iter().all(|(service, name)| spans.iter().any(|span| (&*span.service, &*span.name) == (service, name)))
            && spans.iter().filter(|span| span.name == "send batch").map(|span| span.count).sum::<f64>() >= sendable
    });
    let spans = spans(&collector);
    assert!(spans.iter().any(|span| span.outcome == "unknown") && spans.iter().any(|span| span.outcome == "accepted"));
    assert!(spans.iter().all(|span| told.contains(&(&*span.service, &*span.name))), "{spans:?}");
    for (path, body) in collector.heard() {
        assert_eq!(path, "/v1/traces");
        let body = body.to_string();
        assert!(
            !Mailing::is_in(&body) && !["canary", "spring", "ACME"].iter().any(|word| body.contains(word)),
            "{body}"
        );
    }
}

/// A span as the collector heard of it.
#[derive(Debug)]
struct Heard {
    service: String,
    name: String,
    /// The first of its counts.
    count: f64,
    outcome: String,
}

fn spans(collector: &Collector) -> Vec<Heard> {
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let attribute = |of: &Value, key: &str| {
        let attributes = list(&of["attributes"]);
        let found = attributes.iter().find(|attribute| attribute["key"] == key).expect("it is there");
        found["value"]["stringValue"].as_str().expect("a text").to_owned()
    };
    let mut heard = Vec::new();
    for (_, body) in collector.heard() {
        for resource in list(&body["resourceSpans"]) {
            let service = attribute(&resource["resource"], "crier.service");
            assert_eq!(attribute(&resource["resource"], "service.name"), "crier");
            for span in list(&resource["scopeSpans"][0]["spans"]) {
                let text = |key: &str| span[key].as_str().expect("a text").to_owned();
                let hex = |key: &str| text(key).bytes().filter(u8::is_ascii_hexdigit).count();
                assert_eq!((hex("traceId"), hex("spanId")), (32, 16), "{span}");
                let nanos = |key: &str| text(key).parse::<u64>().expect("nanoseconds");
                assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
                let count = span["attributes"][0]["value"]["intValue"]
                    .as_str()
                    .map_or(0.0, |count| count.parse().expect("a number"));
                heard.push(Heard {
                    service: service.clone(),
                    name: text("name"),
                    count,
                    outcome: attribute(&span, "outcome"),
                });
            }
        }
    }
    heard
}

#[test]
fn a_service_is_ready_while_all_that_it_needs_is_there_and_it_is_not_asked_to_end() {
    let mut production = Production::on_its_own_postgres(&json!({}));
    production.place.sandbox.faults(&json!([{"operation": "send", "fault": "delay", "ms": 4000}]));
    let mut worker = Service::start(&production.crier, &["worker"]);
    worker.wait_for("readyz", 200, "ok   token: at hand");
    production.redis.stop();
    worker.wait_for("readyz", 503, "FAIL queue");
    let asked = production.crier.clone().set("METRICS__LISTEN", &worker.address);
    assert!(asked.expect(1, ["doctor", "--ready"]).contains("FAIL queue"));
    production.redis.resume();
    worker.wait_for("readyz", 200, "ok   queue");
    let postgres = production.postgres.as_mut().expect("it has its own");
    postgres.stop();
    worker.wait_for("readyz", 503, "FAIL ledger");
    // What is down is waited for: the loops go on turning.
    assert_eq!(worker.get("livez").0, 200);
    postgres.resume();
    worker.wait_for("readyz", 200, "ok   ledger");

    // A text is on its way: the worker ends when its answer is there, and says meanwhile that it ends.
    let file = production.place.file("one.csv", "destination,sender,text\n07400000001,ACME,Hi\n");
    production.crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);
    eventually("the text is on its way", DEADLINE, || worker.metric("crier_attempts_open", "\"sending\"") == Some(1.0));
    worker.process.signal(Signal::Term);
    worker.wait_for("readyz", 503, "FAIL draining");
    assert_eq!(worker.get("livez").0, 200);
    let ended = worker.process.wait(DEADLINE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A worker under something that listens like systemd, which wants to hear of it every second.
fn notifying(production: &Production, stuck_after: &str) -> (Notified, Service) {
    let notified = Notified::at(production.place.dir.path().join("notify"));
    let crier = production.crier.clone().set("METRICS__STUCK_AFTER", stuck_after);
    let crier = crier.env("NOTIFY_SOCKET", &notified.path).env("WATCHDOG_USEC", "1000000");
    let service = Service::start(&crier, &["worker"]);
    (notified, service)
}

#[test]
fn systemd_hears_that_a_service_is_ready_that_its_loops_turn_and_that_it_ends() {
    let production = Production::new(&json!({}));
    let (notified, mut worker) = notifying(&production, "4s");
    let before = notified.until("READY=1");
    assert!(before.last().is_some_and(|message| message.contains("STATUS=works")), "{before:?}");
    for _ in 0..3 {
        notified.until("WATCHDOG=1");
    }
    // The ledger takes the question and does not answer: the loops that asked are stuck.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut session = runtime.block_on(async {
        use sqlx::{Connection, Executor};
        let mut session = sqlx::PgConnection::connect(&production.database.url()).await.expect("it is there");
        session.execute("BEGIN; LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE").await.expect("it can be locked");
        session
    });
    worker.wait_for("livez", 503, "FAIL feeder");
    notified.forget();
    let heard = notified.next(Duration::from_secs(2));
    assert_eq!(heard, None, "a service that is stuck sends no WATCHDOG=1");
    runtime.block_on(async {
        use sqlx::Executor;
        session.execute("ROLLBACK").await.expect("it can be unlocked");
    });
    notified.until("WATCHDOG=1");
    worker.wait_for("livez", 200, "ok   feeder");
    worker.process.signal(Signal::Term);
    notified.until("STOPPING=1");
    assert_eq!(worker.process.wait(DEADLINE).code, Some(0));
}

#[test]
fn a_service_that_waits_for_what_is_down_is_neither_ready_nor_stuck() {
    let mut production = Production::on_its_own_postgres(&json!({}));
    production.redis.stop();
    let (notified, worker) = notifying(&production, "12s");
    let waiting = notified.until("STATUS=waits for start: the queue can't be reached");
    assert!(
        waiting.iter().all(|message| message.contains("EXTEND_TIMEOUT_USEC") || message == "WATCHDOG=1\n"),
        "{waiting:?}"
    );
    assert!(worker.get("readyz").1.contains("FAIL start: the queue can't be reached"));
    production.redis.resume();
    let before = notified.until("READY=1");
    assert!(!before.iter().rev().skip(1).any(|message| message.contains("READY=1")), "{before:?}");
    production.postgres.as_mut().expect("it has its own").stop();
    notified.forget();
    // Longer than it takes to be stuck, in half seconds.
    let mut beats = 0;
    while beats < 28 {
        let message = notified.next(Duration::from_secs(3)).expect("a service whose ledger is down is not stuck");
        beats += u32::from(message.contains("WATCHDOG=1"));
    }
}
