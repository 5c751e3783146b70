//! What the gateway's log of calls says of the way it was called.

use crate::blows::RETRY_AFTER_S;
use serde_json::Value;

/// A call that was granted before a 429 was read may arrive so much later on a busy machine.
const ON_ITS_WAY_MS: i64 = 750;

/// What a process that was frozen, or a Redis that forgot, may be excused for.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    /// When processes were frozen, and when they went on.
    pub(crate) frozen: Vec<(i64, i64)>,
    /// When Redis forgot the call budget.
    pub(crate) forgotten: Vec<i64>,
}

/// Calls that came before a Retry-After had ended.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// By a process that was frozen between its permit and its call, or after Redis had forgotten who must wait.
    pub(crate) excused: u64,
    /// By one that knew.
    pub(crate) calls: u64,
}

/// Calls as the sandbox logged them: when, which, and how they were answered.
pub(crate) struct Calls(Vec<(i64, String, Option<i64>)>);

impl Calls {
    pub(crate) fn of(log: &Value) -> Self {
        let mut calls: Vec<_> = log
            .as_array()
            .expect("a list")
            .iter()
            .map(|call| {
                let operation = call["operation"].as_str().expect("a name").to_owned();
                (call["at_ms"].as_i64().expect("a time"), operation, call["status"].as_i64())
            })
            .collect();
        calls.sort();
        Self(calls)
    }

    pub(crate) fn early(&self, excuses: &Excuses) -> Early {
        let mut early = Early::default();
        let (mut told, mut until) = (i64::MIN, i64::MIN);
        for (at, _, status) in &self.0 {
            let at = *at;
            if at < until && at > told + ON_ITS_WAY_MS {
                let frozen = excuses.frozen.iter().any(|(from, to)| (*from..to + ON_ITS_WAY_MS).contains(&at));
                let forgotten = excuses.forgotten.iter().any(|forgot| (told - 1_000..=at).contains(forgot));
                *(if frozen || forgotten { &mut early.excused } else { &mut early.calls }) += 1;
            }
            if *status == Some(429) {
                if at >= until {
                    told = at;
                }
                until = until.max(at + RETRY_AFTER_S * 1_000);
            }
        }
        early
    }

    /// The longest that nothing was sent between these two moments.
    pub(crate) fn longest_silence_ms(&self, from: i64, to: i64) -> i64 {
        let sends = self.0.iter().filter(|(_, operation, _)| operation == "send" || operation == "bulk_send");
        let mut at: Vec<i64> = sends.map(|(at, ..)| *at).filter(|at| (from..=to).contains(at)).collect();
        at.push(to);
        at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(to - from)
    }
}
