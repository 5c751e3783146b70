//! What people read of the ledger: counts, delivery reports, a row's story, and the proof that the rows balance.
//!
//! Everything here only reads. Rows carry numbers and texts, so their types have no `Debug`.

mod gauges;
mod health;
mod held;
mod log;
mod rows;
mod story;
mod verify;

pub use gauges::Gauges;
pub use health::{LiveOwner, Trouble};
pub use held::HeldRow;
pub use log::{Log, LogEntry};
pub use rows::{REPORT_COLUMNS, ReportRow, Results};
pub use story::{Story, StoryAttempt, StoryEvent, StoryReading};
pub use verify::Check;

use crate::{
    Ledger, Result,
    db::{read_conn, sql},
    error::{During, Error, Source},
    time::instant,
};
use campaign::{CampaignId, RowState};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Row, types::Json};
use std::{cmp::Reverse, collections::BTreeMap, str::FromStr};

/// Rows of a chunk: their state, why they wait, and how many they are.
type Counted = Vec<(String, String, i64)>;

/// A campaign with how many of its rows are in each state.
#[derive(Clone, Debug, Serialize)]
pub struct CampaignSummary {
    /// Its id.
    #[serde(skip)]
    pub id: CampaignId,
    /// Its name.
    pub campaign: String,
    /// `loading`, `active`, `paused` or `cancelled`.
    pub campaign_state: String,
    /// The file that it came in.
    pub file_name: String,
    /// Who launched it.
    pub launched_by: String,
    /// When.
    pub launched_at: Timestamp,
    /// All rows of it that the ledger holds.
    pub rows: u64,
    /// Rows by state; a state without rows is absent.
    pub states: BTreeMap<RowState, u64>,
    /// Rows that are not final yet, by state and by what they wait for.
    pub waiting: Vec<WaitingRows>,
}

/// Rows of one state that are not final yet, and what they wait for.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct WaitingRows {
    /// Their state.
    pub state: RowState,
    /// The ledger's reason; `None` when they only wait for their turn.
    pub reason: Option<String>,
    /// How many.
    pub rows: u64,
}

impl CampaignSummary {
    /// Rows in one state.
    pub fn count(&self, state: RowState) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// Rows that something will still happen to without a person.
    pub fn open(&self) -> u64 {
        self.states.iter().filter(|(state, _)| !state.is_settled()).map(|(_, rows)| rows).sum()
    }
}

/// Rows of a campaign that ended badly, by reason.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReason {
    /// The campaign.
    pub campaign: String,
    /// The state that they ended in.
    pub state: RowState,
    /// Why; empty when the ledger has no more to say than the state.
    pub reason: String,
    /// How many.
    pub rows: u64,
}

impl Ledger {
    /// The campaigns, oldest first, with their counts; only the one of that name if one is given.
    pub async fn campaign_summaries(&self, name: Option<&str>) -> Result<Vec<CampaignSummary>> {
        let operation = "read the campaigns";
        let (found, counts) = read_conn!(self, operation, |conn, dialect| {
            let found: Vec<(i64, String, String, String, String, i64)> = sqlx::query_as(
                "SELECT c.id, c.name, c.state, i.file_name, i.launched_by, i.launched_at
                 FROM campaigns c JOIN imports i ON i.id = c.import_id
                 WHERE c.name = $1 OR $1 IS NULL ORDER BY c.id",
            )
            .bind(name)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            // Chunk by chunk: SQLite sorts all that it groups, in memory. The reason of a final row is no matter for waiting. In one
            // statement with what waits in packs: a claim takes rows out of one meanwhile.
            let of_chunk = dialect.packed(
                "state, why, n",
                "(SELECT m.state AS state, CASE WHEN m.final_at IS NULL THEN coalesce(m.reason, '') ELSE '' END AS why, count(*) AS n
                  FROM told_rows m WHERE m.id BETWEEN k.id * 512 AND k.id * 512 + 511 GROUP BY 1, 2) AS counted",
            );
            let chunks: Vec<(i64, i64, i64, Json<Counted>)> = sqlx::query_as(sql(format!(
                "SELECT c.id, coalesce(p.queued, 0), coalesce(p.scheduled, 0), ({of_chunk})
                 FROM campaigns c {} chunks k ON k.campaign_id = c.id LEFT JOIN packs p ON p.chunk_id = k.id
                 WHERE c.name = $1 OR $1 IS NULL",
                dialect.then_join()
            )))
            .bind(name)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            let mut counts: BTreeMap<(i64, String, String), i64> = BTreeMap::new();
            for (id, queued, scheduled, Json(counted)) in chunks {
                let packed = [("queued", queued), ("scheduled", scheduled)];
                let packed = packed.map(|(state, rows)| (state.to_owned(), String::new(), rows));
                for (state, why, rows) in counted.into_iter().chain(packed) {
                    *counts.entry((id, state, why)).or_default() += rows;
                }
            }
            (found, counts)
        });
        let mut summaries = Vec::with_capacity(found.len());
        for (id, campaign, campaign_state, file_name, launched_by, launched_at) in found {
            summaries.push(CampaignSummary {
                id: CampaignId(id),
                campaign,
                campaign_state,
                file_name,
                launched_by,
                launched_at: instant(launched_at),
                rows: 0,
                states: BTreeMap::new(),
                waiting: Vec::new(),
            });
        }
        for ((id, state, why), rows) in counts {
            let Ok(at) = summaries.binary_search_by_key(&CampaignId(id), |summary| summary.id) else { continue };
            let (summary, state, rows) = (&mut summaries[at], row_state(&state, operation)?, rows.unsigned_abs());
            if rows == 0 {
                continue;
            }
            summary.rows += rows;
            *summary.states.entry(state).or_insert(0) += rows;
            if !state.is_final() {
                let reason = (!why.is_empty()).then_some(why);
                summary.waiting.push(WaitingRows { state, reason, rows });
            }
        }
        for summary in &mut summaries {
            // Here, since each database has its own order of words.
            summary
                .waiting
                .sort_by(|a, b| (Reverse(a.rows), &a.reason, a.state).cmp(&(Reverse(b.rows), &b.reason, b.state)));
        }
        Ok(summaries)
    }

    /// The names of all campaigns, oldest first.
    pub async fn campaign_names(&self) -> Result<Vec<String>> {
        let operation = "read the campaigns' names";
        Ok(read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT name FROM campaigns ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        }))
    }

    /// Why rows were not sent, failed or are held, the most frequent reason first.
    pub async fn failure_reasons(&self, name: Option<&str>) -> Result<Vec<FailureReason>> {
        let operation = "read the failure reasons";
        let found: Vec<(String, String, String, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT campaign, state, reason, rows FROM failure_reasons
                 WHERE campaign = $1 OR $1 IS NULL ORDER BY campaign, rows DESC, state, reason",
            )
            .bind(name)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        found
            .into_iter()
            .map(|(campaign, state, reason, rows)| {
                Ok(FailureReason { campaign, state: row_state(&state, operation)?, reason, rows: rows.unsigned_abs() })
            })
            .collect()
    }

    /// The names of the columns of one of the views for analysts, in order.
    pub async fn view_columns(&self, view: &str) -> Result<Vec<String>> {
        let operation = "read a view's columns";
        Ok(read_conn!(self, operation, |conn, dialect| {
            let statement = match dialect {
                crate::db::Dialect::Sqlite => "SELECT name FROM pragma_table_info($1) ORDER BY cid".to_owned(),
                crate::db::Dialect::Postgres => "SELECT column_name::text AS name FROM information_schema.columns
                     WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
                    .to_owned(),
            };
            let rows = sqlx::query(sql(statement)).bind(view).fetch_all(&mut *conn).await.during(operation)?;
            rows.iter().map(|row| row.try_get("name")).collect::<std::result::Result<_, _>>().during(operation)?
        }))
    }
}

fn instant_if_any(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(instant)
}

fn row_state(name: &str, operation: &'static str) -> Result<RowState> {
    RowState::from_str(name).map_err(|error| Error::new(operation, Source::Content(error.to_string())))
}
