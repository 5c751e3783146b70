//! The regular reading: the gateway's time, window by window, each once, ten rows a call.

use crate::{Reconciler, RoundError, odd::Odd, reading::Reading};
use campaign::{
    SenderId,
    budget::CallClass,
    sweep::{self, Follow, Unread, Window},
};
use jiff::{SignedDuration, Timestamp};
use ledger::{Listing, OpenAttempt, PendingWindow};
use std::time::Duration;

/// Recipients that one window should list at most.
const RECIPIENTS_A_WINDOW: u64 = 5_000;

/// From so many recipients on, two calls for a sample weigh less than reading a window too early.
const SAMPLED_FROM: u64 = 1_000;

/// A list that moved is left alone for a moment: reading it costs calls.
const AFTER_A_MOVE: Duration = Duration::from_secs(2);

/// Open attempts that are looked at in one round.
const ATTEMPTS_A_ROUND: u32 = 5_000;

/// For how long in a round windows are read while others are applied, shared by all senders: the other work of a round, and its
/// lease, must not wait for a list that has no end.
const AHEAD_A_ROUND: SignedDuration = SignedDuration::from_secs(5);

/// What comes next in the list of a sender.
enum Next {
    /// Nothing, for now.
    Nothing,
    /// A window whose texts are not final yet. Nothing of ours is between the last window and this one: the list counts as read
    /// so far, and a first look comes later.
    TooEarly { swept_to: i64, first_look: SignedDuration },
    /// A window that was read.
    Read(ReadWindow),
}

/// A window that was read completely, and is to be applied.
struct ReadWindow {
    window: Window,
    reading: Reading,
    /// How old a text was to be when it is first read.
    first_look: SignedDuration,
    /// Attempts of which the list was read past the end.
    passed: Vec<OpenAttempt>,
}

impl ReadWindow {
    /// Where the next window begins and how old its texts should be, if so many of this one's are pending.
    fn cursor(&self, pending: u64) -> (i64, SignedDuration) {
        let learned = match self.reading.texts.len() as u64 {
            0 => self.first_look,
            listed => sweep::learn_first_look(self.first_look, listed, pending),
        };
        (self.window.until, learned)
    }
}

/// Whether no window has covered an attempt yet that is no longer being made.
fn is_unread(attempt: &OpenAttempt) -> bool {
    !attempt.sending && attempt.looks == 0
}

impl Reconciler {
    /// Reads the next windows of each sender, where it is time. Answers whether there was one: another may be due at once.
    pub(crate) async fn sweep_senders(&self) -> Result<bool, RoundError> {
        let mut attempts = self.ledger.open_attempts(ATTEMPTS_A_ROUND).await?;
        let senders: Vec<SenderId> =
            attempts.chunk_by(|a, b| a.sender == b.sender).map(|of| of[0].sender.clone()).collect();
        let share = AHEAD_A_ROUND / i32::try_from(senders.len().max(1)).unwrap_or(i32::MAX);
        let (mut odd, mut swept) = (Odd::default(), false);
        for (nth, sender) in senders.iter().enumerate() {
            if nth > 0 && swept {
                // Calls of this sender may have begun while the list of another one was read.
                attempts = self.ledger.open_attempts(ATTEMPTS_A_ROUND).await?;
            }
            let of_sender = attempts.chunk_by(|a, b| a.sender == b.sender).find(|of| of[0].sender == *sender);
            swept |= odd.set_aside(self.sweep_sender(sender, of_sender.unwrap_or_default(), share).await)?;
        }
        odd.told().map(|()| swept)
    }

    /// Reads the windows of a sender that are due, and applies each while the next one is read: the gateway and the ledger need
    /// not wait for each other. No further window is begun after `share`.
    async fn sweep_sender(
        &self,
        sender: &SenderId,
        attempts: &[OpenAttempt],
        share: SignedDuration,
    ) -> Result<bool, RoundError> {
        if !attempts.iter().any(is_unread) {
            return Ok(false);
        }
        let ahead_until = self.ledger.now() + share;
        let cursor = self.ledger.cursor(sender).await?;
        self.pass_read(attempts, cursor).await?;
        let (mut next, mut swept) = (self.read_next(attempts, cursor).await?, false);
        loop {
            let read = match next {
                Next::Nothing => return Ok(swept),
                Next::TooEarly { swept_to, first_look } => {
                    self.ledger.advance_cursor(sender, swept_to, first_look).await?;
                    return Ok(swept);
                }
                Next::Read(read) => read,
            };
            // Where this one can't be applied, what was read after it is dropped: the list counts as read in order. A gateway that
            // is away must not keep it from being applied.
            let ahead = async { Ok(self.read_ahead(sender, &read, ahead_until).await) };
            let ((), ahead) = futures::try_join!(self.apply_window(sender, &read), ahead)?;
            (next, swept) = (ahead?, true);
        }
    }

    /// Reads the window that follows one which is being applied.
    async fn read_ahead(&self, sender: &SenderId, read: &ReadWindow, until: Timestamp) -> Result<Next, RoundError> {
        if self.ledger.now() >= until {
            return Ok(Next::Nothing);
        }
        let attempts = self.ledger.open_attempts(ATTEMPTS_A_ROUND).await?;
        let of_sender: Vec<OpenAttempt> = attempts.into_iter().filter(|attempt| attempt.sender == *sender).collect();
        // Which of the pending texts are ours is known once the window is applied.
        let pending = read.reading.texts.pending().count() as u64;
        self.read_next(&of_sender, Some(read.cursor(pending))).await
    }

    /// Chooses the next window of a sender and reads it. `cursor`: how far its list is read once all before is applied.
    async fn read_next(
        &self,
        attempts: &[OpenAttempt],
        cursor: Option<(i64, SignedDuration)>,
    ) -> Result<Next, RoundError> {
        let skew = self.skew().await?;
        let second = |at| Self::gateway_second(at, skew);
        let ended = |attempt: &OpenAttempt| self.ended_second(attempt, skew);
        let (swept_to, first_look) = cursor.unwrap_or((i64::MIN, self.settings.first_look));
        let unread: Vec<&OpenAttempt> = attempts.iter().filter(|a| is_unread(a) && ended(a) > swept_to).collect();
        let Some(sender) = unread.first().map(|attempt| &attempt.sender) else { return Ok(Next::Nothing) };
        let mut recipients = 0;
        let enough = unread.iter().find(|attempt| {
            recipients += attempt.recipients;
            recipients > RECIPIENTS_A_WINDOW
        });
        let state = Unread {
            now: second(self.ledger.now()),
            swept_to: cursor.map(|(swept_to, _)| swept_to),
            oldest_sent: unread.iter().map(|a| second(a.sending_at)).min().unwrap_or(i64::MAX),
            oldest_ended: unread.iter().map(|a| ended(a)).min().unwrap_or(i64::MAX),
            sending_since: attempts.iter().filter(|a| a.sending).map(|a| second(a.sending_at)).min(),
            more_to_come: self.ledger.more_to_send().await?,
            recipients,
            enough_at: enough.map(|attempt| second(attempt.sending_at)),
        };
        let Some(window) = sweep::next_window(&state, &self.pace(first_look)) else { return Ok(Next::Nothing) };
        let sampled = recipients >= SAMPLED_FROM && first_look < sweep::LONGEST_FIRST_LOOK;
        if sampled && !self.is_mostly_final(sender, window).await? {
            let first_look = sweep::learn_first_look(first_look, 1, 1);
            return Ok(Next::TooEarly { swept_to: window.since - 1, first_look });
        }
        let Some(reading) = self.read_still(sender, window).await? else { return Ok(Next::Nothing) };
        let passed = unread.into_iter().filter(|attempt| ended(attempt) <= window.until).cloned().collect();
        Ok(Next::Read(ReadWindow { window, reading, first_look, passed }))
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

    /// Passes attempts that the list was read past before: a look for something else reads up to now, and they need no window of
    /// their own.
    async fn pass_read(
        &self,
        attempts: &[OpenAttempt],
        cursor: Option<(i64, SignedDuration)>,
    ) -> Result<(), RoundError> {
        let Some((swept_to, first_look)) = cursor else { return Ok(()) };
        let skew = self.skew().await?;
        let is_passed = |attempt: &&OpenAttempt| is_unread(attempt) && self.ended_second(attempt, skew) <= swept_to;
        let passed: Vec<OpenAttempt> = attempts.iter().filter(is_passed).cloned().collect();
        self.pass(&passed, first_look).await
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

    /// The second of the gateway's clock by which an attempt had ended.
    fn ended_second(&self, attempt: &OpenAttempt, skew: SignedDuration) -> i64 {
        Self::gateway_second(self.ended(attempt), skew) + sweep::DATE_CUT
    }

    /// Reads a window that follows the last one, and applies it. Answers false when the reading does not count.
    pub(crate) async fn sweep_window(
        &self,
        sender: &SenderId,
        window: Window,
        first_look: SignedDuration,
    ) -> Result<bool, RoundError> {
        let Some(reading) = self.read_still(sender, window).await? else { return Ok(false) };
        self.apply_window(sender, &ReadWindow { window, reading, first_look, passed: Vec::new() }).await?;
        Ok(true)
    }

    async fn read_still(&self, sender: &SenderId, window: Window) -> Result<Option<Reading>, RoundError> {
        let reading = self.read_window(CallClass::Status, sender, None, window).await?;
        if reading.is_none() {
            tokio::time::sleep(AFTER_A_MOVE).await;
        }
        Ok(reading)
    }

    /// Applies a window, follows what is pending, moves the cursor and passes attempts.
    async fn apply_window(&self, sender: &SenderId, read: &ReadWindow) -> Result<(), RoundError> {
        let ReadWindow { window, reading, first_look, passed } = read;
        let skew = self.skew().await?;
        let now = self.ledger.now();
        let applied = self.ledger.apply_listing(sender, &reading.texts, skew, now).await?;
        self.ledger.note_reading(&reading.noted(sender, None, *window, applied.found, skew), now).await?;
        if applied.unexplained > 0 {
            tracing::error!(
                sender = %sender,
                texts.unexplained = applied.unexplained,
                "the list shows texts from our sender that nothing here explains: who else sends from it?"
            );
        }
        let (listed, pending) = (reading.texts.len() as u64, applied.pending);
        tracing::debug!(sender = %sender, list.rows = listed, list.pending = pending, rows.found = applied.found, "read a window");
        let (swept_to, learned) = read.cursor(pending);
        // Where texts take minutes, so do those that were not final yet.
        let again = self.settings.first_look.max(learned / 4);
        let seen = PendingWindow { id: -1, window: *window, listed, looks: 1 };
        self.follow(sender, &reading.texts, seen, pending, again).await?;
        self.ledger.advance_cursor(sender, swept_to, learned).await?;
        self.pass(passed, *first_look).await
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
        let Some(reading) = self.read_window(CallClass::Status, sender, None, window.window).await? else {
            return Ok(false);
        };
        let skew = self.skew().await?;
        let now = self.ledger.now();
        let applied = self.ledger.apply_listing(sender, &reading.texts, skew, now).await?;
        self.ledger.note_reading(&reading.noted(sender, None, window.window, applied.found, skew), now).await?;
        let seen = PendingWindow { listed: reading.texts.len() as u64, looks: window.looks + 1, ..window };
        self.follow(sender, &reading.texts, seen, applied.pending, self.settings.first_look).await?;
        Ok(true)
    }

    /// Follows the pending texts of a window by whatever costs fewer calls.
    async fn follow(
        &self,
        sender: &SenderId,
        texts: &Listing,
        window: PendingWindow,
        rows_pending: u64,
        first_wait: SignedDuration,
    ) -> Result<(), RoundError> {
        let now = self.ledger.now();
        let at = now + sweep::wait_before_look(first_wait, window.looks - 1);
        // Only the details give up and hold what stays pending for ever.
        let too_old = window.window.until < (now - self.settings.give_up).as_second();
        match sweep::follow(window.listed, rows_pending) {
            Follow::Done => self.ledger.drop_window(window.id).await?,
            Follow::Reread if !too_old => self.ledger.keep_window(sender, &window, at).await?,
            Follow::Details | Follow::Reread => {
                self.ledger.ask_details(&texts.pending().collect::<Vec<_>>(), at).await?;
                self.ledger.drop_window(window.id).await?;
            }
        }
        Ok(())
    }
}
