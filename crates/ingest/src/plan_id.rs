//! The id of a plan: what it promised, in a form short enough to be typed.

use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Characters of each part: 20 bits, so that a change goes unseen once in a million times.
const PART: usize = 4;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// A part that was not known when the plan was made, and that anything agrees with.
const UNKNOWN: &str = "0";

/// What a plan promised, as `f3a1-09c2-77d0-1b2e-4c5d`: a digest for each thing that may change, so that what changed can
/// be named wherever the id turns up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanId(Box<[String; 5]>);

/// What stands for what, in order.
const MEANINGS: [&str; 5] = [
    "the file or the options for it",
    "which of its rows can be sent",
    "who has opted out",
    "which senders are approved",
    "the prices",
];

/// A text that is no plan id.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no plan id; `crier plan FILE` prints one")]
pub struct NoPlanId(String);

impl PlanId {
    /// From what each part stands for; `None` is not known.
    pub(crate) fn of(parts: [Option<&str>; 5]) -> Self {
        Self(Box::new(parts.map(|part| part.map_or_else(|| UNKNOWN.to_owned(), digest))))
    }

    /// What a later plan promises otherwise, in words.
    pub fn changes(&self, now: &Self) -> Vec<&'static str> {
        let same = |a: &String, b: &String| a == b || a == UNKNOWN || b == UNKNOWN;
        let parts = self.0.iter().zip(now.0.iter()).zip(MEANINGS);
        parts.filter(|((then, now), _)| !same(then, now)).map(|(_, meaning)| meaning).collect()
    }
}

fn digest(part: &str) -> String {
    let sha256 = Sha256::digest(part.as_bytes());
    sha256.iter().take(PART).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("-"))
    }
}

impl FromStr for PlanId {
    type Err = NoPlanId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NoPlanId(text.to_owned());
        let parts: Vec<String> = text.trim().to_lowercase().split('-').map(str::to_owned).collect();
        let parts: Box<[String; 5]> = parts.try_into().map_err(|_| wrong())?;
        let fine = |part: &String| part.len() == PART && part.bytes().all(|b| ALPHABET.contains(&b));
        if parts.iter().all(|part| part == UNKNOWN || fine(part)) { Ok(Self(parts)) } else { Err(wrong()) }
    }
}

impl serde::Serialize for PlanId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_printed_and_names_what_changed() {
        let id = PlanId::of([Some("file"), Some("rows"), Some("none"), Some("ACME"), Some("")]);
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id.clone()));
        assert_eq!(id.to_string().len(), 24);
        assert!(id.changes(&id).is_empty());
        let later = PlanId::of([Some("file"), Some("rows"), Some("2"), Some("ACME"), Some("44=1.00")]);
        assert_eq!(id.changes(&later), ["who has opted out", "the prices"]);
        assert!("x".parse::<PlanId>().is_err() && "f3a1-09c2-77d0-1b2e-4c5!".parse::<PlanId>().is_err());
    }

    #[test]
    fn what_was_not_known_agrees_with_anything() {
        let id = PlanId::of([Some("file"), Some("rows"), Some("none"), None, Some("")]);
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        let known = PlanId::of([Some("file"), Some("rows"), Some("none"), Some("ACME"), Some("")]);
        assert!(id.changes(&known).is_empty() && known.changes(&id).is_empty());
    }
}
