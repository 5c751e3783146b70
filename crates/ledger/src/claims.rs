//! A chunk's way out of the queue: it is claimed by one worker at a time, and its batches are written down with their destinations
//! before a byte of them may leave. Each value is consumed by the step that uses it up: a batch can be begun once.

use crate::{
    ErrorKind, Ledger, OwnerGuard, Result,
    db::{Dialect, quick_tx, sql, write_tx},
    error::{During, Error, Source},
    feed::{json_ids, json_pairs},
    opt_outs::{Gate, pass_gate},
    packs::{AlikePack, InsertClaimed as _, WholePack, kept_from_sending, unpack},
    rates::{BEHIND_RATE, lock_sender_rates, turns},
    time::{instant, ms},
    transitions::{release_attempt, wake_chunk},
    writer::later,
};
use campaign::{
    AttemptId, ChunkId, Msisdn, OwnerId, RowId, SenderId,
    batch::{self, Batch},
    rate::Rate,
};
use jiff::Timestamp;
use sqlx::types::Json;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

mod candidates;
use candidates::{
    Aside, BEHIND_ANOTHER, BEHIND_EARLIER, Candidate, FOUND, Found, candidates, of_pack, sendable, without_room,
};

pub(crate) use candidates::BEHIND_HELD;

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
    pub(crate) opt_outs: i64,
}

/// A batch that is marked as being sent. It ends by [`Ledger::record`] or [`Ledger::take_back`], or as unknown.
#[derive(Debug)]
pub struct SendingBatch(pub(crate) ClaimedBatch);

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
}

/// A live row: its text may be on its way and is not yet told apart by an `sms_id`. The words of the index
/// `one_open_attempt_per_recipient`.
pub(crate) const LIVE: &str = "o.live IS NOT NULL";

/// The attempts of a claim: `$1` the campaign, `$2` the chunk, `$3` the owner, `$4` now, `$5` an array for each with its sender,
/// text, call, rows, how many these are, the first and the last. With `unless_kept` there are none if anything keeps one of the numbers
/// `$6` from being texted by the sender `$7`. Answers each one's first row and its id.
fn insert_attempts(dialect: Dialect, unless_kept: bool) -> String {
    let (each, of) = match dialect {
        Dialect::Sqlite => ("json_each($5)", ""),
        Dialect::Postgres => ("json_array_elements($5::json) AS each (value)", "::bigint"),
    };
    let none_is_kept =
        if unless_kept { format!("WHERE {} = 0", kept_from_sending(dialect, 6, 7)) } else { String::new() };
    format!(
        "INSERT INTO attempts (campaign_id, chunk_id, state, owner_id, formed_at, sender, text_id, sent_via, row_ids, recipients,
                               first_row, last_row)
         SELECT $1, $2, 'formed', $3, $4, value->>0, (value->>1){of}, value->>2, value->>3, (value->>4){of}, (value->>5){of},
                (value->>6){of}
         FROM {each} {none_is_kept} RETURNING first_row, id"
    )
}

/// Writes into rows that they are attempted: `$1` rows and their attempts as the object of [`Dialect::pairs`], `$2` by which call, `$3` now.
fn claimed(dialect: Dialect) -> String {
    format!(
        "UPDATE messages SET state = 'attempted', live = 1, reason = NULL, not_before = NULL, attempt_id = pairs.value,
            attempts = attempts + 1, sent_via = $2, attempted_at = $3, updated_at = $3
         FROM {} WHERE messages.id = pairs.key AND messages.state IN ('queued', 'scheduled')",
        dialect.pairs()
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

/// Writes down why rows are not sent now.
macro_rules! set_aside {
    ($tx:expr, $dialect:expr, $aside:expr, $now:expr, $operation:expr) => {{
        let Aside { expired, opted_out, wait } = $aside;
        for (state, why, rows) in [
            ("expired", "valid_until passed before it was sent", expired),
            ("suppressed", "opted out before it was sent", opted_out),
        ] {
            if !rows.is_empty() {
                sqlx::query(sql(format!(
                    "UPDATE messages SET state = $3, reason = $4, final_at = $2, updated_at = $2
                     WHERE id {} AND state IN ('queued', 'scheduled')",
                    $dialect.ids(1)
                )))
                .bind(json_ids(rows))
                .bind(ms($now))
                .bind(state)
                .bind(why)
                .execute(&mut *$tx)
                .await
                .during($operation)?;
            }
        }
        for ((until, why), rows) in wait {
            sqlx::query(sql(format!(
                "UPDATE messages SET not_before = $3, updated_at = $2, reason = $4
                 WHERE id {} AND state IN ('queued', 'scheduled')",
                $dialect.ids(1)
            )))
            .bind(json_ids(rows))
            .bind(ms($now))
            .bind(until)
            .bind(&*why)
            .execute(&mut *$tx)
            .await
            .during($operation)?;
        }
    }};
}

/// Batches as [`insert_attempts`] is given them.
fn as_attempts(batches: &[Batch]) -> String {
    let attempts = batches.iter().map(|batch| {
        let ids = json_ids(batch.rows.iter().map(|(row, _)| row.0));
        let last = batch.rows.last().map(|(row, _)| row.0);
        (batch.sender.as_str(), batch.text.0, sent_via(batch), ids, batch.rows.len(), first_row(batch), last)
    });
    serde_json::to_string(&attempts.collect::<Vec<_>>()).expect("numbers and words are JSON")
}

/// Attempts by their first rows.
fn by_first_rows(written: Vec<(i64, i64)>) -> HashMap<i64, AttemptId> {
    written.into_iter().map(|(first, id)| (first, AttemptId(id))).collect()
}

/// Claims all rows of a pack as they are, if nothing keeps any of them from being sent now; they are written once, by that. `None`: the
/// pack is to be opened.
macro_rules! claim_pack {
    ($tx:expr, $dialect:expr, $found:expr, $pack:expr, $claimer:expr, $operation:expr) => {
        'whole: {
            let (found, pack, claimer): (&Found, &AlikePack, &Claimer) = ($found, $pack, $claimer);
            let mut rows = of_pack(claimer.chunk, pack);
            let open_until = found.by_hours(&mut rows, &mut Aside::default(), claimer.now);
            let mut recipients = HashSet::new();
            let is_whole = rows.len() == pack.rows.len() && rows.iter().all(|row| recipients.insert(row.destination));
            if !is_whole || found.any_rate > 0 || found.rate_us.is_some() {
                break 'whole None;
            }
            rows.sort_unstable_by_key(|row| row.id);
            let numbers = json_ids(rows.iter().map(|row| row.destination));
            let batches = batch::form(sendable(rows), claimer.batch_len_max(found));
            // All of the pack goes out of it: a row that no attempt names would be lost.
            let claimed = batches.iter().flat_map(|batch| batch.rows.iter().map(|(row, _)| *row));
            if !pack.rows.iter().map(|row| row.id(claimer.chunk)).eq(claimed) {
                let why = "the rows of a pack are not those that are claimed".to_owned();
                return Err(Error::new($operation, Source::Content(why)));
            }
            let written = sqlx::query_as(sql(insert_attempts($dialect, true)))
                .bind(found.campaign)
                .bind(claimer.chunk.0)
                .bind(claimer.owner.0)
                .bind(ms(claimer.now))
                .bind(as_attempts(&batches))
                .bind(numbers)
                .bind(&pack.sender)
                .fetch_all(&mut *$tx)
                .await
                .during($operation)?;
            let ids = by_first_rows(written);
            if ids.is_empty() {
                break 'whole None;
            }
            let attempt = |batch: &Batch| (ids[&first_row(batch)], sent_via(batch));
            let attempts = batches.iter().flat_map(|batch| batch.rows.iter().map(move |_| attempt(batch)));
            let claim = WholePack {
                chunk: claimer.chunk,
                campaign: found.campaign,
                pack,
                attempts: attempts.collect(),
                now: ms(claimer.now),
            };
            $tx.insert_claimed(claim).await.during($operation)?;
            later!($tx, "DELETE FROM packs WHERE chunk_id = $1", [claimer.chunk.0]).during($operation)?;
            let texts = HashMap::from([(pack.text_id, Arc::from(pack.body.as_str()))]);
            Some(claimer.claimed(found, batches, &ids, &texts, &open_until).during($operation)?)
        }
    };
}

/// Writes batches down as attempts, and into their rows that they are attempted. Answers the attempts by their first rows.
macro_rules! write_attempts {
    ($tx:expr, $dialect:expr, $found:expr, $claimer:expr, $batches:expr, $operation:expr) => {{
        let (found, claimer, batches): (&Found, &Claimer, &[Batch]) = ($found, $claimer, $batches);
        let written = sqlx::query_as(sql(insert_attempts($dialect, false)))
            .bind(found.campaign)
            .bind(claimer.chunk.0)
            .bind(claimer.owner.0)
            .bind(ms(claimer.now))
            .bind(as_attempts(batches))
            .fetch_all(&mut *$tx)
            .await
            .during($operation)?;
        let ids = by_first_rows(written);
        let mut written = 0;
        for call in ["bulk", "send"] {
            let of_call = batches.iter().filter(|batch| sent_via(batch) == call);
            let mut rows: Vec<_> = of_call
                .flat_map(|batch| batch.rows.iter().map(|(row, to)| (*to, (row.0, ids[&first_row(batch)].0))))
                .collect();
            // Claims of two campaigns may meet at many recipients: all come to them in one order, or each would wait for
            // the other.
            rows.sort_unstable();
            if rows.is_empty() {
                continue;
            }
            written += sqlx::query(sql(claimed($dialect)))
                .bind(json_pairs(rows.iter().map(|(_, row)| *row)))
                .bind(call)
                .bind(ms(claimer.now))
                .execute(&mut *$tx)
                .await
                .during($operation)?
                .rows_affected();
        }
        // An attempt names its rows: one that is not queued any more would be texted all the same.
        if written != batches.iter().map(|batch| batch.rows.len() as u64).sum::<u64>() {
            let why = "a row of the chunk changed while it was claimed".to_owned();
            return Err(Error::new($operation, Source::Content(why)));
        }
        ids
    }};
}

/// Who claims which chunk, when, and how long its batches may be.
struct Claimer {
    chunk: ChunkId,
    owner: OwnerId,
    batch_len_max: usize,
    now: Timestamp,
}

impl Claimer {
    fn batch_len_max(&self, found: &Found) -> usize {
        let halved = found.batch_len_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        self.batch_len_max.min(halved)
    }

    /// Batches that are written down. `ends`: when rows expire or their hours end.
    fn claimed(
        &self,
        found: &Found,
        batches: Vec<Batch>,
        ids: &HashMap<i64, AttemptId>,
        texts: &HashMap<i64, Arc<str>>,
        ends: &HashMap<i64, i64>,
    ) -> sqlx::Result<Vec<ClaimedBatch>> {
        let claimed = |batch: Batch| {
            // An empty text would go out in its place.
            let text = texts.get(&batch.text.0).cloned();
            let text = text.ok_or_else(|| sqlx::Error::Decode("the text of a row is gone".into()))?;
            Ok(ClaimedBatch {
                attempt: ids[&first_row(&batch)],
                chunk: self.chunk,
                owner: self.owner,
                sender: batch.sender,
                text,
                valid_until: batch.rows.iter().filter_map(|(row, _)| ends.get(&row.0)).min().copied().map(instant),
                destinations: batch.rows.iter().map(|(_, destination)| *destination).collect(),
                rows: batch.rows.into_iter().map(|(row, _)| row).collect(),
                opt_outs: found.opt_outs,
            })
        };
        batches.into_iter().map(claimed).collect()
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
        let claimer = &Claimer { chunk, owner, batch_len_max, now };
        // A stale job commits too: taking a transaction back costs more.
        let claim = quick_tx!(self, operation, |tx, dialect| 'claim: {
            pass_gate!(tx, Gate::Claim, dialect, operation);
            if dialect == Dialect::Postgres {
                // What is read after this is as whoever had the chunk has left it: its pack may be open.
                later!(tx, "SELECT id FROM chunks WHERE id = $1 FOR UPDATE", [chunk.0]).during(operation)?;
            }
            let found: Option<Found> =
                sqlx::query_as(FOUND).bind(chunk.0).fetch_optional(&mut *tx).await.during(operation)?;
            let Some(found) = found else { break 'claim Claim::NotForUs };
            let found = &found;
            if found.chunk_state != "fed" {
                break 'claim Claim::NotForUs;
            }
            let runs = found.campaign_state == "active" && found.quarantined == 0;
            let taken = "UPDATE chunks SET state = $2, owner_id = $3, feeds = 0 WHERE id = $1 AND state = 'fed'";
            let state = if runs { "working" } else { "waiting" };
            later!(tx, taken, [chunk.0, state, owner.0]).during(operation)?;
            if !runs {
                break 'claim Claim::Paused;
            }
            // Each way is a future of its own: one of both would take more than half of a thread's stack where nothing is optimized.
            if let Some(pack) = &found.pack.alike().during(operation)? {
                let whole = async { Ok::<_, Error>(claim_pack!(tx, dialect, found, pack, claimer, operation)) };
                if let Some(claimed) = Box::pin(whole).await? {
                    break 'claim Claim::Batches(claimed);
                }
            }
            let opened = async {
                if found.pack.is_there() {
                    unpack!(tx, dialect, json_ids([chunk.0]), operation);
                }
                let Json(mut candidates): Json<Vec<Candidate>> = sqlx::query_scalar(sql(candidates(dialect)))
                    .bind(first.0)
                    .bind(last.0)
                    .bind(ms(now))
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                candidates.sort_unstable_by_key(|row| row.id);
                let mut aside = Aside::of(&mut candidates, now);
                let open_until = found.by_hours(&mut candidates, &mut aside, now);
                // Two texts to one recipient in one chunk go one after the other, too.
                let mut recipients = HashSet::new();
                candidates.retain(|row| {
                    let first = recipients.insert((row.sender.clone(), row.destination));
                    #[cfg(feature = "simulated")]
                    let first = first || campaign::mutant::Mutant::NoLiveKeyLock.is_on();
                    if !first {
                        aside.waits(ms(now + BEHIND_ANOTHER), BEHIND_EARLIER, row.id);
                    }
                    first
                });
                let senders: BTreeSet<String> = match found.any_rate {
                    0 => BTreeSet::new(),
                    _ => candidates.iter().map(|row| row.sender.clone()).collect(),
                };
                let rates = lock_sender_rates!(tx, dialect, senders, operation);
                for (rate, spread_to, rows) in without_room(&mut candidates, &rates, now) {
                    let mut rows = rows.into_iter();
                    for (when, count) in turns(rate, spread_to, rows.len()) {
                        rows.by_ref().take(count).for_each(|row| aside.waits(when, BEHIND_RATE, row));
                    }
                }
                set_aside!(tx, dialect, aside, now, operation);
                if let Some(text_us) = found.rate_us {
                    // Locked: the claims of all workers share the campaign's rate.
                    let spread_to: i64 = sqlx::query_scalar(sql(format!(
                        "SELECT rate_from FROM campaigns WHERE id = $1{}",
                        dialect.for_update()
                    )))
                    .bind(found.campaign)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    let (allowed, after) = Rate { text_us }.allowed(spread_to, now.as_microsecond());
                    candidates.truncate(usize::try_from(allowed).unwrap_or(0));
                    sqlx::query("UPDATE campaigns SET rate_from = $2 WHERE id = $1")
                        .bind(found.campaign)
                        .bind(after(count(candidates.len())))
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                for (sender, (rate, spread_to)) in rates {
                    let taken = candidates.iter().filter(|row| row.sender == sender).count();
                    let (_, after) = rate.allowed(spread_to, now.as_microsecond());
                    sqlx::query("UPDATE sender_rates SET rate_from = $2 WHERE sender = $1")
                        .bind(sender)
                        .bind(after(count(taken)))
                        .execute(&mut *tx)
                        .await
                        .during(operation)?;
                }
                let ends = |row: &Candidate| row.valid_until.into_iter().chain(open_until.get(&row.id).copied()).min();
                let ends: HashMap<i64, i64> = candidates.iter().filter_map(|row| Some((row.id, ends(row)?))).collect();
                let batches = batch::form(sendable(candidates), claimer.batch_len_max(found));
                let texts = text_bodies!(tx, dialect, batches.iter().map(|batch| batch.text.0), operation);
                let ids = write_attempts!(tx, dialect, found, claimer, &batches, operation);
                claimer.claimed(found, batches, &ids, &texts, &ends).during(operation)
            };
            Claim::Batches(Box::pin(opened).await?)
        });
        Ok(claim)
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
}

/// A number of things as the database has it.
pub(crate) fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}

/// By which call a batch is sent.
fn sent_via(batch: &Batch) -> &'static str {
    if batch.rows.len() == 1 { "send" } else { "bulk" }
}

/// What tells a batch from the others of its chunk; its rows are in their ids' order.
fn first_row(batch: &Batch) -> i64 {
    batch.rows.first().map_or(0, |(row, _)| row.0)
}

#[cfg(test)]
mod plans;
