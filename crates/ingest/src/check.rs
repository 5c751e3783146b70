//! The first pass: read everything, queue nothing.

use crate::{
    Options,
    ahead::read_ahead,
    columns::Columns,
    dialect::delimiter_name,
    options::Defaults,
    preview::{Counter, Preview},
    records::Records,
    refusal::Refusal,
    row::{Assessor, Row},
    seen::{Numbers, Seen},
    source::file_name,
};
use campaign::SenderId;
use jiff::Timestamp;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// What a file is checked against.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The time now.
    pub now: Timestamp,
    /// The approved senders; `None` when they are not known.
    pub approved: Option<HashSet<SenderId>>,
    /// A sender that is not approved is left to the caller, who shows it, instead of refusing the file.
    pub shows_unapproved: bool,
    /// The name of the file for people, where it is not the path's own.
    pub file_name: Option<String>,
    /// What holds where neither the flags nor `NAME.toml` say otherwise.
    pub fallback: Options,
    /// How many rejects and texts to show.
    pub samples_max: usize,
}

impl Checks {
    /// Against the clock alone.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            approved: None,
            shows_unapproved: false,
            file_name: None,
            fallback: Options::default(),
            samples_max: 10,
        }
    }
}

/// Reads a whole file and says what it would do. `NAME.toml` beside it holds where `flags` say nothing.
///
/// Blocks; memory is bounded whatever the file's size.
///
/// # Errors
/// A [`Refusal`] spoils the whole file; a row that can't be sent is counted.
pub fn check(path: &Path, flags: &Options, checks: &Checks) -> Result<Preview, Refusal> {
    check_each(path, flags, checks, drop)
}

/// The same; `each` gets every row in the file's order.
pub(crate) fn check_each(
    path: &Path,
    flags: &Options,
    checks: &Checks,
    mut each: impl FnMut(Row),
) -> Result<Preview, Refusal> {
    let file_name = checks.file_name.clone().unwrap_or_else(|| file_name(path));
    let beside = Options::beside(path)?.unwrap_or_default();
    let options = flags.clone().or(beside).or(checks.fallback.clone());
    let approved = checks.approved.clone().filter(|_| !checks.shows_unapproved);
    let numbers = Numbers::Unknown(Seen::new());
    let Opened { records, mut assessor } = Opened::new(path, &file_name, &options, approved, numbers, checks.now)?;
    let mut counter = Counter::new(
        Preview {
            sha256: String::new(),
            bytes: 0,
            encoding: records.encoding(),
            delimiter: delimiter_name(records.delimiter()),
            columns: records.header().iter().map(|name| name.trim().to_owned()).collect(),
            rows: 0,
            sendable: 0,
            invalid: 0,
            invalid_by_code: Default::default(),
            duplicates: 0,
            repaired: 0,
            texts: 0,
            gsm7: 0,
            ucs2: 0,
            segments: 0,
            ucs2_segments: 0,
            forcing_ucs2: Default::default(),
            ucs2_extra_segments: 0,
            forcing_ucs2_extra: Default::default(),
            senders: Default::default(),
            campaigns: Vec::new(),
            scheduled: None,
            rejects: Vec::new(),
            samples: Vec::new(),
            notes: Vec::new(),
            repeats: Default::default(),
            options,
            file_name,
        },
        checks.samples_max,
        checks.now,
    );
    let records = read_ahead(records, |number, record| {
        let row = assessor.assess(number, record)?;
        counter.count(&row);
        each(row);
        Ok::<_, Refusal>(())
    })?;
    if counter.preview.rows == 0 {
        return Err(Refusal::HeaderOnly { file: counter.preview.file_name });
    }
    (counter.preview.sha256, counter.preview.bytes) = records.digest();
    let mut preview = counter.finish(assessor.campaigns(), assessor.distinct_texts(), checks.approved.is_some());
    preview.repeats = assessor.into_repeats();
    Ok(preview)
}

/// A file, ready to have its rows judged.
pub(crate) struct Opened {
    pub(crate) records: Records,
    pub(crate) assessor: Assessor,
}

impl Opened {
    pub(crate) fn new(
        path: &Path,
        file_name: &str,
        options: &Options,
        approved: Option<HashSet<SenderId>>,
        numbers: Numbers,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let records = Records::open(path, options.encoding()?)?;
        let columns = Columns::read(records.header())?;
        let defaults = Defaults::read(options, &columns, records.header(), &stem(file_name))?;
        Ok(Self { records, assessor: Assessor::new(columns, defaults, approved, numbers, now) })
    }
}

/// `NAME` of `NAME.csv`.
pub(crate) fn stem(file_name: &str) -> String {
    PathBuf::from(file_name)
        .file_stem()
        .map_or_else(|| file_name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}
