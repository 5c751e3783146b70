//! What a person decides about held rows, and what is told of a campaign and its rows afterwards.

use crate::{
    Bench, at,
    bench::{accepted, listed, msisdn, sender},
    on_both,
};
use campaign::{Outcome, RowId, outcome::NotSent, sweep::Window};
use jiff::SignedDuration;
use ledger::{By, Decided, Delivery, LogEntry, NewTimes, NotedReading, Verdict};

on_both! {
    many_rows_are_decided_in_one_commit_with_an_event_each
    the_second_of_two_deciders_is_told_who_came_first
    two_who_decide_the_same_rows_at_once_share_them
    rows_that_waited_behind_a_held_one_get_free
    a_text_that_is_listed_after_its_row_was_taken_for_sent_is_its_own
    an_open_row_takes_a_listed_text_before_a_decided_one
    a_resent_row_goes_out_once_though_its_chunk_was_done
    a_campaigns_log_tells_its_story_in_order
    a_rows_story_has_its_calls_readings_and_decisions
    five_thousand_rows_are_decided_quickly
}

const ANN: By<'static> = By { who: "ann", reason: Some("she asked them") };
const BOB: By<'static> = By { who: "bob", reason: Some("too late") };
const SENT: Option<Delivery> = Some(Delivery::Sent);

/// A campaign of one chunk whose rows are all held.
async fn all_held(bench: &Bench, name: &str, numbers: &[u64]) -> (crate::bench::Launched, Vec<RowId>) {
    let (launched, attempt) = bench.lost(name, numbers, 1).await;
    let rows: Vec<RowId> = (0..).take(numbers.len()).map(|n| launched.row(n)).collect();
    assert_eq!(bench.hold(&attempt, &rows, 3).await, numbers.len() as u64);
    (launched, rows)
}

async fn many_rows_are_decided_in_one_commit_with_an_event_each(bench: &Bench) {
    let (one, rows) = all_held(bench, "one", &[1, 2, 3]).await;
    let missing = RowId(one.row(0).0 + 400);
    let asked = [rows[2], missing, rows[0]];
    let decided = bench.ledger.decide_all(one.id, &asked, Verdict::Cancel, ANN, at(9)).await.unwrap();
    bench.stepped(9).await;
    assert_eq!(decided, [(rows[2], Decided::Done), (missing, Decided::NotThere), (rows[0], Decided::Done)]);
    assert_eq!(bench.states(&one).await, "cancelled held cancelled");
    let events = "SELECT who || ' ' || detail || ' ' || reason || ' ' || CAST(row_id AS TEXT) FROM events
                  WHERE kind = 'decided' ORDER BY id";
    let told = [rows[0], rows[2]].map(|row| format!("ann held row given up she asked them {row}"));
    assert_eq!(bench.raw.strings(events).await, told);
    let found = bench.ledger.held_between(one.id, 2, 99).await.unwrap();
    assert_eq!(found.iter().map(|row| (row.id, row.row_number)).collect::<Vec<_>>(), [(rows[1], 3)]);
    assert_eq!(bench.ledger.row_numbered(one.id, 2).await.unwrap().map(|row| row.id), Some(rows[0]));
    assert_eq!(bench.ledger.row_numbered(one.id, 99).await.unwrap(), None);
}

async fn the_second_of_two_deciders_is_told_who_came_first(bench: &Bench) {
    let (one, rows) = all_held(bench, "one", &[1]).await;
    bench.ledger.decide_all(one.id, &rows, Verdict::AssumeSent, ANN, at(9)).await.unwrap();
    let second = bench.ledger.decide_all(one.id, &rows, Verdict::Resend, BOB, at(10)).await.unwrap();
    bench.stepped(10).await;
    let [(_, Decided::NotHeld { state, by: Some(by) })] = &second[..] else { panic!("{second:?}") };
    assert_eq!((state.name(), by.who.as_str(), by.at), ("sent", "ann", at(9)));
    assert_eq!((by.detail.as_str(), by.reason.as_deref()), ("held row taken for sent", Some("she asked them")));
    assert_eq!(bench.states(&one).await, "sent");
}

async fn two_who_decide_the_same_rows_at_once_share_them(bench: &Bench) {
    let numbers: Vec<u64> = (1..=60).collect();
    let (one, rows) = all_held(bench, "one", &numbers).await;
    let backwards: Vec<RowId> = rows.iter().rev().copied().collect();
    let other = ledger::Ledger::open(&bench.url).await.unwrap();
    let (ann, bob) = tokio::join!(
        bench.ledger.decide_all(one.id, &rows, Verdict::AssumeSent, ANN, at(9)),
        other.decide_all(one.id, &backwards, Verdict::Cancel, BOB, at(9)),
    );
    let done = |decided: &[(RowId, Decided)]| decided.iter().filter(|(_, decided)| *decided == Decided::Done).count();
    let (ann, bob) = (ann.unwrap(), bob.unwrap());
    assert_eq!(done(&ann) + done(&bob), rows.len(), "each row was decided once");
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'decided'").await, rows.len() as i64);
    for (_, decided) in ann.iter().chain(&bob) {
        assert!(matches!(decided, Decided::Done | Decided::NotHeld { by: Some(_), .. }), "{decided:?}");
    }
}

async fn rows_that_waited_behind_a_held_one_get_free(bench: &Bench) {
    let held = bench.held("held", 1, 1).await;
    let behind = bench.campaign_with("behind", "another", &[1], |_| {}).await;
    assert!(bench.batches(behind.chunk(), 10).await.is_empty());
    bench.finish(behind.chunk(), 10).await;
    assert!(bench.ledger.todo().await.unwrap().is_empty(), "it waits for a person alone");
    assert!(bench.decide(&held, 0, Verdict::Cancel, 11).await);
    assert_eq!(bench.ledger.todo().await.unwrap().chunks, 1, "`crier run` must not end before it is sent");
    assert_eq!(bench.batches(behind.chunk(), 20).await.len(), 1);
}

async fn a_text_that_is_listed_after_its_row_was_taken_for_sent_is_its_own(bench: &Bench) {
    let (one, rows) = all_held(bench, "one", &[1, 2]).await;
    bench.ledger.decide_all(one.id, &rows[..1], Verdict::AssumeSent, ANN, at(9)).await.unwrap();
    bench.ledger.decide_all(one.id, &rows[1..], Verdict::Cancel, BOB, at(9)).await.unwrap();
    let list = [listed(1, 1, "hello", 2, SENT), listed(2, 2, "hello", 2, SENT), listed(3, 1, "hello", 3, SENT)];
    let applied = bench.apply(&list, 20).await;
    assert_eq!((applied.found, applied.unexplained), (0, 1), "the third is nobody's");
    assert_eq!(bench.states(&one).await, "sent cancelled", "final states are never left");
    let ids = "SELECT CAST(sms_id AS TEXT) || ' ' || coalesce(gateway_status, '') FROM all_rows ORDER BY id";
    assert_eq!(bench.raw.strings(ids).await, ["1 sent", "2 "]);
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'found'").await, 2);
    assert_eq!(bench.apply(&list, 21).await, ledger::Applied::default(), "ids are claimed once");
}

async fn an_open_row_takes_a_listed_text_before_a_decided_one(bench: &Bench) {
    let (one, rows) = all_held(bench, "one", &[1]).await;
    bench.ledger.decide_all(one.id, &rows, Verdict::AssumeSent, ANN, at(9)).await.unwrap();
    let two = bench.campaign("two", &[1]).await;
    let batch = bench.sending(two.chunk(), 20).await;
    bench.record(&batch, &accepted(), 21).await;
    let applied = bench.apply(&[listed(1, 1, "hello", 21, SENT)], 30).await;
    assert_eq!((applied.found, applied.unexplained), (1, 0));
    assert_eq!((bench.states(&one).await, bench.states(&two).await), ("sent".into(), "sent".into()));
    assert_eq!(bench.apply(&[listed(2, 1, "hello", 2, SENT)], 31).await.unexplained, 0, "that one is the first one's");
}

async fn a_resent_row_goes_out_once_though_its_chunk_was_done(bench: &Bench) {
    let (one, rows) = all_held(bench, "one", &[1, 2]).await;
    assert_eq!(bench.chunk(one.chunk()).await.0, "done");
    bench.ledger.decide_all(one.id, &rows[..1], Verdict::Resend, ANN, at(9)).await.unwrap();
    bench.stepped(9).await;
    let batches = bench.batches(one.chunk(), 10).await;
    assert_eq!(batches.iter().flat_map(|batch| &batch.destinations).collect::<Vec<_>>(), [&msisdn(1)]);
    bench.finish(one.chunk(), 10).await;
    assert!(!bench.feed(one.chunk(), 11).await, "nothing else of it is to be sent");
    assert_eq!(bench.states(&one).await, "sending held");
}

fn kinds(entries: &[LogEntry]) -> Vec<(&str, u64)> {
    entries.iter().map(|entry| (entry.kind.as_str(), entry.times)).collect()
}

async fn a_campaigns_log_tells_its_story_in_order(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let other = bench.campaign("other", &[9]).await;
    let limited = Outcome::NotSent { why: NotSent::RateLimited, retry_after: None };
    for (second, outcome) in [(1, &limited), (11, &limited), (31, &crate::bench::timed_out())] {
        let batch = bench.sending(one.chunk(), second).await;
        bench.record(&batch, outcome, second + 1).await;
        bench.finish(one.chunk(), second + 1).await;
    }
    let attempt = bench.open().await.remove(0);
    bench.hold(&attempt, &[one.row(0), one.row(1)], 40).await;
    bench.ledger.decide_all(one.id, &[one.row(0), one.row(1)], Verdict::Cancel, ANN, at(50)).await.unwrap();
    let log = bench.ledger.log(Some("one")).await.unwrap().unwrap();
    assert_eq!(
        kinds(&log.entries),
        [
            ("launched", 1),
            ("first_sent", 1),
            ("not_sent", 2),
            ("unknown", 1),
            ("held", 1),
            ("decided", 2),
            ("finished", 1)
        ]
    );
    let waits = &log.entries[2];
    assert_eq!((waits.at, waits.until, waits.rows), (at(1), Some(at(12)), Some(4)));
    assert!(waits.detail.contains("429"), "{}", waits.detail);
    let decided = &log.entries[5];
    assert_eq!((decided.who.as_str(), &decided.row_numbers), ("ann", &vec![2, 3]));
    assert_eq!(decided.reason.as_deref(), Some("she asked them"));
    assert!(log.entries[6].detail.contains("2 cancelled"), "{}", log.entries[6].detail);
    let others = bench.ledger.log(Some("other")).await.unwrap().unwrap();
    assert_eq!(kinds(&others.entries), [("launched", 1)]);
    let all = bench.ledger.log(None).await.unwrap().unwrap();
    assert_eq!(kinds(&all.entries), [("launched", 1), ("launched", 1), ("unknown", 1), ("held", 1), ("decided", 2)]);
    assert!(bench.ledger.log(Some("none")).await.unwrap().is_none());
    assert_eq!(bench.states(&other).await, "queued");
}

async fn a_rows_story_has_its_calls_readings_and_decisions(bench: &Bench) {
    let (one, attempt) = bench.lost("one", &[1, 2], 100).await;
    let shop = sender(crate::SHOP);
    let reading = |read: i64, since: i64, until: i64, row: Option<RowId>| NotedReading {
        sender: &shop,
        row,
        window: Window { since: at(since).as_second(), until: at(until).as_second() },
        skew: SignedDuration::ZERO,
        began: at(read),
        listed: Some(3),
        found: 0,
    };
    // Before its call, around it, around it for another row alone, for itself alone, and later than it.
    for reading in [
        reading(110, 50, 90, None),
        reading(111, 91, 108, None),
        reading(112, 91, 108, Some(one.row(1))),
        reading(113, 91, 108, Some(one.row(0))),
        reading(130, 110, 125, None),
    ] {
        bench.ledger.note_reading(&reading, reading.began).await.unwrap();
    }
    let broken_off = NotedReading { listed: None, found: 1, ..reading(115, 91, 108, None) };
    bench.ledger.note_reading(&broken_off, at(117)).await.unwrap();
    bench.hold(&attempt, &[one.row(0), one.row(1)], 140).await;
    bench.ledger.decide_all(one.id, &[one.row(0)], Verdict::AssumeSent, ANN, at(150)).await.unwrap();
    let story = bench.ledger.story("one", 2).await.unwrap().unwrap();
    let read: Vec<_> = story.readings.iter().map(|reading| (reading.read_at, reading.only_this_number)).collect();
    assert_eq!(read, [(at(111), false), (at(113), true)]);
    let events: Vec<_> = story.events.iter().map(|event| (event.kind.as_str(), event.who.as_str())).collect();
    assert_eq!(events, [("unknown", "worker"), ("held", "reconciler"), ("decided", "ann")]);
    assert_eq!((story.attempts.len(), story.attempts[0].batch_len), (1, 2));
    assert_eq!((story.launched_by.as_str(), story.found_at), ("ann", None));
    let beside = bench.ledger.story("one", 3).await.unwrap().unwrap();
    assert_eq!(beside.events.len(), 2, "the decision was about the other row");
    bench.apply(&[listed(7, 2, "hello", 101, SENT)], 160).await;
    let beside = bench.ledger.story("one", 3).await.unwrap().unwrap();
    assert_eq!((beside.found_at, beside.row.gateway_sms_id), (Some(at(160)), Some(7)));
    // It was found by a reading that was not complete, and that began before and ended after it was written down.
    let broken_off = NotedReading { listed: None, found: 1, ..reading(158, 91, 108, None) };
    bench.ledger.note_reading(&broken_off, at(163)).await.unwrap();
    let beside = bench.ledger.story("one", 3).await.unwrap().unwrap();
    let last = beside.readings.last().unwrap();
    assert_eq!((last.began_at, last.read_at, last.listed), (at(158), at(163), None));
}

async fn five_thousand_rows_are_decided_quickly(bench: &Bench) {
    let mut rows = Vec::new();
    let numbers: Vec<u64> = (0..5_000).collect();
    let launched = bench.campaign_in_chunks("big", &numbers).await;
    // Opens their packs.
    bench.ledger.reschedule(launched.id, NewTimes::default(), ANN, at(1)).await.unwrap();
    bench.raw.execute("UPDATE messages SET state = 'held', held = 1, live = 1, attempt_id = NULL").await.unwrap();
    for chunk in &launched.chunks {
        rows.extend((0..500).map(|n| chunk.row(n)));
    }
    let began = std::time::Instant::now();
    let decided = bench.ledger.decide_all(launched.id, &rows, Verdict::Resend, ANN, at(9)).await.unwrap();
    assert!(decided.iter().all(|(_, decided)| *decided == Decided::Done));
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'decided'").await, 5_000);
    // A statement a row takes minutes on a loaded machine.
    assert!(began.elapsed().as_secs() < 20, "took {:?}", began.elapsed());
}
