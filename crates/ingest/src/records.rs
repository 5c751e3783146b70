//! A file as records with the row numbers of a spreadsheet.

use crate::{
    decode::{self, Charset, Decoded, Fault},
    dialect,
    guard::{Guard, Violation},
    refusal::Refusal,
    source::{Hashed, file_name, open_regular},
};
use csv::StringRecord;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

const SAMPLE: u64 = 64 * 1024;
const SHOWN_MAX: usize = 120;

type Guarded = Guard<Decoded<Hashed<File>>>;

/// The records of a file, from its header on.
pub(crate) struct Records {
    path: PathBuf,
    csv: csv::Reader<Guarded>,
    charset: Charset,
    delimiter: u8,
    header: StringRecord,
    record: StringRecord,
}

impl Records {
    /// Opens a file, finds out how it is written, and reads its header.
    pub(crate) fn open(path: &Path, encoding: Option<&'static encoding_rs::Encoding>) -> Result<Self, Refusal> {
        let (mut file, metadata) = open_regular(path)?;
        let unreadable = |source| Refusal::Unreadable { file: file_name(path), source };
        if metadata.len() == 0 {
            return Err(Refusal::Empty { file: file_name(path) });
        }
        let mut first = Vec::with_capacity(4);
        (&mut file).take(4).read_to_end(&mut first).map_err(unreadable)?;
        let charset = Charset::detect(&first, encoding);

        file.rewind().map_err(unreadable)?;
        let mut sample = Vec::new();
        // What can't be decoded is told when it is read in earnest; the vote takes what comes before.
        let _ = Decoded::new((&mut file).take(SAMPLE), charset).read_to_end(&mut sample);
        let delimiter = dialect::vote(&String::from_utf8_lossy(&sample), metadata.len() <= SAMPLE);

        file.rewind().map_err(unreadable)?;
        let csv = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .buffer_capacity(64 * 1024)
            .from_reader(Guard::new(Decoded::new(Hashed::new(file), charset), delimiter));
        let mut records = Self {
            path: path.to_owned(),
            csv,
            charset,
            delimiter,
            header: StringRecord::new(),
            record: StringRecord::new(),
        };
        match records.next()? {
            Some((_, header)) => records.header = header.clone(),
            None => return Err(Refusal::Empty { file: file_name(path) }),
        }
        Ok(records)
    }

    /// The header as written.
    pub(crate) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// The encoding, for people.
    pub(crate) fn encoding(&self) -> String {
        self.charset.name()
    }

    pub(crate) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The next record and its row number.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, &StringRecord)>, Refusal> {
        match read(&mut self.csv, &mut self.record) {
            Ok(row) => Ok(row.map(|row| (row, &self.record))),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// Reads the next record into `record` and answers its row number.
    pub(crate) fn next_into(&mut self, record: &mut StringRecord) -> Result<Option<u32>, Refusal> {
        read(&mut self.csv, record).map_err(|error| self.refusal(error))
    }

    /// SHA-256 in hex and length in bytes of what was read; of the whole file once [`Self::next`] gave `None`.
    pub(crate) fn digest(&self) -> (String, u64) {
        self.csv.get_ref().get_ref().get_ref().digest()
    }

    fn refusal(&self, error: csv::Error) -> Refusal {
        let error = match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        };
        let inner = error.get_ref();
        if let Some(violation) = inner.and_then(|inner| inner.downcast_ref::<Violation>()) {
            return match *violation {
                Violation::Nul { line } => Refusal::Nul { line },
                Violation::TooLong { line } => Refusal::RecordTooLong { line },
                Violation::Unterminated { line } => Refusal::UnterminatedQuote { line },
                Violation::Stray { line, closed } => Refusal::StrayQuote { line, closed },
                Violation::TooManyRows => Refusal::TooManyRows { max: u32::MAX },
            };
        }
        match inner.and_then(|inner| inner.downcast_ref::<Fault>()) {
            Some(Fault::NotUtf8 { offset }) => match line_at(&self.path, *offset) {
                Ok((line, bytes)) => Refusal::NotUtf8 { line, shown: decode::as_windows_1252(&bytes, SHOWN_MAX) },
                Err(source) => Refusal::Unreadable { file: file_name(&self.path), source },
            },
            Some(Fault::Malformed { encoding }) => Refusal::Undecodable { line: self.csv.get_ref().line(), encoding },
            None => Refusal::Unreadable { file: file_name(&self.path), source: error },
        }
    }
}

fn read(csv: &mut csv::Reader<Guarded>, record: &mut StringRecord) -> Result<Option<u32>, csv::Error> {
    if !csv.read_record(record)? {
        return Ok(None);
    }
    Ok(Some(csv.get_mut().take_row().expect("the guard sees each record before the parser does")))
}

/// The number and the bytes of the line that holds the byte at `offset`.
fn line_at(path: &Path, offset: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut reader = io::BufReader::new(File::open(path)?);
    let (mut line, mut at) = (1, 0);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        // A line longer than a record may be is counted in pieces; it would have been refused for its length.
        let n = io::BufRead::read_until(&mut (&mut reader).take(1 << 20), b'\n', &mut bytes)? as u64;
        if n == 0 || at + n > offset {
            let around = usize::try_from(offset - at).unwrap_or(0).saturating_sub(SHOWN_MAX / 2);
            let shown = bytes[around.min(bytes.len())..].trim_ascii_end().to_vec();
            return Ok((line, shown));
        }
        at += n;
        line += 1;
    }
}
