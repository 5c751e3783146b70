//! What the sandbox accepted and how it was called: the oracle of the tests.

use crate::operation::Operation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A summary of everything that happened since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    /// Texts accepted in all: one a destination.
    pub accepted: u64,
    /// Texts accepted by operation.
    pub accepted_by: BTreeMap<Operation, u64>,
    /// Destinations that a bulk call dropped without a word, over `max_destinations`.
    pub dropped_destinations: u64,
    /// Dials accepted.
    pub dials: u64,
    /// Calls that arrived, refused ones too.
    pub calls: BTreeMap<Operation, u64>,
    /// Answers by operation and status; `none` where the connection was cut instead.
    pub answers: BTreeMap<Operation, BTreeMap<String, u64>>,
    /// Faults that struck, by name.
    pub faults: BTreeMap<String, u64>,
    /// Password grants that were answered with tokens.
    pub password_grants: u64,
    /// Refresh grants that were answered with tokens.
    pub refresh_grants: u64,
    /// Times that a used or revoked refresh token was presented.
    pub burned_presentations: u64,
    /// Times that a refresh token was presented that was never issued here.
    pub unknown_presentations: u64,
    /// Distinct refresh tokens that were presented more than once.
    pub refresh_tokens_presented_twice: u64,
    /// Calls answered 429.
    pub throttled: u64,
    /// Calls that arrived while a `Retry-After` that had been handed out still ran.
    pub calls_before_retry_after: u64,
    /// Connections that carried at least one call.
    pub connections: u64,
    /// The most such connections that were open at once.
    pub connections_open_max: u64,
    /// Each accepted text, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts: Option<Vec<AcceptedText>>,
}

/// One text that the sandbox accepted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedText {
    /// Its id.
    pub sms_id: u64,
    /// `Send` or `BulkSend`.
    pub operation: Operation,
    /// Sender id.
    pub source: String,
    /// Number, as it was given.
    pub destination: String,
    /// Body.
    pub text: String,
    /// Gateway's time of acceptance, as the list writes it.
    pub time: String,
    /// Delivery status now: "0", "1" or "2".
    pub status: String,
    /// From when it can be seen, in milliseconds of the real clock.
    pub visible_from: i64,
}

impl std::fmt::Debug for AcceptedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcceptedText")
            .field("sms_id", &self.sms_id)
            .field("operation", &self.operation)
            .field("time", &self.time)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A text that one number got more than once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twice {
    /// Sender id.
    pub source: String,
    /// Number, as it was given.
    pub destination: String,
    /// Body.
    pub text: String,
    /// How often.
    pub times: u64,
}

impl std::fmt::Debug for Twice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twice").field("source", &self.source).field("times", &self.times).finish_non_exhaustive()
    }
}

/// One call as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Arrival, in milliseconds of the real clock.
    pub at_ms: i64,
    /// Which call.
    pub operation: Operation,
    /// The answer's status; none while it is under way and where the connection was cut.
    pub status: Option<u16>,
}
