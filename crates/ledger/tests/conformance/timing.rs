//! When rows may go: quiet hours, rates, another time, and what is the most urgent.

use crate::{
    Bench, at,
    bench::{REPLAY_AFTER, SHOP, sender},
    on_both,
};
use ledger::{By, Claim, NewTimes, Start};

on_both! {
    a_row_outside_its_hours_waits_for_them_and_says_so
    a_batch_that_waited_into_the_quiet_hours_is_taken_back
    a_rate_spreads_the_texts_of_a_campaign_over_all_claims
    a_rate_of_a_sender_holds_for_all_its_campaigns
    what_is_unsent_is_rescheduled_and_what_is_in_flight_is_not
    a_job_is_used_for_what_is_most_urgent_and_its_own_chunk_is_not_lost
}

/// 2027-01-15 08:00:00 UTC, a Friday, in the time of the tests.
const MORNING: i64 = 0;
const HOUR: i64 = 3_600;

async fn set(bench: &Bench, column: &str, value: &str) {
    bench.raw.execute(&format!("UPDATE campaigns SET {column} = {value}")).await.unwrap();
}

async fn a_row_outside_its_hours_waits_for_them_and_says_so(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    set(bench, "quiet", "'21:00-08:30'").await;
    set(bench, "zone", "'Europe/London'").await;
    assert!(bench.batches(one.chunk(), MORNING + 60).await.is_empty());
    bench.finish(one.chunk(), MORNING + 60).await;
    assert_eq!(bench.reason(&one, 0).await, "waits for its hours, until 2027-01-15T08:30:00Z");
    assert_eq!(bench.chunk(one.chunk()).await, ("waiting".to_owned(), HOUR / 2));
    assert!(bench.ledger.backlog(10, REPLAY_AFTER, at(HOUR / 2 - 1)).await.unwrap().waiting.is_empty());
    assert_eq!(bench.batches(one.chunk(), HOUR / 2).await[0].destinations.len(), 2);
    assert_eq!(bench.reason(&one, 0).await, "");
}

async fn a_batch_that_waited_into_the_quiet_hours_is_taken_back(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    set(bench, "quiet", "'09:00-10:00'").await;
    let batch = bench.batches(one.chunk(), MORNING + 1).await.remove(0);
    assert!(matches!(bench.start(batch, HOUR).await, Start::TakenBack));
    bench.finish(one.chunk(), HOUR).await;
    assert!(bench.batches(one.chunk(), HOUR + 1).await.is_empty());
    assert_eq!(bench.states(&one).await, "queued");
}

async fn a_rate_spreads_the_texts_of_a_campaign_over_all_claims(bench: &Bench) {
    let numbers: Vec<u64> = (0..400).collect();
    let one = bench.campaign("one", &numbers).await;
    set(bench, "rate_us", "600000").await;
    let mut texts = 0;
    for second in 1..=60 {
        let backlog = bench.ledger.backlog(10, REPLAY_AFTER, at(second)).await.unwrap();
        for _ in backlog.waiting {
            for batch in bench.batches(one.chunk(), second).await {
                assert!(batch.destinations.len() <= 5, "{} at once", batch.destinations.len());
                texts += batch.destinations.len();
            }
            assert!(bench.ledger.backlog(10, REPLAY_AFTER, at(second)).await.unwrap().waiting.is_empty());
            bench.finish(one.chunk(), second).await;
        }
    }
    assert!((95..=105).contains(&texts), "{texts} texts in a minute at 100/min");
}

async fn a_rate_of_a_sender_holds_for_all_its_campaigns(bench: &Bench) {
    let numbers = |from: u64| (from..from + 200).collect::<Vec<_>>();
    let both = [bench.campaign("one", &numbers(0)).await, bench.campaign("two", &numbers(200)).await];
    let by = By { who: "ann", reason: Some("the contract") };
    let sender = sender(SHOP);
    let rate = campaign::rate::Rate::parse("100/min").unwrap();
    bench.ledger.set_sender_rate(&sender, Some(rate), by, "100/min", at(0)).await.unwrap();
    let (mut texts, mut claims) = (0, 0);
    for second in 1..=60 {
        let backlog = bench.ledger.backlog(10, REPLAY_AFTER, at(second)).await.unwrap();
        for chunk in backlog.waiting.into_iter().flat_map(|waiting| waiting.chunks) {
            claims += 1;
            for batch in bench.batches(chunk, second).await {
                texts += batch.destinations.len();
            }
            bench.finish(chunk, second).await;
        }
    }
    assert!((85..=105).contains(&texts), "{texts} texts in a minute at 100/min");
    assert!(claims <= 60, "{claims} claims in a minute for what takes {}", texts / 5);
    assert_eq!(bench.reason(&both[1], 199).await, "waits for its turn at the rate of its sender");
    bench.ledger.set_sender_rate(&sender, None, by, "none", at(60)).await.unwrap();
    assert!(bench.ledger.sender_rates().await.unwrap().is_empty());
    assert_eq!(bench.ledger.backlog(10, REPLAY_AFTER, at(60)).await.unwrap().waiting.len(), 2);
}

async fn what_is_unsent_is_rescheduled_and_what_is_in_flight_is_not(bench: &Bench) {
    let numbers: Vec<u64> = (0..101).collect();
    let one = bench.campaign("one", &numbers).await;
    let first = bench.batches(one.chunk(), 1).await.remove(0);
    bench.started(first, 2).await;
    let two = bench.campaign_with("two", "hello", &[200, 201], |row| row.valid_until = Some(at(500))).await;
    assert!(bench.feed(two.chunk(), 2).await);
    let by = By { who: "ann", reason: None };
    let times = NewTimes { send_at: Some(at(1_000)), valid_until: None };
    let moved = bench.ledger.reschedule(one.id, times, by, at(3)).await.unwrap();
    assert_eq!((moved.moved, moved.expire_before), (0, 0), "a worker has all of it");
    let moved = bench.ledger.reschedule(two.id, times, by, at(3)).await.unwrap();
    bench.stepped(3).await;
    assert_eq!((moved.moved, moved.expire_before), (2, 2));
    let both = NewTimes { valid_until: Some(at(2_000)), ..times };
    assert_eq!(bench.ledger.reschedule(two.id, both, by, at(4)).await.unwrap().expire_before, 0);
    bench.stepped(4).await;
    assert!(matches!(bench.claim(two.chunk(), 5).await, Claim::NotForUs), "its job is stale");
    assert_eq!(
        (bench.states(&two).await, bench.chunk(two.chunk()).await),
        ("scheduled scheduled".into(), ("waiting".into(), 1_000))
    );
    assert_eq!(bench.ledger.sweep_expired(10, at(600)).await.unwrap().rows, 0);
    assert_eq!(bench.batches(two.chunk(), 1_000).await[0].destinations.len(), 2);
}

async fn a_job_is_used_for_what_is_most_urgent_and_its_own_chunk_is_not_lost(bench: &Bench) {
    let [big, equal, urgent] =
        [bench.campaign("big", &[1]).await, bench.campaign("equal", &[2]).await, bench.campaign("urgent", &[3]).await];
    bench.raw.execute(&format!("UPDATE campaigns SET priority = 100 WHERE id = {}", urgent.id)).await.unwrap();
    for (of, second) in [(&equal, 1), (&big, 2), (&urgent, 3)] {
        assert!(bench.feed(of.chunk(), second).await);
    }
    let mut claimed = Vec::new();
    for own in [big.chunk(), equal.chunk(), urgent.chunk()] {
        let chunk = bench.ledger.most_urgent(own).await.unwrap().unwrap();
        assert!(matches!(bench.claim(chunk, 4).await, Claim::Batches(_)));
        claimed.push(chunk);
    }
    assert_eq!(claimed, [urgent.chunk(), equal.chunk(), big.chunk()]);
    assert_eq!(bench.ledger.most_urgent(big.chunk()).await.unwrap(), None);
}
