//! A file of people who want no texts.

use crate::{
    columns::{Meaning, normalised},
    records::Records,
    refusal::Refusal,
};
use campaign::{Msisdn, Region, SenderId};
use csv::StringRecord;
use std::path::Path;

/// One line of such a file.
#[derive(Clone, Debug)]
pub struct OptOutLine {
    /// The spreadsheet's row.
    pub row_number: u32,
    /// What it says, or what is wrong with it. No error shows the number.
    pub read: Result<Wish, String>,
}

/// The number, from which sender, and why, where the line says so.
pub type Wish = (Msisdn, Option<SenderId>, Option<String>);

/// Where what is.
struct Places {
    destination: usize,
    sender: Option<usize>,
    reason: Option<usize>,
}

/// Reads a CSV file of numbers: one column of them without a header, or a header with `destination` and, if wanted,
/// `sender` and `reason`.
///
/// Errors: the file as a whole can't be read, or has several columns and no header that names the destination.
pub fn opt_outs(path: &Path, region: Region) -> Result<Vec<OptOutLine>, Refusal> {
    let mut records = Records::open(path, None)?;
    let header = records.header().clone();
    let names: Vec<String> = header.iter().map(normalised).collect();
    let place = |wanted| names.iter().position(|name| Meaning::of(name) == Some(wanted));
    let mut lines = Vec::new();
    let places = match place(Meaning::Destination) {
        Some(destination) => {
            let reason = names.iter().position(|name| name == "reason");
            Places { destination, sender: place(Meaning::Sender), reason }
        }
        None if names.len() == 1 => {
            let alone = Places { destination: 0, sender: None, reason: None };
            lines.push(line(1, &header, 1, &alone, region));
            alone
        }
        None => {
            // Without a header these are somebody's numbers: they are not repeated.
            let named = |cell: &&str| !cell.contains(|c: char| c.is_ascii_digit());
            let found: Vec<&str> = header.iter().map(str::trim).filter(named).collect();
            return Err(Refusal::NoDestination { found: found.join(", ") });
        }
    };
    while let Some((row_number, record)) = records.next()? {
        lines.push(line(row_number, record, names.len(), &places, region));
    }
    Ok(lines)
}

fn line(row_number: u32, record: &StringRecord, columns: usize, places: &Places, region: Region) -> OptOutLine {
    OptOutLine { row_number, read: read(record, columns, places, region) }
}

fn read(record: &StringRecord, columns: usize, places: &Places, region: Region) -> Result<Wish, String> {
    if record.len() != columns {
        return Err(format!("it has {} cells, the first row has {columns}", record.len()));
    }
    let cell = |at: usize| record.get(at).unwrap_or_default().trim();
    let given = |at: Option<usize>| at.map(cell).filter(|cell| !cell.is_empty());
    let number = Msisdn::parse(cell(places.destination), region).map_err(|error| error.to_string())?.msisdn;
    let sender = given(places.sender).map(SenderId::parse).transpose().map_err(|error| error.to_string())?;
    Ok((number, sender, given(places.reason).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(content: &str) -> Vec<OptOutLine> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        std::fs::write(&path, content).unwrap();
        opt_outs(&path, Region::GB).unwrap()
    }

    #[test]
    fn one_column_needs_no_header() {
        for content in ["07400000001\n+44 7400 000002\n", "Mobile\n07400000001\n+44 7400 000002\n"] {
            let read: Vec<u64> = lines(content).into_iter().map(|line| line.read.unwrap().0.as_u64()).collect();
            assert_eq!(read, [447_400_000_001, 447_400_000_002]);
        }
    }

    #[test]
    fn sender_and_reason_are_taken_where_they_are_given() {
        let read = lines("reason;destination;sender\nshe rang;07400000001;ACME\n;07400000002;\n");
        let (_, sender, reason) = read[0].read.clone().unwrap();
        assert_eq!((sender.unwrap().as_str(), reason.as_deref()), ("ACME", Some("she rang")));
        let (_, sender, reason) = read[1].read.clone().unwrap();
        assert_eq!((sender, reason), (None, None));
    }

    #[test]
    fn a_bad_line_is_named_and_its_number_is_not_shown() {
        let read = lines("destination,sender\n07400000001,ACME\n0770090,ACME\n07400000003,A&B\n07400000004\n");
        let bad: Vec<(u32, String)> =
            read.into_iter().filter_map(|line| Some((line.row_number, line.read.err()?))).collect();
        assert_eq!(bad.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(!bad[0].1.contains("0770090"), "{bad:?}");
    }

    #[test]
    fn several_columns_need_a_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        std::fs::write(&path, "07400000001,ann\n").unwrap();
        assert!(matches!(opt_outs(&path, Region::GB), Err(Refusal::NoDestination { .. })));
    }
}
