//! The main journey as it runs in production: several processes over Redis and Postgres, and a file in a drop folder.

use crate::harness::{Mailing, Production, Signal, Spy};
use serde_json::json;

#[test]
fn a_dropped_file_reaches_everybody_once() {
    // A tight window: the processes must share it.
    let mut production = Production::new(&json!({"rate_limit": 1000, "rate_window_ms": 5000}));
    production.set("GATEWAY__CALLS_PER_WINDOW", "1000");
    production.set("GATEWAY__WINDOW", "5s");
    let spy = Spy::on(&production.redis);
    production.start();
    let mailing = Mailing::of(20_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    let account = production.account("spring", &mailing);

    assert_eq!((account.held, account.confirmed()), (0, mailing.valid.len() as u64));
    production.assert_good_manners();
    println!("gateway calls for each confirmed recipient: {:.4}", account.calls_each());
    assert!(account.calls_each() <= 0.13, "{} calls for {} recipients", account.calls, account.confirmed());
    assert!(production.folder().join("done/spring.csv").is_file());
    production.stop();

    let heard = spy.stop();
    assert!(heard.commands > 100, "the spy heard {} commands", heard.commands);
    assert_eq!(heard.leaks, Vec::<String>::new(), "Redis was told numbers or texts");
}

#[test]
fn lost_answers_and_a_killed_worker_lose_nobody() {
    let mut production = Production::new(&json!({"seed": 7}));
    production.place.sandbox.faults(&json!([{"operation": "bulk_send", "fault": "drop_answer", "share": 0.05}]));
    production.start();
    let mailing = Mailing::of(20_000, 5);
    production.drop_in("spring.csv", &mailing.csv);
    production.wait_for_texts(5_000);
    production.workers.remove(0).kill();
    let account = production.account("spring", &mailing);
    println!("{account:?}");
    production.assert_good_manners();
}
