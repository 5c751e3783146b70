//! The one token row: who may present the refresh token, and the sealed pair.
//!
//! Every instant in it is of the database's clock, so that processes whose own clocks differ agree on who is late. A claim
//! is named by (generation, phase, `phase_by`, `phase_at`); each transition is guarded by the claim that it leaves.

use crate::{
    Ledger, Result,
    db::{Dialect, read_conn, sql, write_tx},
    error::{During, Error, Source},
};
use campaign::token::TokenPhase;
use jiff::{SignedDuration, Timestamp};
use std::fmt;

/// The one token row.
#[derive(Clone)]
pub struct TokenRow {
    /// One more with each committed pair.
    pub generation: i64,
    /// The pair, sealed with a key derived from the client secret.
    pub sealed: Option<Vec<u8>>,
    /// When the pair was committed.
    pub issued_at: Option<Timestamp>,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// Where the refresh stands.
    pub phase: TokenPhase,
    /// Who is at it.
    pub phase_by: Option<String>,
    /// Since when.
    pub phase_at: Timestamp,
    /// The last password grant, tried or made.
    pub password_granted_at: Option<Timestamp>,
    /// Password grants tried or made, ever.
    pub password_grants: i64,
    /// Keyed hash of the client and the user that the row was last used with.
    pub credentials: Option<Vec<u8>>,
    /// Why there is no new token.
    pub trouble: Option<TokenTrouble>,
    /// The database's clock when the row was read.
    pub read_at: Timestamp,
}

impl fmt::Debug for TokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRow")
            .field("generation", &self.generation)
            .field("phase", &self.phase)
            .field("phase_by", &self.phase_by)
            .field("phase_at", &self.phase_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why there is no new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrouble {
    /// What a person can do about it.
    pub kind: TokenTroubleKind,
    /// In words for a person.
    pub message: String,
}

/// Kinds of [`TokenTrouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTroubleKind {
    /// The gateway refused the credentials: a person must correct them.
    Refused,
    /// An answer was lost: it is tried again by itself.
    Unanswered,
}

impl TokenTroubleKind {
    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What a process writes before it presents anything to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct TokenClaim<'a> {
    /// `Refreshing`, `Retrying` or `Granting`; the last counts as a password grant from here on.
    pub phase: TokenPhase,
    /// The process.
    pub by: &'a str,
    /// Keyed hash of its client and user.
    pub credentials: &'a [u8],
    /// The stored pair is of no use to it: forget it.
    pub discard_pair: bool,
}

const COLUMNS: &str = "generation, sealed, issued_at, expires_at, phase, phase_by, phase_at, password_granted_at, \
     password_grants, credentials, trouble_kind, trouble";

const GUARD: &str = "id = 1 AND generation = $1 AND phase = $2 AND phase_at = $3 AND phase_by IS NOT DISTINCT FROM $4";

type Columns = (
    i64,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i64>,
    String,
    Option<String>,
    i64,
    Option<i64>,
    i64,
    Option<Vec<u8>>,
    Option<String>,
    Option<String>,
    i64,
);

#[cfg(feature = "simulated")]
fn clock(_: Dialect) -> String {
    crate::simulated::world(|world| world.now().as_millisecond()).unwrap_or(0).to_string()
}

#[cfg(not(feature = "simulated"))]
fn clock(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        Dialect::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
    }
}

fn row(operation: &'static str, columns: Columns) -> Result<TokenRow> {
    let broken = |what: &str| Error::new(operation, Source::Content(format!("the token row has an unknown {what}")));
    let instant = |ms| Timestamp::from_millisecond(ms).map_err(|_| broken("instant"));
    let trouble = match (columns.10.as_deref(), columns.11) {
        (Some("refused"), Some(message)) => Some(TokenTrouble { kind: TokenTroubleKind::Refused, message }),
        (Some("unanswered"), Some(message)) => Some(TokenTrouble { kind: TokenTroubleKind::Unanswered, message }),
        _ => None,
    };
    Ok(TokenRow {
        generation: columns.0,
        sealed: columns.1,
        issued_at: columns.2.map(instant).transpose()?,
        expires_at: columns.3.map(instant).transpose()?,
        phase: TokenPhase::from_name(&columns.4).ok_or_else(|| broken("phase"))?,
        phase_by: columns.5,
        phase_at: instant(columns.6)?,
        password_granted_at: columns.7.map(instant).transpose()?,
        password_grants: columns.8,
        credentials: columns.9,
        trouble,
        read_at: instant(columns.12)?,
    })
}

impl Ledger {
    /// Reads the token row.
    pub async fn token(&self) -> Result<TokenRow> {
        let operation = "read the token row";
        let columns: Columns = read_conn!(self, operation, |conn, dialect| {
            let now = clock(dialect);
            // One text for all readings, to be prepared once.
            #[cfg(feature = "simulated")]
            let now = if now.is_empty() { now } else { "0".to_owned() };
            sqlx::query_as(sql(format!("SELECT {COLUMNS}, {now} FROM tokens WHERE id = 1")))
                .fetch_one(&mut *conn)
                .await
                .during(operation)?
        });
        let row = row(operation, columns)?;
        #[cfg(feature = "simulated")]
        let row = TokenRow { read_at: self.now(), ..row };
        Ok(row)
    }

    /// Takes the row from where `seen` saw it, before anything is presented to the gateway. `None`: somebody else has
    /// moved it since, and nothing may be presented.
    pub async fn claim_token(&self, seen: &TokenRow, claim: TokenClaim<'_>) -> Result<Option<TokenRow>> {
        let operation = "claim the token row";
        let columns: Option<Columns> = write_tx!(self, operation, |tx, dialect| {
            let now = clock(dialect);
            let granting = match claim.phase {
                TokenPhase::Granting => format!(", password_granted_at = {now}, password_grants = password_grants + 1"),
                _ => String::new(),
            };
            let discard = if claim.discard_pair { ", sealed = NULL, issued_at = NULL, expires_at = NULL" } else { "" };
            sqlx::query_as(sql(format!(
                "UPDATE tokens SET phase = $5, phase_by = $6, phase_at = {now}, credentials = $7{granting}{discard} \
                 WHERE {GUARD} RETURNING {COLUMNS}, {now}"
            )))
            .bind(seen.generation)
            .bind(seen.phase.name())
            .bind(seen.phase_at.as_millisecond())
            .bind(seen.phase_by.as_deref())
            .bind(claim.phase.name())
            .bind(claim.by)
            .bind(claim.credentials)
            .fetch_optional(&mut *tx)
            .await
            .during(operation)?
        });
        columns.map(|columns| row(operation, columns)).transpose()
    }

    /// Stores the new pair of a claim, with the access token ending `life` from now. `false`: the claim was lost, and the
    /// pair must not be used.
    pub async fn commit_token(&self, claimed: &TokenRow, sealed: &[u8], life: SignedDuration) -> Result<bool> {
        let operation = "commit the new token pair";
        let updated = write_tx!(self, operation, |tx, dialect| {
            let now = clock(dialect);
            sqlx::query(sql(format!(
                "UPDATE tokens SET generation = generation + 1, sealed = $5, issued_at = {now}, \
                 expires_at = {now} + $6, phase = 'ready', phase_by = NULL, phase_at = {now}, \
                 trouble_kind = NULL, trouble = NULL WHERE {GUARD}"
            )))
            .bind(claimed.generation)
            .bind(claimed.phase.name())
            .bind(claimed.phase_at.as_millisecond())
            .bind(claimed.phase_by.as_deref())
            .bind(sealed)
            .bind(i64::try_from(life.as_millis()).unwrap_or(i64::MAX / 4))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected()
        });
        Ok(updated == 1)
    }

    /// Ends a claim without a new pair. `password_granted_at` is what the row says afterwards: the earlier instant again
    /// when the password never left. Trouble that is not named stays. `false`: the claim was lost already.
    pub async fn release_token(
        &self,
        claimed: &TokenRow,
        phase: TokenPhase,
        password_granted_at: Option<Timestamp>,
        trouble: Option<&TokenTrouble>,
    ) -> Result<bool> {
        let operation = "release the token row";
        let updated = write_tx!(self, operation, |tx, dialect| {
            sqlx::query(sql(format!(
                "UPDATE tokens SET phase = $5, phase_by = NULL, phase_at = {}, password_granted_at = $6, \
                 trouble_kind = coalesce($7, trouble_kind), trouble = coalesce($8, trouble) WHERE {GUARD}",
                clock(dialect)
            )))
            .bind(claimed.generation)
            .bind(claimed.phase.name())
            .bind(claimed.phase_at.as_millisecond())
            .bind(claimed.phase_by.as_deref())
            .bind(phase.name())
            .bind(password_granted_at.map(Timestamp::as_millisecond))
            .bind(trouble.map(|trouble| trouble.kind.name()))
            .bind(trouble.map(|trouble| trouble.message.as_str()))
            .execute(&mut *tx)
            .await
            .during(operation)?
            .rows_affected()
        });
        Ok(updated == 1)
    }
}
