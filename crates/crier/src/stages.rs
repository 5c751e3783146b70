//! Driving the stages of one process: starting them, ending them together, waiting for what is down.

use crate::{
    exit::{Done, Stop},
    setup::Setup,
};
use gateway::Gateway;
use ingest::Feeder;
use ledger::Ledger;
use queue::Queue;
use reconciler::{OnAbsent, Reconciler};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use worker::Worker;

/// A part of the way of a row that a process may drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Tops the queue up from the ledger; any process may, one of them acts.
    Feeder,
    /// Sends.
    Worker,
    /// Learns what happened.
    Reconciler,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Feeder => "feeder",
            Self::Worker => "worker",
            Self::Reconciler => "reconciler",
        }
    }
}

/// What the stages work with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    pub(crate) gateway: Gateway,
}

/// Stages that run in this process.
pub(crate) struct Stages {
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
    ledger: Ledger,
}

/// How often the ledger's clock is read again.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

impl Stages {
    /// Starts the stages, each under an owner of its own. They end when the process is asked to.
    pub(crate) async fn start(setup: &Setup, parts: &Parts, stages: &[Stage]) -> anyhow::Result<Self> {
        let stop = setup.stopper.asked.child_token();
        let mut running = JoinSet::new();
        for stage in stages {
            let owner = setup.owner(&parts.ledger, stage.name()).await?;
            let (ledger, queue, gateway, stop) =
                (parts.ledger.clone(), parts.queue.clone(), parts.gateway.clone(), stop.clone());
            let name = stage.name();
            match stage {
                Stage::Feeder => {
                    let feeder = Feeder { ledger, queue, settings: ingest::FeederSettings::default() };
                    running.spawn(async move { (name, feeder.run(owner, stop).await.map_err(Into::into)) });
                }
                Stage::Worker => {
                    let settings = worker_settings(setup);
                    let worker = Worker { ledger, gateway, settings };
                    running.spawn(async move { (name, worker.run(queue, owner, stop).await.map_err(Into::into)) });
                }
                Stage::Reconciler => {
                    let settings = reconciler_settings(setup);
                    let reconciler = Reconciler { ledger, gateway, settings };
                    running.spawn(async move { (name, reconciler.run(owner, stop).await.map_err(Into::into)) });
                }
            }
        }
        Ok(Self { running, stop, ledger: parts.ledger.clone() })
    }

    /// Waits for the stages' end: when `look`, called now and then, says that all is done, when the process is asked to
    /// end, or when a stage fails. Whatever the reason, every stage finishes what it has under way.
    pub(crate) async fn until(mut self, every: Duration, mut look: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
        let mut failed = None;
        let mut clock_read = Instant::now();
        loop {
            tokio::select! {
                ended = self.running.join_next() => {
                    let Some(ended) = ended else { return failed.map_or(Ok(()), Err) };
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
                () = tokio::time::sleep(every), if !self.stop.is_cancelled() => {
                    if look().await {
                        self.stop.cancel();
                    }
                    if clock_read.elapsed() > CLOCK_EVERY {
                        clock_read = Instant::now();
                        // A ledger that is down is the stages' to mention.
                        _ = self.ledger.set_clock().await;
                    }
                }
            }
        }
    }
}

fn worker_settings(setup: &Setup) -> worker::Settings {
    let settings = &setup.settings.worker;
    worker::Settings { batch_len_max: settings.batch_len_max, concurrency: settings.concurrency, lease: settings.lease }
}

fn reconciler_settings(setup: &Setup) -> reconciler::Settings {
    let settings = &setup.settings.reconcile;
    reconciler::Settings {
        settle: settings.settle,
        on_absent: if settings.resend_once { OnAbsent::ResendOnce } else { OnAbsent::Hold },
        first_look: settings.first_look,
        give_up: settings.give_up,
    }
}

/// Runs stages as a service: waits for ledger, queue and gateway when they are down, and ends when asked to or, with
/// `drain`, when nothing is left to do.
pub(crate) async fn serve(setup: &Setup, kind: &str, stages: &[Stage], drain: bool) -> anyhow::Result<Done> {
    setup.settings.gateway.credentials()?;
    let Some(ledger) = setup.when_up(async || setup.ledger().await).await? else { return Ok(setup.stopper.done()) };
    let Some(queue) = setup.when_up(async || setup.queue().await).await? else { return Ok(setup.stopper.done()) };
    let Some(budget) = setup.when_up(async || setup.budget().await).await? else { return Ok(setup.stopper.done()) };
    let parts = Parts { gateway: setup.gateway(&ledger, budget, kind)?, ledger, queue };
    let started = setup.when_up(async || Stages::start(setup, &parts, stages).await).await?;
    let Some(started) = started else { return Ok(setup.stopper.done()) };
    tracing::info!(drain, "{kind} started");
    let look = async || drain && parts.ledger.todo().await.is_ok_and(|todo| todo.is_empty());
    started.until(Duration::from_millis(500), look).await?;
    tracing::info!("{kind} ended");
    Ok(setup.stopper.done())
}
