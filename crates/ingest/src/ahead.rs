//! Reading a file and judging its rows at the same time: a thread reads ahead of the one that judges.

use crate::{records::Records, refusal::Refusal};
use csv::StringRecord;
use std::{
    sync::mpsc::{channel, sync_channel},
    thread,
};

/// Records that are handed over together, unless they are long.
const RECORDS_MAX: usize = 512;
/// Bytes of cells that are handed over together, about.
const BYTES_MAX: usize = 64 * 1024;
/// One is read while one is judged, and one lies between them.
const BATCHES: usize = 3;
/// The room of longer records is not kept for others.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// Records with their row numbers. Their room is used again.
#[derive(Default)]
struct Batch {
    records: Vec<(u32, StringRecord)>,
    len: usize,
}

impl Batch {
    /// Reads the next records in place of those that are here; `false` at the end of the file. On a refusal it holds those
    /// that came before.
    fn fill(&mut self, records: &mut Records) -> Result<bool, Refusal> {
        self.len = 0;
        let mut bytes = 0;
        while self.len < RECORDS_MAX && bytes < BYTES_MAX {
            if self.len == self.records.len() {
                self.records.push(Default::default());
            }
            let (row, record) = &mut self.records[self.len];
            if record.as_slice().len() > KEPT_BYTES_MAX {
                *record = StringRecord::new();
            }
            let Some(read) = records.next_into(record)? else { return Ok(false) };
            *row = read;
            bytes += record.as_slice().len();
            self.len += 1;
        }
        Ok(true)
    }
}

/// Calls `judge` with each record and its row number, in the file's order; returns the file, read to its end.
///
/// # Errors
/// The first that reading or judging met, in the order of the rows.
pub(crate) fn read_ahead<E: From<Refusal>>(
    mut records: Records,
    mut judge: impl FnMut(u32, &StringRecord) -> Result<(), E>,
) -> Result<Records, E> {
    let (read, to_judge) = sync_channel::<Batch>(BATCHES);
    let (judged, to_fill) = channel();
    for _ in 0..BATCHES {
        judged.send(Batch::default()).expect("the other end is here");
    }
    // All ends on this side go with the closure: the thread, which may wait for a batch, is told so when judging ends early.
    thread::scope(move |scope| {
        let reading = scope.spawn(move || {
            // Nobody gives batches or takes them once judging has ended early.
            while let Ok(mut batch) = to_fill.recv() {
                let more = batch.fill(&mut records);
                if read.send(batch).is_err() || !more? {
                    break;
                }
            }
            Ok::<_, Refusal>(records)
        });
        for batch in to_judge {
            for (row, record) in &batch.records[..batch.len] {
                judge(*row, record)?;
            }
            // The thread may have come to the end of the file.
            let _ = judged.send(batch);
        }
        reading.join().expect("the reading thread hands panics on").map_err(E::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;
    use std::fmt::Write as _;

    /// The row numbers and first cells that were judged before row `stop`, and what ended it.
    fn judged(text: &str, stop: Option<u32>) -> (Vec<(u32, String)>, Option<Refusal>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let mut judged = Vec::new();
        let read = read_ahead(Records::open(&path, None).unwrap(), |row, record| {
            if Some(row) == stop {
                // The other thread has read all that it may by then, and waits.
                let mut again = Records::open(&path, None).unwrap();
                while let Ok(Some(_)) = again.next() {}
                return Err(Refusal::TooManyCampaigns { row, max: 1 });
            }
            judged.push((row, record[0].to_owned()));
            Ok(())
        });
        (judged, read.err())
    }

    /// A header and rows of which each names its number; some are long.
    fn rows(last: u32) -> String {
        let mut text = "phone,note\n".to_owned();
        for row in 2..=last {
            let long = "x".repeat(if row % 100 == 0 { 50_000 } else { 3 });
            writeln!(text, "{row},{long}").unwrap();
        }
        text
    }

    #[test]
    fn every_record_is_judged_once_in_its_order() {
        for last in [1, 2, 513, 514, 2_000] {
            let (judged, ended) = judged(&rows(last), None);
            assert!(ended.is_none());
            let expected: Vec<_> = (2..=last).map(|row| (row, row.to_string())).collect();
            assert!(judged == expected, "{} of {last} rows", judged.len());
        }
    }

    #[test]
    fn whichever_comes_first_in_the_file_refuses_it() {
        let text = rows(1_500) + "1501,\0\n" + "1502,\n";
        let (seen, ended) = judged(&text, None);
        assert!(matches!(ended, Some(Refusal::Nul { line: 1_501 })), "{ended:?}");
        assert!(seen.len() > 700, "those that were read before it are judged");
        for stop in [2, 700, 1_000] {
            let (seen, ended) = judged(&text, Some(stop));
            assert!(matches!(ended, Some(Refusal::TooManyCampaigns { row, .. }) if row == stop), "{ended:?}");
            assert_eq!(seen.len(), usize::try_from(stop).unwrap() - 2);
        }
    }
}
