//! Rows and their texts on their way into the tables, as fast as each database takes them.
//!
//! SQLite takes statements of many rows that it has prepared before, Postgres takes COPY. A row that waits, which nearly all
//! do, brings only the columns that say something.

use super::{NewChunk, NewRow, NewText};
use crate::time::ms;
use campaign::{CampaignId, RowId, RowState, SenderId};
use sqlx::{PgConnection, QueryBuilder, Sqlite, SqliteConnection};
use std::{fmt::Write as _, sync::LazyLock};

/// Rows of one statement of SQLite's; four of them are a chunk. More would not be quicker, and a prepared statement takes a
/// kilobyte for each.
const ROWS_A_STATEMENT: usize = 125;

/// A row with what its chunk says of it.
struct Placed<'a> {
    id: RowId,
    campaign: CampaignId,
    row: &'a NewRow,
}

/// All rows of chunks, in their order.
fn placed<'a>(chunks: &'a [&'a NewChunk]) -> impl Iterator<Item = Placed<'a>> {
    chunks.iter().flat_map(|chunk| {
        (0u16..).zip(&chunk.rows).map(|(nth, row)| Placed { id: chunk.id.row(nth), campaign: chunk.campaign, row })
    })
}

fn is_sendable(row: &NewRow) -> bool {
    matches!(row.state, RowState::Queued | RowState::Scheduled)
}

/// Whether a row is to be sent, at once and for ever.
fn is_plain(row: &NewRow) -> bool {
    row.state == RowState::Queued && row.reason.is_none() && row.scheduled_for.is_none() && row.valid_until.is_none()
}

/// What inserts [`ROWS_A_STATEMENT`] plain rows.
static PLAIN: LazyLock<String> = LazyLock::new(|| {
    let mut insert = String::from(
        "INSERT INTO messages (id, campaign_id, row_number, state, destination_raw, destination, sender, text_id, reference,
            queued_at, updated_at) VALUES ",
    );
    for nth in 0..ROWS_A_STATEMENT {
        insert.push_str(if nth == 0 { "" } else { "," });
        insert.push_str("(?,?,?,'queued',?,?,?,?,?,?,?)");
    }
    insert
});

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
    let (plain, others): (Vec<_>, Vec<_>) = placed(chunks).partition(|placed| is_plain(placed.row));
    let mut runs = plain.chunks_exact(ROWS_A_STATEMENT);
    for run in &mut runs {
        let mut insert = sqlx::query(PLAIN.as_str());
        for Placed { id, campaign, row } in run {
            insert = insert
                .bind(id.0)
                .bind(campaign.0)
                .bind(i64::from(row.row_number))
                .bind(&row.destination_raw)
                .bind(number(row))
                .bind(row.sender.as_ref().map(SenderId::as_str))
                .bind(row.text.map(|text| text.0))
                .bind(row.reference.as_deref())
                .bind(now)
                .bind(now);
        }
        insert.execute(&mut *conn).await?;
    }
    for rows in [runs.remainder(), &others].into_iter().flat_map(|rows| rows.chunks(ROWS_A_STATEMENT)) {
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
    let mut copy = conn
        .copy_in_raw(
            "COPY messages (id, campaign_id, row_number, state, reason, destination_raw, destination, sender, text_id,
             reference, scheduled_for, valid_until, queued_at, final_at, updated_at) FROM STDIN",
        )
        .await?;
    let mut lines = String::with_capacity(COPY_BYTES + 4096);
    for placed in placed(chunks) {
        line(&mut lines, &placed, now);
        if lines.len() >= COPY_BYTES {
            copy.send(lines.as_bytes()).await?;
            lines.clear();
        }
    }
    copy.send(lines.as_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// A row as a line of COPY's text format: cells by tabs, `\N` for NULL.
fn line(lines: &mut String, Placed { id, campaign, row }: &Placed<'_>, now: i64) {
    let sendable = is_sendable(row);
    write!(lines, "{}\t{}\t{}\t{}\t", id.0, campaign.0, row.row_number, row.state.name()).expect("a String takes all");
    escaped(lines, row.reason.as_deref());
    escaped(lines, Some(&row.destination_raw));
    integer(lines, number(row));
    escaped(lines, row.sender.as_ref().map(SenderId::as_str));
    integer(lines, row.text.map(|text| text.0));
    escaped(lines, row.reference.as_deref());
    integer(lines, row.scheduled_for.map(ms));
    integer(lines, row.valid_until.map(ms));
    integer(lines, sendable.then_some(now));
    integer(lines, (!sendable).then_some(now));
    writeln!(lines, "{now}").expect("a String takes all");
}

fn integer(lines: &mut String, cell: Option<i64>) {
    match cell {
        Some(cell) => write!(lines, "{cell}\t").expect("a String takes all"),
        None => lines.push_str("\\N\t"),
    }
}

fn escaped(lines: &mut String, cell: Option<&str>) {
    let Some(cell) = cell else { return lines.push_str("\\N\t") };
    let mut rest = cell;
    while let Some(at) = rest.find(['\\', '\t', '\n', '\r']) {
        lines.push_str(&rest[..at]);
        lines.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &rest[at + 1..];
    }
    lines.push_str(rest);
    lines.push('\t');
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_cell_of_copy_keeps_what_it_says() {
        let cell = |text| {
            let mut lines = String::new();
            escaped(&mut lines, text);
            lines
        };
        assert_eq!(cell(None), "\\N\t");
        assert_eq!(cell(Some("\\N")), "\\\\N\t");
        assert_eq!(cell(Some("a\tb\\c\r\nd é")), "a\\tb\\\\c\\r\\nd é\t");
        assert_eq!(cell(Some("")), "\t");
    }
}
