//! Which character separates the cells.

use crate::columns::{Meaning, normalised};

/// Separators that are looked for; the first wins a tie.
pub(crate) const DELIMITERS: [u8; 4] = *b",;\t|";

/// As people write it.
pub(crate) fn delimiter_name(delimiter: u8) -> &'static str {
    match delimiter {
        b';' => "semicolon",
        b'\t' => "tab",
        b'|' => "pipe",
        _ => "comma",
    }
}

/// Votes by the header and a few rows: the separator under which the header has most names that mean something, then the
/// one under which most rows have as many cells as the header, then the one that gives more cells.
pub(crate) fn vote(sample: &str, sample_is_whole: bool) -> u8 {
    let score = |delimiter: u8| {
        let mut rows = split(sample, char::from(delimiter), 50);
        // The sample's last record may be cut.
        if !sample_is_whole && rows.len() > 1 {
            rows.pop();
        }
        let Some((header, rows)) = rows.split_first() else { return (0, 0, 0) };
        let known = header.iter().filter(|name| Meaning::of(&normalised(name)).is_some()).count();
        let alike = if header.len() > 1 { rows.iter().filter(|row| row.len() == header.len()).count() } else { 0 };
        (known, alike, header.len())
    };
    // `max_by_key` gives the last of equals, so the order is turned.
    DELIMITERS.into_iter().rev().max_by_key(|&delimiter| score(delimiter)).unwrap_or(b',')
}

/// The first `max` records, without blank lines; quotes are respected where a cell begins with one.
fn split(sample: &str, delimiter: char, max: usize) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut chars = sample.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            _ if quoted => cell.push(c),
            '"' if cell.is_empty() => quoted = true,
            '\r' | '\n' => {
                if !(row.is_empty() && cell.is_empty()) {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                    if rows.len() == max {
                        return rows;
                    }
                }
            }
            _ if c == delimiter => row.push(std::mem::take(&mut cell)),
            _ => cell.push(c),
        }
    }
    if !(row.is_empty() && cell.is_empty()) {
        row.push(cell);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_separator_is_found() {
        for delimiter in [",", ";", "\t", "|"] {
            let sample = format!("phone{delimiter}message\n07700900001{delimiter}hi\n");
            assert_eq!(vote(&sample, true), delimiter.as_bytes()[0], "{delimiter:?}");
        }
    }

    #[test]
    fn separators_inside_texts_do_not_vote() {
        assert_eq!(vote("phone;message\n07700900001;a, b, c, d\n07700900002;e, f\n", true), b';');
        assert_eq!(vote("phone,message\n07700900001,\"a; b\nc; d\"\n", true), b',');
        assert_eq!(vote("phone\n07700900001\n", true), b',');
    }
}
