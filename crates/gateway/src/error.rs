//! What can go wrong with a gateway call, by what a caller can do about it.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// What a caller can do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallErrorKind {
    /// The gateway (or the ledger, for the token) can't be reached now, or asked to come back: try later.
    Down,
    /// The credentials were refused or are outdated: a person must act.
    Credentials,
    /// An answer that nobody expected; the message says which.
    Unexpected,
    /// The gateway answers 429 to call after call.
    Throttled,
}

/// A failed call.
#[derive(Clone, Debug)]
pub struct CallError {
    kind: CallErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<ledger::Error>>,
}

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    pub(crate) fn down(message: impl Into<String>) -> Self {
        Self::new(CallErrorKind::Down, message)
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What can be done about it.
    pub fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// When trying again may help, where that is known.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<ledger::Error> for CallError {
    fn from(error: ledger::Error) -> Self {
        Self {
            kind: match error.kind() {
                ledger::ErrorKind::Down | ledger::ErrorKind::Conflict => CallErrorKind::Down,
                ledger::ErrorKind::Broken => CallErrorKind::Unexpected,
            },
            message: "the gateway's token can't be had from the ledger".to_owned(),
            retry_after: None,
            source: Some(Arc::new(error)),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for CallError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
