//! Prices and costs: whole millionths of the currency, never a binary fraction.

use crate::Msisdn;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Decimals of a price.
const DECIMALS: usize = 6;

/// An amount of the one currency that the settings name.
///
/// Units: millionths. As text it has two to six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

/// A text that is no amount.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no amount; write it like 120.50, with at most 6 decimals")]
pub struct NoAmount(String);

impl Money {
    /// So many millionths.
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// In millionths.
    pub fn micros(self) -> u64 {
        self.0
    }

    /// So many times this; the largest amount where it would be more.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// Both together; the largest amount where it would be more.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FromStr for Money {
    type Err = NoAmount;

    /// Reads `120`, `120.5`, `0.035`; no sign, no thousands, no exponent.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NoAmount(text.to_owned());
        let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > DECIMALS {
            return Err(wrong());
        }
        let micros: u64 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| wrong())?;
        let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1_000_000)).ok_or_else(wrong)?;
        whole.checked_add(micros).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % 1_000_000);
        let kept = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / 1_000_000, &decimals[..kept])
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a text or from a number as TOML writes it: its shortest decimal form is what was written.
impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl de::Visitor<'_> for Amount {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount like 120.50")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Money, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Money, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Money, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

/// What one segment costs, by the first digits of the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// The longest prefix first.
    by_prefix: Vec<(String, Money)>,
    default: Option<Money>,
}

impl Prices {
    /// Of prefixes (digits, as `44`) and of all other numbers.
    pub fn new(by_prefix: impl IntoIterator<Item = (String, Money)>, default: Option<Money>) -> Self {
        let mut by_prefix: Vec<_> = by_prefix.into_iter().collect();
        by_prefix.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { by_prefix, default }
    }

    /// Whether there is any price.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty() && self.default.is_none()
    }

    /// The price of the longest prefix of the number, with that prefix (`default` for none).
    pub fn of(&self, number: Msisdn) -> Option<(&str, Money)> {
        let digits = number.to_string();
        let found = self.by_prefix.iter().find(|(prefix, _)| digits.starts_with(prefix));
        found.map(|(prefix, price)| (prefix.as_str(), *price)).or_else(|| self.default.map(|price| ("default", price)))
    }
}

/// All prices in one order, to be compared.
impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by_prefix.iter().try_for_each(|(prefix, price)| write!(f, "{prefix}={price} "))?;
        self.default.map_or(Ok(()), |price| write!(f, "default={price}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn an_amount_is_exact() {
        assert_eq!(money("0.035").times(3), money("0.105"));
        assert_eq!(money("0.1").plus(money("0.2")), money("0.3"));
        assert_eq!(
            ["120", "120.5", "0.035", "1.000001"].map(|t| money(t).to_string()),
            ["120.00", "120.50", "0.035", "1.000001"]
        );
        for wrong in ["", "x", "-1", "1,5", "1.", ".5", "1e3", "1.0000001", "99999999999999999999"] {
            assert!(wrong.parse::<Money>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_longest_prefix_has_the_price() {
        let prices = Prices::new([("44".to_owned(), money("0.035")), ("447".to_owned(), money("0.03"))], None);
        let price =
            |digits| prices.of(Msisdn::from_digits(digits).unwrap()).map(|(prefix, price)| (prefix, price.to_string()));
        assert_eq!(price(447_700_900_001), Some(("447", "0.03".to_owned())));
        assert_eq!(price(442_079_460_000), Some(("44", "0.035".to_owned())));
        assert_eq!(price(353_870_000_001), None);
        let others = Prices::new([], Some(money("1")));
        assert_eq!(others.of(Msisdn::from_digits(353_870_000_001).unwrap()), Some(("default", money("1"))));
    }

    proptest! {
        #[test]
        fn every_amount_is_read_as_it_is_written(micros in any::<u64>()) {
            let money = Money::from_micros(micros);
            prop_assert_eq!(money.to_string().parse(), Ok(money));
        }
    }
}
