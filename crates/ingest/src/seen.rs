//! Numbers that stood on an earlier row.

use campaign::Msisdn;
use roaring::RoaringTreemap;
use std::collections::HashMap;

/// Distinct numbers whose row is remembered (9 MB: what a hash table of 2^19 places holds); of later ones only that they
/// were there (about 2 bytes each).
const EXACT_MAX: usize = (1 << 19) / 8 * 7;

/// Where a number stood first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Row(u32),
    Somewhere,
}

#[derive(Default)]
pub(crate) struct Seen {
    exact: HashMap<u64, u32>,
    rest: RoaringTreemap,
}

impl Seen {
    /// Where the number stood before; remembers it if nowhere.
    pub(crate) fn or_note(&mut self, number: Msisdn, row: u32) -> Option<Earlier> {
        let number = number.as_u64();
        if let Some(&earlier) = self.exact.get(&number) {
            return Some(Earlier::Row(earlier));
        }
        if self.exact.len() < EXACT_MAX {
            self.exact.insert(number, row);
            return None;
        }
        (!self.rest.insert(number)).then_some(Earlier::Somewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_exact_ones_a_number_is_still_known() {
        let mut seen = Seen::default();
        let number = |n: usize| Msisdn::from_digits(447_700_000_000 + n as u64).unwrap();
        for n in 0..EXACT_MAX + 10 {
            assert_eq!(seen.or_note(number(n), 2), None);
        }
        assert_eq!(seen.or_note(number(7), 9), Some(Earlier::Row(2)));
        assert_eq!(seen.or_note(number(EXACT_MAX + 5), 9), Some(Earlier::Somewhere));
    }
}
