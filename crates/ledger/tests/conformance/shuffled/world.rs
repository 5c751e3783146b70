//! One database with what a trace has made there: it makes a call and says, in words, what the ledger answered.

use super::{
    Call,
    asked::{ask, text_of},
};
use crate::{
    Bench, SHOP, at,
    bench::{
        FIRST_LOOK, LEASE, Launched, REPLAY_AFTER, RETRY, SEND_LIMIT, accepted, listed, msisdn, open_attempts, sender,
        timed_out,
    },
};
use campaign::{
    CampaignId, ChunkId, ImportId, Outcome, RowId, SmsId,
    outcome::{Blame, NotSent},
    rate::Rate,
    resolve::HoldReason,
    sweep::Window,
};
use jiff::SignedDuration;
use ledger::{
    By, Claim, ClaimedBatch, Delivery, InboundText, Ledger, NewOptOut, NewTimes, NotedReading, OpenAttempt, OwnerGuard,
    PendingWindow, Retention, SendingBatch, Start, Unsent, Verdict,
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

const BY: By<'static> = By { who: "ann", reason: Some("so") };

/// Numbers of texts that may be listed, sent or not.
const ANY_TEXT: [u64; 8] = [1, 2, 3, 4, 5, 6, 1, 4];

pub(super) struct World {
    pub(super) bench: Bench,
    /// Two connections, each with a process of its own.
    hands: [(Ledger, OwnerGuard); 2],
    pub(super) campaigns: Vec<Launched>,
    retried: BTreeSet<CampaignId>,
    formed: Vec<ClaimedBatch>,
    unsent: Vec<Unsent>,
    sending: Vec<SendingBatch>,
    pub(super) now: i64,
    next_sms_id: i64,
}

fn of<T>(things: &[T], n: usize) -> Option<&T> {
    things.get(n % things.len().max(1))
}

async fn hand(bench: &Bench) -> (Ledger, OwnerGuard) {
    let ledger = Ledger::open(&bench.url).await.unwrap();
    let owner = register(&ledger, 0).await;
    (ledger, owner)
}

/// A process of its own: no two have one number.
async fn register(ledger: &Ledger, second: i64) -> OwnerGuard {
    static PROCESS: AtomicU32 = AtomicU32::new(1);
    ledger.register_owner("hand", "here", PROCESS.fetch_add(1, SeqCst), at(second)).await.unwrap()
}

impl World {
    pub(super) async fn on(bench: Bench) -> Self {
        let hands = [hand(&bench).await, hand(&bench).await];
        Self {
            bench,
            hands,
            campaigns: vec![],
            retried: BTreeSet::new(),
            formed: vec![],
            unsent: vec![],
            sending: vec![],
            now: 1,
            next_sms_id: 1,
        }
    }

    /// Empties the ledger and launches three campaigns; its registered processes stay.
    pub(super) async fn begin(&mut self) {
        self.bench.empty().await;
        self.bench.forget_states();
        self.bench.latest.store(at(0).as_millisecond(), SeqCst);
        (self.now, self.next_sms_id) = (1, 1);
        self.retried.clear();
        (self.formed, self.unsent, self.sending) = (vec![], vec![], vec![]);
        let late = |row: &mut ledger::NewRow| row.valid_until = Some(at(90));
        self.campaigns = vec![
            self.bench.campaign("one", &[1, 2, 3]).await,
            self.bench.campaign("two", &[3, 4]).await,
            self.bench.campaign_with("three", "another", &[1, 4, 5], late).await,
        ];
    }

    /// Makes one call by one of the two connections, and says what came of it.
    pub(super) async fn step(&mut self, hand: usize, call: &Call) -> String {
        let said = self.call(hand, call).await;
        self.bench.stepped(self.now).await;
        said
    }

    async fn call(&mut self, hand: usize, call: &Call) -> String {
        let (ledger, now) = (self.hands[hand].0.clone(), at(self.now));
        let campaign = |n: usize| of(&self.campaigns, n).unwrap();
        match call {
            Call::Through(n, outcome, rest) => {
                let mut said = String::new();
                for call in [Call::Feed(*n), Call::Claim(*n)] {
                    said += &Box::pin(self.step(hand, &call)).await;
                }
                while !self.formed.is_empty() {
                    let last = self.sending.len();
                    for call in [Call::Start(0), Call::Record(last, *outcome)] {
                        said += &Box::pin(self.step(hand, &call)).await;
                    }
                }
                if *rest {
                    said += &Box::pin(self.step(hand, &Call::Finish(*n))).await;
                }
                said
            }
            Call::Feed(n) => {
                let chunks = [campaign(*n).chunk(), campaign(*n + 1).chunk()];
                let mut fed = ledger.feed(&chunks, REPLAY_AFTER, now).await.unwrap();
                fed.sort_unstable();
                format!("{fed:?}")
            }
            Call::Claim(n) => {
                let chunk = match ledger.most_urgent(campaign(*n).chunk()).await.unwrap() {
                    Some(chunk) => chunk,
                    None => campaign(*n).chunk(),
                };
                match ledger.claim(chunk, &self.hands[hand].1, 2, now).await.unwrap() {
                    Claim::Batches(batches) => {
                        let told = |batch: &ClaimedBatch| {
                            let numbers: Vec<u64> = batch.destinations.iter().map(|number| number.as_u64()).collect();
                            format!("{} {numbers:?} {} {:?}", batch.attempt(), batch.text, batch.valid_until)
                        };
                        let said = format!("{chunk} {:?}", batches.iter().map(told).collect::<Vec<_>>());
                        self.unsent.extend(batches.iter().map(ClaimedBatch::unsent));
                        self.formed.extend(batches);
                        said
                    }
                    other => format!("{chunk} {other:?}"),
                }
            }
            Call::Start(n) if !self.formed.is_empty() => {
                let batch = self.formed.remove(n % self.formed.len());
                match ledger.start(batch, now).await.unwrap() {
                    Start::Send(sending) => {
                        self.sending.push(sending);
                        "sending".to_owned()
                    }
                    Start::TakenBack => "taken back".to_owned(),
                }
            }
            Call::Record(n, outcome) => {
                self.next_sms_id += 1;
                let Some(batch) = of(&self.sending, *n) else { return String::new() };
                let outcome = outcome_of(*outcome, batch, self.next_sms_id);
                format!("{:?}", ledger.record(batch, &outcome, &RETRY, FIRST_LOOK, now).await.unwrap())
            }
            Call::TakeBack(n) => match of(&self.unsent, *n) {
                // Only a batch of which no byte has left is ever taken back.
                Some(unsent) => format!("{:?}", ledger.take_back(*unsent, "test", now).await.unwrap()),
                None => String::new(),
            },
            Call::Finish(n) => {
                format!("{:?}", ledger.finish_chunk(campaign(*n).chunk(), &self.hands[hand].1, now).await.unwrap())
            }
            Call::EndOwner => {
                let next = register(&ledger, self.now).await;
                let before = std::mem::replace(&mut self.hands[hand].1, next);
                before.end(now).await.unwrap();
                String::new()
            }
            Call::SweepOwners => format!("{}", ledger.sweep_owners(LEASE, SEND_LIMIT, now).await.unwrap()),
            Call::List(texts, look) => {
                let texts = self.texts(texts).await.iter().collect();
                let shop = sender(SHOP);
                let applied = if *look {
                    ledger.apply_look(&shop, &texts, SignedDuration::ZERO, now).await
                } else {
                    ledger.apply_listing(&shop, &texts, SignedDuration::ZERO, now).await
                };
                format!("{:?}", applied.unwrap())
            }
            Call::Look(n, counts) => match of(&self.open(&ledger).await, *n) {
                Some(attempt) => {
                    let absent = ledger.absent_rows(attempt).await.unwrap();
                    let counted = counts.then_some((now, &*absent));
                    ledger.look_again(attempt, at(self.now + 9), counted).await.unwrap();
                    format!("{absent:?}")
                }
                None => String::new(),
            },
            Call::Settle => {
                let ids: Vec<_> = self.open(&ledger).await.iter().map(|attempt| attempt.id).collect();
                let mut settled = ledger.settle_found(&ids, now).await.unwrap();
                settled.sort_unstable();
                format!("{settled:?}")
            }
            Call::Hold(n) | Call::Resend(n) => {
                let open: Vec<_> = self.open(&ledger).await;
                let Some(attempt) = of(&open, *n) else { return String::new() };
                let absent = ledger.absent_rows(attempt).await.unwrap();
                if matches!(call, Call::Hold(_)) || attempt.accepted {
                    format!("{}", ledger.hold(attempt, &absent, HoldReason::LostAndAbsent, now).await.unwrap())
                } else {
                    format!("{:?}", ledger.resend(attempt, &absent, now).await.unwrap())
                }
            }
            Call::Window(n) => self.window(&ledger, *n).await,
            Call::Details(n) => {
                let ids: Vec<SmsId> = (0..8).map(|id| SmsId(id + i64::try_from(*n).unwrap())).collect();
                format!("{:?}", ledger.ask_details(&ids, at(self.now + 5)).await.unwrap())
            }
            Call::Detail(n, said) => {
                let mut due = ledger.due_details(100, now).await.unwrap();
                due.sort_unstable_by_key(|due| due.row);
                let Some(due) = of(&due, *n) else { return String::new() };
                let delivery =
                    [Some(Delivery::Pending), Some(Delivery::Sent), Some(Delivery::Failed), None, None][*said];
                let again = (*said != 4).then_some(at(self.now + 7));
                ledger.record_detail(due, delivery, again, now).await.unwrap();
                format!("{due:?}")
            }
            Call::Decide(n, verdict) => {
                // Most often about one that waits for somebody or something: what else could be decided?
                let waits = "SELECT CAST(id AS TEXT) || ' ' || CAST(campaign_id AS TEXT) FROM all_rows
                    WHERE state IN ('held', 'unknown') ORDER BY state, id";
                let (row, of) = match of(&self.bench.raw.strings(waits).await, n / 2) {
                    Some(found) if n % 4 > 0 => {
                        let (row, of) = found.split_once(' ').unwrap();
                        (RowId(row.parse().unwrap()), CampaignId(of.parse().unwrap()))
                    }
                    _ => (campaign(*n).row(u16::try_from(n % 3).unwrap()), campaign(*n).id),
                };
                format!("{:?}", ledger.decide_all(of, &[row], verdict_of(*verdict), BY, now).await.unwrap())
            }
            Call::DecideAll(n, verdict) => {
                let one = campaign(*n);
                let rows: Vec<_> = (0..4).map(|n| one.row(n)).collect();
                let by = By { who: "bob", reason: Some("all of them") };
                format!("{:?}", ledger.decide_all(one.id, &rows, verdict_of(*verdict), by, now).await.unwrap())
            }
            Call::Pause(n) => format!("{:?}", ledger.pause(campaign(*n).id, BY, now).await.unwrap()),
            Call::Resume(n) => format!("{:?}", ledger.resume(campaign(*n).id, BY, now).await.unwrap()),
            Call::Cancel(n) => format!("{:?}", ledger.cancel(campaign(*n).id, BY, now).await.unwrap()),
            Call::SweepCancelled(n) => {
                let of = n.map(|n| campaign(n).id);
                format!("{:?}", ledger.sweep_cancelled(of, 10, now).await.unwrap())
            }
            Call::SweepExpired => format!("{:?}", ledger.sweep_expired(10, now).await.unwrap()),
            Call::Reschedule(n, send_at, valid_until) => {
                let after = |steps: i64, seconds| (steps > 0).then(|| at(self.now + steps * seconds));
                let times = NewTimes { send_at: after(*send_at, 20), valid_until: after(*valid_until, 60) };
                format!("{:?}", ledger.reschedule(campaign(*n).id, times, BY, now).await.unwrap())
            }
            Call::Retry(n) => self.retry(&ledger, *n).await,
            Call::SenderRate(n) => {
                let rate = [None, Some("1/s"), Some("6/min")][*n].map(|rate| Rate::parse(rate).unwrap());
                format!("{:?}", ledger.set_sender_rate(&sender(SHOP), rate, BY, "a rate", now).await.unwrap())
            }
            Call::OptOut(number, all) => {
                let new = NewOptOut {
                    number: msisdn(*number),
                    sender: (!all).then(|| sender(SHOP)),
                    reason: "asked".to_owned(),
                };
                format!("{:?}", ledger.opt_out(&[new], "ann", now).await.unwrap())
            }
            Call::OptIn(number, all) => {
                let shop = sender(SHOP);
                let from = (!all).then_some(&shop);
                format!("{:?}", ledger.opt_in(msisdn(*number), from, "ann", "asked", now).await.unwrap())
            }
            Call::Inbound(number, words) => {
                let text = InboundText {
                    sms_id: SmsId(5_000 + self.now * 10 + i64::try_from(*words).unwrap()),
                    source: msisdn(*number).to_string(),
                    person: Some(msisdn(*number)),
                    receiver: SHOP.to_owned(),
                    text: ["STOP", "start", "Thanks!", "Stop."][*words].to_owned(),
                    at: now.as_second() - i64::try_from(*words).unwrap(),
                };
                format!("{:?}", ledger.take_inbound(&[text], now).await.unwrap())
            }
            Call::Purge => {
                let retention = Retention { texts_before: at(self.now - 100), numbers_before: at(self.now - 200) };
                let purgeable = ledger.purgeable(retention).await.unwrap();
                format!("{purgeable:?} {:?}", ledger.purge(retention, "ann", now).await.unwrap())
            }
            Call::Wait(seconds) => {
                self.now += seconds;
                String::new()
            }
            Call::WaitForDue(n) => {
                let due = format!(
                    "SELECT CAST(at AS TEXT) FROM (SELECT valid_until AS at FROM all_rows WHERE state IN ('queued', 'scheduled')
                        UNION SELECT not_before FROM all_rows UNION SELECT check_at FROM all_rows UNION SELECT look_at FROM attempts
                        UNION SELECT due_at FROM chunks UNION SELECT look_at FROM windows UNION SELECT fed_at + {} FROM chunks
                        UNION SELECT fed_at + {} FROM chunks) AS dues WHERE at > {} ORDER BY at",
                    REPLAY_AFTER.as_millis() + 1,
                    LEASE.as_millis() + 1,
                    now.as_millisecond()
                );
                if let Some(due) = of(&self.bench.raw.strings(&due).await, *n) {
                    // Times are told in whole seconds here; who is due within one is due at its end.
                    self.now = (due.parse::<i64>().unwrap() - at(0).as_millisecond()).div_euclid(1_000)
                        + i64::from(!due.ends_with("000"));
                }
                String::new()
            }
            Call::Ask(n) => ask(self, &ledger, *n).await,
            Call::Start(_) => String::new(),
        }
    }

    pub(super) async fn open(&self, ledger: &Ledger) -> Vec<OpenAttempt> {
        open_attempts(ledger).await
    }

    /// Texts as the gateway lists them: of the rows that had an attempt, or any that it might list.
    async fn texts(&self, texts: &[(usize, usize)]) -> Vec<ledger::ListedText> {
        let sent = "SELECT CAST(m.destination % 1000 AS TEXT) || ' ' || t.body FROM all_rows m JOIN texts t ON t.id = m.text_id
            WHERE m.attempted_at IS NOT NULL AND m.destination IS NOT NULL AND t.body IS NOT NULL ORDER BY m.id";
        let sent = self.bench.raw.strings(sent).await;
        let mut listed: Vec<_> = texts
            .iter()
            .map(|(which, delivery)| {
                let delivery = [Some(Delivery::Pending), Some(Delivery::Sent), Some(Delivery::Failed), None][*delivery];
                let any = (ANY_TEXT[which % 8], if which % 8 < 6 { "hello" } else { "another" });
                let (number, body) =
                    match of(&sent, *which).filter(|_| *which < 8).and_then(|sent| sent.split_once(' ')) {
                        Some((number, body)) => (number.parse().unwrap(), body),
                        None => any,
                    };
                let id = 1 + number.cast_signed() + i64::from(body == "another") * 10;
                listed(id, number, body, self.now, delivery)
            })
            .collect();
        listed.sort_by_key(|text| text.text.sms_id);
        listed.dedup_by_key(|text| text.text.sms_id);
        listed
    }

    /// Reads a window: notes it, moves the cursor, and follows or forgets what is pending.
    async fn window(&self, ledger: &Ledger, n: usize) -> String {
        let (shop, now) = (sender(SHOP), at(self.now));
        let window = Window { since: now.as_second() - 9, until: now.as_second() - 2 };
        let reading = NotedReading {
            sender: &shop,
            row: None,
            window,
            skew: SignedDuration::from_secs(1),
            began: now,
            listed: Some(3),
            found: 1,
        };
        ledger.note_reading(&reading, now).await.unwrap();
        let mut due = ledger.due_windows(now).await.unwrap();
        due.sort_unstable_by_key(|(_, window)| window.id);
        let first_look = SignedDuration::from_secs(3 + i64::try_from(n).unwrap());
        ledger.advance_cursor(&shop, window.until, first_look).await.unwrap();
        match of(&due, n) {
            Some((_, pending)) if n.is_multiple_of(2) => ledger.drop_window(pending.id).await.unwrap(),
            Some((_, pending)) => {
                let again = PendingWindow { looks: pending.looks + 1, ..*pending };
                ledger.keep_window(&shop, &again, at(self.now + 4)).await.unwrap();
            }
            None => {
                let pending = PendingWindow { id: -1, window, listed: 3, looks: 1 };
                ledger.keep_window(&shop, &pending, at(self.now + 4)).await.unwrap();
            }
        }
        ledger.learn_max("list_lag_ms", i64::try_from(n).unwrap() * 100, now).await.unwrap();
        format!("{} {:?}", text_of(&due), ledger.cursor(&shop).await.unwrap())
    }

    /// Retries the failed rows of a campaign, most often of the one that has the most, once: a name that is taken uses an id up on Postgres alone. The new
    /// campaign takes part from then on.
    async fn retry(&mut self, ledger: &Ledger, n: usize) -> String {
        let most = format!(
            "SELECT CAST(campaign_id AS TEXT) FROM all_rows WHERE state = 'failed' AND campaign_id <= {}
             GROUP BY campaign_id ORDER BY count(*) DESC, campaign_id LIMIT 1",
            self.campaigns[2].id
        );
        let of = match self.bench.raw.strings(&most).await.first() {
            Some(most) if n > 1 => CampaignId(most.parse().unwrap()),
            _ => self.campaigns[n % 3].id,
        };
        let now = at(self.now);
        let valid_until = n.is_multiple_of(2).then(|| at(self.now + 90));
        let counted = ledger.retriable(of, valid_until, now).await.unwrap();
        if self.retried.contains(&of) {
            return format!("{counted:?}");
        }
        let retry = ledger.retry_failed(of, valid_until, BY, now).await.unwrap();
        if let Some(retry) = &retry {
            self.retried.insert(of);
            let chunks = format!("SELECT CAST(id AS TEXT) FROM chunks WHERE campaign_id = {} ORDER BY id", retry.id);
            let chunks = self.bench.raw.strings(&chunks).await;
            let chunks: Vec<ChunkId> = chunks.iter().map(|id| ChunkId(id.parse().unwrap())).collect();
            self.campaigns.push(Launched { import: ImportId(0), id: retry.id, chunks });
        }
        format!("{counted:?} {retry:?}")
    }
}

fn verdict_of(n: usize) -> Verdict {
    [Verdict::AssumeSent, Verdict::Resend, Verdict::Cancel][n]
}

fn outcome_of(n: usize, batch: &SendingBatch, sms_id: i64) -> Outcome {
    let single = batch.batch().destinations.len() == 1;
    let not_sent = |why| Outcome::NotSent { why, retry_after: None };
    let message = "no".to_owned();
    match n {
        0 | 1 if single => Outcome::Accepted { sms_id: Some(SmsId(10_000 + sms_id)) },
        0 | 1 => accepted(),
        2 | 3 => timed_out(),
        4 => not_sent(NotSent::RateLimited),
        5 => not_sent(NotSent::TooLarge),
        6 => Outcome::Rejected { blame: Blame::Destinations(vec![0]), message },
        _ => Outcome::Rejected { blame: Blame::All, message },
    }
}

impl Bench {
    /// Empties a Postgres ledger; its registered processes stay. One on SQLite is new.
    async fn empty(&self) {
        if let crate::bench::Raw::Postgres(_) = &self.raw {
            self.raw
                .execute(
                    "TRUNCATE imports, campaigns, texts, chunks, packs, messages, attempts, windows, cursors, unexplained, learned,
                     suppressions, inbound, sender_rates, readings, events RESTART IDENTITY CASCADE",
                )
                .await
                .unwrap();
        }
    }
}
