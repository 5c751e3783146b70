//! What of a chunk waits to be sent, in one piece, until something touches the first of its rows.
//!
//! Loading so writes next to nothing for a row, and a claim writes it once, as it is sent, instead of a second time. A row
//! stands in a pack or in `messages`, never in both: whatever opens a pack has locked its chunk.

use crate::{NewChunk, NewRow, claims::LIVE, db::Dialect, imports::is_sendable, time::ms};
use campaign::{AttemptId, CampaignId, ChunkId, Msisdn, RowId, RowState, SenderId, TextId, id::CHUNK_ROWS_MAX};
use serde::{Deserialize, Serialize, Serializer as _};
use sqlx::PgConnection;
use std::sync::{Arc, LazyLock};

/// The rows of a chunk that wait to be sent, as they are loaded.
pub(crate) struct Pack<'a> {
    pub(crate) chunk: ChunkId,
    pub(crate) campaign: CampaignId,
    pub(crate) queued: i64,
    pub(crate) scheduled: i64,
    /// The sender and the text of all of its rows, if these have one and wait for nothing.
    pub(crate) alike: Option<(&'a SenderId, TextId)>,
    /// As the column `packs.rows` has them.
    pub(crate) rows: String,
}

/// A row of a pack whose rows are alike, stored as an array of these in this order.
#[derive(Deserialize)]
pub(crate) struct AlikeRow {
    /// In the chunk.
    place: u16,
    row_number: u32,
    number: u64,
    /// The destination as written, unless it is just the number's digits.
    raw: Option<Box<str>>,
    reference: Option<Box<str>>,
}

impl<'a> Pack<'a> {
    /// The pack of a chunk; none if nothing of it is to be sent.
    pub(crate) fn of(chunk: &'a NewChunk) -> Option<Self> {
        let waiting = || (0u16..).zip(&chunk.rows).filter(|(_, row)| is_sendable(row));
        let (_, first) = waiting().next()?;
        let is_like_the_first = |row: &NewRow| {
            let waits = row.state != RowState::Queued || row.scheduled_for.is_some() || row.valid_until.is_some();
            !waits && row.sender == first.sender && row.text == first.text
        };
        let alike = first.sender.as_ref().zip(first.text).filter(|_| waiting().all(|(_, row)| is_like_the_first(row)));
        let plain = |(place, row): (u16, &'a NewRow)| {
            let number = row.destination.map(Msisdn::as_u64);
            let raw = Some(&*row.destination_raw).filter(|raw| !number.is_some_and(|number| is_written(raw, number)));
            (place, row.row_number, number, raw, row.reference.as_deref())
        };
        let rows = match alike {
            Some(_) => json(waiting().map(plain)),
            None => json(waiting().map(|(place, row)| {
                let (place, row_number, number, raw, reference) = plain((place, row));
                let (scheduled, expires) = (row.scheduled_for.map(ms), row.valid_until.map(ms));
                let (sender, text) = (row.sender.as_ref().map(SenderId::as_str), row.text.map(|text| text.0));
                (place, row_number, number, raw, reference, scheduled, expires, sender, text, row.state.name())
            })),
        };
        let of_state = |state| waiting().filter(|(_, row)| row.state == state).map(|_| 1).sum();
        let (queued, scheduled) = (of_state(RowState::Queued), of_state(RowState::Scheduled));
        Some(Self { chunk: chunk.id, campaign: chunk.campaign, queued, scheduled, alike, rows })
    }
}

fn json<T: Serialize>(rows: impl Iterator<Item = T>) -> String {
    let mut json = Vec::with_capacity(CHUNK_ROWS_MAX * 48);
    serde_json::Serializer::new(&mut json).collect_seq(rows).expect("words and numbers are JSON");
    String::from_utf8(json).expect("JSON is text")
}

/// Whether a cell is the number's digits and nothing else.
fn is_written(cell: &str, number: u64) -> bool {
    let mut left = number;
    cell.bytes().rev().all(|byte| {
        let digit = left % 10;
        left /= 10;
        u64::from(byte) == digit + u64::from(b'0')
    }) && left == 0
        && !cell.starts_with('0')
}

/// A pack as it is stored; without rows: there is none.
#[derive(sqlx::FromRow)]
pub(crate) struct Stored {
    sender: Option<String>,
    text_id: Option<i64>,
    body: Option<String>,
    packed_at: Option<i64>,
    rows: Option<String>,
}

impl Stored {
    /// There is one.
    pub(crate) fn is_there(&self) -> bool {
        self.rows.is_some()
    }

    /// What it holds, if its rows are alike.
    pub(crate) fn alike(&self) -> sqlx::Result<Option<AlikePack>> {
        let (Some(sender), Some(text_id), Some(packed_at), Some(rows)) =
            (&self.sender, self.text_id, self.packed_at, &self.rows)
        else {
            return Ok(None);
        };
        // Without what the parser says: it quotes what it read.
        let rows = serde_json::from_str(rows);
        let rows = rows.map_err(|_| sqlx::Error::Decode("a pack is not as it was written".into()))?;
        // An empty text would go out in its place.
        let body = self.body.clone().ok_or_else(|| sqlx::Error::Decode("the text of a pack is gone".into()))?;
        Ok(Some(AlikePack { sender: sender.clone(), text_id, body, packed_at, rows }))
    }
}

/// A pack whose rows are alike.
pub(crate) struct AlikePack {
    pub(crate) sender: String,
    pub(crate) text_id: i64,
    /// The text itself.
    pub(crate) body: String,
    packed_at: i64,
    pub(crate) rows: Vec<AlikeRow>,
}

impl AlikeRow {
    pub(crate) fn id(&self, chunk: ChunkId) -> RowId {
        chunk.row(self.place)
    }

    pub(crate) fn destination(&self) -> i64 {
        self.number.cast_signed()
    }

    /// The destination as written.
    fn raw(&self) -> String {
        self.raw.as_ref().map_or_else(|| self.number.to_string(), |raw| raw.to_string())
    }
}

/// How much keeps numbers from being texted by a sender: opt-outs and live rows. Which parameter is the JSON array of the numbers, and
/// which the sender.
///
/// Each counted for all numbers at once: for Postgres these are two lookups, not two for each number.
pub(crate) fn kept_from_sending(dialect: Dialect, numbers: u8, sender: u8) -> String {
    let numbers = dialect.ids(numbers);
    format!(
        "(SELECT count(*) FROM suppressions s WHERE s.destination {numbers} AND s.sender IN ('', ${sender}))
       + (SELECT count(*) FROM messages o WHERE o.sender = ${sender} AND o.destination {numbers} AND {LIVE})"
    )
}

/// Writes all rows of packs into `messages`: `$chunks` is a JSON array of the ids of their chunks, which the transaction has locked.
macro_rules! unpack {
    ($tx:expr, $dialect:expr, $chunks:expr, $operation:expr) => {{
        let chunks: String = $chunks;
        sqlx::query(sql(format!(
            "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
                scheduled_for, valid_until, queued_at, updated_at)
             SELECT id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
                scheduled_for, valid_until, queued_at, updated_at
             FROM packed_rows WHERE chunk_id {}",
            $dialect.ids(1)
        )))
        .bind(&chunks)
        .execute(&mut *$tx)
        .await
        .during($operation)?;
        sqlx::query(sql(format!("DELETE FROM packs WHERE chunk_id {}", $dialect.ids(1))))
            .bind(&chunks)
            .execute(&mut *$tx)
            .await
            .during($operation)?;
    }};
}
pub(crate) use unpack;

/// A claim of all rows of a pack.
pub(crate) struct WholePack<'a> {
    pub(crate) chunk: ChunkId,
    pub(crate) campaign: i64,
    pub(crate) pack: &'a AlikePack,
    /// Of each of its rows, in their order: its attempt, and by which call it goes.
    pub(crate) attempts: Vec<(AttemptId, &'static str)>,
    pub(crate) now: i64,
}

/// Writes the rows of a pack into `messages` as attempted.
pub(crate) trait InsertClaimed {
    /// Errors: one of them is there already, or another live row to its number from its sender.
    fn insert_claimed(&mut self, claim: WholePack<'_>) -> impl Future<Output = sqlx::Result<()>> + Send;
}

impl InsertClaimed for crate::writer::Connection {
    async fn insert_claimed(&mut self, claim: WholePack<'_>) -> sqlx::Result<()> {
        into_sqlite(self, claim).await
    }
}

impl InsertClaimed for PgConnection {
    async fn insert_claimed(&mut self, claim: WholePack<'_>) -> sqlx::Result<()> {
        into_postgres(self, claim).await
    }
}

/// Values of each row that SQLite is given.
const OWN: usize = 6;

/// One statement for packs of any length, so that it is prepared once: places without an id are left empty.
///
/// A value costs SQLite's driver more than SQLite, so that what rows share is bound once, and a number that stood in the file as its
/// digits is not bound twice. The driver gives values to `?` in their order and to `$n` the n-th: those that are shared are
/// behind all others.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let place = format!("({})", ["?"].repeat(OWN).join(","));
    let (places, own) = ([place.as_str()].repeat(CHUNK_ROWS_MAX).join(","), OWN * CHUNK_ROWS_MAX);
    let [campaign, sender, text, packed, via, now] = [1, 2, 3, 4, 5, 6].map(|nth| format!("${}", own + nth));
    format!(
        "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
            attempts, attempt_id, live, sent_via, queued_at, attempted_at, updated_at)
         SELECT column1, {campaign}, column2, 'attempted', coalesce(column3, CAST(column4 AS TEXT)), column4, {sender}, {text},
            column5, 1, column6, 1, {via}, {packed}, {now}, {now}
         FROM (VALUES {places}) WHERE column1 IS NOT NULL"
    )
});

async fn into_sqlite(conn: &mut crate::writer::Connection, claim: WholePack<'_>) -> sqlx::Result<()> {
    for via in ["bulk", "send"] {
        let of_call = claim.pack.rows.iter().zip(&claim.attempts).filter(|(_, (_, by))| *by == via);
        let mut insert = sqlx::query(INSERT.as_str());
        let mut rows = 0;
        for (row, (attempt, _)) in of_call {
            rows += 1;
            insert = insert
                .bind(row.id(claim.chunk).0)
                .bind(i64::from(row.row_number))
                .bind(row.raw.as_deref().map(Arc::<str>::from))
                .bind(row.destination())
                .bind(row.reference.as_deref().map(Arc::<str>::from))
                .bind(attempt.0);
        }
        if rows == 0 {
            continue;
        }
        for _ in 0..(CHUNK_ROWS_MAX - rows) * OWN {
            insert = insert.bind(None::<i64>);
        }
        let insert = insert
            .bind(claim.campaign)
            .bind(Arc::<str>::from(claim.pack.sender.as_str()))
            .bind(claim.pack.text_id)
            .bind(claim.pack.packed_at)
            .bind(via)
            .bind(claim.now);
        insert.execute(&mut *conn).await?;
    }
    Ok(())
}

async fn into_postgres(conn: &mut PgConnection, claim: WholePack<'_>) -> sqlx::Result<()> {
    let mut rows: Vec<_> = claim.pack.rows.iter().zip(&claim.attempts).collect();
    // Claims of two campaigns may meet at many recipients: all come to them in one order, or each would wait for the other.
    rows.sort_unstable_by_key(|(row, _)| row.number);
    let insert = sqlx::query(
        "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
            attempts, attempt_id, live, sent_via, queued_at, attempted_at, updated_at)
         SELECT id, $1, row_number, 'attempted', destination_raw, destination, $2, $3, reference, 1, attempt_id, 1, via, $4, $5, $5
         FROM unnest($6::bigint[], $7::bigint[], $8::text[], $9::bigint[], $10::text[], $11::bigint[], $12::text[])
            AS of (id, row_number, destination_raw, destination, reference, attempt_id, via)",
    );
    insert
        .bind(claim.campaign)
        .bind(&claim.pack.sender)
        .bind(claim.pack.text_id)
        .bind(claim.pack.packed_at)
        .bind(claim.now)
        .bind(rows.iter().map(|(row, _)| row.id(claim.chunk).0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(row, _)| i64::from(row.row_number)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(row, _)| row.raw()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(row, _)| row.destination()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(row, _)| row.reference.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, (attempt, _))| attempt.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, (_, via))| *via).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{Stored, is_written};

    #[test]
    fn a_pack_whose_text_is_gone_is_not_claimed() {
        let stored = |sender: Option<&str>, body: Option<&str>| Stored {
            sender: sender.map(str::to_owned),
            text_id: sender.map(|_| 1),
            body: body.map(str::to_owned),
            packed_at: Some(0),
            rows: Some("[[0, 2, 447700900120, null, null]]".to_owned()),
        };
        let alike = stored(Some("ACME"), Some("Hi")).alike().unwrap().unwrap();
        assert_eq!((&*alike.body, alike.rows.len()), ("Hi", 1));
        assert!(stored(Some("ACME"), None).alike().is_err());
        assert!(stored(None, None).alike().unwrap().is_none(), "its rows have texts of their own");
    }

    #[test]
    fn only_the_digits_themselves_are_the_number_as_written() {
        assert!(is_written("447700900120", 447_700_900_120));
        for other in [
            "+447700900120",
            "0447700900120",
            "44770090012",
            "7700900120",
            "4477009001200",
            "447700900121",
            " 447700900120",
            "",
        ] {
            assert!(!is_written(other, 447_700_900_120), "{other}");
        }
    }
}
