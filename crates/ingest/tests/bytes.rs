//! Whatever bytes a file, its `NAME.toml` or a template holds: no panic, bounded memory, and every line of the file
//! accounted for, or the whole of it refused in one line and nothing of it queued.
//!
//! `tests/corpus` is changed at random places (`testbed::bytes`); `BYTES_RUNS=n` runs more of it.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

use campaign::{Msisdn, Region, template::Template};
use encoding_rs::Encoding;
use ingest::{Checks, Launch, LoadError, Options, Outcome, Preview, check, load};
use jiff::Timestamp;
use ledger::Ledger;
use peak_alloc::PeakAlloc;
use sqlx::{Connection, SqliteConnection};
use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};
use testbed::bytes::for_changed;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What matters in a file.
const IN_FILES: [&[u8]; 27] = [
    b"\"",
    b"\"\"",
    b",",
    b";",
    b"\t",
    b"|",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"{{",
    b"}}",
    b"{{town | upper}}",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xe9",
    "“".as_bytes(),
    "\u{1f44b}".as_bytes(),
    b"4.47701E+11",
    b"07700900001",
    b"destination",
    b"2026-03-29 01:30",
    b"=",
    b"x",
    b"\n7700900123,a\n",
];
const IN_SETTINGS: [&[u8]; 20] = [
    b"\"",
    b"'",
    b"\n",
    b"=",
    b"#",
    b"[",
    b"]",
    b"{",
    b"}",
    b".",
    b"\xef\xbb\xbf",
    "\u{1f44b}".as_bytes(),
    b"\\u0000",
    b"text",
    b"max_cost = ",
    b"priority = ",
    b"1e400",
    b"-1",
    b"2036-03-29T01:30:00Z",
    b"\"\"\"",
];
const IN_TEMPLATES: [&[u8]; 14] = [
    b"{{",
    b"}}",
    b"{",
    b"}",
    b"|",
    b"\"",
    b"'",
    b"\\",
    b"default(",
    b")",
    b" ",
    "İ".as_bytes(),
    "\u{1f44b}".as_bytes(),
    b"first_name",
];

/// What is allocated while a file is read may not grow with it: buffers, and what is remembered of rows.
const CHECK_BYTES_MAX: usize = 8 << 20;

/// One test of this program at a time: allocations are counted for all threads together. The plans of all countries' numbers
/// are read at the first use, once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = Msisdn::parse("07700900001", Region::GB);
    alone
}

/// What `call` gives, and how many bytes more than before were allocated at its peak.
fn measured<T>(call: impl FnOnce() -> T) -> (T, usize) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = call();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

fn now() -> Timestamp {
    "2026-03-02T09:00:00Z".parse().unwrap()
}

fn checks() -> Checks {
    Checks { samples_max: usize::MAX, ..Checks::at(now()) }
}

/// The row numbers of a file's records, the header's first, counted by another way than the program's: the text whole in
/// memory, cell by cell.
fn records(bytes: &[u8], delimiter: char) -> Vec<u32> {
    let encoding = Encoding::for_bom(bytes).map_or(encoding_rs::UTF_8, |(encoding, _)| encoding);
    let (text, wrong) = encoding.decode_with_bom_removal(bytes);
    assert!(!wrong, "a file was read that is not {}", encoding.name());
    let (mut rest, mut row, mut found) = (&*text, 1, Vec::new());
    while !rest.is_empty() {
        let blank = ["\r\n", "\n", "\r"].iter().find_map(|end| rest.strip_prefix(end));
        if let Some(after) = blank {
            rest = after;
        } else {
            found.push(row);
            rest = behind_record(rest, delimiter);
        }
        row += 1;
    }
    found
}

/// What follows a record and its line end.
fn behind_record(mut rest: &str, delimiter: char) -> &str {
    loop {
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (_, after) = quoted.split_once('"').expect("a record was read whose quotes are open");
                match after.strip_prefix('"') {
                    Some(more) => quoted = more,
                    None => break rest = after.trim_start_matches(' '),
                }
            }
        }
        let end = rest.find([delimiter, '\r', '\n']).unwrap_or(rest.len());
        rest = &rest[end..];
        match rest.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None => break ["\r\n", "\n", "\r"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest),
        }
    }
}

fn delimiter_of(preview: &Preview) -> char {
    match preview.delimiter {
        "comma" => ',',
        "semicolon" => ';',
        "tab" => '\t',
        "pipe" => '|',
        other => panic!("{other} separates nothing"),
    }
}

/// Reads a file; what it would do, or `None` when it is refused.
fn read(path: &Path, csv: &[u8], flags: &Options) -> Option<Preview> {
    fs::write(path, csv).unwrap();
    let checks = checks();
    let (result, peak) = measured(|| check(path, flags, &checks));
    // What is shown of each reject is kept here for the test, and in no real check.
    let shown = result.as_ref().map_or(0, |preview| preview.rejects.len() + preview.samples.len());
    // What the library keeps of each bracket of a NAME.toml, which is 64 KiB at the most.
    let settings = fs::metadata(path.with_extension("toml")).map_or(0, |file| file.len().min(64 << 10));
    let most = CHECK_BYTES_MAX + 4 * csv.len() + 400 * shown + 512 * usize::try_from(settings).unwrap();
    assert!(peak < most, "{peak} bytes were allocated for {}", csv.len());
    let preview = match result {
        Ok(preview) => preview,
        Err(refusal) => {
            let line = refusal.to_string();
            assert!(!line.is_empty() && !line.contains(['\n', '\r']), "a refusal is one line: {line:?}");
            assert!(line.len() < 4_000, "a refusal is short: {} bytes", line.len());
            return None;
        }
    };
    assert_eq!(preview.rows, preview.sendable + preview.invalid + preview.duplicates);
    assert_eq!(preview.invalid, preview.invalid_by_code.values().sum::<u64>());
    assert_eq!(preview.gsm7 + preview.ucs2, preview.sendable);
    assert_eq!(preview.campaigns.iter().map(|campaign| campaign.rows).sum::<u64>(), preview.rows);
    assert_eq!(preview.campaigns.iter().map(|campaign| campaign.sendable).sum::<u64>(), preview.sendable);
    assert_eq!(preview.bytes, csv.len() as u64);
    assert_eq!(preview.rejects.len() as u64, preview.invalid + preview.duplicates);
    // A second reading says the same, or the load would be refused as changed.
    assert!(check(path, flags, &checks).unwrap() == preview, "read twice, it says two things");
    Some(preview)
}

fn sender_alone() -> Options {
    Options { sender: Some("ACME".into()), ..Options::default() }
}

#[test]
fn every_line_of_any_file_is_accounted_for_or_the_file_is_refused_in_one_line() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("march.csv");
    let with_text = Options { text: Some("Hello {{first_name}}".into()), ..sender_alone() };
    let (runs, refused) = (Cell::new(0_u32), Cell::new(0_u32));
    for_changed("csv", &IN_FILES, 1_000, |csv| {
        runs.set(runs.get() + 1);
        let flags = if csv.len().is_multiple_of(3) { &with_text } else { &sender_alone() };
        let Some(preview) = read(&path, csv, flags) else { return refused.set(refused.get() + 1) };
        let records = records(csv, delimiter_of(&preview));
        assert_eq!(preview.rows, records.len() as u64 - 1, "rows and the lines that another count finds");
        let rejects: Vec<u32> = preview.rejects.iter().map(|reject| reject.row_number).collect();
        assert!(rejects.is_sorted_by(|a, b| a < b), "{rejects:?}");
        assert!(rejects.iter().all(|row| records[1..].binary_search(row).is_ok()), "{rejects:?} in {records:?}");
    });
    assert!(refused.get() > 0 && refused.get() < runs.get(), "{} of {} refused", refused.get(), runs.get());
}

#[test]
fn any_settings_beside_a_file_hold_or_are_refused_in_one_line() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (path, toml) = (dir.path().join("march.csv"), dir.path().join("march.toml"));
    let csv = b"destination,first_name\n07700900001,Ada\n07700900002,\n";
    let (runs, refused) = (Cell::new(0_u32), Cell::new(0_u32));
    for_changed("toml", &IN_SETTINGS, 2_000, |settings| {
        runs.set(runs.get() + 1);
        fs::write(&toml, settings).unwrap();
        let preview = read(&path, csv, &Options { text: Some("hi".into()), ..sender_alone() });
        assert!(preview.as_ref().is_none_or(|preview| preview.rows == 2));
        refused.set(refused.get() + u32::from(preview.is_none()));
    });
    assert!(refused.get() > 0 && refused.get() < runs.get(), "{} of {} refused", refused.get(), runs.get());
}

#[test]
fn any_text_is_a_template_or_is_refused_at_one_of_its_characters() {
    let _alone = alone();
    let refused = Cell::new(0_u32);
    for_changed("templates", &IN_TEMPLATES, 3_000, |bytes| {
        let text = &*String::from_utf8_lossy(bytes);
        let (template, peak) = measured(|| Template::parse(text));
        assert!(peak < (64 << 10) + 64 * text.len(), "{peak} bytes were allocated for {}", text.len());
        let template = match template {
            Ok(template) => template,
            Err(error) => {
                refused.set(refused.get() + 1);
                let line = error.to_string();
                let digits = line.split("at character ").nth(1).unwrap_or_default();
                let at: usize = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
                assert!((1..=text.chars().count()).contains(&at), "{line}");
                return;
            }
        };
        // A value is inserted as it is, and never read again.
        let filled = template.render(|_| Some("}}{{x"));
        assert!(template.is_plain() == (template.columns().count() == 0));
        if template.is_plain() {
            assert_eq!(filled.unwrap(), text, "a text without columns is sent as it is written");
            assert!(!text.contains("{{"));
        }
    });
    assert!(refused.get() > 0, "the corpus shows nothing");
}

#[test]
fn of_a_long_file_only_its_numbers_are_remembered() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("march.csv");
    let peak_of = |rows: u32| {
        let mut csv = String::from("destination,text,reference\n");
        for n in 0..rows {
            // Every text is another, so that remembering all of them would show.
            writeln!(csv, "0740{:07},\"Your code is {n}, which nobody else has\",{n:0200}", n % 9_999_999).unwrap();
        }
        fs::write(&path, &csv).unwrap();
        let size = csv.len();
        drop(csv);
        let (preview, peak) = measured(|| check(&path, &sender_alone(), &Checks::at(now())).unwrap());
        assert_eq!(preview.rows, u64::from(rows));
        println!("{rows} rows, {size} bytes: at most {peak} bytes allocated");
        peak
    };
    let (short, long) = (peak_of(12_000), peak_of(48_000));
    // A line has 256 bytes; who is remembered, so that nobody is texted twice, takes a small part of that.
    assert!(long < short + 36_000 * 64, "{short} bytes for 12,000 rows and {long} for 48,000");
    assert!(long < CHECK_BYTES_MAX, "{long} bytes");
}

/// A ledger into which files are loaded, one after the other.
struct House {
    ledger: Ledger,
    launch: Launch,
    sql: RefCell<SqliteConnection>,
    _owner: ledger::OwnerGuard,
}

impl House {
    async fn new(dir: &Path) -> Self {
        let url = format!("sqlite://{}", dir.join("ledger.db").display());
        let ledger = Ledger::open(&url).await.unwrap();
        ledger.migrate().await.unwrap();
        let owner = ledger.register_owner("test", "here", 1, now()).await.unwrap();
        let launch = Launch { again: true, launched_by: "ann".into(), owner: owner.id(), rejects_dir: None };
        Self { ledger, launch, sql: RefCell::new(SqliteConnection::connect(&url).await.unwrap()), _owner: owner }
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "one task")]
    async fn rows(&self) -> Vec<(u32, String)> {
        let query = "SELECT m.row_number, m.state FROM all_rows m JOIN chunks k ON k.id = m.id / 512
                     WHERE k.import_id = (SELECT max(id) FROM imports) ORDER BY m.row_number";
        sqlx::query_as(query).fetch_all(&mut *self.sql.borrow_mut()).await.unwrap()
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "one task")]
    async fn counts(&self) -> (i64, i64) {
        let query = "SELECT (SELECT count(*) FROM all_rows), (SELECT count(*) FROM imports)";
        sqlx::query_as(query).fetch_one(&mut *self.sql.borrow_mut()).await.unwrap()
    }
}

#[test]
fn every_line_that_is_read_is_one_row_of_the_ledger_and_a_file_that_changes_queues_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("march.csv");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let house = runtime.block_on(House::new(dir.path()));
    let (loaded, changed) = (Cell::new(0_u32), Cell::new(0_u32));
    let before: RefCell<Option<Preview>> = RefCell::new(None);
    for_changed("csv", &IN_FILES, 300, |csv| {
        // The file that was checked before has become this one.
        if let Some(other) = before.take() {
            fs::write(&path, csv).unwrap();
            let counted = runtime.block_on(house.counts());
            let result = runtime.block_on(load(
                &house.ledger,
                &path,
                &other,
                &house.launch,
                now,
                |_| {},
                &CancellationToken::new(),
            ));
            match result {
                Err(LoadError::Changed { .. } | LoadError::Refused(_)) => {
                    assert_eq!(runtime.block_on(house.counts()), counted, "a file that was refused left something");
                    changed.set(changed.get() + 1);
                }
                Ok(Outcome::Loaded(_)) => assert_eq!(other.bytes, csv.len() as u64, "it was not that file"),
                other => panic!("{other:?}"),
            }
        }
        let Some(preview) = read(&path, csv, &sender_alone()) else { return };
        let result = runtime.block_on(load(
            &house.ledger,
            &path,
            &preview,
            &house.launch,
            now,
            |_| {},
            &CancellationToken::new(),
        ));
        let Outcome::Loaded(totals) = result.unwrap() else { panic!("--again loads") };
        let rows = runtime.block_on(house.rows());
        let numbers: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, records(csv, delimiter_of(&preview))[1..], "lines of the file and rows of the ledger");
        let of = |states: &[&str]| rows.iter().filter(|(_, state)| states.contains(&state.as_str())).count() as u64;
        assert_eq!(of(&["queued", "scheduled"]), preview.sendable);
        assert_eq!(of(&["invalid"]), preview.invalid);
        assert_eq!(of(&["duplicate"]), preview.duplicates);
        assert_eq!(
            (totals.sendable, totals.invalid, totals.duplicate),
            (preview.sendable, preview.invalid, preview.duplicates)
        );
        loaded.set(loaded.get() + 1);
        before.replace(Some(preview));
    });
    assert!(loaded.get() > 10 && changed.get() > 10, "{} loaded, {} changed", loaded.get(), changed.get());
}
