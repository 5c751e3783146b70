//! What is under way, for the metrics: nothing here reads more than what is open, however many rows the ledger has.

use super::instant_if_any;
use crate::{Ledger, Result, TokenTroubleKind, db::read_conn, error::During, time::ms};
use jiff::{SignedDuration, Timestamp};

/// What is under way.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Chunks and their rows by state: `waiting`, `fed` or `working`.
    pub chunks: Vec<(String, u64, u64)>,
    /// Since when the oldest chunk is due that nobody has claimed, of active campaigns.
    pub oldest_due: Option<Timestamp>,
    /// Send calls that are not settled, and their recipients, by state.
    pub attempts: Vec<(String, u64, u64)>,
    /// When the oldest of them was begun.
    pub oldest_sent: Option<Timestamp>,
    /// Rows that wait for a person.
    pub held: u64,
    /// Listed texts that nothing explains.
    pub unexplained: u64,
    /// The ledger is in quarantine.
    pub quarantined: bool,
    /// Running processes by kind: those that were heard of lately.
    pub processes: Vec<(String, u64)>,
    /// When the access token was got and when it ends.
    pub token: Option<(Timestamp, Timestamp)>,
    /// No new token can be had.
    pub token_trouble: bool,
}

/// Chunks that are not done, by the index `chunks_to_do`.
const CHUNKS: &str =
    "SELECT state, count(*), CAST(sum(rows) AS BIGINT) FROM chunks WHERE state <> 'done' GROUP BY state";

const OLDEST_DUE: &str = "SELECT min(CASE WHEN k.due_at > 0 THEN k.due_at ELSE k.fed_at END)
    FROM chunks k JOIN campaigns c ON c.id = k.campaign_id
    WHERE k.state <> 'done' AND k.state <> 'working' AND k.blocked = 0 AND k.due_at <= $1 AND c.state = 'active'";

/// Attempts that are not settled, by the index `attempts_open`.
const ATTEMPTS: &str = "SELECT state, count(*), CAST(sum(recipients) AS BIGINT), min(sending_at) FROM attempts
    WHERE state IN ('formed', 'sending', 'accepted', 'unknown') GROUP BY state";

/// A process says every few seconds that it lives. One that is dead may never be proven to be, if Postgres was restarted meanwhile:
/// it must not count for ever.
const HEARD_WITHIN: SignedDuration = SignedDuration::from_secs(60);

impl Ledger {
    /// Reads what is under way.
    pub async fn gauges(&self, now: Timestamp) -> Result<Gauges> {
        let operation = "read what is under way";
        let mut gauges = read_conn!(self, operation, |conn, dialect| {
            let chunks: Vec<(String, i64, i64)> =
                sqlx::query_as(CHUNKS).fetch_all(&mut *conn).await.during(operation)?;
            let oldest_due: Option<i64> = sqlx::query_scalar(OLDEST_DUE)
                .bind(now.as_millisecond())
                .fetch_one(&mut *conn)
                .await
                .during(operation)?;
            let attempts: Vec<(String, i64, i64, Option<i64>)> =
                sqlx::query_as(ATTEMPTS).fetch_all(&mut *conn).await.during(operation)?;
            let (held, unexplained, quarantined): (i64, i64, i64) = sqlx::query_as(
                "SELECT (SELECT count(*) FROM messages WHERE held IS NOT NULL), (SELECT count(*) FROM unexplained),
                        (SELECT count(*) FROM quarantine WHERE since IS NOT NULL)",
            )
            .fetch_one(&mut *conn)
            .await
            .during(operation)?;
            let processes: Vec<(String, i64)> = sqlx::query_as(
                "SELECT kind, count(*) FROM owners WHERE ended_at IS NULL AND seen_at >= $1 GROUP BY kind",
            )
            .bind(ms(now - HEARD_WITHIN))
            .fetch_all(&mut *conn)
            .await
            .during(operation)?;
            Gauges {
                oldest_due: instant_if_any(oldest_due),
                oldest_sent: instant_if_any(attempts.iter().filter_map(|(_, _, _, oldest)| *oldest).min()),
                chunks: chunks
                    .into_iter()
                    .map(|(state, n, rows)| (state, n.unsigned_abs(), rows.unsigned_abs()))
                    .collect(),
                attempts: attempts
                    .into_iter()
                    .map(|(state, n, rows, _)| (state, n.unsigned_abs(), rows.unsigned_abs()))
                    .collect(),
                held: held.unsigned_abs(),
                unexplained: unexplained.unsigned_abs(),
                processes: processes.into_iter().map(|(kind, n)| (kind, n.unsigned_abs())).collect(),
                quarantined: quarantined > 0,
                token: None,
                token_trouble: false,
            }
        });
        let token = self.token().await?;
        gauges.token = token.issued_at.zip(token.expires_at);
        gauges.token_trouble = token.trouble.is_some_and(|trouble| match trouble.kind {
            TokenTroubleKind::Refused => true,
            TokenTroubleKind::Unanswered => token.expires_at.is_none_or(|ends| ends < token.read_at),
        });
        Ok(gauges)
    }
}
