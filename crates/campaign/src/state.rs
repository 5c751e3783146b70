//! The states of a row. Every row is in exactly one, at every commit.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What has become of one row of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// The line can't be sent as it is written. Final.
    Invalid,
    /// The same number stood on an earlier line. Final.
    Duplicate,
    /// The person has opted out. Final.
    Suppressed,
    /// Waits for its `send_at`.
    Scheduled,
    /// Waits to be sent.
    Queued,
    /// Belongs to an attempt that is being made.
    Sending,
    /// An attempt was made and nobody knows yet what it did.
    Unknown,
    /// What happened can't be learnt from the gateway; a person decides.
    Held,
    /// The gateway took it; its delivery status is pending.
    Accepted,
    /// The gateway's status 1. Final.
    Sent,
    /// The gateway's status 2. Final.
    Failed,
    /// The gateway refused it as wrong (422). Final.
    Rejected,
    /// Its `valid_until` passed before it was sent. Final.
    Expired,
    /// A person cancelled it before it was sent. Final.
    Cancelled,
}

use RowState::{
    Accepted, Cancelled, Duplicate, Expired, Failed, Held, Invalid, Queued, Rejected, Scheduled, Sending, Sent,
    Suppressed, Unknown,
};

impl RowState {
    /// All states, in the order in which reports show them.
    pub const ALL: [Self; 14] = [
        Invalid, Duplicate, Suppressed, Scheduled, Queued, Sending, Unknown, Held, Accepted, Sent, Failed, Rejected,
        Expired, Cancelled,
    ];

    /// The name that the ledger stores and reports print.
    pub fn name(self) -> &'static str {
        match self {
            Invalid => "invalid",
            Duplicate => "duplicate",
            Suppressed => "suppressed",
            Scheduled => "scheduled",
            Queued => "queued",
            Sending => "sending",
            Unknown => "unknown",
            Held => "held",
            Accepted => "accepted",
            Sent => "sent",
            Failed => "failed",
            Rejected => "rejected",
            Expired => "expired",
            Cancelled => "cancelled",
        }
    }

    /// Nothing will change it any more.
    pub fn is_final(self) -> bool {
        RowState::ALL.into_iter().all(|next| !self.may_become(next))
    }

    /// Nothing happens to it by itself any more: final, or held for a person to decide.
    pub fn is_settled(self) -> bool {
        self.is_final() || self == Held
    }

    /// It was never to be sent: what is wrong with it was seen when its file was loaded, or it has opted out.
    pub fn is_rejected_at_loading(self) -> bool {
        matches!(self, Invalid | Duplicate | Suppressed)
    }

    /// The only transitions there are. Each statement of the ledger guards the state that it leaves by this table.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Invalid | Duplicate | Suppressed | Sent | Failed | Rejected | Expired | Cancelled => false,
            // Accepted and held without having been sending: in a ledger that was restored, by what the list shows.
            Scheduled => matches!(next, Queued | Sending | Suppressed | Expired | Cancelled | Accepted | Held),
            Queued => matches!(next, Scheduled | Sending | Suppressed | Expired | Cancelled | Accepted | Held),
            // Back to queued only from a definite refusal, or when no byte has left.
            Sending => matches!(next, Queued | Accepted | Rejected | Unknown),
            // Back to queued only on proven absence, once, and only when that is configured.
            Unknown => matches!(next, Accepted | Sent | Failed | Held | Queued | Rejected),
            Held => matches!(next, Accepted | Sent | Failed | Queued | Cancelled),
            Accepted => matches!(next, Sent | Failed | Held),
        }
    }
}

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no state.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no state of a row")]
pub struct UnknownState(String);

impl FromStr for RowState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| UnknownState(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_are_the_ones_that_the_design_names() {
        let finals: Vec<_> = RowState::ALL.into_iter().filter(|s| s.is_final()).collect();
        assert_eq!(finals, [Invalid, Duplicate, Suppressed, Sent, Failed, Rejected, Expired, Cancelled]);
    }

    #[test]
    fn every_name_is_its_own_and_parses_back() {
        for state in RowState::ALL {
            assert_eq!(state.name().parse::<RowState>().unwrap(), state);
        }
    }

    #[test]
    fn a_row_that_may_have_been_sent_never_goes_back_to_queued_unseen() {
        for state in [Accepted, Sent, Failed, Rejected] {
            assert!(!state.may_become(Queued), "{state} went back to queued");
        }
    }
}
