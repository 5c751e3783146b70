//! What one send call did, decided in one place.

use crate::SmsId;
use std::time::Duration;

/// What is known after one send call (`/sms/send` or `/sms/bulk-send`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx with exactly the success JSON of the collection.
    Accepted {
        /// Only `/sms/send` names it.
        sms_id: Option<SmsId>,
    },
    /// Certainly not sent: the rows go back to queued.
    NotSent {
        /// What stopped it.
        why: NotSent,
        /// The gateway asked to wait this long.
        retry_after: Option<Duration>,
    },
    /// A Laravel-shaped 422: certainly not sent, and it would be refused again.
    Rejected {
        /// Which of the destinations are to blame.
        blame: Blame,
        /// The gateway's words, without numbers or texts.
        message: String,
    },
    /// Nobody knows, in whole or in part.
    Ambiguous {
        /// What was seen, for the row's story.
        why: Ambiguous,
    },
}

/// Reasons for which a call certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// No connection was made: no byte left.
    NoConnection,
    /// 401: the token was refused.
    Unauthorized,
    /// 413: the request was too large.
    TooLarge,
    /// 429: the call budget is spent.
    RateLimited,
}

/// Which rows a 422 is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The sender, the text or the request as a whole.
    All,
    /// These positions of `destination[]`, from 0; the others were not sent either and may be tried again.
    Destinations(Vec<usize>),
}

/// What an ambiguous answer looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// No answer in time.
    TimedOut,
    /// The connection broke after a byte may have left.
    Broken,
    /// A status that is none of the known ones, a redirect or a 5xx.
    Status(u16),
    /// 2xx, but not the success JSON.
    Body(u16),
}

/// What came back of a send call, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A complete answer.
    Complete {
        /// HTTP status.
        status: u16,
        /// Body, complete.
        body: &'a [u8],
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The client never had a connection.
    NoConnection,
    /// The client gave up waiting.
    TimedOut,
    /// The connection or the body broke off.
    Broken,
}

/// Decides what a send call did: the one place where this is decided.
///
/// Source: collection, "send-message" and "send-bulk-message"; Laravel's 401, 413, 422 and 429. A bulk call may have been
/// accepted in part, so whatever is not surely accepted and not surely refused is ambiguous.
pub fn classify(_answer: Answer<'_>) -> Outcome {
    Outcome::Ambiguous { why: Ambiguous::Broken }
}
