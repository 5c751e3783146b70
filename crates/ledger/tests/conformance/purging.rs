//! Texts and numbers go when they are old; rows, states and counts stay.

use crate::{
    Bench, SHOP, at,
    bench::{Launched, accepted, listed, msisdn, sender},
    on_both,
};
use campaign::SmsId;
use ledger::{Delivery, InboundText, NewOptOut, Purged, Recipient, Retention};

on_both! {
    texts_go_first_and_numbers_later
    nothing_of_a_file_with_an_open_row_is_touched
    a_row_is_final_for_long_enough_before_it_is_purged
    numbers_that_never_were_go_too
    one_person_has_one_hash_in_all_files
    a_plan_still_tells_who_got_which_text
    opt_outs_keep_their_numbers
    replies_are_purged_like_rows
    a_purge_that_is_repeated_finds_nothing
    many_rows_are_purged_in_portions
    what_would_be_purged_is_counted_before
}

/// What was final by the second.
fn until(texts: i64, numbers: i64) -> Retention {
    Retention { texts_before: at(texts), numbers_before: at(numbers) }
}

impl Bench {
    /// A campaign that was sent, with its last row final at the second.
    async fn sent(&self, name: &str, numbers: &[u64], second: i64) -> Launched {
        let launched = self.campaign(name, numbers).await;
        let batch = self.sending(launched.chunk(), second - 1).await;
        self.record(&batch, &accepted(), second - 1).await;
        let first = launched.row(0).0;
        let texts: Vec<_> = (first..)
            .zip(numbers)
            .map(|(id, number)| listed(id, *number, "hello", second - 1, Some(Delivery::Sent)))
            .collect();
        self.apply(&texts, second).await;
        self.finish(launched.chunk(), second).await;
        launched
    }

    async fn purge(&self, retention: Retention) -> Purged {
        let purged = self.ledger.purge(retention, "ann", at(1_000)).await.unwrap();
        self.stepped(1_000).await;
        purged
    }

    /// A campaign's rows as analysts see them: number as written, number, text, state.
    async fn report(&self, name: &str) -> Vec<String> {
        self.raw
            .strings(&format!(
                "SELECT destination_raw || ' ' || coalesce(destination, '-') || ' ' || coalesce(text, '-') || ' ' || state
                 FROM delivery_reports WHERE campaign = '{name}' ORDER BY row_number"
            ))
            .await
    }
}

async fn texts_go_first_and_numbers_later(bench: &Bench) {
    bench.sent("one", &[1, 2], 10).await;
    let (one, two) = (msisdn(1), msisdn(2));
    assert_eq!(bench.purge(until(10, 0)).await, Purged { texts: 1, ..Purged::default() });
    assert_eq!(bench.report("one").await, [format!("{one} {one} - sent"), format!("{two} {two} - sent")]);
    assert_eq!(bench.purge(until(10, 10)).await, Purged { numbers: 2, ..Purged::default() });
    assert_eq!(bench.report("one").await, ["44…001 44…001 - sent", "44…002 44…002 - sent"]);
    let mut results = bench.ledger.results("one", &[]).await.unwrap().unwrap();
    let rows = results.next_page().await.unwrap().unwrap();
    assert_eq!(rows[0].destination.as_deref(), Some("44…001"), "the command prints what the view has");
    let events = bench.raw.strings("SELECT detail FROM events WHERE kind = 'purged' ORDER BY id").await;
    assert_eq!(events, ["purged 1 texts of a file", "purged 2 numbers of a file"]);
    assert!(bench.ledger.verify().await.unwrap().iter().all(|check| check.holds));
}

async fn nothing_of_a_file_with_an_open_row_is_touched(bench: &Bench) {
    bench.held("held", 1, 1).await;
    bench.campaign("queued", &[2]).await;
    let (unknown, _) = bench.lost("unknown", &[3], 1).await;
    let accepted_only = bench.campaign("accepted", &[4]).await;
    let batch = bench.sending(accepted_only.chunk(), 1).await;
    bench.record(&batch, &accepted(), 2).await;
    // One row of two is final.
    let part = bench.campaign("part", &[5, 6]).await;
    let batch = bench.sending(part.chunk(), 1).await;
    bench.record(&batch, &accepted(), 2).await;
    bench.apply(&[listed(77, 5, "hello", 1, Some(Delivery::Sent))], 3).await;
    assert_eq!(bench.purge(until(900, 900)).await, Purged::default());
    assert_eq!(bench.report("part").await.len(), 2);
    assert_eq!(bench.raw.int("SELECT count(*) FROM texts WHERE body IS NULL").await, 0);
    assert_eq!(bench.ledger.destinations_of(&[unknown.row(0)]).await.unwrap().len(), 1);
}

async fn a_row_is_final_for_long_enough_before_it_is_purged(bench: &Bench) {
    bench.sent("one", &[1], 10).await;
    assert_eq!(bench.purge(until(9, 9)).await, Purged::default());
    assert_eq!(bench.purge(until(10, 9)).await.texts, 1);
}

async fn numbers_that_never_were_go_too(bench: &Bench) {
    bench
        .campaign_with("one", "hello", &[1], |row| {
            row.state = campaign::RowState::Invalid;
            row.reason = Some("the number is too short".to_owned());
            row.destination_raw = "0770090000".to_owned();
            row.destination = None;
        })
        .await;
    assert_eq!(bench.purge(until(0, 900)).await.numbers, 1);
    assert_eq!(bench.report("one").await, ["(purged) - - invalid"]);
}

async fn one_person_has_one_hash_in_all_files(bench: &Bench) {
    bench.sent("one", &[1, 2], 10).await;
    bench.sent("two", &[1], 20).await;
    bench.purge(until(900, 15)).await;
    bench.purge(until(900, 900)).await;
    let hashes = bench.raw.strings("SELECT destination_hash FROM all_rows ORDER BY id").await;
    assert_eq!((hashes.len(), hashes[0].len()), (3, 32));
    assert!(hashes[0] == hashes[2] && hashes[0] != hashes[1], "{hashes:?}");
}

async fn a_plan_still_tells_who_got_which_text(bench: &Bench) {
    let one = bench.sent("one", &[1, 2], 10).await;
    let shop = sender(SHOP);
    let texted = async |text: &str| {
        let asked = [3, 1].map(|number| Recipient { destination: msisdn(number), sender: &shop, text });
        bench.ledger.texted_since(&asked, at(0)).await.unwrap()
    };
    let before = texted("hello").await;
    assert_eq!((before.len(), before[0].nth, before[0].campaign, before[0].same_text_at), (1, 1, one.id, Some(at(9))));
    assert_eq!(bench.purge(until(10, 0)).await.texts, 1);
    assert_eq!(texted("hello").await, before, "the text is gone");
    assert_eq!(bench.purge(until(10, 10)).await.numbers, 2);
    assert_eq!(texted("hello").await, before, "the number, too");
    let other = texted("another text").await;
    assert_eq!((other.len(), other[0].same_text_at, other[0].same_sender), (1, None, true));
}

async fn opt_outs_keep_their_numbers(bench: &Bench) {
    let entered = NewOptOut { number: msisdn(1), sender: None, reason: "she rang".to_owned() };
    bench.ledger.opt_out(&[entered], "ann", at(0)).await.unwrap();
    bench.purge(until(900, 900)).await;
    assert_eq!(bench.ledger.suppressed_among(&[(sender(SHOP), msisdn(1))]).await.unwrap(), [true]);
}

async fn replies_are_purged_like_rows(bench: &Bench) {
    let wrote = |id, text: &str| InboundText {
        sms_id: SmsId(id),
        source: msisdn(1).to_string(),
        person: Some(msisdn(1)),
        receiver: SHOP.to_owned(),
        text: text.to_owned(),
        at: at(0).as_second(),
    };
    bench.ledger.take_inbound(&[wrote(1, "hello"), wrote(2, "STOP")], at(10)).await.unwrap();
    bench.ledger.take_inbound(&[wrote(3, "later")], at(20)).await.unwrap();
    assert_eq!(bench.purge(until(10, 9)).await, Purged { reply_texts: 2, ..Purged::default() });
    assert_eq!(bench.purge(until(10, 10)).await, Purged { reply_numbers: 2, ..Purged::default() });
    let inbox = bench.ledger.inbox(true).await.unwrap();
    let left: Vec<_> = inbox.iter().map(|text| (text.from.is_some(), text.text.as_deref())).collect();
    assert_eq!(left, [(true, Some("later")), (false, None), (false, None)]);
    assert_eq!(bench.raw.int("SELECT count(*) FROM suppressions").await, 1);
}

async fn a_purge_that_is_repeated_finds_nothing(bench: &Bench) {
    bench.sent("one", &[1, 2], 10).await;
    assert!(!bench.purge(until(10, 10)).await.is_empty());
    assert!(bench.purge(until(900, 900)).await.is_empty());
    assert_eq!(bench.raw.int("SELECT count(*) FROM events WHERE kind = 'purged'").await, 2);
}

async fn many_rows_are_purged_in_portions(bench: &Bench) {
    let suppressed = |row: &mut ledger::NewRow| row.state = campaign::RowState::Suppressed;
    let numbers: Vec<u64> = (0..500).collect();
    bench.campaign_with("one", "hello", &numbers, suppressed).await;
    // Broken off after some rows: the rest is done the next time.
    let half =
        "UPDATE messages SET destination_hash = 'x', destination_raw = 'y', destination = NULL WHERE row_number < 200";
    bench.raw.execute(half).await.unwrap();
    let before = bench.raw.int("SELECT count(*) FROM all_rows WHERE destination IS NOT NULL").await.cast_unsigned();
    assert_eq!(bench.purge(until(0, 900)).await.numbers, before);
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows WHERE destination IS NOT NULL").await, 0);
    assert_eq!(bench.raw.int("SELECT count(*) FROM all_rows WHERE destination_hash = 'x'").await, 198);
}

async fn what_would_be_purged_is_counted_before(bench: &Bench) {
    bench.sent("one", &[1, 2, 3], 10).await;
    bench.campaign("open", &[4]).await;
    let counted = bench.ledger.purgeable(until(10, 10)).await.unwrap();
    assert_eq!(counted, Purged { texts: 1, numbers: 3, ..Purged::default() });
    assert_eq!(bench.purge(until(10, 10)).await, counted);
    assert!(bench.ledger.purgeable(until(900, 900)).await.unwrap().is_empty());
}
