//! Fuzzing that runs on stable: files of a corpus, changed at random places, and what such bytes may cost.
//!
//! A failing input shrinks: first the changes that it does not need, then their places. The seed is printed with it;
//! `BYTES_SEED=n` runs the same inputs again, `BYTES_RUNS=n` more of them.

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{RngSeed, TestRunner},
};
use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Longest input; longer ones are cut.
const BYTES_MAX: usize = 256 * 1024;

/// One input. Its `Debug` shows bytes as a person would type them.
#[derive(Clone, PartialEq, Eq)]
pub struct Input(pub Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(600)];
        write!(f, "{} bytes: b\"{}\"", self.0.len(), shown.escape_ascii())
    }
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Overwrite(Index, u8),
    Insert(Index, Index),
    /// A token so often that a bound is met.
    Repeat(Index, Index, u32),
    Remove(Index, usize),
    Double(Index, usize),
    Cut(Index),
    Join(Index),
    Exchange(Index, Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Overwrite(at, byte)),
        8 => (at(), at()).prop_map(|(at, token)| Change::Insert(at, token)),
        1 => (at(), at(), 1..40_000_u32).prop_map(|(at, token, times)| Change::Repeat(at, token, times)),
        3 => (at(), 1..40_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        3 => (at(), 1..200_usize).prop_map(|(at, len)| Change::Double(at, len)),
        1 => at().prop_map(Change::Cut),
        1 => at().prop_map(Change::Join),
        2 => (at(), at(), 1..30_usize).prop_map(|(from, to, len)| Change::Exchange(from, to, len)),
    ]
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], tokens: &[&[u8]]) {
        let place = |index: &Index, bytes: &Vec<u8>| index.index(bytes.len() + 1);
        match self {
            Self::Overwrite(at, byte) => {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            Self::Insert(at, token) => {
                let at = place(at, bytes);
                bytes.splice(at..at, tokens[token.index(tokens.len())].iter().copied());
            }
            Self::Repeat(at, token, times) => {
                let at = place(at, bytes);
                bytes.splice(at..at, tokens[token.index(tokens.len())].repeat(*times as usize));
            }
            Self::Remove(at, len) => {
                let at = place(at, bytes);
                bytes.drain(at..bytes.len().min(at + len));
            }
            Self::Double(at, len) => {
                let at = place(at, bytes);
                let piece = bytes[at..bytes.len().min(at + len)].to_vec();
                bytes.splice(at..at, piece);
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Join(other) => bytes.extend_from_slice(&corpus[other.index(corpus.len())]),
            Self::Exchange(from, to, len) => {
                let from = place(from, bytes);
                let piece: Vec<u8> = bytes.drain(from..bytes.len().min(from + len)).collect();
                let to = place(to, bytes);
                bytes.splice(to..to, piece);
            }
        }
        bytes.truncate(BYTES_MAX);
    }
}

/// The files of one folder of `tests/corpus`, by name.
pub fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus").join(kind);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("no corpus in {}: {error}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder of the tree can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file of the tree can be read"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", dir.display());
    files
}

/// Gives `test` each file of a corpus as it is, then `BYTES_RUNS` (or `usual`) changed ones; `tokens` are what matters in such
/// files. What panics is shrunk, and told with its seed.
pub fn for_changed(kind: &str, tokens: &[&[u8]], usual: u32, test: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seed = number("BYTES_SEED").unwrap_or_else(by_chance);
    let runs = number("BYTES_RUNS").map_or(usual, |runs| u32::try_from(runs).unwrap_or(u32::MAX));
    let files = corpus(kind);
    files.iter().for_each(|(_, bytes)| test(bytes));
    let corpus: Vec<Vec<u8>> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let input = (any::<Index>(), prop::collection::vec(change(), 1..8)).prop_map(|(seed, changes)| {
        let mut bytes = corpus[seed.index(corpus.len())].clone();
        changes.iter().for_each(|change| change.make(&mut bytes, &corpus, tokens));
        Input(bytes)
    });
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 2_000,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::with_cases(runs)
    };
    let outcome = TestRunner::new(config).run(&input, |input| {
        catch_unwind(AssertUnwindSafe(|| test(&input.0))).map_err(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            TestCaseError::fail(words.unwrap_or_default())
        })
    });
    if let Err(failure) = outcome {
        panic!("BYTES_SEED={seed} {kind}: {failure}");
    }
}

/// Another seed for each run.
fn by_chance() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ (since.as_secs() << 20) ^ u64::from(std::process::id())
}
