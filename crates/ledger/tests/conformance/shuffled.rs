//! Any order of calls, from two connections in turn: both databases give the same answers and come to the same rows, and
//! what must hold holds after each.
//!
//! A failing trace is shrunk. A run makes the same traces each time; `TRACE_SEED=n` makes others, `TRACE_CASES=n` more of them.

mod asked;
mod world;

use crate::Bench;
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};
use world::World;

/// Steps of one trace.
const STEPS: usize = 40;

/// One call of the ledger; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Call {
    /// All the way of a chunk, from the queue to an outcome of each of its batches.
    Through(usize, usize),
    Feed(usize),
    Claim(usize),
    Start(usize),
    Record(usize, usize),
    TakeBack(usize),
    Finish(usize),
    EndOwner,
    SweepOwners,
    List(Vec<(usize, usize)>, bool),
    Look(usize, bool),
    Settle,
    Hold(usize),
    Resend(usize),
    Window(usize),
    Details(usize),
    Detail(usize, usize),
    Decide(usize, usize),
    DecideAll(usize, usize),
    Pause(usize),
    Resume(usize),
    Cancel(usize),
    SweepCancelled(Option<usize>),
    SweepExpired,
    Reschedule(usize, i64, i64),
    Retry(usize),
    SenderRate(usize),
    OptOut(u64, bool),
    OptIn(u64, bool),
    Inbound(u64, usize),
    Purge,
    Wait(i64),
    /// Reads everything that can be asked.
    Ask(usize),
}

/// A call, and which of the two connections makes it.
#[derive(Clone, Debug)]
struct Step {
    hand: usize,
    call: Call,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..8_usize;
    let call = prop_oneof![
        8 => (n(), 0..8_usize).prop_map(|(a, b)| Call::Through(a, b)),
        3 => n().prop_map(Call::Feed),
        3 => n().prop_map(Call::Claim),
        3 => n().prop_map(Call::Start),
        3 => (n(), 0..8_usize).prop_map(|(a, b)| Call::Record(a, b)),
        1 => n().prop_map(Call::TakeBack),
        3 => n().prop_map(Call::Finish),
        1 => Just(Call::EndOwner),
        1 => Just(Call::SweepOwners),
        4 => (prop::collection::vec((0..8_usize, 0..4_usize), 1..5), any::<bool>()).prop_map(|(a, b)| Call::List(a, b)),
        1 => (n(), any::<bool>()).prop_map(|(a, b)| Call::Look(a, b)),
        2 => Just(Call::Settle),
        2 => n().prop_map(Call::Hold),
        2 => n().prop_map(Call::Resend),
        1 => n().prop_map(Call::Window),
        1 => n().prop_map(Call::Details),
        2 => (n(), 0..5_usize).prop_map(|(a, b)| Call::Detail(a, b)),
        2 => (n(), 0..3_usize).prop_map(|(a, b)| Call::Decide(a, b)),
        1 => (n(), 0..3_usize).prop_map(|(a, b)| Call::DecideAll(a, b)),
        1 => n().prop_map(Call::Pause),
        2 => n().prop_map(Call::Resume),
        1 => n().prop_map(Call::Cancel),
        1 => prop::option::of(n()).prop_map(Call::SweepCancelled),
        1 => Just(Call::SweepExpired),
        1 => (n(), 0..3_i64, 0..3_i64).prop_map(|(a, b, c)| Call::Reschedule(a, b, c)),
        2 => n().prop_map(Call::Retry),
        2 => (0..3_usize).prop_map(Call::SenderRate),
        2 => (1..4_u64, any::<bool>()).prop_map(|(a, b)| Call::OptOut(a, b)),
        3 => (1..4_u64, any::<bool>()).prop_map(|(a, b)| Call::OptIn(a, b)),
        2 => (1..4_u64, 0..4_usize).prop_map(|(a, b)| Call::Inbound(a, b)),
        1 => Just(Call::Purge),
        4 => prop_oneof![3 => 1..10_i64, 1 => 50..100_i64].prop_map(Call::Wait),
        3 => n().prop_map(Call::Ask),
    ];
    prop::collection::vec((0..2_usize, call).prop_map(|(hand, call)| Step { hand, call }), STEPS)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes a trace on both databases, step by step, and compares what each says and has.
async fn compare(worlds: &mut [World; 2], steps: &[Step], at: &Cell<usize>) {
    let [postgres, sqlite] = worlds;
    tokio::join!(postgres.begin(), sqlite.begin());
    for (n, step) in steps.iter().enumerate() {
        at.set(n);
        let said = tokio::join!(postgres.step(step.hand, &step.call), sqlite.step(step.hand, &step.call));
        assert_eq!(said.0, said.1, "step {n}, {step:?}, says something else on each database");
        let pictures = tokio::join!(postgres.bench.picture(), sqlite.bench.picture());
        assert_eq!(pictures.0, pictures.1, "step {n}, {step:?}, makes other rows on each database");
    }
    let said = tokio::join!(postgres.step(0, &Call::Ask(0)), sqlite.step(1, &Call::Ask(0)));
    assert_eq!(said.0, said.1, "what is there at the end is told otherwise by each database");
}

#[test]
fn any_order_of_calls_gives_the_same_answers_and_rows_on_both_databases() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // What happened can't be emptied out of SQLite: it gets a file for each trace.
    let kept: Cell<Option<World>> = Cell::new(None);
    let seed = number("TRACE_SEED").unwrap_or(1);
    let cases = number("TRACE_CASES").map_or(24, |cases| u32::try_from(cases).unwrap_or(u32::MAX));
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 60_000, // ms: a failure is printed before the test's time is over
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::with_cases(cases)
    };
    let at = Cell::new(0);
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let mut worlds = runtime.block_on(async {
            let postgres = match kept.take() {
                Some(postgres) => postgres,
                None => World::on(Bench::postgres().await).await,
            };
            [postgres, World::on(Bench::sqlite().await).await]
        });
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(compare(&mut worlds, &steps, &at))));
        match result {
            Ok(()) => {
                let [postgres, _] = worlds;
                kept.set(Some(postgres));
                Ok(())
            }
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Err(TestCaseError::fail(format!("at step {}: {words}", at.get())))
            }
        }
    });
    if let Err(failure) = outcome {
        panic!("TRACE_SEED={seed}: {failure}");
    }
}
