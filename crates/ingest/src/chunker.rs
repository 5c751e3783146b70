//! Cutting a file's rows into chunks.
//!
//! Rows are gathered by what they share, so that a chunk holds few texts and bulk batches are full; and of many that share it,
//! those whose numbers are near each other, in the order of their numbers: each batch then touches a few pages of the ledger's
//! index of open recipients instead of nearly all. Guarantee: every row is in exactly one chunk; a chunk has 1..=`rows_max` rows
//! of one group; the same rows in the same order give the same chunks. Nothing here looks at a clock or a ledger, or iterates
//! over a hash map.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
};

/// Gathers rows of type `T` by group `G` (never mixed) and within it by key `K` (kept together where that is possible).
pub(crate) struct Chunker<G, K, T> {
    rows_max: usize,
    buffered_max: usize,
    buffers_max: usize,
    buffered: usize,
    buffers: usize,
    opened: u64,
    groups: BTreeMap<G, Group<K, T>>,
    ready: VecDeque<(G, Vec<T>)>,
}

struct Group<K, T> {
    rows: usize,
    /// By when they were opened, so that the oldest come first.
    buffers: BTreeMap<u64, (K, Vec<Buffered<T>>)>,
    open: HashMap<K, u64>,
}

/// A row and its place among the numbers.
struct Buffered<T> {
    number: u64,
    row: T,
}

impl<G: Ord + Clone, K: Eq + Hash + Clone, T> Chunker<G, K, T> {
    /// `rows_max` rows in a chunk; about `buffered_max` rows in memory, of about `buffers_max` keys: a row that shares nothing takes
    /// several times as much.
    pub(crate) fn new(rows_max: usize, buffered_max: usize, buffers_max: usize) -> Self {
        let (groups, ready) = (BTreeMap::new(), VecDeque::new());
        Self { rows_max, buffered_max, buffers_max, buffered: 0, buffers: 0, opened: 0, groups, ready }
    }

    /// Takes a row to a number; that may make chunks.
    pub(crate) fn push(&mut self, group: G, key: K, number: u64, row: T) {
        let found = self.groups.entry(group).or_insert_with(|| Group {
            rows: 0,
            buffers: BTreeMap::new(),
            open: HashMap::new(),
        });
        let (opened, buffers) = (&mut self.opened, &mut self.buffers);
        let at = *found.open.entry(key.clone()).or_insert_with(|| {
            *buffers += 1;
            *opened += 1;
            *opened
        });
        let (_, buffer) = found.buffers.entry(at).or_insert_with(|| (key, Vec::new()));
        buffer.push(Buffered { number, row });
        found.rows += 1;
        self.buffered += 1;
        if self.buffered < self.buffered_max && self.buffers < self.buffers_max {
            return;
        }
        // The first of equals, for the same on every reading.
        let Some((group, found)) = self.groups.iter().rev().max_by_key(|(_, found)| found.rows) else { return };
        let group = group.clone();
        match found.buffers.iter().rev().max_by_key(|(_, (_, rows))| rows.len()) {
            Some((at, (_, rows))) if rows.len() >= self.rows_max => {
                let at = *at;
                self.cut(&group, at);
            }
            _ => self.merge_oldest(&group),
        }
    }

    /// The next chunk that is made.
    pub(crate) fn pop(&mut self) -> Option<(G, Vec<T>)> {
        self.ready.pop_front()
    }

    /// Makes chunks of all that is left.
    pub(crate) fn finish(&mut self) {
        while let Some((group, found)) = self.groups.iter().next() {
            let group = group.clone();
            match found.buffers.iter().find(|(_, (_, rows))| rows.len() >= self.rows_max) {
                Some((at, _)) => self.cut(&group, *at),
                None => self.merge_oldest(&group),
            }
        }
    }

    /// Makes full chunks of a buffer, in the order of their numbers. Those that came last are left over.
    fn cut(&mut self, group: &G, at: u64) {
        let Some(found) = self.groups.get_mut(group) else { return };
        let Some((key, buffer)) = found.buffers.get_mut(&at) else { return };
        let chunks = buffer.len() / self.rows_max;
        let taken = chunks * self.rows_max;
        buffer[..taken].sort_by_cached_key(|row| row.number);
        let mut rows = buffer.drain(..taken).map(|Buffered { row, .. }| row);
        self.ready.extend((0..chunks).map(|_| (group.clone(), rows.by_ref().take(self.rows_max).collect())));
        drop(rows);
        if buffer.is_empty() {
            found.open.remove(key);
            found.buffers.remove(&at);
            self.buffers -= 1;
        }
        self.took(group, taken);
    }

    /// Puts whole buffers of one group together, oldest first, as long as they fit.
    fn merge_oldest(&mut self, group: &G) {
        let Some(found) = self.groups.get_mut(group) else { return };
        let mut rows = Vec::new();
        while let Some(first) = found.buffers.first_entry() {
            if rows.len() + first.get().1.len() > self.rows_max {
                break;
            }
            let (key, more) = first.remove();
            found.open.remove(&key);
            self.buffers -= 1;
            rows.extend(more.into_iter().map(|Buffered { row, .. }| row));
        }
        self.took(group, rows.len());
        self.ready.push_back((group.clone(), rows));
    }

    /// Counts rows that are not buffered any more.
    fn took(&mut self, group: &G, rows: usize) {
        self.buffered -= rows;
        if let Some(found) = self.groups.get_mut(group) {
            found.rows -= rows;
            if found.rows == 0 {
                self.groups.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(rows: &[(u8, u16, u64)], rows_max: usize, buffered_max: usize, buffers_max: usize) -> Vec<(u8, Vec<usize>)> {
        let mut chunker = Chunker::new(rows_max, buffered_max, buffers_max);
        let mut chunks = Vec::new();
        for (n, &(group, key, number)) in rows.iter().enumerate() {
            chunker.push(group, key, number, n);
            chunks.extend(std::iter::from_fn(|| chunker.pop()));
            assert!(chunker.buffered <= buffered_max, "{} rows in memory", chunker.buffered);
            // One that holds full chunks is cut, and its rest left for the next time.
            assert!(chunker.buffers <= buffers_max + buffered_max / rows_max, "{} keys in memory", chunker.buffers);
        }
        chunker.finish();
        chunks.extend(std::iter::from_fn(|| chunker.pop()));
        assert_eq!((chunker.buffered, chunker.buffers), (0, 0));
        chunks
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_chunk_of_its_group(
            rows in proptest::collection::vec((0u8..4, 0u16..40, 0u64..100), 0..600),
            rows_max in 1usize..30,
            buffered_max in 30usize..90,
            buffers_max in 5usize..60,
        ) {
            let chunks = cut(&rows, rows_max, buffered_max, buffers_max);
            let mut seen = vec![0; rows.len()];
            for (group, members) in &chunks {
                prop_assert!((1..=rows_max).contains(&members.len()));
                for &n in members {
                    prop_assert_eq!(rows[n].0, *group);
                    seen[n] += 1;
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
            prop_assert_eq!(chunks, cut(&rows, rows_max, buffered_max, buffers_max), "the same rows were cut differently");
        }
    }

    #[test]
    fn five_texts_in_turn_make_chunks_of_one_text_each() {
        let rows: Vec<_> = (0..10_000).map(|n| (0, n % 5, u64::from(n))).collect();
        let chunks = cut(&rows, 500, 8_000, 2_000);
        assert_eq!(chunks.len(), 20);
        for (_, members) in chunks {
            assert!(members.windows(2).all(|pair| rows[pair[0]].1 == rows[pair[1]].1));
        }
    }

    #[test]
    fn texts_of_their_own_are_merged_into_full_chunks() {
        let rows: Vec<_> = (0..20_000).map(|n| (0, n, 7)).collect();
        assert!(cut(&rows, 500, 8_000, 2_000).iter().all(|(_, members)| members.len() == 500));
    }

    #[test]
    fn of_many_rows_a_chunk_holds_numbers_that_are_near_each_other_in_their_order() {
        let rows: Vec<_> = (0..16_000u64).map(|n| (0, 0, n * 7_919 % 16_000)).collect();
        let chunks = cut(&rows, 500, 8_000, 2_000);
        assert_eq!(chunks.len(), 32);
        for (_, members) in &chunks {
            let numbers: Vec<u64> = members.iter().map(|&n| rows[n].2).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
            assert!(numbers[499] - numbers[0] < 1_200, "{numbers:?}");
        }
    }
}
