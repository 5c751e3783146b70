//! The call budget that all processes share: one pure step, served by Redis or in one process.
//!
//! The gateway counts calls in a fixed window that begins at the first call after the last window ended, and every call of
//! every process spends from it. [`step`] never grants more than the limit within one of its windows, keeps its window
//! ending no earlier than the gateway's, and serves the classes in order.
//!
//! Deliberately not here: the clock (milliseconds come in, of whichever clock serves all processes) and the waiting.
//! `gateway/src/budget.lua` is the same step for Redis; a test drives both with the same requests.

/// What a call is for, in the order in which calls are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallClass {
    /// Getting a token: without one nothing else goes.
    Auth,
    /// Finding out what happened to a send call whose outcome is unknown.
    Resolve,
    /// Sending.
    Send,
    /// Learning delivery statuses.
    Status,
}

impl CallClass {
    /// All classes, the first served first.
    pub const ALL: [Self; 4] = [Self::Auth, Self::Resolve, Self::Send, Self::Status];

    /// Its place in the order, from 0.
    pub fn rank(self) -> usize {
        match self {
            Self::Auth => 0,
            Self::Resolve => 1,
            Self::Send => 2,
            Self::Status => 3,
        }
    }
}

/// What the gateway allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls in one window. Collection: `X-RateLimit-Limit`, 1200.
    pub limit: u32,
    /// Length of a window. Laravel: one minute.
    pub window_ms: i64,
}

impl Limits {
    /// Calls of each window that only [`CallClass::Auth`] and [`CallClass::Resolve`] may use: the last 1 %.
    fn reserve(self) -> i64 {
        i64::from(self.limit) / 100
    }
}

/// Within this time after it was told to come back, a class is expected to; nobody below it is served before.
pub const PATIENCE_MS: i64 = 300;

/// How soon a class that waits for a higher one asks again.
const TURN_MS: i64 = 25;

/// What the budget remembers. Instants are milliseconds of its clock; all zero is a budget that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When the current window began; also its name. 0: there is none.
    pub window: i64,
    /// When it ends.
    pub ends: i64,
    /// Calls granted in it.
    pub granted: i64,
    /// Of these, calls whose answer has come.
    pub answered: i64,
    /// Most calls that may be granted in it, by what the gateway said remains.
    pub allowed: i64,
    /// The gateway's own limit as it last named it. 0: not heard yet.
    pub named_limit: i64,
    /// Nobody calls before this instant (429).
    pub stopped_until: i64,
    /// Until when each class that was told to wait is expected back, by rank.
    pub expected: [i64; 4],
}

/// What a process asks of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// May I make a call?
    Acquire {
        /// What for.
        class: CallClass,
    },
    /// The answer to a granted call has come.
    Feedback {
        /// The window in which the call was granted.
        window: i64,
        /// `X-RateLimit-Limit`.
        limit: Option<u32>,
        /// `X-RateLimit-Remaining`.
        remaining: Option<u32>,
        /// The answer was a 429: nobody calls for so long.
        stop_ms: Option<i64>,
    },
}

/// What the budget answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Make one call.
    Granted {
        /// To be named in the feedback.
        window: i64,
    },
    /// Ask again after so long; at least 1.
    Wait {
        /// Milliseconds.
        ms: i64,
    },
    /// The feedback was taken.
    Noted,
}

/// One step of the budget.
pub fn step(limits: Limits, state: State, now: i64, request: Request) -> (State, Reply) {
    match request {
        Request::Acquire { class } => acquire(limits, state, now, class),
        Request::Feedback { window, limit, remaining, stop_ms } => {
            (feedback(limits, state, now, window, limit, remaining, stop_ms), Reply::Noted)
        }
    }
}

fn acquire(limits: Limits, mut state: State, now: i64, class: CallClass) -> (State, Reply) {
    let rank = class.rank();
    if now < state.stopped_until {
        let ms = state.stopped_until - now;
        return wait(state, now, rank, ms);
    }
    // A clock that was set back must not stretch a window beyond its length.
    if now >= state.ends || now < state.window {
        state.window = now;
        state.ends = now + limits.window_ms;
        state.granted = 0;
        state.answered = 0;
        state.allowed = i64::from(limits.limit);
        if state.named_limit > 0 {
            state.allowed = state.allowed.min(state.named_limit);
        }
    }
    if (0..rank).any(|higher| state.expected[higher] > now) {
        return wait(state, now, rank, TURN_MS);
    }
    let reserve = if class <= CallClass::Resolve { 0 } else { limits.reserve() };
    if state.granted >= state.allowed - reserve {
        let ms = state.ends - now;
        return wait(state, now, rank, ms);
    }
    state.granted += 1;
    state.expected[rank] = 0;
    let window = state.window;
    (state, Reply::Granted { window })
}

fn wait(mut state: State, now: i64, rank: usize, ms: i64) -> (State, Reply) {
    state.expected[rank] = now + ms + PATIENCE_MS;
    (state, Reply::Wait { ms })
}

fn feedback(
    limits: Limits,
    mut state: State,
    now: i64,
    window: i64,
    limit: Option<u32>,
    remaining: Option<u32>,
    stop_ms: Option<i64>,
) -> State {
    if let Some(limit) = limit.filter(|&limit| limit > 0) {
        state.named_limit = i64::from(limit);
    }
    if let Some(ms) = stop_ms {
        state.stopped_until = state.stopped_until.max(now + ms);
    }
    if window != state.window || now >= state.ends {
        return state;
    }
    state.answered += 1;
    if state.answered == 1 {
        // This call stood in the gateway's window, so that window can't have begun later than now.
        state.ends = now + limits.window_ms;
    }
    if let Some(remaining) = remaining.filter(|_| stop_ms.is_none()) {
        // Calls without an answer yet may not be in the gateway's count: they spend from what remains.
        state.allowed = state.allowed.min(state.answered + i64::from(remaining));
    }
    state
}
