//! The queue on Redis, by apalis. Each setting here answers a trap that was met in apalis-redis 1.0.

use crate::{Job, QueueError};
use apalis::prelude::*;
use apalis_core::backend::Vacuum;
use apalis_redis::{Config, RedisStorage};
use futures::SinkExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};
use telemetry::Pulse;
use tokio_util::sync::CancellationToken;

/// How often the queue is looked at: every push lands in the scheduled set, whose own wake-up is the 30 s heartbeat.
const TICK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(crate) struct RedisQueue {
    connection: ConnectionManager,
    name: String,
}

/// Looks at the queue at a steady pace; `poll_with_interval` loses wake-ups.
#[derive(Debug)]
struct Tick(Option<Pin<Box<tokio::time::Sleep>>>, Pulse);

impl Clone for Tick {
    fn clone(&self) -> Self {
        Self(None, self.1.clone())
    }
}

impl PollStrategy for Tick {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut due = Poll::Pending;
        let Self(sleep, pulse) = self;
        let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
        while sleep.as_mut().poll(cx).is_ready() {
            sleep.as_mut().reset(tokio::time::Instant::now() + TICK);
            pulse.beat();
            due = Poll::Ready(Some(()));
        }
        due
    }
}

impl RedisQueue {
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self, QueueError> {
        if !["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(QueueError::Url);
        }
        // apalis ends a worker whose Redis answers later than this; the client's own default is 500 ms.
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_secs(10)))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_number_of_retries(1);
        let connection = redis::Client::open(url)?.get_connection_manager_with_config(config).await?;
        Ok(Self { connection, name: name.to_owned() })
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn storage(&self) -> RedisStorage<Job> {
        let config = Config::default()
            .queue(self.name.as_str())
            .batch_size(1) // a worker with a full buffer sends no heartbeat and is taken for dead
            .lock_tasks(false) // locking costs a scan of the whole list
            .heartbeat_interval(Duration::from_secs(5))
            .missed_heartbeats(12);
        RedisStorage::new(self.connection.clone()).with_config(config)
    }

    pub(crate) async fn push(&self, jobs: &[Job]) -> Result<(), QueueError> {
        let mut storage = self.storage();
        for job in jobs {
            let payload = serde_json::to_vec(job).expect("a job is JSON");
            let task = TaskBuilder::new(payload).build();
            storage.feed(task).await.map_err(|error| QueueError::Push(error.to_string()))?;
        }
        SinkExt::flush(&mut storage).await.map_err(|error| QueueError::Push(error.to_string()))
    }

    pub(crate) async fn check(&self) -> Result<(), QueueError> {
        redis::cmd("PING").query_async::<()>(&mut self.connection()).await?;
        Ok(())
    }

    pub(crate) async fn tidy(&self) -> Result<(), QueueError> {
        let mut storage = self.storage();
        storage.vacuum().await.map_err(|error| QueueError::Push(error.to_string()))?;
        // The names of all jobs that were ever done, which nothing reads and apalis keeps for ever.
        let config = storage.get_config();
        redis::cmd("DEL")
            .arg(config.done_jobs_set())
            .arg(config.dead_jobs_set())
            .query_async::<()>(&mut self.connection())
            .await?;
        Ok(())
    }

    pub(crate) async fn serve<F, H>(
        &self,
        concurrency: usize,
        grace: Duration,
        stop: CancellationToken,
        pulse: &Pulse,
        handle: H,
    ) where
        H: Fn(Job) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        // A worker's name can't be used again within 30 s, so each start has a name of its own.
        static STARTS: AtomicU64 = AtomicU64::new(0);
        let process =
            format!("{}-{}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
        while !stop.is_cancelled() {
            pulse.beat();
            let storage = self.storage().poll_with_strategy(Tick(None, pulse.clone()));
            let (process, handle, signal) = (process.clone(), handle.clone(), stop.clone());
            let monitor = Monitor::new()
                .register(move |_| {
                    let start = STARTS.fetch_add(1, Ordering::Relaxed);
                    let handle = handle.clone();
                    WorkerBuilder::new(format!("crier-{process}-{start}"))
                        .backend(storage.clone())
                        .parallelize(tokio::spawn) // a request in flight survives an error of the backend
                        .concurrency(concurrency.max(1))
                        .catch_panic()
                        .build(move |job: Job| {
                            let handling = handle(job);
                            async move {
                                handling.await;
                                // Whatever happened is in the ledger: the queue retries nothing.
                                Ok::<(), BoxDynError>(())
                            }
                        })
                })
                .shutdown_timeout(grace)
                .should_restart(|_, error| {
                    tracing::warn!(%error, "the queue's worker ended; starting another");
                    false
                });
            let ended = monitor
                .run_with_signal(async move {
                    signal.cancelled().await;
                    Ok(())
                })
                .await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the queue ended");
            }
            // After a failure of Redis: a moment before the next try, cut short by the stop.
            let _ = tokio::time::timeout(Duration::from_millis(500), stop.cancelled()).await;
        }
    }
}
