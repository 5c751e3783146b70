//! Which listed text belongs to which row: the only way from a bulk recipient to its `sms_id`.

use crate::{AttemptId, Msisdn, RowId, SmsId};
use std::{collections::HashMap, sync::Arc};

/// A text of ours as `/sms/list` shows it, whose `sms_id` no row has claimed yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Listed {
    /// The gateway's id.
    pub sms_id: SmsId,
    /// To whom; `None` for a number that is none, like the 24 digits in the collection.
    pub destination: Option<Msisdn>,
    /// Its text.
    pub text: Arc<str>,
    /// Seconds of the gateway's clock.
    pub time: i64,
}

/// A row with an attempt whose `sms_id` is not known.
#[derive(Clone, PartialEq, Eq)]
pub struct Open {
    /// The row.
    pub row: RowId,
    /// Its attempt; older attempts have smaller ids.
    pub attempt: AttemptId,
    /// To whom.
    pub destination: Msisdn,
    /// Its text.
    pub text: Arc<str>,
    /// Earliest second of the gateway's clock at which its text can be listed.
    pub earliest: i64,
}

/// What a listing says about the open rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// A row and the id that is now its own.
    pub found: Vec<(RowId, SmsId)>,
    /// Listed texts that no open row explains.
    pub unexplained: Vec<SmsId>,
}

/// Matches listed texts of one sender with the open rows of that sender, as multisets over (number, text): the oldest
/// attempt takes the oldest listed text. A text listed from before an attempt began is never its own.
///
/// Shape: each `sms_id` and each row appears at most once in the answer.
pub fn match_listed(listed: &[Listed], open: &[Open]) -> Matches {
    let mut waiting: HashMap<(Msisdn, &str), Vec<&Open>> = HashMap::new();
    for row in open {
        waiting.entry((row.destination, &*row.text)).or_default().push(row);
    }
    for rows in waiting.values_mut() {
        rows.sort_by_key(|row| std::cmp::Reverse((row.attempt, row.row)));
    }
    let mut oldest_first: Vec<&Listed> = listed.iter().collect();
    oldest_first.sort_by_key(|text| (text.time, text.sms_id));
    oldest_first.dedup_by_key(|text| text.sms_id);
    let mut matches = Matches::default();
    for text in oldest_first {
        let rows = text.destination.and_then(|destination| waiting.get_mut(&(destination, &*text.text)));
        match rows.and_then(|rows| rows.pop_if(|row| row.earliest <= text.time)) {
            Some(row) => matches.found.push((row.row, text.sms_id)),
            None => matches.unexplained.push(text.sms_id),
        }
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: i64, number: u64, text: &str, time: i64) -> Listed {
        Listed { sms_id: SmsId(id), destination: Msisdn::from_digits(number), text: text.into(), time }
    }

    fn open(row: i64, attempt: i64, number: u64, text: &str, earliest: i64) -> Open {
        let destination = Msisdn::from_digits(number).unwrap();
        Open { row: RowId(row), attempt: AttemptId(attempt), destination, text: text.into(), earliest }
    }

    const ANN: u64 = 447_700_900_001;
    const BOB: u64 = 447_700_900_002;

    #[test]
    fn a_listed_text_belongs_to_the_row_with_its_number_and_text() {
        let matches = match_listed(
            &[listed(11, ANN, "hello", 100), listed(12, BOB, "hello", 100), listed(13, ANN, "bye", 100)],
            &[open(1, 1, ANN, "hello", 90), open(2, 1, BOB, "hello", 90)],
        );
        assert_eq!(matches.found, [(RowId(1), SmsId(11)), (RowId(2), SmsId(12))]);
        assert_eq!(matches.unexplained, [SmsId(13)]);
    }

    #[test]
    fn the_oldest_attempt_takes_the_oldest_text() {
        let matches = match_listed(
            &[listed(22, ANN, "hello", 200), listed(21, ANN, "hello", 100)],
            &[open(2, 9, ANN, "hello", 90), open(1, 3, ANN, "hello", 90)],
        );
        assert_eq!(matches.found, [(RowId(1), SmsId(21)), (RowId(2), SmsId(22))]);
    }

    #[test]
    fn a_text_from_before_the_attempt_is_not_its_own() {
        let matches = match_listed(&[listed(5, ANN, "hello", 80)], &[open(1, 1, ANN, "hello", 90)]);
        assert_eq!(matches, Matches { found: vec![], unexplained: vec![SmsId(5)] });
    }

    #[test]
    fn one_row_takes_one_text_and_the_second_is_unexplained() {
        let twice = [listed(1, ANN, "hello", 100), listed(2, ANN, "hello", 101), listed(1, ANN, "hello", 100)];
        let matches = match_listed(&twice, &[open(1, 1, ANN, "hello", 90)]);
        assert_eq!(matches, Matches { found: vec![(RowId(1), SmsId(1))], unexplained: vec![SmsId(2)] });
    }
}
