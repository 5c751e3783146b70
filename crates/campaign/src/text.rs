//! Texts: encoding and segments.

use serde::{Deserialize, Serialize};

/// How a text is encoded on the air (3GPP TS 23.038).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The 7-bit default alphabet: 160 in one segment, 153 in each of several.
    Gsm7,
    /// UTF-16: 70 in one segment, 67 in each of several.
    Ucs2,
}

impl Encoding {
    /// The name that the ledger stores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gsm7 => "gsm7",
            Self::Ucs2 => "ucs2",
        }
    }
}
