//! What the gateway's list makes of the rows, and what is decided where it shows nothing.

use crate::{
    Bench, SHOP, at,
    bench::{accepted, listed, msisdn, sender},
    on_both,
};
use campaign::{AttemptId, Outcome, SenderId, SmsId, sweep::Window};
use jiff::SignedDuration;
use ledger::{Applied, Delivery, PendingWindow, Verdict};

on_both! {
    the_list_gives_ids_and_statuses
    unknown_and_held_rows_are_found
    a_text_listed_before_its_attempt_began_is_not_its_own
    what_nothing_explains_is_told_once
    a_text_that_is_being_sent_is_left_for_the_next_reading
    a_status_that_is_none_of_the_known_ones_is_never_failed
    pending_rows_that_a_look_found_are_asked_for_at_once
    a_pending_text_that_may_have_vanished_from_the_list_is_asked_for
    an_attempt_is_settled_once_all_of_its_rows_are_found
    many_open_attempts_hide_none_of_another_kind_or_sender
    a_look_is_remembered_once
    absent_rows_are_held
    absent_rows_are_resent_once_and_then_held
    rows_that_were_accepted_meanwhile_are_not_left_behind_by_a_resend
    a_person_decides_about_held_rows_alone
    details_are_asked_until_they_are_final_or_given_up
    windows_and_cursors_are_kept
    the_list_is_proven_by_many_found_and_none_unexplained
}

const SENT: Option<Delivery> = Some(Delivery::Sent);
const FAILED: Option<Delivery> = Some(Delivery::Failed);
const PENDING: Option<Delivery> = Some(Delivery::Pending);

async fn many_open_attempts_hide_none_of_another_kind_or_sender(bench: &Bench) {
    let [shop, tailor] = [SHOP, "TAILOR"].map(sender);
    assert_eq!(bench.ledger.open_senders().await.unwrap(), []);
    let mut ids = Vec::new();
    for (number, from, second) in [(1, &shop, 1), (2, &shop, 3), (3, &tailor, 5), (4, &shop, 7)] {
        let of = bench
            .campaign_with(&format!("of {number}"), "hello", &[number], |row| row.sender = Some(from.clone()))
            .await;
        let batch = bench.sending(of.chunk(), second).await;
        assert_eq!(bench.ledger.sending_since(from).await.unwrap(), Some(at(second)));
        bench.record(&batch, &accepted(), second + 1).await;
        assert_eq!(bench.ledger.sending_since(from).await.unwrap(), None);
        ids.extend(
            bench.open().await.into_iter().map(|open| open.id).filter(|id| !ids.contains(id)).collect::<Vec<_>>(),
        );
    }
    let last = [bench.ledger.last_accepted(&shop).await.unwrap(), bench.ledger.last_accepted(&tailor).await.unwrap()];
    assert_eq!(last, [Some(at(7)), Some(at(5))]);
    assert_eq!(bench.ledger.open_senders().await.unwrap(), [shop.clone(), tailor.clone()]);
    let unread = async |of: &SenderId, at_most| -> Vec<AttemptId> {
        bench.ledger.unread_attempts(of, at_most).await.unwrap().iter().map(|attempt| attempt.id).collect()
    };
    assert_eq!((unread(&shop, 2).await, unread(&tailor, 2).await), (vec![ids[0], ids[1]], vec![ids[2]]));
    // What was covered by a reading is no longer unread, and is due when its time has come: what waited for longer goes first.
    for (attempt, second) in bench.open().await.iter().zip([40, 30, 20]) {
        bench.ledger.look_again(attempt, at(second), None).await.unwrap();
    }
    assert_eq!((unread(&shop, 2).await, unread(&tailor, 2).await), (vec![ids[3]], vec![]));
    let due = async |of: &SenderId, second, at_most| -> Vec<AttemptId> {
        let due = bench.ledger.due_attempts(of, at(second), at_most).await.unwrap();
        due.iter().map(|attempt| attempt.id).collect()
    };
    assert_eq!((due(&shop, 29, 9).await, due(&tailor, 29, 9).await), (vec![], vec![ids[2]]));
    assert_eq!((due(&shop, 40, 1).await, due(&shop, 40, 9).await), (vec![ids[1]], vec![ids[0], ids[1]]));
    bench.apply(&[1, 2, 4].map(|number| listed(number.try_into().unwrap(), number, "hello", 8, SENT)), 50).await;
    bench.ledger.settle_found(&ids, at(51)).await.unwrap();
    assert_eq!(bench.ledger.open_senders().await.unwrap(), [tailor]);
}

async fn the_list_gives_ids_and_statuses(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2, 3]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    bench.record(&batch, &accepted(), 2).await;
    let list = [listed(11, 1, "hello", 2, SENT), listed(12, 2, "hello", 2, FAILED), listed(13, 3, "hello", 2, PENDING)];
    let applied = bench.apply(&list, 20).await;
    assert_eq!(applied, Applied { found: 3, pending: 1, finals: 2, unexplained: 0 });
    assert_eq!(bench.states(&one).await, "sent failed accepted");
    let again = bench.apply(&list, 21).await;
    assert_eq!(again, Applied { pending: 1, ..Applied::default() }, "ids are claimed once");
    bench.apply(&[listed(13, 3, "hello", 2, SENT)], 22).await;
    assert_eq!(bench.states(&one).await, "sent failed sent");
}

async fn unknown_and_held_rows_are_found(bench: &Bench) {
    let (one, _) = bench.lost("one", &[1], 1).await;
    let two = bench.held("two", 2, 1).await;
    let applied = bench.apply(&[listed(1, 1, "hello", 2, PENDING), listed(2, 2, "hello", 2, SENT)], 20).await;
    assert_eq!(applied.found, 2);
    assert_eq!((bench.states(&one).await, bench.states(&two).await), ("accepted".into(), "sent".into()));
}

async fn a_text_listed_before_its_attempt_began_is_not_its_own(bench: &Bench) {
    let (one, _) = bench.lost("one", &[1], 100).await;
    assert_eq!(bench.apply(&[listed(1, 1, "hello", 90, SENT)], 120).await.unexplained, 1);
    assert_eq!(bench.states(&one).await, "unknown");
    assert_eq!(bench.apply(&[listed(2, 1, "hello", 97, SENT)], 120).await.found, 1, "within the margin of skew");
}

async fn what_nothing_explains_is_told_once(bench: &Bench) {
    let (one, _) = bench.lost("one", &[1], 1).await;
    let list = [
        listed(1, 1, "hello", 2, SENT),
        listed(2, 1, "hello", 3, SENT),
        listed(3, 1, "goodbye", 2, SENT),
        listed(4, 9, "hello", 2, SENT),
    ];
    let applied = bench.apply(&list, 20).await;
    assert_eq!((applied.found, applied.unexplained), (1, 3));
    assert_eq!(bench.apply(&list, 21).await.unexplained, 0);
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'unexplained'").await, 3);
    assert_eq!(bench.states(&one).await, "sent");
}

async fn a_text_that_is_being_sent_is_left_for_the_next_reading(bench: &Bench) {
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    let list = [listed(1, 1, "hello", 2, SENT)];
    assert_eq!(bench.apply(&list, 3).await, Applied::default());
    bench.record(&batch, &accepted(), 4).await;
    assert_eq!(bench.apply(&list, 5).await.found, 1);
}

async fn a_status_that_is_none_of_the_known_ones_is_never_failed(bench: &Bench) {
    let (one, _) = bench.lost("one", &[1], 1).await;
    let applied = bench.apply(&[listed(1, 1, "hello", 2, None)], 20).await;
    assert_eq!((applied.found, applied.pending, applied.finals), (1, 1, 0));
    assert_eq!(bench.states(&one).await, "accepted");
}

async fn pending_rows_that_a_look_found_are_asked_for_at_once(bench: &Bench) {
    let (_, _) = bench.lost("one", &[1], 1).await;
    let list = [listed(1, 1, "hello", 2, PENDING)];
    // In the same commit: after a crash between two, nothing would ever ask for them again.
    bench.ledger.apply_look(&sender(SHOP), &list.iter().collect(), SignedDuration::ZERO, at(20)).await.unwrap();
    assert_eq!(bench.ledger.due_details(10, at(20)).await.unwrap().len(), 1);
    bench.ledger.apply_look(&sender(SHOP), &list.iter().collect(), SignedDuration::ZERO, at(25)).await.unwrap();
    assert_eq!(bench.ledger.due_details(10, at(20)).await.unwrap().len(), 1, "and not later for being seen twice");
    bench.apply(&[listed(1, 1, "hello", 2, SENT)], 30).await;
    assert!(bench.ledger.due_details(10, at(99)).await.unwrap().is_empty());
}

async fn a_pending_text_that_may_have_vanished_from_the_list_is_asked_for(bench: &Bench) {
    let (_, _) = bench.lost("one", &[1], 1).await;
    bench.apply(&[listed(1, 1, "hello", 2, PENDING)], 20).await;
    assert!(bench.ledger.due_details(10, at(20 + 3599)).await.unwrap().is_empty(), "its window is read again before");
    bench.apply(&[listed(1, 1, "hello", 2, PENDING)], 30).await;
    assert_eq!(bench.ledger.due_details(10, at(20 + 3600)).await.unwrap().len(), 1, "and the wait does not begin anew");
}

async fn an_attempt_is_settled_once_all_of_its_rows_are_found(bench: &Bench) {
    let (_, attempt) = bench.lost("one", &[1, 2], 1).await;
    bench.apply(&[listed(1, 1, "hello", 2, SENT)], 20).await;
    assert_eq!(bench.ledger.settle_found(&[attempt.id], at(99)).await.unwrap(), []);
    bench.apply(&[listed(2, 2, "hello", 2, PENDING)], 21).await;
    assert_eq!(bench.ledger.settle_found(&[attempt.id], at(99)).await.unwrap(), [attempt.id]);
    bench.stepped(21).await;
    assert!(bench.open().await.is_empty());
}

async fn a_look_is_remembered_once(bench: &Bench) {
    let (one, attempt) = bench.lost("one", &[1], 1).await;
    let absent = [one.row(0)];
    bench.ledger.look_again(&attempt, at(50), Some((at(20), &absent))).await.unwrap();
    bench.ledger.look_again(&attempt, at(90), Some((at(30), &[]))).await.unwrap();
    let now = bench.open().await.remove(0);
    assert_eq!((now.looks, now.look_at, now.before.clone()), (1, Some(at(50)), Some((at(20), absent.to_vec()))));
    bench.ledger.look_again(&now, at(60), None).await.unwrap();
    let now = bench.open().await.remove(0);
    assert_eq!((now.looks, now.look_at, now.before), (2, Some(at(60)), Some((at(20), absent.to_vec()))));
}

async fn absent_rows_are_held(bench: &Bench) {
    let (one, attempt) = bench.lost("one", &[1, 2], 1).await;
    bench.apply(&[listed(1, 1, "hello", 2, SENT)], 20).await;
    assert_eq!(bench.hold(&attempt, &[one.row(1)], 21).await, 1);
    assert_eq!(bench.states(&one).await, "sent held");
    assert_eq!(bench.hold(&attempt, &[one.row(1)], 22).await, 0);
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'held'").await, 1);
    assert!(bench.ledger.todo().await.unwrap().is_empty(), "held rows wait for a person");
}

async fn absent_rows_are_resent_once_and_then_held(bench: &Bench) {
    let (one, attempt) = bench.lost("one", &[1], 1).await;
    assert_eq!(bench.resend(&attempt, &[one.row(0)], 10).await, (1, 0));
    assert_eq!((bench.states(&one).await, bench.chunk(one.chunk()).await.0), ("queued".into(), "waiting".into()));
    assert_eq!(bench.resend(&attempt, &[one.row(0)], 10).await, (0, 0), "a second decision finds nothing");
    let batch = bench.sending(one.chunk(), 11).await;
    bench.record(&batch, &crate::bench::timed_out(), 12).await;
    let again = bench.open().await.remove(0);
    assert_eq!(bench.resend(&again, &[one.row(0)], 20).await, (0, 1));
    assert_eq!(bench.states(&one).await, "held");
}

async fn rows_that_were_accepted_meanwhile_are_not_left_behind_by_a_resend(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    bench.sweep_owners(62).await;
    let attempt = bench.open().await.remove(0);
    // The worker was only slow: its record comes between the decision and the resend.
    bench.record(&batch, &accepted(), 63).await;
    assert_eq!(bench.resend(&attempt, &[one.row(0), one.row(1)], 64).await, (0, 0));
    assert_eq!(bench.hold(&attempt, &[one.row(0), one.row(1)], 64).await, 0);
    assert_eq!((bench.states(&one).await, bench.open().await.len()), ("accepted accepted".into(), 1));
}

async fn a_person_decides_about_held_rows_alone(bench: &Bench) {
    let queued = bench.campaign("queued", &[9]).await;
    assert!(!bench.decide(&queued, 0, Verdict::Cancel, 1).await);
    for (n, verdict, becomes) in
        [(1, Verdict::AssumeSent, "sent"), (2, Verdict::Cancel, "cancelled"), (3, Verdict::Resend, "queued")]
    {
        let one = bench.held(&format!("held {n}"), n, 1).await;
        assert!(bench.decide(&one, 0, verdict, 9).await);
        assert!(!bench.decide(&one, 0, verdict, 9).await);
        assert_eq!(bench.states(&one).await, becomes);
        assert!(bench.reason(&one, 0).await.ends_with("by ann: she knows"));
    }
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'decided' AND who = 'ann'").await, 3);
}

async fn details_are_asked_until_they_are_final_or_given_up(bench: &Bench) {
    let mut campaigns = Vec::new();
    for n in 1..=3 {
        let one = bench.campaign(&format!("c{n}"), &[n]).await;
        let batch = bench.sending(one.chunk(), 1).await;
        bench.record(&batch, &Outcome::Accepted { sms_id: Some(SmsId(n.cast_signed())) }, 2).await;
        campaigns.push(one);
    }
    let due = bench.ledger.due_details(10, at(12)).await.unwrap();
    assert_eq!(due.len(), 3);
    bench.ledger.record_detail(&due[0], SENT, Some(at(50)), at(13)).await.unwrap();
    bench.ledger.record_detail(&due[1], PENDING, Some(at(50)), at(13)).await.unwrap();
    bench.ledger.record_detail(&due[2], None, None, at(13)).await.unwrap();
    bench.stepped(13).await;
    assert_eq!(bench.states(&campaigns[0]).await, "sent");
    assert_eq!(bench.states(&campaigns[1]).await, "accepted");
    assert_eq!(bench.states(&campaigns[2]).await, "held");
    let due = bench.ledger.due_details(10, at(50)).await.unwrap();
    assert_eq!((due.len(), due[0].checks), (1, 1));
    bench.ledger.record_detail(&due[0], FAILED, None, at(51)).await.unwrap();
    bench.stepped(51).await;
    assert_eq!(bench.states(&campaigns[1]).await, "failed");
    assert!(bench.ledger.todo().await.unwrap().pending == 0);
    assert!(bench.decide(&campaigns[2], 0, Verdict::AssumeSent, 60).await);
}

async fn windows_and_cursors_are_kept(bench: &Bench) {
    let shop = sender(SHOP);
    assert_eq!(bench.ledger.cursor(&shop).await.unwrap(), None);
    let look = SignedDuration::from_secs(7);
    bench.ledger.advance_cursor(&shop, 500, look).await.unwrap();
    bench.ledger.advance_cursor(&shop, 400, look * 2).await.unwrap();
    assert_eq!(bench.ledger.cursor(&shop).await.unwrap(), Some((500, look * 2)), "it never goes back");
    let window = PendingWindow { id: -1, window: Window { since: 1, until: 9 }, listed: 30, looks: 1 };
    bench.ledger.keep_window(&shop, &window, at(10)).await.unwrap();
    assert!(bench.ledger.due_windows(at(9)).await.unwrap().is_empty());
    let (of, due) = bench.ledger.due_windows(at(10)).await.unwrap().remove(0);
    assert_eq!((of.as_str(), due.window, due.listed, due.looks), (SHOP, window.window, 30, 1));
    bench.ledger.keep_window(&of, &PendingWindow { looks: 2, ..due }, at(20)).await.unwrap();
    let (_, due) = bench.ledger.due_windows(at(20)).await.unwrap().remove(0);
    assert_eq!(due.looks, 2);
    bench.ledger.drop_window(due.id).await.unwrap();
    assert!(bench.ledger.todo().await.unwrap().is_empty());
}

async fn the_list_is_proven_by_many_found_and_none_unexplained(bench: &Bench) {
    let shop = sender(SHOP);
    let (one, attempt) = bench.lost("one", &[1, 2], 1).await;
    assert_eq!(bench.ledger.destinations_of(&[one.row(1)]).await.unwrap(), [(one.row(1), msisdn(2))]);
    assert_eq!(bench.ledger.recipients_between(&shop, at(0), at(2)).await.unwrap(), 2);
    bench.apply(&[listed(1, 1, "hello", 2, SENT), listed(2, 2, "hello", 2, SENT)], 9).await;
    bench.ledger.settle_found(&[attempt.id], at(99)).await.unwrap();
    assert!(!bench.ledger.list_is_proven(&shop, 3).await.unwrap());
    assert!(bench.ledger.list_is_proven(&shop, 2).await.unwrap());
    assert!(!bench.ledger.later_text_listed(&shop, at(0)).await.unwrap(), "its answer was lost");
    let two = bench.campaign("two", &[3, 4]).await;
    let batch = bench.sending(two.chunk(), 20).await;
    bench.record(&batch, &accepted(), 21).await;
    let attempt = bench.open().await.remove(0);
    bench.apply(&[listed(3, 3, "hello", 21, SENT), listed(4, 4, "hello", 21, SENT)], 30).await;
    bench.ledger.settle_found(&[attempt.id], at(99)).await.unwrap();
    assert!(bench.ledger.later_text_listed(&shop, at(10)).await.unwrap());
    assert!(!bench.ledger.later_text_listed(&shop, at(20)).await.unwrap());
    bench.apply(&[listed(9, 9, "hello", 21, SENT)], 30).await;
    assert!(!bench.ledger.list_is_proven(&shop, 2).await.unwrap());
}
