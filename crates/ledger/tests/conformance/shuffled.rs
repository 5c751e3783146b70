//! Any order of calls: both databases come to the same rows, and what must hold holds after each.

use crate::{
    Bench, at,
    bench::{FIRST_LOOK, Launched, RETRY, accepted, listed, timed_out},
};
use campaign::{
    Outcome, SmsId,
    outcome::{Blame, NotSent},
    resolve::HoldReason,
};
use jiff::SignedDuration;
use ledger::{By, Claim, ClaimedBatch, Delivery, SendingBatch, Start, Unsent, Verdict};
use proptest::{prelude::*, test_runner::TestRunner};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

const ANN: By<'static> = By { who: "ann", reason: Some("so") };

/// One call of the ledger; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Feed(usize),
    Claim(usize),
    Start(usize),
    Record(usize, usize),
    TakeBack(usize),
    Finish(usize),
    SweepOwners,
    List(Vec<(usize, usize)>),
    Look(usize),
    Settle,
    Hold(usize),
    Resend(usize),
    Decide(usize, usize),
    Campaign(usize, bool),
    OptOut(u64),
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..8_usize;
    let step = prop_oneof![
        5 => n.clone().prop_map(Step::Feed),
        5 => n.clone().prop_map(Step::Claim),
        5 => n.clone().prop_map(Step::Start),
        5 => (n.clone(), 0..8_usize).prop_map(|(a, b)| Step::Record(a, b)),
        1 => n.clone().prop_map(Step::TakeBack),
        3 => n.clone().prop_map(Step::Finish),
        1 => Just(Step::SweepOwners),
        3 => prop::collection::vec((0..8_usize, 0..4_usize), 1..5).prop_map(Step::List),
        1 => n.clone().prop_map(Step::Look),
        2 => Just(Step::Settle),
        2 => n.clone().prop_map(Step::Hold),
        2 => n.clone().prop_map(Step::Resend),
        2 => (n.clone(), 0..3_usize).prop_map(|(a, b)| Step::Decide(a, b)),
        1 => (n, any::<bool>()).prop_map(|(a, b)| Step::Campaign(a, b)),
        1 => (1..6_u64).prop_map(Step::OptOut),
        3 => prop_oneof![1..10_i64, 50..100_i64].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 40)
}

struct World {
    bench: Bench,
    campaigns: Vec<Launched>,
    formed: Vec<ClaimedBatch>,
    unsent: Vec<Unsent>,
    sending: Vec<SendingBatch>,
    now: i64,
    next_sms_id: i64,
}

fn of<T>(things: &[T], n: usize) -> Option<&T> {
    things.get(n % things.len().max(1))
}

impl World {
    async fn new(bench: Bench) -> Self {
        bench.forget_states();
        bench.latest.store(at(0).as_millisecond(), SeqCst);
        let campaigns = vec![
            bench.campaign("one", &[1, 2, 3]).await,
            bench.campaign("two", &[3, 4]).await,
            bench.campaign_with("three", "another", &[1, 4, 5], |row| row.valid_until = Some(at(400))).await,
        ];
        Self { bench, campaigns, formed: vec![], unsent: vec![], sending: vec![], now: 1, next_sms_id: 1 }
    }

    /// Makes one step, and says what came of it.
    async fn step(&mut self, step: &Step) -> String {
        let (ledger, now) = (self.bench.ledger.clone(), at(self.now));
        let campaign = |n: usize| of(&self.campaigns, n).unwrap();
        let said = match step {
            Step::Feed(n) => {
                let fed = ledger.feed(&[campaign(*n).chunk()], SignedDuration::from_secs(20), now).await.unwrap();
                format!("{fed:?}")
            }
            Step::Claim(n) => match ledger.claim(campaign(*n).chunk(), &self.bench.owner, 2, now).await.unwrap() {
                Claim::Batches(batches) => {
                    let named: Vec<_> =
                        batches.iter().map(|batch| (batch.attempt(), batch.destinations.len())).collect();
                    self.unsent.extend(batches.iter().map(ClaimedBatch::unsent));
                    self.formed.extend(batches);
                    format!("{named:?}")
                }
                other => format!("{other:?}"),
            },
            Step::Start(n) if !self.formed.is_empty() => {
                let batch = self.formed.remove(n % self.formed.len());
                match ledger.start(batch, now).await.unwrap() {
                    Start::Send(sending) => {
                        self.sending.push(sending);
                        "sending".to_owned()
                    }
                    Start::TakenBack => "taken back".to_owned(),
                }
            }
            Step::Record(n, outcome) => match of(&self.sending, *n) {
                None => String::new(),
                Some(batch) => {
                    self.next_sms_id += 1;
                    let single = batch.batch().destinations.len() == 1;
                    let not_sent = |why| Outcome::NotSent { why, retry_after: None };
                    let message = "no".to_owned();
                    let outcome = match outcome {
                        0 | 1 if single => Outcome::Accepted { sms_id: Some(SmsId(10_000 + self.next_sms_id)) },
                        0 | 1 => accepted(),
                        2 | 3 => timed_out(),
                        4 => not_sent(NotSent::RateLimited),
                        5 => not_sent(NotSent::TooLarge),
                        6 => Outcome::Rejected { blame: Blame::Destinations(vec![0]), message },
                        _ => Outcome::Rejected { blame: Blame::All, message },
                    };
                    format!("{:?}", ledger.record(batch, &outcome, &RETRY, FIRST_LOOK, now).await.unwrap())
                }
            },
            Step::TakeBack(n) => {
                // Only a batch of which no byte has left is ever taken back.
                match of(&self.unsent, *n) {
                    Some(unsent) => format!("{:?}", ledger.take_back(*unsent, "test", now).await.unwrap()),
                    None => String::new(),
                }
            }
            Step::Finish(n) => {
                ledger.finish_chunk(campaign(*n).chunk(), &self.bench.owner, now).await.unwrap();
                String::new()
            }
            Step::SweepOwners => {
                let (lease, limit) = (SignedDuration::from_secs(60), SignedDuration::from_secs(75));
                format!("{}", ledger.sweep_owners(lease, limit, now).await.unwrap())
            }
            Step::List(texts) => {
                let texts: Vec<_> = texts
                    .iter()
                    .map(|(number, delivery)| {
                        let delivery =
                            [Some(Delivery::Pending), Some(Delivery::Sent), Some(Delivery::Failed), None][*delivery];
                        let body = if *number < 6 { "hello" } else { "another" };
                        let number = [1_u64, 2, 3, 4, 5, 6, 1, 4][*number];
                        listed(
                            1 + number.cast_signed() + i64::from(body == "another") * 10,
                            number,
                            body,
                            self.now,
                            delivery,
                        )
                    })
                    .collect();
                let shop = crate::bench::sender(crate::SHOP);
                let mut once = texts;
                once.sort_by_key(|text| text.text.sms_id);
                once.dedup_by_key(|text| text.text.sms_id);
                format!("{:?}", ledger.apply_listing(&shop, &once, SignedDuration::ZERO, now).await.unwrap())
            }
            Step::Look(n) => match of(&self.bench.open().await, *n) {
                Some(attempt) => {
                    let absent = ledger.absent_rows(attempt).await.unwrap();
                    ledger.look_again(attempt, at(self.now + 9), Some((now, &absent))).await.unwrap();
                    format!("{absent:?}")
                }
                None => String::new(),
            },
            Step::Settle => {
                let ids: Vec<_> = self.bench.open().await.iter().map(|attempt| attempt.id).collect();
                let mut settled = ledger.settle_found(&ids, now).await.unwrap();
                settled.sort_unstable();
                format!("{settled:?}")
            }
            Step::Hold(n) | Step::Resend(n) => {
                let open: Vec<_> = self.bench.open().await.into_iter().filter(|attempt| !attempt.sending).collect();
                match of(&open, *n) {
                    None => String::new(),
                    Some(attempt) => {
                        let absent = ledger.absent_rows(attempt).await.unwrap();
                        if matches!(step, Step::Hold(_)) || attempt.accepted {
                            format!("{}", ledger.hold(attempt, &absent, HoldReason::LostAndAbsent, now).await.unwrap())
                        } else {
                            format!("{:?}", ledger.resend(attempt, &absent, now).await.unwrap())
                        }
                    }
                }
            }
            Step::Decide(n, verdict) => {
                let one = campaign(*n);
                let verdict = [Verdict::AssumeSent, Verdict::Resend, Verdict::Cancel][*verdict];
                let row = one.row(u16::try_from(n % 3).unwrap());
                format!("{:?}", ledger.decide_all(one.id, &[row], verdict, ANN, now).await.unwrap())
            }
            Step::Campaign(n, active) => {
                self.bench.set_campaign(campaign(*n), if *active { "active" } else { "paused" }).await;
                String::new()
            }
            Step::OptOut(number) => {
                let _ = self
                    .bench
                    .raw
                    .execute(&format!(
                        "INSERT INTO suppressions (destination, sender, reason, added_by, added_at)
                         VALUES ({}, '', 'x', 'x', 0) ON CONFLICT DO NOTHING",
                        crate::bench::msisdn(*number)
                    ))
                    .await
                    .unwrap();
                String::new()
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                String::new()
            }
            Step::Start(_) => String::new(),
        };
        self.bench.stepped(self.now).await;
        said
    }
}

impl Bench {
    /// Empties a Postgres ledger; its registered processes stay.
    async fn empty(&self) {
        self.raw
            .execute(
                "TRUNCATE imports, campaigns, texts, chunks, messages, attempts, windows, cursors, unexplained, learned,
                 suppressions, events RESTART IDENTITY CASCADE",
            )
            .await
            .unwrap();
    }
}

#[test]
fn any_order_of_calls_gives_the_same_rows_on_both_databases() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let postgres = std::cell::Cell::new(Some(runtime.block_on(Bench::postgres())));
    let config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(cases()) };
    let current = Arc::new(AtomicI64::new(0));
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let bench = postgres.take().unwrap_or_else(|| runtime.block_on(Bench::postgres()));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                bench.empty().await;
                let mut worlds = [World::new(bench).await, World::new(Bench::sqlite().await).await];
                for (n, step) in steps.iter().enumerate() {
                    current.store(i64::try_from(n).unwrap(), SeqCst);
                    let [postgres, sqlite] = &mut worlds;
                    let said = (postgres.step(step).await, sqlite.step(step).await);
                    assert_eq!(said.0, said.1, "step {n}, {step:?}, says something else on each database");
                    let pictures = (postgres.bench.picture().await, sqlite.bench.picture().await);
                    assert_eq!(pictures.0, pictures.1, "step {n}, {step:?}, makes other rows on each database");
                }
                let [postgres, _] = worlds;
                postgres.bench
            })
        }));
        match result {
            Ok(bench) => {
                postgres.set(Some(bench));
                Ok(())
            }
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Err(TestCaseError::fail(format!("at step {}: {words}", current.load(SeqCst))))
            }
        }
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// `PROPTEST_CASES` of 40 calls each.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}
