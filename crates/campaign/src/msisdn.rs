//! Phone numbers.

use std::fmt;

/// A country by its ISO 3166-1 alpha-2 code: how a number without a country code is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Region([u8; 2]);

/// A phone number as the gateway takes it: E.164 digits without `+`. [`Msisdn::parse`] is the only way to one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msisdn(u64);

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("+44…")
    }
}

impl Msisdn {
    /// From stored digits.
    pub fn from_digits(digits: u64) -> Option<Self> {
        (1_000_000..1_000_000_000_000_000).contains(&digits).then_some(Self(digits))
    }

    /// The digits.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}
