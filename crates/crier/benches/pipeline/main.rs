//! The whole way of a campaign against the sandbox, with the real binary, compared with limits that are measured in the same run:
//! `cargo bench -p crier --bench pipeline`.
//!
//! Each part prints its lines; `-- --only ingest,send` chooses some, `--rows`, `--recipients`, `--drops` set their sizes. The
//! defaults are for a quick look; the README says with which sizes its figures were made.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bench;
mod calls;
mod ingest;
mod limits;
mod send;
mod steady;

/// How large the parts are.
#[derive(Clone, Copy)]
struct Sizes {
    /// Rows that are loaded.
    rows: u32,
    /// Recipients that are sent to and confirmed.
    recipients: u32,
    /// Files that are dropped.
    drops: u32,
}

type Part = (&'static str, fn(Sizes));

/// In the order in which they run.
const PARTS: [Part; 10] = [
    ("ingest", ingest::both),
    ("memory", ingest::memory),
    ("send", send::both),
    ("calls", calls::scenarios),
    ("window", calls::window),
    ("plan", calls::plan),
    ("growth", steady::growth),
    ("redis", steady::redis),
    ("fair", steady::fair),
    ("drop", steady::drop_to_call),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let size = |name: &str, default: u32| value(name).and_then(|value| value.parse().ok()).unwrap_or(default);
    let sizes =
        Sizes { rows: size("--rows", 100_000), recipients: size("--recipients", 10_000), drops: size("--drops", 20) };
    let only: Option<Vec<&str>> = value("--only").map(|names| names.split(',').collect());
    if let Some(unknown) = only.iter().flatten().find(|name| PARTS.iter().all(|(part, _)| part != *name)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        println!("there is no part {unknown}: {}", names.join(", "));
        return;
    }
    for (name, run) in PARTS {
        if only.as_ref().is_none_or(|only| only.contains(&name)) {
            run(sizes);
        }
    }
}
