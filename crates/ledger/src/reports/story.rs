//! What happened to one row.

use super::{instant_if_any, rows::ReportRow};
use crate::{
    Ledger, Result,
    db::{Dialect, read_conn, sql},
    error::During,
    time::{instant, ms},
};
use campaign::{CampaignId, RowId};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// All that the ledger knows about one row.
#[derive(Serialize)]
pub struct Story {
    /// The file that it came in.
    pub file_name: String,
    /// Who launched it.
    pub launched_by: String,
    /// When.
    pub launched_at: Timestamp,
    /// The row as it stands.
    pub row: ReportRow,
    /// When a reading of the gateway's list first showed its text.
    pub found_at: Option<Timestamp>,
    /// The calls that were made for it, oldest first.
    pub attempts: Vec<StoryAttempt>,
    /// Readings of the gateway's list that looked where its text must stand, oldest first; at most 50.
    pub readings: Vec<StoryReading>,
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

/// One reading of the gateway's list that looked where a row's text must stand.
#[derive(Clone, Debug, Serialize)]
pub struct StoryReading {
    /// When it began.
    pub began_at: Timestamp,
    /// When all that it showed was applied.
    pub read_at: Timestamp,
    /// From when, on the gateway's clock.
    pub since: Timestamp,
    /// To when, on the gateway's clock.
    pub until: Timestamp,
    /// Only texts to the row's own number were asked for.
    pub only_this_number: bool,
    /// How many texts it showed; `None` of one that is not complete: it is told only if it showed this text first.
    pub listed: Option<i64>,
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

impl Ledger {
    /// One row's story; `None` if the campaign has no such row.
    pub async fn story(&self, campaign: &str, row_number: u32) -> Result<Option<Story>> {
        let operation = "read a row's story";
        let Some(mut results) = self.results(campaign, &[]).await? else { return Ok(None) };
        let Some((campaign, id)) = self.find_row(campaign, row_number).await? else { return Ok(None) };
        type Found = (String, String, i64, Option<i64>);
        let (file_name, launched_by, launched_at, found_at): Found = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT i.file_name, i.launched_by, i.launched_at, m.found_at
                 FROM imports i JOIN campaigns c ON c.import_id = i.id LEFT JOIN messages m ON m.id = $2 WHERE c.id = $1",
            )
            .bind(campaign.0)
            .bind(id.0)
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        results.turn_to(id.chunk());
        let page = results.next_page().await?.unwrap_or_default();
        let Some(row) = page.into_iter().find(|row| row.row_number == i64::from(row_number)) else { return Ok(None) };
        let attempts = self.attempts_of(campaign, id).await?;
        let (found_at, readings) = (instant_if_any(found_at), self.readings_of(id, &row, &attempts, found_at).await?);
        let mut events = self.events_of(campaign, id).await?;
        // What an attempt's end did to rows that were not found is nothing that befell a row that was.
        let befell = |event: &StoryEvent| {
            !(matches!(event.kind.as_str(), "held" | "resent") && found_at.is_some_and(|found| found <= event.at))
        };
        events.retain(befell);
        let launched_at = instant(launched_at);
        Ok(Some(Story { file_name, launched_by, launched_at, row, found_at, attempts, readings, events }))
    }

    /// The ids behind a campaign's name and a spreadsheet's row number; `None` if there is no such row.
    pub async fn find_row(&self, campaign: &str, row_number: u32) -> Result<Option<(CampaignId, RowId)>> {
        let operation = "find a row";
        let found: Option<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(dialect.all_rows(&format!(
                "SELECT c.id, m.id FROM campaigns c
                 {then_join} chunks k ON k.campaign_id = c.id {{rows}}
                 WHERE c.name = $1 AND m.row_number = $2",
                then_join = dialect.then_join()
            ))))
            .bind(campaign)
            .bind(i64::from(row_number))
            .fetch_optional(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.map(|(campaign, row)| (CampaignId(campaign), RowId(row))))
    }

    async fn attempts_of(&self, campaign: CampaignId, row: RowId) -> Result<Vec<StoryAttempt>> {
        type Found = (i64, String, String, i64, i64, Option<i64>, Option<i64>, Option<String>, i64);
        let operation = "read a row's attempts";
        let found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
            let statement = match dialect {
                Dialect::Sqlite => {
                    "SELECT id, sent_via, state, json_array_length(row_ids), formed_at, sending_at, ended_at, outcome, looks
                     FROM attempts WHERE campaign_id = $3 AND chunk_id = $1
                     AND EXISTS (SELECT 1 FROM json_each(row_ids) WHERE value = $2) ORDER BY id"
                }
                Dialect::Postgres => {
                    "SELECT id, sent_via, state, json_array_length(row_ids::json)::bigint, formed_at, sending_at, ended_at,
                            outcome, looks
                     FROM attempts WHERE campaign_id = $3 AND chunk_id = $1
                     AND EXISTS (SELECT 1 FROM json_array_elements_text(row_ids::json) AS r (id) WHERE r.id::bigint = $2)
                     ORDER BY id"
                }
            };
            sqlx::query_as(statement)
                .bind(row.chunk().0)
                .bind(row.0)
                .bind(campaign.0)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
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

    /// Readings of the list that passed the time of one of a row's calls, up to the row's end.
    async fn readings_of(
        &self,
        id: RowId,
        row: &ReportRow,
        attempts: &[StoryAttempt],
        found_at: Option<i64>,
    ) -> Result<Vec<StoryReading>> {
        type Found = (i64, i64, i64, i64, i64, Option<i64>, Option<i64>);
        let operation = "read which readings of the list looked for a row";
        let until = row.final_at.map_or(i64::MAX, ms).max(found_at.unwrap_or(i64::MIN));
        let mut readings: BTreeMap<i64, StoryReading> = BTreeMap::new();
        for attempt in attempts.iter().filter(|attempt| attempt.state != "released") {
            let Some(sending_at) = attempt.sending_at else { continue };
            let found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
                sqlx::query_as(
                    "SELECT id, began_at, read_at, since, until, row_id, listed FROM readings
                     WHERE sender = $1 AND until >= ($2 - 600000) / 1000 AND began_at BETWEEN $2 AND $4
                       AND (row_id IS NULL OR row_id = $5)
                       AND ($6 BETWEEN began_at AND read_at OR listed IS NOT NULL
                          AND until * 1000 + 2000 >= $2 + skew_ms AND since * 1000 - 1000 <= $3 + skew_ms)
                     ORDER BY id LIMIT 50",
                )
                .bind(row.sender.as_deref())
                .bind(ms(sending_at))
                .bind(ms(attempt.ended_at.unwrap_or(sending_at)) + 5_000)
                .bind(until)
                .bind(id.0)
                .bind(found_at)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
            });
            for (id, began_at, read_at, since, until, row_id, listed) in found {
                let second = |second| Timestamp::from_second(second).unwrap_or_default();
                let reading = StoryReading {
                    began_at: instant(began_at),
                    read_at: instant(read_at),
                    since: second(since),
                    until: second(until),
                    only_this_number: row_id.is_some(),
                    listed,
                };
                readings.insert(id, reading);
            }
        }
        Ok(readings.into_values().take(50).collect())
    }

    /// What was recorded about a row, about its attempts, and about its campaign as a whole.
    async fn events_of(&self, campaign: CampaignId, row: RowId) -> Result<Vec<StoryEvent>> {
        let operation = "read a row's events";
        let found: Vec<(i64, String, String, String, Option<String>)> = read_conn!(self, operation, |conn, dialect| {
            let named = match dialect {
                Dialect::Sqlite => "SELECT 1 FROM json_each(a.row_ids) WHERE value = $1",
                Dialect::Postgres => {
                    "SELECT 1 FROM json_array_elements_text(a.row_ids::json) AS r (id) WHERE r.id::bigint = $1"
                }
            };
            let statement = format!(
                "SELECT at, kind, who, detail, reason FROM events WHERE campaign_id = $3
                    AND (row_id = $1 OR row_id IS NULL AND attempt_id IS NULL OR attempt_id IN
                       (SELECT a.id FROM attempts a WHERE a.campaign_id = $3 AND a.chunk_id = $2 AND EXISTS ({named})))
                 ORDER BY id"
            );
            sqlx::query_as(sql(statement))
                .bind(row.0)
                .bind(row.chunk().0)
                .bind(campaign.0)
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let event = |(at, kind, who, detail, reason)| StoryEvent { at: instant(at), kind, who, detail, reason };
        Ok(found.into_iter().map(event).collect())
    }
}
