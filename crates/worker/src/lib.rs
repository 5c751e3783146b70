//! From a job to the gateway: claim a chunk, send its batches, record what each call did.
//!
//! Guarantee: one POST for each attempt, ever; an attempt with its destinations is committed before a byte of it may
//! leave; whatever is not surely sent or surely unsent is recorded as unknown. Handlers never fail a job: the ledger owns
//! retries, the queue owns none.
//!
//! Deliberately not here: what happens to an unknown outcome (`reconciler`) and what is sent next (`ingest::feeder`).

mod restored;
mod rounds;
mod together;

pub use restored::{Unmarked, quarantine_if_behind};

use campaign::{AttemptId, ChunkId, Outcome, budget::CallClass, outcome::Blame};
use gateway::{CallError, CallErrorKind, Gateway, Permit};
use jiff::SignedDuration;
#[cfg(feature = "simulated")]
use ledger::simulated::SystemTime;
use ledger::{Claim, ClaimedBatch, ErrorKind, Ledger, OwnerGuard, Recorded, RetryPolicy, SendingBatch, Unsent, chain};
use queue::{Job, Mark, Queue};
use rounds::Rounds;
#[cfg(not(feature = "simulated"))]
use std::time::SystemTime;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// A request that has not gone out this long after its attempt was marked is taken back: the process was frozen between.
const START_WITHIN: Duration = Duration::from_secs(2);

/// How often a worker looks at least for a chunk that nobody else has taken meanwhile.
const TRIES_MIN: usize = 4;

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most destinations of one call, 1..=500.
    pub batch_len_max: usize,
    /// Calls that are made at a time, and chunks that wait for theirs.
    pub concurrency: usize,
    /// How long rows wait after an attempt that certainly did nothing.
    pub retry: RetryPolicy,
    /// How old a text should be when the list is first read for it.
    pub first_look: SignedDuration,
    /// How long to wait for requests in flight when the process is asked to stop.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_len_max: 100,
            concurrency: 12,
            retry: RetryPolicy { first: SignedDuration::from_secs(2), longest: SignedDuration::from_secs(60) },
            first_look: SignedDuration::from_secs(10),
            grace: Duration::from_secs(90),
        }
    }
}

/// Sends what the queue points at.
pub struct Worker {
    ledger: Ledger,
    gateway: Gateway,
    settings: Settings,
    finished: Arc<Notify>,
    /// For chunks that have batches left to begin. A small urgent campaign waits for these.
    chunks: Semaphore,
    /// For calls that are being made: from before they are begun until they are answered.
    calls: Semaphore,
    /// For calls of which the ledger may not know how they ended: as many are unknown after a crash.
    unrecorded: Semaphore,
    /// What calls and chunks need of the ledger.
    rounds: Rounds,
}

/// A call that was made, and is to be recorded.
struct Answered<'a> {
    sending: Arc<SendingBatch>,
    outcome: Outcome,
    _unrecorded: SemaphorePermit<'a>,
}

impl Worker {
    /// A worker that sends what the ledger has by the gateway. `mark` remembers outside of the ledger how far the sending has come;
    /// `finished` is told when a chunk is finished, so that the feeder need not wait for its time.
    pub fn new(ledger: Ledger, gateway: Gateway, settings: Settings, mark: Mark, finished: Arc<Notify>) -> Self {
        let at_a_time = settings.concurrency.max(1);
        let (chunks, calls) = (Semaphore::new(at_a_time), Semaphore::new(at_a_time));
        let unrecorded = Semaphore::new(at_a_time * 2);
        let rounds = Rounds::new(ledger.clone(), mark, settings.first_look);
        Self { ledger, gateway, settings, finished, chunks, calls, unrecorded, rounds }
    }

    /// Jobs to hand to it at a time: while the last calls of a chunk are answered and recorded, the next one is claimed.
    pub fn jobs_at_a_time(&self) -> usize {
        self.settings.concurrency.max(1) * 2
    }

    /// Works on the queue until `stop`: then nothing new is begun, and requests in flight are finished and recorded.
    pub async fn run(self, queue: Queue, owner: Arc<OwnerGuard>, stop: CancellationToken) {
        let (jobs, grace) = (self.jobs_at_a_time(), self.settings.grace);
        let worker = Arc::new(self);
        let handler_stop = stop.clone();
        let handle = move |job: Job| {
            let (worker, owner, stop) = (Arc::clone(&worker), Arc::clone(&owner), handler_stop.clone());
            async move { worker.handle(job, &owner, &stop).await }
        };
        queue.serve(jobs, grace, stop, handle).await;
    }

    /// Works on one job. Whatever happens, the job is done: what it leaves undone is in the ledger.
    pub async fn handle(&self, job: Job, owner: &OwnerGuard, stop: &CancellationToken) {
        let Some(chunk) = job.chunk() else {
            tracing::warn!(job.version, "left a job of a newer version to its own program");
            return;
        };
        let Some(place) = place(&self.chunks, stop).await else { return };
        let Some((chunk, batches)) = self.claim_most_urgent(chunk, owner).await else { return };
        self.send_all(batches, place, stop).await;
        // Until this succeeds the chunk stays with this worker; its rows are safe either way.
        let rest = || self.ledger.finish_chunk(chunk, owner, self.ledger.now());
        let rests = matches!(self.rounds.rest(chunk, owner.id()).await, Some(Ok(())));
        if !rests && insist(rest).await.is_err() {
            tracing::error!(chunk.id = %chunk, "the ledger was away too long; the chunk is taken up when this worker ends");
        }
        self.finished.notify_one();
    }

    /// Claims what is the most urgent by now; `None` when nothing is left that may be sent.
    async fn claim_most_urgent(&self, own: ChunkId, owner: &OwnerGuard) -> Option<(ChunkId, Vec<ClaimedBatch>)> {
        // Others look at the same moment, as many of this worker as it makes calls: who comes second looks again.
        for _ in 0..self.settings.concurrency.max(TRIES_MIN) {
            let claim = async {
                let Some(chunk) = self.ledger.most_urgent(own).await? else { return Ok(None) };
                let claim = self.ledger.claim(chunk, owner, self.settings.batch_len_max, self.ledger.now()).await?;
                Ok::<_, ledger::Error>(Some((chunk, claim)))
            };
            match self.rounds.between(claim).await {
                Ok(Some((chunk, Claim::Batches(batches)))) => {
                    let rows: usize = batches.iter().map(|batch| batch.destinations.len()).sum();
                    telemetry::rows_became("sending", rows as u64);
                    return Some((chunk, batches));
                }
                Ok(Some((_, Claim::NotForUs))) => {}
                Ok(None) => {
                    tracing::debug!(chunk.id = %own, "a redelivered job claims nothing");
                    return None;
                }
                Ok(Some((_, Claim::Paused))) => return None,
                Err(error) => {
                    tracing::warn!(chunk.id = %own, error = %chain(&error), "could not claim a chunk; its job comes again");
                    return None;
                }
            }
        }
        None
    }

    /// Sends the batches of a chunk one after the other. While the outcome of one is recorded the next one goes out, and when the
    /// last has all that it waits for, another chunk may have this one's place.
    async fn send_all(&self, batches: Vec<ClaimedBatch>, place: SemaphorePermit<'_>, stop: &CancellationToken) {
        let (mut place, mut left, mut before) = (Some(place), batches.len(), None);
        for batch in batches {
            left -= 1;
            let leaves = place.take_if(|_| left == 0);
            (before, ()) = futures::join!(self.send(batch, leaves, stop), self.record(before));
        }
        self.record(before).await;
    }

    /// Sends a batch, unless it is taken back; lets go of its chunk's place once nothing of the chunk waits for the gateway.
    async fn send(
        &self,
        batch: ClaimedBatch,
        leaves: Option<SemaphorePermit<'_>>,
        stop: &CancellationToken,
    ) -> Option<Answered<'_>> {
        let attempt = batch.attempt();
        let waited = async {
            let (unrecorded, call) = (place(&self.unrecorded, stop).await?, place(&self.calls, stop).await?);
            Some((unrecorded, call, self.permit(attempt, stop).await?))
        };
        let Some((_unrecorded, _call, permit)) = waited.await else {
            self.take_back(batch.unsent(), "the worker was stopping").await;
            return None;
        };
        drop(leaves);
        let unsent = batch.unsent();
        let (marked, wall) = (Instant::now(), SystemTime::now());
        let sending = match self.rounds.begin(batch).await {
            Ok(sending) => sending,
            Err(why) => {
                match why.error() {
                    Some(error) => {
                        tracing::warn!(attempt.id = %attempt, error = %chain(error), "a batch is not sent: {}", why.in_words());
                    }
                    None => tracing::info!(attempt.id = %attempt, "a batch is not sent: {}", why.in_words()),
                }
                self.take_back(unsent, why.in_words()).await;
                return None;
            }
        };
        // The monotonic clock stands still while the machine sleeps, the wall clock may be set: either is reason enough.
        if marked.elapsed() > START_WITHIN || wall.elapsed().is_ok_and(|passed| passed > START_WITHIN) {
            self.take_back(unsent, "it took too long to begin").await;
            return None;
        }
        let batch = sending.batch();
        let mut span = telemetry::span("send batch");
        span.count("recipients", batch.destinations.len() as u64);
        let sent = self.gateway.send(permit, &batch.sender, &batch.text, &batch.destinations).await;
        span.end(match &sent.outcome {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Ambiguous { .. } => "unknown",
            Outcome::NotSent { .. } => "not sent",
            Outcome::Rejected { .. } => "rejected",
        });
        tracing::debug!(attempt.id = %attempt, batch.len = batch.destinations.len(), outcome = ?sent.outcome, "called the gateway");
        if let Some(skew) = sent.clock_skew {
            tracing::trace!(skew.ms = skew.as_millis(), "measured the gateway's clock");
        }
        Some(Answered { sending: Arc::new(sending), outcome: sent.outcome, _unrecorded })
    }

    /// Waits until the gateway may be called; `None` when the worker is to stop.
    async fn permit(&self, attempt: AttemptId, stop: &CancellationToken) -> Option<Permit> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                permit = self.gateway.permit(CallClass::Send) => match permit {
                    Ok(permit) => return Some(permit),
                    Err(error) if patient(&error) => {
                        tracing::warn!(attempt.id = %attempt, error = %chain(&error), "waits for the gateway");
                        let wait = error.wait().unwrap_or(Duration::from_secs(2)).min(Duration::from_secs(10));
                        let _ = tokio::time::timeout(wait, stop.cancelled()).await;
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "can't send: a person must act");
                        let _ = tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await;
                    }
                },
            }
        }
    }

    /// Records an outcome, if there is one, however long the ledger is away: until then the rows are `sending`, and after a crash
    /// `unknown`.
    async fn record(&self, call: Option<Answered<'_>>) {
        let Some(Answered { sending, outcome, _unrecorded }) = call else { return };
        let (attempt, rows) = (sending.batch().attempt(), sending.batch().destinations.len() as u64);
        let recorded = match outcome {
            Outcome::Accepted { sms_id: None } => self.rounds.taken(Arc::clone(&sending)).await,
            _ => None,
        };
        let recorded = match recorded {
            Some(Ok(recorded)) => Ok(recorded),
            // By itself: another one of the round may be why it failed.
            _ => {
                let (retry, first_look) = (&self.settings.retry, self.settings.first_look);
                insist(|| self.ledger.record(&sending, &outcome, retry, first_look, self.ledger.now())).await
            }
        };
        match recorded {
            Ok(recorded) => {
                if recorded == Recorded::Done {
                    count(&outcome, rows);
                }
                tracing::debug!(attempt.id = %attempt, ?recorded, "recorded a batch");
            }
            Err(error) => {
                tracing::error!(attempt.id = %attempt, error = %chain(&error), "an outcome was not recorded; the list will tell");
            }
        }
    }

    async fn take_back(&self, unsent: Unsent, why: &'static str) {
        if let Err(error) = insist(|| self.ledger.take_back(unsent, why, self.ledger.now())).await {
            tracing::warn!(error = %chain(&error), "a batch was not taken back; it is when this worker ends");
        }
    }
}

/// A place for one; `None` when the worker is to stop.
async fn place<'a>(places: &'a Semaphore, stop: &CancellationToken) -> Option<SemaphorePermit<'a>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        place = places.acquire() => place.ok(),
    }
}

/// Counts what the rows of a batch became.
fn count(outcome: &Outcome, rows: u64) {
    match outcome {
        Outcome::Accepted { .. } => telemetry::rows_became("accepted", rows),
        Outcome::Ambiguous { .. } => telemetry::rows_became("unknown", rows),
        Outcome::NotSent { .. } => telemetry::rows_became("queued", rows),
        Outcome::Rejected { blame: Blame::All, .. } => telemetry::rows_became("rejected", rows),
        Outcome::Rejected { blame: Blame::Destinations(places), .. } => {
            let blamed = if places.is_empty() { rows } else { (places.len() as u64).min(rows) };
            telemetry::rows_became("rejected", blamed);
            telemetry::rows_became("queued", rows - blamed);
        }
    }
}

/// The gateway may be back by itself.
fn patient(error: &CallError) -> bool {
    matches!(error.kind(), CallErrorKind::Down | CallErrorKind::Throttled)
}

/// How long to insist on a write that only this process can make.
const INSIST_FOR: Duration = Duration::from_secs(60);

/// Tries a write again after a failure that may be over then. Safe for writes that are guarded by the state that they leave.
async fn insist<T, F: Future<Output = ledger::Result<T>>>(write: impl Fn() -> F) -> ledger::Result<T> {
    let until = Instant::now() + INSIST_FOR;
    let mut wait = Duration::from_millis(50);
    loop {
        match write().await {
            Err(error) if error.kind() != ErrorKind::Broken && Instant::now() < until => {
                tracing::debug!(error = %chain(&error), "the ledger is away; tries again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
            answer => return answer,
        }
    }
}
