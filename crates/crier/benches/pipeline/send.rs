//! Sending and confirming without a limit, against a bare loop of the same calls.
//!
//! Three times are taken. Sending alone, while nobody reads the list, is compared with the bare sends. The whole way, from the start
//! of the processes to the last status in the ledger, is compared with the bare sends and then the bare pages. Of the whole way it
//! is also told when the last text was out, while the list was read beside.

use crate::{
    Sizes,
    bench::{Bench, Place, Used, measured, rate, unlimited},
    limits,
};
use std::time::{Duration, Instant};
use testbed::eventually;

/// One process with SQLite; then a worker and a reconciler over Redis and Postgres.
pub(crate) fn both(sizes: Sizes) {
    let recipients = sizes.recipients;
    for place in [(|| Place::Embedded) as fn() -> Place, Place::servers] {
        let fired = limits::bare_calls(&Bench::start(Place::Embedded, &unlimited()), recipients);
        let alone = sent_alone(place(), recipients);
        let bench = Bench::start(place(), &unlimited()).set("RECONCILE__FIRST_LOOK", "2s");
        bench.one_text("sale.csv", recipients);
        bench.done(bench.crier(&["ingest", "sale.csv"]));
        let began = Instant::now();
        let (sent, used) = match bench.place {
            Place::Embedded => {
                let run = bench.crier(&["run", "sale.csv"]);
                let sent = sent(&bench, recipients, began);
                (sent, vec![measured(run)])
            }
            Place::Redis(_) | Place::Servers(_) => {
                let worker = bench.crier(&["worker"]);
                let reconciler = bench.crier(&["reconciler"]);
                let sent = sent(&bench, recipients, began);
                // A drain ends only what has nothing left to do: this one waits for the other's last status.
                let drain = bench.crier(&["reconciler", "--drain"]);
                let mut used = bench.drained(drain, vec![reconciler, worker]);
                used.remove(0);
                (sent, used)
            }
        };
        let confirmed = began.elapsed();
        report(&bench, recipients, &fired, [alone, sent, confirmed], &used);
    }
}

/// How long it takes to send while nobody reads the list.
fn sent_alone(place: Place, recipients: u32) -> Duration {
    let bench = Bench::start(place, &unlimited()).set("RECONCILE__FIRST_LOOK", "1h");
    bench.one_text("sale.csv", recipients);
    bench.done(bench.crier(&["ingest", "sale.csv"]));
    let began = Instant::now();
    let _works = match bench.place {
        // All stages are in it; its reconciler has an hour until its first look.
        Place::Embedded => bench.crier(&["run", "sale.csv"]),
        Place::Redis(_) | Place::Servers(_) => bench.crier(&["worker"]),
    };
    sent(&bench, recipients, began)
}

fn sent(bench: &Bench, recipients: u32, began: Instant) -> Duration {
    let mut at = Duration::ZERO;
    eventually("everything is sent", crate::bench::LONG, || {
        let all = bench.accepted() >= u64::from(recipients);
        at = began.elapsed();
        all
    });
    at
}

fn report(bench: &Bench, recipients: u32, fired: &limits::Fired, took: [Duration; 3], used: &[Used]) {
    let [alone, beside, confirmed] = took;
    let cpu: Duration = used.iter().map(|used| used.cpu).sum();
    let peak = used.iter().map(|used| used.peak_mb).fold(0.0, f64::max);
    let all = fired.sends + fired.pages;
    let of_bare = |took: Duration| fired.sends.as_secs_f64() / took.as_secs_f64();
    println!(
        "send      {}: {recipients} recipients sent in {:.2} s, {:.0}/s = {:.2} of the bare {:.0}/s; {:.0}/s = {:.2} while the list is read",
        bench.place.name(),
        alone.as_secs_f64(),
        rate(recipients, alone),
        of_bare(alone),
        rate(recipients, fired.sends),
        rate(recipients, beside),
        of_bare(beside),
    );
    println!(
        "confirm   {}: in {:.2} s, {:.0}/s = {:.2} of the bare {:.0}/s; {:.4} calls and {:.3} ms of CPU for each, peak {peak:.0} MB",
        bench.place.name(),
        confirmed.as_secs_f64(),
        rate(recipients, confirmed),
        all.as_secs_f64() / confirmed.as_secs_f64(),
        rate(recipients, all),
        bench.calls() as f64 / f64::from(recipients),
        cpu.as_secs_f64() * 1e3 / f64::from(recipients),
    );
}
