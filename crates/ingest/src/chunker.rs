//! Cutting a file's rows into chunks.
//!
//! Rows are gathered by what they share, so that a chunk holds few texts and bulk batches are full. Guarantee: every row
//! is in exactly one chunk; a chunk has 1..=`rows_max` rows of one group; the same rows in the same order give the same
//! chunks. Nothing here looks at a clock or a ledger, or iterates over a hash map.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Gathers rows of type `T` by group `G` (never mixed) and within it by key `K` (kept together where that is possible).
pub(crate) struct Chunker<G, K, T> {
    rows_max: usize,
    buffered_max: usize,
    buffered: usize,
    opened: u64,
    groups: BTreeMap<G, Group<K, T>>,
}

struct Group<K, T> {
    rows: usize,
    /// By when they were opened, so that the oldest come first.
    buffers: BTreeMap<u64, (K, Vec<T>)>,
    open: HashMap<K, u64>,
}

impl<G: Ord + Clone, K: Eq + Hash + Clone, T> Chunker<G, K, T> {
    /// `rows_max` rows in a chunk, `buffered_max` rows in memory.
    pub(crate) fn new(rows_max: usize, buffered_max: usize) -> Self {
        Self { rows_max, buffered_max, buffered: 0, opened: 0, groups: BTreeMap::new() }
    }

    /// Takes a row; gives a chunk if that made one.
    pub(crate) fn push(&mut self, group: G, key: K, row: T) -> Option<(G, Vec<T>)> {
        let found = self.groups.entry(group.clone()).or_insert_with(|| Group {
            rows: 0,
            buffers: BTreeMap::new(),
            open: HashMap::new(),
        });
        let opened = &mut self.opened;
        let at = *found.open.entry(key.clone()).or_insert_with(|| {
            *opened += 1;
            *opened
        });
        let (_, buffer) = found.buffers.entry(at).or_insert_with(|| (key.clone(), Vec::new()));
        buffer.push(row);
        found.rows += 1;
        self.buffered += 1;
        if buffer.len() >= self.rows_max {
            let rows = std::mem::take(buffer);
            found.buffers.remove(&at);
            found.open.remove(&key);
            found.rows -= rows.len();
            self.buffered -= rows.len();
            return Some((group, rows));
        }
        if self.buffered <= self.buffered_max {
            return None;
        }
        // The fullest group gives the fullest chunk; the first of equals, for the same on every reading.
        let fullest = self.groups.iter().max_by(|(a, x), (b, y)| x.rows.cmp(&y.rows).then(b.cmp(a)))?.0.clone();
        self.merge_oldest(fullest)
    }

    /// The chunks of what is left, to be called until there is none.
    pub(crate) fn finish(&mut self) -> Option<(G, Vec<T>)> {
        let group = self.groups.iter().find(|(_, group)| group.rows > 0)?.0.clone();
        self.merge_oldest(group)
    }

    /// Puts whole buffers of one group together, oldest first, as long as they fit.
    fn merge_oldest(&mut self, group: G) -> Option<(G, Vec<T>)> {
        let found = self.groups.get_mut(&group)?;
        let mut rows = Vec::new();
        while let Some(first) = found.buffers.first_entry() {
            if rows.len() + first.get().1.len() > self.rows_max {
                break;
            }
            let (key, more) = first.remove();
            found.open.remove(&key);
            rows.extend(more);
        }
        found.rows -= rows.len();
        self.buffered -= rows.len();
        if found.rows == 0 {
            self.groups.remove(&group);
        }
        (!rows.is_empty()).then_some((group, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(rows: &[(u8, u16)], rows_max: usize, buffered_max: usize) -> Vec<(u8, Vec<usize>)> {
        let mut chunker = Chunker::new(rows_max, buffered_max);
        let mut chunks = Vec::new();
        for (n, &(group, key)) in rows.iter().enumerate() {
            chunks.extend(chunker.push(group, key, n));
            assert!(chunker.buffered <= buffered_max, "{} rows in memory", chunker.buffered);
        }
        while let Some(chunk) = chunker.finish() {
            chunks.push(chunk);
        }
        assert_eq!(chunker.buffered, 0);
        chunks
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_chunk_of_its_group(
            rows in proptest::collection::vec((0u8..4, 0u16..40), 0..600),
            rows_max in 1usize..30,
            buffered_max in 30usize..90,
        ) {
            let chunks = cut(&rows, rows_max, buffered_max);
            let mut seen = vec![0; rows.len()];
            for (group, members) in &chunks {
                prop_assert!((1..=rows_max).contains(&members.len()));
                for &n in members {
                    prop_assert_eq!(rows[n].0, *group);
                    seen[n] += 1;
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
            prop_assert_eq!(chunks, cut(&rows, rows_max, buffered_max), "the same rows were cut differently");
        }
    }

    #[test]
    fn five_texts_in_turn_make_chunks_of_one_text_each() {
        let rows: Vec<_> = (0..10_000).map(|n| (0, n % 5)).collect();
        let chunks = cut(&rows, 500, 8_000);
        assert_eq!(chunks.len(), 20);
        for (_, members) in chunks {
            assert!(members.windows(2).all(|pair| rows[pair[0]] == rows[pair[1]]));
        }
    }

    #[test]
    fn texts_of_their_own_are_merged_into_full_chunks() {
        let rows: Vec<_> = (0..20_000).map(|n| (0, n)).collect();
        assert!(cut(&rows, 500, 8_000).iter().all(|(_, members)| members.len() == 500));
    }
}
