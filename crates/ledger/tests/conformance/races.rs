//! Two at once.

use crate::{Bench, at, bench::Raw, bench::accepted, bench::decide, on_both};
use jiff::SignedDuration;
use ledger::{Claim, Ledger, Verdict};
use std::time::Duration;
use testbed::eventually_async;

on_both! {
    of_two_claims_that_meet_at_a_recipient_one_gets_it
    of_many_claims_of_one_chunk_one_gets_it
    of_many_feeders_at_once_one_gets_each_chunk
}

const DEADLINE: Duration = Duration::from_secs(30);

async fn of_two_claims_that_meet_at_a_recipient_one_gets_it(bench: &Bench) {
    let other = Ledger::open(&bench.url).await.unwrap();
    for round in 0..20 {
        let numbers: Vec<u64> = (0..20).map(|n| round * 20 + n).collect();
        let backwards: Vec<u64> = numbers.iter().rev().copied().collect();
        let one = bench.campaign(&format!("one {round}"), &numbers).await;
        let two = bench.campaign(&format!("two {round}"), &backwards).await;
        bench.feed(one.chunk(), 1).await;
        bench.feed(two.chunk(), 1).await;
        let (first, second) = tokio::join!(
            bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2)),
            other.claim(two.chunk(), &bench.owner, 100, at(2)),
        );
        let mut taken: Vec<u64> = Vec::new();
        for claim in [first, second] {
            match claim.unwrap() {
                Claim::Batches(batches) => {
                    taken.extend(batches.iter().flat_map(|batch| &batch.destinations).map(|number| number.as_u64()));
                }
                other => panic!("{other:?}"),
            }
        }
        taken.sort_unstable();
        assert_eq!(taken.len(), 20, "round {round}");
        taken.dedup();
        assert_eq!(taken.len(), 20, "round {round}");
        bench.stepped(2).await;
    }
}

async fn of_many_claims_of_one_chunk_one_gets_it(bench: &Bench) {
    let other = Ledger::open(&bench.url).await.unwrap();
    for round in 0..10 {
        let one = bench.campaign(&format!("one {round}"), &[round]).await;
        bench.feed(one.chunk(), 1).await;
        let claims = tokio::join!(
            bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2)),
            other.claim(one.chunk(), &bench.owner, 100, at(2)),
            bench.ledger.claim(one.chunk(), &bench.owner, 100, at(2)),
            other.claim(one.chunk(), &bench.owner, 100, at(2)),
        );
        let claims = [claims.0, claims.1, claims.2, claims.3];
        let claimed = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Batches(batches)) if batches.len() == 1));
        assert_eq!(claimed.count(), 1);
        assert_eq!(claims.iter().filter(|claim| matches!(claim, Ok(Claim::NotForUs))).count(), 3);
        bench.stepped(2).await;
    }
}

async fn of_many_feeders_at_once_one_gets_each_chunk(bench: &Bench) {
    let other = Ledger::open(&bench.url).await.unwrap();
    let mut chunks = Vec::new();
    for n in 0..10 {
        chunks.push(bench.campaign(&format!("c{n}"), &[n]).await.chunk());
    }
    let backwards: Vec<_> = chunks.iter().rev().copied().collect();
    let wait = SignedDuration::from_secs(20);
    let (one, two) = tokio::join!(bench.ledger.feed(&chunks, wait, at(1)), other.feed(&backwards, wait, at(2)));
    // Postgres may see them as locked in a circle: then one of the two comes again.
    let mut fed: Vec<_> = [one, two].into_iter().flat_map(Result::unwrap_or_default).collect();
    fed.extend(bench.ledger.feed(&chunks, wait, at(3)).await.unwrap());
    fed.sort_unstable();
    assert_eq!(fed, chunks);
}

/// A row that is queued again while its chunk is being finished must not end up in a chunk that is done: nothing would
/// ever look at it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_queued_while_its_chunk_is_finished_is_not_forgotten() {
    let bench = Bench::postgres().await;
    let Raw::Postgres(pool) = &bench.raw else { unreachable!("the bench is on Postgres") };
    let (one, attempt) = bench.lost("one", &[1, 2], 0).await;
    assert_eq!(bench.hold(&attempt, &[one.row(0), one.row(1)], 2).await, 2);
    bench.decide(&one, 1, Verdict::Resend, 3).await;
    let batch = bench.sending(one.chunk(), 4).await;
    bench.record(&batch, &accepted(), 5).await;

    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE events IN EXCLUSIVE MODE").execute(&mut *blocker).await.unwrap();
    let waiting = async || {
        bench
            .raw
            .int(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .await
    };
    let (ledger, id, row, chunk) = (bench.ledger.clone(), one.id, one.row(0), one.chunk());
    let decided = tokio::spawn(async move { decide(&ledger, id, row, Verdict::Resend, 6).await });
    eventually_async("the decision waits for its event", DEADLINE, async || waiting().await == 1).await;
    let finish = bench.ledger.finish_chunk(chunk, &bench.owner, at(6));
    let unblock = async {
        // Either it has finished past the decision by now, or it waits for it.
        eventually_async("the worker finishes or waits", DEADLINE, async || {
            waiting().await == 2 || bench.chunk(chunk).await.0 != "working"
        })
        .await;
        blocker.commit().await.unwrap();
    };
    let (finished, ()) = tokio::join!(finish, unblock);
    finished.unwrap();
    assert!(decided.await.unwrap());
    assert_eq!(bench.states(&one).await, "queued accepted");
    bench.stepped(6).await;
}
