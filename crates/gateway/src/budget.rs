//! The call budget of all processes: [`campaign::budget::step`] in this process, or the same step as a script on Redis.
//!
//! Nothing is called without a grant: while Redis can't be reached, callers wait.

use crate::patience::Patience;
use campaign::budget::{CallClass, Limits, Reply, Request, State, step};
use redis::aio::ConnectionManager;
use std::{
    fmt,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

static SCRIPT: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(include_str!("budget/step.lua")));

/// The longest one asks Redis for an answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle on the call budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    limits: Limits,
    place: Place,
}

#[derive(Clone)]
enum Place {
    InProcess {
        state: Arc<Mutex<State>>,
        began: Instant,
    },
    Shared {
        connection: ConnectionManager,
        key: Arc<str>,
        down: Arc<AtomicBool>,
        /// Until when a 429 that this process heard stops everybody. Redis is told, and may forget.
        stopped: Arc<Mutex<Option<Instant>>>,
    },
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of this process alone: `limit` calls in each `window`.
    pub fn in_process(limit: u32, window: Duration) -> Self {
        let place = Place::InProcess { state: Arc::default(), began: Instant::now() };
        Self { limits: limits(limit, window), place }
    }

    /// The budget of all processes that name the same Redis and `key`.
    pub fn shared(connection: ConnectionManager, key: &str, limit: u32, window: Duration) -> Self {
        let place = Place::Shared { connection, key: key.into(), down: Arc::default(), stopped: Arc::default() };
        Self { limits: limits(limit, window), place }
    }

    /// Forgets everything, as Redis does when it is flushed.
    #[cfg(feature = "simulated")]
    pub fn simulated_flush(&self) {
        if let Place::InProcess { state, .. } = &self.place {
            *state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
        }
    }

    /// Waits until a call of this class may be made; the answer names the window for [`Self::feedback`]. Cancel-safe.
    pub async fn acquire(&self, class: CallClass) -> i64 {
        let mut patience = Patience::endless();
        loop {
            match self.ask(Request::Acquire { class }, None).await {
                Ok(Reply::Granted { window }) => match self.still_stopped() {
                    None => return window,
                    Some(left) => {
                        // Redis was emptied, or was away when it was told.
                        self.tell_to_stop(window, left).await;
                        tokio::time::sleep(left).await;
                    }
                },
                Ok(Reply::Wait { ms }) => {
                    patience = Patience::endless();
                    tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(1).max(1))).await;
                }
                Ok(Reply::Noted) | Err(Unreachable) => {
                    patience.pause().await;
                }
            }
        }
    }

    /// How long this process still has to heed a 429 that it heard itself.
    fn still_stopped(&self) -> Option<Duration> {
        let Place::Shared { stopped, .. } = &self.place else { return None };
        let until = (*stopped.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    async fn tell_to_stop(&self, window: i64, left: Duration) {
        let stop_ms = Some(i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 4));
        let _noted = self.ask(Request::Feedback { window, limit: None, remaining: None, stop_ms }, None).await;
    }

    /// Tells that a granted call is over, and what its answer said about the limit. Lost feedback costs at most a 429.
    pub async fn feedback(&self, heard: Heard) {
        if let (Place::Shared { stopped, .. }, Some(stop)) = (&self.place, heard.stop) {
            let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            *stopped = (*stopped).max(Instant::now().checked_add(stop));
        }
        let request = Request::Feedback {
            window: heard.window,
            limit: heard.limit,
            remaining: heard.remaining,
            stop_ms: heard.stop.map(|stop| i64::try_from(stop.as_millis()).unwrap_or(i64::MAX / 4)),
        };
        // The reply says nothing; a Redis that is down was reported.
        let _noted = self.ask(request, None).await;
    }

    /// Calls that may still be made in the current window, and those that a whole one allows; `None` while Redis can't be
    /// asked.
    pub async fn left(&self) -> Option<(u64, u64)> {
        let (state, now) = match &self.place {
            Place::InProcess { state, began } => {
                let now = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX / 4) + 1;
                (*state.lock().unwrap_or_else(PoisonError::into_inner), now)
            }
            Place::Shared { connection, key, .. } => {
                let mut connection = connection.clone();
                let mut asked = redis::pipe();
                const FIELDS: [&str; 7] =
                    ["ends", "closes", "granted", "carried", "allowed", "named_limit", "stopped_until"];
                asked.cmd("TIME").cmd("HMGET").arg(&**key).arg(&FIELDS);
                let asked = asked.query_async::<((i64, i64), Vec<Option<i64>>)>(&mut connection);
                let ((secs, micros), found) = tokio::time::timeout(REDIS_TIMEOUT, asked).await.ok()?.ok()?;
                let field = |at: usize| found.get(at).copied().flatten().unwrap_or(0);
                let state = State {
                    ends: field(0),
                    closes: field(1),
                    granted: field(2),
                    carried: field(3),
                    allowed: field(4),
                    named_limit: field(5),
                    stopped_until: field(6),
                    ..State::default()
                };
                (state, secs * 1000 + micros / 1000)
            }
        };
        Some(left(self.limits, &state, now))
    }

    /// Length of a window.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.limits.window_ms).unwrap_or(0))
    }

    async fn ask(&self, request: Request, at: Option<i64>) -> Result<Reply, Unreachable> {
        match &self.place {
            Place::InProcess { state, began } => {
                let now = at.unwrap_or_else(|| i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX / 4) + 1);
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let (next, reply) = step(self.limits, *state, now, request);
                *state = next;
                Ok(reply)
            }
            Place::Shared { connection, key, down, .. } => {
                let mut connection = connection.clone();
                let mut invocation = SCRIPT.prepare_invoke();
                invocation.key(&**key).arg(self.limits.limit).arg(self.limits.window_ms).arg(or_empty(at));
                match request {
                    Request::Acquire { class } => invocation.arg("acquire").arg(class.rank()),
                    Request::Feedback { window, limit, remaining, stop_ms } => invocation
                        .arg("feedback")
                        .arg(window)
                        .arg(or_empty(limit))
                        .arg(or_empty(remaining))
                        .arg(or_empty(stop_ms)),
                };
                let asked = invocation.invoke_async::<(String, i64)>(&mut connection);
                let reply = match tokio::time::timeout(REDIS_TIMEOUT, asked).await {
                    Ok(Ok((word, value))) => Ok(match word.as_str() {
                        "granted" => Reply::Granted { window: value },
                        "wait" => Reply::Wait { ms: value },
                        _ => Reply::Noted,
                    }),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                };
                match reply {
                    Ok(reply) => {
                        if down.swap(false, Ordering::Relaxed) {
                            tracing::info!("Redis answers again: calls go on");
                        }
                        Ok(reply)
                    }
                    Err(error) => {
                        if !down.swap(true, Ordering::Relaxed) {
                            tracing::warn!(%error, "Redis can't be asked for the call budget: no call is made until it can");
                        }
                        Err(Unreachable)
                    }
                }
            }
        }
    }
}

fn left(limits: Limits, state: &State, now: i64) -> (u64, u64) {
    let named = Some(state.named_limit).filter(|named| *named > 0).unwrap_or(i64::MAX);
    let limit = i64::from(limits.limit).min(named);
    let left = if now < state.stopped_until {
        0
    } else if now >= state.ends {
        limit
    } else if now >= state.closes {
        0
    } else {
        state.allowed - state.granted - state.carried
    };
    (left.max(0).unsigned_abs(), limit.max(0).unsigned_abs())
}

/// What an answer said about the limit.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// The window in which its call was granted.
    pub window: i64,
    /// `X-RateLimit-Limit`.
    pub limit: Option<u32>,
    /// `X-RateLimit-Remaining`.
    pub remaining: Option<u32>,
    /// It was a 429: nobody calls for so long.
    pub stop: Option<Duration>,
}

/// Redis can't be asked now.
#[derive(Debug)]
struct Unreachable;

fn limits(limit: u32, window: Duration) -> Limits {
    Limits { limit, window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX / 4).max(1) }
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests;
