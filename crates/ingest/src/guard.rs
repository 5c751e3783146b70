//! Bounds on what reaches the CSV parser, which has none of its own: an unterminated quotation mark would swallow the
//! rest of the file as one record, and a cell is read whole however long it is.
//!
//! The guard walks the same states as the parser (RFC 4180, lenient about line ends) and notes the row number of each
//! record as a spreadsheet counts them.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

/// Longest record, in bytes of UTF-8.
pub(crate) const RECORD_MAX: usize = 64 * 1024;

/// Why the guard let no more through; travels inside an [`io::Error`]. Lines are physical ones, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("NUL on line {line}")]
    Nul { line: u64 },
    #[error("record on line {line} is too long")]
    TooLong { line: u64 },
    #[error("quote in the record on line {line} is never closed")]
    Unterminated { line: u64 },
    #[error("text behind a closing quote on line {closed}, in the record on line {line}")]
    Stray { line: u64, closed: u64 },
    #[error("more rows than row numbers")]
    TooManyRows,
}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    RecordStart,
    CellStart,
    Cell,
    Quoted,
    /// Behind a quotation mark inside quotes: a doubled one, or the end of the cell.
    QuoteInQuoted,
    /// Behind the end of a quoted cell; blanks are let through.
    AfterQuoted,
}

/// A reader that stops at the first record that the parser must not see.
pub(crate) struct Guard<R> {
    inner: R,
    delimiter: u8,
    at: At,
    /// Of the next byte, from 1.
    line: u64,
    after_cr: bool,
    record_line: u64,
    record_bytes: usize,
    /// Of the record that begins next, if no blank line comes first.
    next_row: u32,
    rows: VecDeque<u32>,
    /// For each byte, whether more than the length of the record may hang on it: [`IN_CELL`], [`IN_QUOTES`].
    telling: [u8; 256],
}

/// It tells something in a cell without quotes.
const IN_CELL: u8 = 1;
/// It tells something in a quoted cell.
const IN_QUOTES: u8 = 2;

fn telling(delimiter: u8) -> [u8; 256] {
    let mut telling = [0; 256];
    for byte in [b'\n', b'\r', 0] {
        telling[usize::from(byte)] = IN_CELL | IN_QUOTES;
    }
    telling[usize::from(delimiter)] |= IN_CELL;
    telling[usize::from(b'"')] |= IN_QUOTES;
    telling
}

impl<R> Guard<R> {
    pub(crate) fn new(inner: R, delimiter: u8) -> Self {
        Self {
            telling: telling(delimiter),
            inner,
            delimiter,
            at: At::RecordStart,
            line: 1,
            after_cr: false,
            record_line: 1,
            record_bytes: 0,
            next_row: 1,
            rows: VecDeque::new(),
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The line of the next byte.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The row number of the next record that the parser hands out: the header's is 1, a line break inside quotes adds
    /// none, a blank line adds one.
    pub(crate) fn take_row(&mut self) -> Option<u32> {
        self.rows.pop_front()
    }

    fn scan(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        loop {
            bytes = &bytes[self.skip(bytes)?..];
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            let breaks = match byte {
                b'\n' => !self.after_cr,
                b'\r' => true,
                0 => return Err(Violation::Nul { line: self.line }),
                _ => false,
            };
            self.step(byte)?;
            if breaks {
                self.line += 1;
            }
            self.after_cr = byte == b'\r';
        }
    }

    /// Takes the next bytes that only make the record longer, which are most, and says how many.
    fn skip(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let telling = match self.at {
            At::Cell => IN_CELL,
            At::Quoted => IN_QUOTES,
            At::RecordStart | At::CellStart | At::QuoteInQuoted | At::AfterQuoted => return Ok(0),
        };
        let tells = |byte: &u8| self.telling[usize::from(*byte)] & telling != 0;
        let skipped = bytes.iter().position(tells).unwrap_or(bytes.len());
        if skipped > 0 {
            self.record_bytes += skipped;
            self.after_cr = false;
            if self.record_bytes > RECORD_MAX {
                return Err(Violation::TooLong { line: self.record_line });
            }
        }
        Ok(skipped)
    }

    fn step(&mut self, byte: u8) -> Result<(), Violation> {
        let line_end = byte == b'\n' || byte == b'\r';
        if self.at == At::RecordStart {
            if line_end {
                // The LF of a CRLF ends no second line.
                if !(byte == b'\n' && self.after_cr) {
                    self.count_row()?;
                }
                return Ok(());
            }
            self.rows.push_back(self.next_row);
            self.count_row()?;
            self.record_line = self.line;
            self.record_bytes = 0;
            self.at = At::CellStart;
        }
        self.record_bytes += 1;
        if self.record_bytes > RECORD_MAX {
            return Err(Violation::TooLong { line: self.record_line });
        }
        self.at = match self.at {
            At::Quoted if byte == b'"' => At::QuoteInQuoted,
            At::Quoted => At::Quoted,
            At::QuoteInQuoted if byte == b'"' => At::Quoted,
            _ if line_end => At::RecordStart,
            _ if byte == self.delimiter => At::CellStart,
            At::CellStart if byte == b'"' => At::Quoted,
            At::QuoteInQuoted | At::AfterQuoted if byte == b' ' => At::AfterQuoted,
            At::QuoteInQuoted | At::AfterQuoted => {
                return Err(Violation::Stray { line: self.record_line, closed: self.line });
            }
            At::RecordStart | At::CellStart | At::Cell => At::Cell,
        };
        Ok(())
    }

    fn count_row(&mut self) -> Result<(), Violation> {
        self.next_row = self.next_row.checked_add(1).ok_or(Violation::TooManyRows)?;
        Ok(())
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.scan(&buf[..n])?;
        if n == 0 && self.at == At::Quoted {
            return Err(Violation::Unterminated { line: self.record_line }.into());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(text: &[u8], capacity: usize) -> Result<Vec<(u32, Vec<String>)>, csv::Error> {
        let mut csv = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(capacity)
            .from_reader(Guard::new(text, b','));
        let mut found = Vec::new();
        let mut record = csv::StringRecord::new();
        while csv.read_record(&mut record)? {
            let row = csv.get_mut().take_row().expect("the guard saw the record that the parser found");
            found.push((row, record.iter().map(str::to_owned).collect()));
        }
        assert_eq!(csv.get_mut().take_row(), None, "the guard saw a record that the parser did not");
        Ok(found)
    }

    fn violation(text: &[u8]) -> Violation {
        let error = records(text, 64).unwrap_err();
        let csv::ErrorKind::Io(error) = error.into_kind() else { panic!("no violation") };
        *error.get_ref().and_then(|e| e.downcast_ref::<Violation>()).unwrap()
    }

    #[test]
    fn rows_are_numbered_as_in_a_spreadsheet() {
        let text = b"a,b\r\n1,\"two\r\nlines\"\r\n\r\n3,\"\"\"x\"\"\"\n\n\n  \n4,5";
        let rows: Vec<u32> = records(text, 3).unwrap().into_iter().map(|(row, _)| row).collect();
        assert_eq!(rows, [1, 2, 4, 7, 8]);
    }

    #[test]
    fn violations_name_the_line_where_the_record_began() {
        assert_eq!(violation(b"a,b\n1,\"two\nlines\"\n3,\"open\n4,5\n"), Violation::Unterminated { line: 4 });
        assert_eq!(violation(b"a,b\r\n1,\0\r\n"), Violation::Nul { line: 2 });
        assert_eq!(violation(b"a,b\n1,\"open\n2,\"x\"\n"), Violation::Stray { line: 2, closed: 3 });
        let long = [b"a,b\n1,2\n3,".to_vec(), vec![b'x'; RECORD_MAX], b"\n".to_vec()].concat();
        assert_eq!(violation(&long), Violation::TooLong { line: 3 });
        let open = [b"a,b\n\"".to_vec(), b"1,2\n".repeat(RECORD_MAX)].concat();
        assert_eq!(violation(&open), Violation::TooLong { line: 2 });
    }

    proptest! {
        #[test]
        fn guard_and_parser_agree_on_records(text in "[a,\"\r\n ]{0,60}", capacity in 1usize..20) {
            // An error is the guard's right; disagreement panics inside.
            let _ = records(text.as_bytes(), capacity);
        }
    }
}
