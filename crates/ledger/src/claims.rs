//! The way of a chunk from the queue to the gateway: claim, send, record.
//!
//! A chunk is claimed by one worker at a time; its batches are written down with their destinations before a byte of
//! them may leave. Each value is consumed by the step that uses it up: a batch can be started once and recorded once.

use crate::{
    ErrorKind, Ledger, OwnerGuard, Result,
    db::{Dialect, quick_tx, sql, write_tx},
    error::During,
    feed::json_ids,
    opt_outs::{Gate, pass_gate},
    rates::{BEHIND_RATE, lock_sender_rates, turns},
    time::{instant, ms},
    transitions::{release_attempt, rest_chunk, wake_chunk},
};
use campaign::{
    AttemptId, ChunkId, Msisdn, OwnerId, RowId, SenderId, TextId,
    batch::{self, Sendable},
    quiet::{Hours, Window},
    rate::Rate,
};
use jiff::{SignedDuration, Timestamp};
use sqlx::types::Json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// What a claim brought.
#[derive(Debug)]
pub enum Claim {
    /// The job is stale: the chunk is done, or another worker has it.
    NotForUs,
    /// The campaign is paused or cancelled, or the ledger is in quarantine; the chunk waits.
    Paused,
    /// The batches to send, in order. Empty when no row of the chunk may be sent now.
    Batches(Vec<ClaimedBatch>),
}

/// A batch that is written down but not begun: no byte of it has left.
#[derive(Debug)]
pub struct ClaimedBatch {
    pub(crate) attempt: AttemptId,
    pub(crate) chunk: ChunkId,
    pub(crate) owner: OwnerId,
    /// From whom.
    pub sender: SenderId,
    /// What.
    pub text: Arc<str>,
    /// To whom, in the order in which the call names them.
    pub destinations: Vec<Msisdn>,
    pub(crate) rows: Vec<RowId>,
    /// The earliest time at which a row of it expires or its hours end.
    pub valid_until: Option<Timestamp>,
    /// The opt-outs that were entered up to its claim, which looked at each.
    opt_outs: i64,
}

/// A batch that is marked as being sent. It ends by [`Ledger::record`] or [`Ledger::take_back`], or as unknown.
#[derive(Debug)]
pub struct SendingBatch(pub(crate) ClaimedBatch, i64);

impl ClaimedBatch {
    /// Its attempt.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The first and the last of its rows: all of them are within.
    pub(crate) fn span(&self) -> (RowId, RowId) {
        let (first, last) = self.chunk.row_range();
        (self.rows.iter().min().copied().unwrap_or(first), self.rows.iter().max().copied().unwrap_or(last))
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

    /// The how manieth begun call of the ledger it is: no other one has this number, unless the ledger was restored.
    pub fn nth_begun(&self) -> i64 {
        self.1
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

/// How long a row waits behind another open text to the same recipient before it is looked at again.
const BEHIND_ANOTHER: SignedDuration = SignedDuration::from_secs(5);

/// The reason of a row that waits until a person decides about another one.
pub(crate) const BEHIND_HELD: &str = "waits behind a held row to the same number from the same sender";

/// A live row: its text may be on its way and is not yet told apart by an `sms_id`. The words of the index
/// `one_open_attempt_per_recipient`.
pub(crate) const LIVE: &str = "o.live IS NOT NULL";

/// Has the rows of a chunk wait that are due and behind a live row.
///
/// The live row's state is a scalar subquery, at most one row by the unique index: an EXISTS may be hashed by Postgres, which
/// then reads the whole table for one chunk.
fn wait_behind() -> String {
    #[cfg(feature = "simulated")]
    if campaign::mutant::Mutant::NoLiveKeyLock.is_on() {
        return "UPDATE messages SET updated_at = $3 WHERE id BETWEEN $1 AND $2 AND $3 = $4".to_owned();
    }
    format!(
        "UPDATE messages SET not_before = $4, updated_at = $3,
            reason = CASE (SELECT o.state FROM messages o WHERE o.sender = messages.sender
                AND o.destination = messages.destination AND {LIVE})
                WHEN 'held' THEN '{BEHIND_HELD}'
                ELSE 'waits for an earlier text to the same number from the same sender' END
         WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')
           AND (not_before IS NULL OR not_before <= $3) AND (scheduled_for IS NULL OR scheduled_for <= $3)
           AND (SELECT o.state FROM messages o WHERE o.sender = messages.sender
                AND o.destination = messages.destination AND {LIVE}) IS NOT NULL"
    )
}

/// The rows of a chunk that may be sent now, each as a [`Candidate`].
fn candidates(dialect: Dialect) -> String {
    dialect.packed(
        "id, destination, sender, text_id, valid_until",
        "messages WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')
            AND (not_before IS NULL OR not_before <= $3) AND (scheduled_for IS NULL OR scheduled_for <= $3)",
    )
}

/// Texts by their ids.
macro_rules! text_bodies {
    ($tx:expr, $dialect:expr, $ids:expr, $operation:expr) => {{
        let ids: BTreeSet<i64> = $ids.collect();
        let bodies: Vec<(i64, String)> =
            sqlx::query_as(sql(format!("SELECT id, body FROM texts WHERE id {}", $dialect.ids(1))))
                .bind(json_ids(ids))
                .fetch_all(&mut *$tx)
                .await
                .during($operation)?;
        bodies.into_iter().map(|(id, body)| (id, Arc::from(body))).collect::<HashMap<i64, Arc<str>>>()
    }};
}
pub(crate) use text_bodies;

/// A row that may be sent now.
#[derive(serde::Deserialize)]
struct Candidate {
    id: i64,
    destination: i64,
    sender: String,
    text_id: i64,
    valid_until: Option<i64>,
}

/// The chunk that a claim is about, and what its campaign says.
#[derive(sqlx::FromRow)]
struct Found {
    campaign: i64,
    chunk_state: String,
    campaign_state: String,
    batch_len_max: Option<i64>,
    quiet: Option<String>,
    weekdays: Option<String>,
    zone: Option<String>,
    rate_us: Option<i64>,
    quarantined: i64,
    opt_outs: i64,
}

/// Rows by whether people may be texted now.
#[derive(Default)]
struct ByHours {
    /// When the hours of a row end that may be sent now, in milliseconds.
    open: HashMap<i64, i64>,
    /// The rows that may not be sent, by when they may.
    closed: BTreeMap<Timestamp, Vec<i64>>,
}

impl Found {
    /// Takes the rows out whose people may not be texted now.
    fn by_hours(&self, candidates: &mut Vec<Candidate>, now: Timestamp) -> ByHours {
        let mut split = ByHours::default();
        let zone = self.zone.as_deref().unwrap_or("Europe/London");
        // What can't be read was never written: hours are checked before a campaign is loaded.
        let Ok(Some(hours)) = Hours::parse(self.quiet.as_deref(), self.weekdays.as_deref(), zone) else { return split };
        let mut windows = HashMap::new();
        candidates.retain(|row| {
            let country = Msisdn::from_digits(row.destination.cast_unsigned()).and_then(Msisdn::region);
            match windows.entry(country).or_insert_with(|| hours.window(country, now)) {
                Window::Open { until } => {
                    split.open.insert(row.id, ms(*until));
                    true
                }
                Window::Closed { until } => {
                    split.closed.entry(*until).or_default().push(row.id);
                    false
                }
            }
        });
        split
    }
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
        // A stale job commits too: a dropped transaction would keep its lock until the connection is used again.
        let claim = quick_tx!(self, operation, |tx, dialect| 'claim: {
            pass_gate!(tx, Gate::Claim, dialect, operation);
            let found: Option<Found> = sqlx::query_as(sql(format!(
                "SELECT k.campaign_id AS campaign, k.state AS chunk_state, c.state AS campaign_state, k.batch_len_max,
                        c.quiet, c.weekdays, c.zone, c.rate_us, (SELECT count(*) FROM quarantine WHERE since IS NOT NULL) AS quarantined,
                        (SELECT opt_outs FROM quarantine) AS opt_outs
                 FROM chunks k
                 JOIN campaigns c ON c.id = k.campaign_id WHERE k.id = $1{}",
                if dialect.for_update().is_empty() { "" } else { " FOR UPDATE OF k" }
            )))
            .bind(chunk.0)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?;
            let Some(found) = found else { break 'claim Claim::NotForUs };
            let (campaign, halved) = (found.campaign, found.batch_len_max);
            if found.chunk_state != "fed" {
                break 'claim Claim::NotForUs;
            }
            let runs = found.campaign_state == "active" && found.quarantined == 0;
            sqlx::query("UPDATE chunks SET state = $2, owner_id = $3, feeds = 0 WHERE id = $1 AND state = 'fed'")
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
                sqlx::query(sql(wait_behind()))
                    .bind(first.0)
                    .bind(last.0)
                    .bind(ms(now))
                    .bind(ms(now + BEHIND_ANOTHER))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                let Json(mut candidates): Json<Vec<Candidate>> = sqlx::query_scalar(sql(candidates(dialect)))
                    .bind(first.0)
                    .bind(last.0)
                    .bind(ms(now))
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                candidates.sort_unstable_by_key(|row| row.id);
                let split = found.by_hours(&mut candidates, now);
                for (until, rows) in split.closed {
                    sqlx::query(sql(format!(
                        "UPDATE messages SET not_before = $3, updated_at = $2, reason = $4
                         WHERE id {} AND state IN ('queued', 'scheduled')",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(rows))
                    .bind(ms(now))
                    .bind(ms(until))
                    .bind(format!("waits for its hours, until {until}"))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                // Two texts to one recipient in one chunk go one after the other, too.
                let mut recipients = HashSet::new();
                let mut behind = Vec::new();
                candidates.retain(|row| {
                    let first = recipients.insert((row.sender.clone(), row.destination));
                    #[cfg(feature = "simulated")]
                    let first = first || campaign::mutant::Mutant::NoLiveKeyLock.is_on();
                    if !first {
                        behind.push(row.id);
                    }
                    first
                });
                if !behind.is_empty() {
                    sqlx::query(sql(format!(
                        "UPDATE messages SET not_before = $3, updated_at = $2,
                            reason = 'waits for an earlier text to the same number from the same sender'
                         WHERE id {} AND state IN ('queued', 'scheduled')",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(behind))
                    .bind(ms(now))
                    .bind(ms(now + BEHIND_ANOTHER))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                let senders: BTreeSet<String> = candidates.iter().map(|row| row.sender.clone()).collect();
                let rates = lock_sender_rates!(tx, dialect, senders, operation);
                for (rate, spread_to, rows) in without_room(&mut candidates, &rates, now) {
                    let mut rows = rows.into_iter();
                    for (when, count) in turns(rate, spread_to, rows.len()) {
                        sqlx::query(sql(format!(
                            "UPDATE messages SET not_before = $3, updated_at = $2, reason = $4
                             WHERE id {} AND state IN ('queued', 'scheduled')",
                            dialect.ids(1)
                        )))
                        .bind(json_ids(rows.by_ref().take(count)))
                        .bind(ms(now))
                        .bind(when)
                        .bind(BEHIND_RATE)
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                    }
                }
                if let Some(text_us) = found.rate_us {
                    // Locked: the claims of all workers share the campaign's rate.
                    let spread_to: i64 = sqlx::query_scalar(sql(format!(
                        "SELECT rate_from FROM campaigns WHERE id = $1{}",
                        dialect.for_update()
                    )))
                    .bind(campaign)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    let (allowed, after) = Rate { text_us }.allowed(spread_to, now.as_microsecond());
                    candidates.truncate(usize::try_from(allowed).unwrap_or(0));
                    sqlx::query("UPDATE campaigns SET rate_from = $2 WHERE id = $1")
                        .bind(campaign)
                        .bind(after(i64::try_from(candidates.len()).unwrap_or(0)))
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                for (sender, (rate, spread_to)) in rates {
                    let taken = candidates.iter().filter(|row| row.sender == sender).count();
                    let (_, after) = rate.allowed(spread_to, now.as_microsecond());
                    sqlx::query("UPDATE sender_rates SET rate_from = $2 WHERE sender = $1")
                        .bind(sender)
                        .bind(after(i64::try_from(taken).unwrap_or(0)))
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                let ends = |row: &Candidate| row.valid_until.into_iter().chain(split.open.get(&row.id).copied()).min();
                let expiries: HashMap<i64, i64> =
                    candidates.iter().filter_map(|row| Some((row.id, ends(row)?))).collect();
                let halved = halved.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
                let batches = batch::form(sendable(candidates), batch_len_max.min(halved));
                let texts = text_bodies!(tx, dialect, batches.iter().map(|batch| batch.text.0), operation);
                let mut claimed = Vec::with_capacity(batches.len());
                for batch in batches {
                    let sent_via = if batch.rows.len() == 1 { "send" } else { "bulk" };
                    let ids = json_ids(batch.rows.iter().map(|(row, _)| row.0));
                    let attempt: i64 = sqlx::query_scalar(
                        "INSERT INTO attempts (campaign_id, chunk_id, sender, text_id, sent_via, state, owner_id,
                                               row_ids, formed_at, recipients, first_row, last_row)
                         VALUES ($1, $2, $3, $4, $5, 'formed', $6, $7, $8, $9, $10, $11) RETURNING id",
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
                    .bind(batch.rows.iter().map(|(row, _)| row.0).min())
                    .bind(batch.rows.iter().map(|(row, _)| row.0).max())
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    sqlx::query(sql(format!(
                        "UPDATE messages SET state = 'sending', live = 1, reason = NULL, not_before = NULL, attempt_id = $2,
                            attempts = attempts + 1, sent_via = $3, attempted_at = $4, updated_at = $4
                         WHERE id {} AND state IN ('queued', 'scheduled')",
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
                        text: texts.get(&batch.text.0).cloned().unwrap_or_else(|| Arc::from("")),
                        valid_until: batch
                            .rows
                            .iter()
                            .filter_map(|(row, _)| expiries.get(&row.0))
                            .min()
                            .copied()
                            .map(instant),
                        destinations: batch.rows.iter().map(|(_, destination)| *destination).collect(),
                        rows: batch.rows.into_iter().map(|(row, _)| row).collect(),
                        opt_outs: found.opt_outs,
                    });
                }
                Claim::Batches(claimed)
            } else {
                Claim::Paused
            }
        });
        Ok(claim)
    }

    /// Marks a batch as being sent, unless it was taken back, its campaign was paused, a row of it expired, somebody in it
    /// has opted out, or this process was taken for dead. After this commit a crash leaves the outcome unknown, never unsent.
    pub async fn start(&self, batch: ClaimedBatch, now: Timestamp) -> Result<Start> {
        let operation = "mark a batch as being sent";
        let expired = batch.valid_until.is_some_and(|until| until <= now);
        let (first, last) = batch.span();
        #[cfg(feature = "simulated")]
        let (first, last) = match campaign::mutant::Mutant::OptOutCheckedBeforeClaimOnly.is_on() {
            true => (RowId(-1), RowId(-1)),
            false => (first, last),
        };
        let started = write_tx!(self, operation, |tx, dialect| {
            pass_gate!(tx, Gate::Claim, dialect, operation);
            // Locks the row: a quarantine that begins at this moment is seen, and numbers are in the order of the commits.
            let nth: Option<i64> =
                sqlx::query_scalar("UPDATE quarantine SET started = started + 1 WHERE since IS NULL RETURNING started")
                    .fetch_optional(&mut *tx)
                    .await
                    .during(operation)?;
            let started = if expired || nth.is_none() {
                0
            } else {
                sqlx::query(
                    "UPDATE attempts SET state = 'sending', sending_at = $3
                     WHERE id = $1 AND state = 'formed' AND owner_id = $2
                       AND EXISTS (SELECT 1 FROM campaigns c WHERE c.id = attempts.campaign_id AND c.state = 'active')
                       AND EXISTS (SELECT 1 FROM owners w WHERE w.id = $2 AND w.ended_at IS NULL)
                       AND ((SELECT opt_outs FROM quarantine) = $6 OR NOT EXISTS
                            (SELECT 1 FROM messages m WHERE m.id BETWEEN $4 AND $5 AND m.attempt_id = $1
                                AND EXISTS (SELECT 1 FROM suppressions s
                                            WHERE s.destination = m.destination AND s.sender IN ('', m.sender))))",
                )
                .bind(batch.attempt.0)
                .bind(batch.owner.0)
                .bind(ms(now))
                .bind(first.0)
                .bind(last.0)
                // Most often nobody has opted out since the claim: then its rows need not be looked at again.
                .bind(batch.opt_outs)
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
            nth.filter(|_| started == 1)
        });
        Ok(started.map_or(Start::TakenBack, |nth| Start::Send(SendingBatch(batch, nth))))
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

    /// Ends the work on a chunk: it is done, or waits until its next row is due.
    pub async fn finish_chunk(&self, chunk: ChunkId, owner: &OwnerGuard, now: Timestamp) -> Result<()> {
        let operation = "finish a chunk";
        quick_tx!(self, operation, |tx, dialect| {
            rest_chunk!(tx, chunk, owner.id().0, now, operation);
        });
        Ok(())
    }
}

/// Takes the rows out for which their sender's rate has no room now: for each such sender its rate, the moment up to which
/// its texts are spread once the others are taken, and the ids of the rows.
fn without_room(
    candidates: &mut Vec<Candidate>,
    rates: &BTreeMap<String, (Rate, i64)>,
    now: Timestamp,
) -> Vec<(Rate, i64, Vec<i64>)> {
    let mut without = Vec::new();
    for (sender, (rate, spread_to)) in rates {
        let (mut room, after) = rate.allowed(*spread_to, now.as_microsecond());
        let (allowed, mut waiting) = (room, Vec::new());
        candidates.retain(|row| {
            if row.sender != *sender {
                return true;
            }
            room -= 1;
            if room < 0 {
                waiting.push(row.id);
            }
            room >= 0
        });
        if !waiting.is_empty() {
            without.push((*rate, after(allowed), waiting));
        }
    }
    without
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

#[cfg(test)]
mod plans;
