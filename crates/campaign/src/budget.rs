//! The call budget that all processes share: one pure step, served by Redis or in one process.
//!
//! The gateway counts calls in a fixed window that begins at the first call after the last window ended, and every call of
//! every process spends from it. [`step`] keeps its own windows so that one never reaches over into two of the gateway's:
//! the first answer in a window says when the gateway's ends at the latest, the window's beginning when it ends at the
//! earliest, and between the two nobody calls. Calls that are under way then are counted in both. So the gateway never
//! counts more than its limit, as long as no call takes longer than a window. Classes are served in order.
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

    /// Calls of each window that are for sending and for statuses.
    pub fn for_sending(self) -> i64 {
        i64::from(self.limit) - self.reserve()
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
    /// From here on the gateway's window may be the next one: no more grants in this.
    pub closes: i64,
    /// When the next window may begin: by then the gateway's has ended.
    pub ends: i64,
    /// Calls granted in it.
    pub granted: i64,
    /// Of these, calls that were over before it closed.
    pub answered: i64,
    /// Calls of the window before that were not over when that closed: the gateway may count them in this one.
    pub carried: i64,
    /// Most calls in it, by what the gateway said remains.
    pub allowed: i64,
    /// 1 once an answer has fixed `ends`.
    pub anchored: i64,
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
    /// A granted call is over; without `limit` and `remaining` when there was no answer.
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
        state = next_window(limits, state, now);
    }
    if (0..rank).any(|higher| state.expected[higher] > now) {
        return wait(state, now, rank, TURN_MS);
    }
    let reserve = if class <= CallClass::Resolve { 0 } else { limits.reserve() };
    if now >= state.closes || state.granted + state.carried >= state.allowed - reserve {
        let ms = state.ends - now;
        return wait(state, now, rank, ms);
    }
    state.granted += 1;
    state.expected[rank] = 0;
    let window = state.window;
    (state, Reply::Granted { window })
}

fn next_window(limits: Limits, old: State, now: i64) -> State {
    let follows = old.window > 0 && now >= old.window && now < old.ends + limits.window_ms;
    let carried = if follows { (old.granted - old.answered).max(0) } else { 0 };
    let limit = i64::from(limits.limit);
    State {
        window: now,
        // A call that was still under way may have begun the gateway's window as soon as the old one closed.
        closes: if carried > 0 { old.closes + limits.window_ms } else { now + limits.window_ms },
        ends: now + limits.window_ms,
        granted: 0,
        answered: 0,
        carried,
        allowed: if old.named_limit > 0 { limit.min(old.named_limit) } else { limit },
        anchored: 0,
        ..old
    }
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
    if now < state.closes {
        state.answered += 1;
    }
    if remaining.is_some() && state.anchored == 0 {
        // This call stood in the gateway's window, so that window can't have begun later than now.
        state.anchored = 1;
        state.ends = now + limits.window_ms;
    }
    if let Some(remaining) = remaining.filter(|_| stop_ms.is_none()) {
        // Calls that are not over yet may not be in the gateway's count: they spend from what remains.
        state.allowed = state.allowed.min(state.answered + i64::from(remaining));
    }
    state
}

#[cfg(test)]
mod tests;
