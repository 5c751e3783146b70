//! From claimed rows to gateway calls.

use crate::{Msisdn, RowId, SenderId, TextId};
use std::collections::HashMap;

/// A row that may be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sendable {
    /// The row.
    pub row: RowId,
    /// To whom.
    pub destination: Msisdn,
    /// From whom.
    pub sender: SenderId,
    /// What.
    pub text: TextId,
}

/// One gateway call: one sender, one text, one to many destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// From whom.
    pub sender: SenderId,
    /// What.
    pub text: TextId,
    /// The rows in the order of their ids, each with its destination.
    pub rows: Vec<(RowId, Msisdn)>,
}

/// Groups rows into bulk calls, keeping row order within each.
///
/// Shape: any number of rows in; batches of 1..=`batch_len_max` with one (sender, text) out; none lost, none twice. Full
/// batches come first in the order in which they filled.
/// Units: lengths count destinations, not segments.
/// Source: collection, "send-bulk-message".
pub fn form(rows: impl IntoIterator<Item = Sendable>, batch_len_max: usize) -> Vec<Batch> {
    let batch_len_max = batch_len_max.max(1);
    let mut full = Vec::new();
    let mut filling: Vec<Batch> = Vec::new();
    let mut at: HashMap<(SenderId, TextId), usize> = HashMap::new();
    for row in rows {
        let place = *at.entry((row.sender.clone(), row.text)).or_insert_with(|| {
            filling.push(Batch { sender: row.sender.clone(), text: row.text, rows: Vec::new() });
            filling.len() - 1
        });
        let batch = &mut filling[place];
        batch.rows.push((row.row, row.destination));
        if batch.rows.len() == batch_len_max {
            let rows = std::mem::take(&mut batch.rows);
            full.push(Batch { sender: batch.sender.clone(), text: batch.text, rows });
        }
    }
    full.extend(filling.into_iter().filter(|batch| !batch.rows.is_empty()));
    full
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(n: i64, sender: u8, text: i64) -> Sendable {
        let destination = Msisdn::from_digits(447_700_900_000 + u64::try_from(n).unwrap()).unwrap();
        let sender = SenderId::parse(&format!("S{sender}")).unwrap();
        Sendable { row: RowId(n), destination, sender, text: TextId(text) }
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_batch_of_its_own_sender_and_text(
            kinds in prop::collection::vec((0u8..3, 0i64..4), 0..300), batch_len_max in 1usize..12
        ) {
            let rows: Vec<_> = kinds.iter().zip(0..).map(|(&(s, t), n)| row(n, s, t)).collect();
            let batches = form(rows.clone(), batch_len_max);
            let mut seen: Vec<i64> = Vec::new();
            for batch in &batches {
                prop_assert!((1..=batch_len_max).contains(&batch.rows.len()));
                prop_assert!(batch.rows.is_sorted());
                for (id, _) in &batch.rows {
                    let row = rows.iter().find(|row| row.row == *id).unwrap();
                    prop_assert_eq!((&row.sender, row.text), (&batch.sender, batch.text));
                    seen.push(id.0);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>());
        }

        #[test]
        fn batches_are_as_few_as_possible(n in 1usize..400, batch_len_max in 1usize..120) {
            let rows = (0..i64::try_from(n).unwrap()).map(|n| row(n, 0, 0));
            prop_assert_eq!(form(rows, batch_len_max).len(), n.div_ceil(batch_len_max));
        }
    }
}
