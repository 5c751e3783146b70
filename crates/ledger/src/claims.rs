//! The way of a chunk from the queue to the gateway: claim, send, record.
//!
//! A chunk is claimed by one worker at a time; its batches are written down with their destinations before a byte of
//! them may leave. Each value is consumed by the step that uses it up: a batch can be started once and recorded once.

use crate::{
    ErrorKind, Event, Ledger, OwnerGuard, Result,
    db::{sql, write_tx},
    error::During,
    events::append_event,
    feed::{json_ids, ms_of},
    time::{instant, ms},
};
use campaign::{
    AttemptId, ChunkId, Msisdn, Outcome, OwnerId, RowId, SenderId, TextId,
    batch::{self, Sendable},
    outcome::{Ambiguous, Blame, NotSent},
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::HashMap, sync::Arc};

/// What a claim brought.
#[derive(Debug)]
pub enum Claim {
    /// The job is stale: the chunk is done, or another worker has it.
    NotForUs,
    /// The campaign is paused or cancelled; the chunk waits.
    Paused,
    /// The batches to send, in order. Empty when no row of the chunk may be sent now.
    Batches(Vec<ClaimedBatch>),
}

/// A batch that is written down but not begun: no byte of it has left.
#[derive(Debug)]
pub struct ClaimedBatch {
    attempt: AttemptId,
    chunk: ChunkId,
    owner: OwnerId,
    /// From whom.
    pub sender: SenderId,
    /// What.
    pub text: Arc<str>,
    /// To whom, in the order in which the call names them.
    pub destinations: Vec<Msisdn>,
    rows: Vec<RowId>,
    /// The earliest time at which a row of it expires.
    pub valid_until: Option<Timestamp>,
}

/// A batch that is marked as being sent. It ends by [`Ledger::record`] or [`Ledger::take_back`], or as unknown.
#[derive(Debug)]
pub struct SendingBatch(ClaimedBatch);

impl ClaimedBatch {
    /// Its attempt.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// What takes it back, as long as no byte of it has left.
    pub fn unsent(&self) -> Unsent {
        Unsent { attempt: self.attempt, chunk: self.chunk }
    }
}

/// Names a batch of which no byte has left.
#[derive(Clone, Copy, Debug)]
pub struct Unsent {
    attempt: AttemptId,
    chunk: ChunkId,
}

impl SendingBatch {
    /// What is being sent.
    pub fn batch(&self) -> &ClaimedBatch {
        &self.0
    }
}

/// Whether a batch may go out now.
#[derive(Debug)]
pub enum Start {
    /// It is marked: send it now, within seconds.
    Send(SendingBatch),
    /// It was taken back: its rows are queued again, or someone else's by now.
    TakenBack,
}

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

/// How long a row waits behind another open text to the same recipient before it is looked at again.
const BEHIND_ANOTHER: SignedDuration = SignedDuration::from_secs(5);

/// A live row: its text may be on its way and is not yet told apart by an `sms_id`. The same words as the index
/// `one_open_attempt_per_recipient`, or the index would not be used.
const LIVE: &str = "o.sms_id IS NULL AND o.state IN ('sending', 'unknown', 'held', 'accepted')";

#[derive(sqlx::FromRow)]
struct Candidate {
    id: i64,
    destination: i64,
    sender: String,
    text_id: i64,
    valid_until: Option<i64>,
}

/// Wakes a chunk that was put to rest before a row of it was queued again.
macro_rules! wake_chunk {
    ($tx:expr, $chunk:expr, $due:expr, $operation:expr) => {
        sqlx::query("UPDATE chunks SET state = 'waiting', due_at = $2 WHERE id = $1 AND state = 'done'")
            .bind($chunk.0)
            .bind($due)
            .execute(&mut *$tx)
            .await
            .during($operation)?
    };
}
pub(crate) use wake_chunk;

/// Releases an attempt of which no byte has left, and queues its rows again. Zero rows: someone else had released it.
macro_rules! release_attempt {
    ($tx:expr, $attempt:expr, $chunk:expr, $from:literal, $why:expr, $not_before:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        let released = sqlx::query(concat!(
            "UPDATE attempts SET state = 'released', ended_at = $2, outcome = $3 WHERE id = $1 AND ended_at IS NULL
             AND state IN (",
            $from,
            ")"
        ))
        .bind($attempt)
        .bind(ms($now))
        .bind($why)
        .execute(&mut *$tx)
        .await
        .during($operation)?
        .rows_affected();
        if released == 1 {
            sqlx::query(
                "UPDATE messages SET state = 'queued', attempt_id = NULL, attempts = attempts - 1, sent_via = NULL,
                    not_before = $5, updated_at = $4
                 WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state IN ('sending', 'unknown') AND sms_id IS NULL",
            )
            .bind(first.0)
            .bind(last.0)
            .bind($attempt)
            .bind(ms($now))
            .bind($not_before)
            .execute(&mut *$tx)
            .await
            .during($operation)?;
            wake_chunk!($tx, $chunk, ms($now), $operation);
        }
    }};
}

/// Queues the rows of an attempt again that certainly did nothing.
macro_rules! requeue {
    ($tx:expr, $batch:expr, $from:literal, $reason:expr, $not_before:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $batch.chunk.row_range();
        sqlx::query(concat!(
            "UPDATE messages SET state = 'queued', attempt_id = NULL, reason = $5, not_before = $6, updated_at = $4
             WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND sms_id IS NULL AND state IN (",
            $from,
            ")"
        ))
        .bind(first.0)
        .bind(last.0)
        .bind($batch.attempt.0)
        .bind(ms($now))
        .bind($reason)
        .bind($not_before)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
        wake_chunk!($tx, $batch.chunk, $not_before, $operation);
    }};
}

/// Rejects rows that the gateway refused as wrong. They were queued again a statement earlier, in the same transaction.
macro_rules! reject {
    ($tx:expr, $batch:expr, $rows:expr, $reason:expr, $now:expr, $operation:expr, $dialect:expr) => {{
        sqlx::query(sql(format!(
            "UPDATE messages SET state = 'rejected', reason = $2, final_at = $3, updated_at = $3, attempt_id = $4,
                not_before = NULL
             WHERE id IN {} AND state = 'queued'",
            $dialect.ids(1)
        )))
        .bind(json_ids($rows.map(|row| row.0)))
        .bind($reason)
        .bind(ms($now))
        .bind($batch.attempt.0)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
    }};
}

/// Puts a chunk to rest: done when none of its rows is queued, else waiting until the first is due.
macro_rules! rest_chunk {
    ($tx:expr, $chunk:expr, $owner:expr, $now:expr, $operation:expr) => {{
        let (first, last) = $chunk.row_range();
        let (queued, due): (i64, Option<i64>) = sqlx::query_as(
            "SELECT count(*), min(CASE WHEN coalesce(not_before, 0) > coalesce(scheduled_for, 0)
                THEN not_before ELSE coalesce(scheduled_for, 0) END)
             FROM messages WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')",
        )
        .bind(first.0)
        .bind(last.0)
        .fetch_one(&mut *$tx)
        .await
        .during($operation)?;
        sqlx::query(
            "UPDATE chunks SET state = $3, due_at = $4, owner_id = NULL WHERE id = $1 AND state = 'working' AND owner_id = $2",
        )
        .bind($chunk.0)
        .bind($owner)
        .bind(if queued > 0 { "waiting" } else { "done" })
        .bind(due.unwrap_or(ms($now)))
        .execute(&mut *$tx)
        .await
        .during($operation)?;
    }};
}
impl Ledger {
    /// Claims what may be sent of a chunk: still queued, due, valid, not opted out, and with no other open text to the same
    /// (sender, number). Writes an attempt for each batch and commits.
    pub async fn claim(
        &self,
        chunk: ChunkId,
        owner: &OwnerGuard,
        batch_len_max: usize,
        now: Timestamp,
    ) -> Result<Claim> {
        for _ in 0..3 {
            match self.try_claim(chunk, owner.id(), batch_len_max, now).await {
                // Two workers met at one recipient: the other has committed, and is seen now.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => return other,
            }
        }
        self.try_claim(chunk, owner.id(), batch_len_max, now).await
    }

    async fn try_claim(&self, chunk: ChunkId, owner: OwnerId, batch_len_max: usize, now: Timestamp) -> Result<Claim> {
        let operation = "claim a chunk";
        let (first, last) = chunk.row_range();
        let claim = write_tx!(self, operation, |tx, dialect| {
            let found: Option<(i64, String, String, Option<i64>)> = sqlx::query_as(sql(format!(
                "SELECT k.campaign_id, k.state, c.state, k.batch_len_max FROM chunks k
                 JOIN campaigns c ON c.id = k.campaign_id WHERE k.id = $1{}",
                if dialect.for_update().is_empty() { "" } else { " FOR UPDATE OF k" }
            )))
            .bind(chunk.0)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?;
            let Some((campaign, chunk_state, campaign_state, halved)) = found else { return Ok(Claim::NotForUs) };
            if chunk_state != "fed" {
                return Ok(Claim::NotForUs);
            }
            let runs = campaign_state == "active";
            sqlx::query("UPDATE chunks SET state = $2, owner_id = $3 WHERE id = $1 AND state = 'fed'")
                .bind(chunk.0)
                .bind(if runs { "working" } else { "waiting" })
                .bind(owner.0)
                .execute(&mut *tx)
                .await
                .during(operation)?;
            if runs {
                sqlx::query(
                    "UPDATE messages SET state = 'expired', reason = 'valid_until passed before it was sent',
                        final_at = $3, updated_at = $3
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled') AND valid_until <= $3",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?;
                sqlx::query(
                    "UPDATE messages SET state = 'suppressed', reason = 'opted out before it was sent',
                        final_at = $3, updated_at = $3
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled') AND EXISTS
                        (SELECT 1 FROM suppressions s
                         WHERE s.destination = messages.destination AND s.sender IN ('', messages.sender))",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?;
                sqlx::query(sql(format!(
                    "UPDATE messages SET not_before = $4, updated_at = $3,
                        reason = CASE WHEN EXISTS (SELECT 1 FROM messages o WHERE o.sender = messages.sender
                            AND o.destination = messages.destination AND {LIVE} AND o.state = 'held')
                            THEN 'waits behind a held row to the same number from the same sender'
                            ELSE 'waits for an earlier text to the same number from the same sender' END
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')
                       AND (not_before IS NULL OR not_before <= $3) AND (scheduled_for IS NULL OR scheduled_for <= $3)
                       AND EXISTS (SELECT 1 FROM messages o WHERE o.sender = messages.sender
                            AND o.destination = messages.destination AND {LIVE})"
                )))
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .bind(ms(now + BEHIND_ANOTHER))
                .execute(&mut *tx)
                .await
                .during(operation)?;
                let candidates: Vec<Candidate> = sqlx::query_as(
                    "SELECT id, destination, sender, text_id, valid_until FROM messages
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')
                       AND (not_before IS NULL OR not_before <= $3) AND (scheduled_for IS NULL OR scheduled_for <= $3)
                     ORDER BY id",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                let expiries: HashMap<i64, i64> =
                    candidates.iter().filter_map(|row| Some((row.id, row.valid_until?))).collect();
                let halved = halved.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
                let batches = batch::form(sendable(candidates), batch_len_max.min(halved));
                let texts = {
                    let mut ids: Vec<i64> = batches.iter().map(|batch| batch.text.0).collect();
                    ids.dedup();
                    let bodies: Vec<(i64, String)> =
                        sqlx::query_as(sql(format!("SELECT id, body FROM texts WHERE id IN {}", dialect.ids(1))))
                            .bind(json_ids(ids))
                            .fetch_all(&mut *tx)
                            .await
                            .during(operation)?;
                    bodies.into_iter().map(|(id, body)| (TextId(id), Arc::from(body))).collect::<HashMap<_, Arc<str>>>()
                };
                let mut claimed = Vec::with_capacity(batches.len());
                for batch in batches {
                    let sent_via = if batch.rows.len() == 1 { "send" } else { "bulk" };
                    let ids = json_ids(batch.rows.iter().map(|(row, _)| row.0));
                    let attempt: i64 = sqlx::query_scalar(
                        "INSERT INTO attempts (campaign_id, chunk_id, sender, text_id, sent_via, state, owner_id,
                                               row_ids, formed_at, recipients)
                         VALUES ($1, $2, $3, $4, $5, 'formed', $6, $7, $8, $9) RETURNING id",
                    )
                    .bind(campaign)
                    .bind(chunk.0)
                    .bind(batch.sender.as_str())
                    .bind(batch.text.0)
                    .bind(sent_via)
                    .bind(owner.0)
                    .bind(&ids)
                    .bind(ms(now))
                    .bind(i64::try_from(batch.rows.len()).unwrap_or(0))
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    sqlx::query(sql(format!(
                        "UPDATE messages SET state = 'sending', reason = NULL, not_before = NULL, attempt_id = $2,
                            attempts = attempts + 1, sent_via = $3, attempted_at = $4, updated_at = $4
                         WHERE id IN {} AND state IN ('queued', 'scheduled')",
                        dialect.ids(1)
                    )))
                    .bind(&ids)
                    .bind(attempt)
                    .bind(sent_via)
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                    claimed.push(ClaimedBatch {
                        attempt: AttemptId(attempt),
                        chunk,
                        owner,
                        sender: batch.sender,
                        text: texts.get(&batch.text).cloned().unwrap_or_else(|| Arc::from("")),
                        valid_until: batch
                            .rows
                            .iter()
                            .filter_map(|(row, _)| expiries.get(&row.0))
                            .min()
                            .copied()
                            .map(instant),
                        destinations: batch.rows.iter().map(|(_, destination)| *destination).collect(),
                        rows: batch.rows.into_iter().map(|(row, _)| row).collect(),
                    });
                }
                Claim::Batches(claimed)
            } else {
                Claim::Paused
            }
        });
        Ok(claim)
    }

    /// Marks a batch as being sent, unless it was taken back, its campaign was paused, a row of it expired, or this
    /// process was taken for dead. After this commit a crash leaves the outcome unknown, never unsent.
    pub async fn start(&self, batch: ClaimedBatch, now: Timestamp) -> Result<Start> {
        let operation = "mark a batch as being sent";
        let expired = batch.valid_until.is_some_and(|until| until <= now);
        let started = write_tx!(self, operation, |tx, dialect| {
            let started = if expired {
                0
            } else {
                sqlx::query(
                    "UPDATE attempts SET state = 'sending', sending_at = $3
                     WHERE id = $1 AND state = 'formed' AND owner_id = $2
                       AND EXISTS (SELECT 1 FROM campaigns c WHERE c.id = attempts.campaign_id AND c.state = 'active')
                       AND EXISTS (SELECT 1 FROM owners w WHERE w.id = $2 AND w.ended_at IS NULL)",
                )
                .bind(batch.attempt.0)
                .bind(batch.owner.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected()
            };
            if started == 0 {
                release_attempt!(
                    tx,
                    batch.attempt.0,
                    batch.chunk,
                    "'formed'",
                    "not begun",
                    None::<i64>,
                    now,
                    operation
                );
            }
            started
        });
        Ok(if started == 1 { Start::Send(SendingBatch(batch)) } else { Start::TakenBack })
    }

    /// Takes back a batch of which certainly no byte has left, begun or not: its rows are queued again.
    pub async fn take_back(&self, unsent: Unsent, why: &'static str, now: Timestamp) -> Result<()> {
        let operation = "take a batch back unsent";
        write_tx!(self, operation, |tx, dialect| {
            // 'unknown' while its sender was frozen: the sender itself says that nothing left.
            release_attempt!(
                tx,
                unsent.attempt.0,
                unsent.chunk,
                "'formed', 'sending', 'unknown'",
                why,
                None::<i64>,
                now,
                operation
            );
        });
        Ok(())
    }

    /// Records what a send call did: here a row's outcome is decided.
    pub async fn record(
        &self,
        batch: &SendingBatch,
        outcome: &Outcome,
        retry: &RetryPolicy,
        first_look: SignedDuration,
        now: Timestamp,
    ) -> Result<Recorded> {
        let operation = "record the outcome of a batch";
        let batch = &batch.0;
        let (first, last) = batch.chunk.row_range();
        let words = words_of(outcome);
        let recorded = write_tx!(self, operation, |tx, dialect| {
            let (state, look_at) = match outcome {
                Outcome::Accepted { sms_id: Some(_) } => ("settled", None),
                Outcome::Accepted { sms_id: None } => ("accepted", Some(ms(now + first_look))),
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
                return Ok(Recorded::ResolvedMeanwhile);
            }
            match outcome {
                Outcome::Accepted { sms_id } => {
                    sqlx::query(
                        "UPDATE messages SET state = 'accepted', reason = NULL, accepted_at = $4, updated_at = $4,
                            sms_id = coalesce(sms_id, $5), id_source = coalesce(id_source, $6), check_at = $7
                         WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state IN ('sending', 'unknown')",
                    )
                    .bind(first.0)
                    .bind(last.0)
                    .bind(batch.attempt.0)
                    .bind(ms(now))
                    .bind(sms_id.map(|id| id.0))
                    .bind(sms_id.map(|_| "response"))
                    .bind(sms_id.map(|_| ms(now + first_look)))
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
                    let detail = format!("{words}: {} rows unknown until the list has been read", batch.rows.len());
                    let event = Event { attempt: Some(batch.attempt), ..Event::new("unknown", "worker", detail) };
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
            Recorded::Done
        });
        Ok(recorded)
    }

    /// Ends the work on a chunk: it is done, or waits until its next row is due.
    pub async fn finish_chunk(&self, chunk: ChunkId, owner: &OwnerGuard, now: Timestamp) -> Result<()> {
        let operation = "finish a chunk";
        write_tx!(self, operation, |tx, dialect| {
            rest_chunk!(tx, chunk, owner.id().0, now, operation);
        });
        Ok(())
    }

    /// Takes back what the dead and the silent left behind: batches that were never begun are queued again, begun ones
    /// become unknown. Answers how many attempts became unknown.
    ///
    /// The end of a begun attempt counts from when its owner's death was proven, and not before its request must have
    /// ended; an attempt whose owner is only silent has no end yet, so nothing is decided about it.
    pub async fn sweep_owners(&self, lease: SignedDuration, send_limit: SignedDuration, now: Timestamp) -> Result<u64> {
        let operation = "take back what dead workers left";
        let unknown = write_tx!(self, operation, |tx, dialect| {
            let left: Vec<(i64, i64, String, Option<i64>, i64, Option<i64>)> = sqlx::query_as(
                "SELECT a.id, a.chunk_id, a.state, a.sending_at, a.owner_id, w.ended_at
                 FROM attempts a JOIN owners w ON w.id = a.owner_id
                 WHERE a.state IN ('formed', 'sending', 'unknown') AND a.ended_at IS NULL
                   AND (w.ended_at IS NOT NULL OR a.formed_at < $1) ORDER BY a.id LIMIT 1000",
            )
            .bind(ms(now) - ms_of(lease))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            let mut unknown = 0;
            for (attempt, chunk, state, sending_at, owner, owner_ended_at) in left {
                let chunk = ChunkId(chunk);
                let (first, last) = chunk.row_range();
                if state == "formed" {
                    release_attempt!(
                        tx,
                        attempt,
                        chunk,
                        "'formed'",
                        "its worker was gone before it was begun",
                        None::<i64>,
                        now,
                        operation
                    );
                    rest_chunk!(tx, chunk, owner, now, operation);
                    continue;
                }
                let silent = sending_at.is_some_and(|at| at < ms(now) - ms_of(lease));
                if owner_ended_at.is_none() && (state == "unknown" || !silent) {
                    continue;
                }
                let done = owner_ended_at.map(|ended| ended.max(sending_at.unwrap_or(ended) + ms_of(send_limit)));
                let became = sqlx::query(
                    "UPDATE attempts SET state = 'unknown', ended_at = $2, outcome = $3, look_at = $4
                     WHERE id = $1 AND state IN ('sending', 'unknown') AND ended_at IS NULL",
                )
                .bind(attempt)
                .bind(done)
                .bind(if done.is_some() {
                    "its worker died while sending"
                } else {
                    "its worker was not heard of while sending"
                })
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected();
                unknown += became;
                sqlx::query(
                    "UPDATE messages SET state = 'unknown', updated_at = $4,
                        reason = 'its worker died or froze while it was being sent'
                     WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'sending'",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(attempt)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?;
                let event = Event {
                    attempt: Some(AttemptId(attempt)),
                    ..Event::new("unknown", "reconciler", "its worker was gone while it was being sent")
                };
                append_event!(tx, event, now).during(operation)?;
            }
            let orphans: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT k.id, k.owner_id FROM chunks k JOIN owners w ON w.id = k.owner_id
                 WHERE k.state = 'working' AND w.ended_at IS NOT NULL LIMIT 1000",
            )
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            for (chunk, owner) in orphans {
                rest_chunk!(tx, ChunkId(chunk), owner, now, operation);
            }
            unknown
        });
        Ok(unknown)
    }
}

fn sendable(rows: Vec<Candidate>) -> impl Iterator<Item = Sendable> {
    rows.into_iter().filter_map(|row| {
        Some(Sendable {
            row: RowId(row.id),
            destination: Msisdn::from_digits(row.destination.cast_unsigned())?,
            sender: SenderId::parse(&row.sender).ok()?,
            text: TextId(row.text_id),
        })
    })
}

/// The outcome as the row's story tells it.
fn words_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { .. } => "accepted".to_owned(),
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
