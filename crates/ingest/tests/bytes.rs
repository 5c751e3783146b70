//! Whatever bytes a file or its `NAME.toml` holds: no panic, and every line is accounted for or the whole file refused.
//!
//! The corpus of `tests/corpus` is changed at random places, from a fixed seed; `BYTES_RUNS=n` runs more of it.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

#[path = "../../../tests/corpus/dice.rs"]
mod dice;

use dice::{Dice, corpus, runs};
use ingest::{Checks, Options, check};
use std::{fs, path::Path};

/// Reads a file of these bytes, beside a `NAME.toml` of those; answers whether it was refused.
fn read(dir: &Path, csv: &[u8], toml: Option<&[u8]>, flags: &Options) -> bool {
    let path = dir.join("march.csv");
    fs::write(&path, csv).unwrap();
    match toml {
        Some(toml) => fs::write(dir.join("march.toml"), toml).unwrap(),
        None => _ = fs::remove_file(dir.join("march.toml")),
    }
    let checks = Checks::at("2026-03-02T09:00:00Z".parse().unwrap());
    let preview = match check(&path, flags, &checks) {
        Ok(preview) => preview,
        Err(refusal) => {
            let line = refusal.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "a refusal is one line: {line:?}");
            return true;
        }
    };
    let accounted = preview.sendable + preview.invalid + preview.duplicates;
    assert_eq!(preview.rows, accounted, "rows that nobody accounts for in {csv:?}");
    assert_eq!(preview.invalid, preview.invalid_by_code.values().sum::<u64>(), "{csv:?}");
    assert_eq!(preview.gsm7 + preview.ucs2, preview.sendable, "{csv:?}");
    assert_eq!(preview.bytes, csv.len() as u64);
    assert!(preview.rejects.len() <= checks.samples_max, "samples are bounded");
    // A second reading says the same, or the load would be refused as changed.
    assert_eq!(check(&path, flags, &checks).unwrap(), preview);
    false
}

#[test]
fn any_bytes_are_read_row_by_row_or_refused_in_one_line() {
    let (dir, seeds, mut dice) = (tempfile::tempdir().unwrap(), corpus("csv"), Dice::new(0x5eed));
    let flags = Options { sender: Some("ACME".into()), ..Options::default() };
    let with_text = Options { text: Some("Hello {{first_name}}".into()), ..flags.clone() };
    let mut refused = 0;
    for run in 0..runs() {
        let bytes = dice.changed(&seeds);
        refused += usize::from(read(dir.path(), &bytes, None, if run % 2 == 0 { &flags } else { &with_text }));
    }
    assert!(refused > 0 && refused < runs(), "{refused} refused: the corpus shows nothing");
}

#[test]
fn any_settings_beside_a_file_hold_or_are_refused_in_one_line() {
    let (dir, seeds, mut dice) = (tempfile::tempdir().unwrap(), corpus("toml"), Dice::new(0x7031));
    let csv = b"destination,first_name\n07700900001,Ada\n07700900002,\n";
    let mut refused = 0;
    for _ in 0..runs() {
        let toml = dice.changed(&seeds);
        refused += usize::from(read(dir.path(), csv, Some(&toml), &Options::default()));
    }
    assert!(refused > 0, "the corpus shows nothing");
}

#[test]
fn any_text_is_a_template_or_none() {
    let (seeds, mut dice) = (corpus("toml"), Dice::new(0x7e47));
    for _ in 0..runs() * 10 {
        let bytes = dice.changed(&seeds);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(template) = campaign::template::Template::parse(&text) {
            // What is rendered has no column left to fill, whatever the values.
            let _ = template.render(|column| (column.len() % 2 == 0).then_some("}}{{"));
        }
    }
}
