//! Doing for many at once what each of them needs.

use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Work that costs little more for many than for one: a commit. Who comes while it is done for others is in the next round.
pub(crate) struct Together<T, R> {
    waiting: Mutex<Vec<(T, oneshot::Sender<R>)>>,
    turn: tokio::sync::Mutex<()>,
    /// Whether it is done for one that was stopped before it was its turn, too.
    of_all: bool,
}

impl<T, R> Together<T, R> {
    /// What is done for whoever has come, even if he was stopped meanwhile.
    pub(crate) fn of_all() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::new(()), of_all: true }
    }

    /// What is done only for those who still wait for it.
    pub(crate) fn of_those_who_wait() -> Self {
        Self { of_all: false, ..Self::of_all() }
    }

    /// Has `all` done for this one and for those that wait with it; whoever gets the turn does it, and answers one result for each
    /// in their order. `None`: whoever did it was stopped, and nobody knows how far it came.
    pub(crate) async fn join<F: Future<Output = Vec<R>>>(&self, one: T, all: impl FnOnce(Vec<T>) -> F) -> Option<R> {
        let (tell, mut told) = oneshot::channel();
        self.waiting().push((one, tell));
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have taken this one along.
        match told.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {}
            done => return done.ok(),
        }
        let came = std::mem::take(&mut *self.waiting()).into_iter();
        let (ones, tell): (Vec<T>, Vec<_>) = came.filter(|(_, tell)| self.of_all || !tell.is_closed()).unzip();
        let done = all(ones).await;
        for (tell, done) in tell.into_iter().zip(done) {
            // Who does not wait any more has been stopped.
            let _ = tell.send(done);
        }
        told.try_recv().ok()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(T, oneshot::Sender<R>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    #[tokio::test]
    async fn who_comes_while_others_are_served_is_served_with_all_who_wait() {
        let (together, go) = (Together::of_all(), tokio::sync::Semaphore::new(0));
        let rounds = Mutex::new(Vec::new());
        let join = |n: u32| {
            let (rounds, go) = (&rounds, &go);
            together.join(n, move |all: Vec<u32>| async move {
                go.acquire().await.unwrap().forget();
                rounds.lock().unwrap().push(all.len());
                all.into_iter().map(|n| n * 10).collect()
            })
        };
        let all = join_all((0..9).map(join));
        tokio::pin!(all);
        assert!(futures::poll!(&mut all).is_pending(), "the first round has begun with who was there");
        go.add_permits(2);
        assert_eq!(all.await, (0..9).map(|n| Some(n * 10)).collect::<Vec<_>>());
        assert_eq!(*rounds.lock().unwrap(), [1, 8]);
    }

    #[tokio::test]
    async fn who_was_taken_along_by_one_that_was_stopped_is_told() {
        let together = Together::of_all();
        let never = |_: Vec<u32>| std::future::pending();
        let served = |all: Vec<u32>| std::future::ready(all);
        let mut first = Box::pin(together.join(0, never));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(together.join(1, never));
        let third = together.join(2, served);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        // The second has the turn, took the third along, and is stopped as well.
        let mut third = Box::pin(third);
        assert!(futures::poll!(&mut third).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        assert_eq!(third.await, None);
        assert_eq!(together.join(3, served).await, Some(3));
    }

    #[tokio::test]
    async fn who_was_stopped_before_the_turn_came_is_served_only_where_that_is_wanted() {
        for (together, served) in
            [(Together::of_all(), vec![vec![0], vec![1, 2]]), (Together::of_those_who_wait(), vec![vec![0], vec![2]])]
        {
            let (go, rounds) = (tokio::sync::Semaphore::new(0), Mutex::new(Vec::new()));
            let join = |n: u32| {
                let (go, rounds) = (&go, &rounds);
                together.join(n, move |all: Vec<u32>| async move {
                    go.acquire().await.unwrap().forget();
                    rounds.lock().unwrap().push(all.clone());
                    all
                })
            };
            let mut first = Box::pin(join(0));
            assert!(futures::poll!(&mut first).is_pending());
            let mut stopped = Box::pin(join(1));
            assert!(futures::poll!(&mut stopped).is_pending());
            drop(stopped);
            go.add_permits(2);
            assert_eq!(first.await, Some(0));
            assert_eq!(join(2).await, Some(2));
            assert_eq!(*rounds.lock().unwrap(), served);
        }
    }
}
