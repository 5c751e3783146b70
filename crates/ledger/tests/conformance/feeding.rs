//! What goes to the queue, and what comes back from a queue that lost it.

use crate::{Bench, at, bench::REPLAY_AFTER, on_both};
use jiff::SignedDuration;
use ledger::Claim;

on_both! {
    the_backlog_has_what_is_due_by_priority
    of_two_feeders_one_gets_each_chunk
    a_job_that_was_lost_is_found_again_and_its_waits_grow
    a_lost_job_of_a_paused_campaign_does_not_take_up_the_queue_for_ever
    a_resumed_campaign_is_fed_again
}

async fn the_backlog_has_what_is_due_by_priority(bench: &Bench) {
    let low = bench.campaign("low", &[1]).await;
    let urgent = bench.campaign("urgent", &[2]).await;
    bench.raw.execute(&format!("UPDATE campaigns SET priority = 5 WHERE id = {}", urgent.id)).await.unwrap();
    let later = bench.campaign_with("later", "hello", &[3], |row| row.scheduled_for = Some(at(100))).await;
    let paused = bench.campaign("paused", &[4]).await;
    bench.set_campaign(&paused, "paused").await;
    let now = bench.ledger.backlog(10, REPLAY_AFTER, at(1)).await.unwrap();
    let order: Vec<_> = now.waiting.iter().map(|waiting| (waiting.campaign, waiting.priority)).collect();
    assert_eq!(order, [(urgent.id, 5), (low.id, 0)]);
    assert_eq!(now.waiting[1].chunks, low.chunks);
    let then = bench.ledger.backlog(10, REPLAY_AFTER, at(100)).await.unwrap();
    assert!(then.waiting.iter().any(|waiting| waiting.campaign == later.id));
}

async fn of_two_feeders_one_gets_each_chunk(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    assert!(bench.feed(one.chunk(), 1).await);
    // The second had read the backlog before the first marked the chunk.
    assert!(!bench.feed(one.chunk(), 2).await);
    assert!(!bench.feed(one.chunk(), 1).await);
}

async fn a_job_that_was_lost_is_found_again_and_its_waits_grow(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    assert!(bench.feed(one.chunk(), 0).await);
    let lost = async |second| bench.ledger.backlog(10, REPLAY_AFTER, at(second)).await.unwrap().lost;
    assert_eq!(lost(20).await, []);
    assert_eq!(lost(21).await, [(one.id, one.chunk())]);
    assert!(bench.feed(one.chunk(), 21).await);
    // A worker that waits for the gateway leaves jobs on the queue: what is replayed must not pile up there.
    assert_eq!(lost(60).await, []);
    assert_eq!(lost(62).await, [(one.id, one.chunk())]);
    let (mut now, mut replays) = (62, 0);
    while now < 62 + 24 * 3600 {
        now += 20;
        if bench.ledger.feed(&[one.chunk()], REPLAY_AFTER, at(now)).await.unwrap().len() == 1 {
            replays += 1;
        }
    }
    assert!((20..40).contains(&replays), "{replays} replays a day");
    // A claim ends the count.
    assert!(matches!(bench.claim(one.chunk(), now).await, Claim::Batches(_)));
}

async fn a_lost_job_of_a_paused_campaign_does_not_take_up_the_queue_for_ever(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    assert!(bench.feed(one.chunk(), 0).await);
    bench.set_campaign(&one, "paused").await;
    let backlog = bench.ledger.backlog(10, REPLAY_AFTER, at(30)).await.unwrap();
    assert_eq!((backlog.outstanding, backlog.lost), (1, vec![(one.id, one.chunk())]));
    assert!(bench.feed(one.chunk(), 30).await);
    assert!(matches!(bench.claim(one.chunk(), 31).await, Claim::Paused));
    let backlog = bench.ledger.backlog(10, REPLAY_AFTER, at(31) + SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!((backlog.outstanding, backlog.lost.len(), backlog.waiting.len()), (0, 0, 0));
}

async fn a_resumed_campaign_is_fed_again(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    bench.feed(one.chunk(), 0).await;
    bench.set_campaign(&one, "paused").await;
    assert!(matches!(bench.claim(one.chunk(), 1).await, Claim::Paused));
    assert!(bench.ledger.backlog(10, REPLAY_AFTER, at(2)).await.unwrap().waiting.is_empty());
    bench.set_campaign(&one, "active").await;
    assert_eq!(bench.ledger.backlog(10, REPLAY_AFTER, at(3)).await.unwrap().waiting[0].chunks, one.chunks);
    assert_eq!(bench.batches(one.chunk(), 3).await.len(), 1);
}
