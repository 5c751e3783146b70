//! What each outcome makes of the rows, and what the dead and the silent leave behind.

use crate::{
    Bench, at,
    bench::{LEASE, accepted, timed_out},
    on_both,
};
use campaign::{
    Outcome, SmsId,
    outcome::{Blame, NotSent},
};
use ledger::{Recorded, Start};
use std::time::Duration;

on_both! {
    an_accepted_batch_waits_for_the_list
    an_accepted_single_has_its_id_at_once
    an_ambiguous_batch_is_unknown
    an_outcome_is_recorded_once
    a_batch_that_was_not_sent_waits_longer_each_time
    a_batch_that_is_too_large_is_halved_down_to_one
    a_refusal_rejects_the_blamed_rows_alone
    a_refusal_that_blames_no_row_rejects_all
    a_late_record_after_the_reconciler_decided_changes_nothing
    a_late_record_of_a_silent_worker_counts
    a_batch_that_was_never_begun_is_queued_again_when_its_worker_died
    a_batch_that_was_never_begun_is_queued_again_after_the_lease
    a_begun_batch_of_a_dead_worker_is_unknown_with_an_end
    a_begun_batch_of_a_silent_worker_is_unknown_without_an_end
    a_chunk_whose_worker_died_before_it_was_finished_is_woken
    a_chunk_whose_finish_was_lost_is_finished_after_the_lease
}

fn not_sent(why: NotSent) -> Outcome {
    Outcome::NotSent { why, retry_after: None }
}

async fn an_accepted_batch_waits_for_the_list(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    assert_eq!(bench.record(&batch, &accepted(), 2).await, Recorded::Done);
    bench.finish(one.chunk(), 2).await;
    assert_eq!(bench.states(&one).await, "accepted accepted");
    assert_eq!(bench.chunk(one.chunk()).await.0, "done");
    let open = bench.open().await;
    assert!(open[0].accepted && open[0].ended_at == Some(at(2)) && open[0].recipients == 2);
    assert!(!bench.ledger.todo().await.unwrap().is_empty());
}

async fn an_accepted_single_has_its_id_at_once(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    bench.record(&batch, &Outcome::Accepted { sms_id: Some(SmsId(77)) }, 2).await;
    assert!(bench.open().await.is_empty());
    let due = bench.ledger.due_details(10, at(12)).await.unwrap();
    assert_eq!((due.len(), due[0].sms_id), (1, SmsId(77)));
}

async fn an_ambiguous_batch_is_unknown(bench: &Bench) {
    let (one, attempt) = bench.lost("one", &[1, 2], 1).await;
    assert_eq!(bench.states(&one).await, "unknown unknown");
    assert_eq!(bench.reason(&one, 0).await, "the gateway did not answer in time");
    assert!(!attempt.accepted && attempt.ended_at == Some(at(2)));
    assert_eq!(bench.ledger.absent_rows(&attempt).await.unwrap(), [one.row(0), one.row(1)]);
}

async fn an_outcome_is_recorded_once(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    bench.record(&batch, &accepted(), 2).await;
    // The answer of the first commit was lost, so the worker records it again.
    assert_eq!(bench.record(&batch, &accepted(), 3).await, Recorded::ResolvedMeanwhile);
    assert_eq!(bench.record(&batch, &timed_out(), 4).await, Recorded::ResolvedMeanwhile);
    assert_eq!(bench.states(&one).await, "accepted accepted");
}

async fn a_batch_that_was_not_sent_waits_longer_each_time(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let mut now = 0;
    for (wait, retry_after) in [(2, None), (4, None), (30, Some(Duration::from_secs(30))), (16, None)] {
        let batch = bench.sending(one.chunk(), now).await;
        let outcome = Outcome::NotSent { why: NotSent::RateLimited, retry_after };
        bench.record(&batch, &outcome, now).await;
        bench.finish(one.chunk(), now).await;
        assert_eq!(bench.states(&one).await, "queued queued");
        assert_eq!(bench.chunk(one.chunk()).await, ("waiting".to_owned(), now + wait));
        now += wait;
    }
    assert_eq!(bench.reason(&one, 0).await, "the gateway's call budget was spent (429)");
}

async fn a_batch_that_is_too_large_is_halved_down_to_one(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2, 3, 4]).await;
    let batch = bench.sending(one.chunk(), 0).await;
    bench.record(&batch, &not_sent(NotSent::TooLarge), 1).await;
    bench.finish(one.chunk(), 1).await;
    let halves = bench.batches(one.chunk(), 10).await;
    assert_eq!(halves.iter().map(|batch| batch.destinations.len()).collect::<Vec<_>>(), [2, 2]);
    for half in halves {
        let half = bench.started(half, 10).await;
        bench.record(&half, &not_sent(NotSent::TooLarge), 10).await;
    }
    bench.finish(one.chunk(), 10).await;
    for single in bench.batches(one.chunk(), 20).await {
        assert_eq!(single.destinations.len(), 1);
        let single = bench.started(single, 20).await;
        bench.record(&single, &not_sent(NotSent::TooLarge), 20).await;
    }
    assert_eq!(bench.states(&one).await, "rejected rejected rejected rejected");
}

async fn a_refusal_rejects_the_blamed_rows_alone(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2, 3]).await;
    let batch = bench.sending(one.chunk(), 0).await;
    let outcome = Outcome::Rejected { blame: Blame::Destinations(vec![1]), message: "no such number".to_owned() };
    bench.record(&batch, &outcome, 1).await;
    bench.finish(one.chunk(), 1).await;
    assert_eq!(bench.states(&one).await, "queued rejected queued");
    assert_eq!(bench.reason(&one, 1).await, "the gateway refused it: no such number");
    let batch = bench.sending(one.chunk(), 3).await;
    let outcome = Outcome::Rejected { blame: Blame::All, message: "no credit".to_owned() };
    bench.record(&batch, &outcome, 4).await;
    bench.finish(one.chunk(), 4).await;
    assert_eq!(bench.states(&one).await, "rejected rejected rejected");
}

async fn a_refusal_that_blames_no_row_rejects_all(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 0).await;
    let outcome = Outcome::Rejected { blame: Blame::Destinations(vec![9]), message: "what?".to_owned() };
    bench.record(&batch, &outcome, 1).await;
    assert_eq!(bench.states(&one).await, "rejected rejected", "else it would be refused for ever");
}

async fn a_late_record_after_the_reconciler_decided_changes_nothing(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 0).await;
    bench.sweep_owners(61).await;
    let attempt = bench.open().await.remove(0);
    bench.hold(&attempt, &[one.row(0), one.row(1)], 62).await;
    for outcome in [accepted(), timed_out(), not_sent(NotSent::NoConnection)] {
        assert_eq!(bench.record(&batch, &outcome, 63).await, Recorded::ResolvedMeanwhile);
        assert_eq!(bench.states(&one).await, "held held");
    }
}

async fn a_late_record_of_a_silent_worker_counts(bench: &Bench) {
    let (one, two) = (bench.campaign("one", &[1, 2]).await, bench.campaign("two", &[3, 4]).await);
    let (first, second) = (bench.sending(one.chunk(), 0).await, bench.sending(two.chunk(), 0).await);
    assert_eq!(bench.sweep_owners(61).await, 2);
    assert_eq!(bench.record(&first, &accepted(), 62).await, Recorded::Done);
    assert_eq!(bench.states(&one).await, "accepted accepted");
    assert_eq!(bench.record(&second, &not_sent(NotSent::NoConnection), 62).await, Recorded::Done);
    assert_eq!(bench.states(&two).await, "queued queued");
}

async fn a_batch_that_was_never_begun_is_queued_again_when_its_worker_died(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let batch = bench.batches_as(&other, one.chunk(), 1).await.remove(0);
    bench.sweep_owners(2).await;
    assert_eq!(bench.states(&one).await, "sending sending", "its worker lives");
    other.end(at(3)).await.unwrap();
    assert_eq!(bench.sweep_owners(4).await, 0);
    assert_eq!(bench.states(&one).await, "queued queued");
    assert_eq!(bench.chunk(one.chunk()).await.0, "waiting");
    assert!(matches!(bench.start(batch, 5).await, Start::TakenBack));
}

async fn a_batch_that_was_never_begun_is_queued_again_after_the_lease(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    bench.sweep_owners(1 + LEASE.as_secs()).await;
    assert_eq!(bench.states(&one).await, "sending");
    bench.sweep_owners(2 + LEASE.as_secs()).await;
    assert_eq!((bench.states(&one).await, bench.chunk(one.chunk()).await.0), ("queued".into(), "waiting".into()));
    // The frozen worker wakes: its batch is another's by now.
    bench.sending(one.chunk(), 70).await;
    assert!(matches!(bench.start(batch, 71).await, Start::TakenBack));
    assert_eq!(bench.states(&one).await, "sending");
}

async fn a_begun_batch_of_a_dead_worker_is_unknown_with_an_end(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    bench.sending_as(&other, one.chunk(), 1).await;
    other.end(at(5)).await.unwrap();
    assert_eq!(bench.sweep_owners(6).await, 1);
    assert_eq!(bench.states(&one).await, "unknown unknown");
    // Its request may have lasted as long as a request can.
    assert_eq!(bench.open().await[0].ended_at, Some(at(1 + 75)));
    assert_eq!(bench.sweep_owners(7).await, 0);
    assert_eq!(bench.chunk(one.chunk()).await.0, "done");
}

async fn a_begun_batch_of_a_silent_worker_is_unknown_without_an_end(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    bench.sending_as(&other, one.chunk(), 1).await;
    assert_eq!(bench.sweep_owners(62).await, 1);
    let open = bench.open().await.remove(0);
    assert_eq!((bench.states(&one).await, open.ended_at), ("unknown".into(), None));
    assert_eq!(bench.sweep_owners(200).await, 0);
    other.end(at(300)).await.unwrap();
    bench.sweep_owners(301).await;
    assert_eq!(bench.open().await[0].ended_at, Some(at(300)), "now its death is known");
}

async fn a_chunk_whose_worker_died_before_it_was_finished_is_woken(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let batch = bench.sending_as(&other, one.chunk(), 1).await;
    bench.record(&batch, &not_sent(NotSent::Unauthorized), 2).await;
    assert_eq!(bench.chunk(one.chunk()).await.0, "working");
    other.end(at(3)).await.unwrap();
    bench.sweep_owners(4).await;
    assert_eq!(bench.chunk(one.chunk()).await.0, "waiting");
    assert_eq!(bench.batches(one.chunk(), 10).await.len(), 1);
}

async fn a_chunk_whose_finish_was_lost_is_finished_after_the_lease(bench: &Bench) {
    // The commit of the claim was not answered, or the ledger was away when the chunk was to be finished. The worker
    // lives on and knows nothing of it.
    let (one, two) = (bench.campaign("one", &[1]).await, bench.campaign_with("two", "another", &[1], |_| {}).await);
    let batch = bench.sending(one.chunk(), 1).await;
    assert!(bench.batches(two.chunk(), 1).await.is_empty());
    bench.record(&batch, &accepted(), 2).await;
    bench.sweep_owners(30).await;
    assert_eq!(
        (bench.chunk(one.chunk()).await.0, bench.chunk(two.chunk()).await.0),
        ("working".into(), "working".into())
    );
    bench.sweep_owners(62).await;
    assert_eq!((bench.chunk(one.chunk()).await.0, bench.chunk(two.chunk()).await.0), ("done".into(), "waiting".into()));
}
