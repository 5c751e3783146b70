//! Waiting on a condition, with a deadline: the one place in which a test's time passes.

use std::{
    thread,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(10);

/// Returns when `condition` holds; panics with `what` when it doesn't within `deadline`.
///
/// Blocks the thread: for a test that runs its servers as processes. Else take [`eventually_async`].
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(within(deadline, condition), "not within {deadline:?}: {what}");
}

/// Whether `condition` came to hold within `deadline`.
pub(crate) fn within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// [`eventually`], leaving the thread to the runtime between two looks.
pub async fn eventually_async(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_waited_for() {
        let mut looks = 0;
        eventually("three looks", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: never")]
    async fn one_that_never_does_is_named() {
        eventually_async("never", Duration::from_millis(30), async || false).await;
    }
}
