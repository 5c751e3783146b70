//! Copies of dropped files go when they are old, unless a row of theirs is open.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use ingest::purge_copies;
use jiff::Timestamp;
use ledger::{ImportStart, Ledger, NewCampaign, NewImport};
use std::{fs, path::Path, time::Duration};

const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn copies_go_when_they_are_old_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
    ledger.migrate().await.unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let owner = ledger.register_owner("test", "here", 1, now).await.unwrap();
    let new = NewImport {
        file_name: "open.csv".to_owned(),
        sha256: HELLO_SHA256.to_owned(),
        bytes: 5,
        rows_in_file: 1,
        again: false,
        launched_by: "ann".to_owned(),
        owner: owner.id(),
        campaigns: vec![NewCampaign { name: "open".to_owned(), ..NewCampaign::default() }],
    };
    let ImportStart::Load { import, .. } = ledger.begin_import(&new, now).await.unwrap() else {
        panic!("a new file is loaded")
    };

    let root = dir.path().join("drop");
    let (done, refused) = (root.join("done"), root.join("refused"));
    for folder in ["inbox", "done", "refused"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("inbox/new.csv"), "new").unwrap();
    for (name, content) in [("open.csv", "hello"), ("open.rejected.csv", "1"), ("sent.csv", "x"), ("sent.toml", "y")] {
        fs::write(done.join(name), content).unwrap();
    }
    fs::write(refused.join("bad.csv"), "z").unwrap();

    let hour = Duration::from_secs(3600);
    assert_eq!(purge_copies(&ledger, &root, hour, false).await.unwrap(), 0, "they came a moment ago");
    assert_eq!(purge_copies(&ledger, &root, Duration::ZERO, true).await.unwrap(), 3);
    assert_eq!(names(&done).len(), 4, "that was only a count");
    assert_eq!(purge_copies(&ledger, &root, Duration::ZERO, false).await.unwrap(), 3);
    assert_eq!((names(&done), names(&refused).len()), (vec!["open.csv".to_owned(), "open.rejected.csv".to_owned()], 0));

    ledger.abandon_import(import).await.unwrap();
    assert_eq!(purge_copies(&ledger, &root, Duration::ZERO, false).await.unwrap(), 2);
    assert_eq!(names(&root.join("inbox")), ["new.csv"]);
}
