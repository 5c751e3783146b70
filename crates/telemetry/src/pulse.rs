//! Whether a loop still turns.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How often a wait that has its own end counts as a turn.
const WHILE_WAITING: Duration = Duration::from_secs(1);

/// When a loop last turned; clones share it.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<AtomicU64>);

impl Default for Pulse {
    fn default() -> Self {
        let pulse = Self(Arc::default());
        pulse.beat();
        pulse
    }
}

impl Pulse {
    /// The loop turned.
    pub fn beat(&self) {
        self.0.store(now_ms(), Relaxed);
    }

    /// How long ago it turned.
    pub fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.0.load(Relaxed)))
    }

    /// Waits for what ends by itself, like a call with a time limit or a turn in the call budget: as long as it lasts, the
    /// loop is not stuck.
    pub async fn while_waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            self.beat();
            if let Ok(done) = tokio::time::timeout(WHILE_WAITING, &mut wait).await {
                return done;
            }
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_with_an_end_is_waited_for() {
        let pulse = Pulse::default();
        let (done, wait) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(async move { pulse.while_waiting(wait).await });
        done.send(7).expect("it is waited for");
        assert_eq!(waiting.await.expect("it ends").expect("it was sent"), 7);
    }
}
