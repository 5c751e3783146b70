//! How long to wait before something that is safe to repeat is tried again. The only module that uses `backoff`.
//!
//! Send, dial and add-sender calls never come here.

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use std::time::Duration;

/// Growing pauses with jitter.
pub(crate) struct Patience(ExponentialBackoff);

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
        Self(pauses)
    }

    /// Waits for the next try; `false` at once when there should be none.
    pub(crate) async fn pause(&mut self) -> bool {
        match self.0.next_backoff() {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }
}
