//! What must not grow with a campaign, and who waits for whom.

use crate::{
    Sizes,
    bench::{Bench, LONG, Place, bytes, ended_children, peaks_mb, unlimited},
};
use std::{
    fs,
    time::{Duration, Instant},
};
use testbed::{Process, Signal, eventually};

/// Processor time a recipient and memory of a worker and a reconciler, for a tenth and for all of the recipients.
pub(crate) fn growth(sizes: Sizes) {
    for place in [Place::redis as fn() -> Place, Place::servers] {
        for recipients in [sizes.recipients / 10, sizes.recipients] {
            let bench = Bench::start(place(), &unlimited()).set("RECONCILE__FIRST_LOOK", "2s");
            bench.one_text("sale.csv", recipients);
            bench.done(bench.crier(&["ingest", "sale.csv"]));
            // Here, since asking whether the reconciler runs is what counts it among the ended.
            let before = ended_children();
            let (worker, reconciler) = (bench.crier(&["worker"]), bench.crier(&["reconciler", "--drain"]));
            let mut peaks = vec![0.0; 2];
            let mut reconciler = reconciler;
            let began = Instant::now();
            while reconciler.is_running() {
                let now = peaks_mb(&[&worker, &reconciler]);
                peaks = peaks.iter().zip(&now).map(|(a, b): (&f64, &f64)| a.max(*b)).collect();
                std::thread::park_timeout(Duration::from_millis(20));
            }
            let took = began.elapsed();
            bench.drained(reconciler, vec![worker]);
            let cpu = ended_children().saturating_sub(before);
            println!(
                "growth    {}: {recipients} recipients: {:.4} ms of CPU for each, {:.4} calls, peak {:.0} MB (worker) and {:.0} MB \
                 (reconciler), in {:.1} s{}",
                bench.place.name(),
                cpu.as_secs_f64() * 1e3 / f64::from(recipients),
                bench.calls() as f64 / f64::from(recipients),
                peaks[0],
                peaks[1],
                took.as_secs_f64(),
                match bytes(&bench.dir.path().join("bench.db")) {
                    0 => String::new(),
                    bytes => format!(", {} bytes of ledger for each", bytes / u64::from(recipients)),
                }
            );
        }
    }
}

/// The most memory that Redis has used while a campaign was sent, for a tenth and for all of the recipients.
pub(crate) fn redis(sizes: Sizes) {
    for recipients in [sizes.recipients / 10, sizes.recipients] {
        let bench = Bench::start(Place::redis(), &unlimited()).set("RECONCILE__FIRST_LOOK", "2s");
        let Place::Redis(redis) = &bench.place else { continue };
        bench.one_text("sale.csv", recipients);
        bench.done(bench.crier(&["ingest", "sale.csv"]));
        let before = redis.used_memory();
        let worker = bench.crier(&["worker"]);
        let mut most = 0;
        eventually("everything is sent", LONG, || {
            most = most.max(redis.used_memory());
            bench.accepted() >= u64::from(recipients)
        });
        drop(worker);
        println!(
            "redis     {recipients} recipients: {} kB more than empty at most",
            most.saturating_sub(before) / 1024
        );
    }
}

/// A small urgent campaign while a large one is sent; then two that are equal.
pub(crate) fn fair(sizes: Sizes) {
    urgent(sizes);
    equal(sizes);
}

/// How many rows of a campaign are in these states.
fn rows_in(bench: &Bench, name: &str, states: &[&str]) -> u64 {
    let summary = bench.done(bench.crier(&["status", name, "--json"]));
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("status prints JSON");
    states.iter().filter_map(|state| summary[0]["states"][state].as_u64()).sum()
}

/// How much of each of two equal campaigns is out when half of both is.
fn equal(sizes: Sizes) {
    let bench = Bench::start(Place::servers(), &unlimited());
    let rows = u64::from(sizes.recipients);
    for (name, add) in [("first", 0), ("second", 1)] {
        let file = format!("{name}.csv");
        bench.file(&file, sizes.recipients, |n, number| {
            format!("{},ACME,Our sale starts on Friday.,{name}-{n}", number + add)
        });
        bench.done(bench.crier(&["ingest", &file]));
    }
    let mut worker = bench.crier(&["worker"]);
    eventually("half of both is out", LONG, || bench.accepted() >= rows);
    worker.signal(Signal::Term);
    bench.done(worker);
    let out = ["first", "second"].map(|name| rows - rows_in(&bench, name, &["queued"]));
    println!("fair      two equal campaigns of {rows}: {} and {} rows were out when half of both was", out[0], out[1]);
}

fn urgent(sizes: Sizes) {
    let bench = Bench::start(Place::servers(), &unlimited());
    let large = sizes.recipients * 10;
    bench.one_text("large.csv", large);
    bench.done(bench.crier(&["ingest", "large.csv"]));
    bench.file("urgent.csv", 50, |n, number| format!("{},CRIER,Your table is free.,urgent-{n}", number + 1));
    let worker = bench.crier(&["worker"]);
    eventually("the large one is being sent", LONG, || bench.accepted() > 0);
    let began = Instant::now();
    bench.done(bench.crier(&["ingest", "urgent.csv", "--priority", "high"]));
    let loaded = began.elapsed();
    // Asked of the ledger now and then: the book does not tell one sender's texts from another's.
    eventually("the urgent one is sent", LONG, || rows_in(&bench, "urgent", &["queued", "sending"]) == 0);
    let (took, of_large) = (began.elapsed(), bench.accepted());
    println!(
        "fair      50 urgent rows beside {large}: sent {:.2} s after their launch began (loading took {:.2} s), when {of_large} texts were out",
        took.as_secs_f64(),
        loaded.as_secs_f64()
    );
    drop(worker);
}

/// From a file that is dropped to its first gateway call, over Redis.
pub(crate) fn drop_to_call(sizes: Sizes) {
    let bench = Bench::start(Place::redis(), &unlimited());
    let mut services: Vec<Process> = vec![bench.crier(&["worker"]), bench.crier(&["ingest", "--watch", "drop"])];
    let inbox = bench.dir.path().join("drop/inbox");
    eventually("the watcher has made its folders", LONG, || inbox.is_dir());
    let mut waits: Vec<Duration> = Vec::new();
    for n in 0..sizes.drops + 2 {
        let staged = bench.dir.path().join("staged.csv");
        let rows = format!("destination,sender,text\n4475{n:08},ACME,Drop {n}\n4474{n:08},ACME,Drop {n}\n");
        fs::write(&staged, rows).expect("the bench may write its file");
        let began = Instant::now();
        fs::rename(&staged, inbox.join(format!("drop-{n}.csv"))).expect("the inbox is on the same disk");
        eventually("the file's first gateway call", LONG, || bench.accepted() >= u64::from(n + 1) * 2);
        // The first two start everything up.
        if n >= 2 {
            waits.push(began.elapsed());
        }
    }
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64();
    println!("drop      {} files over Redis: first call after p50 {:.3} s, p99 {:.3} s", waits.len(), at(50), at(99));
    services.clear();
}
