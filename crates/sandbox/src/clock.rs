//! The sandbox's clock: the one place where it asks for the time.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Milliseconds of the real clock since the epoch; lags, windows and lives are measured in it.
pub(crate) type Millis = i64;

/// The real clock as read once at the start, run on by a monotonic one.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Timestamp,
    since: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Timestamp::now(), since: Instant::now() }
    }

    pub(crate) fn now(&self) -> Millis {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.started.saturating_add(elapsed).unwrap_or(Timestamp::MAX).as_millisecond()
    }
}

/// A row's or sender's time as the gateway writes it: UTC, whole seconds.
pub(crate) fn written(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Reads `YYYY-MM-DD HH:MM:SS`, UTC, and nothing else.
pub(crate) fn read(text: &str) -> Option<i64> {
    if text.len() != "2025-05-14 00:00:00".len() {
        return None;
    }
    let civil = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}
