//! Who goes next: all tasks of all processes on one thread, in an order that the seed gives.
//!
//! While a statement is in flight nobody but its task goes on, and virtual time stands still. When everybody waits for
//! virtual things, the runtime, whose clock is paused, moves it on to the next of them.

use crate::world::{Sim, Task};
use std::{
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};
use tokio::time::Instant;

/// A statement that takes this long of the machine's time will never end.
const STUCK: Duration = Duration::from_secs(20);

const YIELDS: u32 = 20;

struct Flag {
    woken: AtomicBool,
    /// Woken by the database's thread. Its last word may come when the task has long heard what it waited for: only who has
    /// a statement in flight listens, or two runs would differ.
    answered: AtomicBool,
    driver: Arc<Driver>,
}

struct Driver {
    thread: Thread,
    /// The runtime's waker, while the driver waits for its clock.
    outer: Mutex<Option<Waker>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if thread::current().id() != self.driver.thread.id() {
            self.answered.store(true, Ordering::Release);
            self.driver.thread.unpark();
            return;
        }
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(outer) = self.driver.outer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            outer.wake();
        }
    }
}

impl Flag {
    /// Waits for the database, which is at it in a thread of its own, most often on the same core: leaving that to it for a
    /// moment costs less than to fall asleep and be woken.
    fn wait(&self, seed: u64) {
        let is_awake = || self.answered.swap(false, Ordering::AcqRel) || self.woken.load(Ordering::Acquire);
        for _ in 0..YIELDS {
            if is_awake() {
                return;
            }
            thread::yield_now();
        }
        let since = std::time::Instant::now();
        while !is_awake() {
            assert!(since.elapsed() < STUCK, "a statement does not end; seed {seed}");
            thread::park_timeout(STUCK);
        }
    }
}

struct Actor {
    process: usize,
    task: Task,
    flag: Arc<Flag>,
    waker: Waker,
}

/// Runs the world until it is over.
pub(crate) async fn drive(sim: Rc<Sim>, restart: impl Fn(&Sim, usize)) {
    let driver = Arc::new(Driver { thread: thread::current(), outer: Mutex::default() });
    let mut actors: Vec<Option<Actor>> = Vec::new();
    let mut thaw: Option<(Instant, std::pin::Pin<Box<tokio::time::Sleep>>)> = None;
    let run = poll_fn(move |cx: &mut Context<'_>| {
        loop {
            let crashed: Vec<usize> = std::mem::take(&mut *sim.crashed.borrow_mut());
            for process in crashed {
                for actor in &mut actors {
                    if actor.as_ref().is_some_and(|actor| actor.process == process) {
                        // Its locks go with it.
                        drop(actor.take());
                    }
                }
                sim.new_tasks.borrow_mut().retain(|(of, _)| *of != process);
                sim.note("crashed", &[i64::try_from(process).unwrap_or(0)], String::new);
                restart(&sim, process);
            }
            for (process, task) in std::mem::take(&mut *sim.new_tasks.borrow_mut()) {
                let flag = Arc::new(Flag {
                    woken: AtomicBool::new(true),
                    answered: AtomicBool::new(false),
                    driver: Arc::clone(&driver),
                });
                let waker = Waker::from(Arc::clone(&flag));
                actors.push(Some(Actor { process, task, flag, waker }));
            }
            if sim.over.get() || sim.violation.borrow().is_some() {
                actors.clear();
                return Poll::Ready(());
            }
            let next = match sim.holder.get() {
                Some(holder) => {
                    if let Some(actor) = &actors[holder] {
                        actor.flag.wait(sim.scenario.seed);
                    }
                    holder
                }
                None => {
                    let now = Instant::now();
                    let (mut ready, mut earliest) = (Vec::new(), None::<Instant>);
                    {
                        let mut processes = sim.processes.borrow_mut();
                        for (at, actor) in actors.iter().enumerate() {
                            let Some(actor) = actor else { continue };
                            if !actor.flag.woken.load(Ordering::Acquire) {
                                continue;
                            }
                            let process = &mut processes[actor.process];
                            match process.frozen_until {
                                Some(until) if until > now && !sim.healed.get() => {
                                    earliest = Some(earliest.map_or(until, |earliest| earliest.min(until)));
                                }
                                _ => {
                                    process.frozen_until = None;
                                    ready.push(at);
                                }
                            }
                        }
                    }
                    if ready.is_empty() {
                        if let Some(until) = earliest {
                            // Whoever is frozen goes on when its time has come.
                            if thaw.as_ref().is_none_or(|(at, _)| *at != until) {
                                thaw = Some((until, Box::pin(tokio::time::sleep_until(until))));
                            }
                            if let Some((_, sleep)) = &mut thaw
                                && sleep.as_mut().poll(cx).is_ready()
                            {
                                thaw = None;
                                continue;
                            }
                        }
                        *driver.outer.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                        // What the runtime's own tasks do is nobody's.
                        sim.running.set(0);
                        return Poll::Pending;
                    }
                    ready.into_iter().min_by_key(|actor| sim.turn_of(*actor)).expect("not empty")
                }
            };
            let Some(actor) = &mut actors[next] else { continue };
            actor.flag.woken.store(false, Ordering::Release);
            sim.running.set(actor.process);
            sim.task.set(next);
            if actor.task.as_mut().poll(&mut Context::from_waker(&actor.waker)).is_ready() {
                actors[next] = None;
            }
        }
    });
    tokio::task::unconstrained(run).await;
}
