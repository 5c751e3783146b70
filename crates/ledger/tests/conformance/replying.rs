//! What people write: opt-outs by keyword, and other replies.

use crate::{
    Bench, SHOP, at,
    bench::{msisdn, sender},
    on_both,
};
use campaign::SmsId;
use jiff::Timestamp;
use ledger::{InboundText, NewOptOut, TakenInbound};

on_both! {
    a_stop_counts_for_the_sender_that_was_answered
    a_stop_to_nobody_we_know_counts_for_every_sender
    each_message_is_taken_once
    of_several_messages_the_last_by_time_counts_in_whatever_order_they_are_read
    start_undoes_no_opt_out_of_an_operator
    a_keyword_is_an_event_that_names_the_message
    other_replies_are_listed_and_change_nothing
    what_is_known_of_a_span_is_counted_by_receiver
}

fn wrote(id: i64, from: u64, to: &str, text: &str, second: i64) -> InboundText {
    InboundText {
        sms_id: SmsId(id),
        source: msisdn(from).to_string(),
        person: Some(msisdn(from)),
        receiver: to.to_owned(),
        text: text.to_owned(),
        at: at(second).as_second(),
    }
}

impl Bench {
    /// Our sender is one that the gateway has approved.
    async fn with_sender(&self) {
        self.ledger.record_senders(&[(sender(SHOP), true), (sender("OTHER"), true)], at(0)).await.unwrap();
    }

    async fn take(&self, texts: &[InboundText]) -> TakenInbound {
        let taken = self.ledger.take_inbound(texts, at(100)).await.unwrap();
        self.stepped(100).await;
        taken
    }

    /// Whether the first number gets no texts from the shop, and from another sender.
    async fn stopped(&self) -> [bool; 2] {
        let asked = [(sender(SHOP), msisdn(1)), (sender("OTHER"), msisdn(1))];
        self.ledger.suppressed_among(&asked).await.unwrap().try_into().unwrap()
    }
}

async fn a_stop_counts_for_the_sender_that_was_answered(bench: &Bench) {
    bench.with_sender().await;
    let one = bench.campaign("one", &[1, 2]).await;
    let taken = bench.take(&[wrote(7, 1, SHOP, " Stop! ", 5)]).await;
    assert_eq!(taken, TakenInbound { new: 1, stops: 1, starts: 0 });
    assert_eq!(bench.stopped().await, [true, false]);
    assert_eq!(bench.batches(one.chunk(), 101).await[0].destinations, [msisdn(2)]);
}

async fn a_stop_to_nobody_we_know_counts_for_every_sender(bench: &Bench) {
    bench.with_sender().await;
    bench.take(&[wrote(7, 1, "60777", "STOP", 5)]).await;
    assert_eq!(bench.stopped().await, [true, true]);
    bench.take(&[wrote(8, 1, SHOP, "START", 6)]).await;
    assert_eq!(bench.stopped().await, [true, true], "it is not known that this is what was stopped");
    bench.take(&[wrote(9, 1, "60777", "START", 7)]).await;
    assert_eq!(bench.stopped().await, [false, false]);
}

async fn each_message_is_taken_once(bench: &Bench) {
    bench.with_sender().await;
    let stop = || wrote(7, 1, SHOP, "STOP", 5);
    assert_eq!(bench.take(&[stop(), stop()]).await.new, 1);
    // The person rings, and an operator lets them have texts again; the next reading goes over the same message.
    bench.ledger.opt_in(msisdn(1), None, "ann", "they rang", at(6)).await.unwrap();
    assert_eq!(bench.take(&[stop()]).await, TakenInbound::default());
    assert_eq!(bench.stopped().await, [false, false]);
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'opted_out'").await, 1);
}

async fn of_several_messages_the_last_by_time_counts_in_whatever_order_they_are_read(bench: &Bench) {
    bench.with_sender().await;
    let said = [(1, "STOP", 10), (2, "START", 20), (3, "STOP", 30), (4, "START", 30)];
    let orders: [&[usize]; 6] = [&[0, 1, 2], &[2, 1, 0], &[1, 2, 0], &[2, 0, 1], &[0, 1, 2, 3], &[3, 2, 1, 0]];
    for (nth, order) in (1..).zip(orders) {
        for at_place in order {
            let (id, text, second) = said[*at_place];
            bench.take(&[wrote(nth * 10 + id, 1, SHOP, text, nth * 1000 + second)]).await;
        }
        // The fourth is of the same second as the third, and has the later id.
        assert_eq!(bench.stopped().await[0], order.len() == 3, "{order:?}");
    }
}

async fn start_undoes_no_opt_out_of_an_operator(bench: &Bench) {
    bench.with_sender().await;
    let entered = NewOptOut { number: msisdn(1), sender: Some(sender(SHOP)), reason: "a judge says so".to_owned() };
    bench.ledger.opt_out(&[entered], "ann", at(1)).await.unwrap();
    bench.take(&[wrote(7, 1, SHOP, "STOP", 5), wrote(8, 1, SHOP, "unstop", 6)]).await;
    assert_eq!(bench.stopped().await, [true, false]);
    let left = bench.ledger.opt_outs().await.unwrap();
    assert_eq!((left.len(), &*left[0].reason), (1, "a judge says so"));
}

async fn a_keyword_is_an_event_that_names_the_message(bench: &Bench) {
    bench.with_sender().await;
    bench.take(&[wrote(7, 1, SHOP, "STOP", 5), wrote(9, 1, SHOP, "START", 7), wrote(8, 1, SHOP, "QUIT", 6)]).await;
    let query = "SELECT kind || ' by ' || who || ': ' || detail FROM events WHERE who LIKE 'message %' ORDER BY id";
    let events = bench.raw.strings(query).await;
    let shown = msisdn(1).masked().to_string();
    let wanted = [
        format!("opted_out by message 7: {shown} gets no texts from SHOP, by message 7"),
        format!("opted_in by message 9: {shown} may get texts again from SHOP, by message 9"),
        format!(
            "opted_out by message 8: {shown} gets no texts from SHOP, by message 8: a later message of theirs counts"
        ),
    ];
    assert_eq!(events, wanted);
}

async fn other_replies_are_listed_and_change_nothing(bench: &Bench) {
    bench.with_sender().await;
    let nobody = InboundText { source: "INFO".to_owned(), person: None, ..wrote(3, 2, SHOP, "STOP", 9) };
    bench.take(&[wrote(1, 1, SHOP, "stop by tomorrow please", 5), wrote(2, 1, SHOP, "STOP", 7), nobody]).await;
    let seen = |texts: Vec<ledger::Inbound>| -> Vec<String> {
        texts.into_iter().map(|text| format!("{} {}", text.from.unwrap(), text.text.unwrap())).collect()
    };
    let person = msisdn(1);
    let replies = seen(bench.ledger.inbox(false).await.unwrap());
    assert_eq!(replies, ["INFO STOP".to_owned(), format!("{person} stop by tomorrow please")]);
    let all = bench.ledger.inbox(true).await.unwrap();
    assert_eq!(all[1].time, Timestamp::from_second(at(7).as_second()).unwrap());
    assert_eq!(all[1].keyword.as_deref(), Some("stop"));
    assert_eq!(all.len(), 3);
    assert_eq!(bench.raw.int("SELECT count(*) FROM suppressions").await, 1);
}

async fn what_is_known_of_a_span_is_counted_by_receiver(bench: &Bench) {
    bench.take(&[wrote(1, 1, SHOP, "a", 5), wrote(2, 1, "OTHER", "b", 6), wrote(3, 1, SHOP, "c", 7)]).await;
    let known = async |receiver, since: i64, until: i64| {
        bench.ledger.known_inbound(receiver, at(since).as_second(), at(until).as_second()).await.unwrap()
    };
    assert_eq!([known(None, 5, 7).await, known(None, 6, 6).await, known(Some(SHOP), 0, 9).await], [3, 1, 2]);
    assert_eq!(bench.ledger.receivers().await.unwrap(), [sender("OTHER"), sender(SHOP)]);
    assert!(!bench.ledger.sent_between(at(0), at(9)).await.unwrap());
    let one = bench.campaign("one", &[1]).await;
    bench.sending(one.chunk(), 8).await;
    assert!(bench.ledger.sent_between(at(0), at(9)).await.unwrap());
}
