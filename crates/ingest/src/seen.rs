//! Numbers that stood on an earlier row.

use campaign::Msisdn;
use roaring::RoaringTreemap;
use std::collections::HashMap;

/// Distinct numbers whose row is remembered (about 9 MB); of later ones only that they were there (about 2 bytes each).
const EXACT_MAX: usize = 450_000;
/// Numbers that are added to the others together: a set that grows number by number keeps as much room again for more.
const RECENT_MAX: usize = 200_000;
/// Hash tables that share them, so that none is large: after one large block was freed, glibc's allocator keeps as much
/// again in each thread's heap.
const TABLES: u64 = 128;

/// Where a number stood first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Row(u32),
    Somewhere,
}

pub(crate) struct Seen {
    /// Number → row, in the table that the number's remainder names.
    exact: Vec<HashMap<u64, u32>>,
    exact_len: usize,
    rest: RoaringTreemap,
    recent: RoaringTreemap,
    recent_len: usize,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            exact: (0..TABLES).map(|_| HashMap::new()).collect(),
            exact_len: 0,
            rest: RoaringTreemap::new(),
            recent: RoaringTreemap::new(),
            recent_len: 0,
        }
    }

    /// Where the number stood before; remembers it if nowhere.
    pub(crate) fn or_note(&mut self, number: Msisdn, row: u32) -> Option<Earlier> {
        let number = number.as_u64();
        let table = &mut self.exact[usize::try_from(number % TABLES).expect("a small number")];
        if let Some(&earlier) = table.get(&number) {
            return Some(Earlier::Row(earlier));
        }
        if self.exact_len < EXACT_MAX {
            self.exact_len += 1;
            table.insert(number, row);
            return None;
        }
        if self.rest.contains(number) || !self.recent.insert(number) {
            return Some(Earlier::Somewhere);
        }
        self.recent_len += 1;
        if self.recent_len >= RECENT_MAX {
            self.rest |= std::mem::take(&mut self.recent);
            self.recent_len = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_exact_ones_a_number_is_still_known() {
        let mut seen = Seen::new();
        let number = |n: usize| Msisdn::from_digits(447_700_000_000 + n as u64).unwrap();
        let all = EXACT_MAX + 200_000 + 10;
        for n in 0..all {
            assert_eq!(seen.or_note(number(n), 2), None);
        }
        assert_eq!(seen.or_note(number(7), 9), Some(Earlier::Row(2)));
        // Among those that were added together, and among the last.
        for n in [EXACT_MAX + 5, all - 5] {
            assert_eq!(seen.or_note(number(n), 9), Some(Earlier::Somewhere));
        }
    }
}
