//! Trying again what failed: a new campaign of exactly those rows.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, sql, write_tx},
    error::During,
    events::{self, append_event},
    steering::By,
    time::ms,
};
use campaign::{CampaignId, ImportId, id::CHUNK_ROWS_MAX};
use jiff::Timestamp;

/// A campaign that retries the failed rows of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Its id.
    pub id: CampaignId,
    /// Its name: the other's with `-retry`, `-retry-2`, ….
    pub name: String,
    /// Its rows.
    pub rows: Retriable,
}

/// The failed rows of a campaign that no campaign has retried yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Retriable {
    /// All of them.
    pub failed: i64,
    /// Those of people who have opted out meanwhile: they become `suppressed`.
    pub opted_out: i64,
    /// Others whose `valid_until` has passed: they become `expired`.
    pub late: i64,
}

/// The failed rows of campaign `$1` that are to be tried again, each with whether its person has opted out. A row whose
/// retry failed is retried by retrying the retry.
fn retriable(then_join: &str) -> String {
    format!(
        "SELECT m.id, m.row_number, m.destination_raw, m.destination, m.sender, m.text_id, m.reference,
                coalesce($2, m.valid_until) AS valid_until,
                CASE WHEN EXISTS (SELECT 1 FROM suppressions s WHERE s.destination = m.destination
                    AND s.sender IN ('', m.sender)) THEN 1 ELSE 0 END AS opted_out
         FROM chunks k {then_join} messages m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
         {then_join} texts t ON t.id = m.text_id
         WHERE k.campaign_id = $1 AND m.state = 'failed' AND m.destination IS NOT NULL AND t.body IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM messages r WHERE r.retry_of = m.id)"
    )
}

fn counted(then_join: &str) -> String {
    format!(
        "SELECT count(*) AS failed, count(CASE WHEN opted_out = 1 THEN 1 END) AS opted_out,
                count(CASE WHEN opted_out = 0 AND valid_until <= $3 THEN 1 END) AS late
         FROM ({}) AS failed",
        retriable(then_join)
    )
}

impl Ledger {
    /// Counts what [`Ledger::retry_failed`] would try again.
    pub async fn retriable(
        &self,
        campaign: CampaignId,
        valid_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Retriable> {
        let operation = "count the failed rows of a campaign";
        Ok(read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(counted(dialect.then_join())))
                .bind(campaign.0)
                .bind(valid_until.map(ms))
                .bind(ms(now))
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        }))
    }

    /// Makes a campaign of the rows of another that are `failed`, with the same numbers, senders, texts, references and row
    /// numbers, and sets it going; in one transaction. `None` when there is nothing to retry.
    ///
    /// A row is retried once, however often and by how many this is called: `messages.retry_of` is unique. `valid_until`
    /// takes the place of the rows' own.
    pub async fn retry_failed(
        &self,
        campaign: CampaignId,
        valid_until: Option<Timestamp>,
        by: By<'_>,
        now: Timestamp,
    ) -> Result<Option<Retry>> {
        let operation = "retry the failed rows of a campaign";
        let retry = write_tx!(self, operation, |tx, dialect| 'retry: {
            // Locked, so that a second retry at the same moment waits and then sees the rows of the first.
            let name: Option<String> =
                sqlx::query_scalar(sql(format!("SELECT name FROM campaigns WHERE id = $1{}", dialect.for_update())))
                    .bind(campaign.0)
                    .fetch_optional(&mut *tx)
                    .await
                    .during(operation)?;
            let rows: Retriable = sqlx::query_as(sql(counted(dialect.then_join())))
                .bind(campaign.0)
                .bind(valid_until.map(ms))
                .bind(ms(now))
                .fetch_one(&mut *tx)
                .await
                .during(operation)?;
            let Some(name) = name.filter(|_| rows.failed > 0) else { break 'retry None };
            let import: i64 = sqlx::query_scalar(
                "INSERT INTO imports (file_name, sha256, launch, bytes, rows_in_file, state, launched_by, launched_at,
                                      owner_id, touched_at, loaded_at)
                 VALUES ($1, $2, (SELECT count(*) + 1 FROM imports WHERE sha256 = $2), 0, $3, 'loaded', $4, $5, 0, $5, $5)
                 RETURNING id",
            )
            .bind(format!("failed rows of {name}"))
            .bind(format!("retry of campaign {campaign}"))
            .bind(rows.failed)
            .bind(by.who)
            .bind(ms(now))
            .fetch_one(&mut *tx)
            .await
            .during(operation)?;
            let base = base_of(&name);
            let mut nth = 1;
            let (id, name) = loop {
                let name = if nth == 1 { format!("{base}-retry") } else { format!("{base}-retry-{nth}") };
                let inserted: Option<i64> = sqlx::query_scalar(
                    "INSERT INTO campaigns (import_id, name, state, priority, parent_id, quiet, weekdays, zone, rate_us,
                                            created_at, updated_at)
                     SELECT $1, $2, 'active', priority, id, quiet, weekdays, zone, rate_us, $4, $4
                     FROM campaigns WHERE id = $3 ON CONFLICT (name) DO NOTHING RETURNING id",
                )
                .bind(import)
                .bind(&name)
                .bind(campaign.0)
                .bind(ms(now))
                .fetch_optional(&mut *tx)
                .await
                .during(operation)?;
                match inserted {
                    Some(id) => break (CampaignId(id), name),
                    None => nth += 1,
                }
            };
            // Copied: the texts of the other's file may be purged before these rows are final.
            sqlx::query(sql(format!(
                "INSERT INTO texts (id, body, encoding, segments)
                 SELECT $3 * 4294967296 + id % 4294967296, body, encoding, segments FROM texts
                 WHERE id IN (SELECT text_id FROM ({}) AS failed)",
                retriable(dialect.then_join())
            )))
            .bind(campaign.0)
            .bind(valid_until.map(ms))
            .bind(import)
            .execute(&mut *tx)
            .await
            .during(operation)?;
            // Rows of one sender and text stand together, so that its batches are full.
            sqlx::query(sql(format!(
                "INSERT INTO messages (id, campaign_id, row_number, state, reason, destination_raw, destination, sender,
                    text_id, reference, valid_until, retry_of, queued_at, final_at, updated_at)
                 SELECT ($4 * 16777216 + n / {CHUNK_ROWS_MAX}) * 512 + n % {CHUNK_ROWS_MAX}, $5, row_number,
                    CASE WHEN opted_out = 1 THEN 'suppressed' ELSE 'queued' END,
                    CASE WHEN opted_out = 1 THEN 'has opted out' END,
                    destination_raw, destination, sender, $4 * 4294967296 + text_id % 4294967296, reference, valid_until, id,
                    CASE WHEN opted_out = 0 THEN $3 END, CASE WHEN opted_out = 1 THEN $3 END, $3
                 FROM (SELECT f.*, row_number() OVER (ORDER BY f.sender, f.text_id, f.id) - 1 AS n FROM ({}) AS f) AS failed",
                retriable(dialect.then_join())
            )))
            .bind(campaign.0)
            .bind(valid_until.map(ms))
            .bind(ms(now))
            .bind(import)
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .during(operation)?;
            sqlx::query(
                "INSERT INTO chunks (id, import_id, campaign_id, state, due_at, rows, expires_at)
                 SELECT id / 512, $1, $2, CASE WHEN count(CASE WHEN state = 'queued' THEN 1 END) > 0 THEN 'waiting' ELSE 'done' END,
                    0, count(CASE WHEN state = 'queued' THEN 1 END), min(CASE WHEN state = 'queued' THEN valid_until END)
                 FROM messages WHERE id BETWEEN $1 * 8589934592 AND $1 * 8589934592 + 8589934591 GROUP BY id / 512",
            )
            .bind(import)
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .during(operation)?;
            for (about, words) in [
                (campaign, format!("{} to be retried as {name}", events::counted(rows.failed, "failed row"))),
                (id, format!("launched with {} of campaign {campaign}", events::counted(rows.failed, "failed row"))),
            ] {
                let event = Event {
                    import: Some(ImportId(import)).filter(|_| about == id),
                    campaign: Some(about),
                    reason: by.reason.map(str::to_owned),
                    ..Event::new(if about == id { "launched" } else { "retried" }, by.who, words)
                };
                append_event!(tx, event, now).during(operation)?;
            }
            Some(Retry { id, name, rows })
        });
        Ok(retry)
    }
}

/// A campaign's name without what its retries add.
fn base_of(name: &str) -> &str {
    let without_number =
        name.rsplit_once('-').filter(|(_, nth)| nth.parse::<u32>().is_ok()).map_or(name, |(base, _)| base);
    without_number.strip_suffix("-retry").or(name.strip_suffix("-retry")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::base_of;

    #[test]
    fn retries_of_retries_are_numbered_instead_of_growing() {
        assert_eq!(["a", "a-retry", "a-retry-2", "a-2", "a-2-retry-13"].map(base_of), ["a", "a", "a", "a-2", "a-2"]);
    }
}
