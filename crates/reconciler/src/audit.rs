//! The second look: attempts whose texts a sweep did not find, whether their answer was lost or said that all was well.

use crate::{Reconciler, RoundError, SLOWEST_LAG, odd::Odd, reading::Purpose};
use campaign::{
    Msisdn, RowId, SenderId,
    resolve::{self, Decision, Evidence, Policy},
    sweep::{self, Window},
};
use jiff::{SignedDuration, Timestamp};
use ledger::OpenAttempt;

/// Attempts of one sender that are looked at together.
const ATTEMPTS_A_LOOK: u32 = 50;

impl Reconciler {
    /// Looks again for what was not found, and decides where two looks agree.
    pub(crate) async fn audit(&self) -> Result<(), RoundError> {
        let mut odd = Odd::default();
        for sender in self.ledger.open_senders().await? {
            let due = self.ledger.due_attempts(&sender, self.ledger.now(), ATTEMPTS_A_LOOK).await?;
            if !due.is_empty() {
                odd.set_aside(self.look(&sender, &due).await)?;
            }
        }
        odd.told()
    }

    async fn look(&self, sender: &SenderId, due: &[OpenAttempt]) -> Result<(), RoundError> {
        let began = self.ledger.now();
        let settle = self.settle().await?;
        self.read_tail(sender).await?;
        if !self.look_for(sender, due, began, settle).await? {
            // The list moved. It may go on moving, and looking comes before sending in the call budget: not at once again.
            let now = self.ledger.now();
            for attempt in due {
                let at = now + sweep::wait_before_look(self.settings.first_look, attempt.looks);
                self.ledger.look_again(attempt, at, None).await?;
            }
            return Ok(());
        }
        let ids: Vec<_> = due.iter().map(|attempt| attempt.id).collect();
        let settled = self.ledger.settle_found(&ids, self.ledger.now()).await?;
        let skew = self.skew().await?;
        let swept_to = self.ledger.cursor(sender).await?.map(|(swept_to, _)| swept_to);
        let more_to_come = self.ledger.more_to_send().await?;
        let last_accepted = self.ledger.last_accepted(sender).await?;
        for attempt in due {
            if settled.contains(&attempt.id) {
                // It was absent at the last look, and this one was due soon after: a reconciler that was away is no lag.
                let listed_by = attempt.look_at.map_or(began, |due| due.min(began));
                let lag = listed_by.duration_since(attempt.sending_at).as_millis();
                self.ledger.learn_max(SLOWEST_LAG, i64::try_from(lag).unwrap_or(i64::MAX), began).await?;
                continue;
            }
            // A text that the gateway sent late is listed late: absence counts only where the list was read that far.
            let read_far_enough = swept_to.is_some_and(|swept_to| {
                swept_to >= Self::gateway_second(self.ended(attempt) + settle, skew) - sweep::CLOSED_AFTER - 1
            });
            let later = last_accepted.is_some_and(|at| at > self.ended(attempt));
            self.decide(attempt, began, settle, read_far_enough, more_to_come || later).await?;
        }
        Ok(())
    }

    /// Reads the list from where the last sweep ended up to now, so that late texts are seen.
    async fn read_tail(&self, sender: &SenderId) -> Result<(), RoundError> {
        let skew = self.skew().await?;
        let Some((swept_to, first_look)) = self.ledger.cursor(sender).await? else { return Ok(()) };
        let mut until = Self::gateway_second(self.ledger.now(), skew) - sweep::CLOSED_AFTER;
        if let Some(sending) = self.ledger.sending_since(sender).await? {
            until = until.min(Self::gateway_second(sending, skew) - sweep::SKEW_MARGIN - 1);
        }
        if until > swept_to {
            self.sweep_window(sender, Window { since: swept_to + 1, until }, first_look).await?;
        }
        Ok(())
    }

    /// Reads the windows of attempts again, or asks for each absent number where that costs fewer calls. Answers false when
    /// a reading does not count.
    async fn look_for(
        &self,
        sender: &SenderId,
        due: &[OpenAttempt],
        began: Timestamp,
        settle: SignedDuration,
    ) -> Result<bool, RoundError> {
        let skew = self.skew().await?;
        let mut absent: Vec<RowId> = Vec::new();
        for attempt in due {
            absent.extend(self.ledger.absent_rows(attempt).await?);
        }
        let windows: Vec<Window> = due
            .iter()
            .map(|attempt| {
                let (sent, ended) = (attempt.sending_at, self.ended(attempt));
                // The gateway may send it as late as a settle after the call, and list it later still, when the sweeps have
                // passed that time: a look that may count reads that far itself.
                let ended = if began >= ended + settle { ended + settle } else { ended };
                sweep::window_of(Self::gateway_second(sent, skew), Self::gateway_second(ended, skew))
            })
            .collect();
        let windows = sweep::join(windows);
        let mut pages = 0;
        for window in &windows {
            let at = |second| Timestamp::from_second(second).unwrap_or_default() - skew;
            let listed = self.ledger.recipients_between(sender, at(window.since), at(window.until)).await?;
            pages += listed.div_ceil(10).max(1);
        }
        let receivers: Vec<Option<(RowId, Msisdn)>> = if (absent.len() as u64) < pages {
            self.ledger.destinations_of(&absent).await?.into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        let closed = Self::gateway_second(self.ledger.now(), skew) - sweep::CLOSED_AFTER;
        let whole = Window {
            since: windows.first().map_or(0, |window| window.since),
            until: windows.last().map_or(0, |window| window.until),
        };
        for receiver in receivers {
            let ranges = if receiver.is_some() { std::slice::from_ref(&whole) } else { &windows };
            for window in ranges {
                let window = Window { until: window.until.min(closed), ..*window };
                if self.read_window(Purpose::Look, sender, receiver, window).await?.listed.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn decide(
        &self,
        attempt: &OpenAttempt,
        began: Timestamp,
        settle: SignedDuration,
        read_far_enough: bool,
        proof_may_come: bool,
    ) -> Result<(), RoundError> {
        let absent = self.ledger.absent_rows(attempt).await?;
        let policy = Policy { settle, on_absent: self.settings.on_absent, give_up: self.settings.prove_within };
        let evidence = Evidence {
            accepted: attempt.accepted,
            sender_done_at: attempt.ended_at,
            sending_at: attempt.sending_at,
            looked_at: began,
            absent: &absent,
            before: attempt.before.as_ref().map(|(at, rows)| (*at, rows.as_slice())),
            later_text_listed: self.ledger.later_text_listed(&attempt.sender, self.ended(attempt)).await?,
            list_is_proven: self.ledger.list_is_proven(&attempt.sender, self.settings.proof_recipients_min).await?,
            proof_may_come,
        };
        let now = self.ledger.now();
        match resolve::decide(&evidence, &policy) {
            Decision::Settled => {
                self.ledger.settle_found(&[attempt.id], now).await?;
            }
            _ if !read_far_enough && began >= self.ended(attempt) + settle => {
                self.ledger.look_again(attempt, now + SignedDuration::from_secs(1), None).await?;
            }
            Decision::LookAgain { at, counts } => {
                // Looking sooner than it can count costs calls but shows a slow text to a person earlier.
                let sooner = now + sweep::wait_before_look(self.settings.first_look, attempt.looks);
                let at = if counts { at } else { at.min(sooner) };
                self.ledger.look_again(attempt, at, counts.then_some((began, &absent))).await?;
            }
            Decision::Hold(why) => {
                let held = self.ledger.hold(attempt, &absent, why, now).await?;
                telemetry::rows_became("held", held);
                tracing::error!(attempt.id = %attempt.id, rows.held = held, "{}; a person must decide: crier held", why.sentence());
            }
            Decision::Resend => {
                let (queued, held) = self.ledger.resend(attempt, &absent, now).await?;
                telemetry::rows_became("queued", queued);
                telemetry::rows_became("held", held);
                tracing::warn!(attempt.id = %attempt.id, rows.queued = queued, rows.held = held, "proven absent from the list; queued once more");
            }
        }
        Ok(())
    }
}
