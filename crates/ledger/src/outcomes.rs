//! What a send call did, written down: here a row's outcome is decided.

use crate::{
    ClaimedBatch, Event, Ledger, Result, SendingBatch,
    db::{Dialect, quick_tx, sql},
    error::During,
    events::append_event,
    feed::json_ids,
    time::ms,
    transitions::{reject, requeue, wake_chunk},
};
use campaign::{
    Outcome, RowId,
    outcome::{Ambiguous, Blame, NotSent},
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeSet, HashSet};

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

/// Whether the gateway took the texts and told no id.
fn is_taken(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted { sms_id: None })
}

/// Writes into rows that the gateway took them: `$1` an array of them, `$2` one of their attempts, `$3` now. What an index hangs on stays
/// out: it would be written anew at a random place for each row.
fn accepted(dialect: Dialect) -> String {
    format!(
        "UPDATE messages SET state = 'accepted', reason = NULL, accepted_at = $3, updated_at = $3
         WHERE id {} AND attempt_id {} AND sms_id IS NULL AND state IN ('sending', 'unknown')",
        dialect.ids(1),
        dialect.ids(2)
    )
}

/// Records that the gateway took batches and told no ids, in two statements for all of them. Answers the attempts that were not resolved
/// meanwhile.
macro_rules! accept_all {
    ($tx:expr, $dialect:expr, $batches:expr, $first_look:expr, $now:expr, $operation:expr) => {{
        let batches: &[&ClaimedBatch] = $batches;
        let ended: HashSet<i64> = sqlx::query_scalar(sql(format!(
            "UPDATE attempts SET state = 'accepted', ended_at = $3, outcome = $4, look_at = $5
             WHERE id {} AND owner_id {} AND state IN ('sending', 'unknown') RETURNING id",
            $dialect.ids(1),
            $dialect.ids(2)
        )))
        .bind(json_ids(batches.iter().map(|batch| batch.attempt.0)))
        .bind(json_ids(batches.iter().map(|batch| batch.owner.0).collect::<BTreeSet<_>>()))
        .bind(ms($now))
        .bind(ACCEPTED)
        .bind(ms($now + $first_look))
        .fetch_all(&mut *$tx)
        .await
        .during($operation)?
        .into_iter()
        .collect();
        let taken = batches.iter().filter(|batch| ended.contains(&batch.attempt.0));
        sqlx::query(sql(accepted($dialect)))
            .bind(json_ids(taken.flat_map(|batch| batch.rows.iter().map(|row| row.0))))
            .bind(json_ids(ended.iter().copied()))
            .bind(ms($now))
            .execute(&mut *$tx)
            .await
            .during($operation)?;
        ended
    }};
}

impl Ledger {
    /// Records what a send call did: [`Ledger::record_all`] of one.
    pub async fn record(
        &self,
        batch: &SendingBatch,
        outcome: &Outcome,
        retry: &RetryPolicy,
        first_look: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded> {
        Ok(self.record_all(&[(batch, outcome)], retry, first_look, now).await?[0])
    }

    /// Records what send calls did, of all or of none: here a row's outcome is decided.
    pub async fn record_all(
        &self,
        calls: &[(&SendingBatch, &Outcome)],
        retry: &RetryPolicy,
        first_look: SignedDuration,
        now: Timestamp,
    ) -> Result<Vec<Recorded>> {
        let operation = "record the outcome of a batch";
        let recorded = quick_tx!(self, operation, |tx, dialect| {
            let mut all = Vec::with_capacity(calls.len());
            let taken: Vec<&ClaimedBatch> =
                calls.iter().filter(|(_, outcome)| is_taken(outcome)).map(|(batch, _)| &batch.0).collect();
            let ended = match taken.is_empty() {
                true => HashSet::new(),
                false => accept_all!(tx, dialect, &taken, first_look, now, operation),
            };
            for (SendingBatch(batch), outcome) in calls {
                if is_taken(outcome) {
                    all.push(if ended.contains(&batch.attempt.0) {
                        Recorded::Done
                    } else {
                        Recorded::ResolvedMeanwhile
                    });
                    continue;
                }
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
                    all.push(Recorded::ResolvedMeanwhile);
                    continue;
                }
                match outcome {
                    Outcome::Accepted { sms_id } => {
                        sqlx::query(
                            "UPDATE messages SET state = 'accepted', reason = NULL, accepted_at = $4, updated_at = $4, sms_id = $5,
                                id_source = 'response', live = NULL, check_at = $6
                             WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND sms_id IS NULL AND state IN ('sending', 'unknown')",
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
                        sqlx::query(
                            "UPDATE messages SET state = 'unknown', reason = $5, updated_at = $4
                         WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'sending'",
                        )
                        .bind(first.0)
                        .bind(last.0)
                        .bind(batch.attempt.0)
                        .bind(ms(now))
                        .bind(&words)
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
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
                        let asked =
                            retry_after.and_then(|wait| SignedDuration::try_from(wait).ok()).unwrap_or_default();
                        let wait = retry.wait(attempts.unwrap_or(1)).max(asked);
                        requeue!(tx, batch, "'sending', 'unknown'", &words, ms(now + wait), now, operation);
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
                        requeue!(
                            tx,
                            batch,
                            "'sending', 'unknown'",
                            "another row of its batch was refused",
                            again,
                            now,
                            operation
                        );
                        reject!(tx, batch, blamed.into_iter(), &reason, now, operation, dialect);
                    }
                }

                all.push(Recorded::Done);
            }
            all
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
