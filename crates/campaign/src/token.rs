//! When to use, refresh or grant a token: the decision, without I/O.
//!
//! A refresh token works once. It is presented by whoever moved the token row from `ready` to `refreshing`, and never
//! again, with one exception: when that process died in the middle, one other presents it a second and last time. Where
//! nothing is left to present, the password grant is made, at most once in `password_grant_every`.
//!
//! All instants are of one clock, the ledger's: processes whose own clocks differ by minutes must agree on who is late.

use jiff::{SignedDuration, Timestamp};

/// Where the token row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPhase {
    /// Never granted.
    None,
    /// The pair is usable until it expires.
    Ready,
    /// A process is presenting the refresh token.
    Refreshing,
    /// A process is presenting it a second and last time, after a crash in the middle.
    Retrying,
    /// A process is making a password grant.
    Granting,
    /// The refresh token is spent without an answer: only a password grant helps.
    Burned,
}

impl TokenPhase {
    /// All phases.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Ready, Self::Refreshing, Self::Retrying, Self::Granting, Self::Burned];

    /// The name that the ledger stores.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
            Self::Retrying => "retrying",
            Self::Granting => "granting",
            Self::Burned => "burned",
        }
    }

    /// The phase of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// When a token counts as old, a process as dead and a password grant as too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// A claim of this age belongs to a dead process. At least twice the time that a token call may take.
    pub claim_stale: SignedDuration,
    /// Least time between two password grants with the same credentials.
    pub password_grant_every: SignedDuration,
}

/// The times of a pair that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairTimes {
    /// When it was committed.
    pub issued_at: Timestamp,
    /// When its access token ends.
    pub expires_at: Timestamp,
}

/// The token row as one process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Where the row stands.
    pub phase: TokenPhase,
    /// Since when.
    pub phase_at: Timestamp,
    /// The stored pair, if there is one and this process can open it.
    pub pair: Option<PairTimes>,
    /// A call with this very pair was answered 401.
    pub refused: bool,
    /// The last password grant, tried or made.
    pub password_granted_at: Option<Timestamp>,
    /// Whose credentials the row was last used with.
    pub credentials: Credentials,
}

/// Whose credentials stand in the token row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// This process's own, or nobody's yet.
    Ours,
    /// Older ones: this process was started with others and has not met the row before.
    Older,
    /// Newer ones: the row had this process's own, and then somebody changed them.
    Newer,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenDecision {
    /// Make the call with the stored access token.
    Use,
    /// Move the row `ready` → `refreshing` and present the refresh token.
    Refresh,
    /// Move the row to `retrying` and present the refresh token of a process that died, a last time.
    Retry,
    /// Move the row to `granting` and make a password grant.
    Grant,
    /// Another process is at it: read the row again soon.
    Wait,
    /// No password grant before this instant.
    Pause {
        /// When the next may be made.
        until: Timestamp,
    },
    /// Credentials newer than this process's are in use: it must be started again with these.
    Outdated,
}

/// A pair that is refused younger than this waits until it has this age: a gateway that refuses what it has just granted
/// must not be asked as fast as the network goes.
const REFUSED_AT_LEAST: SignedDuration = SignedDuration::from_secs(1);

/// When a pair should be replaced: at 90 % of its life or 60 s before its end, whichever is later.
pub fn refresh_due(pair: PairTimes) -> Timestamp {
    let life = pair.expires_at.duration_since(pair.issued_at).max(SignedDuration::ZERO);
    let left = (life / 10).min(SignedDuration::from_secs(60));
    pair.expires_at - left
}

/// How long an access token lives: the shorter of `expires_in` and what its JWT says (collection: 3600 s and a year).
pub fn life(expires_in: SignedDuration, jwt: Option<SignedDuration>) -> SignedDuration {
    jwt.map_or(expires_in, |jwt| jwt.min(expires_in)).max(SignedDuration::ZERO)
}

/// Decides what to do with the row as it is `now`.
pub fn decide(policy: TokenPolicy, view: TokenView, now: Timestamp) -> TokenDecision {
    match view.credentials {
        Credentials::Ours => {}
        Credentials::Older => return TokenDecision::Grant,
        Credentials::Newer => return TokenDecision::Outdated,
    }
    let good = view.pair.filter(|pair| !view.refused && now < pair.expires_at);
    let use_or = |otherwise| if good.is_some() { TokenDecision::Use } else { otherwise };
    let stale = now.duration_since(view.phase_at) >= policy.claim_stale;
    let grant_at = view.password_granted_at.map(|at| at + policy.password_grant_every);
    let grant_or_pause = match grant_at {
        Some(until) if now < until => use_or(TokenDecision::Pause { until }),
        Some(_) | None => TokenDecision::Grant,
    };
    match (view.phase, view.pair) {
        (TokenPhase::Ready, Some(pair)) if view.refused => {
            if now.duration_since(pair.issued_at) < REFUSED_AT_LEAST {
                TokenDecision::Wait
            } else {
                TokenDecision::Refresh
            }
        }
        (TokenPhase::Ready, Some(pair)) => {
            if now < refresh_due(pair) {
                TokenDecision::Use
            } else {
                TokenDecision::Refresh
            }
        }
        (TokenPhase::Refreshing, Some(_)) if stale => TokenDecision::Retry,
        (TokenPhase::Refreshing | TokenPhase::Retrying | TokenPhase::Granting, _) if !stale => {
            use_or(TokenDecision::Wait)
        }
        (
            TokenPhase::None
            | TokenPhase::Ready
            | TokenPhase::Refreshing
            | TokenPhase::Retrying
            | TokenPhase::Granting
            | TokenPhase::Burned,
            _,
        ) => grant_or_pause,
    }
}

/// How a token call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCall {
    /// With a pair.
    Granted,
    /// Nothing was done: no connection, or 429.
    NotDone,
    /// The gateway refused what was presented.
    Refused,
    /// Nobody knows: an answer that was lost or can't be read.
    Lost,
}

/// The phase after the claim `claimed` ended in something else than a pair.
///
/// A token that never left may be presented later; one that may have left is spent.
pub fn phase_after(claimed: TokenPhase, before: TokenPhase, call: TokenCall) -> TokenPhase {
    match (claimed, call) {
        (_, TokenCall::Granted) => TokenPhase::Ready,
        (TokenPhase::Refreshing, TokenCall::NotDone) => TokenPhase::Ready,
        // It was presented once before: the next try must still be the last.
        (TokenPhase::Retrying, TokenCall::NotDone) => TokenPhase::Refreshing,
        (TokenPhase::Granting, TokenCall::NotDone | TokenCall::Refused | TokenCall::Lost) => match before {
            TokenPhase::None => TokenPhase::None,
            TokenPhase::Ready
            | TokenPhase::Refreshing
            | TokenPhase::Retrying
            | TokenPhase::Granting
            | TokenPhase::Burned => TokenPhase::Burned,
        },
        (
            TokenPhase::None | TokenPhase::Ready | TokenPhase::Refreshing | TokenPhase::Retrying | TokenPhase::Burned,
            TokenCall::NotDone | TokenCall::Refused | TokenCall::Lost,
        ) => TokenPhase::Burned,
    }
}

#[cfg(test)]
mod tests;
