//! Loading a file: import, campaigns, texts, chunks, rows.

use crate::{
    Event, Ledger, Result,
    db::{Dialect, load_tx, read_conn, sql, write_tx},
    error::{During, Error, Source},
    events::{append_event, counted},
    time::{instant, ms},
};
use campaign::{CampaignId, ChunkId, ImportId, Msisdn, OwnerId, RowState, SenderId, TextId, rate::Rate};
use jiff::{SignedDuration, Timestamp};

mod people;
mod rows;

pub use people::OptOuts;
use rows::InsertRows;
pub(crate) use rows::is_sendable;

/// How a text is encoded on the air.
pub use campaign::text::Encoding;

/// A file that is about to be loaded.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// Its name, without folders.
    pub file_name: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Lines below the header, rejected ones too.
    pub rows_in_file: u64,
    /// Load it although the same bytes were launched before.
    pub again: bool,
    /// Who launches it.
    pub launched_by: String,
    /// The process that loads it: when it dies in the middle, the next one begins anew.
    pub owner: OwnerId,
    /// Its campaigns, by the name that the file gives them.
    pub campaigns: Vec<NewCampaign>,
}

/// One campaign of a file.
#[derive(Clone, Debug, Default)]
pub struct NewCampaign {
    /// The name that the file gives it.
    pub name: String,
    /// Higher goes first.
    pub priority: i32,
    /// When nobody is texted, as [`campaign::quiet::Hours`] reads it.
    pub quiet: Option<String>,
    /// The days on which people are texted, likewise.
    pub weekdays: Option<String>,
    /// The zone of people whose country's is not known.
    pub zone: Option<String>,
    /// Most texts in a time.
    pub rate: Option<Rate>,
}

/// What [`Ledger::begin_import`] found.
#[derive(Clone, Debug)]
pub enum ImportStart {
    /// Load all chunks. What a load that crashed had left of these bytes was removed: nothing of it was sent.
    Load {
        /// The import.
        import: ImportId,
        /// The ids of its campaigns, in the order in which they were given, each with the name that it got: a name that
        /// is taken by an earlier launch gets `-2`, `-3`, ….
        campaigns: Vec<(CampaignId, String)>,
    },
    /// Another process is loading the same bytes right now.
    Busy {
        /// Its file name.
        file_name: String,
        /// By whom.
        launched_by: String,
    },
    /// The same bytes were launched before.
    Launched {
        /// The earlier import.
        import: ImportId,
        /// Its file name then.
        file_name: String,
        /// When.
        launched_at: Timestamp,
        /// By whom.
        launched_by: String,
        /// The names of its campaigns.
        campaigns: Vec<String>,
        /// Some of its rows are neither final nor held yet.
        unfinished: bool,
    },
    /// The ledger was restored to the middle of loading the same bytes, and the list has shown since that their texts went out.
    SentSince {
        /// Its file name then.
        file_name: String,
        /// When.
        launched_at: Timestamp,
        /// By whom.
        launched_by: String,
    },
}

/// A text, once, however many rows share it.
#[derive(Clone, Debug)]
pub struct NewText {
    /// [`TextId::first_used`].
    pub id: TextId,
    /// The rendered text.
    pub body: String,
    /// Its encoding.
    pub encoding: Encoding,
    /// Its segments.
    pub segments: u32,
}

/// A run of rows of one campaign, 1..=[`campaign::id::CHUNK_ROWS_MAX`].
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// [`ChunkId::nth`]: the same on every reading of the file.
    pub id: ChunkId,
    /// Its campaign.
    pub campaign: CampaignId,
    /// Texts that its rows use and that no earlier chunk brought. A text that is there already is skipped.
    pub texts: Vec<NewText>,
    /// Its rows; the n-th has the id `id.row(n)`.
    pub rows: Vec<NewRow>,
}

/// One line of the file.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The spreadsheet's: the header is row 1.
    pub row_number: u32,
    /// `Invalid`, `Duplicate`, `Suppressed`, `Scheduled` or `Queued`.
    pub state: RowState,
    /// Why, for the first three.
    pub reason: Option<String>,
    /// The destination as written.
    pub destination_raw: String,
    /// The number, unless it is none.
    pub destination: Option<Msisdn>,
    /// Who it is from, unless that is what is wrong.
    pub sender: Option<SenderId>,
    /// Its text, unless that is what is wrong.
    pub text: Option<TextId>,
    /// The person's own reference.
    pub reference: Option<String>,
    /// Not before.
    pub scheduled_for: Option<Timestamp>,
    /// Not after.
    pub valid_until: Option<Timestamp>,
}

/// Rows of an import by what became of them at loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queued or scheduled.
    pub sendable: u64,
    /// Invalid.
    pub invalid: u64,
    /// Duplicate.
    pub duplicate: u64,
    /// Suppressed.
    pub suppressed: u64,
}

/// Locks the chunks of an import that is to be removed: a listing of the gateway's that explains rows of it would bring them out of
/// their packs meanwhile.
macro_rules! lock_chunks {
    ($tx:expr, $dialect:expr, $id:expr, $operation:expr) => {
        sqlx::query(sql(format!("SELECT id FROM chunks WHERE import_id = $1 ORDER BY id{}", $dialect.for_update())))
            .bind($id)
            .fetch_all(&mut *$tx)
            .await
            .during($operation)?
    };
}

/// Removes an import that is still loading: none of its rows was ever sent.
macro_rules! remove_import {
    ($tx:expr, $id:expr, $operation:expr) => {
        for statement in [
            "DELETE FROM messages WHERE id BETWEEN $1 * 8589934592 AND $1 * 8589934592 + 8589934591",
            "DELETE FROM packs WHERE chunk_id BETWEEN $1 * 16777216 AND $1 * 16777216 + 16777215",
            "DELETE FROM texts WHERE id BETWEEN $1 * 4294967296 AND $1 * 4294967296 + 4294967295",
            "DELETE FROM chunks WHERE import_id = $1",
            "DELETE FROM campaigns WHERE import_id = $1",
            "DELETE FROM imports WHERE id = $1",
        ] {
            sqlx::query(statement).bind($id).execute(&mut *$tx).await.during($operation)?;
        }
    };
}

/// A process that loads a file says so at each transaction; after this silence it has lost its claim on the file.
pub(crate) const LOADING_SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// A chunk's columns, but for its import.
fn cells(chunk: &NewChunk) -> (i64, i64, &'static str, i64, usize, Option<i64>) {
    let unsent = || chunk.rows.iter().filter(|row| is_sendable(row));
    let state = if unsent().next().is_some() { "waiting" } else { "done" };
    let all_later = chunk.rows.iter().all(|row| row.scheduled_for.is_some());
    let first = chunk.rows.iter().filter_map(|row| row.scheduled_for).min().filter(|_| all_later);
    let expires = unsent().filter_map(|row| row.valid_until).min().map(ms);
    (chunk.id.0, chunk.campaign.0, state, first.map_or(0, ms), unsent().count(), expires)
}

#[derive(sqlx::FromRow)]
struct Earlier {
    id: i64,
    file_name: String,
    launch: i64,
    state: String,
    launched_by: String,
    launched_at: i64,
    owner_id: i64,
    touched_at: i64,
}

impl Ledger {
    /// Starts or resumes loading a file. The same bytes are loaded once, by any number of processes, unless `again`.
    ///
    /// A crash before [`Ledger::finish_import`] leaves rows that nothing ever sends; the next start removes them.
    pub async fn begin_import(&self, new: &NewImport, now: Timestamp) -> Result<ImportStart> {
        let operation = "begin to load a file";
        self.prove_deaths(now).await?;
        let start = write_tx!(self, operation, |tx, dialect| {
            let earlier: Option<Earlier> = sqlx::query_as(sql(format!(
                "SELECT id, file_name, launch, state, launched_by, launched_at, owner_id, touched_at
                 FROM imports WHERE sha256 = $1 ORDER BY launch DESC LIMIT 1{}",
                dialect.for_update()
            )))
            .bind(&new.sha256)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?;
            let mut launch = 1;
            if let Some(earlier) = earlier {
                launch = earlier.launch + 1;
                if earlier.state == "loading" {
                    let owner_lives: i64 =
                        sqlx::query_scalar("SELECT count(*) FROM owners WHERE id = $1 AND ended_at IS NULL")
                            .bind(earlier.owner_id)
                            .fetch_one(&mut *tx)
                            .await
                            .during(operation)?;
                    let silent = ms(now) - earlier.touched_at > LOADING_SILENCE.as_secs() * 1000;
                    if owner_lives > 0 && !silent && earlier.owner_id != new.owner.0 {
                        return Ok(ImportStart::Busy {
                            file_name: earlier.file_name,
                            launched_by: earlier.launched_by,
                        });
                    }
                    lock_chunks!(tx, dialect, earlier.id, operation);
                    let sent: i64 = sqlx::query_scalar(
                        "SELECT count(*) FROM (SELECT 1 FROM messages
                         WHERE id BETWEEN $1 * 8589934592 AND $1 * 8589934592 + 8589934591 AND attempt_id IS NOT NULL LIMIT 1) AS sent",
                    )
                    .bind(earlier.id)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    if sent > 0 {
                        // What its other rows are that were sent, too, only the list knows.
                        return Ok(ImportStart::SentSince {
                            file_name: earlier.file_name,
                            launched_at: instant(earlier.launched_at),
                            launched_by: earlier.launched_by,
                        });
                    }
                    launch = earlier.launch;
                    remove_import!(tx, earlier.id, operation);
                } else if !new.again {
                    let campaigns: Vec<String> =
                        sqlx::query_scalar("SELECT name FROM campaigns WHERE import_id = $1 ORDER BY id")
                            .bind(earlier.id)
                            .fetch_all(&mut *tx)
                            .await
                            .during(operation)?;
                    let unfinished: i64 = sqlx::query_scalar(
                        "SELECT (SELECT count(*) FROM (SELECT 1 FROM messages
                            WHERE id BETWEEN $1 * 8589934592 AND $1 * 8589934592 + 8589934591
                              AND state IN ('scheduled', 'queued', 'attempted', 'accepted') LIMIT 1) AS open)
                          + (SELECT count(*) FROM packs WHERE chunk_id BETWEEN $1 * 16777216 AND $1 * 16777216 + 16777215)",
                    )
                    .bind(earlier.id)
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                    return Ok(ImportStart::Launched {
                        import: ImportId(earlier.id),
                        file_name: earlier.file_name,
                        launched_at: instant(earlier.launched_at),
                        launched_by: earlier.launched_by,
                        campaigns,
                        unfinished: unfinished > 0,
                    });
                }
            }
            let import: i64 = sqlx::query_scalar(
                "INSERT INTO imports (file_name, sha256, launch, bytes, rows_in_file, state, launched_by, launched_at,
                                      owner_id, touched_at)
                 VALUES ($1, $2, $3, $4, $5, 'loading', $6, $7, $8, $7) RETURNING id",
            )
            .bind(&new.file_name)
            .bind(&new.sha256)
            .bind(launch)
            .bind(i64::try_from(new.bytes).unwrap_or(i64::MAX))
            .bind(i64::try_from(new.rows_in_file).unwrap_or(i64::MAX))
            .bind(&new.launched_by)
            .bind(ms(now))
            .bind(new.owner.0)
            .fetch_one(&mut *tx)
            .await
            .during(operation)?;
            let mut campaigns = Vec::with_capacity(new.campaigns.len());
            for campaign in &new.campaigns {
                let mut name = campaign.name.clone();
                let mut nth = 1;
                let id: i64 = loop {
                    let inserted: Option<i64> = sqlx::query_scalar(
                        "INSERT INTO campaigns (import_id, name, state, priority, quiet, weekdays, zone, rate_us, created_at,
                                                updated_at)
                         VALUES ($1, $2, 'loading', $3, $5, $6, $7, $8, $4, $4) ON CONFLICT (name) DO NOTHING RETURNING id",
                    )
                    .bind(import)
                    .bind(&name)
                    .bind(i64::from(campaign.priority))
                    .bind(ms(now))
                    .bind(campaign.quiet.as_deref())
                    .bind(campaign.weekdays.as_deref())
                    .bind(campaign.zone.as_deref())
                    .bind(campaign.rate.map(|rate| rate.text_us))
                    .fetch_optional(&mut *tx)
                    .await
                    .during(operation)?;
                    match inserted {
                        Some(id) => break id,
                        None => {
                            nth += 1;
                            name = format!("{}-{nth}", campaign.name);
                        }
                    }
                };
                campaigns.push((CampaignId(id), name));
            }
            ImportStart::Load { import: ImportId(import), campaigns }
        });
        Ok(start)
    }

    /// Adds chunks in one transaction. A chunk that is there already is skipped whole. Chunks of one import may be added in any
    /// order, and at once.
    ///
    /// Errors: `Broken` when the import is gone or finished: another process took it over; and for a row that is to be sent
    /// without number, sender or text.
    pub async fn append_chunks(&self, import: ImportId, chunks: &[NewChunk], now: Timestamp) -> Result<()> {
        let operation = "load rows into the ledger";
        let is_whole = |row: &NewRow| row.destination.is_some() && row.sender.is_some() && row.text.is_some();
        if chunks.iter().flat_map(|chunk| &chunk.rows).any(|row| is_sendable(row) && !is_whole(row)) {
            // No constraint looks into a pack.
            let why = "a row that is to be sent has no number, sender or text".to_owned();
            return Err(Error::new(operation, Source::Content(why)));
        }
        load_tx!(self, operation, |tx, dialect| {
            // Whoever takes the file over waits for this transaction, or else nothing is found here.
            let still_ours: Option<i64> = sqlx::query_scalar(sql(format!(
                "SELECT id FROM imports WHERE id = $1 AND state = 'loading'{}",
                match dialect {
                    Dialect::Sqlite => "",
                    Dialect::Postgres => " FOR KEY SHARE",
                }
            )))
            .bind(import.0)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?;
            if still_ours.is_none() {
                return Err(Error::new(operation, Source::Content("another process took the file over".to_owned())));
            }
            // As one statement: each is a journey to the server.
            let inserted: Vec<i64> = sqlx::query_scalar(sql(format!(
                "INSERT INTO chunks (id, import_id, campaign_id, state, due_at, rows, expires_at)
                 SELECT CAST(value->>0 AS BIGINT), $2, CAST(value->>1 AS BIGINT), value->>2, CAST(value->>3 AS BIGINT),
                        CAST(value->>4 AS BIGINT), CAST(value->>5 AS BIGINT)
                 FROM {} WHERE true ON CONFLICT (id) DO NOTHING RETURNING id",
                match dialect {
                    Dialect::Sqlite => "json_each($1)",
                    Dialect::Postgres => "json_array_elements($1::json)",
                }
            )))
            .bind(serde_json::to_string(&chunks.iter().map(cells).collect::<Vec<_>>()).expect("numbers are JSON"))
            .bind(import.0)
            .fetch_all(&mut *tx)
            .await
            .during(operation)?;
            let fresh: Vec<&NewChunk> = chunks.iter().filter(|chunk| inserted.contains(&chunk.id.0)).collect();
            tx.insert_rows(&fresh, ms(now)).await.during(operation)?;
            // Counted here, with the rows and in their commit: counting a million of them at the end takes seconds and memory.
            // As the last thing, since other blocks of the file wait for it.
            let count = |wanted: &[RowState]| {
                let rows = fresh.iter().flat_map(|chunk| &chunk.rows).filter(|row| wanted.contains(&row.state)).count();
                i64::try_from(rows).unwrap_or(i64::MAX)
            };
            sqlx::query(
                "UPDATE imports SET sendable = sendable + $2, invalid = invalid + $3, duplicate = duplicate + $4,
                    suppressed = suppressed + $5, touched_at = $6 WHERE id = $1",
            )
            .bind(import.0)
            .bind(count(&[RowState::Queued, RowState::Scheduled]))
            .bind(count(&[RowState::Invalid]))
            .bind(count(&[RowState::Duplicate]))
            .bind(count(&[RowState::Suppressed]))
            .bind(ms(now))
            .execute(&mut *tx)
            .await
            .during(operation)?;
        });
        Ok(())
    }

    /// Makes the campaigns of a fully loaded import active: nothing of it was sent before. Checks that the rows in the
    /// ledger are as many as the file has. Harmless when repeated.
    pub async fn finish_import(&self, import: ImportId, now: Timestamp) -> Result<Totals> {
        let operation = "finish loading a file";
        let totals = write_tx!(self, operation, |tx, dialect| {
            let found: Option<(i64, i64, i64, i64, i64)> = sqlx::query_as(
                "SELECT rows_in_file, sendable, invalid, duplicate, suppressed FROM imports WHERE id = $1",
            )
            .bind(import.0)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?;
            let (in_file, sendable, invalid, duplicate, suppressed) = found.unwrap_or_default();
            let loaded = sendable + invalid + duplicate + suppressed;
            if found.is_none() || in_file != loaded {
                return Err(Error::new(
                    operation,
                    Source::Content(format!("{loaded} rows were loaded of {in_file} in the file")),
                ));
            }
            let totals = Totals {
                sendable: sendable.cast_unsigned(),
                invalid: invalid.cast_unsigned(),
                duplicate: duplicate.cast_unsigned(),
                suppressed: suppressed.cast_unsigned(),
            };
            let finished = sqlx::query(
                "UPDATE imports SET state = 'loaded', loaded_at = $2, touched_at = $2
                 WHERE id = $1 AND state = 'loading'",
            )
            .bind(import.0)
            .bind(ms(now))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if finished == 1 {
                sqlx::query(
                    "UPDATE campaigns SET state = 'active', updated_at = $2 WHERE import_id = $1 AND state = 'loading'",
                )
                .bind(import.0)
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?;
                let (who, file): (String, String) =
                    sqlx::query_as("SELECT launched_by, file_name FROM imports WHERE id = $1")
                        .bind(import.0)
                        .fetch_one(&mut *tx)
                        .await
                        .during(operation)?;
                let detail = format!(
                    "launched {file}: {} to send, {} invalid, {} duplicate, {} suppressed",
                    counted(totals.sendable, "row"),
                    totals.invalid,
                    totals.duplicate,
                    totals.suppressed
                );
                let event = Event { import: Some(import), ..Event::new("launched", who, detail) };
                append_event!(tx, event, now).during(operation)?;
            }
            totals
        });
        Ok(totals)
    }

    /// Removes an import that was never finished, with all its rows: the file changed while it was read.
    pub async fn abandon_import(&self, import: ImportId) -> Result<()> {
        let operation = "remove a file that was not loaded to its end";
        write_tx!(self, operation, |tx, dialect| {
            let loading: Option<i64> = sqlx::query_scalar("SELECT id FROM imports WHERE id = $1 AND state = 'loading'")
                .bind(import.0)
                .fetch_optional(&mut *tx)
                .await
                .during(operation)?;
            if let Some(id) = loading {
                lock_chunks!(tx, dialect, id, operation);
                remove_import!(tx, id, operation);
            }
        });
        Ok(())
    }

    /// The sender ids that the gateway had approved when they were last read, and when that was; `None` if never.
    pub async fn approved_senders(&self) -> Result<Option<(Timestamp, Vec<SenderId>)>> {
        let operation = "read the approved senders";
        let rows: Vec<(String, String, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT sender, status, checked_at FROM senders ORDER BY sender")
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let Some(checked_at) = rows.iter().map(|row| row.2).max() else { return Ok(None) };
        let approved = rows.iter().filter(|row| row.1 == "approved").filter_map(|row| SenderId::parse(&row.0).ok());
        Ok(Some((instant(checked_at), approved.collect())))
    }

    /// Records the gateway's sender ids, each with whether it is approved. Those that it no longer lists are removed.
    pub async fn record_senders(&self, senders: &[(SenderId, bool)], now: Timestamp) -> Result<()> {
        let operation = "record the gateway's senders";
        write_tx!(self, operation, |tx, dialect| {
            // Not by the time of the last check: two may fall into one millisecond.
            sqlx::query("DELETE FROM senders").execute(&mut *tx).await.during(operation)?;
            for (sender, approved) in senders {
                sqlx::query(
                    "INSERT INTO senders (sender, status, checked_at) VALUES ($1, $2, $3)
                     ON CONFLICT (sender) DO UPDATE SET status = excluded.status, checked_at = excluded.checked_at",
                )
                .bind(sender.as_str())
                .bind(if *approved { "approved" } else { "awaiting" })
                .bind(ms(now))
                .execute(&mut *tx)
                .await
                .during(operation)?;
            }
        });
        Ok(())
    }
}
