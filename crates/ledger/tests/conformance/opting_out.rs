//! An opt-out that commits before a text is begun stops it, in whichever order the two meet.

use crate::{
    Bench, SHOP, at,
    bench::{Raw, accepted, msisdn, sender},
    on_both,
};
use ledger::{Claim, Ledger, MadeBy, NewOptOut, OptedIn, OptedOut, Start};
use std::time::Duration;
use testbed::eventually_async;

on_both! {
    an_opt_out_stops_what_is_not_claimed_yet
    an_opt_out_takes_back_a_batch_that_is_not_begun
    an_opt_out_that_is_widened_by_hand_is_obeyed
    an_opt_out_says_how_many_texts_are_under_way
    an_opt_out_from_one_sender_leaves_the_others
    an_opt_out_is_entered_once_and_each_change_is_an_event
    an_opt_out_that_races_a_claim_and_a_start_is_obeyed_or_counted
}

const DEADLINE: Duration = Duration::from_secs(30);

fn out(number: u64, from: Option<&str>) -> NewOptOut {
    NewOptOut { number: msisdn(number), sender: from.map(sender), reason: "she rang".to_owned() }
}

impl Bench {
    async fn stop(&self, number: u64, from: Option<&str>, second: i64) -> OptedOut {
        let done = self.ledger.opt_out(&[out(number, from)], "ann", at(second)).await.unwrap();
        self.stepped(second).await;
        done
    }
}

async fn an_opt_out_stops_what_is_not_claimed_yet(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    assert_eq!(bench.stop(1, None, 1).await, OptedOut { added: 1, already: 0, under_way: 0 });
    assert_eq!(bench.batches(one.chunk(), 2).await[0].destinations, [msisdn(2)]);
    assert_eq!(bench.states(&one).await, "suppressed sending");
}

async fn an_opt_out_takes_back_a_batch_that_is_not_begun(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2, 3]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    assert_eq!(bench.stop(2, None, 2).await.under_way, 0, "it can still be taken back");
    assert!(matches!(bench.start(batch, 3).await, Start::TakenBack));
    bench.finish(one.chunk(), 3).await;
    let again = bench.sending(one.chunk(), 4).await;
    assert_eq!(again.batch().destinations, [msisdn(1), msisdn(3)]);
    assert_eq!(bench.states(&one).await, "sending suppressed sending");
}

async fn an_opt_out_that_is_widened_by_hand_is_obeyed(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    bench.stop(2, Some("OTHER"), 1).await;
    let batch = bench.batches(one.chunk(), 2).await.remove(0);
    bench.raw.execute("UPDATE suppressions SET sender = ''").await.unwrap();
    assert!(matches!(bench.start(batch, 3).await, Start::TakenBack));
}

async fn an_opt_out_says_how_many_texts_are_under_way(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    let batch = bench.sending(one.chunk(), 1).await;
    assert_eq!(bench.stop(1, None, 2).await.under_way, 1);
    assert_eq!(bench.stop(1, Some("OTHER"), 2).await.under_way, 0);
    bench.record(&batch, &accepted(), 3).await;
    assert_eq!(bench.states(&one).await, "accepted accepted", "what was begun ends as it ends");
    let (two, _) = bench.lost("two", &[5], 4).await;
    assert_eq!(bench.stop(5, Some(SHOP), 6).await.under_way, 1, "it may have gone out");
    assert_eq!(bench.states(&two).await, "unknown");
}

async fn an_opt_out_from_one_sender_leaves_the_others(bench: &Bench) {
    let one = bench.campaign("one", &[1, 2]).await;
    bench.stop(1, Some("OTHER"), 1).await;
    bench.stop(2, Some(SHOP), 1).await;
    let batch = bench.sending(one.chunk(), 2).await;
    assert_eq!(batch.batch().destinations, [msisdn(1)]);
    let asked = [(sender(SHOP), msisdn(1)), (sender("OTHER"), msisdn(1)), (sender(SHOP), msisdn(2))];
    assert_eq!(bench.ledger.suppressed_among(&asked).await.unwrap(), [false, true, true]);
}

async fn an_opt_out_is_entered_once_and_each_change_is_an_event(bench: &Bench) {
    let new = [out(1, None), out(2, None), out(1, None), out(1, Some(SHOP))];
    let done = bench.ledger.opt_out(&new, "ann", at(1)).await.unwrap();
    assert_eq!(done, OptedOut { added: 3, already: 0, under_way: 0 });
    assert_eq!(bench.stop(2, None, 2).await, OptedOut { added: 0, already: 1, under_way: 0 });
    let listed = bench.ledger.opt_outs().await.unwrap();
    let seen: Vec<_> = listed.iter().map(|out| (out.destination.clone(), out.sender.clone(), out.made_by)).collect();
    let number = |n: u64| msisdn(n).to_string();
    let by = MadeBy::Operator;
    assert_eq!(seen, [(number(1), None, by), (number(1), Some(SHOP.to_owned()), by), (number(2), None, by)]);
    assert_eq!((&*listed[0].reason, &*listed[0].added_by, listed[0].added_at), ("she rang", "ann", at(1)));

    let back = bench.ledger.opt_in(msisdn(1), Some(&sender(SHOP)), "bob", "she asked", at(3)).await.unwrap();
    assert_eq!(back, OptedIn { removed: 1, left: 1 });
    let back = bench.ledger.opt_in(msisdn(1), None, "bob", "she asked", at(4)).await.unwrap();
    assert_eq!(back, OptedIn { removed: 1, left: 0 });
    assert_eq!(bench.ledger.opt_in(msisdn(1), None, "bob", "again", at(5)).await.unwrap().removed, 0);
    let query = "SELECT kind || ' by ' || who || ': ' || coalesce(reason, '') FROM events
                 WHERE kind IN ('opted_out', 'opted_in') ORDER BY id";
    let mut events = bench.raw.strings(query).await;
    assert_eq!(events.split_off(3), ["opted_in by bob: she asked"; 2]);
    assert_eq!(events, ["opted_out by ann: she rang"; 3]);
    let shown = bench.raw.strings("SELECT detail FROM events").await.join("\n");
    assert!(!shown.contains(&msisdn(1).to_string()), "an event shows a number: {shown}");
}

async fn an_opt_out_that_races_a_claim_and_a_start_is_obeyed_or_counted(bench: &Bench) {
    let other = Ledger::open(&bench.url).await.unwrap();
    for round in 0..30 {
        let one = bench.campaign(&format!("one {round}"), &[round]).await;
        bench.feed(one.chunk(), 1).await;
        let send = async {
            let claim = bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2)).await.unwrap();
            let Claim::Batches(mut batches) = claim else { panic!("{claim:?}") };
            let batch = batches.pop()?;
            Some(matches!(bench.ledger.start(batch, at(2)).await.unwrap(), Start::Send(_)))
        };
        let opt_out = async {
            // Earlier and later in turn, by transactions of the same kind.
            for _ in 0..round % 4 {
                other.set_clock().await.unwrap();
            }
            other.opt_out(&[out(round, None)], "ann", at(2)).await.unwrap()
        };
        let (begun, done) = tokio::join!(send, opt_out);
        let sent = begun == Some(true);
        assert_eq!(done.under_way, u64::from(sent), "round {round}: {begun:?}");
        bench.stepped(2).await;
    }
}

async fn waiting(bench: &Bench) -> i64 {
    let locks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    bench.raw.int(locks).await
}

/// Holds a table so that whoever writes to it waits in the middle of its transaction.
async fn held<'a>(bench: &'a Bench, table: &str) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let Raw::Postgres(pool) = &bench.raw else { unreachable!("the bench is on Postgres") };
    let mut blocker = pool.begin().await.unwrap();
    let lock = sqlx::AssertSqlSafe(format!("LOCK TABLE {table} IN EXCLUSIVE MODE"));
    sqlx::query(lock).execute(&mut *blocker).await.unwrap();
    blocker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_waits_for_an_opt_out_that_is_being_committed_and_obeys_it() {
    let bench = Bench::postgres().await;
    let one = bench.campaign("one", &[1]).await;
    bench.feed(one.chunk(), 1).await;
    let blocker = held(&bench, "events").await;
    let ledger = bench.ledger.clone();
    let opt_out = tokio::spawn(async move { ledger.opt_out(&[out(1, None)], "ann", at(2)).await.unwrap() });
    eventually_async("the opt-out waits for its event", DEADLINE, async || waiting(&bench).await == 1).await;
    let claim = bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2));
    let unblock = async {
        eventually_async("the claim waits, or has overlooked the opt-out", DEADLINE, async || {
            waiting(&bench).await == 2 || bench.states(&one).await == "sending"
        })
        .await;
        blocker.commit().await.unwrap();
    };
    let (claimed, ()) = tokio::join!(claim, unblock);
    assert!(matches!(claimed.unwrap(), Claim::Batches(batches) if batches.is_empty()));
    assert_eq!(opt_out.await.unwrap().under_way, 0);
    assert_eq!(bench.states(&one).await, "suppressed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opt_out_waits_for_a_claim_that_is_being_committed_and_the_start_obeys_it() {
    let bench = Bench::postgres().await;
    let one = bench.campaign("one", &[1]).await;
    bench.feed(one.chunk(), 1).await;
    // The claim has looked for opt-outs when it writes its attempt.
    let blocker = held(&bench, "attempts").await;
    let other = Ledger::open(&bench.url).await.unwrap();
    let opt_out = async {
        eventually_async("the claim waits for its attempt", DEADLINE, async || waiting(&bench).await == 1).await;
        let done = tokio::spawn(async move { other.opt_out(&[out(1, None)], "ann", at(2)).await.unwrap() });
        eventually_async("the opt-out waits, or has slipped through", DEADLINE, async || {
            waiting(&bench).await == 2 || bench.raw.int("SELECT count(*) FROM suppressions").await == 1
        })
        .await;
        assert_eq!(bench.raw.int("SELECT count(*) FROM suppressions").await, 0, "it slipped through");
        blocker.commit().await.unwrap();
        done.await.unwrap()
    };
    let (claimed, done) = tokio::join!(bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2)), opt_out);
    let Claim::Batches(mut batches) = claimed.unwrap() else { panic!("the chunk was fed") };
    assert_eq!(done.under_way, 0);
    assert!(matches!(bench.start(batches.remove(0), 3).await, Start::TakenBack));
    bench.finish(one.chunk(), 3).await;
    assert!(bench.batches(one.chunk(), 4).await.is_empty());
    assert_eq!(bench.states(&one).await, "suppressed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_an_opt_out_that_is_being_committed_and_obeys_it() {
    let bench = Bench::postgres().await;
    let one = bench.campaign("one", &[1]).await;
    let batch = bench.batches(one.chunk(), 1).await.remove(0);
    let blocker = held(&bench, "events").await;
    let ledger = bench.ledger.clone();
    let opt_out = tokio::spawn(async move { ledger.opt_out(&[out(1, None)], "ann", at(2)).await.unwrap() });
    eventually_async("the opt-out waits for its event", DEADLINE, async || waiting(&bench).await == 1).await;
    let begun = "SELECT count(*) FROM attempts WHERE state = 'sending'";
    let unblock = async {
        eventually_async("the start waits, or has overlooked the opt-out", DEADLINE, async || {
            waiting(&bench).await == 2 || bench.raw.int(begun).await == 1
        })
        .await;
        blocker.commit().await.unwrap();
    };
    let (started, ()) = tokio::join!(bench.ledger.start(batch, at(2)), unblock);
    assert!(matches!(started.unwrap(), Start::TakenBack));
    assert_eq!(opt_out.await.unwrap().under_way, 0);
}
