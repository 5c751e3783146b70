//! The promise, counted: the files, the ledger's reports and the sandbox's book against each other.

use crate::harness::{Crier, Mailing, Sandbox};
use serde_json::Value;
use std::collections::BTreeMap;

/// What became of everybody.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) held: u64,
    /// Held, and the gateway has the text.
    pub(crate) held_and_sent: u64,
    /// Numbers that the gateway texted more than once.
    pub(crate) twice: u64,
    /// Rows that are in no final state and not held, whose number or text is not the file's, or that the report and the book
    /// tell differently; texts that no row explains.
    pub(crate) lost: Vec<String>,
}

/// Compares all files with what became of them.
pub(crate) fn fate(crier: &Crier, sandbox: &Sandbox, mailings: &[(String, Mailing)]) -> Fate {
    let mut fate = Fate::default();
    let book = sandbox.full_book();
    let mut texted: BTreeMap<&str, &Value> = BTreeMap::new();
    for text in book["texts"].as_array().expect("a list") {
        if texted.insert(text["destination"].as_str().expect("a number"), text).is_some() {
            fate.twice += 1;
        }
    }
    for (name, mailing) in mailings {
        let report = crier.expect(0, ["results", name, "--format", "json"]);
        let report: Value = serde_json::from_str(&report).expect("results are JSON");
        let rows = report.as_array().expect("a list");
        if rows.len() as u64 != mailing.rows {
            fate.lost.push(format!("{name} has {} rows of {}", rows.len(), mailing.rows));
        }
        let mut seen = 0;
        for row in rows {
            let state = row["state"].as_str().expect("a state");
            if matches!(state, "invalid" | "duplicate") {
                continue;
            }
            seen += 1;
            let number = row["destination"].as_str().unwrap_or_default();
            let text = texted.remove(number);
            let told = |key: &str, of_book: &str| text.is_some_and(|text| text[of_book] == row[key]);
            let right = told("text", "text") && told("sender", "source") && told("gateway_sms_id", "sms_id");
            let status = text.and_then(|text| text["status"].as_str());
            let good = match state {
                "sent" => right && status == Some("1"),
                "failed" => right && status == Some("2"),
                "held" => row["reason"].as_str().is_some_and(|why| !why.is_empty()),
                _ => false,
            };
            if !good || mailing.valid.get(number).map(String::as_str) != row["text"].as_str() {
                fate.lost.push(format!(
                    "{name} row {} is {state} and in the book with status {status:?}",
                    row["row_number"]
                ));
            }
            match state {
                "sent" => fate.sent += 1,
                "failed" => fate.failed += 1,
                "held" => {
                    fate.held += 1;
                    fate.held_and_sent += u64::from(text.is_some());
                }
                _ => {}
            }
        }
        if seen != mailing.valid.len() {
            fate.lost.push(format!("{name} has {seen} recipients of {}", mailing.valid.len()));
        }
    }
    fate.lost.extend((!texted.is_empty()).then(|| format!("{} texts in the book that no row explains", texted.len())));
    let verified = crier.run(["verify"]);
    fate.lost
        .extend((verified.code != Some(0)).then(|| format!("crier verify: {}{}", verified.stdout, verified.stderr)));
    fate
}
