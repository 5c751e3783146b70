//! Texts and numbers are kept for as long as they are needed, then purged; rows, states and counts stay.
//!
//! A file is purged when each of its rows is final and was so for long enough: nothing that is unresolved loses what it is
//! resolved by. It is done in portions, each in a transaction of its own and harmless when repeated, so that a crash or a second
//! purge at the same time costs nothing.
//!
//! In place of a number stay a masked one and a keyed hash, in place of a text a keyed hash: by them a plan still tells who got
//! which text ([`Ledger::texted_since`]). The key is the ledger's own and never leaves it: whoever has the whole ledger can try
//! all numbers, whoever has an extract can't.

use crate::{
    Event, Ledger, Result,
    db::{read_conn, write_tx},
    error::{During, Error, Source},
    events::append_event,
    time::ms,
};
use campaign::{ImportId, Msisdn};
use jiff::Timestamp;
use ring::{hmac, rand::SecureRandom};
use serde::Serialize;
use sqlx::QueryBuilder;
use std::fmt::Write;

/// Until when what is final may go.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Texts of files whose last row was final by then, and of replies read by then.
    pub texts_before: Timestamp,
    /// Numbers of the same.
    pub numbers_before: Timestamp,
}

/// What a purge removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Texts of campaigns.
    pub texts: u64,
    /// Numbers of rows.
    pub numbers: u64,
    /// Texts of replies.
    pub reply_texts: u64,
    /// Numbers of those who replied.
    pub reply_numbers: u64,
}

impl Purged {
    /// Nothing was old enough.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Texts or replies of one transaction.
const PORTION: i64 = 2_000;

/// Chunks of one transaction.
const CHUNKS_A_PORTION: i64 = 4;

/// What stands for a number that never was one.
const PURGED: &str = "(purged)";

const KEY: &str = "numbers";

/// Files that may be purged of something: `column` says since when they are. No row is open, or final for too short a time.
macro_rules! old_files {
    ($column:literal) => {
        concat!(
            "SELECT i.id FROM imports i WHERE i.state = 'loaded' AND i.",
            $column,
            " IS NULL AND i.launched_at <= $1 AND NOT EXISTS (SELECT 1 FROM messages m
                WHERE m.id BETWEEN i.id * 8589934592 AND i.id * 8589934592 + 8589934591
                  AND (m.final_at IS NULL OR m.final_at > $1))
             AND NOT EXISTS (SELECT 1 FROM packs p WHERE p.chunk_id BETWEEN i.id * 16777216 AND i.id * 16777216 + 16777215)
             ORDER BY i.id"
        )
    };
}

impl Ledger {
    /// What [`Self::purge`] would remove now.
    pub async fn purgeable(&self, retention: Retention) -> Result<Purged> {
        let operation = "count what may be purged";
        let (texts_before, numbers_before) = (ms(retention.texts_before), ms(retention.numbers_before));
        let mut purged = Purged::default();
        for import in self.old_files(old_files!("texts_purged_at"), texts_before).await? {
            purged.texts += read_conn!(self, operation, |conn, dialect| {
                sqlx::query_scalar::<_, i64>(
                    "SELECT count(*) FROM texts WHERE id BETWEEN $1 * 4294967296 AND $1 * 4294967296 + 4294967295
                        AND body IS NOT NULL",
                )
                .bind(import)
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
            })
            .cast_unsigned();
        }
        for import in self.old_files(old_files!("numbers_purged_at"), numbers_before).await? {
            purged.numbers += read_conn!(self, operation, |conn, dialect| {
                sqlx::query_scalar::<_, i64>(
                    "SELECT count(*) FROM messages WHERE id BETWEEN $1 * 8589934592 AND $1 * 8589934592 + 8589934591
                        AND destination_hash IS NULL AND destination_raw <> $2",
                )
                .bind(import)
                .bind(PURGED)
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
            })
            .cast_unsigned();
        }
        let (texts, numbers): (i64, i64) = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT count(CASE WHEN text IS NOT NULL AND seen_at <= $1 THEN 1 END),
                    count(CASE WHEN source IS NOT NULL AND seen_at <= $2 THEN 1 END) FROM inbound",
            )
            .bind(texts_before)
            .bind(numbers_before)
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        (purged.reply_texts, purged.reply_numbers) = (texts.cast_unsigned(), numbers.cast_unsigned());
        Ok(purged)
    }

    /// Whether every row of the files of these bytes is final; of bytes that were never loaded there is none.
    pub async fn is_settled(&self, sha256: &str) -> Result<bool> {
        let operation = "read whether a file is settled";
        let open: i64 = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(
                "SELECT count(*) FROM imports i WHERE i.sha256 = $1 AND (i.state = 'loading' OR EXISTS (SELECT 1 FROM messages m
                    WHERE m.id BETWEEN i.id * 8589934592 AND i.id * 8589934592 + 8589934591 AND m.final_at IS NULL)
                    OR EXISTS (SELECT 1 FROM packs p WHERE p.chunk_id BETWEEN i.id * 16777216 AND i.id * 16777216 + 16777215))",
            )
            .bind(sha256)
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        Ok(open == 0)
    }

    /// Removes texts and numbers that are old enough, and records how many. Opt-outs keep their numbers: without them nothing
    /// could be stopped.
    pub async fn purge(&self, retention: Retention, who: &str, now: Timestamp) -> Result<Purged> {
        let (texts_before, numbers_before) = (ms(retention.texts_before), ms(retention.numbers_before));
        let mut purged = Purged::default();
        let texts = self.old_files(old_files!("texts_purged_at"), texts_before).await?;
        let numbers = self.old_files(old_files!("numbers_purged_at"), numbers_before).await?;
        if !texts.is_empty() || !numbers.is_empty() {
            let key = self.purge_key().await?;
            for import in texts {
                purged.texts += self.purge_texts(import, &key, who, now).await?;
            }
            for import in numbers {
                purged.numbers += self.purge_numbers(import, &key, who, now).await?;
            }
        }
        let replies = "UPDATE inbound SET text = NULL WHERE sms_id IN
            (SELECT sms_id FROM inbound WHERE seen_at <= $1 AND text IS NOT NULL ORDER BY sms_id LIMIT $2)";
        purged.reply_texts = self.purge_replies(replies, texts_before, "texts", who, now).await?;
        let replies = "UPDATE inbound SET source = NULL, person = NULL WHERE sms_id IN
            (SELECT sms_id FROM inbound WHERE seen_at <= $1 AND source IS NOT NULL ORDER BY sms_id LIMIT $2)";
        purged.reply_numbers = self.purge_replies(replies, numbers_before, "numbers", who, now).await?;
        Ok(purged)
    }

    async fn old_files(&self, query: &'static str, before: i64) -> Result<Vec<i64>> {
        let operation = "look for files that may be purged";
        Ok(read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar(query).bind(before).fetch_all(&mut *conn).await.during(operation)?
        }))
    }

    async fn purge_texts(&self, import: i64, key: &PurgeKey, who: &str, now: Timestamp) -> Result<u64> {
        let operation = "purge the texts of a file";
        let mut purged = 0;
        loop {
            let portion = write_tx!(self, operation, |tx, dialect| {
                let texts: Vec<(i64, String)> = sqlx::query_as(
                    "SELECT id, body FROM texts WHERE id BETWEEN $1 * 4294967296 AND $1 * 4294967296 + 4294967295
                        AND body IS NOT NULL ORDER BY id LIMIT $2",
                )
                .bind(import)
                .bind(PORTION)
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                for part in texts.chunks(1_000) {
                    let mut update = QueryBuilder::new("WITH purged (id, hash) AS (");
                    update.push_values(part, |mut values, (id, body)| {
                        values.push_bind(*id).push_bind(key.of_text(body));
                    });
                    update.push(
                        ") UPDATE texts SET body = NULL, body_hash = purged.hash FROM purged WHERE texts.id = purged.id",
                    );
                    update.build().execute(&mut *tx).await.during(operation)?;
                }
                texts.len() as u64
            });
            purged += portion;
            if portion == 0 {
                break;
            }
        }
        write_tx!(self, operation, |tx, dialect| {
            let marked =
                sqlx::query("UPDATE imports SET texts_purged_at = $2 WHERE id = $1 AND texts_purged_at IS NULL")
                    .bind(import)
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
            if marked == 1 {
                let event = Event {
                    import: Some(ImportId(import)),
                    ..Event::new("purged", who, format!("purged {purged} texts of a file"))
                };
                append_event!(tx, event, now).during(operation)?;
            }
        });
        Ok(purged)
    }

    async fn purge_numbers(&self, import: i64, key: &PurgeKey, who: &str, now: Timestamp) -> Result<u64> {
        let operation = "purge the numbers of a file";
        let (mut purged, mut after) = (0, -1);
        loop {
            let chunks: Vec<i64> = read_conn!(self, operation, |conn, dialect| {
                sqlx::query_scalar("SELECT id FROM chunks WHERE import_id = $1 AND id > $2 ORDER BY id LIMIT $3")
                    .bind(import)
                    .bind(after)
                    .bind(CHUNKS_A_PORTION)
                    .fetch_all(&mut *conn)
                    .await
                    .during(operation)?
            });
            let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { break };
            let (from, to) = (first * 512, last * 512 + 511);
            after = *last;
            purged += write_tx!(self, operation, |tx, dialect| {
                let rows: Vec<(i64, Option<i64>)> = sqlx::query_as(
                    "SELECT id, destination FROM messages WHERE id BETWEEN $1 AND $2 AND final_at IS NOT NULL
                        AND destination_hash IS NULL AND destination_raw <> $3",
                )
                .bind(from)
                .bind(to)
                .bind(PURGED)
                .fetch_all(&mut *tx)
                .await
                .during(operation)?;
                for part in rows.chunks(1_000) {
                    let mut update = QueryBuilder::new("WITH purged (id, hash, masked) AS (");
                    update.push_values(part, |mut values, (id, number)| {
                        let number = number.and_then(|number| Msisdn::from_digits(number.cast_unsigned()));
                        values
                            .push_bind(*id)
                            .push_bind(number.map(|number| key.of_number(number)))
                            .push_bind(number.map_or_else(|| PURGED.to_owned(), masked));
                    });
                    update.push(
                        ") UPDATE messages SET destination = NULL, destination_hash = purged.hash,
                             destination_raw = purged.masked
                         FROM purged WHERE messages.id = purged.id AND messages.final_at IS NOT NULL",
                    );
                    update.build().execute(&mut *tx).await.during(operation)?;
                }
                rows.len() as u64
            });
        }
        write_tx!(self, operation, |tx, dialect| {
            let marked =
                sqlx::query("UPDATE imports SET numbers_purged_at = $2 WHERE id = $1 AND numbers_purged_at IS NULL")
                    .bind(import)
                    .bind(ms(now))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
            if marked == 1 {
                let event = Event {
                    import: Some(ImportId(import)),
                    ..Event::new("purged", who, format!("purged {purged} numbers of a file"))
                };
                append_event!(tx, event, now).during(operation)?;
            }
        });
        Ok(purged)
    }

    async fn purge_replies(
        &self,
        statement: &'static str,
        before: i64,
        what: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<u64> {
        let operation = "purge replies";
        let mut purged = 0;
        loop {
            let portion = write_tx!(self, operation, |tx, dialect| {
                let portion = sqlx::query(statement)
                    .bind(before)
                    .bind(PORTION)
                    .execute(&mut *tx)
                    .await
                    .during(operation)?
                    .rows_affected();
                if portion > 0 {
                    let event = Event::new("purged", who, format!("purged {portion} {what} of replies"));
                    append_event!(tx, event, now).during(operation)?;
                }
                portion
            });
            purged += portion;
            if portion == 0 {
                return Ok(purged);
            }
        }
    }

    /// The key of the hashes that stay; made when it is first needed.
    async fn purge_key(&self) -> Result<PurgeKey> {
        let operation = "read the key of purged numbers";
        let mut fresh = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut fresh)
            .map_err(|_| Error::new(operation, Source::Content("the system has no random numbers".to_owned())))?;
        let key: Vec<u8> = write_tx!(self, operation, |tx, dialect| {
            // Of two that make it at once the first wins, and both read the same.
            sqlx::query("INSERT INTO keys (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(KEY)
                .bind(&fresh[..])
                .execute(&mut *tx)
                .await
                .during(operation)?;
            sqlx::query_scalar("SELECT value FROM keys WHERE name = $1")
                .bind(KEY)
                .fetch_one(&mut *tx)
                .await
                .during(operation)?
        });
        Ok(PurgeKey::new(&key))
    }

    /// The same, in a ledger in which something was purged.
    pub(crate) async fn purge_key_if_any(&self) -> Result<Option<PurgeKey>> {
        let operation = "read the key of purged numbers";
        let key: Option<Vec<u8>> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT value FROM keys WHERE name = $1")
                .bind(KEY)
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(key.map(|key| PurgeKey::new(&key)))
    }
}

/// Makes what stays of a number or a text: 128 bits of an HMAC-SHA256, in hex.
pub(crate) struct PurgeKey(hmac::Key);

impl PurgeKey {
    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Of a number's digits.
    pub(crate) fn of_number(&self, number: Msisdn) -> String {
        self.of(&[number.to_string().as_bytes()])
    }

    /// Of a text; never that of a number, which has no NUL.
    pub(crate) fn of_text(&self, text: &str) -> String {
        self.of(&[b"text\0", text.as_bytes()])
    }

    fn of(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        context.sign().as_ref()[..16].iter().fold(String::with_capacity(32), |mut hex, byte| {
            _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// `44…678`.
fn masked(number: Msisdn) -> String {
    number.masked().to_string().trim_start_matches('+').to_owned()
}
