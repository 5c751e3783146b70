//! Driving the stages of one process: starting them, ending them together, waiting for what is down.

use crate::{
    commands::{file, purge},
    exit::{self, Done, Stop},
    health::{Health, Watched},
    setup::{PATIENTLY, Setup},
};
use campaign::{OwnerId, resolve::OnAbsent};
use gateway::Gateway;
use ingest::feeder::Feeder;
use jiff::SignedDuration;
use ledger::{Ledger, OwnerGuard};
use queue::{Mark, Queue};
use reconciler::Reconciler;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use worker::Worker;

/// A part of the way of a row that a process may drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Sends.
    Worker,
    /// Learns what happened.
    Reconciler,
}

/// What the stages work with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    pub(crate) gateway: Gateway,
}

/// Stages that run in this process, under one registration.
pub(crate) struct Stages {
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
    ledger: Ledger,
    owner: Arc<OwnerGuard>,
    health: Health,
    /// Of a process that sends.
    mark: Option<Mark>,
    wake: Arc<Notify>,
}

/// How stages ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is done, or the process was asked to end.
    Asked,
    /// Others have taken this process for dead: it must register anew.
    TakenForDead,
}

/// How often this process says that it lives, and reads the ledger's clock.
const BEAT_EVERY: Duration = Duration::from_secs(5);

impl Stages {
    /// Starts a feeder and these stages. They end when the process is asked to.
    pub(crate) async fn start(setup: &Setup, parts: &Parts, kind: &str, stages: &[Stage]) -> anyhow::Result<Self> {
        let mark = stages.contains(&Stage::Worker).then(|| parts.queue.mark(parts.ledger.mark_file()));
        if let Some(mark) = &mark {
            // Before this process shows that it lives: the last sign of life in a backup tells from when on to read back.
            worker::quarantine_if_behind(&parts.ledger, mark, 0..=0).await.map_err(unmarked)?;
        }
        let mut started = Self::feeding(setup, &parts.ledger, &parts.queue, kind).await?;
        started.mark.clone_from(&mark);
        for stage in stages {
            let owner = Arc::clone(&started.owner);
            let (ledger, gateway, queue) = (parts.ledger.clone(), parts.gateway.clone(), parts.queue.clone());
            match stage {
                Stage::Worker => {
                    let pulse = setup.health.watch_loop("worker");
                    let (gateway, queue) = (gateway.with_pulse(pulse.clone()), queue.with_pulse(pulse));
                    let (settings, finished) = (worker_settings(setup), started.wake());
                    let mark = mark.clone().unwrap_or_else(Mark::nowhere);
                    let worker = Worker::new(ledger, gateway, settings, mark, finished);
                    started.beside("worker", async move |stop| {
                        worker.run(queue, owner, stop).await;
                        Ok(())
                    });
                }
                Stage::Reconciler => {
                    started.know_senders(&ledger, gateway.clone());
                    let (kept, to_purge) = (purge::Kept::of(setup), ledger.clone());
                    started.beside("daily purge", async move |stop| {
                        purge::daily(to_purge, kept, stop).await;
                        Ok(())
                    });
                    let gateway = gateway.with_pulse(setup.health.watch_loop("reconciler"));
                    let reconciler = Reconciler::new(ledger, gateway, reconciler_settings(setup));
                    started.beside("reconciler", async move |stop| {
                        reconciler.run(&owner, stop).await;
                        Ok(())
                    });
                }
            }
        }
        Ok(started)
    }

    /// Starts a feeder alone: it tops the queue up from the ledger, and any process that has both may run one.
    pub(crate) async fn feeding(setup: &Setup, ledger: &Ledger, queue: &Queue, kind: &str) -> anyhow::Result<Self> {
        let mut feeder = Feeder::new(ledger.clone(), queue.clone());
        let mut started = Self {
            running: JoinSet::new(),
            stop: setup.stopper.asked.child_token(),
            ledger: ledger.clone(),
            owner: Arc::new(setup.owner(ledger, kind).await?),
            health: setup.health.clone(),
            mark: None,
            wake: Arc::clone(&feeder.wake),
        };
        setup.health.forget_loops();
        feeder.pulse = setup.health.watch_loop("feeder");
        started.beside("feeder", async move |stop| {
            feeder.run(stop).await;
            Ok(())
        });
        Ok(started)
    }

    /// Tells the feeder that there is something to do.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// The registration of this process.
    pub(crate) fn owner(&self) -> OwnerId {
        self.owner.id()
    }

    /// Keeps the ledger's list of approved senders fresh.
    pub(crate) fn know_senders(&mut self, ledger: &Ledger, gateway: Gateway) {
        let ledger = ledger.clone();
        self.beside("list of senders", async move |stop| {
            while !stop.is_cancelled() {
                let read = stop.run_until_cancelled(file::approved_by_gateway(&ledger, &gateway)).await;
                let wait = match read {
                    Some(Err(error)) => {
                        tracing::warn!("the senders were not read: {}", exit::line(&error));
                        Duration::from_secs(10)
                    }
                    _ => Duration::from_secs(300),
                };
                _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
            }
            Ok(())
        });
    }

    /// Runs something beside the stages; it is to end when the token is cancelled.
    pub(crate) fn beside<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let run = run(self.stop.clone());
        self.running.spawn(async move { (name, run.await) });
    }

    /// Waits for the stages' end: when `look`, called now and then, says that all is done, when the process is asked to
    /// end, or when a stage fails. Whatever the reason, every stage finishes what it has under way.
    pub(crate) async fn until(mut self, every: Duration, mut look: impl AsyncFnMut() -> bool) -> anyhow::Result<End> {
        let (mut failed, mut end) = (None, End::Asked);
        let mut beat = tokio::time::interval(BEAT_EVERY);
        let turns = self.health.watch_loop("process");
        loop {
            turns.beat();
            tokio::select! {
                ended = self.running.join_next() => {
                    let Some(ended) = ended else { break };
                    let (name, result) = ended?;
                    let early = !self.stop.is_cancelled();
                    let result = result.and_then(|()| {
                        if early { Err(Stop::failed(format!("the {name} ended by itself")).into()) } else { Ok(()) }
                    });
                    if let Err(error) = result {
                        self.stop.cancel();
                        failed.get_or_insert(error);
                    }
                }
                // While the stages still finish what is under way, the process is not to be taken for dead.
                _ = beat.tick() => {
                    // A ledger that is down is the stages' to mention.
                    _ = self.ledger.set_clock().await;
                    let taken_for_dead = show_life(&self.ledger, &self.owner, self.mark.as_ref()).await;
                    if taken_for_dead && !self.stop.is_cancelled() {
                        tracing::warn!("this process was taken for dead; it registers anew");
                        end = End::TakenForDead;
                        self.stop.cancel();
                    }
                }
                () = tokio::time::sleep(every), if !self.stop.is_cancelled() => {
                    if look().await {
                        self.stop.cancel();
                    }
                }
            }
        }
        self.health.forget_loops();
        // A ledger that is down learns of the end by the lock that goes with the process.
        if let Ok(owner) = Arc::try_unwrap(self.owner) {
            _ = owner.end(self.ledger.now()).await;
        }
        failed.map_or(Ok(end), Err)
    }
}

/// Shows that this process lives; answers whether others have taken it for dead. The last sign of life in a backup tells a
/// quarantine from when on to read the list back: a ledger that may have been restored gets none.
async fn show_life(ledger: &Ledger, owner: &OwnerGuard, mark: Option<&Mark>) -> bool {
    let known = match mark {
        Some(mark) => worker::quarantine_if_behind(ledger, mark, 0..=0).await.is_ok(),
        None => true,
    };
    known && matches!(owner.beat(ledger.now()).await, Ok(false))
}

/// What keeps a process from beginning to send is what it needs being down.
fn unmarked(error: worker::Unmarked) -> anyhow::Error {
    Stop::dependency("it can't be found out whether the ledger was restored").because(error).into()
}

fn worker_settings(setup: &Setup) -> worker::Settings {
    let settings = &setup.settings;
    worker::Settings {
        batch_len_max: settings.worker.batch_len_max,
        concurrency: settings.worker.concurrency,
        first_look: signed(settings.reconcile.first_look),
        // Longer than a request in flight may take, so that its outcome is recorded.
        grace: settings.gateway.send_timeout + Duration::from_secs(30),
        ..worker::Settings::default()
    }
}

fn reconciler_settings(setup: &Setup) -> reconciler::Settings {
    let (settings, gateway) = (&setup.settings.reconcile, &setup.settings.gateway);
    reconciler::Settings {
        settle: settings.settle.map(signed),
        on_absent: if settings.resend_once { OnAbsent::ResendOnce } else { OnAbsent::Hold },
        first_look: signed(settings.first_look),
        give_up: signed(settings.give_up),
        prove_within: signed(settings.prove_within),
        lease: signed(setup.settings.worker.lease),
        // With some room: a clock may be read late, and a send may have waited to be started.
        send_limit: signed(gateway.connect_timeout + gateway.send_timeout + Duration::from_secs(5)),
        inbound_every: settings.inbound_every,
        region: setup.settings.ingest.region,
        ..reconciler::Settings::default()
    }
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}

/// Ledger, queue and gateway of a service; waits for those that are down. `None` when asked to end meanwhile.
pub(crate) async fn parts_when_up(setup: &Setup, kind: &str) -> anyhow::Result<Option<Parts>> {
    let Some(ledger) = setup.when_up(async || setup.ledger().await).await? else { return Ok(None) };
    let Some(queue) = setup.when_up(async || setup.queue().await).await? else { return Ok(None) };
    let gateway = setup.gateway(&ledger, setup.budget(&queue), kind, PATIENTLY)?;
    let watched = Watched { ledger: ledger.clone(), queue: queue.clone(), gateway: Some(gateway.clone()) };
    setup.health.stands_on(watched);
    Ok(Some(Parts { ledger, queue, gateway }))
}

/// Runs stages as a service: waits for ledger, queue and gateway when they are down, and ends when asked to or, with
/// `drain`, when nothing is left to do.
pub(crate) async fn serve(setup: &Setup, kind: &str, stages: &[Stage], drain: bool) -> anyhow::Result<Done> {
    setup.settings.gateway.credentials()?;
    setup.be_a_service().await?;
    let Some(parts) = parts_when_up(setup, kind).await? else { return Ok(setup.stopper.done()) };
    loop {
        let started = setup.when_up(async || Stages::start(setup, &parts, kind, stages).await).await?;
        let Some(started) = started else { break };
        tracing::info!(drain, "{kind} started");
        let look = async || drain && parts.ledger.todo().await.is_ok_and(|todo| todo.is_empty());
        if started.until(Duration::from_millis(500), look).await? == End::Asked {
            break;
        }
    }
    tracing::info!("{kind} ended");
    Ok(setup.stopper.done())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_ledger_that_may_have_been_restored_gets_no_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let backed_up = ledger.now() - SignedDuration::from_hours(1);
        let owner = ledger.register_owner("worker", "here", std::process::id(), backed_up).await.unwrap();
        let seen = ledger.last_sign_of_life().await.unwrap().expect("it registered");

        // Nobody knows whether it was restored: the file can't be read.
        let file = ledger.mark_file().expect("it is embedded");
        fs::create_dir(&file).unwrap();
        let mark = Mark::in_file(file.clone());
        assert!(!show_life(&ledger, &owner, Some(&mark)).await);
        assert_eq!(ledger.last_sign_of_life().await.unwrap(), Some(seen));

        // It was: the quarantine has noted the last sign of life of before.
        fs::remove_dir(&file).unwrap();
        fs::write(&file, format!("{} 7\n", ledger.identity().await.unwrap().name)).unwrap();
        assert!(!show_life(&ledger, &owner, Some(&mark)).await);
        let quarantine = ledger.quarantine().await.unwrap().expect("the ledger knows of no call, seven were made");
        assert!(quarantine.since <= seen, "{quarantine:?}");

        assert!(!show_life(&ledger, &owner, Some(&mark)).await);
        assert!(ledger.last_sign_of_life().await.unwrap() > Some(seen));
        owner.end(ledger.now()).await.unwrap();
    }
}
