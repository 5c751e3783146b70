//! A ledger that was restored: nothing is sent from it until the gateway's list has been read back.
//!
//! A backup knows nothing of what was sent after it was made: the rows stand in it as queued. Whoever finds that out, a
//! person or a worker that knows of calls which the ledger does not have, begins a quarantine. Claims and starts ask for
//! it in their own transactions.

use crate::{
    Event, Ledger, Result,
    db::{Dialect, read_conn, sql, write_tx},
    error::During,
    events::append_event,
    feed::ms_of,
    imports::LOADING_SILENCE,
    time::{instant, ms},
};
use jiff::{SignedDuration, Timestamp};

/// A quarantine that lasts.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// The gateway's list is read back from here.
    pub since: Timestamp,
    /// When it began.
    pub began_at: Timestamp,
    /// Who began it.
    pub began_by: String,
    /// Why.
    pub why: String,
    /// When the last complete reading began.
    pub read_at: Option<Timestamp>,
}

/// What names a ledger and all of its copies, and how far it knows itself to have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Changes when a quarantine ends: from then on it is another ledger than its backups.
    pub name: String,
    /// How many calls were begun from it.
    pub begun: i64,
}

/// What is read back before the last sign of life in the backup: clocks differ, and a sign comes every few seconds.
const MARGIN: SignedDuration = SignedDuration::from_secs(120);

fn fresh_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "lower(hex(randomblob(16)))",
        Dialect::Postgres => "replace(CAST(gen_random_uuid() AS TEXT), '-', '')",
    }
}

impl Ledger {
    /// Which ledger this is, and how far it has come.
    pub async fn identity(&self) -> Result<Identity> {
        let operation = "read which ledger this is";
        let (name, begun): (String, i64) = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT ledger, started FROM quarantine").fetch_one(&mut *conn).await.during(operation)?
        });
        Ok(Identity { name, begun })
    }

    /// When a process that sends last showed that it lives; a backup was made later than that, or at most a few seconds
    /// earlier. `None` if there never was one.
    pub async fn last_sign_of_life(&self) -> Result<Option<Timestamp>> {
        let operation = "read when a sender was last seen";
        let seen: Option<i64> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_scalar("SELECT max(seen_at) FROM owners WHERE kind = 'worker' OR kind = 'run'")
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(seen.map(instant))
    }

    /// The quarantine, if one lasts.
    pub async fn quarantine(&self) -> Result<Option<Quarantine>> {
        let operation = "read whether the ledger is in quarantine";
        let found: Option<(i64, i64, String, String, Option<i64>)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT since, began_at, began_by, why, read_at FROM quarantine WHERE since IS NOT NULL")
                .fetch_optional(&mut *conn)
                .await
                .during(operation)?
        });
        Ok(found.map(|(since, began_at, began_by, why, read_at)| Quarantine {
            since: instant(since),
            began_at: instant(began_at),
            began_by,
            why,
            read_at: read_at.map(instant),
        }))
    }

    /// Begins a quarantine; of several that do the first counts. Without `since` the list is read back from the last sign of
    /// life in the backup, or from when the ledger was made where there is none: a file may be from after the restore.
    /// Answers whether this call began it.
    pub async fn begin_quarantine(
        &self,
        by: &str,
        why: &str,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool> {
        let operation = "begin a quarantine";
        let began = write_tx!(self, operation, |tx, dialect| {
            let made = match dialect {
                Dialect::Sqlite => "CAST(strftime('%s', min(installed_on)) AS INTEGER) * 1000",
                Dialect::Postgres => "CAST(floor(extract(epoch FROM min(installed_on))) * 1000 AS BIGINT)",
            };
            let began = sqlx::query(sql(format!(
                "UPDATE quarantine SET began_at = $1, began_by = $2, why = $3, read_at = NULL, since = coalesce($4,
                    (SELECT max(seen_at) - $5 FROM owners WHERE kind = 'worker' OR kind = 'run'),
                    (SELECT {made} FROM _sqlx_migrations), $1)
                 WHERE since IS NULL"
            )))
            .bind(ms(now))
            .bind(by)
            .bind(why)
            .bind(since.map(ms))
            .bind(i64::try_from(MARGIN.as_millis()).unwrap_or(0))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if let Some(since) = since.filter(|_| began == 0) {
                // Who knows better since when it lacks something is heard; what was read so far counts for nothing then.
                sqlx::query("UPDATE quarantine SET since = $1, read_at = NULL WHERE since > $1")
                    .bind(ms(since))
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
            }
            if began == 1 {
                let detail = "nothing is sent until the gateway's list was read back";
                let event = Event { reason: Some(why.to_owned()), ..Event::new("quarantine", by, detail) };
                append_event!(tx, event, now).during(operation)?;
            }
            began
        });
        Ok(began == 1)
    }

    /// Records that the list was read back completely for this quarantine, by a reading that began then.
    pub async fn note_read_back(&self, of: &Quarantine, began: Timestamp) -> Result<()> {
        let operation = "record that the list was read back";
        write_tx!(self, operation, |tx, dialect| {
            sqlx::query("UPDATE quarantine SET read_at = $1 WHERE began_at = $2 AND since = $3")
                .bind(ms(began))
                .bind(ms(of.began_at))
                .bind(ms(of.since))
                .execute(&mut *tx)
                .await
                .during(operation)?;
        });
        Ok(())
    }

    /// Ends the quarantine: what is queued is sent from now on. Answers whether there was one; with `read`, whether it was
    /// that one still, as it was when the list was read for it by a reading that began at that time, and no file was loaded
    /// since then or is being loaded: its rows were not compared with the list.
    pub async fn end_quarantine(
        &self,
        by: &str,
        why: &str,
        read: Option<(&Quarantine, Timestamp)>,
        now: Timestamp,
    ) -> Result<bool> {
        let operation = "end a quarantine";
        let ended = write_tx!(self, operation, |tx, dialect| {
            let ended = sqlx::query(sql(format!(
                "UPDATE quarantine SET since = NULL, ledger = {} WHERE since IS NOT NULL
                 AND ($1 IS NULL OR began_at = $1 AND since = $2 AND read_at = $3 AND NOT EXISTS
                    (SELECT 1 FROM imports WHERE touched_at >= $4 OR (state = 'loading' AND touched_at >= $5)))",
                fresh_name(dialect)
            )))
            .bind(read.map(|(of, _)| ms(of.began_at)))
            .bind(read.map(|(of, _)| ms(of.since)))
            .bind(read.and_then(|(of, _)| of.read_at).map(ms))
            .bind(read.map(|(_, began)| ms(began)))
            .bind(ms(now) - ms_of(LOADING_SILENCE))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected();
            if ended == 1 {
                let event = Event { reason: Some(why.to_owned()), ..Event::new("quarantine", by, "it is over") };
                append_event!(tx, event, now).during(operation)?;
            }
            ended
        });
        Ok(ended == 1)
    }

    /// Where what was sent from an embedded ledger is remembered outside of it; `None` for a server's.
    pub fn mark_file(&self) -> Option<std::path::PathBuf> {
        match &self.db {
            crate::db::Db::Sqlite(db) => Some(db.path.with_extension("sent")),
            crate::db::Db::Postgres(_) => None,
        }
    }
}
