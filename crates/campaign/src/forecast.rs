//! What a campaign will take of the gateway: calls, and the time that the call budget gives them.
//!
//! Without faults and with texts that are final when they are first looked for; what a gateway does slower costs more.

use crate::budget::Limits;
use serde::Serialize;
use std::time::Duration;

/// Rows on one page of the gateway's list.
const ROWS_A_PAGE: u64 = 10;
/// Recipients that one window of the list holds when much is sent; the last page of each is half empty on average.
const ROWS_A_WINDOW: u64 = 5_000;
/// In hundredths of a call: what a window costs over its rows / 10.
const WINDOW_EDGE: u64 = 45;

/// Calls by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// `/sms/bulk-send`, one a batch of two or more.
    pub bulk: u64,
    /// `/sms/send`, one a batch of one.
    pub single: u64,
    /// Pages of `/sms/list` that show the final statuses.
    pub list: u64,
    /// A token, the sender ids, the gateway's clock: once a process.
    pub other: u64,
}

impl Calls {
    /// Calls that send.
    pub fn to_send(self) -> u64 {
        self.bulk + self.single
    }

    /// All of them.
    pub fn total(self) -> u64 {
        self.to_send() + self.list + self.other
    }

    /// Adds a batch of so many recipients, none for an empty one.
    pub fn add_rows(&mut self, rows: u64, batch_len_max: u64) {
        let batch_len_max = batch_len_max.max(1);
        let (full, rest) = (rows / batch_len_max, rows % batch_len_max);
        let singles = if batch_len_max == 1 { rows } else { u64::from(rest == 1) };
        self.single += singles;
        self.bulk += full + u64::from(rest > 0) - singles;
    }
}

/// Pages that show the texts of one sender once.
pub fn list_pages(recipients: u64) -> u64 {
    match recipients.div_ceil(ROWS_A_WINDOW) {
        0 => 0,
        1 => recipients.div_ceil(ROWS_A_PAGE),
        windows => (recipients * 100 / ROWS_A_PAGE + windows * WINDOW_EDGE).div_ceil(100),
    }
}

/// The least time in which so many calls are made and the last text's status is read, which is first looked for
/// `first_look` after it was sent. What fits into one window of the limit goes out at once.
pub fn duration(calls: Calls, limits: Limits, first_look: Duration) -> Duration {
    let a_window = u64::try_from(limits.for_sending()).unwrap_or(1).max(1);
    let window = Duration::from_millis(u64::try_from(limits.window_ms).unwrap_or(0));
    let windows = |calls: u64| u32::try_from(calls.div_ceil(a_window).saturating_sub(1)).unwrap_or(u32::MAX);
    if calls.to_send() == 0 {
        return window.saturating_mul(windows(calls.total()));
    }
    // Sending is served before statuses.
    let sent = window.saturating_mul(windows(calls.to_send() + calls.other));
    window.saturating_mul(windows(calls.total())).max(sent + first_look)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_rows(rows: u64, batch_len_max: u64) -> (u64, u64) {
        let mut calls = Calls::default();
        calls.add_rows(rows, batch_len_max);
        (calls.bulk, calls.single)
    }

    #[test]
    fn a_batch_of_one_goes_by_the_single_call() {
        let table = [((0, 100), (0, 0)), ((1, 100), (0, 1)), ((100, 100), (1, 0)), ((101, 100), (1, 1))];
        for ((rows, max), calls) in table.into_iter().chain([((133, 100), (2, 0)), ((3, 1), (0, 3))]) {
            assert_eq!(of_rows(rows, max), calls, "{rows} rows by {max}");
        }
    }

    #[test]
    fn a_page_shows_ten() {
        assert_eq!([0, 1, 10, 11, 5_000].map(list_pages), [0, 1, 1, 2, 500]);
        assert!((10_000..=10_010).contains(&list_pages(100_000)));
    }

    #[test]
    fn time_is_what_the_budget_gives() {
        let limits = Limits { limit: 1_200, window_ms: 60_000 };
        let look = Duration::from_secs(10);
        let calls = Calls { bulk: 1_000, single: 0, list: 10_000, other: 3 };
        // 1,188 calls a window: the last 1 % is kept for tokens and for resolving.
        assert_eq!(duration(calls, limits, look), Duration::from_secs(9 * 60));
        let few = Calls { bulk: 1, single: 0, list: 1, other: 3 };
        assert_eq!(duration(few, limits, look), look);
        assert_eq!(duration(Calls::default(), limits, look), Duration::ZERO);
    }
}
