//! The regular reading: the gateway's time, window by window, each once, ten rows a call.

use crate::{
    Reconciler, RoundError,
    odd::Odd,
    reading::{Purpose, Reading},
};
use campaign::{
    SenderId,
    sweep::{self, Follow, Unread, Window},
};
use jiff::{SignedDuration, Timestamp};
use ledger::{OpenAttempt, PendingWindow};
use std::time::Duration;

/// Recipients that one window should list at most.
const RECIPIENTS_A_WINDOW: u64 = 5_000;

/// From so many recipients on, two calls for a sample weigh less than reading a window too early.
const SAMPLED_FROM: u64 = 1_000;

/// A list that moved is left alone for a moment: reading it costs calls.
const AFTER_A_MOVE: Duration = Duration::from_secs(2);

/// Attempts of a sender that are looked at in one round.
const ATTEMPTS_A_ROUND: u32 = 2_000;

impl Reconciler {
    /// Reads the next window of each sender, where it is time. Answers whether there was one: another may be due at once.
    pub(crate) async fn sweep_senders(&self) -> Result<bool, RoundError> {
        let (mut odd, mut swept) = (Odd::default(), false);
        for sender in self.ledger.open_senders().await? {
            swept |= odd.set_aside(self.sweep_sender(&sender).await)?;
        }
        odd.told().map(|()| swept)
    }

    /// Reads the next window of a sender, if one is due. Answers whether it counts.
    async fn sweep_sender(&self, sender: &SenderId) -> Result<bool, RoundError> {
        // The time first, then what is being made: what begins later is in no window that ends by now, and what ends later still
        // counts as being made.
        let now = self.ledger.now();
        let sending_since = self.ledger.sending_since(sender).await?;
        let attempts = self.ledger.unread_attempts(sender, ATTEMPTS_A_ROUND).await?;
        if attempts.is_empty() {
            return Ok(false);
        }
        let cursor = self.ledger.cursor(sender).await?;
        let skew = self.skew().await?;
        let second = |at| Self::gateway_second(at, skew);
        let ended = |attempt: &OpenAttempt| second(self.ended(attempt)) + sweep::DATE_CUT;
        let (swept_to, first_look) = cursor.unwrap_or((i64::MIN, self.settings.first_look));
        // A look for something else reads up to now: what it passed needs no window of its own.
        let (passed, unread): (Vec<_>, Vec<_>) = attempts.into_iter().partition(|attempt| ended(attempt) <= swept_to);
        self.pass(&passed, first_look).await?;
        let mut recipients = 0;
        let enough = unread.iter().find(|attempt| {
            recipients += attempt.recipients;
            recipients > RECIPIENTS_A_WINDOW
        });
        let state = Unread {
            now: second(now),
            swept_to: cursor.map(|(swept_to, _)| swept_to),
            oldest_sent: unread.iter().map(|a| second(a.sending_at)).min().unwrap_or(i64::MAX),
            oldest_ended: unread.iter().map(ended).min().unwrap_or(i64::MAX),
            sending_since: sending_since.map(second),
            more_to_come: self.ledger.more_to_send().await?,
            recipients,
            enough_at: enough.map(|attempt| second(attempt.sending_at)),
        };
        let Some(window) = sweep::next_window(&state, &self.pace(first_look)) else { return Ok(false) };
        let sampled = recipients >= SAMPLED_FROM && first_look < sweep::LONGEST_FIRST_LOOK;
        if sampled && !self.is_mostly_final(sender, window).await? {
            // Nothing of ours is between the last window and this one: the list counts as read so far, and a first look comes later.
            let later = sweep::learn_first_look(first_look, 1, 1);
            self.ledger.advance_cursor(sender, window.since - 1, later).await?;
            return Ok(false);
        }
        if !self.sweep_window(sender, window, first_look).await? {
            return Ok(false);
        }
        let passed: Vec<OpenAttempt> = unread.into_iter().filter(|attempt| ended(attempt) <= window.until).collect();
        self.pass(&passed, first_look).await?;
        Ok(true)
    }

    /// Looks at the newest page of a window and at one in its middle; a few pages are read anyway.
    async fn is_mostly_final(&self, sender: &SenderId, window: Window) -> Result<bool, RoundError> {
        let (pages, pending) = self.sample(sender, window, 1).await?;
        if pages < 20 || !sweep::is_mostly_final(pending) {
            return Ok(pages < 20);
        }
        let (_, more) = self.sample(sender, window, pages / 2).await?;
        Ok(sweep::is_mostly_final(pending + more))
    }

    /// Ends attempts that the list was read past and whose texts are all found; has the others looked for again.
    async fn pass(&self, passed: &[OpenAttempt], first_look: SignedDuration) -> Result<(), RoundError> {
        if passed.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = passed.iter().map(|attempt| attempt.id).collect();
        let now = self.ledger.now();
        let settled = self.ledger.settle_found(&ids, now).await?;
        for attempt in passed.iter().filter(|attempt| !settled.contains(&attempt.id)) {
            tracing::info!(attempt.id = %attempt.id, "a sweep passed an attempt and did not find all of its texts");
            self.ledger.look_again(attempt, now + sweep::wait_before_look(first_look, 0), None).await?;
        }
        Ok(())
    }

    /// When an attempt ended, or must have: its worker may only be silent.
    pub(crate) fn ended(&self, attempt: &OpenAttempt) -> Timestamp {
        attempt.ended_at.unwrap_or(attempt.sending_at + self.settings.send_limit)
    }

    /// Reads a window that follows the last one, follows what is pending in it, and moves the cursor. Answers false when the
    /// reading does not count.
    pub(crate) async fn sweep_window(
        &self,
        sender: &SenderId,
        window: Window,
        first_look: SignedDuration,
    ) -> Result<bool, RoundError> {
        let reading = self.read_window(Purpose::Sweep, sender, None, window).await?;
        let pending = reading.applied.pending;
        let Some(listed) = reading.listed else {
            // The attempts of pending texts may be done with before this window is read again.
            let at = self.ledger.now() + sweep::wait_before_look(self.settings.first_look, 0);
            self.ledger.ask_details(&reading.pending, at).await?;
            tokio::time::sleep(AFTER_A_MOVE).await;
            return Ok(false);
        };
        tracing::debug!(sender = %sender, list.rows = listed, list.pending = pending, rows.found = reading.applied.found, "read a window");
        let learned = match listed {
            0 => first_look,
            listed => sweep::learn_first_look(first_look, listed, pending),
        };
        // Where texts take minutes, so do those that were not final yet.
        let again = self.settings.first_look.max(learned / 4);
        let seen = PendingWindow { id: -1, window, listed, looks: 1 };
        self.follow(sender, &reading, seen, again).await?;
        self.ledger.advance_cursor(sender, window.until, learned).await?;
        Ok(true)
    }

    /// Reads windows again in which much was pending.
    pub(crate) async fn reread_windows(&self) -> Result<(), RoundError> {
        let mut odd = Odd::default();
        for (sender, window) in self.ledger.due_windows(self.ledger.now()).await? {
            let done = self.reread_window(&sender, window).await;
            if matches!(&done, Err(RoundError::Gateway(_)) | Ok(false)) {
                // The first windows in line must not keep the others from being read.
                let at = self.ledger.now() + sweep::wait_before_look(self.settings.first_look, window.looks);
                self.ledger.keep_window(&sender, &PendingWindow { looks: window.looks + 1, ..window }, at).await?;
            }
            odd.set_aside(done.map(|_| ()))?;
        }
        odd.told()
    }

    /// Answers whether the reading counts.
    async fn reread_window(&self, sender: &SenderId, window: PendingWindow) -> Result<bool, RoundError> {
        let reading = self.read_window(Purpose::Sweep, sender, None, window.window).await?;
        let Some(listed) = reading.listed else { return Ok(false) };
        let seen = PendingWindow { listed, looks: window.looks + 1, ..window };
        self.follow(sender, &reading, seen, self.settings.first_look).await?;
        Ok(true)
    }

    /// Follows the pending texts of a window by whatever costs fewer calls.
    async fn follow(
        &self,
        sender: &SenderId,
        reading: &Reading,
        window: PendingWindow,
        first_wait: SignedDuration,
    ) -> Result<(), RoundError> {
        let now = self.ledger.now();
        let at = now + sweep::wait_before_look(first_wait, window.looks - 1);
        // Only the details give up and hold what stays pending for ever.
        let too_old = window.window.until < (now - self.settings.give_up).as_second();
        match sweep::follow(window.listed, reading.applied.pending) {
            Follow::Done => self.ledger.drop_window(window.id).await?,
            Follow::Reread if !too_old => self.ledger.keep_window(sender, &window, at).await?,
            Follow::Details | Follow::Reread => {
                self.ledger.ask_details(&reading.pending, at).await?;
                self.ledger.drop_window(window.id).await?;
            }
        }
        Ok(())
    }
}
