//! What a person does with a campaign after its launch: pause, resume, cancel.
//!
//! Each is one guarded statement on the campaign; claims and starts look at the campaign's state in their own statements, so
//! that nothing is begun once it is committed. What follows for rows and chunks is done by sweeps, which anyone may repeat.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, sql, write_tx},
    error::During,
    events::append_event,
    feed::json_ids,
    packs::unpack,
    time::ms,
};
use campaign::{CampaignId, ChunkId};
use jiff::Timestamp;
use serde::Serialize;

/// What a campaign may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignState {
    /// Its file is being loaded: nothing of it is sent yet.
    Loading,
    /// It is being sent.
    Active,
    /// Nothing new of it is begun until it is resumed.
    Paused,
    /// Nothing new of it is ever begun.
    Cancelled,
}

impl CampaignState {
    /// The name that the ledger stores and reports print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Loading, Self::Active, Self::Paused, Self::Cancelled].into_iter().find(|state| state.name() == name)
    }
}

/// Who wants something, and why.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// A user's name.
    pub who: &'a str,
    /// In their words.
    pub reason: Option<&'a str>,
}

impl By<'_> {
    /// `paused by ann: the price is wrong`
    pub(crate) fn sentence(&self, deed: &str) -> String {
        match self.reason {
            Some(reason) => format!("{deed} by {}: {reason}", self.who),
            None => format!("{deed} by {}", self.who),
        }
    }
}

/// How steering a campaign went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// It is so now.
    Done,
    /// Nothing was changed: it was in this state.
    Was(CampaignState),
    /// There is no such campaign.
    NoCampaign,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Chunks that it looked at; there may be more while this is not 0.
    pub chunks: u64,
    /// Rows that it ended.
    pub rows: u64,
}

/// A change of a campaign's state: from which states, to which, and how that is told.
struct Turn {
    from: &'static str,
    to: CampaignState,
    deed: &'static str,
}

impl Ledger {
    /// Pauses an active campaign: once this returns, nothing of it is claimed or started. What is in flight is recorded as
    /// ever.
    pub async fn pause(&self, campaign: CampaignId, by: By<'_>, now: Timestamp) -> Result<Steered> {
        let turn = Turn { from: "'active'", to: CampaignState::Paused, deed: "paused" };
        let steered = self.turn(campaign, &turn, by, now).await?;
        if steered == Steered::Done {
            self.unfeed(campaign).await?;
        }
        Ok(steered)
    }

    /// Resumes a paused campaign. A cancelled one stays cancelled.
    pub async fn resume(&self, campaign: CampaignId, by: By<'_>, now: Timestamp) -> Result<Steered> {
        let turn = Turn { from: "'paused'", to: CampaignState::Active, deed: "resumed" };
        self.turn(campaign, &turn, by, now).await
    }

    /// Cancels an active or paused campaign: once this returns, nothing of it is claimed or started, ever. Its unsent rows
    /// become `cancelled` by [`Ledger::sweep_cancelled`]; what is in flight is resolved as ever.
    pub async fn cancel(&self, campaign: CampaignId, by: By<'_>, now: Timestamp) -> Result<Steered> {
        let turn = Turn { from: "'active', 'paused'", to: CampaignState::Cancelled, deed: "cancelled" };
        self.turn(campaign, &turn, by, now).await
    }

    async fn turn(&self, campaign: CampaignId, turn: &Turn, by: By<'_>, now: Timestamp) -> Result<Steered> {
        let operation = "change a campaign's state";
        let why = (turn.to != CampaignState::Active).then(|| by.sentence(turn.deed));
        let steered = write_tx!(self, operation, |tx, dialect| {
            let turned = sqlx::query(sql(format!(
                "UPDATE campaigns SET state = $2, state_why = $3, updated_at = $4 WHERE id = $1 AND state IN ({})",
                turn.from
            )))
            .bind(campaign.0)
            .bind(turn.to.name())
            .bind(why)
            .bind(ms(now))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if turned == 1 {
                let event = Event {
                    campaign: Some(campaign),
                    reason: by.reason.map(str::to_owned),
                    ..Event::new(turn.deed, by.who, format!("campaign {}", turn.deed))
                };
                append_event!(tx, event, now).during(operation)?;
                Steered::Done
            } else {
                let was: Option<String> = sqlx::query_scalar("SELECT state FROM campaigns WHERE id = $1")
                    .bind(campaign.0)
                    .fetch_optional(&mut *tx)
                    .await
                    .during(operation)?;
                was.and_then(|was| CampaignState::of(&was)).map_or(Steered::NoCampaign, Steered::Was)
            }
        });
        Ok(steered)
    }

    /// Takes a paused campaign's jobs for stale: its chunks no longer count as outstanding, and are fed again when it is
    /// resumed. A crash before this costs time only: a claim of such a job puts its chunk to rest.
    async fn unfeed(&self, campaign: CampaignId) -> Result<()> {
        let operation = "take a paused campaign's chunks off the queue";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query("UPDATE chunks SET state = 'waiting', feeds = 0 WHERE campaign_id = $1 AND state = 'fed'")
                .bind(campaign.0)
                .execute(&mut *tx)
                .await
                .during(operation)?;
        });
        Ok(())
    }

    /// Ends the unsent rows of cancelled campaigns, `chunks_max` chunks in one transaction; of one campaign if one is given.
    ///
    /// Also those that came back to `queued` after their campaign was cancelled: whatever queues a row again wakes its
    /// chunk. A chunk that is being worked on is left until its worker puts it to rest.
    pub async fn sweep_cancelled(
        &self,
        campaign: Option<CampaignId>,
        chunks_max: u16,
        now: Timestamp,
    ) -> Result<Swept> {
        let operation = "end the unsent rows of cancelled campaigns";
        let due = format!(
            "SELECT k.id FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
             WHERE c.state = 'cancelled' AND k.state IN ('waiting', 'fed') AND k.state <> 'done' AND (k.campaign_id = $1 OR $1 IS NULL)
             ORDER BY k.id LIMIT {chunks_max}"
        );
        let any: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(sql(due.clone()))
                .bind(campaign.map(|id| id.0))
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        if any.is_none() {
            return Ok(Swept::default());
        }
        let swept = write_tx!(self, operation, |tx, dialect| {
            // Locked as a claim locks them: a chunk is claimed or swept, never both.
            let lock = if dialect.for_update().is_empty() { "" } else { "FOR UPDATE OF k SKIP LOCKED" };
            let chunks: Vec<i64> = sqlx::query_scalar(sql(format!("{due} {lock}")))
                .bind(campaign.map(|id| id.0))
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
            unpack!(tx, dialect, json_ids(chunks.iter().copied()), operation);
            let mut rows = 0;
            for chunk in &chunks {
                let (first, last) = ChunkId(*chunk).row_range();
                rows += sqlx::query(
                    "UPDATE messages SET state = 'cancelled', not_before = NULL, final_at = $3, updated_at = $3,
                        reason = (SELECT c.state_why FROM campaigns c WHERE c.id = messages.campaign_id)
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected();
                sqlx::query(
                    "UPDATE chunks SET state = 'done', blocked = 0 WHERE id = $1 AND state IN ('waiting', 'fed')",
                )
                .bind(chunk)
                .execute(&mut *tx)
                .await
                .during(operation)?;
            }
            Swept { chunks: chunks.len() as u64, rows }
        });
        Ok(swept)
    }

    /// Ends the unsent rows whose `valid_until` has passed, also those of paused campaigns and those that wait for their
    /// hours, `chunks_max` chunks in one transaction.
    pub async fn sweep_expired(&self, chunks_max: u16, now: Timestamp) -> Result<Swept> {
        let operation = "end the rows whose time has passed";
        let due = format!(
            "SELECT id FROM chunks WHERE state <> 'done' AND expires_at <= $1 ORDER BY expires_at LIMIT {chunks_max}"
        );
        let any: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(sql(due.clone())).bind(ms(now)).fetch_optional(&mut *conn).await.during(operation)?
        });
        if any.is_none() {
            return Ok(Swept::default());
        }
        let swept = write_tx!(self, operation, |tx, dialect| {
            let lock = if dialect.for_update().is_empty() { "" } else { "FOR UPDATE SKIP LOCKED" };
            let chunks: Vec<i64> = sqlx::query_scalar(sql(format!("{due} {lock}")))
                .bind(ms(now))
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
            unpack!(tx, dialect, json_ids(chunks.iter().copied()), operation);
            let mut rows = 0;
            for chunk in &chunks {
                let (first, last) = ChunkId(*chunk).row_range();
                rows += sqlx::query(
                    "UPDATE messages SET state = 'expired', reason = 'valid_until passed before it was sent',
                        not_before = NULL, final_at = $3, updated_at = $3
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled') AND valid_until <= $3",
                )
                .bind(first.0)
                .bind(last.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected();
                // A row that is queued again after this wakes its chunk, which brings the time down again.
                let (unsent, next): (i64, Option<i64>) = sqlx::query_as(
                    "SELECT count(*), min(valid_until) FROM messages
                     WHERE id BETWEEN $1 AND $2 AND state IN ('queued', 'scheduled')",
                )
                .bind(first.0)
                .bind(last.0)
                .fetch_one(&mut *tx)
                .await
                .during(operation)?;
                sqlx::query(
                    "UPDATE chunks SET expires_at = $2,
                        state = CASE WHEN $3 = 0 AND state IN ('waiting', 'fed') THEN 'done' ELSE state END
                     WHERE id = $1",
                )
                .bind(chunk)
                .bind(next)
                .bind(unsent)
                .execute(&mut *tx)
                .await
                .during(operation)?;
            }
            Swept { chunks: chunks.len() as u64, rows }
        });
        Ok(swept)
    }
}
