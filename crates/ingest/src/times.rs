//! Times as people write them.

use jiff::{
    Timestamp, civil,
    tz::{AmbiguousOffset, TimeZone},
};

/// Reads times; those without an offset are in one zone.
#[derive(Clone, Debug)]
pub struct Times {
    zone: TimeZone,
}

/// Which end of a span a time is: it says how an hour that the clocks show twice is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Not before: the first of two.
    From,
    /// Not after: the last of two.
    Until,
}

/// A time that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTime {
    /// The moment.
    pub at: Timestamp,
    /// What is odd about it, where the clocks of the zone change.
    pub change: Option<&'static str>,
}

/// What was written is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time: write it as 2026-03-01 09:30, or as 2026-03-01T09:30:00Z")]
pub struct NoTime;

impl Times {
    /// `zone` is an IANA name.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn new(zone: &str) -> Result<Self, jiff::Error> {
        Ok(Self { zone: TimeZone::get(zone)? })
    }

    /// Reads RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` in the zone. A time that the clocks skip is the moment after the gap; of
    /// one that they show twice the bound takes the first or the last.
    ///
    /// # Errors
    /// [`NoTime`]: nothing is guessed.
    pub fn read(&self, text: &str, bound: Bound) -> Result<ReadTime, NoTime> {
        let text = text.trim();
        // jiff also takes years with a sign, bracketed zones, a date alone; people mean something else by them.
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b"-:+. TtZz".contains(&b));
        if !plain || !text.contains(':') || !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(NoTime);
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(ReadTime { at, change: None });
        }
        if text.contains(['z', 'Z', '+']) {
            return Err(NoTime);
        }
        let local: civil::DateTime = text.parse().map_err(|_| NoTime)?;
        let found = self.zone.to_ambiguous_timestamp(local);
        let (at, change) = match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => (found.compatible(), None),
            AmbiguousOffset::Fold { .. } => {
                let at = if bound == Bound::From { found.earlier() } else { found.later() };
                (at, Some("a time that the clocks show twice"))
            }
            AmbiguousOffset::Gap { .. } => {
                let before = found.earlier().map_err(|_| NoTime)?;
                // The change itself is between the two readings of a time that it skips.
                let at = self.zone.following(before).next().map_or(found.later(), |change| Ok(change.timestamp()));
                (at, Some("a time that the clocks skip"))
            }
        };
        Ok(ReadTime { at: at.map_err(|_| NoTime)?, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(text: &str, bound: Bound) -> Option<(String, bool)> {
        let read = Times::new("Europe/London").unwrap().read(text, bound).ok()?;
        Some((read.at.to_string(), read.change.is_some()))
    }

    fn read(text: &str) -> Option<(String, bool)> {
        read_as(text, Bound::From)
    }

    fn plain(at: &str) -> Option<(String, bool)> {
        Some((at.to_owned(), false))
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(read("2026-07-01 09:30"), plain("2026-07-01T08:30:00Z"));
        assert_eq!(read(" 2026-01-01 09:30:15 "), plain("2026-01-01T09:30:15Z"));
        assert_eq!(read("2026-07-01T09:30:00+02:00"), plain("2026-07-01T07:30:00Z"));
        assert_eq!(read("2026-07-01T09:30:00Z"), plain("2026-07-01T09:30:00Z"));
    }

    #[test]
    fn a_skipped_time_is_the_moment_after_the_gap() {
        for bound in [Bound::From, Bound::Until] {
            assert_eq!(read_as("2026-03-29 01:30", bound), Some(("2026-03-29T01:00:00Z".to_owned(), true)));
        }
        assert_eq!(read("2026-03-29 02:00"), plain("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn of_a_doubled_time_the_span_has_all() {
        assert_eq!(read_as("2026-10-25 01:30", Bound::From), Some(("2026-10-25T00:30:00Z".to_owned(), true)));
        assert_eq!(read_as("2026-10-25 01:30", Bound::Until), Some(("2026-10-25T01:30:00Z".to_owned(), true)));
    }

    #[test]
    fn what_is_no_time_is_not_guessed() {
        for text in ["", "tomorrow", "01/03/2026 09:30", "2026-03-01", "2026-02-30 09:30", "46082.39", "09:30"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
