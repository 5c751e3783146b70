//! Instants as the ledger stores them: UTC milliseconds since 1970.

use jiff::Timestamp;

pub(crate) fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The ledger stores what [`ms`] made of a timestamp; anything else is clamped.
pub(crate) fn instant(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
