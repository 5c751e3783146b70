//! Rows and their texts on their way into the tables, as fast as each database takes them.
//!
//! SQLite takes statements of many rows that it has prepared before, Postgres takes COPY. A row that waits, which nearly all
//! do, brings only the columns that say something.

use super::{NewChunk, NewRow, NewText};
use crate::time::ms;
use campaign::{CampaignId, Msisdn, RowId, RowState, SenderId, id::CHUNK_ROWS_MAX};
use sqlx::{PgConnection, QueryBuilder, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};
use std::sync::{Arc, LazyLock};

/// Rows of a statement of SQLite's that is put together for them.
const ROWS_A_STATEMENT: usize = 125;

/// A row with what its chunk says of it.
struct Placed<'a> {
    id: RowId,
    campaign: CampaignId,
    row: &'a NewRow,
}

/// The rows of a chunk, in their order.
fn placed(chunk: &NewChunk) -> impl Iterator<Item = Placed<'_>> {
    (0u16..).zip(&chunk.rows).map(|(nth, row)| Placed { id: chunk.id.row(nth), campaign: chunk.campaign, row })
}

fn is_sendable(row: &NewRow) -> bool {
    matches!(row.state, RowState::Queued | RowState::Scheduled)
}

/// Whether a row is to be sent, at once and for ever.
fn is_plain(row: &NewRow) -> bool {
    row.state == RowState::Queued && row.reason.is_none() && row.scheduled_for.is_none() && row.valid_until.is_none()
}

/// Inserts the texts and rows of chunks in bulk.
pub(super) trait InsertRows {
    /// Within the transaction of the connection; `now` in milliseconds.
    fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> impl Future<Output = sqlx::Result<()>> + Send;
}

impl InsertRows for SqliteConnection {
    async fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
        into_sqlite(self, chunks, now).await
    }
}

#[cfg(feature = "simulated")]
impl InsertRows for crate::simulated::Connection {
    async fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
        into_sqlite(self.begun().await?, chunks, now).await
    }
}

impl InsertRows for PgConnection {
    async fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
        into_postgres(self, chunks, now).await
    }
}

async fn into_sqlite(conn: &mut SqliteConnection, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
    let texts: Vec<&NewText> = chunks.iter().flat_map(|chunk| &chunk.texts).collect();
    for texts in texts.chunks(ROWS_A_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO texts (id, body, encoding, segments) ");
        insert.push_values(texts, |mut row, text| {
            row.push_bind(text.id.0)
                .push_bind(&text.body)
                .push_bind(text.encoding.name())
                .push_bind(i64::from(text.segments));
        });
        insert.push(" ON CONFLICT (id) DO NOTHING");
        insert.build().persistent(texts.len() == ROWS_A_STATEMENT).execute(&mut *conn).await?;
    }
    let (mut plain, mut others) = (Vec::with_capacity(chunks.len()), Vec::new());
    for chunk in chunks {
        let (rows, more): (Vec<_>, Vec<_>) = placed(chunk).partition(|placed| is_plain(placed.row));
        plain.push(rows);
        others.extend(more);
    }
    let mut inserts = plain.iter().filter_map(|rows| plain_insert(rows, now));
    let mut ready = inserts.next();
    while let Some(insert) = ready {
        // SQLite has a thread of its own, which inserts these rows while the next are put together.
        let (inserted, next) = tokio::join!(biased; insert.execute(&mut *conn), async { inserts.next() });
        inserted?;
        ready = next;
    }
    for rows in others.chunks(ROWS_A_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO messages (id, campaign_id, row_number, state, reason, destination_raw, destination, sender, text_id,
             reference, scheduled_for, valid_until, queued_at, final_at, updated_at) ",
        );
        insert.push_values(rows, |mut values, Placed { id, campaign, row }| {
            values
                .push_bind(id.0)
                .push_bind(campaign.0)
                .push_bind(i64::from(row.row_number))
                .push_bind(row.state.name())
                .push_bind(row.reason.as_deref())
                .push_bind(&row.destination_raw)
                .push_bind(number(row))
                .push_bind(row.sender.as_ref().map(SenderId::as_str))
                .push_bind(row.text.map(|text| text.0))
                .push_bind(row.reference.as_deref())
                .push_bind(row.scheduled_for.map(ms))
                .push_bind(row.valid_until.map(ms))
                .push_bind(is_sendable(row).then_some(now))
                .push_bind((!is_sendable(row)).then_some(now))
                .push_bind(now);
        });
        // What is left over is of any length, and each length would be prepared and kept.
        insert.build().persistent(rows.len() == ROWS_A_STATEMENT).execute(&mut *conn).await?;
    }
    Ok(())
}

/// What inserts the plain rows of a chunk that has one sender and one text.
static ALIKE: LazyLock<String> = LazyLock::new(|| insert_plain(5, "$2503, $2504"));
/// The same, for rows with senders and texts of their own.
static MIXED: LazyLock<String> = LazyLock::new(|| insert_plain(7, "column6, column7"));

/// A statement for the plain rows of any chunk, so that it is prepared once: places without an id are left empty.
///
/// A value costs SQLite's driver more than SQLite, so that what rows share is bound once, and a number that stood in the
/// file as its digits is not bound twice. The driver gives values to `?` in their order and to `$n` the n-th: those that
/// are shared are behind all others.
fn insert_plain(columns: usize, sender_and_text: &str) -> String {
    let place = format!("({})", ["?"].repeat(columns).join(","));
    let (places, own) = ([place.as_str()].repeat(CHUNK_ROWS_MAX).join(","), columns * CHUNK_ROWS_MAX);
    let (campaign, now) = (own + 1, own + 2);
    format!(
        "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
            queued_at, updated_at)
         SELECT column1, ${campaign}, column2, 'queued', coalesce(column3, CAST(column4 AS TEXT)), column4, {sender_and_text},
            column5, ${now}, ${now}
         FROM (VALUES {places}) WHERE column1 IS NOT NULL"
    )
}

type Insert = Query<'static, Sqlite, SqliteArguments>;

/// The statement that inserts plain rows of one chunk, with what they say; none without rows.
fn plain_insert(rows: &[Placed<'_>], now: i64) -> Option<Insert> {
    let first = rows.first()?;
    let alike = rows.iter().all(|Placed { row, .. }| row.text == first.row.text && row.sender == first.row.sender);
    let mut insert = sqlx::query(if alike { ALIKE.as_str() } else { MIXED.as_str() });
    for Placed { id, row, .. } in rows {
        let as_digits = row.destination.is_some_and(|number| is_written(&row.destination_raw, number));
        insert = insert
            .bind(id.0)
            .bind(i64::from(row.row_number))
            .bind((!as_digits).then(|| Arc::<str>::from(row.destination_raw.as_str())))
            .bind(number(row))
            .bind(row.reference.as_deref().map(Arc::<str>::from));
        if !alike {
            insert = insert.bind(sender(row)).bind(text(row));
        }
    }
    for _ in 0..(CHUNK_ROWS_MAX - rows.len()) * if alike { 5 } else { 7 } {
        insert = insert.bind(None::<i64>);
    }
    insert = insert.bind(first.campaign.0).bind(now);
    Some(if alike { insert.bind(sender(first.row)).bind(text(first.row)) } else { insert })
}

/// Whether a cell is the number's digits and nothing else.
fn is_written(cell: &str, number: Msisdn) -> bool {
    let mut left = number.as_u64();
    cell.bytes().rev().all(|byte| {
        let digit = left % 10;
        left /= 10;
        u64::from(byte) == digit + u64::from(b'0')
    }) && left == 0
        && !cell.starts_with('0')
}

fn sender(row: &NewRow) -> Option<Arc<str>> {
    row.sender.as_ref().map(|sender| sender.as_str().into())
}

fn text(row: &NewRow) -> Option<i64> {
    row.text.map(|text| text.0)
}

fn number(row: &NewRow) -> Option<i64> {
    row.destination.map(|number| number.as_u64().cast_signed())
}

/// Bytes that are sent to Postgres at a time.
const COPY_BYTES: usize = 64 * 1024;

async fn into_postgres(conn: &mut PgConnection, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
    let texts: Vec<&NewText> = chunks.iter().flat_map(|chunk| &chunk.texts).collect();
    if !texts.is_empty() {
        sqlx::query(
            "INSERT INTO texts (id, body, encoding, segments)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) ON CONFLICT (id) DO NOTHING",
        )
        .bind(texts.iter().map(|text| text.id.0).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.body.as_str()).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.encoding.name()).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| i64::from(text.segments)).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    }
    let (plain, others): (Vec<_>, Vec<_>) =
        chunks.iter().flat_map(|chunk| placed(chunk)).partition(|placed| is_plain(placed.row));
    copy(conn, "", &plain, now, |_, _| ()).await?;
    let also = ", reason, scheduled_for, valid_until, final_at";
    copy(conn, also, &others, now, |row, line| {
        escaped(line, row.reason.as_deref());
        integer(line, row.scheduled_for.map(ms));
        integer(line, row.valid_until.map(ms));
        integer(line, (!is_sendable(row)).then_some(now));
    })
    .await
}

/// Copies rows in COPY's text format: cells that end with tabs, the last of a row with a line feed, `\N` for NULL.
///
/// The columns of a plain row come first; `more` writes those that are named in `also`.
async fn copy(
    conn: &mut PgConnection,
    also: &str,
    rows: &[Placed<'_>],
    now: i64,
    more: impl Fn(&NewRow, &mut Vec<u8>),
) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "COPY messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
            queued_at, updated_at{also}) FROM STDIN"
    );
    let mut copy = conn.copy_in_raw(&statement).await?;
    let mut lines = Vec::with_capacity(COPY_BYTES + 4096);
    for Placed { id, campaign, row } in rows {
        integer(&mut lines, Some(id.0));
        integer(&mut lines, Some(campaign.0));
        integer(&mut lines, Some(row.row_number.into()));
        escaped(&mut lines, Some(row.state.name()));
        escaped(&mut lines, Some(&row.destination_raw));
        integer(&mut lines, number(row));
        escaped(&mut lines, row.sender.as_ref().map(SenderId::as_str));
        integer(&mut lines, text(row));
        escaped(&mut lines, row.reference.as_deref());
        integer(&mut lines, is_sendable(row).then_some(now));
        integer(&mut lines, Some(now));
        more(row, &mut lines);
        lines.pop();
        lines.push(b'\n');
        if lines.len() >= COPY_BYTES {
            copy.send(lines.as_slice()).await?;
            lines.clear();
        }
    }
    copy.send(lines.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}

fn integer(line: &mut Vec<u8>, cell: Option<i64>) {
    match cell {
        // As JSON a number has the same digits, and they are written faster than by `write!`.
        Some(cell) => serde_json::to_writer(&mut *line, &cell).expect("memory takes all"),
        None => line.extend_from_slice(b"\\N"),
    }
    line.push(b'\t');
}

fn escaped(line: &mut Vec<u8>, cell: Option<&str>) {
    let Some(cell) = cell else { return line.extend_from_slice(b"\\N\t") };
    let mut rest = cell.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
        line.extend_from_slice(&rest[..at]);
        line.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            _ => b"\\r",
        });
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
    line.push(b'\t');
}

#[cfg(test)]
mod tests {
    use super::{escaped, is_written};
    use campaign::Msisdn;

    #[test]
    fn a_cell_of_copy_keeps_what_it_says() {
        let cell = |text| {
            let mut line = Vec::new();
            escaped(&mut line, text);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(cell(None), "\\N\t");
        assert_eq!(cell(Some("\\N")), "\\\\N\t");
        assert_eq!(cell(Some("a\tb\\c\r\nd é")), "a\\tb\\\\c\\r\\nd é\t");
        assert_eq!(cell(Some("")), "\t");
    }

    #[test]
    fn only_the_digits_themselves_are_the_number_as_written() {
        let number = Msisdn::from_digits(447_700_900_120).unwrap();
        assert!(is_written("447700900120", number));
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
            assert!(!is_written(other, number), "{other}");
        }
    }
}
