//! What a file that is about to be launched meets in the ledger: people who got texts lately, work that is queued.

use crate::{
    Ledger, Result,
    db::{Dialect, read_conn, sql},
    error::During,
    feed::json_ids,
    time::{instant, ms},
};
use campaign::{CampaignId, Msisdn, SenderId, forecast::Calls};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Somebody whom a file would text.
pub struct Recipient<'a> {
    /// To whom.
    pub destination: Msisdn,
    /// From whom.
    pub sender: &'a SenderId,
    /// What; personal, so there is no `Debug`.
    pub text: &'a str,
}

/// What somebody got from one campaign, or may have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texted {
    /// Which of the recipients that were asked for, from 0.
    pub nth: usize,
    /// The campaign.
    pub campaign: CampaignId,
    /// When, the last time.
    pub at: Timestamp,
    /// When it was the same text, the last time.
    pub same_text_at: Option<Timestamp>,
    /// One of the texts was from the same sender.
    pub same_sender: bool,
}

/// What active campaigns have left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuedWork {
    /// Rows that are due and not sent.
    pub rows: u64,
    /// Rows that wait for their time.
    pub later: u64,
    /// Calls that send the due ones; `list` and `other` are not counted here.
    pub calls: Calls,
    /// Recipients whose status is to be learned, the due ones among them, by sender.
    pub recipients: BTreeMap<SenderId, u64>,
}

/// States in which somebody has got a text or may have.
const TEXTED: &str = "m.state IN ('sending', 'unknown', 'held', 'accepted', 'sent')";

/// Texts to one number that are looked at: bounds the answer for a number that every campaign has.
const TEXTS_A_NUMBER: u32 = 50;

/// The texts that recipients in a JSON array (`$1`: number, sender, text, and the hashes that stay of number and text when they
/// are purged) got since `$2`.
///
/// Each recipient is looked up in the indexes `texts_of_a_number` and `texts_of_a_purged_number`. Postgres is given no choice (a
/// LATERAL with a LIMIT is nothing that can be hashed), else it would read all messages where its statistics say that there
/// are few.
fn texted_since(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => {
            let texts = |index: &str, number: &str| {
                format!(
                    "SELECT r.key AS nth, m.campaign_id, m.attempted_at,
                        CASE WHEN t.body = json_extract(r.value, '$[2]') OR t.body_hash = json_extract(r.value, '$[4]')
                            THEN m.attempted_at END AS same_text_at,
                        m.sender = json_extract(r.value, '$[1]') AS same_sender
                     FROM json_each($1) r
                     CROSS JOIN messages m INDEXED BY {index} ON {number} AND m.attempted_at >= $2 AND {TEXTED}
                     LEFT JOIN texts t ON t.id = m.text_id"
                )
            };
            format!(
                "SELECT nth, campaign_id, max(attempted_at), max(same_text_at), max(same_sender) FROM ({} UNION ALL {})
                 GROUP BY nth, campaign_id",
                texts("texts_of_a_number", "m.destination = json_extract(r.value, '$[0]')"),
                texts("texts_of_a_purged_number", "m.destination_hash = json_extract(r.value, '$[3]')")
            )
        }
        Dialect::Postgres => {
            let texts = |number: &str, attempted_at: &str| {
                format!(
                    "(SELECT m.campaign_id, m.attempted_at, m.sender, m.text_id FROM messages m
                      WHERE {number} AND {attempted_at} >= $2 AND {TEXTED}
                      ORDER BY m.attempted_at DESC LIMIT {TEXTS_A_NUMBER})"
                )
            };
            format!(
                "SELECT r.n - 1, m.campaign_id, max(m.attempted_at),
                    max(CASE WHEN t.body = r.value->>2 OR t.body_hash = r.value->>4 THEN m.attempted_at END),
                    max(CASE WHEN m.sender = r.value->>1 THEN 1 ELSE 0 END)::bigint
                 FROM json_array_elements($1::json) WITH ORDINALITY AS r(value, n)
                 CROSS JOIN LATERAL ({} UNION ALL {}) m
                 LEFT JOIN texts t ON t.id = m.text_id
                 GROUP BY r.n, m.campaign_id",
                texts("m.destination = (r.value->>0)::bigint", "m.attempted_at"),
                // Not the bare column: it would let the other index be read from end to end.
                texts("m.destination_hash = r.value->>3", "coalesce(m.attempted_at, 0)")
            )
        }
    }
}

impl Ledger {
    /// What these recipients got since then, campaign by campaign; who got nothing is not in the answer. Texts and numbers
    /// that were purged meanwhile are known by what stays of them.
    ///
    /// Cost: by the recipients asked for, not by the ledger. Ask for a thousand or so at a time.
    pub async fn texted_since(&self, recipients: &[Recipient<'_>], since: Timestamp) -> Result<Vec<Texted>> {
        let operation = "look for earlier texts to the same people";
        let key = self.purge_key_if_any().await?;
        let asked: Vec<_> = recipients
            .iter()
            .map(|r| {
                let (number, text) =
                    key.as_ref().map(|key| (key.of_number(r.destination), key.of_text(r.text))).unzip();
                (r.destination.as_u64(), r.sender.as_str(), r.text, number, text)
            })
            .collect();
        let asked = serde_json::to_string(&asked).expect("numbers and texts are JSON");
        let found: Vec<(i64, i64, i64, Option<i64>, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(texted_since(dialect)))
                .bind(&asked)
                .bind(ms(since))
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let texted = found.into_iter().map(|(nth, campaign, at, same_text_at, same_sender)| Texted {
            nth: usize::try_from(nth).unwrap_or(usize::MAX),
            campaign: CampaignId(campaign),
            at: instant(at),
            same_text_at: same_text_at.map(instant),
            same_sender: same_sender > 0,
        });
        Ok(texted.collect())
    }

    /// What active campaigns have left to do now, in batches of at most `batch_len_max`.
    pub async fn queued_work(&self, batch_len_max: u64, now: Timestamp) -> Result<QueuedWork> {
        let operation = "read what is queued";
        let (waiting, open) = read_conn!(self, operation, |conn, dialect| {
            let waiting: Vec<(String, bool, i64)> = sqlx::query_as(sql(format!(
                "SELECT m.sender, m.scheduled_for > $1 AND m.scheduled_for IS NOT NULL AS later, count(*)
                 FROM campaigns c
                 {then_join} chunks k ON k.campaign_id = c.id
                 {then_join} messages m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
                 WHERE c.state = 'active' AND k.state <> 'done' AND k.blocked = 0 AND m.state IN ('queued', 'scheduled')
                 GROUP BY k.id, m.sender, m.text_id, 2",
                then_join = dialect.then_join()
            )))
            .bind(ms(now))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            let open: Vec<(String, i64, i64, i64)> = sqlx::query_as(
                "SELECT sender, CAST(sum(recipients) AS BIGINT), count(*) FILTER (WHERE state = 'formed' AND recipients > 1),
                        count(*) FILTER (WHERE state = 'formed' AND recipients = 1)
                 FROM attempts WHERE state IN ('formed', 'sending', 'accepted', 'unknown') GROUP BY sender",
            )
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            (waiting, open)
        });
        let mut work = QueuedWork::default();
        let mut add = |sender: &str, recipients: u64| {
            if let Ok(sender) = SenderId::parse(sender) {
                *work.recipients.entry(sender).or_default() += recipients;
            }
        };
        for (sender, later, rows) in &waiting {
            let rows = rows.unsigned_abs();
            if *later {
                work.later += rows;
            } else {
                work.rows += rows;
                work.calls.add_rows(rows, batch_len_max);
                add(sender, rows);
            }
        }
        for (sender, recipients, bulk, single) in &open {
            add(sender, recipients.unsigned_abs());
            work.calls.bulk += bulk.unsigned_abs();
            work.calls.single += single.unsigned_abs();
        }
        Ok(work)
    }

    /// The last launch of the same bytes: the file's name then, when, and by whom.
    pub async fn launched_before(&self, sha256: &str) -> Result<Option<(String, Timestamp, String)>> {
        let operation = "look for an earlier launch of the same bytes";
        let found: Option<(String, i64, String)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT file_name, launched_at, launched_by FROM imports WHERE sha256 = $1 AND state = 'loaded'
                 ORDER BY launch DESC LIMIT 1",
            )
            .bind(sha256)
            .fetch_optional(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(found.map(|(file_name, at, by)| (file_name, instant(at), by)))
    }

    /// The names of campaigns.
    pub async fn names_of(&self, campaigns: &[CampaignId]) -> Result<BTreeMap<CampaignId, String>> {
        let operation = "read the names of campaigns";
        let named: Vec<(i64, String)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(format!("SELECT id, name FROM campaigns WHERE id {}", dialect.ids(1))))
                .bind(json_ids(campaigns.iter().map(|campaign| campaign.0)))
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(named.into_iter().map(|(id, name)| (CampaignId(id), name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;
    use sqlx::Row;

    async fn plan(url: &str) -> String {
        let ledger = Ledger::open(url).await.unwrap();
        ledger.migrate().await.unwrap();
        let bound = |statement: String| {
            statement.replace("$1", "'[[447700900001, \"SHOP\", \"hello\", \"ab\", \"cd\"]]'").replace("$2", "1")
        };
        let lines: Vec<String> = match &ledger.db {
            Db::Sqlite(db) => sqlx::query(sql(format!("EXPLAIN QUERY PLAN {}", bound(texted_since(Dialect::Sqlite)))))
                .fetch_all(&db.read)
                .await
                .unwrap()
                .iter()
                .map(|row| row.get::<String, _>(3))
                .collect(),
            Db::Postgres(pool) => {
                // Enough rows, none of them texted, that reading them all would be dear.
                let rows = "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, final_at, \
                            updated_at) SELECT n, 1, n, 'invalid', '', 447700000000 + n, 1, 1 FROM generate_series(1, 20000) n";
                sqlx::query(rows).execute(pool).await.unwrap();
                sqlx::query("ANALYZE messages").execute(pool).await.unwrap();
                sqlx::query(sql(format!("EXPLAIN {}", bound(texted_since(Dialect::Postgres)))))
                    .fetch_all(pool)
                    .await
                    .unwrap()
                    .iter()
                    .map(|row| row.get::<String, _>(0))
                    .collect()
            }
        };
        lines.join("\n")
    }

    fn check(plan: &str) {
        assert!(plan.contains("texts_of_a_number") && plan.contains("texts_of_a_purged_number"), "{plan}");
        assert!(!plan.contains("Seq Scan on messages") && !plan.contains("SCAN m"), "{plan}");
    }

    #[tokio::test]
    async fn earlier_texts_are_looked_up_by_number_on_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        check(&plan(&format!("sqlite:{}", dir.path().join("ledger.db").display())).await);
    }

    #[tokio::test]
    async fn earlier_texts_are_looked_up_by_number_on_postgres() {
        check(&plan(&testbed::database().url()).await);
    }
}
