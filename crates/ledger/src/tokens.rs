//! The one token row.

use jiff::Timestamp;

/// Where the token row stands in its refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPhase {
    /// Never granted.
    None,
    /// The sealed pair is usable until it expires.
    Ready,
    /// `phase_by` is presenting the refresh token.
    Refreshing,
    /// `phase_by` is presenting it a second and last time, after a crash in the middle.
    Retrying,
    /// `phase_by` is making a password grant.
    Granting,
    /// The refresh token is spent without an answer: only a password grant helps.
    Burned,
}

/// The one token row.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// One more with each committed pair.
    pub generation: i64,
    /// The pair, sealed with a key derived from the client secret.
    pub sealed: Option<Vec<u8>>,
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
    /// Why there is no token, in words for a person.
    pub trouble: Option<String>,
}
