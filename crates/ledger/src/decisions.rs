//! What a person decides, and what is left to do.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, sql, write_tx},
    error::During,
    events::append_event,
    time::ms,
    transitions::wake_chunk,
};
use campaign::{CampaignId, RowId};
use jiff::Timestamp;

/// What a person decides about a held row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Count it as sent.
    AssumeSent,
    /// Send it once more: the person may get it twice.
    Resend,
    /// Give it up.
    Cancel,
}

/// What is still to be done, by what it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Chunks of active campaigns with rows to send, now or later, and of cancelled ones with rows to end; not those that only
    /// wait behind held rows.
    pub chunks: u64,
    /// Attempts that are being made or whose texts are not all found.
    pub attempts: u64,
    /// Rows and windows of the list whose status is pending.
    pub pending: u64,
}

impl Todo {
    /// Nothing is left to do: every row is final or held, or belongs to a paused campaign.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ledger {
    /// What is still to be done.
    pub async fn todo(&self) -> Result<Todo> {
        let operation = "read what is left to do";
        let (chunks, attempts, details, windows): (i64, i64, i64, i64) =
            read_conn!(self, operation, |conn, dialect| {
                sqlx::query_as(
                    "SELECT (SELECT count(*) FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
                            WHERE k.state <> 'done' AND k.blocked = 0 AND c.state IN ('active', 'cancelled')),
                        (SELECT count(*) FROM attempts WHERE state IN ('formed', 'sending', 'accepted', 'unknown')),
                        (SELECT count(*) FROM messages WHERE check_at IS NOT NULL),
                        (SELECT count(*) FROM windows)",
                )
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
            });
        Ok(Todo {
            chunks: chunks.cast_unsigned(),
            attempts: attempts.cast_unsigned(),
            pending: (details + windows).cast_unsigned(),
        })
    }

    /// Applies a person's verdict to a held row, and records who decided and why. Answers false when it is not held.
    pub async fn decide(
        &self,
        campaign: CampaignId,
        row: RowId,
        verdict: Verdict,
        who: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let operation = "apply a decision to a held row";
        let (state, set, words) = match verdict {
            Verdict::AssumeSent => ("sent", "gateway_status = 'operator', final_at = $2", "taken for sent"),
            Verdict::Resend => (
                "queued",
                "attempt_id = NULL, resends = resends + 1, not_before = NULL, sms_id = NULL, id_source = NULL",
                "sent once more",
            ),
            Verdict::Cancel => ("cancelled", "final_at = $2", "given up"),
        };
        let decided = write_tx!(self, operation, |tx, dialect| {
            let decided = sqlx::query(sql(format!(
                "UPDATE messages SET state = $3, reason = $4, check_at = NULL, updated_at = $2, {set}
                 WHERE id = $1 AND state = 'held' AND campaign_id = $5"
            )))
            .bind(row.0)
            .bind(ms(now))
            .bind(state)
            .bind(format!("{words} by {who}: {reason}"))
            .bind(campaign.0)
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if decided == 1 {
                if verdict == Verdict::Resend {
                    wake_chunk!(tx, row.chunk(), ms(now), operation);
                }
                let event = Event {
                    campaign: Some(campaign),
                    row: Some(row),
                    reason: Some(reason.to_owned()),
                    ..Event::new("decided", who, format!("held row {words}"))
                };
                append_event!(tx, event, now).during(operation)?;
            }
            decided
        });
        Ok(decided == 1)
    }
}
