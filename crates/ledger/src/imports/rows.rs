//! Rows and their texts on their way into the tables, as fast as each database takes them.
//!
//! What waits to be sent, which nearly all rows do, comes as one pack for each chunk. The others are written at once: SQLite takes
//! statements of many rows that it has prepared before, Postgres takes COPY.

use super::{NewChunk, NewRow, NewText};
use crate::{packs::Pack, time::ms};
use campaign::{CampaignId, RowId, RowState, SenderId};
use sqlx::{PgConnection, QueryBuilder, Sqlite, SqliteConnection};

/// Rows of a statement of SQLite's that is put together for them.
const ROWS_A_STATEMENT: usize = 125;

/// A row that is not to be sent, with what its chunk says of it.
struct Placed<'a> {
    id: RowId,
    campaign: CampaignId,
    row: &'a NewRow,
}

/// The rows of chunks that are not to be sent, in their order.
fn left_out<'a>(chunks: &[&'a NewChunk]) -> Vec<Placed<'a>> {
    let placed = |chunk: &&'a NewChunk| {
        let (id, campaign) = (chunk.id, chunk.campaign);
        (0u16..).zip(&chunk.rows).map(move |(nth, row)| Placed { id: id.row(nth), campaign, row })
    };
    chunks.iter().flat_map(placed).filter(|placed| !is_sendable(placed.row)).collect()
}

pub(crate) fn is_sendable(row: &NewRow) -> bool {
    matches!(row.state, RowState::Queued | RowState::Scheduled)
}

/// Inserts the texts and rows of chunks in bulk.
pub(super) trait InsertRows {
    /// Within the transaction of the connection; `now` in milliseconds.
    fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> impl Future<Output = sqlx::Result<()>> + Send;
}

impl InsertRows for crate::writer::Connection {
    async fn insert_rows(&mut self, chunks: &[&NewChunk], now: i64) -> sqlx::Result<()> {
        into_sqlite(self.caught_up().await?, chunks, now).await
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
    for pack in chunks.iter().filter_map(|chunk| Pack::of(chunk)) {
        sqlx::query(
            "INSERT INTO packs (chunk_id, campaign_id, packed_at, queued, scheduled, sender, text_id, rows)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(pack.chunk.0)
        .bind(pack.campaign.0)
        .bind(now)
        .bind(pack.queued)
        .bind(pack.scheduled)
        .bind(pack.alike.map(|(sender, _)| sender.as_str()))
        .bind(pack.alike.map(|(_, text)| text.0))
        .bind(pack.rows)
        .execute(&mut *conn)
        .await?;
    }
    for rows in left_out(chunks).chunks(ROWS_A_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO messages (id, campaign_id, row_number, state, reason, destination_raw, destination, sender, text_id,
             reference, scheduled_for, valid_until, final_at, updated_at) ",
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
                .push_bind(now)
                .push_bind(now);
        });
        // What is left over is of any length, and each length would be prepared and kept.
        insert.build().persistent(rows.len() == ROWS_A_STATEMENT).execute(&mut *conn).await?;
    }
    Ok(())
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
    let packs: Vec<Pack> = chunks.iter().filter_map(|chunk| Pack::of(chunk)).collect();
    if !packs.is_empty() {
        sqlx::query(
            "INSERT INTO packs (chunk_id, campaign_id, packed_at, queued, scheduled, sender, text_id, rows)
             SELECT chunk_id, campaign_id, $1, queued, scheduled, sender, text_id, rows
             FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::text[])
                AS pack (chunk_id, campaign_id, queued, scheduled, sender, text_id, rows)",
        )
        .bind(now)
        .bind(packs.iter().map(|pack| pack.chunk.0).collect::<Vec<_>>())
        .bind(packs.iter().map(|pack| pack.campaign.0).collect::<Vec<_>>())
        .bind(packs.iter().map(|pack| pack.queued).collect::<Vec<_>>())
        .bind(packs.iter().map(|pack| pack.scheduled).collect::<Vec<_>>())
        .bind(packs.iter().map(|pack| pack.alike.map(|(sender, _)| sender.as_str())).collect::<Vec<_>>())
        .bind(packs.iter().map(|pack| pack.alike.map(|(_, text)| text.0)).collect::<Vec<_>>())
        .bind(packs.into_iter().map(|pack| pack.rows).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    }
    copy(conn, &left_out(chunks), now).await
}

/// Copies rows in COPY's text format: cells that end with tabs, the last of a row with a line feed, `\N` for NULL.
async fn copy(conn: &mut PgConnection, rows: &[Placed<'_>], now: i64) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = "COPY messages (id, campaign_id, row_number, state, reason, destination_raw, destination, sender, text_id, reference,
            scheduled_for, valid_until, final_at, updated_at) FROM STDIN";
    let mut copy = conn.copy_in_raw(statement).await?;
    let mut lines = Vec::with_capacity(COPY_BYTES + 4096);
    for Placed { id, campaign, row } in rows {
        integer(&mut lines, Some(id.0));
        integer(&mut lines, Some(campaign.0));
        integer(&mut lines, Some(row.row_number.into()));
        escaped(&mut lines, Some(row.state.name()));
        escaped(&mut lines, row.reason.as_deref());
        escaped(&mut lines, Some(&row.destination_raw));
        integer(&mut lines, number(row));
        escaped(&mut lines, row.sender.as_ref().map(SenderId::as_str));
        integer(&mut lines, text(row));
        escaped(&mut lines, row.reference.as_deref());
        integer(&mut lines, row.scheduled_for.map(ms));
        integer(&mut lines, row.valid_until.map(ms));
        integer(&mut lines, Some(now));
        integer(&mut lines, Some(now));
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
    use super::escaped;

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
}
