//! Times as people write them.

use jiff::{Timestamp, civil, tz::TimeZone};

/// Reads times; those without an offset are in one zone.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    zone: TimeZone,
}

/// A time, and whether its wall clock showed it never or twice (resolved as RFC 5545 does: the offset before the change).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) at: Timestamp,
    pub(crate) ambiguous: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time: write it as 2026-03-01 09:30, or as 2026-03-01T09:30:00Z")]
pub(crate) struct NoTime;

impl Times {
    /// `zone` is an IANA name.
    pub(crate) fn new(zone: &str) -> Result<Self, jiff::Error> {
        Ok(Self { zone: TimeZone::get(zone)? })
    }

    /// Reads RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` in the zone.
    pub(crate) fn read(&self, text: &str) -> Result<Read, NoTime> {
        let text = text.trim();
        // jiff also takes years with a sign, bracketed zones, a date alone; people mean something else by them.
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b"-:+. TtZz".contains(&b));
        if !plain || !text.contains(':') || !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(NoTime);
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Read { at, ambiguous: false });
        }
        if text.contains(['z', 'Z', '+']) {
            return Err(NoTime);
        }
        let local: civil::DateTime = text.parse().map_err(|_| NoTime)?;
        let found = self.zone.to_ambiguous_timestamp(local);
        let ambiguous = found.is_ambiguous();
        Ok(Read { at: found.compatible().map_err(|_| NoTime)?, ambiguous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, bool)> {
        Times::new("Europe/London").unwrap().read(text).ok().map(|read| (read.at.to_string(), read.ambiguous))
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
    fn skipped_and_doubled_hours_are_resolved_and_marked() {
        assert_eq!(read("2026-03-29 01:30"), Some(("2026-03-29T01:30:00Z".to_owned(), true)));
        assert_eq!(read("2026-10-25 01:30"), Some(("2026-10-25T00:30:00Z".to_owned(), true)));
    }

    #[test]
    fn what_is_no_time_is_not_guessed() {
        for text in ["", "tomorrow", "01/03/2026 09:30", "2026-03-01", "2026-02-30 09:30", "46082.39", "09:30"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
