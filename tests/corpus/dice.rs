//! Seeds changed at random places, the same on every run.

use std::{fs, path::Path};

/// xorshift: the same bytes on every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }

    /// Changes some bytes: overwritten, cut, doubled, joined with another seed, or swapped for what matters in a file.
    pub(crate) fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const TOKENS: [&[u8]; 18] = [
            b"\"",
            b",",
            b";",
            b"\t",
            b"|",
            b"\r\n",
            b"\n",
            b"\0",
            b"{{",
            b"}}",
            b"{{a | upper}}",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xe9",
            "\u{1f44b}".as_bytes(),
            b"4.47701E+11",
            b"destination",
            b"=",
        ];
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => bytes.truncate(at),
                2 => {
                    let until = at + self.below(bytes.len() - at + 1);
                    let piece = bytes[at..until].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => bytes.extend_from_slice(&seeds[self.below(seeds.len())]),
                _ => {
                    let token = TOKENS[self.below(TOKENS.len())];
                    bytes.splice(at..at, token.iter().copied());
                }
            }
        }
        bytes.truncate(64 * 1024);
        bytes
    }
}

/// The seeds of one kind.
pub(crate) fn corpus(kind: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus").join(kind);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", dir.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// How many changed seeds to try.
pub(crate) fn runs() -> usize {
    std::env::var("BYTES_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1_500)
}
