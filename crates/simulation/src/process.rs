//! The processes and the people, each a task or a few around the product's own code.

use crate::{
    fault::Fault,
    model::Violation,
    world::{Line, SEND_TIMEOUT_S, Sim, with},
};
use campaign::{CampaignId, ChunkId, Msisdn, RowId, RowState, SenderId, TextId};
use gateway::{Budget, Gateway};
use ingest::feeder::Feeder;
use jiff::SignedDuration;
use ledger::{
    By, Encoding, ImportStart, Ledger, NewChunk, NewImport, NewOptOut, NewRow, NewText, OwnerGuard, RetryPolicy,
    Verdict,
};
use queue::Queue;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    World,
    Worker,
    Reconciler,
    Feeder,
    /// A person's command that loads a file, by number.
    Launcher(usize),
}

/// What all processes share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    pub(crate) budget: Budget,
    pub(crate) queue: Queue,
    pub(crate) wake: Arc<Notify>,
}

thread_local! {
    static PARTS: RefCell<Option<Parts>> = const { RefCell::new(None) };
}

pub(crate) fn share(parts: Option<Parts>) {
    PARTS.set(parts);
}

fn parts() -> Parts {
    PARTS.with_borrow(Clone::clone).expect("a simulation runs")
}

/// Starts a process, and answers which it is.
pub(crate) fn start(sim: &Sim, kind: Kind) -> usize {
    let mut processes = sim.processes.borrow_mut();
    let clock_error = SignedDuration::from_secs(i64::from(sim.rng.borrow_mut().of(0, 1_201)) - 600);
    processes.push(crate::world::Process {
        kind,
        alive: true,
        frozen_until: None,
        clock_error,
        stop: CancellationToken::new(),
        froze: false,
        begun_late: 0,
    });
    let number = processes.len() - 1;
    let task: crate::world::Task = match kind {
        Kind::World => return number,
        Kind::Worker => Box::pin(worker(number)),
        Kind::Reconciler => Box::pin(reconciler(number)),
        Kind::Feeder => Box::pin(feeder(number)),
        Kind::Launcher(nth) => Box::pin(launch(number, nth)),
    };
    sim.new_tasks.borrow_mut().push((number, task));
    number
}

/// Another process takes the place of one that ended.
pub(crate) fn restart(sim: &Sim, process: usize) {
    let kind = sim.processes.borrow()[process].kind;
    let wait = Duration::from_millis(u64::from(sim.rng.borrow_mut().of(200, 20_000)));
    let task = async move {
        sleep(wait).await;
        with(|sim| start(sim, kind));
    };
    sim.new_tasks.borrow_mut().push((0, Box::pin(task)));
}

fn stop_of(number: usize) -> CancellationToken {
    with(|sim| sim.processes.borrow()[number].stop.clone())
}

/// A process that was asked to stop has finished, and ends; another takes its place.
async fn end(number: usize, owner: Option<OwnerGuard>) {
    if let Some(owner) = owner {
        // A ledger that is down learns of it by the lock.
        let _ = owner.end(parts().ledger.now()).await;
    }
    with(|sim| {
        sim.note("stopped", &[i64::try_from(number).unwrap_or(0)], String::new);
        sim.processes.borrow_mut()[number].alive = false;
        restart(sim, number);
    });
}

async fn register(kind: &'static str, number: usize) -> OwnerGuard {
    let Parts { ledger, .. } = parts();
    let pid = u32::try_from(number).expect("few");
    loop {
        match ledger.register_owner(kind, "here", pid, ledger.now()).await {
            Ok(owner) => return owner,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

fn gateway(number: usize) -> Gateway {
    let Parts { ledger, budget, .. } = parts();
    let url = "http://127.0.0.1:1/api/".parse().expect("a URL");
    let mut settings = gateway::Settings::new(url, "client".into(), "secret".into(), "user".into(), "password".into());
    settings.send_timeout = Duration::from_secs(u64::from(SEND_TIMEOUT_S));
    settings.connect_timeout = Duration::from_secs(3);
    settings.read_timeout = Duration::from_secs(8);
    Gateway::simulated(Arc::new(Line), settings, ledger, budget, format!("p{number}"))
}

const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(4);

async fn worker(number: usize) {
    let owner = Arc::new(register("worker", number).await);
    let (parts, scenario) = (parts(), with(|sim| sim.scenario.clone()));
    let settings = worker::Settings {
        batch_len_max: scenario.batch_len_max as usize,
        concurrency: scenario.concurrency as usize,
        retry: RetryPolicy { first: SignedDuration::from_secs(2), longest: SignedDuration::from_secs(20) },
        first_look: FIRST_LOOK,
        ..worker::Settings::default()
    };
    let finished = Arc::clone(&parts.wake);
    let worker = worker::Worker::new(parts.ledger, gateway(number), settings, queue::Mark::nowhere(), finished);
    let worker = Rc::new(worker);
    let (stop, (working, mut done)) = (stop_of(number), tokio::sync::mpsc::channel::<()>(1));
    for _ in 0..worker.jobs_at_a_time() {
        let (worker, owner, stop, working) = (Rc::clone(&worker), Arc::clone(&owner), stop.clone(), working.clone());
        let task = async move {
            let sim = crate::world::get();
            while !stop.is_cancelled() {
                let job = sim.jobs.borrow_mut().pop_front();
                match job {
                    Some(job) => worker.handle(job, &owner, &stop).await,
                    // A wake-up may have gone to a process that ended.
                    None => tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = sim.job_came.notified() => {}
                        () = sleep(Duration::from_secs(30)) => {}
                    },
                }
            }
            drop(owner);
            drop(working);
        };
        with(|sim| sim.new_tasks.borrow_mut().push((number, Box::pin(task))));
    }
    drop((worker, working));
    stop.cancelled().await;
    let full = scenario.faults.iter().any(|fault| matches!(fault, Fault::DiskFull { .. }));
    let in_time = tokio::time::timeout(if full { STOPS_WITHIN * 5 } else { STOPS_WITHIN }, done.recv()).await.is_ok();
    with(|sim| sim.who_stops_ends_soon(number, in_time));
    done.recv().await;
    end(number, Arc::try_unwrap(owner).ok()).await;
}

/// What was sent is answered within ten seconds and recorded; a ledger that is away is waited for a minute each time. Whoever waited for
/// the gateway to let it call would need longer.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// How long to rest: a little after something has changed, ever longer while nothing does.
struct Rest {
    seen: u64,
    ms: u32,
    shortest_ms: u32,
    longest_ms: u32,
}

impl Rest {
    fn next(&mut self) -> Duration {
        with(|sim| {
            let changes = sim.changes.get();
            self.ms = if changes == self.seen { (self.ms * 3).min(self.longest_ms) } else { self.shortest_ms };
            self.seen = changes;
            let ms = sim.rng.borrow_mut().of(self.ms / 4, self.ms * 2);
            Duration::from_millis(u64::from(ms))
        })
    }
}

async fn reconciler(number: usize) {
    let owner = register("reconciler", number).await;
    let (parts, scenario) = (parts(), with(|sim| sim.scenario.clone()));
    let settings = reconciler::Settings {
        settle: Some(SignedDuration::from_secs(i64::from(scenario.settle_s))),
        on_absent: scenario.on_absent,
        first_look: FIRST_LOOK,
        give_up: SignedDuration::from_hours(2),
        prove_within: SignedDuration::from_mins(20),
        send_limit: SignedDuration::from_secs(i64::from(SEND_TIMEOUT_S) + 8),
        proof_recipients_min: 3,
        inbound_every: Duration::from_secs(if scenario.is_written_to() { 20 } else { 1 << 30 }),
        ..reconciler::Settings::default()
    };
    let reconciler = reconciler::Reconciler::new(parts.ledger, gateway(number), settings);
    let (mut rest, stop) = (Rest { seen: 0, ms: 3_000, shortest_ms: 3_000, longest_ms: 100_000 }, stop_of(number));
    while !stop.is_cancelled() {
        // A ledger or a gateway that is away is waited for, as ever.
        let _ = reconciler.simulated_round(&owner).await;
        let _ = tokio::time::timeout(rest.next(), stop.cancelled()).await;
    }
    end(number, Some(owner)).await;
}

async fn feeder(number: usize) {
    let (parts, stop) = (parts(), stop_of(number));
    let feeder = Feeder { wake: Arc::clone(&parts.wake), ..Feeder::new(parts.ledger, parts.queue) };
    let mut rest = Rest { seen: 0, ms: 3_000, shortest_ms: 3_000, longest_ms: 150_000 };
    while !stop.is_cancelled() {
        let _ = feeder.sweep().await;
        let _ = feeder.feed_once().await;
        let _ = tokio::time::timeout(rest.next(), feeder.wake.notified()).await;
    }
    end(number, None).await;
}

fn sender() -> SenderId {
    SenderId::parse("SHOP").expect("it is one")
}

fn number(nth: u32) -> Msisdn {
    Msisdn::from_digits(447_700_900_000 + u64::from(nth)).expect("it is one")
}

fn text(nth: u32) -> String {
    format!("text {nth}")
}

/// Launches a campaign, like a person who gives the command until the file is launched.
async fn launch(number: usize, nth: usize) {
    let owner = register("launcher", number).await;
    while !matches!(load(&owner, nth).await, Ok(true)) {
        sleep(Duration::from_secs(1)).await;
    }
    with(|sim| {
        sim.loaded.borrow_mut().insert(nth);
        sim.processes.borrow_mut()[number].alive = false;
    });
    parts().wake.notify_one();
}

/// Loads a file; false while another process is at it.
async fn load(owner: &OwnerGuard, nth: usize) -> ledger::Result<bool> {
    let ledger = parts().ledger;
    let (campaign, chunk_len) = with(|sim| (sim.scenario.campaigns[nth].clone(), sim.scenario.chunk_len));
    let new = NewImport {
        file_name: format!("{nth}.csv"),
        sha256: format!("{nth:064}"),
        bytes: 1,
        rows_in_file: u64::from(campaign.rows),
        again: false,
        launched_by: "ann".to_owned(),
        owner: owner.id(),
        campaigns: vec![ledger::NewCampaign {
            name: format!("c{nth}"),
            priority: campaign.priority,
            ..ledger::NewCampaign::default()
        }],
    };
    let (import, campaigns) = match ledger.begin_import(&new, ledger.now()).await? {
        ImportStart::Load { import, campaigns } => (import, campaigns),
        ImportStart::Busy { .. } => return Ok(false),
        ImportStart::Launched { .. } => return Ok(true),
        ImportStart::SentSince { .. } => unreachable!("all is loaded before a ledger is restored"),
    };
    let id = TextId::first_used(import, 2);
    let new_text = NewText { id, body: text(campaign.text), encoding: Encoding::Gsm7, segments: 1 };
    for (ordinal, first) in (0..campaign.rows).step_by(chunk_len as usize).enumerate() {
        let rows = (first..campaign.rows.min(first + chunk_len)).map(|row| NewRow {
            row_number: row + 2,
            state: RowState::Queued,
            reason: None,
            destination_raw: String::new(),
            destination: Some(number(campaign.from + row)),
            sender: Some(sender()),
            text: Some(id),
            reference: None,
            scheduled_for: None,
            valid_until: None,
        });
        let chunk = NewChunk {
            id: ChunkId::nth(import, u32::try_from(ordinal).expect("few")),
            campaign: campaigns[0].0,
            texts: if ordinal == 0 { vec![new_text.clone()] } else { Vec::new() },
            rows: rows.collect(),
        };
        ledger.append_chunks(import, &[chunk], ledger.now()).await?;
    }
    ledger.finish_import(import, ledger.now()).await?;
    Ok(true)
}

const ANN: By<'static> = By { who: "ann", reason: Some("the simulation") };

/// What people do after a claim.
pub(crate) async fn act(fault: Fault, campaign: i64, rows: Vec<i64>) {
    let Parts { ledger, wake, .. } = parts();
    let campaign = CampaignId(campaign);
    match fault {
        Fault::Pause { secs, .. } => {
            let _ = ledger.pause(campaign, ANN, ledger.now()).await;
            sleep(Duration::from_secs(u64::from(secs))).await;
            let _ = ledger.resume(campaign, ANN, ledger.now()).await;
            wake.notify_one();
        }
        Fault::Cancel { .. } => _ = ledger.cancel(campaign, ANN, ledger.now()).await,
        Fault::OptOut { row, .. } => {
            let row = rows[row as usize % rows.len()];
            let digits = with(|sim| sim.model.borrow().rows.get(&row).map(|row| row.destination));
            if let Some(number) = digits.and_then(|digits| Msisdn::from_digits(digits.cast_unsigned())) {
                let new = NewOptOut { number, sender: None, reason: "asked".to_owned() };
                let _ = ledger.opt_out(&[new], "ann", ledger.now()).await;
            }
        }
        _ => {}
    }
}

/// What happens at a time.
pub(crate) async fn happen(fault: Fault) {
    let after = |at_s: u32| sleep(Duration::from_secs(u64::from(at_s)));
    match fault {
        Fault::Revoke { at_s, burn } => {
            after(at_s).await;
            with(|sim| sim.book.borrow_mut().revoke(burn));
        }
        Fault::Foreign { at_s, our_number } => {
            after(at_s).await;
            with(|sim| {
                let nth = sim.rng.borrow_mut().of(0, 40);
                let (number, text) =
                    if our_number { (number(nth), "from elsewhere".to_owned()) } else { (number(5_000), text(0)) };
                let now = sim.clock();
                let when = crate::world::at_once(now);
                sim.book.borrow_mut().take(sender().as_str(), number.as_u64(), &text, when, None);
            });
        }
        // A text that a restored ledger does not know and the list does not show is one that nobody could know of.
        Fault::Delete { .. } if with(|sim| sim.scenario.is_restored()) => {}
        Fault::Delete { at_s } => {
            after(at_s).await;
            with(|sim| {
                let at = sim.book.borrow().any_listed(&mut sim.rng.borrow_mut(), sim.clock());
                // One whose row is known to have gone out: of others absence would say that they did not.
                let row = at.and_then(|at| sim.book.borrow().texts[at].row);
                let known = row.is_some_and(|row| {
                    let state = sim.model.borrow().rows[&row].state;
                    matches!(state, RowState::Accepted | RowState::Sent | RowState::Failed)
                });
                if let (Some(at), true) = (at, known) {
                    sim.book.borrow_mut().texts[at].deleted = true;
                }
            });
        }
        Fault::Clock { at_s, worker, by_s } => {
            after(at_s).await;
            with(|sim| {
                let mut processes = sim.processes.borrow_mut();
                let workers = processes.iter_mut().filter(|process| process.kind == Kind::Worker && process.alive);
                if let Some(process) = workers.into_iter().nth(worker as usize) {
                    process.clock_error += SignedDuration::from_secs(i64::from(by_s));
                }
            });
        }
        Fault::Resolve { at_s, how } => {
            after(at_s).await;
            resolve(how).await;
        }
        Fault::Write { at_s, nth, word, lag_s } => {
            after(at_s).await;
            with(|sim| {
                let lag = SignedDuration::from_secs(i64::from(lag_s));
                let (person, now) = (number(nth).as_u64(), sim.clock());
                sim.book.borrow_mut().receive(person, sender().as_str(), word, now, lag);
                sim.note("written", &[i64::from(nth)], || word.to_owned());
            });
        }
        Fault::Restore { copied_s, at_s, in_call } => {
            after(copied_s).await;
            restore(Duration::from_secs(u64::from(at_s - copied_s)), in_call).await;
        }
        Fault::Flush { at_s } => {
            after(at_s).await;
            parts().budget.simulated_flush();
            with(Sim::flush);
        }
        _ => {}
    }
}

/// Copies the ledger, and later puts the copy in its place: no process lives through that, and a person says what was done
/// before another begins.
async fn restore(later: Duration, in_call: bool) {
    let ledger = parts().ledger;
    let loaded = |sim: &Sim| sim.loaded.borrow().len() == sim.scenario.campaigns.len();
    if !with(loaded) || ledger.simulated_copy().await.is_err() {
        return;
    }
    with(Sim::remember_copy);
    sleep(later).await;
    if in_call {
        let sim = crate::world::get();
        sim.next_send_is_late();
        // Where nothing is left to send the ledger is lost all the same.
        let _ = tokio::time::timeout(Duration::from_secs(60), sim.sent_late.notified()).await;
        let ms = sim.rng.borrow_mut().of(0, SEND_TIMEOUT_S * 1_000);
        sleep(Duration::from_millis(u64::from(ms))).await;
    }
    if with(|sim| sim.healed.get()) {
        return;
    }
    with(Sim::lose_all_processes);
    ledger.simulated_restore().await.expect("its words are SQL");
    let campaigns = || with(|sim| sim.model.borrow().campaigns.clone());
    let before = campaigns();
    with(Sim::recall_copy);
    ledger.begin_quarantine("ann", "restored", None, ledger.now()).await.expect("the ledger is there");
    // Nobody else knows that what was paused when the copy was made has been resumed or cancelled since.
    for (id, _) in campaigns().into_iter().filter(|(_, state)| state == "paused") {
        let _ = match before.get(&id).map(String::as_str) {
            Some("active") => ledger.resume(CampaignId(id), ANN, ledger.now()).await,
            Some("cancelled") => ledger.cancel(CampaignId(id), ANN, ledger.now()).await,
            _ => continue,
        };
    }
}

async fn resolve(how: u32) {
    let Parts { ledger, wake, .. } = parts();
    let held: Vec<(i64, i64)> = with(|sim| {
        let (model, book) = (sim.model.borrow(), sim.book.borrow());
        let rows = model.rows.iter().filter(|(_, row)| row.state == RowState::Held);
        rows.filter(|(id, row)| {
            let ended =
                row.attempt.and_then(|attempt| model.attempts.get(&attempt)).is_some_and(|attempt| attempt.ended);
            how != 2 || ended && book.of_row(**id).next().is_none()
        })
        .map(|(id, row)| (*id, row.campaign))
        .collect()
    });
    let verdict = [Verdict::AssumeSent, Verdict::Cancel, Verdict::Resend][how as usize];
    for (row, campaign) in held {
        let _ = ledger.decide_all(CampaignId(campaign), &[RowId(row)], verdict, ANN, ledger.now()).await;
    }
    wake.notify_one();
}

/// The proof that a person asks for.
fn verify_holds(checks: ledger::Result<Vec<ledger::Check>>) -> Result<(), Violation> {
    let fails = |seen: String| Err(Violation { invariant: "verify_holds", seen });
    match checks {
        Ok(checks) => match checks.into_iter().find(|check| !check.holds) {
            Some(check) => fails(format!("{}: {}", check.check, check.found)),
            None => Ok(()),
        },
        Err(error) => fails(format!("{error:?}")),
    }
}

/// Ends the faults, and in the end the run.
pub(crate) async fn judge() {
    let heal = with(|sim| Duration::from_secs(u64::from(sim.scenario.heal_s)));
    let mut quiet = 0;
    loop {
        sleep(Duration::from_secs(5)).await;
        let (over, elapsed) = with(|sim| {
            let elapsed = sim.began.elapsed();
            if elapsed >= heal && !sim.healed.replace(true) {
                sim.note("healed", &[], String::new);
            }
            let now = tokio::time::Instant::now();
            let frozen =
                sim.processes.borrow().iter().any(|p| p.alive && p.frozen_until.is_some_and(|until| until > now));
            let launched = sim.loaded.borrow().len() == sim.scenario.campaigns.len();
            let asked_later = !sim.healed.get()
                && sim.scenario.faults.iter().any(|fault| {
                    matches!(fault, Fault::Resolve { at_s, .. } if Duration::from_secs(u64::from(*at_s) + 5) >= elapsed)
                });
            let writes = sim.scenario.faults.iter().filter(|fault| matches!(fault, Fault::Write { .. })).count();
            let read = sim.book.borrow().received.len() == writes
                && sim.model.borrow().what_was_written_is_read(&sim.book.borrow()).is_ok();
            let still =
                launched && !asked_later && read && (!frozen || sim.healed.get()) && sim.model.borrow().is_settled();
            quiet = if still { quiet + 1 } else { 0 };
            (quiet > 6, elapsed)
        });
        if over || elapsed > heal + Duration::from_secs(4 * 3600) {
            break;
        }
    }
    let checks = parts().ledger.verify().await;
    with(|sim| {
        let model = sim.model.borrow();
        sim.check(verify_holds(checks));
        sim.check(model.what_was_written_is_read(&sim.book.borrow()));
        sim.check(model.the_last_word_counts(&sim.book.borrow()));
        sim.check(model.rows_balance(sim.scenario.campaigns.iter().map(|campaign| campaign.rows as usize).sum()));
        sim.check(model.all_is_done_in_the_end());
        sim.check(model.the_book_agrees(&sim.book.borrow()));
        sim.over.set(true);
    });
}

/// Launches the campaigns, starts the processes, and has happen what has a time.
pub(crate) async fn people() {
    let sim = crate::world::get();
    let task = |task: crate::world::Task| sim.new_tasks.borrow_mut().push((0, task));
    for nth in 0..sim.scenario.campaigns.len() {
        let at = Duration::from_secs(u64::from(sim.scenario.campaigns[nth].at_s));
        task(Box::pin(async move {
            sleep(at).await;
            with(|sim| _ = start(sim, Kind::Launcher(nth)));
        }));
    }
    for fault in sim.scenario.faults.clone() {
        task(Box::pin(happen(fault)));
    }
    let queue = parts().queue;
    let each = |job: queue::Job| async move { with(|sim| sim.push(job)) };
    task(Box::pin(async move { queue.serve(1, Duration::ZERO, CancellationToken::new(), each).await }));
    task(Box::pin(judge()));
    for _ in 0..sim.scenario.workers {
        start(&sim, Kind::Worker);
    }
    for _ in 0..sim.scenario.reconcilers {
        start(&sim, Kind::Reconciler);
    }
    start(&sim, Kind::Feeder);
}
