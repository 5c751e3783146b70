//! What a file that is about to be launched meets in the ledger: people who got texts lately, work that is queued.

use crate::{
    Ledger, Result,
    db::{Dialect, read_conn, sql},
    error::During,
    feed::json_ids,
    retention::PurgeKey,
    time::{instant, ms},
};
use campaign::{CampaignId, Msisdn, SenderId, forecast::Calls};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};

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
const TEXTED: &str = "m.state IN ('attempted', 'held', 'accepted', 'sent')";

/// The texts since `$2` to the numbers in the JSON array `$1`, and to the purged ones whose hashes are in `$3`.
///
/// Nothing keeps rows by their numbers: these come in no order, and such an index costs each text that is sent more than all else
/// that is written of it. So all texts since then are read, in the order in which they were sent, once for many people.
fn texted_since(dialect: Dialect) -> String {
    let hashes = match dialect {
        Dialect::Sqlite => "IN (SELECT value FROM json_each($3))",
        Dialect::Postgres => "= ANY (ARRAY(SELECT json_array_elements_text($3::json)))",
    };
    format!(
        "SELECT m.destination, m.destination_hash, m.campaign_id, m.attempted_at, m.sender, m.text_id
         FROM attempts a
         {} messages m ON m.id BETWEEN a.first_row AND a.last_row AND m.attempt_id = a.id
         WHERE a.formed_at >= $2 AND m.attempted_at >= $2 AND {TEXTED}
           AND (m.destination {} OR m.destination_hash {hashes})",
        dialect.then_join(),
        dialect.ids(1)
    )
}

/// Someone's earlier text: to whom (a purged number as a hash), from which campaign, when, from whom, what.
type Earlier = (Option<i64>, Option<String>, i64, i64, String, i64);

/// Texts whose words are compared at a time.
const TEXTS_A_LOOKUP: usize = 1_000;

impl Ledger {
    /// What these recipients got since then, campaign by campaign; who got nothing is not in the answer. Texts and numbers
    /// that were purged meanwhile are known by what stays of them.
    ///
    /// Cost: by all texts since then. Ask for as many people at a time as there is room for.
    pub async fn texted_since(&self, recipients: &[Recipient<'_>], since: Timestamp) -> Result<Vec<Texted>> {
        let operation = "look for earlier texts to the same people";
        let key = self.purge_key_if_any().await?;
        let mut by_number: HashMap<i64, Vec<usize>> = HashMap::with_capacity(recipients.len());
        for (nth, recipient) in recipients.iter().enumerate() {
            by_number.entry(recipient.destination.as_u64().cast_signed()).or_default().push(nth);
        }
        let hash =
            |key: &PurgeKey, number: &i64| Some((key.of_number(Msisdn::from_digits(number.cast_unsigned())?), *number));
        let by_hash: HashMap<String, i64> =
            key.iter().flat_map(|key| by_number.keys().filter_map(|number| hash(key, number))).collect();
        let found: Vec<Earlier> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(sql(texted_since(dialect)))
                .bind(json_ids(by_number.keys().copied()))
                .bind(ms(since))
                .bind(serde_json::to_string(&by_hash.keys().collect::<Vec<_>>()).expect("hashes are JSON"))
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let mut by_text: BTreeMap<i64, Vec<Texted>> = BTreeMap::new();
        for (number, hash, campaign, at, sender, text) in found {
            let Some(number) = number.or_else(|| by_hash.get(&hash?).copied()) else { continue };
            for nth in by_number.get(&number).into_iter().flatten().copied() {
                let same_sender = recipients[nth].sender.as_str() == sender;
                let texted =
                    Texted { nth, campaign: CampaignId(campaign), at: instant(at), same_text_at: None, same_sender };
                by_text.entry(text).or_default().push(texted);
            }
        }
        let ids: Vec<i64> = by_text.keys().copied().collect();
        for ids in ids.chunks(TEXTS_A_LOOKUP) {
            let texts: Vec<(i64, Option<String>, Option<String>)> = read_conn!(self, operation, |conn, dialect| {
                sqlx::query_as(sql(format!("SELECT id, body, body_hash FROM texts WHERE id {}", dialect.ids(1))))
                    .bind(json_ids(ids.iter().copied()))
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?
            });
            for (id, body, hash) in texts {
                for texted in by_text.get_mut(&id).into_iter().flatten() {
                    let text = recipients[texted.nth].text;
                    let same = match (&body, &hash, &key) {
                        (Some(body), ..) => body == text,
                        (None, Some(hash), Some(key)) => *hash == key.of_text(text),
                        (None, ..) => false,
                    };
                    texted.same_text_at = same.then_some(texted.at);
                }
            }
        }
        let mut by_campaign: BTreeMap<(usize, CampaignId), Texted> = BTreeMap::new();
        for texted in by_text.into_values().flatten() {
            let all = by_campaign.entry((texted.nth, texted.campaign)).or_insert(texted);
            all.at = all.at.max(texted.at);
            all.same_text_at = all.same_text_at.max(texted.same_text_at);
            all.same_sender |= texted.same_sender;
        }
        Ok(by_campaign.into_values().collect())
    }

    /// What active campaigns have left to do now, in batches of at most `batch_len_max`.
    pub async fn queued_work(&self, batch_len_max: u64, now: Timestamp) -> Result<QueuedWork> {
        let operation = "read what is queued";
        let (waiting, open) = read_conn!(self, operation, |conn, dialect| {
            let waiting: Vec<(String, bool, i64)> = sqlx::query_as(sql(dialect.all_rows(&format!(
                "SELECT m.sender, m.scheduled_for > $1 AND m.scheduled_for IS NOT NULL AS later, count(*)
                 FROM campaigns c
                 {then_join} chunks k ON k.campaign_id = c.id {{rows}}
                 WHERE c.state = 'active' AND k.state <> 'done' AND k.blocked = 0 AND m.state IN ('queued', 'scheduled')
                 GROUP BY k.id, m.sender, m.text_id, 2",
                then_join = dialect.then_join()
            ))))
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
