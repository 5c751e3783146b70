//! Why a whole file is refused. Nothing of it is queued then.

use campaign::SenderId;
use std::io;

/// A file that is refused as a whole: one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It can't be opened or read.
    #[error("{file} can't be read: {source}")]
    Unreadable {
        /// Its name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A link, a folder, a pipe, a socket, a device.
    #[error("{file} is {what}; give the CSV file itself")]
    NotAFile {
        /// Its name.
        file: String,
        /// What it is.
        what: &'static str,
    },
    /// Not a byte, or blank lines only.
    #[error("{file} is empty; it needs a header line and at least one row")]
    Empty {
        /// Its name.
        file: String,
    },
    /// A header and nothing below it.
    #[error("{file} has a header and no row below it")]
    HeaderOnly {
        /// Its name.
        file: String,
    },
    /// A byte sequence that is no UTF-8, and nothing said what else it is.
    #[error(
        "line {line} is not UTF-8; as Windows-1252 it would read {shown:?}: if that is right, say `--encoding windows-1252`, else save the file as UTF-8"
    )]
    NotUtf8 {
        /// Physical line, from 1.
        line: u64,
        /// The line as Windows-1252, cut to a readable length.
        shown: String,
    },
    /// A byte sequence that the encoding does not have.
    #[error("line {line} is not {encoding}; save the file as UTF-8")]
    Undecodable {
        /// Physical line, from 1.
        line: u64,
        /// The encoding that it was read by.
        encoding: &'static str,
    },
    /// A NUL character.
    #[error("line {line} has a NUL character in it; export the file again as UTF-8 CSV")]
    Nul {
        /// Physical line, from 1.
        line: u64,
    },
    /// A record that is longer than a text campaign's could be.
    #[error("the record that begins on line {line} is over 64 KiB; is a quotation mark on that line never closed?")]
    RecordTooLong {
        /// Physical line on which the record begins, from 1.
        line: u64,
    },
    /// The file ends inside quotes.
    #[error("a quotation mark in the record that begins on line {line} is never closed; close it")]
    UnterminatedQuote {
        /// Physical line on which the record begins, from 1.
        line: u64,
    },
    /// Text right behind a closing quotation mark: most likely a mark above it was never closed and swallowed rows.
    #[error(
        "a quotation mark in the record that begins on line {line} is closed in the middle of a cell (on line {closed}); double it inside a cell, or close the one that is open"
    )]
    StrayQuote {
        /// Physical line on which the record begins, from 1.
        line: u64,
        /// Physical line of the closing mark.
        closed: u64,
    },
    /// A column without a name.
    #[error("column {position} has no name in the header (row 1); name it or remove it")]
    UnnamedColumn {
        /// From 1.
        position: usize,
    },
    /// Two columns with one name, or with names of one meaning.
    #[error("the columns {first:?} and {second:?} of the header (row 1) mean the same; keep one of them")]
    SameColumns {
        /// The one further left, as written.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing says where to send.
    #[error("no column of the header (row 1) is the destination; name one `destination` (found: {found})")]
    NoDestination {
        /// The header's names.
        found: String,
    },
    /// Neither a column nor a setting gives it.
    #[error("nothing gives the {what}: add a column `{what}`, or say `--{what}`, or put `{what}` into {toml}")]
    Unset {
        /// `sender` or `text`.
        what: &'static str,
        /// Name of the settings file that would be read.
        toml: String,
    },
    /// The text that holds for the whole file names a column that the file has not.
    #[error("the text needs {{{{{column}}}}}, and the file has no such column (found: {found})")]
    UnknownColumn {
        /// The column, as the text has it.
        column: String,
        /// The header's names.
        found: String,
    },
    /// A flag or a key of `NAME.toml` has a value that makes no sense.
    #[error("the setting `{key}` is wrong: {problem}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// `NAME.toml` can't be understood.
    #[error("{file} is wrong: {problem}")]
    SettingsFile {
        /// Its name.
        file: String,
        /// Line, key and what is wrong.
        problem: String,
    },
    /// A sender that the gateway has not approved.
    #[error(
        "the sender {sender} (first used in row {row}) is not approved by the gateway; `crier senders list` shows which are, `crier senders add {sender}` asks for it"
    )]
    UnapprovedSender {
        /// The sender.
        sender: SenderId,
        /// The first row that uses it.
        row: u32,
    },
    /// More campaigns than one file may hold.
    #[error("row {row} names campaign number {}; a file may hold {max}: is the column `campaign` meant for something else?", max + 1)]
    TooManyCampaigns {
        /// The row that named one too many.
        row: u32,
        /// How many it may be.
        max: usize,
    },
    /// More rows than row numbers.
    #[error("the file has over {max} rows; split it")]
    TooManyRows {
        /// How many it may be.
        max: u32,
    },
}

impl Refusal {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::NotAFile { .. } => "not_a_file",
            Self::Empty { .. } => "empty",
            Self::HeaderOnly { .. } => "header_only",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::Undecodable { .. } => "undecodable",
            Self::Nul { .. } => "nul",
            Self::RecordTooLong { .. } => "record_too_long",
            Self::UnterminatedQuote { .. } => "unterminated_quote",
            Self::StrayQuote { .. } => "stray_quote",
            Self::UnnamedColumn { .. } => "unnamed_column",
            Self::SameColumns { .. } => "same_columns",
            Self::NoDestination { .. } => "no_destination",
            Self::Unset { .. } => "unset",
            Self::UnknownColumn { .. } => "unknown_column",
            Self::Setting { .. } => "setting",
            Self::SettingsFile { .. } => "settings_file",
            Self::UnapprovedSender { .. } => "unapproved_sender",
            Self::TooManyCampaigns { .. } => "too_many_campaigns",
            Self::TooManyRows { .. } => "too_many_rows",
        }
    }
}
