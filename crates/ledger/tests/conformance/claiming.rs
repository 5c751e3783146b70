//! Claiming a chunk and starting its batches.

use crate::{
    Bench, at,
    bench::{accepted, msisdn},
    on_both,
};
use campaign::{Outcome, SmsId, outcome::NotSent};
use jiff::SignedDuration;
use ledger::{Claim, NewRow, Start, Verdict};

on_both! {
    a_redelivered_job_claims_nothing
    a_paused_campaign_claims_nothing_and_its_chunk_waits
    what_expired_or_opted_out_is_settled_inside_the_claim
    a_batch_names_its_rows_in_order_and_no_more_than_the_limit
    rows_come_out_of_their_pack_as_they_went_in
    a_text_behind_another_open_one_waits_and_says_so
    a_text_behind_a_held_one_says_so
    two_rows_to_one_number_in_one_chunk_go_one_after_the_other
    a_batch_that_was_taken_back_does_not_start
    a_batch_of_a_paused_campaign_does_not_start
    a_batch_with_an_expired_row_does_not_start
    a_process_that_was_taken_for_dead_starts_nothing
    a_batch_whose_start_was_not_answered_is_taken_back
    a_row_that_comes_back_to_a_chunk_with_scheduled_rows_does_not_wait_for_them
}

async fn a_redelivered_job_claims_nothing(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    assert!(matches!(bench.claim(one.chunk(), 0).await, Claim::NotForUs), "it was not fed");
    assert_eq!(bench.batches(one.chunk(), 1).await.len(), 1);
    assert!(matches!(bench.claim(one.chunk(), 2).await, Claim::NotForUs));
    assert!(!bench.feed(one.chunk(), 3).await);
    assert!(matches!(bench.claim(campaign::ChunkId(999), 3).await, Claim::NotForUs));
}

async fn a_paused_campaign_claims_nothing_and_its_chunk_waits(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    bench.feed(one.chunk(), 1).await;
    bench.set_campaign(&one, "paused").await;
    assert!(matches!(bench.claim(one.chunk(), 2).await, Claim::Paused));
    assert_eq!(bench.chunk(one.chunk()).await.0, "waiting");
    assert_eq!(bench.states(&one).await, "queued");
}

async fn what_expired_or_opted_out_is_settled_inside_the_claim(bench: &Bench) {
    let one = bench
        .campaign_with("one", "hello", &[1, 2, 3], |row| {
            row.valid_until = (row.destination == Some(msisdn(2))).then_some(at(10));
        })
        .await;
    bench.opt_out(3).await;
    let batches = bench.batches(one.chunk(), 10).await;
    assert_eq!(batches[0].destinations, [msisdn(1)]);
    assert_eq!(bench.states(&one).await, "sending expired suppressed");
}

async fn rows_come_out_of_their_pack_as_they_went_in(bench: &Bench) {
    let spelled = |row: &mut NewRow| {
        row.destination_raw = match (row.row_number % 3, row.destination) {
            (0, Some(number)) => format!("+{number}"),
            (1, Some(number)) => number.to_string(),
            _ => "07700 \"900\"\t\\".to_owned(),
        };
        row.reference = row.row_number.is_multiple_of(2).then(|| format!("é {}", row.row_number));
    };
    let columns = [
        "id",
        "row_number",
        "destination_raw",
        "destination",
        "sender",
        "text_id",
        "reference",
        "valid_until",
        "queued_at",
    ];
    let columns = columns.map(|column| format!("coalesce(CAST({column} AS TEXT), '-')")).join(" || ' ' || ");
    let numbers: Vec<u64> = (0..402).collect();
    let alike = bench.campaign_with("alike", "hello", &numbers[..201], spelled).await;
    let mixed = bench.campaign_with("mixed", "hello", &numbers[201..], |row| {
        spelled(row);
        row.valid_until = (row.row_number == 5).then_some(at(900));
    });
    for of in [alike, mixed.await] {
        let all = format!("SELECT {columns} FROM all_rows WHERE campaign_id = {} ORDER BY id", of.id);
        let open = format!("SELECT count(*) FROM messages WHERE campaign_id = {}", of.id);
        let packed = bench.raw.strings(&all).await;
        assert_eq!((packed.len(), bench.raw.int(&open).await), (201, 0));
        let batches = bench.batches(of.chunk(), 1).await;
        assert_eq!(batches.iter().map(|batch| batch.destinations.len()).collect::<Vec<_>>(), [100, 100, 1]);
        assert_eq!(bench.raw.strings(&all).await, packed);
        let sending = format!(
            "{open} AND state = 'attempted' AND live = 1 AND attempts = 1 AND attempted_at = {}",
            at(1).as_millisecond()
        );
        assert_eq!(bench.raw.int(&sending).await, 201);
        let by = format!(
            "SELECT sent_via || ' ' || count(*) FROM messages WHERE campaign_id = {} GROUP BY attempt_id, sent_via ORDER BY min(id)",
            of.id
        );
        assert_eq!(bench.raw.strings(&by).await, ["bulk 100", "bulk 100", "send 1"]);
    }
    assert_eq!(bench.raw.int("SELECT count(*) FROM packs").await, 0);
}

async fn a_batch_names_its_rows_in_order_and_no_more_than_the_limit(bench: &Bench) {
    let numbers: Vec<u64> = (0..250).collect();
    let one = bench.campaign("one", &numbers).await;
    let batches = bench.batches(one.chunk(), 1).await;
    assert_eq!(batches.iter().map(|batch| batch.destinations.len()).collect::<Vec<_>>(), [100, 100, 50]);
    assert!(
        batches
            .iter()
            .flat_map(|batch| &batch.destinations)
            .eq(&numbers.iter().map(|n| msisdn(*n)).collect::<Vec<_>>())
    );
    assert_eq!((&*batches[0].text, batches[0].sender.as_str()), ("hello", "SHOP"));
}

async fn a_text_behind_another_open_one_waits_and_says_so(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let two = bench.campaign_with("two", "another", &[1, 2], |_| {}).await;
    let first = bench.sending(one.chunk(), 1).await;
    assert_eq!(bench.batches(two.chunk(), 2).await[0].destinations, [msisdn(2)]);
    assert_eq!(bench.reason(&two, 0).await, "waits for an earlier text to the same number from the same sender");
    bench.finish(two.chunk(), 3).await;
    assert_eq!(bench.chunk(two.chunk()).await, ("waiting".to_owned(), 7));
    bench.record(&first, &Outcome::Accepted { sms_id: Some(SmsId(5)) }, 4).await;
    let batches = bench.batches(two.chunk(), 8).await;
    assert_eq!(batches[0].destinations, [msisdn(1)]);
    assert_eq!(bench.reason(&two, 0).await, "");
}

async fn a_text_behind_a_held_one_says_so(bench: &Bench) {
    let held = bench.held("held", 1, 0).await;
    let two = bench.campaign_with("two", "another", &[1], |_| {}).await;
    assert!(bench.batches(two.chunk(), 10).await.is_empty());
    bench.finish(two.chunk(), 10).await;
    assert_eq!(bench.reason(&two, 0).await, "waits behind a held row to the same number from the same sender");
    assert_eq!(bench.ledger.todo().await.unwrap().chunks, 0, "only a person can bring it on");
    assert!(bench.decide(&held, 0, Verdict::Cancel, 11).await);
    assert_eq!(bench.batches(two.chunk(), 15).await.len(), 1);
}

async fn two_rows_to_one_number_in_one_chunk_go_one_after_the_other(bench: &Bench) {
    let one = bench.campaign("one", &[1, 1, 2]).await;
    let batches = bench.batches(one.chunk(), 1).await;
    assert_eq!(batches[0].destinations, [msisdn(1), msisdn(2)]);
    assert_eq!(bench.states(&one).await, "sending queued sending");
    bench.finish(one.chunk(), 2).await;
    assert_eq!(bench.chunk(one.chunk()).await, ("waiting".to_owned(), 6));
    assert_eq!(bench.reason(&one, 1).await, "waits for an earlier text to the same number from the same sender");
}

async fn a_batch_that_was_taken_back_does_not_start(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    bench.take_back(batch.unsent(), 2).await;
    assert_eq!(bench.states(&one).await, "queued queued");
    assert!(matches!(bench.start(batch, 3).await, Start::TakenBack));
    bench.finish(one.chunk(), 3).await;
    assert_eq!(bench.raw.int("SELECT max(attempts) FROM all_rows").await, 0, "it was not an attempt");
    assert_eq!(bench.batches(one.chunk(), 4).await.len(), 1);
}

async fn a_batch_of_a_paused_campaign_does_not_start(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    bench.set_campaign(&one, "paused").await;
    assert!(matches!(bench.start(batch, 2).await, Start::TakenBack));
    bench.finish(one.chunk(), 2).await;
    assert_eq!((bench.states(&one).await, bench.chunk(one.chunk()).await.0), ("queued".into(), "waiting".into()));
}

async fn a_batch_with_an_expired_row_does_not_start(bench: &Bench) {
    let one = bench
        .campaign_with("one", "hello", &[1, 2], |row| {
            row.valid_until = (row.destination == Some(msisdn(2))).then_some(at(10));
        })
        .await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    assert!(matches!(bench.start(batch, 10).await, Start::TakenBack));
    bench.finish(one.chunk(), 10).await;
    bench.sending(one.chunk(), 11).await;
    assert_eq!(bench.states(&one).await, "sending expired");
}

async fn a_process_that_was_taken_for_dead_starts_nothing(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let other = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let batch = bench.batches_as(&other, one.chunk(), 1).await.remove(0);
    bench.raw.execute(&format!("UPDATE owners SET ended_at = 1 WHERE id = {}", other.id())).await.unwrap();
    assert!(!other.beat(at(2)).await.unwrap());
    assert!(matches!(bench.start(batch, 2).await, Start::TakenBack));
    bench.sweep_owners(3).await;
    assert_eq!(bench.batches(one.chunk(), 4).await.len(), 1);
}

async fn a_batch_whose_start_was_not_answered_is_taken_back(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    let unsent = batch.unsent();
    bench.started(batch, 2).await;
    bench.take_back(unsent, 3).await;
    bench.take_back(unsent, 3).await;
    bench.finish(one.chunk(), 3).await;
    assert_eq!(bench.states(&one).await, "queued");
    let sending = bench.sending(one.chunk(), 4).await;
    bench.take_back(unsent, 5).await;
    assert_eq!(bench.states(&one).await, "sending", "an old batch takes nothing from a new one");
    bench.record(&sending, &accepted(), 6).await;
}

async fn a_row_that_comes_back_to_a_chunk_with_scheduled_rows_does_not_wait_for_them(bench: &Bench) {
    let tomorrow = at(0) + SignedDuration::from_hours(24);
    let one = bench
        .campaign_with("one", "hello", &[1, 2], |row| {
            row.scheduled_for = (row.destination == Some(msisdn(2))).then_some(tomorrow);
        })
        .await;
    let sending = bench.sending(one.chunk(), 1).await;
    // The chunk is put to rest while the attempt is still open: its worker's call hangs and is resolved later.
    bench.finish(one.chunk(), 2).await;
    assert_eq!(bench.chunk(one.chunk()).await, ("waiting".to_owned(), 24 * 3600));
    let refused = Outcome::NotSent { why: NotSent::NoConnection, retry_after: None };
    bench.record(&sending, &refused, 3).await;
    assert_eq!(bench.chunk(one.chunk()).await, ("waiting".to_owned(), 5));
    assert_eq!(bench.batches(one.chunk(), 5).await[0].destinations, [msisdn(1)]);
}
