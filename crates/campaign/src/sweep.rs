//! Which window of the gateway's list to read, and when.
//!
//! The windows of one sender split the gateway's time without overlap, so that each listed text is read once while it is
//! most likely final: ten rows a call. Seconds are the gateway's clock throughout; both ends of a window are included.

use jiff::SignedDuration;

/// A closed part of the gateway's time, in whole seconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First second.
    pub since: i64,
    /// Last second.
    pub until: i64,
}

/// Rows that arrive while pages are read push others across page borders; a window that ended this long ago is closed.
pub const CLOSED_AFTER: i64 = 2;

/// How much earlier than the measured time of a send its text may be listed: the measurement of skew is that uncertain.
pub const SKEW_MARGIN: i64 = 5;

/// The gateway's clock is measured by a `Date` that is cut to the second: a moment of ours may be this much later by that
/// clock than measured. A window that ended on the measured second would miss texts of the next one, and read them again.
pub const DATE_CUT: i64 = 1;

/// What is open at one sender, in seconds of the gateway's clock.
#[derive(Clone, Copy, Debug)]
pub struct Unread {
    /// The gateway's time now.
    pub now: i64,
    /// Everything up to this second was read.
    pub swept_to: Option<i64>,
    /// The earliest send of an attempt that no window has covered yet.
    pub oldest_sent: i64,
    /// The earliest end of such an attempt.
    pub oldest_ended: i64,
    /// The earliest send of an attempt that is still being made.
    pub sending_since: Option<i64>,
    /// Something is still queued or being sent from this sender: wait for a fuller window.
    pub more_to_come: bool,
    /// Recipients of attempts that no window has covered yet.
    pub recipients: u64,
    /// A window that ends here lists enough for one reading.
    pub enough_at: Option<i64>,
}

/// When windows are read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How old a text should be when it is first read.
    pub first_look: SignedDuration,
    /// A window that would fill fewer pages than this waits for more, at most `patience`.
    pub pages_min: u64,
    /// The longest that a window waits to be fuller.
    pub patience: SignedDuration,
}

/// The longest window, so that one reading stays short.
const LONGEST: i64 = 300;

/// Chooses the next window to read, if it is time.
pub fn next_window(unread: &Unread, pace: &Pace) -> Option<Window> {
    let first_look = pace.first_look.as_secs().max(CLOSED_AFTER);
    let mut until = unread.now - first_look;
    if let Some(sending) = unread.sending_since {
        // A text that is being sent now must not be listed in a window that counts as read.
        until = until.min(sending - SKEW_MARGIN - 1);
    }
    let since = (unread.oldest_sent - SKEW_MARGIN).max(unread.swept_to.map_or(i64::MIN, |swept| swept + 1));
    if until < since || unread.oldest_ended > until {
        return None;
    }
    // The end of the oldest attempt may lie hours after its send, when its worker's death was proven late: then several
    // windows lead there.
    until = until.min(since.saturating_add(LONGEST));
    if let Some(enough) = unread.enough_at {
        // A look for something else may have read past all of them.
        until = until.min(enough.max(unread.oldest_ended).max(since));
    }
    let full = unread.recipients >= pace.pages_min * 10;
    let waited = unread.now - unread.oldest_ended >= first_look + pace.patience.as_secs();
    (full || waited || !unread.more_to_come).then_some(Window { since, until })
}

/// The window in which the texts of one attempt can be listed.
pub fn window_of(sent: i64, ended: i64) -> Window {
    Window { since: sent - SKEW_MARGIN, until: ended + SKEW_MARGIN }
}

/// Joins windows that touch, so that nothing is read twice.
pub fn join(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_by_key(|window| window.since);
    let mut joined: Vec<Window> = Vec::new();
    for window in windows {
        match joined.last_mut() {
            Some(last) if window.since <= last.until + 1 => last.until = last.until.max(window.until),
            _ => joined.push(window),
        }
    }
    joined
}

/// How the rows of a window that are still pending are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing is pending.
    Done,
    /// One `/sms/detail` for each.
    Details,
    /// Read the window again: it has fewer pages than there are pending rows.
    Reread,
}

/// Chooses what costs fewer calls.
pub fn follow(listed: u64, pending: u64) -> Follow {
    match pending {
        0 => Follow::Done,
        pending if pending > listed.div_ceil(10) => Follow::Reread,
        _ => Follow::Details,
    }
}

/// How long to wait before the next look at a pending text, after `looks` looks.
pub fn wait_before_look(first_look: SignedDuration, looks: u32) -> SignedDuration {
    let grown = first_look.saturating_mul(1 << looks.min(12));
    grown.clamp(SignedDuration::from_secs(1), SignedDuration::from_hours(4))
}

/// The longest that a text is left alone before it is first looked for.
pub const LONGEST_FIRST_LOOK: SignedDuration = SignedDuration::from_mins(10);

/// Whether a large window is worth reading, by a sample of its texts: whatever is pending then is asked for once more, and a
/// few texts are pending for days.
pub fn is_mostly_final(pending_of_twenty: u64) -> bool {
    pending_of_twenty < 2
}

/// Learns when to look first: later when much was still pending, a little earlier when nothing was.
pub fn learn_first_look(first_look: SignedDuration, listed: u64, pending: u64) -> SignedDuration {
    let ms = first_look.as_millis();
    let learned = if pending * 10 > listed {
        ms + ms / 2
    } else if pending * 50 <= listed {
        ms - ms / 20
    } else {
        ms
    };
    let learned = i64::try_from(learned).unwrap_or(i64::MAX);
    SignedDuration::from_millis(learned).clamp(SignedDuration::from_secs(2), LONGEST_FIRST_LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { first_look: SignedDuration::from_secs(10), pages_min: 50, patience: SignedDuration::from_secs(15) };

    const UNREAD: Unread = Unread {
        now: 1_000,
        swept_to: None,
        oldest_sent: 900,
        oldest_ended: 901,
        sending_since: None,
        more_to_come: false,
        recipients: 100,
        enough_at: None,
    };

    #[test]
    fn a_window_begins_a_margin_before_the_oldest_send_and_never_where_it_was_read() {
        assert_eq!(next_window(&UNREAD, &PACE), Some(Window { since: 895, until: 990 }));
        let swept = Unread { swept_to: Some(940), oldest_ended: 950, ..UNREAD };
        assert_eq!(next_window(&swept, &PACE), Some(Window { since: 941, until: 990 }));
    }

    #[test]
    fn an_attempt_that_ended_long_after_its_send_is_reached_window_by_window() {
        let mut unread = Unread { now: 9_000, oldest_sent: 1_000, oldest_ended: 4_600, recipients: 10_000, ..UNREAD };
        for enough_at in [None, Some(1_000)] {
            unread = Unread { swept_to: None, enough_at, ..unread };
            for _ in 0..20 {
                let Some(window) = next_window(&unread, &PACE) else { panic!("stuck at {:?}", unread.swept_to) };
                assert!(unread.swept_to.is_none_or(|swept_to| window.since == swept_to + 1));
                unread.swept_to = Some(window.until);
            }
            assert!(unread.swept_to > Some(4_600));
        }
    }

    #[test]
    fn what_ended_before_the_last_window_does_not_stop_the_next() {
        let read_past =
            Unread { swept_to: Some(950), oldest_ended: 901, enough_at: Some(900), recipients: 9_000, ..UNREAD };
        let window = next_window(&read_past, &PACE).expect("there is something to read");
        assert!(window.since == 951 && window.until >= window.since);
    }

    #[test]
    fn a_window_ends_before_what_is_being_sent() {
        let sending = Unread { sending_since: Some(960), ..UNREAD };
        assert_eq!(next_window(&sending, &PACE), Some(Window { since: 895, until: 954 }));
        assert_eq!(next_window(&Unread { sending_since: Some(901), ..UNREAD }, &PACE), None);
    }

    #[test]
    fn a_thin_window_waits_for_more_but_not_for_long() {
        let thin = Unread { more_to_come: true, now: 915, ..UNREAD };
        assert_eq!(next_window(&thin, &PACE), None);
        assert!(next_window(&Unread { recipients: 500, ..thin }, &PACE).is_some());
        assert!(next_window(&Unread { now: 926, ..thin }, &PACE).is_some());
    }

    #[test]
    fn successive_windows_neither_overlap_nor_leave_a_gap() {
        let first = next_window(&UNREAD, &PACE).unwrap();
        let later = Unread { now: 1_100, swept_to: Some(first.until), oldest_sent: 993, oldest_ended: 994, ..UNREAD };
        assert_eq!(next_window(&later, &PACE).unwrap().since, first.until + 1);
    }

    #[test]
    fn windows_that_touch_are_joined() {
        let windows =
            vec![Window { since: 5, until: 9 }, Window { since: 1, until: 4 }, Window { since: 20, until: 22 }];
        assert_eq!(join(windows), [Window { since: 1, until: 9 }, Window { since: 20, until: 22 }]);
    }

    #[test]
    fn pending_rows_are_followed_by_the_cheaper_call() {
        assert_eq!(follow(1_000, 0), Follow::Done);
        assert_eq!(follow(1_000, 100), Follow::Details);
        assert_eq!(follow(1_000, 101), Follow::Reread);
    }

    #[test]
    fn the_first_look_is_learned_from_what_was_still_pending() {
        let ten = SignedDuration::from_secs(10);
        assert_eq!(learn_first_look(ten, 1_000, 500).as_secs(), 15);
        assert!(learn_first_look(ten, 1_000, 0) < ten);
        assert_eq!(learn_first_look(ten, 1_000, 50), ten);
    }
}
