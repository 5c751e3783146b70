//! Pausing, resuming, cancelling and retrying campaigns, and rows whose time passes while they wait.

use crate::{
    Bench, at,
    bench::{Launched, REPLAY_AFTER, accepted, timed_out},
    on_both,
};
use campaign::{Outcome, outcome::NotSent};
use ledger::{By, CampaignState, Claim, Delivery, Start, Steered, Swept};

on_both! {
    a_pause_stops_claims_and_starts_and_a_resume_feeds_again
    a_cancelled_campaign_ends_what_is_unsent_and_leaves_what_is_in_flight
    what_comes_back_to_a_cancelled_campaign_is_cancelled
    a_cancel_that_crashed_in_the_middle_is_finished_by_the_sweep
    what_has_passed_is_expired_while_its_campaign_is_paused
    exactly_the_failed_rows_are_retried_once
    two_retries_at_one_moment_text_nobody_twice
}

const ANN: By<'static> = By { who: "ann", reason: Some("the price is wrong") };

async fn steer(bench: &Bench, what: &str, of: &Launched, second: i64) -> Steered {
    let now = at(second);
    let steered = match what {
        "pause" => bench.ledger.pause(of.id, ANN, now).await,
        "resume" => bench.ledger.resume(of.id, ANN, now).await,
        _ => bench.ledger.cancel(of.id, ANN, now).await,
    };
    bench.stepped(second).await;
    steered.unwrap()
}

async fn sweep_cancelled(bench: &Bench, chunks_max: u16, second: i64) -> Swept {
    let swept = bench.ledger.sweep_cancelled(None, chunks_max, at(second)).await.unwrap();
    bench.stepped(second).await;
    swept
}

fn refused() -> Outcome {
    Outcome::NotSent { why: NotSent::RateLimited, retry_after: None }
}

async fn a_pause_stops_claims_and_starts_and_a_resume_feeds_again(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let two = bench.campaign("two", &[2]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    assert!(bench.feed(two.chunk(), 1).await);
    assert_eq!(steer(bench, "pause", &one, 2).await, Steered::Done);
    assert_eq!(steer(bench, "pause", &two, 2).await, Steered::Done);
    assert_eq!(steer(bench, "pause", &two, 2).await, Steered::Was(CampaignState::Paused));
    assert!(matches!(bench.start(batch, 3).await, Start::TakenBack));
    bench.finish(one.chunk(), 3).await;
    assert!(matches!(bench.claim(two.chunk(), 3).await, Claim::NotForUs), "its job is stale");
    let backlog = bench.ledger.backlog(10, REPLAY_AFTER, at(4)).await.unwrap();
    assert_eq!((backlog.outstanding, backlog.waiting.len()), (0, 0), "a paused campaign takes no place on the queue");

    assert_eq!(steer(bench, "resume", &two, 5).await, Steered::Done);
    assert_eq!(bench.ledger.backlog(10, REPLAY_AFTER, at(5)).await.unwrap().waiting[0].chunks, two.chunks);
    bench.sending(two.chunk(), 6).await;
    let told = bench.raw.strings("SELECT kind || ' ' || who || ' ' || reason FROM events WHERE kind = 'resumed'").await;
    assert_eq!(told, ["resumed ann the price is wrong"]);
}

async fn a_cancelled_campaign_ends_what_is_unsent_and_leaves_what_is_in_flight(bench: &Bench) {
    let numbers: Vec<u64> = (0..101).collect();
    let one = bench.campaign("one", &numbers).await;
    let mut batches = bench.batches(one.chunk(), 1).await;
    let (last, first) = (batches.remove(1), batches.remove(0));
    let sending = bench.started(first, 2).await;
    assert_eq!(steer(bench, "cancel", &one, 3).await, Steered::Done);
    assert_eq!(steer(bench, "resume", &one, 3).await, Steered::Was(CampaignState::Cancelled));
    assert_eq!(steer(bench, "pause", &one, 3).await, Steered::Was(CampaignState::Cancelled));
    assert!(matches!(bench.start(last, 4).await, Start::TakenBack));
    assert_eq!(sweep_cancelled(bench, 10, 4).await.rows, 0, "its worker still has the chunk");
    assert!(!bench.ledger.todo().await.unwrap().is_empty());
    bench.record(&sending, &accepted(), 5).await;
    bench.finish(one.chunk(), 5).await;
    let rest = sweep_cancelled(bench, 10, 6).await;
    assert_eq!(bench.states(&one).await, format!("{}cancelled", "accepted ".repeat(100)));
    assert!(rest.rows <= 1);
    assert_eq!(bench.reason(&one, 100).await, "cancelled by ann: the price is wrong");
    assert_eq!(bench.ledger.todo().await.unwrap().chunks, 0);
}

async fn what_comes_back_to_a_cancelled_campaign_is_cancelled(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let sending = bench.sending(one.chunk(), 1).await;
    bench.finish(one.chunk(), 1).await;
    steer(bench, "cancel", &one, 2).await;
    assert_eq!(sweep_cancelled(bench, 10, 2).await.rows, 0);
    bench.record(&sending, &refused(), 3).await;
    assert_eq!(bench.states(&one).await, "queued");
    assert_eq!(sweep_cancelled(bench, 10, 3).await, Swept { chunks: 1, rows: 1 });
    assert_eq!(sweep_cancelled(bench, 10, 3).await, Swept::default());
    assert_eq!(bench.states(&one).await, "cancelled");
}

async fn a_cancel_that_crashed_in_the_middle_is_finished_by_the_sweep(bench: &Bench) {
    let all = [bench.campaign("one", &[1, 2]).await, bench.campaign("two", &[3]).await];
    let other = bench.campaign("other", &[4]).await;
    for one in &all {
        steer(bench, "cancel", one, 1).await;
    }
    assert_eq!(sweep_cancelled(bench, 1, 2).await, Swept { chunks: 1, rows: 2 });
    assert_eq!(bench.states(&all[1]).await, "queued");
    assert_eq!(sweep_cancelled(bench, 1, 2).await, Swept { chunks: 1, rows: 1 });
    assert_eq!(bench.states(&all[1]).await, "cancelled");
    assert_eq!(bench.states(&other).await, "queued");
}

async fn what_has_passed_is_expired_while_its_campaign_is_paused(bench: &Bench) {
    let until = |second| move |row: &mut ledger::NewRow| row.valid_until = Some(at(second));
    let one = bench.campaign_with("one", "hello", &[1, 2], until(10)).await;
    let back = bench.campaign_with("back", "hello", &[3, 4], until(40)).await;
    steer(bench, "pause", &one, 1).await;
    let sweep = async |second| {
        let swept = bench.ledger.sweep_expired(10, at(second)).await.unwrap();
        bench.stepped(second).await;
        swept
    };
    assert_eq!(sweep(9).await, Swept::default());
    assert_eq!(sweep(10).await, Swept { chunks: 1, rows: 2 });
    assert_eq!((bench.states(&one).await, bench.chunk(one.chunk()).await.0), ("expired expired".into(), "done".into()));
    // Rows that come back from the gateway expire too, although the chunk was at rest when they did.
    let sending = bench.sending(back.chunk(), 11).await;
    bench.finish(back.chunk(), 11).await;
    assert_eq!(sweep(40).await.rows, 0, "they are in flight");
    steer(bench, "pause", &back, 41).await;
    bench.record(&sending, &refused(), 42).await;
    assert_eq!(sweep(42).await.rows, 2);
    assert_eq!(bench.states(&back).await, "expired expired");
}

/// A campaign of these numbers of which the first `failed` fail, the next is accepted and the rest are unknown.
async fn failed(bench: &Bench, numbers: &[u64], failed: usize) -> Launched {
    let one = bench.campaign("one", numbers).await;
    let sending = bench.sending(one.chunk(), 1).await;
    bench.record(&sending, &timed_out(), 2).await;
    bench.finish(one.chunk(), 2).await;
    let listed: Vec<_> = (1..)
        .zip(&numbers[..=failed])
        .map(|(id, number)| {
            let delivery = (id <= failed as i64).then_some(Delivery::Failed);
            crate::bench::listed(id, *number, "hello", 1, delivery)
        })
        .collect();
    bench.apply(&listed, 3).await;
    one
}

async fn exactly_the_failed_rows_are_retried_once(bench: &Bench) {
    let one = failed(bench, &[1, 2, 3, 4, 5], 3).await;
    assert_eq!(bench.states(&one).await, "failed failed failed accepted unknown");
    bench.opt_out(2).await;
    let found = bench.ledger.retriable(one.id, None, at(4)).await.unwrap();
    assert_eq!((found.failed, found.opted_out, found.late), (3, 1, 0));
    let retry = bench.ledger.retry_failed(one.id, None, ANN, at(4)).await.unwrap().unwrap();
    bench.stepped(4).await;
    assert_eq!((retry.name.as_str(), retry.rows), ("one-retry", found));
    let columns = "row_number || ' ' || state || ' ' || sender || ' ' || destination_raw";
    let rows = format!("SELECT {columns} FROM all_rows WHERE campaign_id = {} ORDER BY id", retry.id);
    let rows = bench.raw.strings(&rows).await;
    assert_eq!(
        rows.iter().map(|row| &row[..row.len().min(17)]).collect::<Vec<_>>(),
        ["2 queued SHOP 447", "3 suppressed SHOP", "4 queued SHOP 447"]
    );
    assert_eq!(bench.ledger.retry_failed(one.id, None, ANN, at(5)).await.unwrap(), None);
    assert!(bench.ledger.verify().await.unwrap().iter().all(|check| check.holds));
    let parent = format!("SELECT parent_id FROM campaigns WHERE id = {}", retry.id);
    assert_eq!(bench.raw.int(&parent).await, one.id.0);

    // What fails in the retry is retried as the retry's.
    let chunk = bench.ledger.backlog(10, REPLAY_AFTER, at(5)).await.unwrap().waiting[0].chunks[0];
    let sending = bench.sending(chunk, 6).await;
    bench.record(&sending, &accepted(), 7).await;
    bench.finish(chunk, 7).await;
    let listed = [(11, 1), (12, 3)].map(|(id, number)| {
        crate::bench::listed(id, number, "hello", 6, Some(if id == 11 { Delivery::Failed } else { Delivery::Sent }))
    });
    bench.apply(&listed, 8).await;
    assert_eq!(bench.ledger.retry_failed(one.id, None, ANN, at(9)).await.unwrap(), None);
    let again = bench.ledger.retry_failed(retry.id, None, ANN, at(9)).await.unwrap().unwrap();
    bench.stepped(9).await;
    assert_eq!((again.name.as_str(), again.rows.failed), ("one-retry-2", 1));
    assert_eq!(bench.raw.int("SELECT sms_id FROM all_rows WHERE state = 'sent'").await, 12);
}

async fn two_retries_at_one_moment_text_nobody_twice(bench: &Bench) {
    let one = failed(bench, &[1, 2, 3, 4], 3).await;
    let retry = || bench.ledger.retry_failed(one.id, None, ANN, at(5));
    let (a, b) = tokio::join!(retry(), retry());
    bench.stepped(5).await;
    let made: Vec<_> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows").await, 4 + 3);
}
