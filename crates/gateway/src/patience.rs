//! How long to wait before something that is safe to repeat is tried again. The only module that uses `backoff`.
//!
//! Send, dial and add-sender calls never come here.

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use std::time::Duration;
#[cfg(feature = "simulated")]
use tokio::time::Instant;

/// Growing pauses with jitter.
pub(crate) struct Patience(
    ExponentialBackoff,
    /// `backoff` looks at the machine's clock, which stands still in virtual time.
    #[cfg(feature = "simulated")]
    Option<Instant>,
);

impl Patience {
    /// Gives up after `total`.
    pub(crate) fn lasting(total: Duration) -> Self {
        Self::new(Some(total))
    }

    /// Never gives up.
    pub(crate) fn endless() -> Self {
        Self::new(None)
    }

    fn new(total: Option<Duration>) -> Self {
        let pauses = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(100))
            .with_multiplier(2.0)
            .with_max_interval(Duration::from_secs(5))
            .with_max_elapsed_time(total)
            .build();
        #[cfg(feature = "simulated")]
        return Self(
            ExponentialBackoff { randomization_factor: 0.0, ..pauses },
            total.map(|total| Instant::now() + total),
        );
        #[cfg(not(feature = "simulated"))]
        Self(pauses)
    }

    /// Waits for the next try; `false` at once when there should be none.
    pub(crate) async fn pause(&mut self) -> bool {
        #[cfg(feature = "simulated")]
        if self.1.is_some_and(|end| Instant::now() >= end) {
            return false;
        }
        match self.0.next_backoff() {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }
}
