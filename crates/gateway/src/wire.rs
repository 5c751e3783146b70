//! What goes over the wire: the requests and answers of all nine calls, as the collection records them.
//!
//! Tolerant where the recordings vary (an id as a number or a string, `sms_count` absent in lists), strict about meaning: a
//! status that is not known stays [`Unknown`](DeliveryStatus::Unknown) with its spelling and is never taken for another.
//! What may hold a number, a text or a token has no `Debug` that shows it.
//!
//! Deliberately not here: what an answer means for a row (`campaign::outcome`), and HTTP.

mod request;
mod status;

pub use request::{
    AddSenderRequest, BulkSendRequest, DialMaskedRequest, DialRequest, Fields, ListParams, SendRequest, TokenRequest,
};
pub use status::{DeliveryStatus, MessageType, ReadStatus, SenderStatus};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};
use std::{borrow::Cow, fmt};

/// Time format of rows and filters. Collection, "sms/list": `Y-m-d H:i:s`.
pub const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// `status` of every recorded success.
pub const SUCCESS: &str = "success";

/// Implements a `Debug` that names the type and shows nothing.
macro_rules! no_debug {
    ($($name:ident)+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}
pub(crate) use no_debug;

/// `POST /oauth/token`.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The account's name.
    #[serde(default)]
    pub customer_user_name: String,
    /// A number after the password grant, a string after a refresh.
    #[serde(default)]
    pub customer_user_id: NumberOrText,
    /// Seconds.
    #[serde(deserialize_with = "number")]
    pub expires_in: i64,
    /// A JWT.
    pub access_token: String,
    /// Works once.
    pub refresh_token: String,
}

/// An id that the gateway writes as a number here and as a string there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NumberOrText {
    /// As in `2`.
    Number(i64),
    /// As in `"2"`.
    Text(String),
}

impl Default for NumberOrText {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// An answer with something in `data`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`SUCCESS`].
    pub status: String,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// What was asked for.
    pub data: T,
}

/// Laravel's paginator.
#[derive(Clone, Serialize, Deserialize)]
pub struct Paginator<T> {
    /// From 1.
    #[serde(deserialize_with = "number")]
    pub current_page: i64,
    /// The rows of this page.
    pub data: Vec<T>,
    /// Address of the first page.
    #[serde(default)]
    pub first_page_url: Option<String>,
    /// Number of the first row here, from 1; absent on an empty page.
    #[serde(default)]
    pub from: Option<i64>,
    /// Number of the last page; 1 when there are no rows.
    #[serde(deserialize_with = "number")]
    pub last_page: i64,
    /// Address of the last page.
    #[serde(default)]
    pub last_page_url: Option<String>,
    /// Addresses of pages, for a web page.
    #[serde(default)]
    pub links: Vec<PageLink>,
    /// Address of the next page.
    #[serde(default)]
    pub next_page_url: Option<String>,
    /// Address without a query.
    #[serde(default)]
    pub path: Option<String>,
    /// Rows a page; 10.
    #[serde(default)]
    pub per_page: Option<NumberOrText>,
    /// Address of the page before.
    #[serde(default)]
    pub prev_page_url: Option<String>,
    /// Number of the last row here.
    #[serde(default)]
    pub to: Option<i64>,
    /// Rows on all pages.
    #[serde(deserialize_with = "number")]
    pub total: i64,
}

/// What we read of a [`Paginator`]: most of one are addresses for a web page.
#[derive(Clone, Deserialize)]
pub struct Page<T> {
    /// From 1.
    #[serde(deserialize_with = "number")]
    pub current_page: i64,
    /// The rows of this page.
    pub data: Vec<T>,
    /// Number of the last page; 1 when there are no rows.
    #[serde(deserialize_with = "number")]
    pub last_page: i64,
    /// Rows on all pages.
    #[serde(deserialize_with = "number")]
    pub total: i64,
}

/// One of the paginator's links.
#[derive(Clone, Serialize, Deserialize)]
pub struct PageLink {
    /// Where to; none when there is no such page.
    #[serde(default)]
    pub url: Option<String>,
    /// What it says.
    #[serde(default)]
    pub label: String,
    /// It is the current page.
    #[serde(default)]
    pub active: bool,
}

/// One text, as `/sms/send`, `/sms/list` and `/sms/detail/{id}` show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sms {
    /// The sender.
    #[serde(deserialize_with = "text")]
    pub source: String,
    /// The number as it was sent; it may be one that can't exist.
    #[serde(deserialize_with = "text")]
    pub destination: String,
    /// The text.
    #[serde(default, deserialize_with = "text")]
    pub text: String,
    /// Sent or received.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// Segments; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms_count: Option<i64>,
    /// What became of it.
    pub delivery_status: DeliveryStatus,
    /// Read or not.
    #[serde(default)]
    pub read_status: ReadStatus,
    /// When it was sent, on the gateway's clock (UTC), to the second.
    #[serde(with = "time")]
    pub time: DateTime,
    /// Its id.
    #[serde(deserialize_with = "number")]
    pub sms_id: i64,
    /// The other side; only in the answer to `/sms/send`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_partner: Option<NumberOrText>,
}

impl Sms {
    /// [`Self::time`] as an instant.
    pub fn sent_at(&self) -> Timestamp {
        TimeZone::UTC.to_timestamp(self.time).unwrap_or(Timestamp::MIN)
    }
}

/// `POST /sms/send`.
#[derive(Clone, Serialize, Deserialize)]
pub struct SendAnswer {
    /// [`SUCCESS`].
    pub status: String,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// "0".
    pub delivery_status: DeliveryStatus,
    /// What was taken.
    pub sms: Sms,
}

/// `POST /sms/bulk-send`: nothing else, and no ids.
#[derive(Clone, Serialize, Deserialize)]
pub struct BulkSendAnswer {
    /// [`SUCCESS`].
    pub status: String,
    /// In words.
    pub message: String,
    /// "0".
    pub delivery_status: DeliveryStatus,
}

/// One row of `GET /sender-id/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderIdRow {
    /// The row's id.
    #[serde(deserialize_with = "number")]
    pub id: i64,
    /// The account.
    #[serde(default)]
    pub customer_user_id: NumberOrText,
    /// The sender id.
    #[serde(deserialize_with = "text")]
    pub sender_id: String,
    /// Approved or not.
    pub status: SenderStatus,
    /// When it was asked for.
    #[serde(default)]
    pub created_at: Option<String>,
    /// Who asked.
    #[serde(default)]
    pub created_by: Option<String>,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// Who changed it.
    #[serde(default)]
    pub updated_by: Option<String>,
}

/// `POST /sender-id/add`.
#[derive(Clone, Serialize, Deserialize)]
pub struct AddSenderAnswer {
    /// [`SUCCESS`].
    pub status: String,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// Both dial calls.
#[derive(Clone, Serialize, Deserialize)]
pub struct DialAnswer {
    /// [`SUCCESS`].
    pub status: String,
    /// In words, with the number.
    #[serde(default)]
    pub message: String,
    /// The call.
    #[serde(deserialize_with = "text")]
    pub call_id: String,
}

/// Laravel's answer to whatever it refuses.
#[derive(Clone, Serialize, Deserialize)]
pub struct RefusalAnswer {
    /// In words.
    #[serde(default)]
    pub message: String,
    /// By field, on 422.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<std::collections::BTreeMap<String, Vec<String>>>,
}

no_debug! { TokenAnswer Sms SendAnswer BulkSendAnswer AddSenderAnswer DialAnswer RefusalAnswer PageLink }

impl<T> fmt::Debug for Envelope<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Paginator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paginator")
            .field("current_page", &self.current_page)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// A number or a string, where it stands in the answer: each row of the list has eight.
enum Scalar<'de> {
    Number(i64),
    Text(Cow<'de, str>),
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let number = i64::try_from(number);
                number.map(Scalar::Number).map_err(|_| de::Error::custom("a number out of range"))
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Scalar::deserialize(deserializer)? {
            Scalar::Number(number) => Self::Number(number),
            Scalar::Text(text) => Self::Text(text.into_owned()),
        })
    }
}

/// An integer, also one written as a string.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Scalar::deserialize(deserializer)? {
        Scalar::Number(number) => Ok(number),
        Scalar::Text(text) => text.trim().parse().map_err(|_| de::Error::custom("not a number")),
    }
}

/// A string, also one written as a number or as null.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Option::<Scalar<'de>>::deserialize(deserializer)? {
        Some(Scalar::Text(text)) => text.into_owned(),
        Some(Scalar::Number(number)) => number.to_string(),
        None => String::new(),
    })
}

mod time {
    use super::{DateTime, Deserialize, Deserializer, Scalar, Serializer, TIME_FORMAT, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &DateTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&time.strftime(TIME_FORMAT))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime, D::Error> {
        let not_a_time = || Error::custom("not a time like 2025-05-14 06:43:39");
        let Scalar::Text(text) = Scalar::deserialize(deserializer)? else { return Err(not_a_time()) };
        DateTime::strptime(TIME_FORMAT, &*text).map_err(|_| not_a_time())
    }
}
