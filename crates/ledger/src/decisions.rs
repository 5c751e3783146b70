//! What a person decides, and what is left to do.

use crate::{
    ErrorKind, Ledger, Result,
    db::{read_conn, sql, write_tx},
    error::{During, Error, Source},
    feed::json_ids,
    steering::By,
    time::{instant, ms},
    transitions::{unblock_chunks, wake_chunk},
};
use campaign::{CampaignId, ChunkId, RowId, RowState};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    str::FromStr,
};

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

/// What a decision did to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It was held, and is as was decided.
    Done,
    /// It is not held: left as it is.
    NotHeld {
        /// What it is.
        state: RowState,
        /// The last decision about it, if there was one.
        by: Option<EarlierDecision>,
    },
    /// The campaign has no such row.
    NotThere,
}

/// A decision that somebody made before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarlierDecision {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What was decided.
    pub detail: String,
    /// Why.
    pub reason: Option<String>,
}

/// A row that was looked up to be decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRow {
    /// Its id.
    pub id: RowId,
    /// The spreadsheet's number of it.
    pub row_number: i64,
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

    /// Applies a person's verdict to held rows of a campaign in one commit, with an event for each that says who decided and
    /// why. Of two persons who decide about a row at once one does; the other is told by whom it was decided.
    ///
    /// Shape: one answer for each row, in the order given.
    pub async fn decide_all(
        &self,
        campaign: CampaignId,
        rows: &[RowId],
        verdict: Verdict,
        by: By<'_>,
        now: Timestamp,
    ) -> Result<Vec<(RowId, Decided)>> {
        for _ in 0..3 {
            match self.try_decide(campaign, rows, verdict, by, now).await {
                // Somebody else has changed the same chunks meanwhile, and has committed by now.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => return other,
            }
        }
        self.try_decide(campaign, rows, verdict, by, now).await
    }

    async fn try_decide(
        &self,
        campaign: CampaignId,
        rows: &[RowId],
        verdict: Verdict,
        by: By<'_>,
        now: Timestamp,
    ) -> Result<Vec<(RowId, Decided)>> {
        let operation = "apply a decision to held rows";
        let (state, set, words) = match verdict {
            Verdict::AssumeSent => ("sent", "gateway_status = 'operator', final_at = $2", "taken for sent"),
            Verdict::Resend => (
                "queued",
                "attempt_id = NULL, resends = resends + 1, not_before = NULL, sms_id = NULL, id_source = NULL, accepted_at = NULL",
                "sent once more",
            ),
            Verdict::Cancel => ("cancelled", "final_at = $2", "given up"),
        };
        let decided: HashSet<i64> = write_tx!(self, operation, |tx, dialect| {
            // Locked in the order of their ids: two persons who name the same rows can't wait for each other.
            let decided: Vec<i64> = sqlx::query_scalar(sql(format!(
                "UPDATE messages SET state = $3, live = NULL, held = NULL, reason = $4, check_at = NULL, updated_at = $2, {set}
                 WHERE state = 'held' AND id IN (SELECT m.id FROM messages m
                    WHERE m.id {} AND m.held IS NOT NULL AND m.campaign_id = $5 ORDER BY m.id{})
                 RETURNING id",
                dialect.ids(1),
                dialect.for_update()
            )))
            .bind(json_ids(rows.iter().map(|row| row.0)))
            .bind(ms(now))
            .bind(state)
            .bind(by.sentence(words))
            .bind(campaign.0)
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            if !decided.is_empty() {
                if verdict == Verdict::Resend {
                    let chunks: BTreeSet<ChunkId> = decided.iter().map(|row| RowId(*row).chunk()).collect();
                    for chunk in chunks {
                        wake_chunk!(tx, chunk, ms(now), operation);
                    }
                }
                unblock_chunks!(tx, operation);
                sqlx::query(sql(format!(
                    "INSERT INTO events (at, kind, who, campaign_id, row_id, row_count, detail, reason)
                     SELECT CAST($2 AS BIGINT), 'decided', CAST($3 AS TEXT), CAST($4 AS BIGINT), r.id, 1, CAST($5 AS TEXT),
                            CAST($6 AS TEXT)
                     FROM messages AS r WHERE r.id {} ORDER BY r.id",
                    dialect.ids(1)
                )))
                .bind(json_ids(decided.iter().copied()))
                .bind(ms(now))
                .bind(by.who)
                .bind(campaign.0)
                .bind(format!("held row {words}"))
                .bind(by.reason)
                .execute(&mut *tx)
                .await
                .during(operation)?;
            }
            decided.into_iter().collect()
        });
        let left: Vec<i64> = rows.iter().map(|row| row.0).filter(|row| !decided.contains(row)).collect();
        let mut left = if left.is_empty() { HashMap::new() } else { self.why_not_held(campaign, left).await? };
        Ok(rows
            .iter()
            .map(|row| match left.remove(row) {
                Some(why) => (*row, why),
                None if decided.contains(&row.0) => (*row, Decided::Done),
                None => (*row, Decided::NotThere),
            })
            .collect())
    }

    /// What became of rows that are not held: their states, and who decided about them last.
    async fn why_not_held(&self, campaign: CampaignId, rows: Vec<i64>) -> Result<HashMap<RowId, Decided>> {
        let operation = "read why rows are not held";
        let chunks: BTreeSet<i64> = rows.iter().map(|row| RowId(*row).chunk().0).collect();
        let (ids, chunks) = (json_ids(rows), json_ids(chunks));
        let (states, decisions) = read_conn!(self, operation, |conn, dialect| {
            let states: Vec<(i64, String)> = sqlx::query_as(sql(dialect.all_rows(&format!(
                "SELECT m.id, m.state FROM chunks k {{rows}} WHERE k.id {} AND m.id {} AND k.campaign_id = $2",
                dialect.ids(3),
                dialect.ids(1)
            ))))
            .bind(&ids)
            .bind(campaign.0)
            .bind(&chunks)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            let decisions: Vec<(i64, i64, String, String, Option<String>)> = sqlx::query_as(sql(format!(
                "SELECT row_id, at, who, detail, reason FROM events
                 WHERE campaign_id = $2 AND kind = 'decided' AND row_id {} ORDER BY id",
                dialect.ids(1)
            )))
            .bind(&ids)
            .bind(campaign.0)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            (states, decisions)
        });
        let mut by_row: HashMap<i64, EarlierDecision> = decisions
            .into_iter()
            .map(|(row, at, who, detail, reason)| (row, EarlierDecision { at: instant(at), who, detail, reason }))
            .collect();
        states
            .into_iter()
            .map(|(row, state)| {
                let state = RowState::from_str(&state)
                    .map_err(|error| Error::new(operation, Source::Content(error.to_string())))?;
                Ok((RowId(row), Decided::NotHeld { state, by: by_row.remove(&row) }))
            })
            .collect()
    }

    /// The row of a campaign with this number in the spreadsheet, held or not.
    pub async fn row_numbered(&self, campaign: CampaignId, row_number: u32) -> Result<Option<FoundRow>> {
        let operation = "find a row";
        let found: Option<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(dialect.all_rows(
                "SELECT m.id, m.row_number FROM chunks k {rows} WHERE k.campaign_id = $1 AND m.row_number = $2",
            )))
            .bind(campaign.0)
            .bind(i64::from(row_number))
            .fetch_optional(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.map(|(id, row_number)| FoundRow { id: RowId(id), row_number }))
    }

    /// The held rows of a campaign between these spreadsheet rows, both included, in the order of the file.
    pub async fn held_between(&self, campaign: CampaignId, first: u32, last: u32) -> Result<Vec<FoundRow>> {
        let operation = "find held rows";
        let found: Vec<(i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT id, row_number FROM messages
                 WHERE campaign_id = $1 AND held IS NOT NULL AND row_number BETWEEN $2 AND $3 ORDER BY row_number",
            )
            .bind(campaign.0)
            .bind(i64::from(first))
            .bind(i64::from(last))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.into_iter().map(|(id, row_number)| FoundRow { id: RowId(id), row_number }).collect())
    }
}
