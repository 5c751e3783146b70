//! `NAME.rejected.csv`: what was not sent, and why.

use csv::StringRecord;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

/// Writes rejects under a hidden name and shows them whole, or not at all.
///
/// Columns: the file's own, then `row_number`, `code`, `reason`; the extra cells of a ragged row stand behind these.
pub(crate) struct Rejects {
    path: PathBuf,
    hidden: PathBuf,
    header: StringRecord,
    destination: Option<usize>,
    out: Option<csv::Writer<BufWriter<File>>>,
    cells: StringRecord,
}

impl Rejects {
    /// Nothing is written before the first reject.
    pub(crate) fn new(path: PathBuf, header: StringRecord, destination: Option<usize>) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = path.with_file_name(format!(".{name}.tmp"));
        Self { path, hidden, header, destination, out: None, cells: StringRecord::new() }
    }

    pub(crate) fn write(&mut self, row: u32, record: &StringRecord, code: &str, reason: &str) -> io::Result<()> {
        let mut out = match self.out.take() {
            Some(out) => out,
            None => self.create()?,
        };
        let width = self.header.len();
        self.cells.clear();
        for at in 0..width {
            let cell = record.get(at).unwrap_or_default();
            self.push(cell, self.destination == Some(at));
        }
        self.cells.push_field(&row.to_string());
        self.cells.push_field(code);
        self.push(reason, false);
        for cell in record.iter().skip(width) {
            self.push(cell, false);
        }
        out.write_record(&self.cells)?;
        self.out = Some(out);
        Ok(())
    }

    fn create(&self) -> io::Result<csv::Writer<BufWriter<File>>> {
        // Left by a crash, or put there by somebody: never written through.
        match fs::remove_file(&self.hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&self.hidden)?;
        let mut out = csv::WriterBuilder::new().flexible(true).from_writer(BufWriter::new(file));
        let header = self.header.iter().map(|name| spreadsheet_safe(name.trim()));
        out.write_record(header.chain(["row_number", "code", "reason"].map(str::to_owned)))?;
        Ok(out)
    }

    fn push(&mut self, cell: &str, is_number: bool) {
        if is_number && is_plain_number(cell) {
            self.cells.push_field(cell);
        } else {
            self.cells.push_field(&spreadsheet_safe(cell));
        }
    }

    /// Shows the file; `None` if there was no reject. An older one of the same name goes then.
    pub(crate) fn finish(&mut self) -> io::Result<Option<PathBuf>> {
        let Some(out) = self.out.take() else {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(None),
            };
        };
        let file = out.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&self.hidden, &self.path)?;
        Ok(Some(self.path.clone()))
    }
}

impl Drop for Rejects {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

/// Where the rejects of `file_name` go in `dir`.
pub(crate) fn rejects_path(dir: &Path, file_name: &str) -> PathBuf {
    dir.join(format!("{}.rejected.csv", crate::check::stem(file_name)))
}

/// A spreadsheet takes a cell that begins like this for a formula.
fn spreadsheet_safe(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}

/// `+44 7700 900123`: begins with a formula character and is none.
fn is_plain_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('+').unwrap_or(cell);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_quoted_and_numbers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rejected.csv");
        let mut rejects = Rejects::new(path.clone(), StringRecord::from(vec!["phone", "name"]), Some(0));
        rejects
            .write(2, &StringRecord::from(vec!["+447700900001", "=1+1"]), "duplicate", "same number as row 1")
            .unwrap();
        rejects.write(3, &StringRecord::from(vec!["=HYPERLINK(1)", "@x", "-extra"]), "cells_extra", "3 cells").unwrap();
        assert!(!path.exists(), "shown before it was whole");
        rejects.finish().unwrap();
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "phone,name,row_number,code,reason\n+447700900001,'=1+1,2,duplicate,same number as row 1\n\
             '=HYPERLINK(1),'@x,3,cells_extra,3 cells,'-extra\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
