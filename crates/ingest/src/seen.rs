//! Numbers that stood on an earlier row.

use campaign::Msisdn;
use roaring::{RoaringBitmap, RoaringTreemap};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

/// Distinct numbers whose row is remembered (about 9 MB); of later ones only that they were there (about 2 bytes each).
const EXACT_MAX: usize = 450_000;
/// Numbers that are added to the others together: a set that grows number by number keeps as much room again for more.
const RECENT_MAX: usize = 100_000;
/// Hash tables that share them, so that none is large: after one large block was freed, glibc's allocator keeps as much
/// again in each thread's heap.
const TABLES: usize = 128;

/// Where a number stood first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Row(u32),
    Somewhere,
}

/// How a row's number is known to have stood before.
pub(crate) enum Numbers {
    /// By looking: nobody has read the file yet.
    Unknown(Seen),
    /// From an earlier reading of the same bytes.
    Known(Arc<Repeats>),
}

impl Numbers {
    /// Where the number of a row stood before, if anywhere.
    pub(crate) fn or_note(&mut self, number: Msisdn, row: u32) -> Option<Earlier> {
        match self {
            Self::Unknown(seen) => seen.or_note(number, row),
            Self::Known(repeats) => repeats.earlier(number, row),
        }
    }

    /// What the next reading has to know.
    pub(crate) fn into_repeats(self) -> Arc<Repeats> {
        match self {
            Self::Unknown(seen) => Arc::new(seen.into_repeats()),
            Self::Known(repeats) => repeats,
        }
    }
}

/// The rows of a file whose number stood on an earlier one. To look each up again would take a third of the time of reading.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Repeats {
    rows: RoaringBitmap,
    /// Where numbers stood first; empty where none is repeated.
    exact: Tables,
}

impl Repeats {
    fn earlier(&self, number: Msisdn, row: u32) -> Option<Earlier> {
        self.rows.contains(row).then(|| match self.exact[table(number)].get(&number.as_u64()) {
            Some(&earlier) => Earlier::Row(earlier),
            None => Earlier::Somewhere,
        })
    }
}

impl Eq for Repeats {}

/// Numbers are personal: only how many rows there are is shown.
impl fmt::Debug for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeats").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// Number → row, in the table that the number's remainder names.
type Tables = Vec<HashMap<u64, u32>>;

fn table(number: Msisdn) -> usize {
    usize::try_from(number.as_u64() % TABLES as u64).expect("a small number")
}

pub(crate) struct Seen {
    exact: Tables,
    exact_len: usize,
    rest: RoaringTreemap,
    /// In tables as well.
    recent: Vec<HashSet<u64>>,
    recent_len: usize,
    repeated: RoaringBitmap,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            exact: vec![HashMap::new(); TABLES],
            exact_len: 0,
            rest: RoaringTreemap::new(),
            recent: vec![HashSet::new(); TABLES],
            recent_len: 0,
            repeated: RoaringBitmap::new(),
        }
    }

    /// Where the number stood before; remembers it if nowhere.
    fn or_note(&mut self, number: Msisdn, row: u32) -> Option<Earlier> {
        let earlier = self.earlier_or_note(number, row);
        if earlier.is_some() {
            self.repeated.insert(row);
        }
        earlier
    }

    fn earlier_or_note(&mut self, number: Msisdn, row: u32) -> Option<Earlier> {
        let (table, number) = (table(number), number.as_u64());
        if let Some(&earlier) = self.exact[table].get(&number) {
            return Some(Earlier::Row(earlier));
        }
        if self.exact_len < EXACT_MAX {
            self.exact_len += 1;
            self.exact[table].insert(number, row);
            return None;
        }
        if self.rest.contains(number) || !self.recent[table].insert(number) {
            return Some(Earlier::Somewhere);
        }
        self.recent_len += 1;
        if self.recent_len >= RECENT_MAX {
            let mut recent: Vec<u64> = self.recent.iter_mut().flat_map(HashSet::drain).collect();
            recent.sort_unstable();
            self.rest |= RoaringTreemap::from_sorted_iter(recent).expect("they are in order, each once");
            self.recent_len = 0;
        }
        None
    }

    fn into_repeats(self) -> Repeats {
        let exact = if self.repeated.is_empty() { Tables::new() } else { self.exact };
        Repeats { rows: self.repeated, exact }
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
            assert_eq!(seen.or_note(number(n), 10), Some(Earlier::Somewhere));
        }
        let mut again = Numbers::Known(Arc::new(seen.into_repeats()));
        for (n, row, earlier) in [
            (7, 2, None),
            (7, 9, Some(Earlier::Row(2))),
            (EXACT_MAX + 5, 2, None),
            (EXACT_MAX + 5, 10, Some(Earlier::Somewhere)),
        ] {
            assert_eq!(again.or_note(number(n), row), earlier, "the next reading finds what the first has found");
        }
    }
}
