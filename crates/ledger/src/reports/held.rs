//! Why rows are held.

use super::instant_if_any;
use crate::{Ledger, Result, db::read_conn, error::During, time::instant};
use jiff::Timestamp;
use serde::Serialize;

/// A row that waits for a person, and what is known about it. It names the person's number: no `Debug`.
#[derive(Clone, Serialize)]
pub struct HeldRow {
    /// Its campaign.
    pub campaign: String,
    /// The spreadsheet's row.
    pub row_number: i64,
    /// To whom.
    pub destination: String,
    /// The person's own reference.
    pub reference: Option<String>,
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
    /// When it was last looked for in a reading that counts.
    pub looked_at: Option<Timestamp>,
    /// The gateway's id, if the list did show it.
    pub gateway_sms_id: Option<i64>,
    /// Since when it is held.
    pub since: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Found {
    name: String,
    row_number: i64,
    destination: String,
    reference: Option<String>,
    sender: String,
    reason: String,
    attempted_at: Option<i64>,
    outcome: Option<String>,
    looks: i64,
    looked_at: Option<i64>,
    sms_id: Option<i64>,
    updated_at: i64,
}

impl Ledger {
    /// The rows that wait for a person, in the order of the file; of one campaign if one is named.
    pub async fn held_rows(&self, campaign: Option<&str>) -> Result<Vec<HeldRow>> {
        let operation = "read the held rows";
        let found: Vec<Found> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT c.name, m.row_number, CAST(m.destination AS TEXT) AS destination, m.reference, m.sender,
                        coalesce(m.reason, '') AS reason, m.attempted_at, a.outcome, coalesce(a.looks, 0) AS looks,
                        a.looked_at, m.sms_id, m.updated_at
                 FROM messages m JOIN campaigns c ON c.id = m.campaign_id LEFT JOIN attempts a ON a.id = m.attempt_id
                 WHERE m.held IS NOT NULL AND (c.name = $1 OR $1 IS NULL) ORDER BY m.campaign_id, m.row_number",
            )
            .bind(campaign)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found
            .into_iter()
            .map(|row| HeldRow {
                campaign: row.name,
                row_number: row.row_number,
                destination: row.destination,
                reference: row.reference,
                sender: row.sender,
                reason: row.reason,
                attempted_at: instant_if_any(row.attempted_at),
                outcome: row.outcome,
                looks: row.looks,
                looked_at: instant_if_any(row.looked_at),
                gateway_sms_id: row.sms_id,
                since: instant(row.updated_at),
            })
            .collect())
    }
}
