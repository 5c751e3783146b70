//! Attempts whose texts are not all found yet, and how they end.

use crate::{
    Event, Ledger, Result,
    db::{Dialect, quick_tx, read_conn, sql, write_tx},
    error::During,
    events::append_event,
    feed::json_ids,
    outcomes::ACCEPTED,
    time::{instant, ms},
    transitions::wake_chunk,
};
use campaign::{AttemptId, ChunkId, Msisdn, RowId, SenderId, resolve::HoldReason};
use jiff::Timestamp;
use sqlx::types::Json;

/// An attempt that is no longer being made and whose texts are not all found yet.
#[derive(Clone, Debug)]
pub struct OpenAttempt {
    /// Its id.
    pub id: AttemptId,
    /// From whom.
    pub sender: SenderId,
    /// Its chunk.
    pub chunk: ChunkId,
    /// The gateway said that it took it.
    pub accepted: bool,
    /// When it was marked as sending.
    pub sending_at: Timestamp,
    /// When its sender was known to be done with it.
    pub ended_at: Option<Timestamp>,
    /// Rows that it named.
    pub recipients: u64,
    /// When to look for what was not found, once a sweep has passed it.
    pub look_at: Option<Timestamp>,
    /// How many times its window was read.
    pub looks: u32,
    /// The last reading that counts, and what it did not find.
    pub before: Option<(Timestamp, Vec<RowId>)>,
}

/// The condition of the index `attempts_open`.
const OPEN: &str = "state IN ('formed', 'sending', 'accepted', 'unknown')";

/// The first `$2` attempts by this order of which the condition is true, each as an [`AttemptRow`].
fn open_attempts(dialect: Dialect, condition: &str, order: &str) -> String {
    let columns = "id, chunk_id, state, sending_at, ended_at, recipients, look_at, looks, looked_at, absent";
    let open = format!(
        "(SELECT {columns} FROM attempts WHERE {condition} AND sending_at IS NOT NULL ORDER BY {order} LIMIT $2 + 0) AS open"
    );
    dialect.packed(columns, &open)
}

/// In the order of their ids.
fn attempts_of(mut rows: Vec<AttemptRow>, sender: &SenderId) -> Vec<OpenAttempt> {
    rows.sort_unstable_by_key(|row| row.id);
    let attempt = |row: AttemptRow| OpenAttempt {
        id: AttemptId(row.id),
        sender: sender.clone(),
        chunk: ChunkId(row.chunk_id),
        accepted: row.state == "accepted",
        sending_at: instant(row.sending_at),
        ended_at: row.ended_at.map(instant),
        recipients: row.recipients.cast_unsigned(),
        look_at: row.look_at.map(instant),
        looks: u32::try_from(row.looks).unwrap_or(u32::MAX),
        before: row.looked_at.map(|at| (instant(at), rows_of(row.absent.as_deref().unwrap_or("[]")))),
    };
    rows.into_iter().map(attempt).collect()
}

#[derive(serde::Deserialize)]
struct AttemptRow {
    id: i64,
    chunk_id: i64,
    state: String,
    sending_at: i64,
    ended_at: Option<i64>,
    recipients: i64,
    look_at: Option<i64>,
    looks: i64,
    looked_at: Option<i64>,
    absent: Option<String>,
}

/// Ends an attempt before its absent rows are dealt with. Answers 0 when it is no longer as it was read: its worker may have
/// recorded it meanwhile, and then its rows are looked for anew.
macro_rules! end_attempt {
    ($tx:expr, $attempt:expr, $operation:expr) => {
        sqlx::query("UPDATE attempts SET state = 'settled', look_at = NULL WHERE id = $1 AND looks = $2 AND state = $3")
            .bind($attempt.id.0)
            .bind(i64::from($attempt.looks))
            .bind(if $attempt.accepted { "accepted" } else { "unknown" })
            .execute(&mut *$tx)
            .await
            .during($operation)?
            .rows_affected()
    };
}

/// Tells how the absent rows of an attempt were dealt with.
macro_rules! tell {
    ($tx:expr, $attempt:expr, $rows:expr, $kind:expr, $why:expr, $now:expr, $operation:expr) => {{
        let event = Event { attempt: Some($attempt.id), rows: Some($rows), ..Event::new($kind, "reconciler", $why) };
        append_event!($tx, event, $now).during($operation)?;
    }};
}

fn rows_of(json: &str) -> Vec<RowId> {
    let ids: Vec<i64> = serde_json::from_str(json).unwrap_or_default();
    ids.into_iter().map(RowId).collect()
}

impl Ledger {
    /// Senders that have attempts whose texts are not all found, in order.
    pub async fn open_senders(&self) -> Result<Vec<SenderId>> {
        let operation = "read the senders whose attempts are open";
        let senders: Vec<String> = read_conn!(self, operation, |conn, dialect| {
            // From one sender to the next, whatever each has: by its condition the index `attempts_open` is used.
            sqlx::query_scalar(sql(format!(
                "WITH RECURSIVE of (sender) AS (
                    SELECT min(sender) FROM attempts WHERE {OPEN}
                    UNION ALL
                    SELECT (SELECT min(a.sender) FROM attempts a WHERE {OPEN} AND a.sender > of.sender) FROM of
                    WHERE of.sender IS NOT NULL)
                 SELECT sender FROM of WHERE sender IS NOT NULL"
            )))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(senders.iter().filter_map(|sender| SenderId::parse(sender).ok()).collect())
    }

    /// Attempts of a sender that no reading of the list has covered yet and that are no longer being made, oldest first.
    pub async fn unread_attempts(&self, sender: &SenderId, at_most: u32) -> Result<Vec<OpenAttempt>> {
        let operation = "read the attempts that are not read back";
        let Json(rows): Json<Vec<AttemptRow>> = read_conn!(self, operation, |conn, dialect| {
            let unread = format!("{OPEN} AND state <> 'formed' AND state <> 'sending' AND sender = $1 AND looks = 0");
            sqlx::query_scalar(sql(open_attempts(dialect, &unread, "id")))
                .bind(sender.as_str())
                .bind(i64::from(at_most))
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(attempts_of(rows, sender))
    }

    /// Attempts of a sender that a reading has covered without finding all of their texts and that are to be looked for again by now:
    /// of more than so many those that have waited for the longest.
    pub async fn due_attempts(&self, sender: &SenderId, now: Timestamp, at_most: u32) -> Result<Vec<OpenAttempt>> {
        let operation = "read the attempts that are to be looked for";
        let Json(rows): Json<Vec<AttemptRow>> = read_conn!(self, operation, |conn, dialect| {
            // The condition of the index `attempts_looked`, by which those are found that are due.
            let due = "looks > 0 AND look_at IS NOT NULL AND sender = $1 AND look_at <= $3
                AND (state = 'accepted' OR state = 'unknown')";
            sqlx::query_scalar(sql(open_attempts(dialect, due, "look_at")))
                .bind(sender.as_str())
                .bind(i64::from(at_most))
                .bind(ms(now))
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(attempts_of(rows, sender))
    }

    /// When the oldest call of a sender began that is still being made.
    pub async fn sending_since(&self, sender: &SenderId) -> Result<Option<Timestamp>> {
        let operation = "read since when a sender's calls are being made";
        // By the index `attempts_sending`, which holds no others.
        let of_sender = "sender = $1 AND state = 'sending' ORDER BY sending_at";
        self.sent_at(sender, of_sender, operation).await
    }

    /// When the last call of a sender began that the gateway took and whose texts are not all found yet.
    pub async fn last_accepted(&self, sender: &SenderId) -> Result<Option<Timestamp>> {
        let operation = "read a sender's last call that is to be found";
        let of_sender = format!("{OPEN} AND sender = $1 AND state = 'accepted' ORDER BY id DESC");
        self.sent_at(sender, &of_sender, operation).await
    }

    /// When the first of these attempts began.
    async fn sent_at(&self, sender: &SenderId, which: &str, operation: &'static str) -> Result<Option<Timestamp>> {
        let at: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(sql(format!("SELECT sending_at FROM attempts WHERE {which} LIMIT 1")))
                .bind(sender.as_str())
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(at.map(instant))
    }

    /// Which rows of an attempt have no `sms_id`, sorted. Empty: its texts are all found.
    pub async fn absent_rows(&self, attempt: &OpenAttempt) -> Result<Vec<RowId>> {
        let operation = "read which rows of an attempt are not found";
        let (first, last) = attempt.chunk.row_range();
        let rows: Vec<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT id FROM messages WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND state = 'attempted'
                 ORDER BY id",
            )
            .bind(first.0)
            .bind(last.0)
            .bind(attempt.id.0)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows.into_iter().map(RowId).collect())
    }

    /// The numbers of rows, to look for each by itself.
    pub async fn destinations_of(&self, rows: &[RowId]) -> Result<Vec<(RowId, Msisdn)>> {
        let operation = "read the numbers of rows";
        let numbers: Vec<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(format!(
                "SELECT id, destination FROM messages WHERE id {} AND destination IS NOT NULL",
                dialect.ids(1)
            )))
            .bind(json_ids(rows.iter().map(|row| row.0)))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        let number_of = |(row, digits): (i64, i64)| Some((RowId(row), Msisdn::from_digits(digits.cast_unsigned())?));
        Ok(numbers.into_iter().filter_map(number_of).collect())
    }

    /// Ends those of these attempts whose texts are all found, and answers them. That one whose answer was lost had gone out
    /// is told.
    pub async fn settle_found(&self, attempts: &[AttemptId], now: Timestamp) -> Result<Vec<AttemptId>> {
        let operation = "settle attempts";
        let settled: Vec<(i64, i64, String)> = quick_tx!(self, operation, |tx, dialect| {
            #[cfg(feature = "simulated")]
            let or = crate::simulated::or_settled();
            #[cfg(not(feature = "simulated"))]
            let or = "";
            let mut settled: Vec<(i64, i64, String)> = sqlx::query_as(sql(format!(
                "UPDATE attempts SET state = 'settled', look_at = NULL
                 WHERE id {} AND state IN ('accepted', 'unknown') AND ((SELECT m.id FROM messages m
                    WHERE m.id BETWEEN attempts.first_row AND attempts.last_row AND m.attempt_id = attempts.id
                        AND m.state = 'attempted' LIMIT 1) IS NULL{or})
                 RETURNING id, recipients, coalesce(outcome, '')",
                dialect.ids(1)
            )))
            .bind(json_ids(attempts.iter().map(|attempt| attempt.0)))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            settled.sort_unstable_by_key(|(attempt, ..)| *attempt);
            for (attempt, recipients, outcome) in &settled {
                if outcome != ACCEPTED {
                    let event = Event {
                        attempt: Some(AttemptId(*attempt)),
                        rows: Some(recipients.cast_unsigned()),
                        ..Event::new("found", "reconciler", "the gateway's list shows their texts: they had gone out")
                    };
                    append_event!(tx, event, now).during(operation)?;
                }
            }
            settled
        });
        Ok(settled.into_iter().map(|(attempt, ..)| AttemptId(attempt)).collect())
    }

    /// How many recipients were sent to from a sender between two instants: what reading that window would list.
    pub async fn recipients_between(&self, sender: &SenderId, since: Timestamp, until: Timestamp) -> Result<u64> {
        let operation = "count what a window of the list would show";
        let recipients: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT CAST(coalesce(sum(recipients), 0) AS BIGINT) FROM attempts
                 WHERE sender = $1 AND sending_at BETWEEN $2 AND $3",
            )
            .bind(sender.as_str())
            .bind(ms(since))
            .bind(ms(until))
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(recipients.cast_unsigned())
    }

    /// Remembers a reading of an attempt's window and when to read it again. `counts`: what it did not find is compared
    /// with the next reading.
    pub async fn look_again(
        &self,
        attempt: &OpenAttempt,
        at: Timestamp,
        counted: Option<(Timestamp, &[RowId])>,
    ) -> Result<()> {
        let operation = "remember a reading of the list";
        let absent = counted.map(|(_, rows)| json_ids(rows.iter().map(|row| row.0)));
        quick_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "UPDATE attempts SET look_at = $3, looks = looks + 1, looked_at = coalesce($4, looked_at),
                    absent = coalesce($5, absent)
                 WHERE id = $1 AND looks = $2 AND state IN ('accepted', 'unknown')",
            )
            .bind(attempt.id.0)
            .bind(i64::from(attempt.looks))
            .bind(ms(at))
            .bind(counted.map(|(at, _)| ms(at)))
            .bind(absent)
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Holds the absent rows of an attempt for a person to decide, and ends the attempt. Answers how many: none when the
    /// attempt has changed since it was read.
    pub async fn hold(&self, attempt: &OpenAttempt, absent: &[RowId], why: HoldReason, now: Timestamp) -> Result<u64> {
        let operation = "hold rows";
        let held = write_tx!(self, operation, |tx, dialect| {
            if end_attempt!(tx, attempt, operation) == 0 {
                return Ok(0);
            }
            let held = sqlx::query(sql(format!(
                "UPDATE messages SET state = 'held', held = 1, reason = $2, updated_at = $3
                 WHERE id {} AND attempt_id = $4 AND state = 'attempted'",
                dialect.ids(1)
            )))
            .bind(json_ids(absent.iter().map(|row| row.0)))
            .bind(why.sentence())
            .bind(ms(now))
            .bind(attempt.id.0)
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            tell!(tx, attempt, held, "held", why.sentence(), now, operation);
            held
        });
        Ok(held)
    }

    /// Queues the absent rows of an attempt once more; rows that were resent before are held instead. Ends the attempt.
    /// Answers how many were queued and how many held: none when the attempt has changed since it was read.
    pub async fn resend(&self, attempt: &OpenAttempt, absent: &[RowId], now: Timestamp) -> Result<(u64, u64)> {
        let operation = "queue absent rows again";
        let ids = json_ids(absent.iter().map(|row| row.0));
        let counts = write_tx!(self, operation, |tx, dialect| {
            // What the gateway took is not sent again, wherever it is.
            if attempt.accepted || end_attempt!(tx, attempt, operation) == 0 {
                return Ok((0, 0));
            }
            let held = sqlx::query(sql(format!(
                "UPDATE messages SET state = 'held', held = 1, reason = $2, updated_at = $3
                 WHERE id {} AND attempt_id = $4 AND state = 'attempted' AND resends > 0",
                dialect.ids(1)
            )))
            .bind(&ids)
            .bind("it was lost twice: the gateway's list shows neither text")
            .bind(ms(now))
            .bind(attempt.id.0)
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            let queued = sqlx::query(sql(format!(
                "UPDATE messages SET state = 'queued', reason = 'proven absent from the gateway''s list; sent once more',
                    resends = resends + 1, live = NULL, attempt_id = NULL, not_before = NULL, updated_at = $2
                 WHERE id {} AND attempt_id = $3 AND state = 'attempted'",
                dialect.ids(1)
            )))
            .bind(&ids)
            .bind(ms(now))
            .bind(attempt.id.0)
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if queued > 0 {
                wake_chunk!(tx, attempt.chunk, ms(now), operation);
            }
            let why = "proven absent from the list by two readings; queued once more";
            tell!(tx, attempt, queued, "resent", why, now, operation);
            (queued, held)
        });
        Ok(counts)
    }

    /// Whether a text from `sender` that was sent after `since` is in the list.
    pub async fn later_text_listed(&self, sender: &SenderId, since: Timestamp) -> Result<bool> {
        let operation = "look for a later text";
        let later: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM attempts a WHERE a.sender = $1 AND a.sending_at > $2
                    AND a.state = 'settled' AND a.outcome = 'accepted' AND EXISTS
                        (SELECT 1 FROM messages m WHERE m.id BETWEEN a.chunk_id * 512 AND a.chunk_id * 512 + 511
                            AND m.attempt_id = a.id AND m.id_source = 'list') LIMIT 1) AS later",
            )
            .bind(sender.as_str())
            .bind(ms(since))
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(later > 0)
    }

    /// Whether the list has proven itself: many recipients were found in it, and nothing in it is unexplained.
    pub async fn list_is_proven(&self, sender: &SenderId, recipients_min: u64) -> Result<bool> {
        let operation = "read whether the list has proven itself";
        let (listed, unexplained): (i64, i64) = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT coalesce((SELECT value FROM learned WHERE name = 'recipients_listed'), 0),
                        (SELECT count(*) FROM unexplained WHERE sender = $1)",
            )
            .bind(sender.as_str())
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(unexplained == 0 && listed.cast_unsigned() >= recipients_min)
    }
}
