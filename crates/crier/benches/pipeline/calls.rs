//! Gateway calls, which are the scarce thing: for each recipient, against the limit in time, against what the plan said.

use crate::{
    Sizes,
    bench::{Bench, LONG, Place, measured, unlimited},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testbed::Process;

/// Calls for each confirmed recipient, in the situations that differ.
pub(crate) fn scenarios(sizes: Sizes) {
    let with_delivery = |ms: u64| {
        let mut config = unlimited();
        config["delivery_min_ms"] = json!(100);
        config["delivery_max_ms"] = json!(ms);
        config
    };
    let many = |bench: &Bench, rows: u32| {
        const SENDERS: [&str; 3] = ["ACME", "CRIER", "447520602706"];
        bench.file("sale.csv", rows, |n, number| {
            let (sender, text) = (SENDERS[n as usize % 3], n / 3 % 5);
            format!("{number},{sender},This is text {text} of our spring sale.,order-{n}")
        });
    };
    let one = |bench: &Bench, rows: u32| bench.one_text("sale.csv", rows);
    type Scenario<'a> = (&'a str, u64, &'a str, &'a dyn Fn(&Bench, u32));
    let scenarios: [Scenario<'_>; 3] = [
        ("one text", 2_000, "3s", &one),
        ("5 texts, 3 senders", 2_000, "3s", &many),
        ("delivery takes up to 60 s", 60_000, "10s", &one),
    ];
    for (name, delivery_ms, first_look, make) in scenarios {
        let bench = Bench::start(Place::Embedded, &with_delivery(delivery_ms)).set("RECONCILE__FIRST_LOOK", first_look);
        make(&bench, sizes.recipients);
        measured(bench.crier(&["run", "sale.csv"]));
        let calls = bench.calls();
        println!(
            "calls     {name}: {} recipients, {:.4} calls for each (0.11 is the least)",
            sizes.recipients,
            calls as f64 / f64::from(sizes.recipients)
        );
    }
}

/// The limit of the scaled-down window.
const LIMIT: u32 = 1_200;

/// A minute of the gateway's, scaled down.
const WINDOW: Duration = Duration::from_millis(WINDOW_MS);
const WINDOW_MS: u64 = 5_000;

fn limited() -> Value {
    json!({
        "rate_limit": LIMIT, "rate_window_ms": WINDOW_MS, "delivery_min_ms": 0, "delivery_max_ms": 100,
    })
}

/// A campaign at the limit of calls, by three workers and a reconciler.
pub(crate) fn window(sizes: Sizes) {
    // What begins and ends a campaign weighs little in a large one only.
    let recipients = sizes.recipients * 10;
    let bench = Bench::start(Place::servers(), &limited())
        .set("GATEWAY__CALLS_PER_WINDOW", &LIMIT.to_string())
        .set("GATEWAY__WINDOW", &format!("{WINDOW_MS}ms"))
        .set("RECONCILE__FIRST_LOOK", "2s");
    bench.one_text("sale.csv", recipients);
    bench.done(bench.crier(&["ingest", "sale.csv"]));
    let began = Instant::now();
    let mut workers: Vec<Process> = (0..3).map(|_| bench.crier(&["worker"])).collect();
    let reconciler = bench.crier(&["reconciler", "--drain"]);
    bench.drained(reconciler, std::mem::take(&mut workers));
    let took = began.elapsed();
    let least_calls = recipients.div_ceil(100) + recipients.div_ceil(10);
    let least = WINDOW * ((least_calls - 1) / LIMIT);
    let book = bench.control("book");
    println!(
        "window    {recipients} recipients at {LIMIT} calls in {} s: {:.1} s = {:.3} of the least, {} s; {} calls over the limit, {} in all \
         ({least_calls} is the least)",
        WINDOW.as_secs(),
        took.as_secs_f64(),
        took.as_secs_f64() / least.as_secs_f64(),
        least.as_secs(),
        book["throttled"],
        bench.calls(),
    );
}

/// What `plan` says of a file, and what sending it took.
pub(crate) fn plan(sizes: Sizes) {
    let recipients = sizes.recipients * 5;
    let bench = Bench::start(Place::Embedded, &limited())
        .set("GATEWAY__CALLS_PER_WINDOW", &LIMIT.to_string())
        .set("GATEWAY__WINDOW", &format!("{WINDOW_MS}ms"))
        .set("RECONCILE__FIRST_LOOK", "2s");
    bench.one_text("sale.csv", recipients);
    let plan = bench.crier(&["plan", "sale.csv", "--json"]).wait(LONG).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap_or_else(|error| panic!("{error} in {plan}"));
    let before = bench.calls();
    let used = measured(bench.crier(&["run", "sale.csv"]));
    let (calls, seconds) = (bench.calls() - before, used.wall.as_secs_f64());
    let planned = |what: &str| plan["plan"][what].as_f64().unwrap_or_else(|| panic!("a plan says {what}: {plan}"));
    let (planned, planned_s) = (planned("calls_total"), planned("seconds_alone"));
    println!(
        "plan      {recipients} recipients: {planned} calls and {planned_s} s planned, {calls} calls ({:+.1} %) and {seconds:.1} s ({:+.1} %) taken",
        (calls as f64 / planned - 1.0) * 100.0,
        (seconds / planned_s - 1.0) * 100.0,
    );
}
