//! Data to stdout, talk to stderr.

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::MultiProgress;
use serde::Serialize;
use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::LazyLock,
};

/// The bars on the terminal, if there is one: what else goes to stderr goes around them.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Stderr, around the progress bars. What can't be written there has nowhere else to go.
#[derive(Debug, Default)]
pub(crate) struct Stderr {
    line: Vec<u8>,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() { Ok(()) } else { BARS.suspend(|| std::io::stderr().write_all(&line)) }
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        _ = self.flush();
    }
}

/// One line of talk.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    BARS.suspend(|| _ = writeln!(std::io::stderr(), "{line}"));
}

/// One line of data.
pub(crate) fn print(line: impl fmt::Display) -> std::io::Result<()> {
    BARS.suspend(|| writeln!(std::io::stdout(), "{line}"))
}

/// Data as JSON, indented for a person's eye; one document.
pub(crate) fn print_json(data: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(serde_json::to_string_pretty(data)?)?)
}

/// Rows under a header: a drawn table on a terminal, tab-separated otherwise.
pub(crate) fn print_table(header: &[&str], rows: Vec<Vec<String>>) -> std::io::Result<()> {
    if std::io::stdout().is_terminal() { print(drawn(header, rows)) } else { print(separated(header, &rows)) }
}

/// Rows under a header, drawn with plain characters, wherever it goes.
pub(crate) fn drawn(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─'));
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec()).add_rows(rows);
    if !std::io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.trim_fmt()
}

fn separated(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |cell: &str| cell.replace(['\t', '\n', '\r'], " ");
    let mut text = header.join("\t");
    for row in rows {
        text.push('\n');
        text.push_str(&row.iter().map(|cell| clean(cell)).collect::<Vec<_>>().join("\t"));
    }
    text
}

/// A count as people read it: `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "row"), counted(2_000, "row")], ["1 row", "2,000 rows"]);
    }

    #[test]
    fn a_line_end_in_a_cell_does_not_break_the_line() {
        assert_eq!(separated(&["a", "b"], &[vec!["x\ty".into(), "z\r\n".into()]]), "a\tb\nx y\tz  ");
    }
}
