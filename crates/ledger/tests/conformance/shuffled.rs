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
    /// All the way of a chunk, from the queue to an outcome of each of its batches, and to rest if that is said.
    Through(usize, usize, bool),
    Feed(usize),
    Claim(usize),
    Start(usize),
    Record(usize, usize),
    TakeBack(usize),
    Finish(usize),
    EndOwner,
    SweepOwners,
    /// A reading of these of the texts that were sent, or else of any, and what it says of each.
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
    /// Until the very moment at which something is due: the next, or the one after it.
    WaitForDue(usize),
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
    // Half are taken.
    let outcome = || prop_oneof![1 => 0..2_usize, 2 => 0..8_usize];
    // A reading often says the same of all.
    let said = || prop_oneof![3 => 0..3_usize, 1 => Just(3)];
    let which = || prop_oneof![4 => 0..8_usize, 1 => 8..16_usize];
    let listed = || {
        prop_oneof![
            prop::collection::vec((which(), said()), 1..5),
            (prop::collection::vec(which(), 2..8), said())
                .prop_map(|(all, said)| all.into_iter().map(|one| (one, said)).collect()),
        ]
    };
    let call = prop_oneof![
        10 => (n(), outcome(), prop::bool::weighted(0.7)).prop_map(|(a, b, c)| Call::Through(a, b, c)),
        3 => n().prop_map(Call::Feed),
        3 => n().prop_map(Call::Claim),
        3 => n().prop_map(Call::Start),
        3 => (n(), outcome()).prop_map(|(a, b)| Call::Record(a, b)),
        1 => n().prop_map(Call::TakeBack),
        3 => n().prop_map(Call::Finish),
        1 => Just(Call::EndOwner),
        1 => Just(Call::SweepOwners),
        9 => (listed(), any::<bool>()).prop_map(|(a, b)| Call::List(a, b)),
        1 => (n(), any::<bool>()).prop_map(|(a, b)| Call::Look(a, b)),
        2 => Just(Call::Settle),
        2 => n().prop_map(Call::Hold),
        2 => n().prop_map(Call::Resend),
        1 => n().prop_map(Call::Window),
        1 => n().prop_map(Call::Details),
        2 => (n(), 0..5_usize).prop_map(|(a, b)| Call::Detail(a, b)),
        2 => (n(), 0..3_usize).prop_map(|(a, b)| Call::Decide(a, b)),
        1 => (n(), 0..3_usize).prop_map(|(a, b)| Call::DecideAll(a, b)),
        3 => n().prop_map(Call::Pause),
        4 => n().prop_map(Call::Resume),
        1 => n().prop_map(Call::Cancel),
        1 => prop::option::of(n()).prop_map(Call::SweepCancelled),
        3 => Just(Call::SweepExpired),
        1 => (n(), 0..3_i64, 0..3_i64).prop_map(|(a, b, c)| Call::Reschedule(a, b, c)),
        3 => n().prop_map(Call::Retry),
        5 => (0..3_usize).prop_map(Call::SenderRate),
        2 => (1..4_u64, any::<bool>()).prop_map(|(a, b)| Call::OptOut(a, b)),
        3 => (1..4_u64, any::<bool>()).prop_map(|(a, b)| Call::OptIn(a, b)),
        2 => (1..4_u64, 0..4_usize).prop_map(|(a, b)| Call::Inbound(a, b)),
        1 => Just(Call::Purge),
        3 => prop_oneof![3 => 1..10_i64, 1 => 50..100_i64].prop_map(Call::Wait),
        5 => (0..2_usize).prop_map(Call::WaitForDue),
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
        must_be_same(&said.0, &said.1, || format!("step {n}, {step:?}, says"));
        let pictures = tokio::join!(postgres.bench.picture(), sqlite.bench.picture());
        must_be_same(&pictures.0, &pictures.1, || format!("step {n}, {step:?}, writes"));
    }
    let said = tokio::join!(postgres.step(0, &Call::Ask(0)), sqlite.step(1, &Call::Ask(0)));
    must_be_same(&said.0, &said.1, || "what is asked at the end says".to_owned());
}

/// Panics with the first line that differs.
fn must_be_same(postgres: &str, sqlite: &str, what: impl Fn() -> String) {
    if postgres != sqlite {
        let mut lines = postgres.lines().zip(sqlite.lines());
        let (one, other) = lines.find(|(one, other)| one != other).unwrap_or(("", ""));
        let what = what();
        panic!("{what} something else on each database\n  Postgres: {one}\n  SQLite:   {other}");
    }
}

#[test]
fn any_order_of_calls_gives_the_same_answers_and_rows_on_both_databases() {
    // Without optimisation all kinds of calls together take most of the two MiB that a test's thread has.
    let thread = std::thread::Builder::new().stack_size(16 << 20);
    if let Err(panic) = thread.spawn(compare_any_order_of_calls).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn compare_any_order_of_calls() {
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
