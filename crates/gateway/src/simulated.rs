//! Where the simulation takes the network's place. Compiled for it only.

use crate::http::{Call, Complete, Missing};
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::{future::Future, pin::Pin, time::Duration};

/// A call as it would have gone over the wire.
pub struct Asked {
    /// Below the base address.
    pub path: String,
    /// A form's fields, or a query.
    pub fields: Vec<(String, String)>,
    /// The access token.
    pub token: Option<String>,
    /// When the client gives up.
    pub timeout: Duration,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A complete answer.
    Complete {
        /// HTTP status.
        status: u16,
        /// The body.
        body: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// The gateway's clock.
        date: Timestamp,
        /// `X-RateLimit-Remaining`.
        remaining: u32,
    },
    /// No byte of the request left.
    NoConnection,
    /// No answer in time.
    TimedOut,
    /// The connection broke.
    Broken,
}

/// Carries calls.
pub trait Wire: Send + Sync {
    /// One call, answered after as much virtual time as it takes.
    fn exchange(&self, asked: Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>>;
}

pub(crate) async fn exchange(
    wire: &dyn Wire,
    call: Call<'_>,
    token: Option<&SecretString>,
    timeout: Duration,
    middle: impl Fn() -> Timestamp,
) -> Result<Complete, Missing> {
    let (path, fields) = match call {
        Call::Once { path, fields } => {
            (path, fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
        }
        Call::Repeatable { path, query } => {
            (path, query.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        }
    };
    let token = token.map(|token| token.expose_secret().to_owned());
    match wire.exchange(Asked { path: path.to_owned(), fields, token, timeout }).await {
        Reply::Complete { status, body, retry_after, date, remaining } => Ok(Complete {
            status,
            body: Bytes::from(body),
            limit: None,
            remaining: Some(remaining),
            retry_after,
            clock_skew: Some(date.duration_since(middle())),
        }),
        Reply::NoConnection => Err(Missing::NoConnection),
        Reply::TimedOut => Err(Missing::TimedOut),
        Reply::Broken => Err(Missing::Broken),
    }
}
