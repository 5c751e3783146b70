//! What a send call did, written down: here a row's outcome is decided.

use crate::{
    Event, Ledger, Result, Round, SendingBatch,
    db::{Dialect, quick_tx, sql},
    error::During,
    events::append_event,
    feed::json_ids,
    time::ms,
    transitions::{reject, requeue, touch_rows, wake_chunk},
};
use campaign::{
    Outcome, RowId,
    outcome::{Ambiguous, Blame, NotSent},
};
use jiff::{SignedDuration, Timestamp};

/// How recording an outcome went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The rows have their new state.
    Done,
    /// The reconciler had resolved the attempt meanwhile.
    ResolvedMeanwhile,
}

/// How long rows wait after their attempt certainly did nothing.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// After the first; doubled by each further attempt.
    pub first: SignedDuration,
    /// The longest.
    pub longest: SignedDuration,
}

impl RetryPolicy {
    fn wait(&self, attempts: i64) -> SignedDuration {
        let doublings = u32::try_from(attempts.clamp(1, 20) - 1).unwrap_or(0);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// Writes into attempts that the gateway took their texts: `$1` an array of them, `$2` one of their owners, `$3` now, `$4` how it ended, `$5`
/// when to look for them; not into those that were resolved meanwhile. Their rows are accepted by that: `told_rows`.
pub(crate) fn accept_attempts(dialect: Dialect) -> String {
    format!(
        "UPDATE attempts SET state = 'accepted', ended_at = $3, outcome = $4, look_at = $5
         WHERE id {} AND owner_id {} AND state IN ('sending', 'unknown')",
        dialect.ids(1),
        dialect.ids(2)
    )
}

impl Ledger {
    /// Records what a send call did: here a row's outcome is decided.
    pub async fn record(
        &self,
        sending: &SendingBatch,
        outcome: &Outcome,
        retry: &RetryPolicy,
        first_look: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded> {
        if matches!(outcome, Outcome::Accepted { sms_id: None }) {
            let round = Round { taken: vec![sending], ..Round::default() };
            return Ok(self.round(round, first_look, now).await?.recorded[0]);
        }
        let operation = "record the outcome of a batch";
        let batch = &sending.0;
        let recorded = quick_tx!(self, operation, |tx, dialect| 'recorded: {
            let (first, last) = batch.span();
            let words = words_of(outcome);
            let (state, look_at) = match outcome {
                Outcome::Accepted { .. } => ("settled", None),
                Outcome::NotSent { .. } | Outcome::Rejected { .. } => ("refused", None),
                Outcome::Ambiguous { .. } => ("unknown", Some(ms(now + first_look))),
            };
            let ended = sqlx::query(
                "UPDATE attempts SET state = $3, ended_at = $4, outcome = $5, look_at = $6
                 WHERE id = $1 AND owner_id = $2 AND state IN ('sending', 'unknown')",
            )
            .bind(batch.attempt.0)
            .bind(batch.owner.0)
            .bind(state)
            .bind(ms(now))
            .bind(&words)
            .bind(look_at)
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if ended == 0 {
                break 'recorded Recorded::ResolvedMeanwhile;
            }
            match outcome {
                Outcome::Accepted { sms_id } => {
                    sqlx::query(
                            "UPDATE messages SET state = 'accepted', reason = NULL, accepted_at = $4, updated_at = $4, sms_id = $5,
                                id_source = 'response', live = NULL, check_at = $6
                             WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'attempted'",
                        )
                        .bind(first.0)
                        .bind(last.0)
                        .bind(batch.attempt.0)
                        .bind(ms(now))
                        .bind(sms_id.map(|id| id.0))
                        .bind(ms(now + first_look))
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                Outcome::Ambiguous { .. } => {
                    touch_rows!(tx, batch.attempt.0, batch.chunk, now, operation);
                    let event = Event {
                        attempt: Some(batch.attempt),
                        rows: Some(batch.rows.len() as u64),
                        ..Event::new("unknown", "worker", &words)
                    };
                    append_event!(tx, event, now).during(operation)?;
                }
                Outcome::NotSent { why, retry_after } => {
                    let attempts: Option<i64> = sqlx::query_scalar(
                        "SELECT max(attempts) FROM messages WHERE id BETWEEN $1 AND $2 AND attempt_id = $3",
                    )
                    .bind(first.0)
                    .bind(last.0)
                    .bind(batch.attempt.0)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    let asked = retry_after.and_then(|wait| SignedDuration::try_from(wait).ok()).unwrap_or_default();
                    let wait = retry.wait(attempts.unwrap_or(1)).max(asked);
                    requeue!(tx, batch, &words, ms(now + wait), now, operation);
                    if *why == NotSent::TooLarge {
                        sqlx::query("UPDATE chunks SET batch_len_max = $2 WHERE id = $1")
                            .bind(batch.chunk.0)
                            .bind(i64::try_from((batch.rows.len() / 2).max(1)).unwrap_or(1))
                            .execute(&mut *tx)
                            .await
                            .during(operation)?;
                        if batch.rows.len() == 1 {
                            reject!(
                                tx,
                                batch,
                                batch.rows.iter(),
                                "the gateway says that the text is too large",
                                now,
                                operation,
                                dialect
                            );
                        }
                    }
                }
                Outcome::Rejected { blame, message } => {
                    let blamed: Vec<&RowId> = match blame {
                        Blame::All => batch.rows.iter().collect(),
                        Blame::Destinations(places) => places.iter().filter_map(|at| batch.rows.get(*at)).collect(),
                    };
                    // A refusal that names nobody would be met again for ever.
                    let blamed = if blamed.is_empty() { batch.rows.iter().collect() } else { blamed };
                    let reason = format!("the gateway refused it: {message}");
                    let again = ms(now + retry.first);
                    requeue!(tx, batch, "another row of its batch was refused", again, now, operation);
                    reject!(tx, batch, blamed.into_iter(), &reason, now, operation, dialect);
                }
            }

            Recorded::Done
        });
        Ok(recorded)
    }
}

/// The words of an attempt that the gateway said it took.
pub(crate) const ACCEPTED: &str = "accepted";

/// The outcome as the row's story tells it.
fn words_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { .. } => ACCEPTED.to_owned(),
        Outcome::NotSent { why, .. } => match why {
            NotSent::NoConnection => "the gateway could not be reached".to_owned(),
            NotSent::Unauthorized => "the gateway refused the token (401)".to_owned(),
            NotSent::TooLarge => "the gateway said that the request was too large (413)".to_owned(),
            NotSent::RateLimited => "the gateway's call budget was spent (429)".to_owned(),
        },
        Outcome::Rejected { message, .. } => format!("the gateway refused it (422): {message}"),
        Outcome::Ambiguous { why } => match why {
            Ambiguous::TimedOut => "the gateway did not answer in time".to_owned(),
            Ambiguous::Broken => "the connection broke before the answer was complete".to_owned(),
            Ambiguous::Status(status) => format!("the gateway answered {status}, which says nothing of what it did"),
            Ambiguous::Body(status) => format!("the gateway answered {status} without its success message"),
        },
    }
}
