//! Requests: multipart fields in the recorded order, and the list's query.

use super::no_debug;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The fields of a multipart body, in order; a name may come more than once.
pub type Fields = Vec<(String, String)>;

fn field(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn first(fields: &[(String, String)], name: &str) -> Option<String> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
}

/// `POST /oauth/token`.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// `grant_type=password`.
    Password {
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: String,
        /// The user.
        username: String,
        /// Its password.
        password: String,
    },
    /// `grant_type=refresh_token`.
    Refresh {
        /// Works once.
        refresh_token: String,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: String,
    },
}

impl TokenRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        match self {
            Self::Password { client_id, client_secret, username, password } => vec![
                field("grant_type", "password"),
                field("client_id", client_id),
                field("client_secret", client_secret),
                field("username", username),
                field("password", password),
            ],
            Self::Refresh { refresh_token, client_id, client_secret } => vec![
                field("grant_type", "refresh_token"),
                field("refresh_token", refresh_token),
                field("client_id", client_id),
                field("client_secret", client_secret),
            ],
        }
    }

    /// From the multipart body; `None` when a required field is missing or the grant type is another.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        let client_id = first(fields, "client_id")?;
        let client_secret = first(fields, "client_secret")?;
        match first(fields, "grant_type")?.as_str() {
            "password" => Some(Self::Password {
                client_id,
                client_secret,
                username: first(fields, "username")?,
                password: first(fields, "password")?,
            }),
            "refresh_token" => {
                Some(Self::Refresh { refresh_token: first(fields, "refresh_token")?, client_id, client_secret })
            }
            _ => None,
        }
    }
}

/// `POST /sms/send`.
#[derive(Clone, PartialEq, Eq)]
pub struct SendRequest {
    /// An approved sender id.
    pub source: String,
    /// E.164 digits.
    pub destination: String,
    /// The text.
    pub text: String,
}

impl SendRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        vec![field("source", &self.source), field("destination", &self.destination), field("text", &self.text)]
    }

    /// From the multipart body; `None` when a field is missing.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        Some(Self {
            source: first(fields, "source")?,
            destination: first(fields, "destination")?,
            text: first(fields, "text")?,
        })
    }
}

/// `POST /sms/bulk-send`.
#[derive(Clone, PartialEq, Eq)]
pub struct BulkSendRequest {
    /// An approved sender id.
    pub source: String,
    /// The text.
    pub text: String,
    /// `destination[]`, repeated: E.164 digits.
    pub destinations: Vec<String>,
}

impl BulkSendRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        let mut fields = vec![field("source", &self.source), field("text", &self.text)];
        fields.extend(self.destinations.iter().map(|destination| field("destination[]", destination)));
        fields
    }

    /// From the multipart body; `None` when a field is missing.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        let destinations: Vec<String> =
            fields.iter().filter(|(name, _)| name == "destination[]").map(|(_, value)| value.clone()).collect();
        if destinations.is_empty() {
            return None;
        }
        Some(Self { source: first(fields, "source")?, text: first(fields, "text")?, destinations })
    }
}

/// `POST /sender-id/add`.
#[derive(Clone, PartialEq, Eq)]
pub struct AddSenderRequest {
    /// Letters and digits.
    pub sender_id: String,
}

impl AddSenderRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        vec![field("sender_id", &self.sender_id)]
    }

    /// From the multipart body; `None` when the field is missing.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        Some(Self { sender_id: first(fields, "sender_id")? })
    }
}

/// `POST /click-to-dial/dial`.
#[derive(Clone, PartialEq, Eq)]
pub struct DialRequest {
    /// E.164 digits.
    pub destination: String,
}

impl DialRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        vec![field("destination", &self.destination)]
    }

    /// From the multipart body; `None` when the field is missing.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        Some(Self { destination: first(fields, "destination")? })
    }
}

/// `POST /click-to-dial-mask/dial`.
#[derive(Clone, PartialEq, Eq)]
pub struct DialMaskedRequest {
    /// E.164 digits of who is called.
    pub destination: String,
    /// E.164 digits of the number that is shown.
    pub source: String,
}

impl DialMaskedRequest {
    /// As the multipart body.
    pub fn fields(&self) -> Fields {
        vec![field("destination", &self.destination), field("source", &self.source)]
    }

    /// From the multipart body; `None` when a field is missing.
    pub fn from_fields(fields: &[(String, String)]) -> Option<Self> {
        Some(Self { destination: first(fields, "destination")?, source: first(fields, "source")? })
    }
}

/// The query of `GET /sms/list`; `page` alone also that of `GET /sender-id/list`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListParams {
    /// [a-zA-Z0-9].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// [a-zA-Z0-9].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
    /// `YYYY-MM-DD HH:MM:SS`, included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_since: Option<String>,
    /// `YYYY-MM-DD HH:MM:SS`, included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_until: Option<String>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
}

no_debug! { TokenRequest SendRequest BulkSendRequest DialRequest DialMaskedRequest ListParams }

impl fmt::Debug for AddSenderRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddSenderRequest").field("sender_id", &self.sender_id).finish()
    }
}
