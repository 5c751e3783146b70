//! The nine calls, by name.

use serde::{Deserialize, Serialize};

/// One of the gateway's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /oauth/token`, both grants.
    Token,
    /// `GET /sender-id/list`.
    Senders,
    /// `POST /sender-id/add`.
    AddSender,
    /// `POST /sms/send`.
    Send,
    /// `POST /sms/bulk-send`.
    BulkSend,
    /// `GET /sms/list`.
    List,
    /// `GET /sms/detail/{id}`.
    Detail,
    /// `POST /click-to-dial/dial`.
    Dial,
    /// `POST /click-to-dial-mask/dial`.
    DialMasked,
}
