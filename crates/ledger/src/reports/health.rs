//! What may be wrong with the processes around the ledger.

use super::instant_if_any;
use crate::{Ledger, Result, TokenTroubleKind, db::read_conn, error::During, time::instant};
use jiff::Timestamp;
use serde::Serialize;

/// A process that registered and has not ended as far as the ledger knows.
#[derive(Clone, Debug, Serialize)]
pub struct LiveOwner {
    /// Its id.
    pub id: i64,
    /// `run`, `worker`, `reconciler`, ….
    pub kind: String,
    /// Its machine.
    pub host: String,
    /// Its process id there.
    pub pid: i64,
    /// When it registered.
    pub started_at: Timestamp,
    /// When it last wrote.
    pub seen_at: Timestamp,
}

/// What the ledger knows to be wrong.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Trouble {
    /// Why there is no usable token, in words for a person.
    pub token: Option<String>,
    /// That is for a person to put right: the credentials were refused.
    pub token_refused: bool,
    /// The last password grant.
    pub password_granted_at: Option<Timestamp>,
    /// Rows that wait for a person.
    pub held: u64,
    /// Listed texts from our senders that no attempt explains.
    pub unexplained: u64,
    /// When the sender ids were last read; `None` if never.
    pub senders_read_at: Option<Timestamp>,
}

impl Ledger {
    /// The processes that registered and have not ended, oldest first. A killed one stands here until the reconciler
    /// has proven its death.
    pub async fn live_owners(&self) -> Result<Vec<LiveOwner>> {
        let operation = "read the running processes";
        let found: Vec<(i64, String, String, i64, i64, i64)> = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT id, kind, host, pid, started_at, seen_at FROM owners WHERE ended_at IS NULL ORDER BY id",
            )
            .fetch_all(&mut *conn)
            .await
            .during(operation)?
        });
        found
            .into_iter()
            .map(|(id, kind, host, pid, started_at, seen_at)| {
                let (started_at, seen_at) = (instant(started_at), instant(seen_at));
                Ok(LiveOwner { id, kind, host, pid, started_at, seen_at })
            })
            .collect()
    }

    /// What the ledger knows to be wrong, for `crier doctor`.
    pub async fn trouble(&self) -> Result<Trouble> {
        let operation = "read what is wrong";
        let found: (i64, i64, Option<i64>) = read_conn!(self, operation, |conn, dialect| {
            sqlx::query_as(
                "SELECT (SELECT count(*) FROM messages WHERE held IS NOT NULL), (SELECT count(*) FROM unexplained),
                        (SELECT max(checked_at) FROM senders)",
            )
            .fetch_one(&mut *conn)
            .await
            .during(operation)?
        });
        let (held, unexplained, read_at) = found;
        let token = self.token().await?;
        Ok(Trouble {
            token_refused: token.trouble.as_ref().is_some_and(|trouble| trouble.kind == TokenTroubleKind::Refused),
            token: token.trouble.map(|trouble| trouble.message),
            password_granted_at: token.password_granted_at,
            held: held.unsigned_abs(),
            unexplained: unexplained.unsigned_abs(),
            senders_read_at: instant_if_any(read_at),
        })
    }
}
