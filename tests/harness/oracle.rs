//! The promise, checked: the file, the ledger's report and the sandbox's book against each other.

use super::{Crier, Mailing, Sandbox};
use serde_json::Value;
use std::collections::BTreeMap;

/// What became of a mailing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) held: u64,
    /// Held rows whose text did go out.
    pub(crate) held_and_sent: u64,
    /// Calls that the gateway was asked, of every kind.
    pub(crate) calls: u64,
}

impl Account {
    /// Recipients of whom the end is known.
    pub(crate) fn confirmed(&self) -> u64 {
        self.sent + self.failed
    }

    /// Gateway calls for each confirmed recipient.
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    pub(crate) fn calls_each(&self) -> f64 {
        self.calls as f64 / self.confirmed() as f64
    }
}

/// Nobody twice, nobody lost: each valid row of the mailing is in the book exactly once and `sent` or `failed` as the
/// book has it, or `held`; nothing is in the book that no row explains; the ledger's own proof holds.
#[track_caller]
pub(crate) fn account(crier: &Crier, sandbox: &Sandbox, campaign: &str, mailing: &Mailing) -> Account {
    assert_eq!(sandbox.twice(), Value::Array(vec![]), "somebody was texted twice");
    let book = sandbox.full_book();
    let mut texted: BTreeMap<&str, &Value> = BTreeMap::new();
    for text in list(&book["texts"]) {
        let before = texted.insert(string(&text["destination"]), text);
        assert!(before.is_none(), "a number is in the book twice");
    }

    let report = crier.expect(0, ["results", campaign, "--format", "json"]);
    let report: Value = serde_json::from_str(&report).expect("results are JSON");
    let mut account = Account { calls: sum(&book["calls"]), ..Account::default() };
    let (mut rows, mut invalid, mut duplicate) = (0, 0, 0);
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for row in list(&report) {
        rows += 1;
        let state = string(&row["state"]);
        match state {
            "invalid" => invalid += 1,
            "duplicate" => duplicate += 1,
            _ => {
                let number = string(&row["destination"]);
                assert!(
                    seen.insert(number, state).is_none(),
                    "a number stands in two live rows: {}",
                    row["row_number"]
                );
                assert_eq!(mailing.valid.get(number).map(String::as_str), row["text"].as_str(), "not in the file");
                count(&mut account, state, row, texted.remove(number));
            }
        }
    }
    assert_eq!((rows, invalid, duplicate), (mailing.rows, mailing.invalid, mailing.duplicate), "rows of the report");
    assert_eq!(seen.len(), mailing.valid.len(), "rows were lost");
    assert!(texted.is_empty(), "{} texts in the book that no row explains", texted.len());
    crier.expect(0, ["verify"]);
    account
}

/// One row against what the book has for its number.
#[track_caller]
fn count(account: &mut Account, state: &str, row: &Value, texted: Option<&Value>) {
    let number = &row["row_number"];
    match (state, texted) {
        ("sent" | "failed", Some(text)) => {
            assert_eq!(row["text"], text["text"], "row {number} got another text");
            assert_eq!(row["sender"], text["source"], "row {number} is from another sender");
            assert_eq!(row["gateway_sms_id"], text["sms_id"], "row {number} has the id of another text");
            let said = if state == "sent" { "1" } else { "2" };
            assert_eq!(text["status"], said, "row {number} is {state} and the gateway says otherwise");
            *(if state == "sent" { &mut account.sent } else { &mut account.failed }) += 1;
        }
        ("held", texted) => {
            account.held += 1;
            account.held_and_sent += u64::from(texted.is_some());
            assert!(
                row["reason"].as_str().is_some_and(|why| !why.is_empty()),
                "row {number} is held and no one says why"
            );
        }
        (state, texted) => panic!("row {number} is {state}, its text in the book: {}", texted.is_some()),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}
