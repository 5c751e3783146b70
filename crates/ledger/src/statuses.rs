//! How far the list was read, and whose delivery status is still pending.

use crate::{
    Delivery, Ledger, Result,
    db::{quick_tx, read_conn, sql, write_tx},
    error::During,
    feed::{json_ids, ms_of},
    time::{instant, ms},
};
use campaign::{RowId, SenderId, SmsId};
use jiff::{SignedDuration, Timestamp};

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

impl Ledger {
    /// Whether anything of this sender is still to be sent: then a thin window of the list can wait to be fuller.
    pub async fn more_to_send(&self) -> Result<bool> {
        let operation = "read whether more is to be sent";
        let more: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
                 WHERE k.state <> 'done' AND k.blocked = 0 AND c.state = 'active' LIMIT 1) AS more",
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
        quick_tx!(self, operation, |tx, dialect| {
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

    /// Follows a window that holds pending rows by reading it again.
    pub async fn keep_window(&self, sender: &SenderId, window: &PendingWindow, look_at: Timestamp) -> Result<()> {
        let operation = "keep a window of the list";
        quick_tx!(self, operation, |tx, dialect| {
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
        quick_tx!(self, operation, |tx, dialect| {
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
                "UPDATE messages SET check_at = $2 WHERE sms_id {} AND state = 'accepted'",
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
                "SELECT id, sms_id, checks, coalesce(accepted_at, updated_at) FROM told_rows
                 WHERE check_at IS NOT NULL AND check_at <= $1 AND sms_id IS NOT NULL ORDER BY check_at LIMIT $2 + 0",
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
        quick_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "UPDATE messages SET state = $3, reason = $4, gateway_status = coalesce($5, gateway_status),
                    checked_at = $6, updated_at = $6, checks = checks + 1, check_at = $7, final_at = $8,
                    held = CASE WHEN $3 = 'held' THEN 1 END
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
