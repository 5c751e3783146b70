//! What was read of the gateway's list: kept for the stories of rows, and decided by nowhere.

use crate::{Ledger, Result, db::quick_tx, error::During, feed::ms_of, time::ms};
use campaign::{RowId, SenderId, sweep::Window};
use jiff::{SignedDuration, Timestamp};

/// A reading of a window of the gateway's list.
#[derive(Clone, Copy, Debug)]
pub struct NotedReading<'a> {
    /// Whose list.
    pub sender: &'a SenderId,
    /// Only the number of this row was asked for.
    pub row: Option<RowId>,
    /// From when to when, on the gateway's clock.
    pub window: Window,
    /// The gateway's clock minus the ledger's.
    pub skew: SignedDuration,
    /// When it began: what it shows is applied from then on.
    pub began: Timestamp,
    /// How many texts it showed; `None` of one that is not complete.
    pub listed: Option<u64>,
    /// How many rows got their `sms_id` by it.
    pub found: u64,
}

impl Ledger {
    /// Keeps what was read, now that all of it is applied: a row knows its own by the time.
    pub async fn note_reading(&self, reading: &NotedReading<'_>, now: Timestamp) -> Result<()> {
        let operation = "note a reading of the gateway's list";
        quick_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "INSERT INTO readings (sender, row_id, since, until, skew_ms, began_at, read_at, listed, found)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(reading.sender.as_str())
            .bind(reading.row.map(|row| row.0))
            .bind(reading.window.since)
            .bind(reading.window.until)
            .bind(ms_of(reading.skew))
            .bind(ms(reading.began))
            .bind(ms(now))
            .bind(reading.listed.map(u64::cast_signed))
            .bind(reading.found.cast_signed())
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }
}
