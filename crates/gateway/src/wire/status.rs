//! The gateway's status words: digits in strings.

use super::Scalar;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $code:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
            /// None of these: its spelling. It means nothing until somebody has said what.
            Unknown(String),
        }

        impl $name {
            /// As the gateway spells it.
            pub fn code(&self) -> &str {
                match self {
                    $(Self::$value => $code,)+
                    Self::Unknown(code) => code,
                }
            }

            /// The status of that spelling.
            pub fn from_code(code: &str) -> Self {
                match code {
                    $($code => Self::$value,)+
                    _ => Self::Unknown(code.chars().take(40).collect()),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.code())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(match Option::<Scalar<'de>>::deserialize(deserializer)? {
                    Some(Scalar::Text(code)) => Self::from_code(&code),
                    Some(Scalar::Number(code)) => Self::from_code(&code.to_string()),
                    None => Self::Unknown(String::new()),
                })
            }
        }
    )+};
}

statuses! {
    /// `delivery_status`. Collection: 0 pending, 1 sent, 2 failed.
    DeliveryStatus {
        /// Not known yet.
        Pending = "0",
        /// Handed on. The gateway never says *delivered*.
        Sent = "1",
        /// Failed for good.
        Failed = "2",
    }
    /// `type` of a text. Collection: 1 sent, 2 received.
    MessageType {
        /// From us.
        Sent = "1",
        /// To us.
        Received = "2",
    }
    /// `read_status`. Collection: 0 unread, 1 read.
    ReadStatus {
        /// Not read.
        Unread = "0",
        /// Read.
        Read = "1",
    }
    /// `status` of a sender id.
    SenderStatus {
        /// Can't be used yet.
        AwaitingApproval = "0",
        /// Can be used.
        Approved = "1",
    }
}

impl Default for ReadStatus {
    fn default() -> Self {
        Self::Unknown(String::new())
    }
}
