//! `campaigns.example.csv` is the contract by example; its deliberate mistakes must show.

use ingest::{Checks, Options, check};
use std::{collections::HashSet, path::Path};

#[test]
fn the_example_shows_each_of_its_mistakes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../campaigns.example.csv");
    let approved: HashSet<_> =
        ["ACME", "447520602706", "13234710258"].map(|sender| campaign::SenderId::parse(sender).unwrap()).into();
    let now = "2026-03-02T09:00:00Z".parse().unwrap();
    let checks = Checks { approved: Some(approved), samples_max: 100, ..Checks::at(now) };
    let preview = check(&path, &Options::default(), &checks).unwrap();
    for reject in &preview.rejects {
        let reference = reject.reference.as_deref().unwrap_or("rejected: ragged");
        assert!(reference.starts_with("rejected") || reference.starts_with("duplicate"), "{reject:?}");
    }
    insta::with_settings!({filters => vec![(r#""(sha256|bytes)": .*"#, r#""$1": …"#)]}, {
        insta::assert_snapshot!(serde_json::to_string_pretty(&preview).unwrap());
    });
}
