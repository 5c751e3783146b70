//! What a campaign costs where it is scarce, by counts: gateway calls for each recipient.

use crate::harness::{Mailing, Place, account};
use serde_json::json;

/// 0.11 is the least at ten rows a page and a hundred recipients a call; the rest is what a campaign of any size begins with.
#[test]
fn a_confirmed_recipient_takes_little_more_than_its_share_of_a_call_and_of_a_page() {
    let place = Place::with(&json!({"delivery_min_ms": 0, "delivery_max_ms": 0}));
    let crier = place.crier().set("RECONCILE__FIRST_LOOK", "2s");
    let mailing = Mailing::of(5_000, 1);
    let file = place.file("spring.csv", &mailing.csv);
    let plan = crier.json(3, &["plan", file.to_str().expect("a path in UTF-8")]);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    println!("gateway calls for each confirmed recipient: {:.4}", result.calls_each());
    assert_eq!(result.confirmed(), mailing.valid.len() as u64, "{result:?}");
    assert!(result.calls_each() <= 0.115, "{} calls for {} recipients", result.calls, result.confirmed());
    // The plan asked for the senders itself.
    let planned = plan["plan"]["calls_total"].as_u64().expect("a count");
    let difference = result.calls.abs_diff(planned);
    assert!(difference * 20 <= planned, "{} calls, and {planned} were planned", result.calls);
}
