//! Chaos with real processes: three workers, a reconciler and a watcher over a real Redis and a real Postgres are killed and
//! frozen, what they stand on is flushed and restarted, the gateway browns out. Then the sandbox's book is compared with
//! the ledger. `tests/chaos` runs it; `--seed N` chooses what happens, `--kills N` and `--recipients N` how much.
//!
//! It fails on anybody texted twice or lost, on over 3 % held, on a password grant too many, on a call before Retry-After, on
//! a resume over 60 s.

#![expect(clippy::print_stdout, reason = "it prints what it did and found")]

#[expect(clippy::allow_attributes, reason = "an expectation would fail once everything is used")]
#[allow(dead_code, unused_imports, reason = "each test program uses its own part of the harness")]
#[path = "../../../../tests/harness/mod.rs"]
mod harness;

mod blows;
mod manners;
mod oracle;
mod run;

use std::{process::ExitCode, time::SystemTime};

/// How much, and which.
#[derive(Clone, Copy, Debug)]
struct Size {
    seed: u64,
    kills: u32,
    recipients: u32,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| {
            let given = args.get(at + 1).and_then(|arg| arg.parse().ok());
            given.unwrap_or_else(|| panic!("{name} takes a number"))
        })
    };
    let clock = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos()));
    let size = Size {
        seed: number("--seed", clock),
        kills: u32::try_from(number("--kills", 60)).expect("not that many"),
        recipients: u32::try_from(number("--recipients", 5_000)).expect("not that many"),
    };
    println!("chaos: seed {}, {} kills, {} recipients", size.seed, size.kills, size.recipients);
    let wrong = run::run(size);
    if wrong.is_empty() {
        println!("chaos: nobody twice, nobody lost");
        return ExitCode::SUCCESS;
    }
    println!(
        "chaos: FAILED, again with `tests/chaos --seed {} --kills {} --recipients {}`",
        size.seed, size.kills, size.recipients
    );
    for wrong in wrong {
        println!("chaos: {wrong}");
    }
    ExitCode::FAILURE
}
