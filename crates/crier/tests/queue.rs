//! The queue on a real Redis: what scales the workers on a cluster counts the jobs that really wait, and what is done is gone.

#![expect(clippy::unwrap_used, reason = "a test may end with a panic")]

use campaign::{CampaignId, ChunkId};
use queue::{Job, Queue};
use redis::aio::ConnectionManager;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use testbed::{Redis, eventually_async};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const JOBS: i64 = 40;

/// How KEDA's redis scaler counts: by the kind of the key.
const COUNT: &str = "
    local kind = redis.call('type', KEYS[1]).ok
    local count = {zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen'}
    return {kind, redis.call(count[kind], KEYS[1])}";

/// The keys that the manifest names, in its order.
fn keys() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/components/keda/scaledobject.yaml");
    let manifest = std::fs::read_to_string(path).unwrap();
    let named = manifest.lines().filter_map(|line| line.trim().strip_prefix("listName:"));
    named.map(|name| name.trim().trim_matches('"').to_owned()).collect()
}

/// The kind of each key, and how much it holds.
async fn counts(connection: &mut ConnectionManager) -> Vec<(String, i64)> {
    let mut counts = Vec::new();
    for key in keys() {
        counts.push(redis::Script::new(COUNT).key(key).invoke_async(connection).await.unwrap());
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn keda_counts_the_jobs_that_wait() {
    let redis = Redis::start();
    // The default of queue.name.
    let queue = Queue::redis(&redis.url(), "crier").await.unwrap();
    let mut connection = queue.redis_connection().unwrap();
    let named = |kind: &str, count| (kind.to_owned(), count);
    assert_eq!(counts(&mut connection).await, [named("none", 0), named("none", 0)], "{:?}", keys());

    let jobs: Vec<Job> = (0..JOBS).map(|n| Job::new(CampaignId(1), ChunkId(n))).collect();
    queue.push(&jobs).await.unwrap();
    assert_eq!(counts(&mut connection).await, [named("none", 0), named("zset", JOBS)], "no worker has looked");

    // A worker that is busy with its first job: all others wait but the one that is fetched ahead.
    let (stop, begun) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (serving, until, seen) = (queue.clone(), stop.clone(), begun.clone());
    let worker = tokio::spawn(async move {
        let handle = move |_| {
            let (until, seen) = (until.clone(), seen.clone());
            async move {
                seen.fetch_add(1, SeqCst);
                until.cancelled().await;
            }
        };
        serving.serve(1, Duration::from_secs(10), stop, handle).await;
    });
    let asked = connection.clone();
    eventually_async("the jobs that wait are a list", DEADLINE, async || {
        let counts = counts(&mut asked.clone()).await;
        begun.load(SeqCst) == 1
            && counts[0].0 == "list"
            && (JOBS - 3..JOBS).contains(&counts[0].1)
            && counts[1] == named("none", 0)
    })
    .await;
    worker.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_jobs_leave_nothing_behind() {
    let redis = Redis::start();
    let queue = Queue::redis(&redis.url(), "crier").await.unwrap();
    let (stop, done) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (serving, seen, until) = (queue.clone(), done.clone(), stop.clone());
    let worker = tokio::spawn(async move {
        let handle = move |_| {
            seen.fetch_add(1, SeqCst);
            std::future::ready(())
        };
        serving.serve(4, Duration::from_secs(10), until, handle).await;
    });
    for round in 1..=3 {
        let jobs: Vec<Job> = (0..JOBS).map(|n| Job::new(CampaignId(1), ChunkId(round * JOBS + n))).collect();
        queue.push(&jobs).await.unwrap();
        // What stays is who works on the queue and what queues there are: far less than one round's jobs.
        eventually_async("a round of jobs is done and gone", DEADLINE, async || {
            queue.tidy().await.unwrap();
            done.load(SeqCst) == usize::try_from(round * JOBS).unwrap() && redis.elements() < JOBS.cast_unsigned() / 2
        })
        .await;
    }
    stop.cancel();
    worker.await.unwrap();
}
