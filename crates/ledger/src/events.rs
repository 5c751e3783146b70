//! The append-only record of what happened and who did it.

use crate::{Ledger, Result, db::write_tx, error::During};
use campaign::{AttemptId, CampaignId, ImportId, RowId};
use jiff::Timestamp;

/// Something that happened. `detail` never holds a full number, a text or a secret.
#[derive(Clone, Debug)]
pub struct Event {
    /// What kind, e.g. `launched`, `held`, `decided`.
    pub kind: &'static str,
    /// A user's name, or the kind of process.
    pub who: String,
    /// The import that it is about.
    pub import: Option<ImportId>,
    /// The campaign that it is about.
    pub campaign: Option<CampaignId>,
    /// The row that it is about.
    pub row: Option<RowId>,
    /// The attempt that it is about; its campaign is then known without being named.
    pub attempt: Option<AttemptId>,
    /// How many rows it is about.
    pub rows: Option<u64>,
    /// A sentence.
    pub detail: String,
    /// Why, in the words of who did it.
    pub reason: Option<String>,
}

impl Event {
    /// An event about nothing in particular; the fields say what it is about.
    pub fn new(kind: &'static str, who: impl Into<String>, detail: impl Into<String>) -> Self {
        let (who, detail) = (who.into(), detail.into());
        Self { kind, who, import: None, campaign: None, row: None, attempt: None, rows: None, detail, reason: None }
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(number: impl Into<i128>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Appends an event within a transaction of either database.
macro_rules! append_event {
    ($tx:expr, $event:expr, $now:expr) => {{
        let event = &$event;
        sqlx::query($crate::events::INSERT)
            .bind($now.as_millisecond())
            .bind(event.kind)
            .bind(&event.who)
            .bind(event.import.map(|id| id.0))
            .bind(event.campaign.map(|id| id.0))
            .bind(event.row.map(|id| id.0))
            .bind(event.attempt.map(|id| id.0))
            .bind(event.rows.map(u64::cast_signed))
            .bind(&event.detail)
            .bind(event.reason.as_deref())
            .execute(&mut *$tx)
            .await
    }};
}
pub(crate) use append_event;

pub(crate) const INSERT: &str =
    "INSERT INTO events (at, kind, who, import_id, campaign_id, row_id, attempt_id, row_count, detail, reason)
    VALUES ($1, $2, $3, $4, coalesce($5, (SELECT a.campaign_id FROM attempts a WHERE a.id = $7)), $6, $7, $8, $9, $10)";

impl Ledger {
    /// Records an event that comes with no other change.
    pub async fn append_event(&self, event: &Event, now: Timestamp) -> Result<()> {
        let operation = "record an event";
        write_tx!(self, operation, |tx, dialect| {
            append_event!(tx, event, now).during(operation)?;
        });
        Ok(())
    }
}
