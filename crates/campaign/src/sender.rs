//! Sender ids: what the recipient sees as the source of a text.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A sender id as the gateway takes it: letters and digits only.
///
/// Source: collection, "send-message" (`source`: alpha_numeric, approved) and "sms/list" (`sender`: [a-zA-Z0-9]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SenderId(String);

/// Why a text is no sender id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SenderError {
    /// Nothing there.
    #[error("the sender is empty")]
    Empty,
    /// A character outside [a-zA-Z0-9].
    #[error("the sender {0:?} has {1:?} in it; the gateway takes letters and digits only")]
    Character(String, char),
    /// Alphanumeric senders have at most 11 characters (3GPP TS 23.040, 9.1.2.5), numeric ones at most 15 (E.164).
    #[error("the sender {0:?} is too long: at most 11 letters and digits, or 15 digits")]
    TooLong(String),
}

impl SenderId {
    /// Takes a sender id as typed: trimmed, a leading `+` or `00` of a number removed.
    pub fn parse(input: &str) -> Result<Self, SenderError> {
        let trimmed = input.trim();
        let numeric: String = trimmed.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
        let digits = numeric.strip_prefix('+').unwrap_or(&numeric);
        let id = if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) { digits } else { trimmed };
        if id.is_empty() {
            return Err(SenderError::Empty);
        }
        if let Some(c) = id.chars().find(|c| !c.is_ascii_alphanumeric()) {
            return Err(SenderError::Character(id.to_owned(), c));
        }
        let longest = if id.chars().all(|c| c.is_ascii_digit()) { 15 } else { 11 };
        if id.len() > longest {
            return Err(SenderError::TooLong(id.to_owned()));
        }
        Ok(Self(id.to_owned()))
    }

    /// The id as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_letters_and_digits() {
        assert_eq!(SenderId::parse(" ACME ").unwrap().as_str(), "ACME");
        assert_eq!(SenderId::parse("+44 7520 602706").unwrap().as_str(), "447520602706");
        assert_eq!(SenderId::parse(""), Err(SenderError::Empty));
        assert_eq!(SenderId::parse("A&B"), Err(SenderError::Character("A&B".into(), '&')));
        assert!(matches!(SenderId::parse("TWELVELETTER"), Err(SenderError::TooLong(_))));
    }
}
