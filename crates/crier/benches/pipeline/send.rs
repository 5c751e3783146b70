//! Sending and confirming without a limit, against a bare loop of the same calls.

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
    for place in [Place::Embedded, Place::servers()] {
        let fired = limits::bare_calls(&Bench::start(Place::Embedded, &unlimited()), recipients);
        let bench = Bench::start(place, &unlimited()).set("RECONCILE__FIRST_LOOK", "2s");
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
        report(&bench, recipients, &fired, sent, confirmed, &used);
    }
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

fn report(bench: &Bench, recipients: u32, fired: &limits::Fired, sent: Duration, confirmed: Duration, used: &[Used]) {
    let cpu: Duration = used.iter().map(|used| used.cpu).sum();
    let peak = used.iter().map(|used| used.peak_mb).fold(0.0, f64::max);
    let all = fired.sends + fired.pages;
    println!(
        "send      {}: {recipients} recipients sent in {:.2} s, {:.0}/s = {:.2} of the bare {:.0}/s",
        bench.place.name(),
        sent.as_secs_f64(),
        rate(recipients, sent),
        fired.sends.as_secs_f64() / sent.as_secs_f64(),
        rate(recipients, fired.sends),
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
