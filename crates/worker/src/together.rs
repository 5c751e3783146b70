//! Doing for many at once what each of them needs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Work that costs little more for many than for one: a commit. Who comes while it is done for others is in the next round.
pub(crate) struct Together<T> {
    waiting: Mutex<Vec<T>>,
    turn: tokio::sync::Mutex<()>,
}

impl<T> Together<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// Has `all` done for this one and for those that wait with it; whoever gets the turn does it, and has each of them told. `None`:
    /// whoever did it was stopped, and nobody knows how far it came.
    pub(crate) async fn join<R, F: Future<Output = ()>>(
        &self,
        one: impl FnOnce(oneshot::Sender<R>) -> T,
        all: impl FnOnce(Vec<T>) -> F,
    ) -> Option<R> {
        let (tell, mut told) = oneshot::channel();
        self.waiting().push(one(tell));
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have taken this one along.
        match told.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {}
            done => return done.ok(),
        }
        let ones = std::mem::take(&mut *self.waiting());
        all(ones).await;
        told.try_recv().ok()
    }

    /// Keeps the next round off: who comes meanwhile is in it.
    pub(crate) async fn between(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::future::pending;
    use tokio::sync::Semaphore;

    type One = (u32, oneshot::Sender<u32>);

    async fn join<F: Future<Output = ()>>(
        together: &Together<One>,
        n: u32,
        all: impl FnOnce(Vec<One>) -> F,
    ) -> Option<u32> {
        together.join(|tell| (n, tell), all).await
    }

    async fn served(all: Vec<One>) {
        all.into_iter().for_each(|(n, tell)| assert!(tell.send(n * 10).is_ok()));
    }

    async fn never(_all: Vec<One>) {
        pending().await
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_is_served_with_all_who_wait() {
        let (together, go) = (Together::new(), Semaphore::new(0));
        let rounds = Mutex::new(Vec::new());
        let one = |n: u32| {
            let (rounds, go) = (&rounds, &go);
            join(&together, n, move |all| async move {
                go.acquire().await.unwrap().forget();
                rounds.lock().unwrap().push(all.len());
                served(all).await;
            })
        };
        let all = join_all((0..9).map(one));
        tokio::pin!(all);
        assert!(futures::poll!(&mut all).is_pending(), "the first round has begun with who was there");
        go.add_permits(2);
        assert_eq!(all.await, (0..9).map(|n| Some(n * 10)).collect::<Vec<_>>());
        assert_eq!(*rounds.lock().unwrap(), [1, 8]);
    }

    #[tokio::test]
    async fn who_was_taken_along_by_one_that_was_stopped_is_told() {
        let together = Together::new();
        let mut first = Box::pin(join(&together, 0, never));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(join(&together, 1, never));
        let mut third = Box::pin(join(&together, 2, served));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        // The second has the turn, took the third along, and is stopped as well.
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        assert_eq!(third.await, None);
        assert_eq!(join(&together, 3, served).await, Some(30));
    }
}
