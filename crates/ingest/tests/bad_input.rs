//! The table of what a file may have wrong with it, row by row, each by its file.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

use ingest::{Checks, Options, Preview, Refusal, check};
use std::{collections::HashSet, fs, path::PathBuf};

struct Dropped {
    dir: tempfile::TempDir,
}

impl Dropped {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn checks() -> Checks {
    Checks::at("2026-03-02T09:00:00Z".parse().unwrap())
}

fn flags() -> Options {
    Options { sender: Some("ACME".into()), text: Some("hi".into()), ..Options::default() }
}

fn checked(bytes: impl AsRef<[u8]>) -> Result<Preview, Refusal> {
    checked_with(bytes, &flags())
}

fn checked_with(bytes: impl AsRef<[u8]>, flags: &Options) -> Result<Preview, Refusal> {
    check(&Dropped::new().file("march.csv", bytes), flags, &checks())
}

/// The code and the line of a refusal.
fn refused(bytes: impl AsRef<[u8]>) -> (&'static str, String) {
    let refusal = checked(bytes).unwrap_err();
    (refusal.code(), refusal.to_string())
}

/// The only reject of a file: row number, code, reason.
fn rejected(bytes: impl AsRef<[u8]>) -> (u32, &'static str, String) {
    let preview = checked(bytes).unwrap();
    let [reject] = &preview.rejects[..] else { panic!("{} rejects", preview.rejects.len()) };
    (reject.row_number, reject.code, reject.reason.clone())
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(to_bytes).collect()
}

#[test]
fn unicode_encodings_with_a_byte_order_mark_are_read_and_said() {
    let text = "phone,text\r\n07700900001,Zoë\r\n";
    let encoding = |bytes: Vec<u8>| {
        let preview = checked(bytes).unwrap();
        assert_eq!(preview.samples[0].text, "Zoë");
        preview.encoding
    };
    assert_eq!(encoding(text.into()), "UTF-8");
    assert_eq!(encoding([b"\xef\xbb\xbf", text.as_bytes()].concat()), "UTF-8 with BOM");
    assert_eq!(encoding(utf16(text, u16::to_le_bytes)), "UTF-16LE with BOM");
    assert_eq!(encoding(utf16(text, u16::to_be_bytes)), "UTF-16BE with BOM");
}

#[test]
fn separators_are_found_and_said() {
    for (separator, name) in [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "pipe")] {
        let preview = checked(format!("phone{separator}text\n07700900001{separator}\"a,b;c|d\"\n")).unwrap();
        assert_eq!((preview.delimiter, preview.samples[0].text.as_str()), (name, "a,b;c|d"));
        assert!(preview.notes[0].contains(name), "{:?}", preview.notes);
    }
}

#[test]
fn line_breaks_inside_quotes_stay_in_the_text_and_add_no_row() {
    let preview = checked("phone,text\r\n07700900001,\"one\r\ntwo\rthree\"\r\n\r\n07700,x\r\n").unwrap();
    assert_eq!(preview.samples[0].text, "one\r\ntwo\rthree");
    assert_eq!((preview.rows, preview.rejects[0].row_number), (2, 4));
}

#[test]
fn windows_1252_is_shown_and_read_only_when_asked_for() {
    let bytes = b"phone,text\n07700900001,fine\n07700900002,caf\xe9 \x80 5\n";
    let (code, line) = refused(bytes);
    assert_eq!(code, "not_utf8");
    assert!(line.contains("line 3") && line.contains("café € 5") && line.contains("--encoding windows-1252"), "{line}");
    let asked = Options { encoding: Some("windows-1252".into()), ..flags() };
    let preview = checked_with(bytes, &asked).unwrap();
    assert_eq!((preview.encoding.as_str(), preview.samples[1].text.as_str()), ("Windows-1252", "café € 5"));
    let unknown = Options { encoding: Some("klingon".into()), ..flags() };
    assert_eq!(checked_with(bytes, &unknown).unwrap_err().code(), "setting");
}

#[test]
fn half_a_utf16_character_is_refused_with_its_line() {
    let mut bytes = utf16("phone,text\n07700900001,hi\n", u16::to_le_bytes);
    bytes.extend(0xd800_u16.to_le_bytes());
    bytes.extend(u16::from(b'x').to_le_bytes());
    let (code, line) = refused(bytes);
    assert_eq!(code, "undecodable");
    assert!(line.contains("line 3"), "{line}");
}

#[test]
fn digits_that_a_spreadsheet_destroyed_are_rejected() {
    let (row, code, reason) = rejected("phone\n07700900001\n4.47701E+11\n");
    assert_eq!((row, code), (3, "number_scientific"));
    assert_eq!(reason, "the spreadsheet destroyed the digits; format the column as text");
}

#[test]
fn a_lost_zero_is_put_back_and_counted() {
    let preview = checked("phone\n7700900123\n07700900124\n").unwrap();
    assert_eq!((preview.sendable, preview.repaired), (2, 1));
    assert!(preview.notes.iter().any(|note| note.contains("leading zero")), "{:?}", preview.notes);
}

#[test]
fn a_file_that_can_not_be_cut_into_records_is_refused_with_its_line() {
    let (code, line) = refused("phone,text\n07700900001,hi\n07700900002,\"open\n07700900003,hi\n");
    assert_eq!(code, "unterminated_quote");
    assert!(line.contains("line 3"), "{line}");

    let (code, line) = refused("phone,text\n07700900001,\"open\n07700900002,\"hi\"\n");
    assert_eq!(code, "stray_quote");
    assert!(line.contains("line 2"), "{line}");

    let (code, line) = refused("phone,text\n07700900001,h\0i\n");
    assert_eq!(code, "nul");
    assert!(line.contains("line 2"), "{line}");

    let (code, line) = refused(format!("phone,text\n07700900001,{}\n", "x".repeat(65 * 1024)));
    assert_eq!(code, "record_too_long");
    assert!(line.contains("line 2"), "{line}");
}

#[test]
fn a_header_that_leaves_a_doubt_is_refused() {
    assert_eq!(refused("phone,Mobile\n07700900001,07700900002\n").0, "same_columns");
    assert_eq!(refused("phone,name,NA ME\n07700900001,a,b\n").0, "same_columns");
    assert_eq!(refused("phone,,name\n07700900001,a,b\n").0, "unnamed_column");
    assert_eq!(refused("07700900001,hi\n07700900002,hi\n").0, "no_destination");
    let no_text = checked_with("phone\n07700900001\n", &Options { text: None, ..flags() }).unwrap_err();
    assert_eq!(no_text.code(), "unset");
    assert!(no_text.to_string().contains("march.toml"), "{no_text}");
    let hole = checked_with("phone\n07700900001\n", &Options { text: Some("Hi {{name}}".into()), ..flags() });
    assert_eq!(hole.unwrap_err().code(), "unknown_column");
}

#[test]
fn a_file_without_rows_is_refused() {
    assert_eq!(refused("").0, "empty");
    assert_eq!(refused("\n\r\n\n").0, "empty");
    assert_eq!(refused("\u{feff}").0, "empty");
    assert_eq!(refused("phone,text\r\n\r\n").0, "header_only");
}

#[test]
fn a_ragged_row_is_rejected_and_never_shifted() {
    let file = |row: &str| format!("phone,name,text\n{row}\n07700900009,Ann,hi\n");
    let (row, code, reason) = rejected(file("07700900001,hi"));
    assert_eq!((row, code, reason.as_str()), (2, "cells_missing", "the row has 2 cells, and the header 3"));
    assert_eq!(rejected(file("07700900001,Ann,hi,there")).1, "cells_extra");
}

#[test]
fn a_missing_value_is_rejected_and_never_blanked() {
    let (row, code, reason) =
        rejected("phone,first name,text\n07700900001,Ann,Hi {{First_Name}}\n07700900002,  ,Hi {{first_name}}\n");
    assert_eq!((row, code), (3, "value_missing"));
    assert!(reason.contains("{{first_name}}"), "{reason}");
}

#[test]
fn a_text_over_the_segment_limit_is_rejected_and_never_cut() {
    let (_, code, reason) = rejected(format!("phone,text\n07700900001,{}\n", "x".repeat(4 * 153 + 1)));
    assert_eq!((code, reason.as_str()), ("text_too_long", "the text has 5 segments, and 4 are allowed"));
    let preview = checked(format!("phone,text\n07700900001,{}\n", "x".repeat(4 * 153))).unwrap();
    assert_eq!((preview.sendable, preview.segments), (1, 4));
}

#[test]
fn a_curly_quote_shows_what_it_does_to_the_segments() {
    let text = |quote: char| format!("phone,text\n07700900001,It{quote}s {}\n", "x".repeat(100));
    let plain = checked(text('\'')).unwrap();
    let curly = checked(text('’')).unwrap();
    assert_eq!((plain.gsm7, plain.ucs2, plain.segments), (1, 0, 1));
    assert_eq!((curly.gsm7, curly.ucs2, curly.segments, curly.ucs2_segments), (0, 1, 2, 2));
    assert_eq!(curly.forcing_ucs2.into_iter().collect::<Vec<_>>(), [('’', 1)]);
}

#[test]
fn the_same_number_in_another_spelling_is_kept_once() {
    let preview = checked("phone\n07700 900001\n+44 7700 900002\n447700900001\n(07700) 900002\n").unwrap();
    assert_eq!((preview.sendable, preview.duplicates), (2, 2));
    let reasons: Vec<_> = preview.rejects.iter().map(|reject| (reject.row_number, reject.reason.as_str())).collect();
    assert_eq!(reasons, [(4, "same number as row 2"), (5, "same number as row 3")]);
}

#[test]
fn a_row_that_can_not_be_sent_does_not_take_its_number() {
    let preview = checked("phone,name,text\n07700900001,,Hi {{name}}\n07700900001,Ann,Hi {{name}}\n").unwrap();
    assert_eq!((preview.sendable, preview.invalid, preview.duplicates), (1, 1, 0));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let dropped = Dropped::new();
    let refusal = |path: PathBuf| check(&path, &flags(), &checks()).unwrap_err().to_string();
    let real = dropped.file("real.csv", "phone\n07700900001\n");
    let link = dropped.dir.path().join("link.csv");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(refusal(link).contains("link.csv is a symbolic link"));
    assert!(refusal(dropped.dir.path().to_owned()).contains("is a folder"));
    let fifo = dropped.dir.path().join("fifo.csv");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(refusal(fifo).contains("fifo.csv is a pipe"));
    let absent = check(&dropped.dir.path().join("absent.csv"), &flags(), &checks()).unwrap_err();
    assert_eq!(absent.code(), "unreadable");
}

#[test]
fn an_unapproved_sender_refuses_the_whole_file() {
    let path = Dropped::new();
    let path = (path.file("a.csv", "phone,from\n07700900001,ACME\n07700900002,SMTEST\n"), path);
    let approved: HashSet<_> = [campaign::SenderId::parse("ACME").unwrap()].into();
    let refusal = check(&path.0, &flags(), &Checks { approved: Some(approved), ..checks() }).unwrap_err();
    assert_eq!(refusal.code(), "unapproved_sender");
    let line = refusal.to_string();
    assert!(line.contains("SMTEST") && line.contains("row 3") && line.contains("crier senders list"), "{line}");
}

#[test]
fn settings_come_from_the_row_then_flags_then_the_file_beside() {
    let dropped = Dropped::new();
    dropped.file(
        "march.toml",
        "sender = \"BESIDE\"\ntext = \"from beside\"\nsend_at = \"2026-07-01 09:00\"\npriority = 2\n",
    );
    let path = dropped.file("march.csv", "phone,from\n07700900001,\n07700900002,ROW\n");
    let flags = Options { sender: Some("FLAG".into()), ..Options::default() };
    let preview = check(&path, &flags, &checks()).unwrap();
    assert_eq!(preview.senders.keys().collect::<Vec<_>>(), ["FLAG", "ROW"]);
    assert_eq!(preview.samples[0].text, "from beside");
    assert_eq!(preview.campaigns[0].name, "march");
    let nine = "2026-07-01T08:00:00Z".parse().unwrap();
    assert_eq!((preview.scheduled, preview.options.priority), (Some((nine, nine)), Some(2)));
}

#[test]
fn times_that_make_no_sense_reject_their_row() {
    let code = |times: &str| rejected(format!("phone,send_at,valid_until\n07700900001,{times}\n")).1;
    assert_eq!(code("tomorrow,"), "send_at");
    assert_eq!(code(",01/04/2026"), "valid_until");
    assert_eq!(code("2026-05-01 10:00,2026-05-01 09:00"), "valid_until_before_send_at");
    assert_eq!(code(",2026-03-02 09:00"), "valid_until_past");
    let past = checked("phone,send_at\n07700900001,2026-03-01 09:00\n").unwrap();
    assert_eq!((past.sendable, past.scheduled), (1, None));
    let doubled = checked("phone,send_at\n07700900001,2026-10-25 01:30\n").unwrap();
    assert!(doubled.notes.iter().any(|note| note.contains("show twice")), "{:?}", doubled.notes);
}

#[test]
fn a_file_may_hold_a_thousand_campaigns_and_no_more() {
    let file = |campaigns: u32| {
        let rows = (0..campaigns).map(|n| format!("07700{:06},c{n}\n", 900_000 + n % 1000));
        format!("phone,campaign\n{}", rows.collect::<String>())
    };
    assert_eq!(checked(file(1000)).unwrap().campaigns.len(), 1000);
    let (code, line) = refused(file(1001));
    assert_eq!(code, "too_many_campaigns");
    assert!(line.contains("row 1002"), "{line}");
}
