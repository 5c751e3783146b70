//! The table of what a file may have wrong with it, row by row, through the binary: each row by its file.

use crate::harness::{Crier, DEADLINE, Place, Production, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

/// A place where files are checked and loaded; workers are not there, so that whatever is queued stays.
struct Desk {
    crier: Crier,
    place: Place,
}

impl Desk {
    fn new() -> Self {
        let place = Place::new();
        Self { crier: place.crier(), place }
    }

    /// Neither command takes the file; both say the same line; nothing is queued.
    #[track_caller]
    fn refuses(&self, path: &Path, words: &[&str]) {
        let flags = ["--sender", "ACME", "--text", "Hello"];
        for command in ["check", "ingest"] {
            let args = [command.as_ref(), path.as_os_str()].into_iter().chain(flags.iter().map(AsRef::as_ref));
            let ended = self.crier.spawn(args).wait(Duration::from_secs(30));
            assert_eq!(ended.code, Some(1), "{command} {}: {}", path.display(), ended.stderr);
            assert_eq!(ended.stderr.lines().count(), 1, "not one line: {}", ended.stderr);
            assert_eq!(ended.stdout, "");
            for word in words {
                assert!(ended.stderr.contains(word), "{command}: no {word:?} in {}", ended.stderr);
            }
            assert!(ended.stderr.contains("Nothing of it was queued."), "{}", ended.stderr);
        }
        assert_eq!(self.campaigns(), json!([]), "something was queued");
    }

    fn refuses_bytes(&self, bytes: impl AsRef<[u8]>, words: &[&str]) {
        self.refuses(&self.place.file("march.csv", bytes), words);
    }

    fn campaigns(&self) -> Value {
        self.crier.json(0, &["status"])
    }

    /// The preview of a file that can be read.
    #[track_caller]
    fn preview(&self, code: i32, bytes: impl AsRef<[u8]>, flags: &[&str]) -> Value {
        let path = self.place.file("march.csv", bytes);
        let path = path.to_str().expect("a plain name");
        let args: Vec<&str> = ["check", path, "--sender", "ACME"].into_iter().chain(flags.iter().copied()).collect();
        self.crier.json(code, &args)
    }

    /// The only reject of a file, which `check` and `ingest` show alike: row, code, reason.
    #[track_caller]
    fn rejects(&self, bytes: impl AsRef<[u8]>, row: u32, code: &str, words: &str) {
        let preview = self.preview(3, bytes.as_ref(), &["--text", "Hello"]);
        let [reject] = preview["rejects"].as_array().expect("a list").as_slice() else { panic!("{preview}") };
        assert_eq!((&reject["row_number"], &reject["code"]), (&json!(row), &json!(code)), "{reject}");
        assert!(reject["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{reject}");

        let name = format!("{code}.csv");
        let path = self.place.file(&name, bytes);
        let flags = ["--sender", "ACME", "--text", "Hello"].map(AsRef::as_ref);
        self.crier.expect(3, ["ingest".as_ref(), path.as_os_str()].into_iter().chain(flags));
        let beside =
            fs::read_to_string(path.with_extension("rejected.csv")).expect("rejects are listed beside the file");
        assert!(beside.contains(code) && beside.contains(words), "{beside}");
    }
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(to_bytes).collect()
}

#[test]
fn unicode_in_any_dress_is_read_and_said() {
    let desk = Desk::new();
    let text = "phone,text\r\n07700900001,\"Zoë\r\nand all\"\r\n";
    for (bytes, said) in [
        (text.as_bytes().to_vec(), "UTF-8"),
        ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "UTF-8 with BOM"),
        (utf16(text, u16::to_le_bytes), "UTF-16LE with BOM"),
        (utf16(text, u16::to_be_bytes), "UTF-16BE with BOM"),
    ] {
        let preview = desk.preview(0, bytes, &[]);
        assert_eq!((&preview["encoding"], &preview["rows"]), (&json!(said), &json!(1)), "{preview}");
        assert_eq!(preview["samples"][0]["text"], "Zoë\r\nand all");
    }
}

#[test]
fn separators_are_found_and_said() {
    let desk = Desk::new();
    for (separator, name) in [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")] {
        let file = format!("phone{separator}text\n07700900001{separator}\"a,b;c|d\"\n");
        let preview = desk.preview(0, file, &[]);
        assert_eq!((&preview["delimiter"], &preview["samples"][0]["text"]), (&json!(name), &json!("a,b;c|d")));
        assert!(preview["notes"].to_string().contains(name), "{}", preview["notes"]);
    }
}

#[test]
fn windows_1252_is_shown_as_it_would_read_and_read_only_on_demand() {
    let desk = Desk::new();
    let bytes = b"phone,text\n07700900001,fine\n07700900002,caf\xe9 \x80 5\n";
    desk.refuses_bytes(bytes, &["line 3", "café € 5", "--encoding windows-1252"]);
    let preview = desk.preview(0, bytes, &["--encoding", "windows-1252"]);
    assert_eq!(preview["samples"][1]["text"], "café € 5");
}

#[test]
fn rows_that_can_not_be_sent_are_rejected_by_row_and_reason() {
    let desk = Desk::new();
    desk.rejects("phone\n07700900001\n4.47701E+11\n", 3, "number_scientific", "format the column as text");
    desk.rejects("phone,name,text\n07700900001,hi\n07700900009,Ann,hi\n", 2, "cells_missing", "2 cells");
    desk.rejects("phone,name,text\n07700900001,Ann,hi,there\n07700900009,Ann,hi\n", 2, "cells_extra", "4 cells");
    desk.rejects("phone,name,text\n07700900001,,Hi {{name}}\n07700900009,Ann,Hi\n", 2, "value_missing", "{{name}}");
    let long = format!("phone,text\n07700900001,{}\n07700900009,Hi\n", "x".repeat(4 * 153 + 1));
    desk.rejects(long, 2, "text_too_long", "5 segments");
}

#[test]
fn a_lost_zero_is_repaired_and_counted() {
    let preview = Desk::new().preview(0, "phone,text\n7700900123,Hi\n", &[]);
    assert_eq!((&preview["repaired"], &preview["sendable"]), (&json!(1), &json!(1)));
    assert!(preview["notes"].to_string().contains("leading zero"), "{}", preview["notes"]);
}

#[test]
fn the_same_number_in_another_spelling_is_listed_and_not_sent() {
    let preview = Desk::new().preview(0, "phone,text\n07700 900001,Hi\n+44 7700 900001,Hi\n", &[]);
    assert_eq!((&preview["sendable"], &preview["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!(preview["rejects"][0]["reason"], "same number as row 2");
}

#[test]
fn an_emoji_shows_what_it_does_to_the_segments() {
    let desk = Desk::new();
    let file = desk.place.file("march.csv", format!("phone,text\n07700900001,{}🎉\n", "x".repeat(100)));
    let printed = desk.crier.expect(0, ["check".as_ref(), file.as_os_str(), "--sender".as_ref(), "ACME".as_ref()]);
    assert!(printed.contains("characters that force UCS-2: 🎉"), "{printed}");
    assert!(printed.lines().any(|line| line == "segments\t2"), "{printed}");
}

#[test]
fn a_file_that_can_not_be_cut_into_records_is_refused_with_its_line() {
    let desk = Desk::new();
    desk.refuses_bytes("phone,text\n07700900001,hi\n07700900002,\"open\n07700900003,hi\n", &["line 3", "never closed"]);
    desk.refuses_bytes("phone,text\n07700900001,h\0i\n", &["line 2", "NUL"]);
    let long = format!("phone,text\n07700900001,{}\n", "x".repeat(65 * 1024));
    desk.refuses_bytes(long, &["line 2", "64 KiB"]);
}

#[test]
fn a_header_that_leaves_a_doubt_is_refused() {
    let desk = Desk::new();
    desk.refuses_bytes("phone,Mobile\n07700900001,07700900002\n", &["phone", "Mobile"]);
    desk.refuses_bytes("phone,,name\n07700900001,a,b\n", &["column 2", "no name"]);
    desk.refuses_bytes("07700900001,hi\n07700900002,hi\n", &["destination", "header"]);
    desk.refuses_bytes("", &["empty"]);
    desk.refuses_bytes("\u{feff}\r\n\r\n", &["empty"]);
    desk.refuses_bytes("phone,text\r\n", &["no row"]);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let desk = Desk::new();
    let real = desk.place.file("real.csv", "phone\n07700900001\n");
    let dir = desk.place.dir.path();
    let (link, fifo, folder) = (dir.join("link.csv"), dir.join("fifo.csv"), dir.join("folder.csv"));
    symlink(&real, &link).expect("a link can be made");
    assert!(Command::new("mkfifo").arg(&fifo).status().is_ok_and(|made| made.success()));
    fs::create_dir(&folder).expect("a folder can be made");
    desk.refuses(&link, &["link.csv is a symbolic link"]);
    desk.refuses(&fifo, &["fifo.csv is a pipe"]);
    desk.refuses(&folder, &["folder.csv is a folder"]);
    desk.refuses(&dir.join("absent.csv"), &["absent.csv can't be read"]);
}

#[test]
fn an_unapproved_sender_is_refused_before_anything_is_queued() {
    let desk = Desk::new();
    let file = desk.place.file("march.csv", "phone,from,text\n07700900001,ACME,Hi\n07700900002,SMTEST,Hi\n");
    for command in ["ingest", "run"] {
        let ended = desk.crier.run([command.as_ref(), file.as_os_str()]);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
        let line = ended.stderr;
        assert!(line.contains("SMTEST") && line.contains("row 3") && line.contains("crier senders"), "{line}");
    }
    assert_eq!(desk.campaigns(), json!([]));
    assert_eq!(desk.place.sandbox.book()["accepted"], 0);
}

#[test]
fn a_file_that_is_still_being_written_is_left_until_it_is_whole() {
    let mut production = Production::new(&json!({}));
    production.set("INGEST__UNCHANGED_FOR", "3s");
    production.start_watcher();
    let inbox = production.folder().join("inbox");
    let growing = inbox.join("growing.csv");
    fs::write(&growing, "destination,sender,text\n07400000001,ACME,Hi\n").expect("the inbox is writable");
    // A file that is renamed in meanwhile goes first, and shows that the watcher has looked.
    for n in 2..6 {
        production.drop_in(&format!("whole{n}.csv"), format!("destination,sender,text\n0740000000{n},ACME,Hi {n}\n"));
        let done = production.folder().join(format!("done/whole{n}.csv"));
        // Its time of change goes on, however long this takes on a loaded machine.
        eventually(&format!("{} is there", done.display()), DEADLINE, || {
            let file =
                fs::File::options().append(true).open(&growing).expect("it was taken while it was being written");
            file.set_modified(SystemTime::now()).expect("its time can be set");
            done.is_file()
        });
        let so_far = fs::read_to_string(&growing).expect("it is still there");
        fs::write(&growing, format!("{so_far}0740000001{n},ACME,Hi\n")).expect("the inbox is writable");
    }
    await_file(&production.folder().join("done/growing.csv"));
    let campaigns = production.crier.json(0, &["status"]);
    let rows = |name: &str| {
        let found = campaigns.as_array().expect("a list").iter().find(|campaign| campaign["campaign"] == name);
        found.map(|campaign| campaign["rows"].clone())
    };
    assert_eq!(rows("growing"), Some(json!(5)), "{campaigns}");
    production.drop_in("broken.csv", "destination,sender,text\n07400000099,ACME,\"Hi\n");
    await_file(&production.folder().join("refused/broken.csv"));
    production.stop();
}

fn await_file(path: &Path) {
    eventually(&format!("{} is there", path.display()), DEADLINE, || path.is_file());
}
