//! What the gateway's list says about our rows, and what is still to be learnt.

use crate::{
    Event, Ledger, Result,
    claims::wake_chunk,
    db::{Dialect, read_conn, sql, write_tx},
    error::During,
    events::append_event,
    feed::{json_ids, ms_of},
    time::{instant, ms},
};
use campaign::{
    AttemptId, ChunkId, Msisdn, RowId, SenderId, SmsId,
    matching::{Listed, Open, match_listed},
    resolve::HoldReason,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What the gateway says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Its status 0.
    Pending,
    /// Its status 1. It never says *delivered*.
    Sent,
    /// Its status 2.
    Failed,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

/// One line of the gateway's list: a text of type 1 from one of our senders.
#[derive(Clone)]
pub struct ListedText {
    /// What identifies and matches it.
    pub text: Listed,
    /// The destination as listed, masked.
    pub destination: String,
    /// Its status; `None` for a status that is none of the known ones, which is never taken for failed.
    pub delivery: Option<Delivery>,
}

/// What a listing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that got their `sms_id`.
    pub found: u64,
    /// Listed texts of ours that are pending.
    pub pending: u64,
    /// Rows that became final.
    pub finals: u64,
    /// Listed texts that nothing explains, new ones only.
    pub unexplained: u64,
}

/// An attempt whose texts are not all found yet.
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
    /// The answer is awaited still.
    pub sending: bool,
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

#[derive(sqlx::FromRow)]
struct AttemptRow {
    id: i64,
    sender: String,
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

/// A window of the list that holds pending rows.
#[derive(Clone, Copy, Debug)]
pub struct PendingWindow {
    /// Its id.
    pub id: i64,
    /// Seconds of the gateway's clock, both included.
    pub window: campaign::sweep::Window,
    /// How many texts it listed.
    pub listed: u64,
    /// How many times it was read.
    pub looks: u32,
}

/// A row whose status is asked for by its id.
#[derive(Clone, Copy, Debug)]
pub struct DueDetail {
    /// The row.
    pub row: RowId,
    /// Its id at the gateway.
    pub sms_id: SmsId,
    /// How many times it was asked for.
    pub checks: u32,
    /// When the gateway took it.
    pub accepted_at: Timestamp,
}

/// Rows of three numbers (id, sms_id, at) from the JSON that is bound as parameter 1.
fn triples(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS sms_id,
                    json_extract(value, '$[2]') AS at FROM json_each($1)"
        }
        Dialect::Postgres => {
            "SELECT (value->>0)::bigint AS id, (value->>1)::bigint AS sms_id, (value->>2)::bigint AS at
             FROM json_array_elements($1::json)"
        }
    }
}

/// Ends an attempt whose absent rows were dealt with, and tells why.
macro_rules! end_attempt {
    ($tx:expr, $attempt:expr, $rows:expr, $kind:expr, $why:expr, $now:expr, $operation:expr) => {{
        sqlx::query(
            "UPDATE attempts SET state = 'settled', look_at = NULL WHERE id = $1 AND state IN ('accepted', 'unknown')",
        )
        .bind($attempt.id.0)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
        let detail = format!("{} rows: {}", $rows, $why);
        let event = Event { attempt: Some($attempt.id), ..Event::new($kind, "reconciler", detail) };
        append_event!($tx, event, $now).during($operation)?;
    }};
}

fn rows_of(json: &str) -> Vec<RowId> {
    let ids: Vec<i64> = serde_json::from_str(json).unwrap_or_default();
    ids.into_iter().map(RowId).collect()
}

impl Ledger {
    /// Attempts whose texts are not all found, oldest first, for each sender that has any.
    pub async fn open_attempts(&self, at_most: u32) -> Result<Vec<OpenAttempt>> {
        let operation = "read the attempts that are open";
        let rows: Vec<AttemptRow> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT id, sender, chunk_id, state, sending_at, ended_at, recipients, look_at, looks, looked_at, absent
                 FROM attempts WHERE state IN ('sending', 'accepted', 'unknown') AND sending_at IS NOT NULL
                 ORDER BY sender, id LIMIT $1",
            )
            .bind(i64::from(at_most))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(OpenAttempt {
                    id: AttemptId(row.id),
                    sender: SenderId::parse(&row.sender).ok()?,
                    chunk: ChunkId(row.chunk_id),
                    accepted: row.state == "accepted",
                    sending: row.state == "sending",
                    sending_at: instant(row.sending_at),
                    ended_at: row.ended_at.map(instant),
                    recipients: row.recipients.cast_unsigned(),
                    look_at: row.look_at.map(instant),
                    looks: u32::try_from(row.looks).unwrap_or(u32::MAX),
                    before: row.looked_at.map(|at| (instant(at), rows_of(row.absent.as_deref().unwrap_or("[]")))),
                })
            })
            .collect())
    }

    /// Whether anything of this sender is still to be sent: then a thin window of the list can wait to be fuller.
    pub async fn more_to_send(&self) -> Result<bool> {
        let operation = "read whether more is to be sent";
        let more: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
                 WHERE k.state <> 'done' AND c.state = 'active' LIMIT 1) AS more",
            )
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(more > 0)
    }

    /// How far the list of a sender was read, in seconds of the gateway's clock, and the learned age of a first look.
    pub async fn cursor(&self, sender: &SenderId) -> Result<Option<(i64, SignedDuration)>> {
        let operation = "read how far a sender's list was read";
        let found: Option<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT swept_to, first_look_ms FROM cursors WHERE sender = $1")
                .bind(sender.as_str())
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(found.map(|(swept_to, look)| (swept_to, SignedDuration::from_millis(look))))
    }

    /// Records that the list of a sender was read up to a second of the gateway's clock.
    pub async fn advance_cursor(&self, sender: &SenderId, swept_to: i64, first_look: SignedDuration) -> Result<()> {
        let operation = "record how far a sender's list was read";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "INSERT INTO cursors (sender, swept_to, first_look_ms) VALUES ($1, $2, $3)
                 ON CONFLICT (sender) DO UPDATE SET first_look_ms = excluded.first_look_ms, swept_to =
                    CASE WHEN cursors.swept_to > excluded.swept_to THEN cursors.swept_to ELSE excluded.swept_to END",
            )
            .bind(sender.as_str())
            .bind(swept_to)
            .bind(ms_of(first_look))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Applies a complete reading of a window: known texts get their status, unknown ones are matched with open rows, the
    /// rest is unexplained. `skew` is the gateway's clock minus the ledger's.
    pub async fn apply_listing(
        &self,
        sender: &SenderId,
        listed: &[ListedText],
        skew: SignedDuration,
        now: Timestamp,
    ) -> Result<Applied> {
        let operation = "apply a reading of the gateway's list";
        let mut applied = Applied::default();
        for listed in listed.chunks(2_000) {
            let some = write_tx!(self, operation, |tx, dialect| {
                let known: Vec<(i64, i64)> =
                    sqlx::query_as(sql(format!("SELECT sms_id, id FROM messages WHERE sms_id IN {}", dialect.ids(1))))
                        .bind(json_ids(listed.iter().map(|text| text.text.sms_id.0)))
                        .fetch_all(&mut *tx)
                        .await
                        .during(operation)?;
                let known: HashMap<SmsId, RowId> =
                    known.into_iter().map(|(sms_id, row)| (SmsId(sms_id), RowId(row))).collect();
                let fresh: Vec<Listed> = listed
                    .iter()
                    .filter(|text| !known.contains_key(&text.text.sms_id))
                    .map(|text| text.text.clone())
                    .collect();
                let numbers: BTreeSet<i64> =
                    fresh.iter().filter_map(|text| Some(text.destination?.as_u64().cast_signed())).collect();
                let open: Vec<(i64, i64, i64, String, i64, String)> = sqlx::query_as(sql(format!(
                    "SELECT o.id, o.attempt_id, o.destination, t.body, coalesce(a.sending_at, a.formed_at), o.state
                     FROM messages o JOIN texts t ON t.id = o.text_id JOIN attempts a ON a.id = o.attempt_id
                     WHERE o.sender = $2 AND o.destination IN {}
                       AND o.sms_id IS NULL AND o.state IN ('sending', 'unknown', 'held', 'accepted')",
                    dialect.ids(1)
                )))
                .bind(json_ids(numbers))
                .bind(sender.as_str())
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                // A text that is listed before its answer came is left for the next reading.
                let being_sent: HashSet<RowId> =
                    open.iter().filter(|row| row.5 == "sending").map(|row| RowId(row.0)).collect();
                let open: Vec<Open> = open
                    .into_iter()
                    .filter_map(|(row, attempt, number, text, sent, _)| {
                        Some(Open {
                            row: RowId(row),
                            attempt: AttemptId(attempt),
                            destination: Msisdn::from_digits(number.cast_unsigned())?,
                            text,
                            earliest: (instant(sent) + skew).as_second() - campaign::sweep::SKEW_MARGIN,
                        })
                    })
                    .collect();
                let mut matches = match_listed(&fresh, &open);
                matches.found.retain(|(row, _)| !being_sent.contains(row));
                let mut applied = Applied { found: matches.found.len() as u64, ..Applied::default() };
                let by_id: HashMap<SmsId, &ListedText> = listed.iter().map(|text| (text.text.sms_id, text)).collect();

                if !matches.found.is_empty() {
                    let pairs: Vec<(i64, i64, i64)> = matches
                        .found
                        .iter()
                        .map(|(row, id)| (row.0, id.0, (by_id[id].text.time * 1000) - ms_of(skew)))
                        .collect();
                    let pairs = serde_json::to_string(&pairs).expect("numbers are JSON");
                    // A row claims an id once: the unique index refuses a second claim, the guard a second id.
                    sqlx::query(sql(format!(
                        "UPDATE messages SET sms_id = f.sms_id, id_source = 'list',
                            state = 'accepted', reason = NULL, accepted_at = coalesce(accepted_at, f.at), updated_at = $2
                         FROM ({}) AS f
                         WHERE messages.id = f.id AND messages.sms_id IS NULL
                           AND messages.state IN ('unknown', 'held', 'accepted')",
                        triples(dialect)
                    )))
                    .bind(pairs)
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                let ours: HashMap<SmsId, RowId> =
                    known.into_iter().chain(matches.found.iter().map(|(row, sms_id)| (*sms_id, *row))).collect();
                for (delivery, state) in [(Delivery::Sent, "sent"), (Delivery::Failed, "failed")] {
                    let ids: Vec<i64> = ours
                        .iter()
                        .filter(|(sms_id, _)| by_id[sms_id].delivery == Some(delivery))
                        .map(|(_, row)| row.0)
                        .collect();
                    if ids.is_empty() {
                        continue;
                    }
                    applied.finals += sqlx::query(sql(format!(
                        "UPDATE messages SET state = $2, gateway_status = $2, reason = $4, checked_at = $3,
                            final_at = $3, check_at = NULL, updated_at = $3
                         WHERE id IN {} AND state = 'accepted'",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(ids))
                    .bind(state)
                    .bind(ms(now))
                    .bind((delivery == Delivery::Failed).then_some("the gateway reports that it could not be sent"))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                }
                let pending: Vec<i64> = ours
                    .iter()
                    .filter(|(sms_id, _)| !matches!(by_id[sms_id].delivery, Some(Delivery::Sent | Delivery::Failed)))
                    .map(|(_, row)| row.0)
                    .collect();
                if !pending.is_empty() {
                    applied.pending += sqlx::query(sql(format!(
                        "UPDATE messages SET gateway_status = 'pending', checked_at = $2, updated_at = $2
                         WHERE id IN {} AND state = 'accepted'",
                        dialect.ids(1)
                    )))
                    .bind(json_ids(pending))
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                }
                for id in &matches.unexplained {
                    let text = by_id[id];
                    let new = sqlx::query(
                        "INSERT INTO unexplained (sms_id, sender, destination, listed_time, seen_at)
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sms_id) DO NOTHING",
                    )
                    .bind(id.0)
                    .bind(sender.as_str())
                    .bind(&text.destination)
                    .bind(text.text.time.to_string())
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                    applied.unexplained += new;
                    if new == 1 {
                        let detail = format!(
                            "the gateway lists text {id} from {sender} to {}, which nothing here explains",
                            text.destination
                        );
                        append_event!(tx, Event::new("unexplained", "reconciler", detail), now).during(operation)?;
                    }
                }
                if applied.found > 0 {
                    sqlx::query(
                        "INSERT INTO learned (name, value, at) VALUES ('recipients_listed', $1, $2)
                         ON CONFLICT (name) DO UPDATE SET value = learned.value + excluded.value, at = excluded.at",
                    )
                    .bind(i64::try_from(applied.found).unwrap_or(0))
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                applied
            });
            applied.found += some.found;
            applied.pending += some.pending;
            applied.finals += some.finals;
            applied.unexplained += some.unexplained;
        }
        Ok(applied)
    }

    /// Which rows of an attempt have no `sms_id`, sorted. Empty: its texts are all found.
    pub async fn absent_rows(&self, attempt: &OpenAttempt) -> Result<Vec<RowId>> {
        let operation = "read which rows of an attempt are not found";
        let (first, last) = attempt.chunk.row_range();
        let rows: Vec<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT id FROM messages WHERE id BETWEEN $1 AND $2 AND attempt_id = $3 AND sms_id IS NULL
                   AND state IN ('sending', 'unknown', 'accepted') ORDER BY id",
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
    pub async fn destinations_of(&self, rows: &[RowId]) -> Result<Vec<Msisdn>> {
        let operation = "read the numbers of rows";
        let numbers: Vec<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(sql(format!(
                "SELECT destination FROM messages WHERE id IN {} AND destination IS NOT NULL",
                dialect.ids(1)
            )))
            .bind(json_ids(rows.iter().map(|row| row.0)))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(numbers.into_iter().filter_map(|number| Msisdn::from_digits(number.cast_unsigned())).collect())
    }

    /// Ends those of these attempts whose texts are all found, and answers them.
    pub async fn settle_found(&self, attempts: &[AttemptId]) -> Result<Vec<AttemptId>> {
        let operation = "settle attempts";
        let settled: Vec<i64> = write_tx!(self, operation, |tx, dialect| {
            sqlx::query_scalar(sql(format!(
                "UPDATE attempts SET state = 'settled', look_at = NULL
                 WHERE id IN {} AND state IN ('accepted', 'unknown') AND NOT EXISTS
                    (SELECT 1 FROM messages m WHERE m.id BETWEEN attempts.chunk_id * 512 AND attempts.chunk_id * 512 + 511
                        AND m.attempt_id = attempts.id AND m.sms_id IS NULL
                        AND m.state IN ('sending', 'unknown', 'accepted'))
                 RETURNING id",
                dialect.ids(1)
            )))
            .bind(json_ids(attempts.iter().map(|attempt| attempt.0)))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?
        });
        Ok(settled.into_iter().map(AttemptId).collect())
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
        write_tx!(self, operation, |tx, dialect| {
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

    /// Holds the absent rows of an attempt for a person to decide, and ends the attempt.
    pub async fn hold(&self, attempt: &OpenAttempt, absent: &[RowId], why: HoldReason, now: Timestamp) -> Result<u64> {
        let operation = "hold rows";
        let held = write_tx!(self, operation, |tx, dialect| {
            let held = sqlx::query(sql(format!(
                "UPDATE messages SET state = 'held', reason = $2, updated_at = $3
                 WHERE id IN {} AND attempt_id = $4 AND sms_id IS NULL AND state IN ('unknown', 'accepted')",
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
            end_attempt!(tx, attempt, held, "held", why.sentence(), now, operation);
            held
        });
        Ok(held)
    }

    /// Queues the absent rows of an attempt once more; rows that were resent before are held instead. Ends the attempt.
    /// Answers how many were queued and how many held.
    pub async fn resend(&self, attempt: &OpenAttempt, absent: &[RowId], now: Timestamp) -> Result<(u64, u64)> {
        let operation = "queue absent rows again";
        let ids = json_ids(absent.iter().map(|row| row.0));
        let counts = write_tx!(self, operation, |tx, dialect| {
            let held = sqlx::query(sql(format!(
                "UPDATE messages SET state = 'held', reason = $2, updated_at = $3
                 WHERE id IN {} AND attempt_id = $4 AND sms_id IS NULL AND state = 'unknown' AND resends > 0",
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
                    resends = resends + 1, attempt_id = NULL, not_before = NULL, updated_at = $2
                 WHERE id IN {} AND attempt_id = $3 AND sms_id IS NULL AND state = 'unknown'",
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
            end_attempt!(tx, attempt, queued, "resent", why, now, operation);
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

    /// Follows a window that holds pending rows by reading it again.
    pub async fn keep_window(&self, sender: &SenderId, window: &PendingWindow, look_at: Timestamp) -> Result<()> {
        let operation = "keep a window of the list";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query("DELETE FROM windows WHERE id = $1")
                .bind(window.id)
                .execute(&mut *tx)
                .await
                .during(operation)?;
            sqlx::query(
                "INSERT INTO windows (sender, since, until, listed, looks, look_at) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(sender.as_str())
            .bind(window.window.since)
            .bind(window.window.until)
            .bind(window.listed.cast_signed())
            .bind(i64::from(window.looks))
            .bind(ms(look_at))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Forgets a window: nothing in it is pending, or its pending rows are asked for one by one.
    pub async fn drop_window(&self, id: i64) -> Result<()> {
        let operation = "forget a window of the list";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query("DELETE FROM windows WHERE id = $1").bind(id).execute(&mut *tx).await.during(operation)?;
        });
        Ok(())
    }

    /// Windows that are due to be read again, each with its sender.
    pub async fn due_windows(&self, now: Timestamp) -> Result<Vec<(SenderId, PendingWindow)>> {
        let operation = "read the windows that are due";
        let rows: Vec<(i64, String, i64, i64, i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT id, sender, since, until, listed, looks FROM windows WHERE look_at <= $1 ORDER BY look_at LIMIT 20",
            )
            .bind(ms(now))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows
            .into_iter()
            .filter_map(|(id, sender, since, until, listed, looks)| {
                let window = PendingWindow {
                    id,
                    window: campaign::sweep::Window { since, until },
                    listed: listed.cast_unsigned(),
                    looks: u32::try_from(looks).unwrap_or(u32::MAX),
                };
                Some((SenderId::parse(&sender).ok()?, window))
            })
            .collect())
    }

    /// Has the pending rows among these asked for one by one.
    pub async fn ask_details(&self, ids: &[SmsId], at: Timestamp) -> Result<()> {
        let operation = "plan to ask for the status of rows";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query(sql(format!(
                "UPDATE messages SET check_at = $2 WHERE sms_id IN {} AND state = 'accepted'",
                dialect.ids(1)
            )))
            .bind(json_ids(ids.iter().map(|id| id.0)))
            .bind(ms(at))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Rows whose status is to be asked for now.
    pub async fn due_details(&self, at_most: u32, now: Timestamp) -> Result<Vec<DueDetail>> {
        let operation = "read the rows whose status is due";
        let rows: Vec<(i64, i64, i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT id, sms_id, checks, coalesce(accepted_at, updated_at) FROM messages
                 WHERE check_at IS NOT NULL AND check_at <= $1 AND sms_id IS NOT NULL ORDER BY check_at LIMIT $2",
            )
            .bind(ms(now))
            .bind(i64::from(at_most))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(rows
            .into_iter()
            .map(|(row, sms_id, checks, accepted_at)| DueDetail {
                row: RowId(row),
                sms_id: SmsId(sms_id),
                checks: u32::try_from(checks).unwrap_or(u32::MAX),
                accepted_at: instant(accepted_at),
            })
            .collect())
    }

    /// Records what the gateway said of one row, and when to ask again if it is pending; `again: None` gives up and holds.
    pub async fn record_detail(
        &self,
        due: &DueDetail,
        delivery: Option<Delivery>,
        again: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        let operation = "record the status of a row";
        let (state, reason) = match (delivery, again) {
            (Some(Delivery::Sent), _) => ("sent", None),
            (Some(Delivery::Failed), _) => ("failed", Some("the gateway reports that it could not be sent")),
            (Some(Delivery::Pending) | None, Some(_)) => ("accepted", None),
            (Some(Delivery::Pending) | None, None) => ("held", Some("the gateway never gave a final status")),
        };
        let is_final = matches!(state, "sent" | "failed");
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "UPDATE messages SET state = $3, reason = $4, gateway_status = coalesce($5, gateway_status),
                    checked_at = $6, updated_at = $6, checks = checks + 1, check_at = $7, final_at = $8
                 WHERE id = $1 AND sms_id = $2 AND state = 'accepted'",
            )
            .bind(due.row.0)
            .bind(due.sms_id.0)
            .bind(state)
            .bind(reason)
            .bind(delivery.map(Delivery::name))
            .bind(ms(now))
            .bind(if state == "accepted" { again.map(ms) } else { None })
            .bind(is_final.then_some(ms(now)))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Remembers the larger of what was learned and `value` under a name, e.g. the slowest lag of the list.
    pub async fn learn_max(&self, name: &str, value: i64, now: Timestamp) -> Result<()> {
        let operation = "remember a measurement";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "INSERT INTO learned (name, value, at) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE
                 SET value = excluded.value, at = excluded.at WHERE learned.value < excluded.value",
            )
            .bind(name)
            .bind(value)
            .bind(ms(now))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// What was learned under a name.
    pub async fn learned(&self, name: &str) -> Result<Option<i64>> {
        let operation = "read a measurement";
        Ok(read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT value FROM learned WHERE name = $1")
                .bind(name)
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        }))
    }
}
