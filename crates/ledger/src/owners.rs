//! Who sends, and the proof that it still lives or is dead.
//!
//! A lease only says that nobody heard of a process for a while; it may be frozen and wake. Whether rows of an unknown
//! outcome are absent can only be judged once their sender is *proven* to be done, so each process holds a lock that its
//! end releases: a file lock beside an SQLite ledger, a session's advisory lock in Postgres.

use crate::{
    Ledger, Result,
    db::{Db, read_conn, write_tx},
    error::{During, Error, Source},
};
use campaign::OwnerId;
use jiff::Timestamp;
use sqlx::{Connection, PgConnection, PgPool};
use std::{
    fs::{File, TryLockError},
    path::PathBuf,
    sync::Mutex as StdMutex,
};
use tokio::sync::Mutex;

/// First key of the advisory locks that owners hold.
const LOCKS: i32 = 0x0c71;

/// A registered process. While this value lives, nobody takes the process for dead.
#[derive(Debug)]
pub struct OwnerGuard {
    id: OwnerId,
    ledger: Ledger,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    /// The kernel drops the lock when the process ends, however it ends.
    File { path: PathBuf, _lock: StdMutex<File> },
    /// Postgres drops the lock when the session ends; `None` after the session was lost.
    Session { session: Mutex<Option<PgConnection>> },
}

impl OwnerGuard {
    /// Its id.
    pub fn id(&self) -> OwnerId {
        self.id
    }

    /// Says that the process is alive, and takes its lock again after the database was restarted. To be called every few
    /// seconds.
    ///
    /// Answers false when others have taken this process for dead meanwhile: it must register anew.
    pub async fn beat(&self, now: Timestamp) -> Result<bool> {
        let operation = "renew the registration of this process";
        let mut relocked = None;
        if let (Proof::Session { session }, Db::Postgres(pool)) = (&self.proof, &self.ledger.db) {
            let mut session = session.lock().await;
            let alive = match session.as_mut() {
                Some(connection) => connection.ping().await.is_ok(),
                None => false,
            };
            if !alive {
                *session = None;
                let (connection, start) = lock_session(pool, self.id).await?;
                *session = Some(connection);
                relocked = Some(start);
            }
        }
        let alive = write_tx!(self.ledger, operation, |tx, dialect| {
            sqlx::query("UPDATE owners SET seen_at = $2, lock = coalesce($3, lock) WHERE id = $1 AND ended_at IS NULL")
                .bind(self.id.0)
                .bind(now.as_millisecond())
                .bind(relocked.as_deref())
                .execute(&mut *tx)
                .await
                .during(operation)?
                .rows_affected()
        });
        Ok(alive == 1)
    }

    /// Ends the registration: nothing of this process is in flight any more.
    pub async fn end(self, now: Timestamp) -> Result<()> {
        let operation = "end the registration of this process";
        write_tx!(self.ledger, operation, |tx, dialect| {
            sqlx::query("UPDATE owners SET ended_at = $2, ended_how = 'exited' WHERE id = $1 AND ended_at IS NULL")
                .bind(self.id.0)
                .bind(now.as_millisecond())
                .execute(&mut *tx)
                .await
                .during(operation)?;
        });
        if let Proof::File { path, .. } = &self.proof {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }
}

/// Opens a session of its own that holds the lock of `owner`; answers it with the start of the server that holds it.
async fn lock_session(pool: &PgPool, owner: OwnerId) -> Result<(PgConnection, String)> {
    let operation = "take the lock of this process";
    let mut session = PgConnection::connect_with(&pool.connect_options()).await.during(operation)?;
    // Waits while the session that was lost is still being torn down by the server.
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(LOCKS)
        .bind(lock_key(owner))
        .execute(&mut session)
        .await
        .during(operation)?;
    let start = sqlx::query_scalar(SERVER_START).fetch_one(&mut session).await.during(operation)?;
    Ok((session, start))
}

const SERVER_START: &str = "SELECT extract(epoch FROM pg_postmaster_start_time())::text";

/// Second key of the lock: ids wrap after two billion processes, long after the first are gone.
fn lock_key(owner: OwnerId) -> i32 {
    i32::try_from(owner.0 % i64::from(i32::MAX)).expect("a remainder of i32::MAX fits i32")
}

impl Ledger {
    /// Registers this process. `lock_name` must be unique among processes (SQLite names the lock file by it).
    pub async fn register_owner(&self, kind: &str, host: &str, pid: u32, now: Timestamp) -> Result<OwnerGuard> {
        let operation = "register this process";
        match &self.db {
            Db::Sqlite(db) => {
                let folder = db.path.with_extension("owners");
                std::fs::create_dir_all(&folder).during(operation)?;
                let name = format!("{pid}-{}.lock", now.as_nanosecond());
                let path = folder.join(&name);
                let file = File::create_new(&path).during(operation)?;
                // Locked before it is registered: no one can find the registration and the lock free.
                file.try_lock().map_err(|e| Error::new(operation, Source::Content(e.to_string())))?;
                #[cfg(feature = "simulated")]
                let mut conn = db.only.turn(operation).await.during(operation)?;
                #[cfg(not(feature = "simulated"))]
                let mut conn = db.write.turn().await.during(operation)?;
                let id: i64 = sqlx::query_scalar(INSERT_OWNER)
                    .bind(kind)
                    .bind(host)
                    .bind(i64::from(pid))
                    .bind(&name)
                    .bind(now.as_millisecond())
                    .fetch_one(&mut *conn)
                    .await
                    .during(operation)?;
                let proof = Proof::File { path, _lock: StdMutex::new(file) };
                Ok(OwnerGuard { id: OwnerId(id), ledger: self.clone(), proof })
            }
            Db::Postgres(pool) => {
                let mut tx = pool.begin().await.during(operation)?;
                let id: i64 = sqlx::query_scalar(INSERT_OWNER)
                    .bind(kind)
                    .bind(host)
                    .bind(i64::from(pid))
                    .bind("")
                    .bind(now.as_millisecond())
                    .fetch_one(&mut *tx)
                    .await
                    .during(operation)?;
                let (session, start) = lock_session(pool, OwnerId(id)).await?;
                sqlx::query("UPDATE owners SET lock = $2 WHERE id = $1")
                    .bind(id)
                    .bind(start)
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
                tx.commit().await.during(operation)?;
                let proof = Proof::Session { session: Mutex::new(Some(session)) };
                Ok(OwnerGuard { id: OwnerId(id), ledger: self.clone(), proof })
            }
        }
    }

    /// Takes or renews a lease for work that one process does at a time. Two holders would do no harm, only double work:
    /// every transition is guarded.
    pub async fn take_lease(&self, name: &str, owner: OwnerId, until: Timestamp, now: Timestamp) -> Result<bool> {
        let operation = "take a lease";
        let taken = write_tx!(self, operation, |tx, dialect| {
            sqlx::query(
                "INSERT INTO leases (name, owner_id, until) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE
                 SET owner_id = excluded.owner_id, until = excluded.until
                 WHERE leases.owner_id = excluded.owner_id OR leases.until < $4
                    OR EXISTS (SELECT 1 FROM owners w WHERE w.id = leases.owner_id AND w.ended_at IS NOT NULL)",
            )
            .bind(name)
            .bind(owner.0)
            .bind(until.as_millisecond())
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected()
        });
        Ok(taken == 1)
    }

    /// Looks for registered processes whose end can be proven, and records their end. Those that merely were not heard of
    /// are left alone.
    pub async fn prove_deaths(&self, now: Timestamp) -> Result<Vec<OwnerId>> {
        let operation = "look for processes that have ended";
        let alive: Vec<(i64, String)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as("SELECT id, lock FROM owners WHERE ended_at IS NULL ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .during(operation)?
        });
        let mut dead = Vec::new();
        match &self.db {
            Db::Sqlite(db) => {
                let folder = db.path.with_extension("owners");
                for (id, name) in alive {
                    let path = folder.join(name);
                    match File::open(&path) {
                        Ok(file) => match file.try_lock() {
                            Ok(()) => {
                                let _ = std::fs::remove_file(&path);
                                dead.push(id);
                            }
                            Err(TryLockError::WouldBlock) => {}
                            Err(TryLockError::Error(error)) => return Err(Error::new(operation, error)),
                        },
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => dead.push(id),
                        Err(error) => return Err(Error::new(operation, error)),
                    }
                }
            }
            Db::Postgres(pool) => {
                if alive.is_empty() {
                    return Ok(Vec::new());
                }
                // The lock must be seen free by the server that once held it: a restart frees the locks of the living too.
                // Taken for the transaction only, so that its owner finds it free at once should it be alive after all.
                let mut tx = pool.begin().await.during(operation)?;
                let start: String = sqlx::query_scalar(SERVER_START).fetch_one(&mut *tx).await.during(operation)?;
                for (id, held_since) in alive {
                    if held_since != start {
                        continue;
                    }
                    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
                        .bind(LOCKS)
                        .bind(lock_key(OwnerId(id)))
                        .fetch_one(&mut *tx)
                        .await
                        .during(operation)?;
                    if free {
                        dead.push(id);
                    }
                }
                tx.rollback().await.during(operation)?;
            }
        }
        for id in &dead {
            write_tx!(self, operation, |tx, dialect| {
                sqlx::query("UPDATE owners SET ended_at = $2, ended_how = 'died' WHERE id = $1 AND ended_at IS NULL")
                    .bind(id)
                    .bind(now.as_millisecond())
                    .execute(&mut *tx)
                    .await
                    .during(operation)?;
            });
        }
        Ok(dead.into_iter().map(OwnerId).collect())
    }
}

const INSERT_OWNER: &str = "INSERT INTO owners (kind, host, pid, lock, started_at, seen_at)
    VALUES ($1, $2, $3, $4, $5, $5) RETURNING id";
