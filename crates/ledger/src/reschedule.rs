//! Another time for what is not sent yet.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, sql, write_tx},
    error::During,
    events::{append_event, counted},
    feed::json_ids,
    packs::unpack,
    steering::By,
    time::ms,
};
use campaign::{CampaignId, ChunkId};
use jiff::Timestamp;

/// Other times for the rows of a campaign; `None` leaves what each has.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewTimes {
    /// Not before.
    pub send_at: Option<Timestamp>,
    /// Not after.
    pub valid_until: Option<Timestamp>,
}

/// What rescheduling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescheduled {
    /// Rows that have the new times.
    pub moved: u64,
    /// Those of them whose `valid_until` is not after their time to be sent.
    pub expire_before: u64,
}

/// Chunks that are moved in one transaction.
const CHUNKS_AT_ONCE: usize = 20;

impl Ledger {
    /// Gives the unsent rows of a campaign other times. What is in flight or done keeps its own; so does a row that comes
    /// back from the gateway later. A crash in the middle has moved some chunks; the same call moves the others.
    pub async fn reschedule(
        &self,
        campaign: CampaignId,
        times: NewTimes,
        by: By<'_>,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let operation = "reschedule a campaign";
        let chunks: Vec<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT id FROM chunks WHERE campaign_id = $1 AND state <> 'done' ORDER BY id")
                .bind(campaign.0)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let mut done = Rescheduled::default();
        for chunks in chunks.chunks(CHUNKS_AT_ONCE) {
            let moved = write_tx!(self, operation, |tx, dialect| {
                // Locked as a claim locks them: its rows are claimed before or after they are moved, not in between.
                let locked: Vec<i64> = sqlx::query_scalar(sql(format!(
                    "SELECT id FROM chunks WHERE id {} AND state <> 'done' ORDER BY id{}",
                    dialect.ids(1),
                    dialect.for_update()
                )))
                .bind(json_ids(chunks.iter().copied()))
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                unpack!(tx, dialect, json_ids(locked.iter().copied()), operation);
                let mut moved = Rescheduled::default();
                for chunk in locked {
                    let (first, last) = ChunkId(chunk).row_range();
                    moved.moved += sqlx::query(
                        "UPDATE messages SET scheduled_for = coalesce($4, scheduled_for),
                            valid_until = coalesce($5, valid_until), updated_at = $3,
                            state = CASE WHEN coalesce($4, scheduled_for) > $3 THEN 'scheduled' ELSE 'queued' END
                         WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')
                           AND (valid_until IS NULL OR valid_until > $3)",
                    )
                    .bind(first.0)
                    .bind(last.0)
                    .bind(ms(now))
                    .bind(times.send_at.map(ms))
                    .bind(times.valid_until.map(ms))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                    let (expire_before, due, expires): (i64, Option<i64>, Option<i64>) = sqlx::query_as(
                        "SELECT count(CASE WHEN valid_until <= scheduled_for THEN 1 END),
                            min(CASE WHEN coalesce(not_before, 0) > coalesce(scheduled_for, 0)
                                THEN not_before ELSE coalesce(scheduled_for, 0) END), min(valid_until)
                         FROM messages WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')",
                    )
                    .bind(first.0)
                    .bind(last.0)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    moved.expire_before += expire_before.unsigned_abs();
                    // A job that is out for it is stale; a chunk in work learns its time when it is put to rest.
                    sqlx::query(
                        "UPDATE chunks SET due_at = $2, expires_at = $3, feeds = 0,
                            state = CASE WHEN state = 'fed' THEN 'waiting' ELSE state END
                         WHERE id = $1 AND state <> 'done'",
                    )
                    .bind(chunk)
                    .bind(due.unwrap_or(ms(now)))
                    .bind(expires)
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                }
                moved
            });
            done.moved += moved.moved;
            done.expire_before += moved.expire_before;
        }
        let words = [("send_at", times.send_at), ("valid_until", times.valid_until)];
        let words = words.into_iter().filter_map(|(what, at)| Some(format!("{what} {}", at?)));
        let detail =
            format!("{} moved: {}", counted(done.moved, "unsent row"), words.collect::<Vec<_>>().join(" and "));
        let event = Event {
            campaign: Some(campaign),
            reason: by.reason.map(str::to_owned),
            ..Event::new("rescheduled", by.who, detail)
        };
        write_tx!(self, operation, |tx, dialect| {
            append_event!(tx, event, now).during(operation)?;
        });
        Ok(done)
    }
}
