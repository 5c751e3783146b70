//! What a campaign costs where it is scarce, by counts: gateway calls for each recipient, and what Redis holds.

use crate::harness::{DEADLINE, Mailing, Place, Production, account, eventually};
use serde_json::json;

/// 0.11 is the least at ten rows a page and a hundred recipients a call; the rest is what a campaign of any size begins with.
#[test]
fn a_confirmed_recipient_takes_little_more_than_its_share_of_a_call_and_of_a_page() {
    let place = Place::with(&json!({"delivery_min_ms": 0, "delivery_max_ms": 0}));
    let crier = place.crier().set("RECONCILE__FIRST_LOOK", "2s");
    let mailing = Mailing::of(5_000, 1);
    let file = place.file("spring.csv", &mailing.csv);
    let plan = crier.json(0, &["plan", file.to_str().expect("a path in UTF-8")]);
    crier.expect(3, ["run".as_ref(), file.as_os_str()]);
    let result = account(&crier, &place.sandbox, "spring", &mailing);
    println!("gateway calls for each confirmed recipient: {:.4}", result.calls_each());
    assert_eq!(result.confirmed(), mailing.valid.len() as u64, "{result:?}");
    assert!(result.calls_each() <= 0.115, "{} calls for {} recipients", result.calls, result.confirmed());
    // The plan asked for the senders itself.
    let planned = plan["calls_total"].as_u64().expect("a count");
    let difference = result.calls.abs_diff(planned);
    assert!(difference * 20 <= planned, "{} calls, and {planned} were planned", result.calls);
}

/// A chunk is of one campaign: a hundred campaigns make a hundred jobs of few rows.
fn chunks(campaigns: u32) -> String {
    let mut csv = String::from("destination,sender,text,campaign\n");
    for n in 0..campaigns * 2 {
        csv.push_str(&format!("074{n:08},ACME,Hello,{:03}\n", n / 2));
    }
    csv
}

#[test]
fn redis_holds_as_much_for_a_large_campaign_as_for_a_small_one() {
    let held: Vec<[u64; 2]> = [100, 400]
        .into_iter()
        .map(|campaigns| {
            let mut production = Production::new(&json!({}));
            let file = production.place.file("many.csv", chunks(campaigns));
            production.crier.expect(0, ["ingest".as_ref(), file.as_os_str()]);
            // Something has to feed the queue; nobody works on it yet.
            production.start_watcher();
            eventually("the queue is full", DEADLINE, || {
                production.ask::<i64>("SELECT count(*) FROM chunks WHERE state = 'fed'") >= 64
                    && production.redis.elements() >= 64
            });
            let full = production.redis.elements();
            production.workers = vec![production.crier.spawn(["worker"])];
            production.wait_for_texts(u64::from(campaigns) * 2);
            // What finished jobs leave is removed every ten seconds.
            eventually("finished jobs are gone", DEADLINE, || production.redis.elements() < 64);
            let after = production.redis.elements();
            production.stop();
            [full, after]
        })
        .collect();
    println!("elements in Redis, with a full queue and after all is sent: {held:?}");
    for (small, large) in held[0].into_iter().zip(held[1]) {
        assert!(large <= small + 16, "Redis grows with the campaign: {held:?}");
    }
}
