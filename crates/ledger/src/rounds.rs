//! What calls and chunks need of the ledger at one moment, in one commit: a transaction costs much, and more of the same in it little.

use crate::{
    ClaimedBatch, Ledger, OwnerGuard, Recorded, Result, SendingBatch,
    claims::count,
    db::{Dialect, quick_tx, sql},
    error::During,
    feed::json_ids,
    opt_outs::{Gate, pass_gate},
    outcomes::{ACCEPTED, accept_attempts},
    time::ms,
    transitions::rest_chunk,
    writer::{Later as _, later},
};
#[cfg(feature = "simulated")]
use campaign::mutant::Mutant;
use campaign::{ChunkId, OwnerId};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeSet, HashSet},
    ops::RangeInclusive,
};

/// What is done together.
#[derive(Debug, Default)]
pub struct Round<'a> {
    /// Calls that are to be made: each is marked as being sent unless it was taken back, its campaign was paused, a row of it expired,
    /// somebody in it has opted out, or its process was taken for dead.
    pub begin: Vec<ClaimedBatch>,
    /// Calls of which the gateway said that it took them, and told no ids.
    pub taken: Vec<&'a SendingBatch>,
    /// Chunks of which nothing is left to be begun or recorded, with whose they are: each is done, or waits until its next row is due.
    pub rest: Vec<(ChunkId, OwnerId)>,
}

/// What a round did.
#[derive(Debug)]
pub struct Rounded {
    /// The calls to be made, in their order; none where it may not be made now: then it is to be taken back, if it is still ours.
    pub begun: Vec<Option<MarkedBatch>>,
    /// The how manieth begun calls of the ledger they are: no other ones have these numbers, unless the ledger was restored.
    /// None when none of them may go out.
    pub calls: Option<RangeInclusive<i64>>,
    /// What became of those that the gateway took, in their order.
    pub recorded: Vec<Recorded>,
}

/// A batch that is marked as being sent. A crash of its process leaves its outcome unknown, never unsent; one of the machine might still
/// forget the mark: [`Ledger::lasting`].
#[derive(Debug)]
pub struct MarkedBatch(ClaimedBatch);

/// Whether a batch may go out now.
#[derive(Debug)]
pub enum Start {
    /// It is marked: send it now, within seconds.
    Send(SendingBatch),
    /// It was taken back: its rows are queued again, or someone else's by now.
    TakenBack,
}

impl Round<'_> {
    /// What a crash in it is about.
    fn operation(&self) -> &'static str {
        if !self.begin.is_empty() {
            "mark a batch as being sent"
        } else if !self.taken.is_empty() {
            "record the outcome of a batch"
        } else {
            "finish a chunk"
        }
    }
}

/// Marks attempts as being sent, unless the ledger is in quarantine: `$1` their ids, `$2` their owners, `$3` now, `$4` the opt-outs that
/// there were when all of their rows were looked at. Answers each that is, with how many calls have begun.
///
/// Scalar subqueries: as joins, and beside a look at rows that is never made, Postgres reads all attempts of the campaign.
fn mark(dialect: Dialect, look: Look) -> String {
    let opted_out = "EXISTS (SELECT 1 FROM messages m WHERE m.id BETWEEN attempts.first_row AND attempts.last_row
        AND m.attempt_id = attempts.id
        AND EXISTS (SELECT 1 FROM suppressions s WHERE s.destination = m.destination AND s.sender IN ('', m.sender)))";
    let nobody = match look {
        Look::Never => String::new(),
        Look::Always => format!("AND NOT {opted_out}"),
        Look::IfSince => format!("AND ((SELECT opt_outs FROM quarantine) = $4 OR NOT {opted_out})"),
    };
    format!(
        "UPDATE attempts SET state = 'sending', sending_at = $3
         WHERE id {} AND state = 'formed' AND owner_id {} AND (SELECT since FROM quarantine) IS NULL
           AND (SELECT c.state FROM campaigns c WHERE c.id = attempts.campaign_id) = 'active'
           AND (SELECT w.id FROM owners w WHERE w.id = attempts.owner_id AND w.ended_at IS NULL) IS NOT NULL
           {nobody}
         RETURNING id, (SELECT started FROM quarantine)",
        dialect.ids(1),
        dialect.ids(2)
    )
}

/// Whether to look for people who have opted out since their rows were looked at.
enum Look {
    Never,
    Always,
    /// If there are other opt-outs than there were.
    IfSince,
}

fn attempts<'a>(batches: impl IntoIterator<Item = &'a ClaimedBatch>) -> String {
    json_ids(batches.into_iter().map(|batch| batch.attempt.0))
}

fn owners<'a>(batches: impl IntoIterator<Item = &'a ClaimedBatch>) -> String {
    json_ids(batches.into_iter().map(|batch| batch.owner.0).collect::<BTreeSet<_>>())
}

impl Ledger {
    /// Does what calls and chunks need, all of it or nothing. What is begun may be sent once it is [`Ledger::lasting`].
    pub async fn round(&self, round: Round<'_>, first_look: SignedDuration, now: Timestamp) -> Result<Rounded> {
        let operation = round.operation();
        let Round { begin, taken, mut rest } = round;
        // In an order that all keep: or two processes may wait for each other's chunks.
        rest.sort_unstable();
        let may_begin = || begin.iter().filter(|batch| batch.valid_until.is_none_or(|until| until > now));
        let taken = || taken.iter().map(|sending| &sending.0);
        // Most often nobody has opted out since their claims: then their rows need not be looked at again.
        let claimed_at = begin.iter().map(|batch| batch.opt_outs).min();
        let looked_at = claimed_at.filter(|least| begin.iter().all(|batch| batch.opt_outs == *least)).unwrap_or(-1);
        // The attempts that are as they should be; those that begin with how many calls have begun, the others with 0.
        let done = quick_tx!(self, operation, |tx, dialect| {
            if !begin.is_empty() {
                pass_gate!(tx, Gate::Claim, dialect, operation);
            }
            for (chunk, owner) in &rest {
                rest_chunk!(tx, dialect, chunk, owner.0, now, operation);
            }
            let mut done: Vec<(i64, i64)> = Vec::new();
            if taken().next().is_some() {
                let (attempts, owners, look_at) = (attempts(taken()), owners(taken()), ms(now + first_look));
                let accept = accept_attempts(dialect) + " RETURNING id, CAST(0 AS BIGINT)";
                // On SQLite it goes with the last statement, and so does what it answers.
                if dialect == Dialect::Sqlite && !begin.is_empty() {
                    later!(tx, accept, [attempts, owners, ms(now), ACCEPTED, look_at]).during(operation)?;
                } else {
                    let accept = sqlx::query_as(sql(accept));
                    done = accept
                        .bind(attempts)
                        .bind(owners)
                        .bind(ms(now))
                        .bind(ACCEPTED)
                        .bind(look_at)
                        .fetch_all(if begin.is_empty() { tx.closing() } else { &mut *tx })
                        .await
                        .during(operation)?;
                }
            }
            if !begin.is_empty() {
                // Locks the row: a quarantine that begins at this moment is seen, and numbers are in the order of the commits. Late
                // in the transaction: all processes wait for it.
                let numbered = "UPDATE quarantine SET started = started + $1 WHERE since IS NULL";
                let look = match dialect {
                    Dialect::Sqlite => {
                        later!(tx, numbered, [count(begin.len())]).during(operation)?;
                        Some(Look::IfSince)
                    }
                    Dialect::Postgres => {
                        let opt_outs: Option<i64> = sqlx::query_scalar(sql(format!("{numbered} RETURNING opt_outs")))
                            .bind(count(begin.len()))
                            .fetch_optional(&mut *tx)
                            .await
                            .during(operation)?;
                        opt_outs.map(|found| if found == looked_at { Look::Never } else { Look::Always })
                    }
                };
                #[cfg(feature = "simulated")]
                let look =
                    look.map(|look| if Mutant::OptOutCheckedBeforeClaimOnly.is_on() { Look::Never } else { look });
                // None: the ledger is in quarantine. That may end at this moment, but what is not numbered does not begin.
                if let Some(look) = look {
                    let mark = sqlx::query_as(sql(mark(dialect, look)));
                    let mark = mark.bind(attempts(may_begin())).bind(owners(&begin)).bind(ms(now));
                    let mark = if dialect == Dialect::Sqlite { mark.bind(looked_at) } else { mark };
                    let marked: Vec<(i64, i64)> = mark.fetch_all(tx.closing()).await.during(operation)?;
                    done.extend(marked);
                }
            }
            done
        });
        let is_done: HashSet<i64> = done.iter().map(|(attempt, _)| *attempt).collect();
        let recorded = taken().map(|batch| match is_done.contains(&batch.attempt.0) {
            true => Recorded::Done,
            false => Recorded::ResolvedMeanwhile,
        });
        let recorded = recorded.collect();
        let last = done.iter().map(|(_, begun)| *begun).max().filter(|last| *last > 0);
        let calls = last.map(|last| last - count(begin.len()) + 1..=last);
        let begun = begin.into_iter().map(|batch| is_done.contains(&batch.attempt.0).then_some(MarkedBatch(batch)));
        Ok(Rounded { begun: begun.collect(), calls, recorded })
    }

    /// Waits until the marks of batches survive a crash of the machine: then they may be sent, within seconds.
    pub async fn lasting(&self, marked: Vec<Option<MarkedBatch>>) -> Result<Vec<Option<SendingBatch>>> {
        #[cfg(not(feature = "simulated"))]
        if let crate::db::Db::Sqlite(db) = &self.db {
            db.disk.wait().await.during("wait for the disk")?;
        }
        Ok(marked.into_iter().map(|marked| marked.map(|MarkedBatch(batch)| SendingBatch(batch))).collect())
    }

    /// Marks a batch as being sent, or takes it back: a round of one, which lasts.
    pub async fn start(&self, batch: ClaimedBatch, now: Timestamp) -> Result<Start> {
        let unsent = batch.unsent();
        let round = Round { begin: vec![batch], ..Round::default() };
        let begun = self.round(round, SignedDuration::ZERO, now).await?.begun;
        match self.lasting(begun).await?.pop().flatten() {
            Some(sending) => Ok(Start::Send(sending)),
            None => self.take_back(unsent, "not begun", now).await.map(|()| Start::TakenBack),
        }
    }

    /// Ends the work on a chunk: a round of this alone.
    pub async fn finish_chunk(&self, chunk: ChunkId, owner: &OwnerGuard, now: Timestamp) -> Result<()> {
        let round = Round { rest: vec![(chunk, owner.id())], ..Round::default() };
        self.round(round, SignedDuration::ZERO, now).await.map(|_| ())
    }
}
