//! What happened to one row, and why rows are held.

use super::{instant_if_any, rows::ReportRow};
use crate::{
    Ledger, Result,
    db::{Dialect, read_conn, sql},
    error::During,
    time::instant,
};
use campaign::{CampaignId, RowId, RowState};
use jiff::Timestamp;
use serde::Serialize;

/// All that the ledger knows about one row.
#[derive(Serialize)]
pub struct Story {
    /// The file that it came in.
    pub file_name: String,
    /// The row as it stands.
    pub row: ReportRow,
    /// The calls that were made for it, oldest first.
    pub attempts: Vec<StoryAttempt>,
    /// What was recorded about it and its attempts, oldest first.
    pub events: Vec<StoryEvent>,
}

/// One call that was made, or was to be made, for a row.
#[derive(Clone, Debug, Serialize)]
pub struct StoryAttempt {
    /// The attempt's id.
    pub id: i64,
    /// `send` or `bulk`.
    pub sent_via: String,
    /// `formed`, `sending`, `accepted`, `unknown`, `released`, `refused` or `settled`.
    pub state: String,
    /// Destinations of the call.
    pub batch_len: i64,
    /// When it was written down.
    pub formed_at: Timestamp,
    /// When its request went out.
    pub sending_at: Option<Timestamp>,
    /// When its sender was known to be done with it.
    pub ended_at: Option<Timestamp>,
    /// What came back.
    pub outcome: Option<String>,
    /// How often the gateway's list was read for it.
    pub looks: i64,
}

/// One line of the ledger's append-only record.
#[derive(Clone, Debug, Serialize)]
pub struct StoryEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: String,
    /// Who or which process.
    pub who: String,
    /// More about it.
    pub detail: String,
    /// Why, in the words of who did it.
    pub reason: Option<String>,
}

/// A row that waits for a person, and what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct HeldRow {
    /// Its campaign.
    pub campaign: String,
    /// The spreadsheet's row.
    pub row_number: i64,
    /// Who it is from.
    pub sender: String,
    /// Why it is held.
    pub reason: String,
    /// When its last call was made.
    pub attempted_at: Option<Timestamp>,
    /// What that call's answer was.
    pub outcome: Option<String>,
    /// How often the gateway's list was read for it.
    pub looks: i64,
    /// Since when it is held.
    pub since: Timestamp,
}

impl Ledger {
    /// One row's story; `None` if the campaign has no such row.
    pub async fn story(&self, campaign: &str, row_number: u32) -> Result<Option<Story>> {
        let operation = "read a row's story";
        let Some(mut results) = self.results(campaign, &[]).await? else { return Ok(None) };
        let Some((campaign, id)) = self.find_row(campaign, row_number).await? else { return Ok(None) };
        let file_name: String = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT i.file_name FROM imports i JOIN campaigns c ON c.import_id = i.id WHERE c.id = $1",
            )
            .bind(campaign.0)
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        results.start_at(id.chunk());
        let page = results.next_page().await?.unwrap_or_default();
        let Some(row) = page.into_iter().find(|row| row.row_number == i64::from(row_number)) else { return Ok(None) };
        Ok(Some(Story { file_name, row, attempts: self.attempts_of(id).await?, events: self.events_of(id).await? }))
    }

    /// The ids behind a campaign's name and a spreadsheet's row number; `None` if there is no such row.
    pub async fn find_row(&self, campaign: &str, row_number: u32) -> Result<Option<(CampaignId, RowId)>> {
        let operation = "find a row";
        let found: Option<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(format!(
                "SELECT c.id, m.id FROM campaigns c
                 {then_join} chunks k ON k.campaign_id = c.id
                 {then_join} messages m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
                 WHERE c.name = $1 AND m.row_number = $2",
                then_join = dialect.then_join()
            )))
            .bind(campaign)
            .bind(i64::from(row_number))
            .fetch_optional(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.map(|(campaign, row)| (CampaignId(campaign), RowId(row))))
    }

    async fn attempts_of(&self, row: RowId) -> Result<Vec<StoryAttempt>> {
        type Found = (i64, String, String, i64, i64, Option<i64>, Option<i64>, Option<String>, i64);
        let operation = "read a row's attempts";
        let found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
            let statement = match dialect {
                Dialect::Sqlite => {
                    "SELECT id, sent_via, state, json_array_length(row_ids), formed_at, sending_at, ended_at, outcome, looks
                     FROM attempts WHERE chunk_id = $1
                     AND EXISTS (SELECT 1 FROM json_each(row_ids) WHERE value = $2) ORDER BY id"
                }
                Dialect::Postgres => {
                    "SELECT id, sent_via, state, json_array_length(row_ids::json)::bigint, formed_at, sending_at, ended_at,
                            outcome, looks
                     FROM attempts WHERE chunk_id = $1
                     AND EXISTS (SELECT 1 FROM json_array_elements_text(row_ids::json) AS r (id) WHERE r.id::bigint = $2)
                     ORDER BY id"
                }
            };
            sqlx::query_as(statement).bind(row.chunk().0).bind(row.0).fetch_all(&mut *conn).await.during(operation)?
        });
        found
            .into_iter()
            .map(|(id, sent_via, state, batch_len, formed_at, sending_at, ended_at, outcome, looks)| {
                Ok(StoryAttempt {
                    id,
                    sent_via,
                    state,
                    batch_len,
                    formed_at: instant(formed_at),
                    sending_at: instant_if_any(sending_at),
                    ended_at: instant_if_any(ended_at),
                    outcome,
                    looks,
                })
            })
            .collect()
    }

    async fn events_of(&self, row: RowId) -> Result<Vec<StoryEvent>> {
        let operation = "read a row's events";
        let found: Vec<(i64, String, String, String, Option<String>)> = read_conn!(self, operation, |conn, dialect| {
            let named = match dialect {
                Dialect::Sqlite => "SELECT 1 FROM json_each(a.row_ids) WHERE value = $1",
                Dialect::Postgres => {
                    "SELECT 1 FROM json_array_elements_text(a.row_ids::json) AS r (id) WHERE r.id::bigint = $1"
                }
            };
            let statement = format!(
                "SELECT at, kind, who, detail, reason FROM events WHERE campaign_id IS NULL AND row_id = $1
                    OR campaign_id = (SELECT campaign_id FROM messages WHERE id = $1) AND (row_id = $1 OR attempt_id IN
                       (SELECT a.id FROM attempts a WHERE a.chunk_id = $2 AND EXISTS ({named})))
                 ORDER BY id"
            );
            sqlx::query_as(sql(statement))
                .bind(row.0)
                .bind(row.chunk().0)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        found
            .into_iter()
            .map(|(at, kind, who, detail, reason)| Ok(StoryEvent { at: instant(at), kind, who, detail, reason }))
            .collect()
    }

    /// The rows that wait for a person, in the order of the file; of one campaign if one is named.
    pub async fn held_rows(&self, campaign: Option<&str>) -> Result<Vec<HeldRow>> {
        type Found = (String, i64, String, String, Option<i64>, Option<String>, Option<i64>, i64);
        let operation = "read the held rows";
        let found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT c.name, m.row_number, m.sender, coalesce(m.reason, ''), m.attempted_at, a.outcome, a.looks,
                        m.updated_at
                 FROM messages m JOIN campaigns c ON c.id = m.campaign_id LEFT JOIN attempts a ON a.id = m.attempt_id
                 WHERE m.state = $1 AND (c.name = $2 OR $2 IS NULL) ORDER BY m.id",
            )
            .bind(RowState::Held.name())
            .bind(campaign)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        found
            .into_iter()
            .map(|(campaign, row_number, sender, reason, attempted_at, outcome, looks, since)| {
                Ok(HeldRow {
                    campaign,
                    row_number,
                    sender,
                    reason,
                    attempted_at: instant_if_any(attempted_at),
                    outcome,
                    looks: looks.unwrap_or(0),
                    since: instant(since),
                })
            })
            .collect()
    }
}
