//! A ledger that was restored: nothing leaves it, and what the list shows of its queued rows was sent.

use crate::{
    Bench, SHOP, at,
    bench::{Launched, REPLAY_AFTER, accepted, listed, row, sender, text},
    on_both,
};
use campaign::ChunkId;
use jiff::{SignedDuration, Timestamp};
use ledger::{Applied, Claim, Delivery, ImportStart, ListedText, NewChunk, Start};

on_both! {
    nothing_is_fed_claimed_or_begun_in_quarantine
    texts_of_the_gap_are_those_of_queued_rows_and_a_row_that_can_not_be_told_apart_is_held
    a_row_that_can_not_be_told_from_a_sent_one_is_held_although_another_was_open_in_the_backup
    who_waits_behind_an_open_row_is_in_no_attempt
    a_reading_ends_only_the_quarantine_that_it_was_made_for
    a_quarantine_goes_back_to_the_last_sign_of_life_of_a_sender
    a_quarantine_of_a_ledger_that_never_sent_goes_back_to_its_beginning
    a_half_loaded_file_that_was_sent_since_the_backup_is_not_loaded_anew
    a_file_that_was_sent_since_the_backup_and_is_launched_anew_is_held
    a_quarantine_does_not_end_while_a_file_is_loaded
}

async fn begin(bench: &Bench, second: i64) -> bool {
    let began = bench.ledger.begin_quarantine("ann", "the disk was lost", Some(at(0)), at(second)).await.unwrap();
    bench.stepped(second).await;
    began
}

async fn nothing_is_fed_claimed_or_begun_in_quarantine(bench: &Bench) {
    let (one, two) = (bench.campaign("one", &[1]).await, bench.campaign("two", &[2]).await);
    let mut batches = bench.batches(one.chunk(), 1).await;
    assert!(bench.feed(two.chunk(), 1).await);
    let before = bench.ledger.identity().await.unwrap();
    assert!(begin(bench, 2).await);
    assert!(!begin(bench, 3).await, "the first counts");

    assert!(matches!(bench.start(batches.remove(0), 3).await, Start::TakenBack));
    bench.finish(one.chunk(), 3).await;
    assert!(matches!(bench.claim(two.chunk(), 3).await, Claim::Paused));
    let backlog = bench.ledger.backlog(64, REPLAY_AFTER, at(100)).await.unwrap();
    assert!(backlog.waiting.is_empty() && backlog.lost.is_empty());
    assert_eq!((bench.states(&one).await, bench.states(&two).await), ("queued".into(), "queued".into()));

    assert!(bench.ledger.end_quarantine("reconciler", "read back", None, at(101)).await.unwrap());
    assert!(!bench.ledger.end_quarantine("reconciler", "read back", None, at(101)).await.unwrap());
    let after = bench.ledger.identity().await.unwrap();
    assert_ne!(after.name, before.name, "its backups are another ledger now");
    bench.sending(one.chunk(), 102).await;
    bench.sending(two.chunk(), 102).await;
    assert_eq!(bench.ledger.identity().await.unwrap().begun, before.begun + 2);
}

async fn apply(bench: &Bench, texts: &[ListedText], second: i64) -> Applied {
    let (sender, owner) = (sender(SHOP), bench.owner.id());
    let applied = bench
        .ledger
        .apply_restored(&sender, &texts.iter().collect(), SignedDuration::ZERO, owner, at(second))
        .await
        .unwrap();
    // Queued, accepted and sent in one commit.
    bench.forget_states();
    bench.stepped(second).await;
    applied
}

async fn texts_of_the_gap_are_those_of_queued_rows_and_a_row_that_can_not_be_told_apart_is_held(bench: &Bench) {
    let (one, two) = (bench.campaign("one", &[1, 2, 3]).await, bench.campaign("two", &[1, 2]).await);
    begin(bench, 600).await;
    let gap = [
        listed(11, 1, "hello", 3, Some(Delivery::Sent)),
        listed(12, 2, "hello", 3, Some(Delivery::Pending)),
        listed(13, 2, "hello", 4, Some(Delivery::Failed)),
        listed(14, 3, "other words", 4, Some(Delivery::Sent)),
    ];
    assert_eq!(apply(bench, &gap, 601).await, Applied { found: 3, pending: 1, finals: 2, unexplained: 1 });
    assert_eq!(bench.states(&one).await, "sent accepted queued");
    assert_eq!(bench.states(&two).await, "held failed");
    assert!(bench.reason(&two, 0).await.contains("the ledger was restored"));
    let again = Applied { pending: 1, ..Applied::default() };
    assert_eq!(apply(bench, &gap, 602).await, again, "ids are claimed once");
    // It is listed late: then it was sent, too.
    assert_eq!(apply(bench, &[listed(15, 1, "hello", 5, Some(Delivery::Sent))], 603).await.found, 1);
    assert_eq!(bench.states(&two).await, "sent failed");

    bench.ledger.end_quarantine("reconciler", "read back", None, at(700)).await.unwrap();
    let batches = bench.batches(one.chunk(), 701).await;
    assert_eq!(batches.iter().map(|batch| batch.destinations.len()).sum::<usize>(), 1, "only who was not texted");
    for check in bench.ledger.verify().await.unwrap() {
        assert!(check.holds, "{check:?}");
    }
}

async fn accept(bench: &Bench, campaign: &Launched, second: i64) {
    let batch = bench.sending(campaign.chunk(), second).await;
    bench.record(&batch, &accepted(), second).await;
    bench.finish(campaign.chunk(), second).await;
}

/// Three campaigns, each with one row, to the same number from the same sender.
async fn three_to_one_person(bench: &Bench) -> Vec<Launched> {
    let mut rows = Vec::new();
    for name in ["one", "two", "three"] {
        rows.push(bench.campaign(name, &[1]).await);
    }
    rows
}

async fn a_row_that_can_not_be_told_from_a_sent_one_is_held_although_another_was_open_in_the_backup(bench: &Bench) {
    let rows = three_to_one_person(bench).await;
    accept(bench, &rows[0], 1).await;
    begin(bench, 600).await;
    let gap = [listed(11, 1, "hello", 2, Some(Delivery::Sent)), listed(12, 1, "hello", 30, Some(Delivery::Pending))];
    assert_eq!(apply(bench, &gap, 601).await.found, 2);
    let mut states = [bench.states(&rows[1]).await, bench.states(&rows[2]).await];
    states.sort();
    assert_eq!((bench.states(&rows[0]).await.as_str(), states), ("sent", ["accepted".to_owned(), "held".to_owned()]));
    for check in bench.ledger.verify().await.unwrap() {
        assert!(check.holds, "{check:?}");
    }
}

async fn who_waits_behind_an_open_row_is_in_no_attempt(bench: &Bench) {
    let rows = three_to_one_person(bench).await;
    // The list shows its text later than that of the gap.
    accept(bench, &rows[0], 40).await;
    begin(bench, 600).await;
    assert_eq!(apply(bench, &[listed(12, 1, "hello", 2, Some(Delivery::Sent))], 601).await.found, 1);
    let mut states = [bench.states(&rows[1]).await, bench.states(&rows[2]).await];
    states.sort();
    assert_eq!((bench.states(&rows[0]).await.as_str(), states), ("accepted", ["queued".to_owned(), "sent".to_owned()]));

    assert_eq!(apply(bench, &[listed(11, 1, "hello", 41, Some(Delivery::Sent))], 602).await.found, 1);
    bench.ledger.end_quarantine("reconciler", "read back", None, at(700)).await.unwrap();
    let left = if bench.states(&rows[1]).await == "queued" { &rows[1] } else { &rows[2] };
    bench.sending(left.chunk(), 701).await;
    for check in bench.ledger.verify().await.unwrap() {
        assert!(check.holds, "{check:?}");
    }
}

async fn a_reading_ends_only_the_quarantine_that_it_was_made_for(bench: &Bench) {
    let ledger = &bench.ledger;
    assert!(ledger.begin_quarantine("ann", "the disk was lost", Some(at(100)), at(200)).await.unwrap());
    let read = ledger.quarantine().await.unwrap().unwrap();
    ledger.note_read_back(&read, at(201)).await.unwrap();
    let read = ledger.quarantine().await.unwrap().unwrap();
    assert_eq!(read.read_at, Some(at(201)));
    // A person knows better since when it lacks something: a reading from the later time on no longer counts.
    assert!(!ledger.begin_quarantine("ann", "it was older", Some(at(50)), at(202)).await.unwrap());
    ledger.note_read_back(&read, at(203)).await.unwrap();
    assert!(!ledger.end_quarantine("reconciler", "read back", Some((&read, at(203))), at(204)).await.unwrap());
    let wider = ledger.quarantine().await.unwrap().unwrap();
    assert_eq!((wider.since, wider.read_at), (at(50), None));
    ledger.note_read_back(&wider, at(205)).await.unwrap();
    let wider = ledger.quarantine().await.unwrap().unwrap();
    assert!(ledger.end_quarantine("reconciler", "read back", Some((&wider, at(205))), at(206)).await.unwrap());
}

async fn a_quarantine_goes_back_to_the_last_sign_of_life_of_a_sender(bench: &Bench) {
    let worker = bench.ledger.register_owner("worker", "here", std::process::id(), at(1000)).await.unwrap();
    worker.beat(at(2000)).await.unwrap();
    // Who does not send says nothing about when the backup was made.
    bench.owner.beat(at(5000)).await.unwrap();
    assert_eq!(bench.ledger.last_sign_of_life().await.unwrap(), Some(at(2000)));
    assert!(bench.ledger.begin_quarantine("worker", "it was restored", None, at(6000)).await.unwrap());
    let quarantine = bench.ledger.quarantine().await.unwrap().unwrap();
    assert!(quarantine.since <= at(2000) && quarantine.since > at(1000), "{quarantine:?}");
}

async fn a_quarantine_of_a_ledger_that_never_sent_goes_back_to_its_beginning(bench: &Bench) {
    // The only file there is may have been launched after the restore, and been sent before it.
    bench.campaign("spring", &[1]).await;
    assert!(bench.ledger.begin_quarantine("worker", "it was restored", None, at(6000)).await.unwrap());
    let quarantine = bench.ledger.quarantine().await.unwrap().unwrap();
    let made = Timestamp::now();
    assert!(quarantine.since <= made && made.duration_since(quarantine.since) < SignedDuration::from_mins(10));
}

async fn a_half_loaded_file_that_was_sent_since_the_backup_is_not_loaded_anew(bench: &Bench) {
    // The backup was made while a process loaded the first of two chunks; that process is not of this life.
    let loader = bench.ledger.register_owner("test", "here", 1, at(0)).await.unwrap();
    let mut new = bench.new_import("spring", 3, 0);
    new.owner = loader.id();
    let (import, id) = bench.begin(&new, 0).await;
    let rows = (2..).zip([1, 2]).map(|(n, number)| row(import, n, number)).collect();
    let chunk = NewChunk { id: ChunkId::nth(import, 0), campaign: id, texts: vec![text(import, "hello")], rows };
    bench.ledger.append_chunks(import, &[chunk], at(1)).await.unwrap();
    loader.end(at(2)).await.unwrap();

    begin(bench, 600).await;
    // The list shows that the loading was finished and the file sent after the backup.
    assert_eq!(apply(bench, &[listed(11, 1, "hello", 30, Some(Delivery::Sent))], 601).await.found, 1);
    new.owner = bench.owner.id();
    let start = bench.ledger.begin_import(&new, at(700)).await.unwrap();
    assert!(matches!(start, ImportStart::SentSince { .. }), "its other rows were sent, too: {start:?}");
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows WHERE state = 'sent'").await, 1, "what is known stays");
}

async fn a_file_that_was_sent_since_the_backup_and_is_launched_anew_is_held(bench: &Bench) {
    // The backup, of second 0, does not have the file: its texts went out at second 100. `crier run` launches it anew, and
    // its worker finds out afterwards that the ledger was restored.
    let (import, id) = bench.begin(&bench.new_import("spring", 2, 0), 598).await;
    let rows = (2..).zip([1, 2]).map(|(n, number)| row(import, n, number)).collect();
    let chunk = NewChunk { id: ChunkId::nth(import, 0), campaign: id, texts: vec![text(import, "hello")], rows };
    let chunk_id = chunk.id;
    bench.ledger.append_chunks(import, &[chunk], at(599)).await.unwrap();
    bench.ledger.finish_import(import, at(599)).await.unwrap();
    let spring = crate::bench::Launched { import, id, chunks: vec![chunk_id] };
    begin(bench, 600).await;

    let gap = [listed(11, 1, "hello", 100, Some(Delivery::Sent)), listed(12, 3, "hello", 100, Some(Delivery::Sent))];
    for second in [603, 604] {
        // Whether the person was texted for this file or for another, nobody can know: not found, not sent.
        assert_eq!(apply(bench, &gap, second).await.found, 0);
        assert_eq!(bench.states(&spring).await, "held queued");
    }
    assert!(bench.reason(&spring, 0).await.contains("whether its file was launched anew can't be told"));
    bench.ledger.end_quarantine("reconciler", "read back", None, at(700)).await.unwrap();
    let batches = bench.batches(spring.chunk(), 701).await;
    assert_eq!(batches.iter().map(|batch| batch.destinations.len()).sum::<usize>(), 1, "only who was not texted");
}

async fn a_quarantine_does_not_end_while_a_file_is_loaded(bench: &Bench) {
    let ledger = &bench.ledger;
    begin(bench, 600).await;
    let read = async |second: i64| {
        ledger.note_read_back(&ledger.quarantine().await.unwrap().unwrap(), at(second)).await.unwrap();
        ledger.quarantine().await.unwrap().unwrap()
    };
    let ends = async |began: i64, now: i64| {
        let quarantine = read(began - 1).await;
        ledger.end_quarantine("reconciler", "read back", Some((&quarantine, at(began))), at(now)).await.unwrap()
    };
    // Its rows come a chunk at a time: those that come next would be compared with nothing.
    let new = bench.new_import("spring", 1, 0);
    let (import, id) = bench.begin(&new, 700).await;
    assert!(!ends(710, 720).await, "it is being loaded");
    let rows = vec![row(import, 2, 1)];
    let chunk = NewChunk { id: ChunkId::nth(import, 0), campaign: id, texts: vec![text(import, "hello")], rows };
    ledger.append_chunks(import, &[chunk], at(725)).await.unwrap();
    ledger.finish_import(import, at(730)).await.unwrap();
    assert!(!ends(730, 740).await, "it was loaded after the reading had begun");
    // One that stopped in the middle is loaded anew before anything of it is sent.
    let dead = bench.ledger.begin_import(&bench.new_import("summer", 1, 0), at(740)).await.unwrap();
    assert!(matches!(dead, ImportStart::Load { .. }));
    assert!(!ends(790, 795).await);
    assert!(ends(800, 801).await);
}
