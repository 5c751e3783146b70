//! Jobs on their way to the workers: over Redis by apalis, or within one process.
//!
//! A job is a nudge that carries ids only; no number and no text ever enters Redis. Losing or doubling every job costs time,
//! nothing else: the ledger decides what a job still means when it arrives.
//!
//! Deliberately not here: retries (the ledger owns them) and what to send next (the feeder decides).

mod in_process;
mod mark;
mod redis_queue;

pub use mark::{Mark, MarkError};

use campaign::{CampaignId, ChunkId};
use serde::{Deserialize, Serialize};
use std::{future::Future, time::Duration};
use telemetry::Pulse;
use tokio_util::sync::CancellationToken;

/// The version of [`Job`] that this program writes and understands.
pub const JOB_VERSION: u32 = 1;

/// A nudge: look at this chunk. Every field has a default, because a payload that does not decode would kill its worker
/// and be delivered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// [`JOB_VERSION`] of the program that wrote it; what a newer one wrote is acknowledged unread.
    pub version: u32,
    /// The campaign, for the log.
    pub campaign: i64,
    /// The chunk.
    pub chunk: i64,
}

impl Default for Job {
    fn default() -> Self {
        Self { version: 0, campaign: -1, chunk: -1 }
    }
}

impl Job {
    /// A job of this program's version.
    pub fn new(campaign: CampaignId, chunk: ChunkId) -> Self {
        Self { version: JOB_VERSION, campaign: campaign.0, chunk: chunk.0 }
    }

    /// The chunk to look at, unless a newer version of the program wrote the job: the feeder comes back to that.
    pub fn chunk(&self) -> Option<ChunkId> {
        self.chunk_for(JOB_VERSION)
    }

    /// What a program of this version makes of it: versions before its own it knows, 0 is no version.
    fn chunk_for(&self, reader: u32) -> Option<ChunkId> {
        ((1..=reader).contains(&self.version) && self.chunk >= 0).then_some(ChunkId(self.chunk))
    }
}

/// The queue could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// `queue.url` is neither `memory:` nor a Redis URL.
    #[error("queue.url must be memory: or begin with redis:// or rediss://")]
    Url,
    /// Redis can't be reached.
    #[error("reach Redis")]
    Redis(#[from] redis::RedisError),
    /// A job could not be pushed.
    #[error("push a job: {0}")]
    Push(String),
}

/// A queue of jobs; clones share it.
#[derive(Clone)]
pub struct Queue(Kind, Pulse);

#[derive(Clone)]
enum Kind {
    InProcess(in_process::InProcess),
    Redis(redis_queue::RedisQueue),
}

impl Queue {
    /// A queue within this process.
    pub fn in_process() -> Self {
        Self(Kind::InProcess(in_process::InProcess::new()), Pulse::default())
    }

    /// The queue `name` on the Redis at `url`. Waits at most ten seconds for Redis.
    pub async fn redis(url: &str, name: &str) -> Result<Self, QueueError> {
        Ok(Self(Kind::Redis(redis_queue::RedisQueue::connect(url, name).await?), Pulse::default()))
    }

    /// The same queue for a loop whose pulse this is: it beats whenever the queue is looked at.
    pub fn with_pulse(&self, pulse: Pulse) -> Self {
        Self(self.0.clone(), pulse)
    }

    /// Where it is remembered how far the sending has come: on Redis, or for a queue within this process in this file.
    pub fn mark(&self, file: Option<std::path::PathBuf>) -> Mark {
        match &self.0 {
            Kind::InProcess(_) => file.map_or_else(Mark::nowhere, Mark::in_file),
            Kind::Redis(queue) => Mark::on_redis(queue.connection(), queue.name()),
        }
    }

    /// Whether the queue can be used now.
    pub async fn check(&self) -> Result<(), QueueError> {
        match &self.0 {
            Kind::InProcess(_) => Ok(()),
            Kind::Redis(queue) => queue.check().await,
        }
    }

    /// The connection to Redis, for what else is shared there (the call budget).
    pub fn redis_connection(&self) -> Option<redis::aio::ConnectionManager> {
        match &self.0 {
            Kind::InProcess(_) => None,
            Kind::Redis(queue) => Some(queue.connection()),
        }
    }

    /// Puts jobs on the queue.
    pub async fn push(&self, jobs: &[Job]) -> Result<(), QueueError> {
        match &self.0 {
            Kind::InProcess(queue) => {
                queue.push(jobs);
                Ok(())
            }
            Kind::Redis(queue) => queue.push(jobs).await,
        }
    }

    /// Removes what finished jobs left on Redis. Cheap while the queue is small, which the feeder sees to.
    pub async fn tidy(&self) -> Result<(), QueueError> {
        match &self.0 {
            Kind::InProcess(_) => Ok(()),
            Kind::Redis(queue) => queue.tidy().await,
        }
    }

    /// Hands each job to `handle`, `concurrency` at a time, until `stop`; then waits up to `grace` for the handlers that
    /// run. A queue that goes away is waited for.
    pub async fn serve<F, H>(&self, concurrency: usize, grace: Duration, stop: CancellationToken, handle: H)
    where
        H: Fn(Job) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        match &self.0 {
            Kind::InProcess(queue) => queue.serve(concurrency, stop, &self.1, handle).await,
            Kind::Redis(queue) => queue.serve(concurrency, grace, stop, &self.1, handle).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn a_job_holds_ids_only_and_any_payload_decodes() {
        let job = Job::new(CampaignId(7), ChunkId(9));
        assert_eq!(serde_json::to_string(&job).unwrap(), r#"{"version":1,"campaign":7,"chunk":9}"#);
        assert_eq!(serde_json::from_str::<Job>("{}").unwrap().chunk(), None);
        let newer: Job = serde_json::from_str(r#"{"version":2,"chunk":9,"more":true}"#).unwrap();
        assert_eq!(newer.chunk(), None);
    }

    #[test]
    fn a_job_is_read_by_its_own_version_and_by_newer_ones() {
        let job = Job { version: 2, ..Job::new(CampaignId(7), ChunkId(9)) };
        let read = |reader| job.chunk_for(reader).is_some();
        assert_eq!([1, 2, 3].map(read), [false, true, true]);
    }

    #[tokio::test]
    async fn the_in_process_queue_hands_out_each_job_once_and_stops() {
        let queue = Queue::in_process();
        let jobs: Vec<Job> = (0..50).map(|n| Job::new(CampaignId(1), ChunkId(n))).collect();
        queue.push(&jobs).await.unwrap();
        let stop = CancellationToken::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let handle = {
            let (seen, stop) = (seen.clone(), stop.clone());
            move |_job: Job| {
                let (seen, stop) = (seen.clone(), stop.clone());
                async move {
                    if seen.fetch_add(1, Ordering::SeqCst) == 49 {
                        stop.cancel();
                    }
                }
            }
        };
        queue.serve(4, Duration::from_secs(1), stop, handle).await;
        assert_eq!(seen.load(Ordering::SeqCst), 50);
    }
}
