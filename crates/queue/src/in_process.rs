//! The queue of a program that needs no server.

use crate::Job;
use futures::StreamExt;
use std::{future::Future, sync::Arc, time::Duration};
use telemetry::Pulse;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// How often an idle queue shows that it is looked at.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Jobs in memory; the feeder keeps few of them outstanding, and the ledger has what a crash loses.
#[derive(Clone)]
pub(crate) struct InProcess {
    push: mpsc::UnboundedSender<Job>,
    take: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>,
}

impl InProcess {
    pub(crate) fn new() -> Self {
        let (push, take) = mpsc::unbounded_channel();
        Self { push, take: Arc::new(Mutex::new(take)) }
    }

    pub(crate) fn push(&self, jobs: &[Job]) {
        for job in jobs {
            self.push.send(job.clone()).expect("self holds the receiver");
        }
    }

    pub(crate) async fn serve<F, H>(&self, concurrency: usize, stop: CancellationToken, pulse: &Pulse, handle: H)
    where
        H: Fn(Job) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let jobs = futures::stream::unfold((), |()| async {
            let mut take = self.take.lock().await;
            loop {
                pulse.beat();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break None,
                    job = take.recv() => break job.map(|job| (job, ())),
                    () = tokio::time::sleep(LOOK_UP) => {}
                }
            }
        });
        jobs.for_each_concurrent(concurrency.max(1), |job| {
            let running = tokio::spawn(handle(job));
            async move {
                if let Err(error) = running.await {
                    tracing::error!(%error, "a job handler panicked; its rows are taken up again after their lease");
                }
            }
        })
        .await;
    }
}
