//! What goes to the queue next.

use crate::{
    Ledger, Result,
    db::{quick_tx, read_conn, sql},
    error::During,
    time::ms,
};
use campaign::{CampaignId, ChunkId};
use jiff::{SignedDuration, Timestamp};
use serde::Serializer;

/// Chunks of one campaign that could go to the queue.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The campaign.
    pub campaign: CampaignId,
    /// Higher goes first.
    pub priority: i64,
    /// Its chunks that are due, those that are due longest first, at most as many as were asked for.
    pub chunks: Vec<ChunkId>,
    /// The rows of each of them.
    pub rows: Vec<i64>,
}

/// What of one campaign is on the queue or being worked on.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Out {
    /// The campaign's id.
    pub campaign: i64,
    /// Its priority.
    pub priority: i64,
    /// Its chunks.
    pub chunks: i64,
    /// Their rows.
    pub rows: i64,
}

/// What the feeder sees.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Chunks on the queue or being worked on.
    pub outstanding: usize,
    /// The same by campaign.
    pub out: Vec<Out>,
    /// Chunks that were put on the queue so long ago that their job must be lost.
    pub lost: Vec<(CampaignId, ChunkId)>,
    /// What could go next.
    pub waiting: Vec<Waiting>,
}

/// A fed chunk whose job must be lost: `$2` is the wait after the first feeding, doubled by each further one that no claim
/// answered. A worker that waits for hours leaves the jobs on the queue, and a Redis queue with thousands of them is dead.
const LOST: &str =
    "fed_at < $1 - $2 * (1 << CAST(CASE WHEN feeds > 9 THEN 8 WHEN feeds < 1 THEN 0 ELSE feeds - 1 END AS INTEGER))";

impl Ledger {
    /// Reads what could go to the queue: chunks of active campaigns that are due, and jobs that must be lost because they
    /// have been out for `replay_after`, or twice as long for each time that they were fed again.
    ///
    /// While the ledger is in quarantine nothing could.
    pub async fn backlog(&self, at_most: usize, replay_after: SignedDuration, now: Timestamp) -> Result<Backlog> {
        if self.quarantine().await?.is_some() {
            return Ok(Backlog::default());
        }
        let operation = "read what is to be sent next";
        // Beside each state stand the words of the index `chunks_to_do`: without them SQLite reads the chunks of all that was
        // ever sent.
        let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
        Ok(read_conn!(self, operation, |conn, dialect| {
            let out: Vec<Out> = sqlx::query_as(
                "SELECT k.campaign_id AS campaign, c.priority, count(*) AS chunks, CAST(sum(k.rows) AS BIGINT) AS rows
                 FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
                 WHERE k.state IN ('fed', 'working') AND k.state <> 'done' GROUP BY k.campaign_id, c.priority",
            )
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            // Those of paused campaigns too: a claim puts them to rest, else they would count as outstanding for ever. A LIMIT that
            // is a bare parameter has SQLite prepare the statement anew each time.
            let lost: Vec<(i64, i64)> = sqlx::query_as(sql(format!(
                "SELECT campaign_id, id FROM chunks WHERE state = 'fed' AND state <> 'done' AND {LOST} ORDER BY fed_at LIMIT $3 + 0"
            )))
            .bind(ms(now))
            .bind(ms_of(replay_after))
            .bind(limit)
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            // One with a rate has one chunk out at a time, and none before a second's worth or a text may go.
            let campaigns: Vec<(i64, i64, Option<i64>)> = sqlx::query_as(
                "SELECT id, priority, rate_us FROM campaigns c WHERE state = 'active'
                    AND (rate_us IS NULL OR rate_from + CASE WHEN rate_us > 1000000 THEN rate_us ELSE 1000000 END <= $1 * 1000
                        AND NOT EXISTS
                        (SELECT 1 FROM chunks k WHERE k.campaign_id = c.id AND k.state IN ('fed', 'working') AND k.state <> 'done'))
                    AND EXISTS
                    (SELECT 1 FROM chunks k WHERE k.campaign_id = c.id AND k.state = 'waiting' AND k.state <> 'done' AND k.due_at <= $1)
                 ORDER BY priority DESC, id",
            )
            .bind(ms(now))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            let mut waiting = Vec::with_capacity(campaigns.len());
            for (campaign, priority, rate) in campaigns {
                let chunks: Vec<(i64, i64)> = sqlx::query_as(
                    "SELECT id, rows FROM chunks WHERE state = 'waiting' AND state <> 'done' AND campaign_id = $1 AND due_at <= $2
                     ORDER BY due_at, id LIMIT $3 + 0",
                )
                .bind(campaign)
                .bind(ms(now))
                .bind(if rate.is_some() { 1 } else { limit })
                .fetch_all(&mut *conn)
                .await
                .during(operation)?;
                waiting.push(Waiting {
                    campaign: CampaignId(campaign),
                    priority,
                    chunks: chunks.iter().map(|(chunk, _)| ChunkId(*chunk)).collect(),
                    rows: chunks.into_iter().map(|(_, rows)| rows).collect(),
                });
            }
            Backlog {
                outstanding: usize::try_from(out.iter().map(|out| out.chunks).sum::<i64>()).unwrap_or(0),
                out,
                lost: lost.into_iter().map(|(campaign, chunk)| (CampaignId(campaign), ChunkId(chunk))).collect(),
                waiting,
            }
        }))
    }

    /// The chunk that a job should be used for: the most urgent that is on the queue, the job's own among equals. `None` when
    /// none is left.
    ///
    /// So an urgent campaign waits behind the calls that are being made, not behind the jobs that are ahead of its own; the
    /// job that it came by is used for another chunk.
    pub async fn most_urgent(&self, own: ChunkId) -> Result<Option<ChunkId>> {
        let operation = "read which chunk is the most urgent";
        let found: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT k.id FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
                 WHERE k.state = 'fed' AND k.state <> 'done' AND (c.state = 'active' OR k.id = $1)
                 ORDER BY CASE WHEN c.state = 'active' THEN 0 ELSE 1 END, c.priority DESC,
                    CASE WHEN k.id = $1 THEN 0 ELSE 1 END, k.fed_at, k.id LIMIT 1",
            )
            .bind(own.0)
            .fetch_optional(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.map(ChunkId))
    }

    /// Marks chunks as being on the queue, and answers those that this call marked: of several feeders one gets each, also
    /// each that was lost. A crash before the push loses the job only until `replay_after`.
    pub async fn feed(&self, chunks: &[ChunkId], replay_after: SignedDuration, now: Timestamp) -> Result<Vec<ChunkId>> {
        let operation = "mark chunks as being on the queue";
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let ids = json_ids(chunks.iter().map(|chunk| chunk.0));
        let fed: Vec<i64> = quick_tx!(self, operation, |tx, dialect| {
            // A chunk that somebody has locked is being claimed or fed: waiting for it would make everyone wait for the
            // chunks that this statement has locked by then.
            let skip_locked = if dialect.for_update().is_empty() { "" } else { "FOR UPDATE SKIP LOCKED" };
            sqlx::query_scalar(sql(format!(
                "UPDATE chunks SET state = 'fed', fed_at = $1, feeds = feeds + 1 WHERE id IN
                    (SELECT id FROM chunks WHERE id {} AND (state = 'waiting' OR state = 'fed' AND {LOST})
                     {skip_locked})
                 RETURNING id",
                dialect.ids(3)
            )))
            .bind(ms(now))
            .bind(ms_of(replay_after))
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await
            .during(operation)?
        });
        Ok(fed.into_iter().map(ChunkId).collect())
    }
}

pub(crate) fn ms_of(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// Ids as the JSON array that [`crate::db::Dialect::ids`] reads.
pub(crate) fn json_ids(ids: impl IntoIterator<Item = i64>) -> String {
    serde_json::to_string(&ids.into_iter().collect::<Vec<_>>()).expect("numbers are JSON")
}

/// Pairs of numbers as the JSON object that [`crate::db::Dialect::pairs`] reads, in their order; the first of each pair is there once.
pub(crate) fn json_pairs(pairs: impl IntoIterator<Item = (i64, i64)>) -> String {
    let mut json = Vec::new();
    serde_json::Serializer::new(&mut json).collect_map(pairs).expect("numbers are JSON");
    String::from_utf8(json).expect("JSON is text")
}
