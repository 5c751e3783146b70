//! What the ledger's seams and the wire ask, and what goes wrong where.

use crate::{
    book::{Admitted, Book, When},
    fault::{Fault, Place, QueueFault, ReadFault, SendFault, TokenFault},
    model::{Model, Violation},
    process::Kind,
    rng::Rng,
    scenario::Scenario,
};
use gateway::simulated::{Asked, Reply, Wire};
use jiff::{SignedDuration, Timestamp};
use ledger::simulated::{Change, Fate, World, stop};
use queue::Job;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A process, as the world knows it. The first is the people and the world itself: nothing happens to it.
pub(crate) struct Process {
    pub(crate) kind: Kind,
    pub(crate) alive: bool,
    pub(crate) frozen_until: Option<Instant>,
    pub(crate) clock_error: SignedDuration,
    pub(crate) stop: CancellationToken,
    /// It has stood still, and may go on in the middle of anything.
    pub(crate) froze: bool,
    /// Batches that it began after it was asked to stop.
    pub(crate) begun_late: u32,
}

pub(crate) struct Sim {
    pub(crate) scenario: Scenario,
    pub(crate) began: Instant,
    pub(crate) start: Timestamp,
    pub(crate) rng: RefCell<Rng>,
    faults: RefCell<Vec<Fault>>,
    places: RefCell<BTreeMap<Place, u32>>,
    counts: RefCell<[u32; 5]>,
    pub(crate) processes: RefCell<Vec<Process>>,
    /// The process whose task runs.
    pub(crate) running: Cell<usize>,
    /// The task that has a statement in flight.
    pub(crate) holder: Cell<Option<usize>>,
    pub(crate) task: Cell<usize>,
    pub(crate) new_tasks: RefCell<Vec<(usize, Task)>>,
    pub(crate) crashed: RefCell<Vec<usize>>,
    pub(crate) model: RefCell<Model>,
    /// What a copy of the ledger holds.
    copy: RefCell<Option<Model>>,
    pub(crate) book: RefCell<Book>,
    pub(crate) violation: RefCell<Option<Violation>>,
    pub(crate) jobs: RefCell<VecDeque<Job>>,
    pub(crate) job_came: Notify,
    /// A call that was made to be late is at the gateway.
    pub(crate) sent_late: Notify,
    pub(crate) healed: Cell<bool>,
    pub(crate) over: Cell<bool>,
    /// The files that are loaded, by number.
    pub(crate) loaded: RefCell<BTreeSet<usize>>,
    /// When a 429 was heard, and until when it stops everybody.
    stopped: Cell<Option<(Instant, Instant)>>,
    /// Moves on with each change: who has seen the same twice may rest longer.
    pub(crate) changes: Cell<u64>,
    log_read_to: Cell<i64>,
    trace: Option<RefCell<Vec<String>>>,
    digest: Cell<u64>,
    /// Transactions and readings so far.
    statements: Cell<u64>,
    first_uses: Cell<u32>,
    pub(crate) met: Cell<usize>,
}

thread_local! {
    static SIM: RefCell<Option<Rc<Sim>>> = const { RefCell::new(None) };
}

pub(crate) fn install(sim: Option<Rc<Sim>>) {
    ledger::simulated::install(sim.clone().map(|sim| sim as Rc<dyn World>));
    SIM.set(sim);
}

pub(crate) fn with<T>(ask: impl FnOnce(&Sim) -> T) -> T {
    let sim = SIM.with_borrow(Clone::clone).expect("a simulation runs");
    ask(&sim)
}

pub(crate) fn get() -> Rc<Sim> {
    SIM.with_borrow(Clone::clone).expect("a simulation runs")
}

/// A text that is listed and final at once.
pub(crate) fn at_once(now: Timestamp) -> When {
    When { effect: now, listed: now, finals: now, status: 1 }
}

const SENDS: usize = 0;
const READS: usize = 1;
const TOKENS: usize = 2;
const PUSHES: usize = 3;
const CLAIMS: usize = 4;

impl Sim {
    pub(crate) fn new(scenario: Scenario, trace: bool, log_read_to: i64) -> Self {
        let start = Timestamp::from_second(1_800_000_000).expect("it is one");
        let book = Book::new(
            SignedDuration::from_secs(i64::from(scenario.skew_s)),
            SignedDuration::from_secs(i64::from(scenario.token_life_s)),
        );
        Self {
            began: Instant::now(),
            start,
            rng: RefCell::new(Rng::new(scenario.seed ^ 0xfeed)),
            faults: RefCell::new(scenario.faults.clone()),
            places: RefCell::default(),
            counts: RefCell::default(),
            processes: RefCell::default(),
            running: Cell::new(0),
            holder: Cell::new(None),
            task: Cell::new(0),
            new_tasks: RefCell::default(),
            crashed: RefCell::default(),
            model: RefCell::default(),
            copy: RefCell::default(),
            book: RefCell::new(book),
            violation: RefCell::new(None),
            jobs: RefCell::default(),
            job_came: Notify::new(),
            sent_late: Notify::new(),
            healed: Cell::new(false),
            over: Cell::new(false),
            loaded: RefCell::default(),
            stopped: Cell::new(None),
            changes: Cell::new(0),
            log_read_to: Cell::new(log_read_to),
            trace: trace.then(RefCell::default),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
            first_uses: Cell::new(0),
            statements: Cell::new(0),
            met: Cell::new(0),
            scenario,
        }
    }

    pub(crate) fn clock(&self) -> Timestamp {
        self.start + SignedDuration::try_from(self.began.elapsed()).unwrap_or_default()
    }

    /// One line of the trace: what happened, and numbers that tell it from others of its kind.
    pub(crate) fn note(&self, what: &str, numbers: &[i64], more: impl FnOnce() -> String) {
        let at = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(0);
        let mut digest = self.digest.get();
        let bytes = what.bytes().map(i64::from);
        for number in bytes.chain(numbers.iter().copied()).chain([at]) {
            digest = (digest ^ number.cast_unsigned()).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.digest.set(digest);
        if let Some(trace) = &self.trace {
            let who = self.running.get();
            trace.borrow_mut().push(format!("{:>10.3} p{who} {what} {numbers:?} {}", at as f64 / 1000.0, more()));
        }
    }

    /// Whose turn is before whose. A number that a task has for as long as nothing happens: one that was woken for nothing, which is a
    /// matter of microseconds, changes nothing for the others.
    pub(crate) fn turn_of(&self, task: usize) -> u64 {
        let happened = self.digest.get() ^ (self.statements.get() << 32) ^ self.scenario.seed;
        Rng::new(happened.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ task as u64).next()
    }

    /// The ledger is copied now.
    pub(crate) fn remember_copy(&self) {
        *self.copy.borrow_mut() = Some(self.model.borrow().clone());
        self.note("copied", &[], String::new);
    }

    /// The next call that sends is given up by who makes it, and its texts go out after that.
    pub(crate) fn next_send_is_late(&self) {
        let nth = self.counts.borrow()[SENDS];
        let mut faults = self.faults.borrow_mut();
        faults.retain(|fault| !matches!(fault, Fault::Send { nth: n, .. } if *n == nth));
        faults.push(Fault::Send { nth, what: SendFault::TimedOut { done: 100, late: true } });
    }

    /// Every process ends at once, wherever it is; others take their places.
    pub(crate) fn lose_all_processes(&self) {
        for (number, process) in self.processes.borrow_mut().iter_mut().enumerate().skip(1) {
            if std::mem::replace(&mut process.alive, false) {
                self.crashed.borrow_mut().push(number);
            }
        }
    }

    /// The copy is in the ledger's place, and its log is empty. What was sent meanwhile is of no attempt that it knows.
    pub(crate) fn recall_copy(&self) {
        let Some(mut copy) = self.copy.take() else { return };
        let mut model = self.model.borrow_mut();
        // The gateway has seen those pairs.
        copy.tokens_committed = model.tokens_committed;
        copy.restored = true;
        for text in &mut self.book.borrow_mut().texts {
            let begun = |id: i64| copy.attempts.get(&id).is_some_and(|attempt| attempt.state != "formed");
            text.attempt = text.attempt.filter(|id| begun(*id));
        }
        *model = copy;
        self.log_read_to.set(0);
        self.met.set(self.met.get() + 1);
        self.note("restored", &[], String::new);
    }

    pub(crate) fn told(&self) -> (u64, Vec<String>) {
        (self.digest.get(), self.trace.as_ref().map(|trace| trace.borrow().clone()).unwrap_or_default())
    }

    pub(crate) fn check(&self, holds: Result<(), Violation>) {
        if let Err(violation) = holds {
            self.note("VIOLATED", &[], || format!("{}: {}", violation.invariant, violation.seen));
            self.violation.borrow_mut().get_or_insert(violation);
        }
    }

    fn take_fault<T>(&self, is: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        if self.healed.get() {
            return None;
        }
        let mut faults = self.faults.borrow_mut();
        let at = faults.iter().position(|fault| is(fault).is_some())?;
        let fault = faults.remove(at);
        self.met.set(self.met.get() + 1);
        self.note("FAULT", &[], || format!("{fault:?}"));
        is(&fault)
    }

    fn count(&self, what: usize) -> u32 {
        let mut counts = self.counts.borrow_mut();
        counts[what] += 1;
        counts[what] - 1
    }

    /// Whether a fault that has a time is on.
    fn is_during(&self, is: impl Fn(&Fault) -> Option<(u32, u32)>) -> bool {
        if self.healed.get() {
            return false;
        }
        let at = self.began.elapsed().as_secs();
        self.faults
            .borrow()
            .iter()
            .filter_map(is)
            .any(|(from, secs)| (u64::from(from)..u64::from(from + secs)).contains(&at))
    }

    /// Somebody is at a place.
    pub(crate) fn at(&self, place: Place) -> Fate {
        let process = self.running.get();
        if process == 0 || self.healed.get() {
            return Fate::Go;
        }
        let nth = {
            let mut places = self.places.borrow_mut();
            let nth = places.entry(place).or_insert(0);
            *nth += 1;
            *nth - 1
        };
        let fate = self.take_fault(|fault| match fault {
            Fault::Crash { at, nth: n } if (*at, *n) == (place, nth) => Some(None),
            Fault::Freeze { at, nth: n, secs } if (*at, *n) == (place, nth) => Some(Some(*secs)),
            _ => None,
        });
        let stop = self.take_fault(|fault| match fault {
            Fault::Stop { at, nth: n } if (*at, *n) == (place, nth) => Some(()),
            _ => None,
        });
        if stop.is_some() {
            let stop = self.processes.borrow()[process].stop.clone();
            stop.cancel();
        }
        match fate {
            None => Fate::Go,
            Some(None) => {
                self.processes.borrow_mut()[process].alive = false;
                self.crashed.borrow_mut().push(process);
                Fate::Crash
            }
            Some(Some(secs)) => {
                let until = Instant::now() + Duration::from_secs(u64::from(secs));
                let frozen = &mut self.processes.borrow_mut()[process];
                (frozen.frozen_until, frozen.froze) = (Some(until), true);
                Fate::Freeze
            }
        }
    }

    /// Jobs on their way to the workers.
    pub(crate) fn push(&self, job: Job) {
        let nth = self.count(PUSHES);
        let fault = self.take_fault(|fault| match fault {
            Fault::Queue { nth: n, what } if *n == nth => Some(*what),
            _ => None,
        });
        self.note("push", &[job.chunk], String::new);
        match fault {
            None => self.deliver(job),
            Some(QueueFault::Lose) => {}
            Some(QueueFault::Flush) => self.jobs.borrow_mut().clear(),
            Some(QueueFault::Double) => {
                self.deliver(job.clone());
                self.deliver(job);
            }
            Some(QueueFault::Late(secs)) => self.later(secs, move |sim| sim.deliver(job)),
        }
    }

    fn deliver(&self, job: Job) {
        let mut jobs = self.jobs.borrow_mut();
        let at = self.rng.borrow_mut().of(0, u32::try_from(jobs.len()).unwrap_or(0) + 1) as usize;
        jobs.insert(at, job);
        drop(jobs);
        self.job_came.notify_one();
    }

    fn later(&self, secs: u32, act: impl FnOnce(&Self) + 'static) {
        let task = async move {
            tokio::time::sleep(Duration::from_secs(u64::from(secs))).await;
            with(act);
        };
        self.new_tasks.borrow_mut().push((0, Box::pin(task)));
    }

    fn when(&self, late: bool) -> When {
        let mut rng = self.rng.borrow_mut();
        let scenario = &self.scenario;
        let now = self.clock();
        let ms = |secs: u32| i64::from(secs) * 1000;
        let (late_s, lag_s) = scenario.late_s();
        let effect = match late {
            true => now + SignedDuration::from_millis(ms(SEND_TIMEOUT_S) + i64::from(rng.of(0, late_s * 1000))),
            false => now,
        };
        let longest = if late { lag_s } else { scenario.settle_s - 8 };
        let lag = if rng.percent(scenario.slow_percent) { longest } else { scenario.lag_s.min(longest) };
        let listed = effect + SignedDuration::from_millis(i64::from(rng.of(0, lag * 1000 + 1)));
        let finals = effect + SignedDuration::from_millis(i64::from(rng.of(0, scenario.pending_s * 1000)));
        When { effect, listed, finals, status: if rng.percent(8) { 2 } else { 1 } }
    }

    /// Takes a part of a request's destinations, in hundredths.
    #[expect(clippy::too_many_arguments, reason = "a request's parts, and what becomes of it")]
    fn effect(
        &self,
        attempt: i64,
        rows: &[i64],
        sender: &str,
        destinations: &[u64],
        text: &str,
        done: u32,
        late: bool,
    ) -> Option<i64> {
        let mut last = None;
        for (row, destination) in rows.iter().zip(destinations) {
            if done < 100 && !self.rng.borrow_mut().percent(done) {
                continue;
            }
            let when = self.when(late);
            last = Some(self.book.borrow_mut().take(sender, *destination, text, when, Some((attempt, *row))));
            self.note("text", &[*row, last.unwrap_or(0)], String::new);
            let holds = self.model.borrow().nobody_is_texted_twice(*row, &self.book.borrow());
            self.check(holds);
        }
        last
    }

    fn send(&self, asked: &Asked) -> Reply {
        let field =
            |name: &str| asked.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
        let (sender, text) = (field("source"), field("text"));
        let named = asked.fields.iter().filter(|(name, _)| name.starts_with("destination"));
        let destinations: Vec<u64> = named.filter_map(|(_, value)| value.parse().ok()).collect();
        let nth = self.count(SENDS);
        let found = self.model.borrow_mut().no_request_before_its_attempt(sender, &destinations);
        let (attempt, rows) = match found {
            Ok(found) => found,
            Err(violation) => {
                self.check(Err(violation));
                return Reply::Broken;
            }
        };
        self.note("POST", &[attempt, i64::try_from(rows.len()).unwrap_or(0)], String::new);
        let fault = self.take_fault(|fault| match fault {
            Fault::Send { nth: n, what } if *n == nth => Some(*what),
            _ => None,
        });
        let effect = |done, late| self.effect(attempt, &rows, sender, &destinations, text, done, late);
        let now = self.clock();
        match fault {
            None => {
                let single = effect(100, false).filter(|_| asked.path == "sms/send");
                self.book.borrow().accepted(single, now)
            }
            Some(SendFault::TimedOut { done, late }) => {
                effect(done, late);
                if late {
                    self.sent_late.notify_waiters();
                }
                Reply::TimedOut
            }
            Some(SendFault::Broken { done }) => {
                effect(done, false);
                Reply::Broken
            }
            Some(SendFault::Status { status, done }) => {
                effect(done, false);
                self.book.borrow().answer(status, "<html>".to_owned(), now)
            }
            Some(SendFault::AcceptedInPart { done }) => {
                if asked.path == "sms/send" {
                    // An answer that names a text is about a text that is there.
                    let single = effect(100, false);
                    return self.book.borrow().accepted(single, now);
                }
                effect(done, false);
                self.book.borrow().accepted(None, now)
            }
            Some(SendFault::Refused { status: 0 }) => Reply::NoConnection,
            Some(SendFault::Refused { status: 422 }) => {
                let blamed = self.rng.borrow_mut().of(0, u32::try_from(destinations.len()).unwrap_or(1));
                let said = format!(r#"{{"message":"m","errors":{{"destination.{blamed}":["bad"]}}}}"#);
                self.book.borrow().answer(422, said, now)
            }
            Some(SendFault::Refused { status }) => {
                self.book.borrow().answer(status, r#"{"message":"m"}"#.to_owned(), now)
            }
        }
    }

    fn read(&self, asked: &Asked) -> Reply {
        let nth = self.count(READS);
        let fault = self.take_fault(|fault| match fault {
            Fault::Read { nth: n, what } if *n == nth => Some(*what),
            _ => None,
        });
        let now = self.clock();
        let flicker = self.is_during(|fault| match fault {
            Fault::Flicker { at_s, secs } => Some((*at_s, *secs)),
            _ => None,
        });
        let book = self.book.borrow();
        match fault {
            Some(ReadFault::Status(status)) => book.answer(status, r#"{"message":"m"}"#.to_owned(), now),
            Some(ReadFault::TimedOut) => Reply::TimedOut,
            Some(ReadFault::Broken) => Reply::Broken,
            None => match asked.path.strip_prefix("sms/detail/") {
                Some(id) => book.detail(id.parse().unwrap_or(0), now),
                None if asked.path == "sender-id/list" => book.senders("SHOP", now),
                None => book.list(asked, now, flicker),
            },
        }
    }

    fn token(&self, asked: &Asked) -> Reply {
        let nth = self.count(TOKENS);
        let fault = self.take_fault(|fault| match fault {
            Fault::Token { nth: n, what } if *n == nth => Some(*what),
            _ => None,
        });
        let now = self.clock();
        match fault {
            Some(TokenFault::NoConnection) => Reply::NoConnection,
            Some(TokenFault::Status(status)) => self.book.borrow().answer(status, r#"{"message":"m"}"#.to_owned(), now),
            Some(TokenFault::Lost) => {
                let _lost = self.book.borrow_mut().token(asked, now);
                Reply::TimedOut
            }
            None => self.book.borrow_mut().token(asked, now),
        }
    }

    /// What was granted half a second ago may still be called.
    fn nobody_calls_before_retry_after(&self) {
        let now = Instant::now();
        let early =
            self.stopped.get().is_some_and(|(heard, until)| now > heard + Duration::from_secs(1) && now < until);
        if early && !self.processes.borrow()[self.running.get()].froze {
            let seen = format!("{:?} too early", self.stopped.get().map(|(_, until)| until - now));
            self.check(Err(Violation { invariant: "nobody_calls_before_retry_after", seen }));
        }
    }

    /// The call budget is forgotten.
    pub(crate) fn flush(&self) {
        self.stopped.set(None);
    }

    fn who_stops_begins_nothing_new(&self, changes: &[Change]) {
        let begins = |change: &&Change| {
            change.kind == "attempt"
                && change.was.as_deref() == Some("formed")
                && change.is.as_deref() == Some("sending")
        };
        let begun = changes.iter().filter(begins).count();
        let process = &mut self.processes.borrow_mut()[self.running.get()];
        if process.stop.is_cancelled() {
            process.begun_late += u32::try_from(begun).unwrap_or(u32::MAX);
        }
        // Each of its jobs may have been past the last look.
        if process.begun_late > self.scenario.concurrency {
            let seen = format!("{} batches", process.begun_late);
            self.check(Err(Violation { invariant: "who_stops_begins_nothing_new", seen }));
        }
    }

    /// It was asked to stop, and has ended within its time.
    pub(crate) fn who_stops_ends_soon(&self, process: usize, in_time: bool) {
        if !in_time && !self.processes.borrow()[process].froze {
            let violation = Violation { invariant: "who_stops_ends_soon", seen: format!("p{process} does not end") };
            self.check(Err(violation));
        }
    }

    /// A call is at the gateway.
    fn arrive(&self, asked: &Asked) -> Reply {
        self.note(&asked.path, &[], String::new);
        if asked.path == "oauth/token" {
            return self.token(asked);
        }
        let now = self.clock();
        let admitted = self.book.borrow_mut().admit(asked.token.as_deref(), now);
        match admitted {
            Admitted::No => return self.book.borrow().answer(401, r#"{"message":"Unauthenticated."}"#.to_owned(), now),
            Admitted::Yes { first_use: true } => {
                let uses = self.first_uses.get() + 1;
                self.first_uses.set(uses);
                let committed = self.model.borrow().tokens_committed;
                let seen = || format!("pair {uses} is used and {committed} were committed");
                let violation = || Violation { invariant: "a_token_is_committed_before_it_is_used", seen: seen() };
                self.check(if uses <= committed { Ok(()) } else { Err(violation()) });
            }
            Admitted::Yes { first_use: false } => {}
        }
        if asked.path.starts_with("sms/send") || asked.path.starts_with("sms/bulk") {
            self.send(asked)
        } else {
            self.read(asked)
        }
    }

    /// What goes wrong at a claim.
    fn claimed(&self, changes: &[Change]) {
        let formed: Vec<&Change> = changes.iter().filter(|change| change.kind == "attempt").collect();
        if formed.is_empty() {
            return;
        }
        let nth = self.count(CLAIMS);
        let rows: Vec<i64> = formed
            .iter()
            .flat_map(|change| {
                serde_json::from_str::<Vec<i64>>(change.text.as_deref().unwrap_or("[]")).unwrap_or_default()
            })
            .collect();
        let campaign = self.model.borrow().rows.get(&rows[0]).map(|row| row.campaign);
        while let Some(fault) = self.take_fault(|fault| match fault {
            Fault::Pause { claim, .. } | Fault::Cancel { claim } | Fault::OptOut { claim, .. } if *claim == nth => {
                Some(fault.clone())
            }
            _ => None,
        }) {
            let task = crate::process::act(fault, campaign.unwrap_or(0), rows.clone());
            self.new_tasks.borrow_mut().push((0, Box::pin(task)));
        }
    }
}

/// When the client gives up a call that sends.
pub(crate) const SEND_TIMEOUT_S: u32 = 10;

impl World for Sim {
    fn before(&self, operation: &'static str) -> Fate {
        self.at(Place::Before(operation))
    }

    fn commits(&self, _operation: &'static str) -> Fate {
        let full = self.running.get() != 0
            && self.is_during(|fault| match fault {
                Fault::DiskFull { at_s, secs } => Some((*at_s, *secs)),
                _ => None,
            });
        if full { Fate::Fail } else { Fate::Go }
    }

    fn committed(&self, operation: &'static str, changes: Vec<Change>) -> Fate {
        if let Some(last) = changes.last() {
            self.log_read_to.set(last.seq);
            self.changes.set(self.changes.get() + 1);
        }
        for (at, change) in changes.iter().enumerate() {
            // What a transaction made of a row on the way was never there to be seen.
            if change.kind == "row" && changes[at + 1..].iter().any(|next| next.kind == "row" && next.id == change.id) {
                continue;
            }
            self.note(&change.kind, &[change.id, change.a.unwrap_or(-1), change.b.unwrap_or(-1)], || {
                let word = |word: &Option<String>| word.clone().unwrap_or_default();
                format!("{} -> {} {}", word(&change.was), word(&change.is), word(&change.text))
            });
            let holds = self.model.borrow_mut().apply(change, &self.book.borrow());
            self.check(holds);
        }
        self.who_stops_begins_nothing_new(&changes);
        let most = self.scenario.concurrency as usize * 2;
        let holds = self.model.borrow().few_calls_are_not_recorded(&changes, most);
        self.check(holds);
        let holds = self.model.borrow().who_ends_leaves_no_row_behind(&changes);
        self.check(holds);
        if operation == "claim a chunk" {
            self.claimed(&changes);
        }
        let fate = self.at(Place::After(operation));
        if fate != Fate::Go || self.running.get() == 0 {
            return fate;
        }
        let nth = self.places.borrow().get(&Place::After(operation)).map_or(0, |count| count - 1);
        let lost = self.take_fault(|fault| match fault {
            Fault::CommitLost { operation: of, nth: n } if (*of, *n) == (operation, nth) => Some(()),
            _ => None,
        });
        if lost.is_some() { Fate::Fail } else { Fate::Go }
    }

    fn in_flight(&self, holds: bool) {
        self.holder.set(holds.then(|| self.task.get()));
        self.statements.set(self.statements.get() + 1);
    }

    fn spawn(&self, task: Task) {
        self.new_tasks.borrow_mut().push((self.running.get(), task));
    }

    fn clock_error(&self) -> SignedDuration {
        self.processes.borrow()[self.running.get()].clock_error
    }

    fn now(&self) -> Timestamp {
        self.clock()
    }

    fn log_read_to(&self) -> i64 {
        self.log_read_to.get()
    }
}

/// The wire of every process.
pub(crate) struct Line;

impl Wire for Line {
    fn exchange(&self, asked: Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(async move {
            let sends = asked.path.starts_with("sms/send") || asked.path.starts_with("sms/bulk");
            let (before, answer) = match asked.path.as_str() {
                "oauth/token" => (None, Place::TokenAnswer),
                _ if sends => (Some(Place::Request), Place::Answer),
                _ => (None, Place::ReadAnswer),
            };
            let part = || with(|sim| Duration::from_millis(u64::from(sim.rng.borrow_mut().of(5, 120))));
            with(Sim::nobody_calls_before_retry_after);
            if let Some(before) = before {
                stop(with(|sim| sim.at(before))).await;
            }
            tokio::time::sleep(part()).await;
            let reply = with(|sim| sim.arrive(&asked));
            stop(with(|sim| sim.at(answer))).await;
            if matches!(reply, Reply::TimedOut) {
                tokio::time::sleep(asked.timeout).await;
                return reply;
            }
            tokio::time::sleep(part()).await;
            if let Reply::Complete { status: 429, retry_after: Some(wait), .. } = &reply {
                with(|sim| sim.stopped.set(Some((Instant::now(), Instant::now() + *wait))));
            }
            reply
        })
    }
}
