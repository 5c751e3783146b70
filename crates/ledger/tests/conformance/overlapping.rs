//! What a file that is about to be launched meets in the ledger.

use crate::{Bench, SHOP, at, bench::accepted, bench::msisdn, bench::sender, on_both};
use ledger::Recipient;

on_both! {
    who_got_the_same_text_lately_is_found_with_the_time_and_the_campaign
    what_was_taken_back_or_lies_too_long_ago_is_no_earlier_text
    queued_work_counts_the_calls_of_active_campaigns_that_are_due
    an_earlier_launch_of_the_same_bytes_is_known
}

async fn texted(bench: &Bench, text: &str, numbers: &[u64], since: i64) -> Vec<ledger::Texted> {
    let shop = sender(SHOP);
    let asked: Vec<Recipient<'_>> =
        numbers.iter().map(|number| Recipient { destination: msisdn(*number), sender: &shop, text }).collect();
    let mut found = bench.ledger.texted_since(&asked, at(since)).await.unwrap();
    found.sort_by_key(|texted| (texted.nth, texted.campaign));
    found
}

async fn who_got_the_same_text_lately_is_found_with_the_time_and_the_campaign(bench: &Bench) {
    let launched = bench.campaign("spring", &[1, 2]).await;
    assert!(texted(bench, "hello", &[1, 2], 0).await.is_empty(), "nothing was sent yet");
    let batch = bench.sending(launched.chunk(), 5).await;
    bench.record(&batch, &accepted(), 6).await;
    let same = texted(bench, "hello", &[3, 1, 2], 0).await;
    assert_eq!(same.iter().map(|texted| texted.nth).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((same[0].campaign, same[0].at, same[0].same_text_at), (launched.id, at(5), Some(at(5))));
    assert!(same[0].same_sender);
    let other = texted(bench, "another text", &[1], 0).await;
    assert_eq!((other.len(), other[0].same_text_at), (1, None));
    let names = bench.ledger.names_of(&[launched.id]).await.unwrap();
    assert_eq!(names[&launched.id], "spring");
}

async fn what_was_taken_back_or_lies_too_long_ago_is_no_earlier_text(bench: &Bench) {
    let launched = bench.campaign("spring", &[1]).await;
    let mut batches = bench.batches(launched.chunk(), 5).await;
    bench.take_back(batches.remove(0).unsent(), 6).await;
    assert!(texted(bench, "hello", &[1], 0).await.is_empty());
    bench.finish(launched.chunk(), 6).await;
    let batch = bench.sending(launched.chunk(), 30).await;
    bench.record(&batch, &accepted(), 31).await;
    assert_eq!(texted(bench, "hello", &[1], 30).await.len(), 1);
    assert!(texted(bench, "hello", &[1], 31).await.is_empty());
}

async fn queued_work_counts_the_calls_of_active_campaigns_that_are_due(bench: &Bench) {
    let numbers: Vec<u64> = (1..=7).collect();
    bench.campaign("spring", &numbers).await;
    let later = bench.campaign_with("later", "hello", &[8, 9], |row| row.scheduled_for = Some(at(50))).await;
    let paused = bench.campaign("paused", &[10, 11]).await;
    bench.set_campaign(&paused, "paused").await;
    let work = bench.ledger.queued_work(3, at(1)).await.unwrap();
    assert_eq!((work.rows, work.later), (7, 2));
    assert_eq!((work.calls.bulk, work.calls.single), (2, 1));
    assert_eq!(work.recipients[&sender(SHOP)], 7);
    let work = bench.ledger.queued_work(3, at(60)).await.unwrap();
    assert_eq!((work.rows, work.later, work.calls.to_send()), (9, 0, 4));
    let batch = bench.sending(later.chunk(), 60).await;
    bench.record(&batch, &accepted(), 61).await;
    let work = bench.ledger.queued_work(3, at(62)).await.unwrap();
    assert_eq!((work.rows, work.recipients[&sender(SHOP)]), (7, 9), "its statuses are still to be learned");
}

async fn an_earlier_launch_of_the_same_bytes_is_known(bench: &Bench) {
    assert_eq!(bench.ledger.launched_before(&format!("{:0>64}", "spring")).await.unwrap(), None);
    bench.campaign("spring", &[1]).await;
    let earlier = bench.ledger.launched_before(&format!("{:0>64}", "spring")).await.unwrap().unwrap();
    assert_eq!(earlier, ("spring.csv".to_owned(), at(0), "ann".to_owned()));
}
