//! What dead and silent workers leave behind.

use crate::{
    Event, Ledger, Result,
    db::write_tx,
    error::During,
    events::append_event,
    feed::ms_of,
    time::ms,
    transitions::{release_attempt, rest_chunk, touch_rows, wake_chunk},
};
use campaign::{AttemptId, ChunkId};
use jiff::{SignedDuration, Timestamp};

/// An attempt that its worker may have left.
#[derive(sqlx::FromRow)]
struct Left {
    attempt: i64,
    chunk: i64,
    state: String,
    sending_at: Option<i64>,
    owner: i64,
    owner_ended_at: Option<i64>,
    recipients: i64,
}

impl Ledger {
    /// Takes back what the dead and the silent left behind: batches that were never begun are queued again, begun ones
    /// become unknown. Answers how many attempts became unknown.
    ///
    /// The end of a begun attempt counts from when its owner's death was proven, and not before its request must have
    /// ended; an attempt whose owner is only silent has no end yet, so nothing is decided about it.
    pub async fn sweep_owners(&self, lease: SignedDuration, send_limit: SignedDuration, now: Timestamp) -> Result<u64> {
        let operation = "take back what dead workers left";
        let mut unknown_rows = 0;
        let unknown = write_tx!(self, operation, |tx, dialect| {
            // Here and below a condition says twice what it asks for: in the words of a partial index, which SQLite does not
            // use unless it finds them.
            let left: Vec<Left> = sqlx::query_as(
                "SELECT a.id AS attempt, a.chunk_id AS chunk, a.state, a.sending_at, a.owner_id AS owner,
                        w.ended_at AS owner_ended_at, a.recipients
                 FROM attempts a JOIN owners w ON w.id = a.owner_id
                 WHERE a.state IN ('formed', 'sending', 'accepted', 'unknown') AND a.state <> 'accepted' AND a.ended_at IS NULL
                   AND (w.ended_at IS NOT NULL OR a.state = 'formed' AND a.formed_at < $1
                        OR a.state = 'sending' AND a.sending_at < $1) ORDER BY a.sender, a.id LIMIT 1000",
            )
            .bind(ms(now) - ms_of(lease))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            let mut unknown = 0;
            for Left { attempt, chunk, state, sending_at, owner, owner_ended_at, recipients } in left {
                let chunk = ChunkId(chunk);
                #[cfg(feature = "simulated")]
                if campaign::mutant::Mutant::LeaseExpiryResends.is_on() {
                    release_attempt!(tx, attempt, chunk, "'sending', 'unknown'", "resent", None::<i64>, now, operation);
                    rest_chunk!(tx, dialect, chunk, owner, now, operation);
                }
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
                    rest_chunk!(tx, dialect, chunk, owner, now, operation);
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
                if became == 0 {
                    continue; // Its worker has just recorded it.
                }
                unknown += became;
                unknown_rows += recipients.unsigned_abs();
                touch_rows!(tx, attempt, chunk, now, operation);
                let event = Event {
                    attempt: Some(AttemptId(attempt)),
                    rows: Some(recipients.cast_unsigned()),
                    ..Event::new("unknown", "reconciler", "its worker was gone while it was being sent")
                };
                append_event!(tx, event, now).during(operation)?;
            }
            // Also those whose worker lives and has nothing left of them: the answer to its claim was lost, or the ledger was
            // away when it finished.
            let orphans: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT k.id, k.owner_id FROM chunks k JOIN owners w ON w.id = k.owner_id
                 WHERE k.state = 'working' AND k.state <> 'done' AND (w.ended_at IS NOT NULL OR k.fed_at < $1 AND k.id NOT IN
                    (SELECT a.chunk_id FROM attempts a WHERE a.state IN ('formed', 'sending')
                     AND a.state IN ('formed', 'sending', 'accepted', 'unknown'))) LIMIT 1000",
            )
            .bind(ms(now) - ms_of(lease))
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            for (chunk, owner) in orphans {
                rest_chunk!(tx, dialect, ChunkId(chunk), owner, now, operation);
            }
            unknown
        });
        telemetry::rows_became("unknown", unknown_rows);
        Ok(unknown)
    }
}
