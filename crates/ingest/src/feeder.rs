//! The feeder tops the queue up from the ledger: the one place that decides what goes next.
//!
//! It keeps few jobs outstanding, so that Redis stays small whatever the campaign's size, a pause takes effect at once and
//! a small urgent campaign never waits behind a million rows. It also replays what Redis lost. Any number of processes may
//! run it: marking a chunk as fed is a guarded update, so that each chunk is pushed by one of them.

use campaign::{CampaignId, ChunkId};
use jiff::SignedDuration;
use ledger::{Backlog, Ledger, chain};
use queue::{Job, Queue};
use std::{sync::Arc, time::Duration};
use telemetry::Pulse;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The least time between two rounds. What is out then lasts for longer, and who waits for an idle feeder waits for none of it.
const PAUSE: Duration = Duration::from_millis(50);

/// How the feeder works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most chunks on the queue or in work at a time: what four workers take, and some that wait and ask for them
    /// (`deploy/kubernetes/components/keda`). apalis-redis dies at 8,000 due jobs.
    pub outstanding_max: usize,
    /// A job that was out this long without being claimed is lost and is pushed again.
    pub replay_after: SignedDuration,
    /// How often to look.
    pub every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { outstanding_max: 128, replay_after: SignedDuration::from_secs(20), every: Duration::from_millis(500) }
    }
}

/// Feeds one queue from one ledger.
#[derive(Clone)]
pub struct Feeder {
    /// What is to be sent.
    pub ledger: Ledger,
    /// Where the jobs go.
    pub queue: Queue,
    /// How.
    pub settings: Settings,
    /// Wakes it before its time: a file was loaded, a chunk was finished.
    pub wake: Arc<Notify>,
    /// Beats with each of its rounds.
    pub pulse: Pulse,
}

impl Feeder {
    /// A feeder with the usual settings.
    pub fn new(ledger: Ledger, queue: Queue) -> Self {
        Self { ledger, queue, settings: Settings::default(), wake: Arc::new(Notify::new()), pulse: Pulse::default() }
    }

    /// Feeds until `stop`. A ledger or a Redis that is away is waited for.
    pub async fn run(self, stop: CancellationToken) {
        let mut troubled = false;
        let mut swept = None;
        let mut last_tidy = tokio::time::Instant::now();
        while !stop.is_cancelled() {
            self.pulse.beat();
            // A woken feeder only feeds: what ends by itself may wait for the next time.
            let sweep = swept.is_none_or(|at: tokio::time::Instant| at.elapsed() >= self.settings.every);
            let round = async {
                if sweep {
                    self.sweep().await?;
                }
                self.feed_once().await
            };
            let round = round.await;
            if sweep && round.is_ok() {
                swept = Some(tokio::time::Instant::now());
            }
            match round {
                Ok(_) if troubled => {
                    tracing::info!("the feeder goes on");
                    troubled = false;
                }
                Ok(_) => {}
                Err(error) if troubled => tracing::debug!(error = %chain(&error), "the feeder still waits"),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the feeder waits for the ledger or the queue");
                    troubled = true;
                }
            }
            if last_tidy.elapsed() >= Duration::from_secs(10) {
                last_tidy = tokio::time::Instant::now();
                if let Err(error) = self.queue.tidy().await {
                    tracing::debug!(error = %chain(&error), "finished jobs were not removed from the queue");
                }
            }
            // Chunks that are finished meanwhile are made up for together: each round reads all that is out.
            let _ = tokio::time::timeout(PAUSE, stop.cancelled()).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.settings.every) => {}
            }
        }
    }

    /// Ends what is not to be sent any more: unsent rows of cancelled campaigns, and those whose time has passed.
    pub async fn sweep(&self) -> Result<(), FeedError> {
        const CHUNKS_A_ROUND: u16 = 50;
        // In a restored ledger they may have been sent: what the list shows of them comes first.
        if self.ledger.quarantine().await?.is_some() {
            return Ok(());
        }
        let now = self.ledger.now();
        telemetry::rows_became("cancelled", self.ledger.sweep_cancelled(None, CHUNKS_A_ROUND, now).await?.rows);
        telemetry::rows_became("expired", self.ledger.sweep_expired(CHUNKS_A_ROUND, now).await?.rows);
        Ok(())
    }

    /// Feeds what is due now; answers how many jobs were pushed.
    pub async fn feed_once(&self) -> Result<usize, FeedError> {
        let now = self.ledger.now();
        let backlog = self.ledger.backlog(self.settings.outstanding_max, self.settings.replay_after, now).await?;
        let next = choose(&backlog, self.settings.outstanding_max);
        if next.is_empty() {
            return Ok(0);
        }
        let ids: Vec<ChunkId> = next.iter().map(|(_, chunk)| *chunk).collect();
        let fed = self.ledger.feed(&ids, self.settings.replay_after, now).await?;
        let jobs: Vec<Job> = next
            .into_iter()
            .filter(|(_, chunk)| fed.contains(chunk))
            .map(|(campaign, chunk)| Job::new(campaign, chunk))
            .collect();
        // A crash here loses the jobs until they are replayed: the ledger still has the chunks as fed and unclaimed.
        self.queue.push(&jobs).await?;
        crash::reach("the jobs are pushed");
        Ok(jobs.len())
    }
}

/// Why the queue was not fed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The queue took nothing.
    #[error(transparent)]
    Queue(#[from] queue::QueueError),
}

/// Chooses what goes to the queue: lost jobs first, then campaigns by priority; of one priority always the one that has the
/// fewest rows on the queue, so that equals get equal shares of recipients.
///
/// Shape: of each priority and those above it at most `outstanding_max` chunks outstanding, lost ones not counted twice, so
/// that a full queue keeps nothing urgent out; each chunk at most once.
fn choose(backlog: &Backlog, outstanding_max: usize) -> Vec<(CampaignId, ChunkId)> {
    let mut next = backlog.lost.clone();
    let mut priorities: Vec<i64> = backlog.waiting.iter().map(|waiting| waiting.priority).collect();
    priorities.sort_unstable_by(|a, b| b.cmp(a));
    priorities.dedup();
    let mut chosen = 0;
    for priority in priorities {
        let above = backlog.out.iter().filter(|out| out.priority >= priority).map(|out| out.chunks).sum::<i64>();
        let room = outstanding_max.saturating_sub(usize::try_from(above).unwrap_or(0));
        let rows_out = |campaign: CampaignId| {
            backlog.out.iter().filter(|out| out.campaign == campaign.0).map(|out| out.rows).sum::<i64>()
        };
        let equals = backlog.waiting.iter().filter(|waiting| waiting.priority == priority);
        let mut equals: Vec<_> = equals
            .map(|waiting| (rows_out(waiting.campaign), waiting, waiting.chunks.iter().zip(&waiting.rows)))
            .collect();
        while chosen < room {
            let Some(turn) = (0..equals.len()).min_by_key(|at| equals[*at].0) else { break };
            let (rows_out, waiting, chunks) = &mut equals[turn];
            match chunks.next() {
                Some((chunk, rows)) => {
                    next.push((waiting.campaign, *chunk));
                    *rows_out += *rows;
                    chosen += 1;
                }
                None => _ = equals.remove(turn),
            }
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Out, Waiting};

    fn out(campaign: i64, priority: i64, chunks: i64) -> Out {
        Out { campaign, priority, chunks, rows: chunks * 100 }
    }

    fn waiting(campaign: i64, priority: i64, chunks: std::ops::Range<i64>) -> Waiting {
        let rows = chunks.clone().map(|_| 100).collect();
        Waiting { campaign: CampaignId(campaign), priority, chunks: chunks.map(ChunkId).collect(), rows }
    }

    fn chunks(next: &[(CampaignId, ChunkId)]) -> Vec<i64> {
        next.iter().map(|(_, chunk)| chunk.0).collect()
    }

    #[test]
    fn equal_campaigns_take_turns_and_an_urgent_one_goes_first() {
        let backlog = Backlog {
            waiting: vec![waiting(1, 0, 10..20), waiting(2, 0, 20..30), waiting(3, 5, 30..31)],
            ..Backlog::default()
        };
        assert_eq!(chunks(&choose(&backlog, 5)), [30, 10, 20, 11, 21]);
    }

    #[test]
    fn no_more_than_the_limit_is_outstanding() {
        let backlog = Backlog {
            outstanding: 3,
            out: vec![out(1, 0, 3)],
            waiting: vec![waiting(1, 0, 0..100)],
            ..Backlog::default()
        };
        assert_eq!(choose(&backlog, 8).len(), 5);
        assert!(choose(&Backlog { outstanding: 9, out: vec![out(1, 0, 9)], ..backlog }, 8).is_empty());
    }

    #[test]
    fn lost_jobs_are_replayed_even_when_the_queue_counts_as_full() {
        let lost = vec![(CampaignId(1), ChunkId(4))];
        let backlog = Backlog { outstanding: 8, out: vec![out(1, 0, 8)], lost, waiting: vec![waiting(1, 0, 5..9)] };
        assert_eq!(chunks(&choose(&backlog, 8)), [4]);
    }

    #[test]
    fn a_full_queue_keeps_nothing_urgent_out() {
        let backlog = Backlog {
            out: vec![out(1, 0, 8)],
            waiting: vec![waiting(1, 0, 1..9), waiting(2, 5, 20..22)],
            ..Backlog::default()
        };
        assert_eq!(chunks(&choose(&backlog, 8)), [20, 21]);
    }

    #[test]
    fn a_campaign_with_less_on_the_queue_catches_up_by_recipients() {
        let mut small = waiting(2, 0, 20..40);
        small.rows = vec![10; 20];
        let backlog =
            Backlog { out: vec![out(1, 0, 1)], waiting: vec![waiting(1, 0, 1..9), small], ..Backlog::default() };
        let next = choose(&backlog, 64);
        let of_small = next.iter().take_while(|(campaign, _)| campaign.0 == 2).count();
        assert_eq!(of_small, 10, "ten small chunks have as many recipients as a big one");
    }

    #[tokio::test]
    async fn nothing_expires_in_quarantine() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let owner = ledger.register_owner("test", "here", std::process::id(), ledger.now()).await.unwrap();
        let path = dir.path().join("spring.csv");
        std::fs::write(&path, "phone,sender,text,valid_until\n07700900001,ACME,Hi,2026-03-02 10:00\n").unwrap();
        let at = || "2026-03-02T09:00:00Z".parse().unwrap();
        let preview = crate::check(&path, &crate::Options::default(), &crate::Checks::at(at())).unwrap();
        let launch = crate::Launch { again: false, launched_by: "ann".into(), owner: owner.id(), rejects_dir: None };
        crate::load(&ledger, &path, &preview, &launch, at, |_| {}, &CancellationToken::new()).await.unwrap();
        let feeder = Feeder::new(ledger.clone(), Queue::in_process());
        let expired = async || {
            feeder.sweep().await.unwrap();
            let mut results = ledger.results("spring", &[]).await.unwrap().expect("it was loaded");
            results.next_page().await.unwrap().expect("it has a row")[0].state
        };

        // It may have been sent in time: only the list can tell.
        assert!(ledger.begin_quarantine("ann", "the disk was lost", None, ledger.now()).await.unwrap());
        assert_eq!(expired().await, campaign::RowState::Queued);
        assert!(ledger.end_quarantine("reconciler", "read back", None, ledger.now()).await.unwrap());
        assert_eq!(expired().await, campaign::RowState::Expired);
    }
}
