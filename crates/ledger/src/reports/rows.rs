//! Delivery reports, streamed.

use super::{instant_if_any, row_state};
use crate::{
    Ledger, Result,
    db::{read_conn, sql},
    error::During,
};
use campaign::{CampaignId, ChunkId, RowState};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sqlx::Row;

/// The columns of a delivery report, in order: those of the view `delivery_reports`.
pub const REPORT_COLUMNS: [&str; 24] = [
    "campaign",
    "row_number",
    "reference",
    "destination_raw",
    "destination",
    "sender",
    "text",
    "encoding",
    "segments",
    "state",
    "reason",
    "attempts",
    "sent_via",
    "gateway_sms_id",
    "gateway_status",
    "id_source",
    "scheduled_for",
    "valid_until",
    "queued_at",
    "attempted_at",
    "accepted_at",
    "checked_at",
    "final_at",
    "updated_at",
];

/// One line of the file, as `delivery_reports` shows it. Its fields are that view's columns.
/// Times are printed to the millisecond, as the view prints them.
#[derive(Clone, Serialize)]
#[expect(missing_docs, reason = "the view's columns are the contract; the design names and explains them")]
pub struct ReportRow {
    pub campaign: String,
    pub row_number: i64,
    pub reference: Option<String>,
    pub destination_raw: String,
    pub destination: Option<String>,
    pub sender: Option<String>,
    pub text: Option<String>,
    pub encoding: Option<String>,
    pub segments: Option<i64>,
    pub state: RowState,
    pub reason: Option<String>,
    pub attempts: i64,
    pub sent_via: Option<String>,
    pub gateway_sms_id: Option<i64>,
    pub gateway_status: Option<String>,
    pub id_source: Option<String>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub scheduled_for: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub valid_until: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub queued_at: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub attempted_at: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub accepted_at: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub checked_at: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub final_at: Option<Timestamp>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub updated_at: Option<Timestamp>,
}

fn to_the_millisecond<S: Serializer>(at: &Option<Timestamp>, to: S) -> std::result::Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.collect_str(&format_args!("{at:.3}")),
        None => to.serialize_none(),
    }
}

/// The delivery reports of one campaign, page by page, each in the order of the file; memory is bounded by a page. Pages are in this
/// order, too, where all rows have one text; rows of rare texts are loaded late, and come with a later page.
pub struct Results {
    ledger: Ledger,
    campaign: CampaignId,
    name: String,
    states: Vec<RowState>,
    after_chunk: i64,
    chunks_a_page: i64,
}

/// Chunks in a page: at most this many times 500 rows. As many are cut of one stretch of a file, by their numbers.
const PAGE_CHUNKS: i64 = 64;

impl Ledger {
    /// The delivery reports of the campaign of that name, only rows in `states` unless that is empty; `None` if there is
    /// no such campaign.
    pub async fn results(&self, name: &str, states: &[RowState]) -> Result<Option<Results>> {
        let operation = "find the campaign";
        let id: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT id FROM campaigns WHERE name = $1")
                .bind(name)
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(id.map(|id| Results {
            ledger: self.clone(),
            campaign: CampaignId(id),
            name: name.to_owned(),
            states: states.to_vec(),
            after_chunk: i64::MIN,
            chunks_a_page: PAGE_CHUNKS,
        }))
    }
}

impl Results {
    /// Makes the next page that of one chunk.
    pub(super) fn turn_to(&mut self, chunk: ChunkId) {
        (self.after_chunk, self.chunks_a_page) = (chunk.0 - 1, 1);
    }

    /// The next rows, possibly none of them in the wanted states; `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ReportRow>>> {
        let operation = "read the delivery reports";
        // The names are this crate's own, so they may stand in the statement.
        let wanted = if self.states.is_empty() {
            String::new()
        } else {
            let names: Vec<_> = self.states.iter().map(|state| format!("'{state}'")).collect();
            format!("AND m.state IN ({})", names.join(", "))
        };
        let mut rows = read_conn!(self.ledger, operation, |conn, dialect| {
            let statement = dialect.all_rows(&format!(
                "SELECT m.row_number, m.reference, m.destination_raw, 
                    CASE WHEN m.destination_hash IS NULL THEN CAST(m.destination AS TEXT) ELSE m.destination_raw END
                        AS destination, m.sender,
                    t.body, t.encoding, t.segments, m.state, m.reason, m.attempts, m.sent_via, m.sms_id,
                    m.gateway_status, m.id_source, m.scheduled_for, m.valid_until, m.queued_at, m.attempted_at,
                    m.accepted_at, m.checked_at, m.final_at, m.updated_at
             FROM chunks k
             {{rows}} LEFT JOIN texts t ON t.id = m.text_id
             WHERE k.campaign_id = $1 AND k.id BETWEEN $2 AND $3 {wanted}"
            ));
            let chunks: Vec<i64> =
                sqlx::query_scalar("SELECT id FROM chunks WHERE campaign_id = $1 AND id > $2 ORDER BY id LIMIT $3")
                    .bind(self.campaign.0)
                    .bind(self.after_chunk)
                    .bind(self.chunks_a_page)
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?;
            let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(None) };
            self.after_chunk = *last;
            let mut found =
                sqlx::query(sql(statement)).bind(self.campaign.0).bind(*first).bind(*last).fetch(&mut *conn);
            let mut rows = Vec::new();
            while let Some(row) = found.try_next().await.during(operation)? {
                macro_rules! column {
                    ($name:literal) => {
                        row.try_get($name).during(operation)?
                    };
                }
                macro_rules! at {
                    ($name:literal) => {
                        instant_if_any(column!($name))
                    };
                }
                rows.push(ReportRow {
                    campaign: self.name.clone(),
                    row_number: column!("row_number"),
                    reference: column!("reference"),
                    destination_raw: column!("destination_raw"),
                    destination: column!("destination"),
                    sender: column!("sender"),
                    text: column!("body"),
                    encoding: column!("encoding"),
                    segments: column!("segments"),
                    state: row_state(column!("state"), operation)?,
                    reason: column!("reason"),
                    attempts: column!("attempts"),
                    sent_via: column!("sent_via"),
                    gateway_sms_id: column!("sms_id"),
                    gateway_status: column!("gateway_status"),
                    id_source: column!("id_source"),
                    scheduled_for: at!("scheduled_for"),
                    valid_until: at!("valid_until"),
                    queued_at: at!("queued_at"),
                    attempted_at: at!("attempted_at"),
                    accepted_at: at!("accepted_at"),
                    checked_at: at!("checked_at"),
                    final_at: at!("final_at"),
                    updated_at: at!("updated_at"),
                });
            }
            rows
        });
        rows.sort_unstable_by_key(|row| row.row_number);
        Ok(Some(rows))
    }
}
