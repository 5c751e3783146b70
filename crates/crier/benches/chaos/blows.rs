//! What happens to a production, chosen by a seed.

use crate::Size;
use serde_json::{Value, json};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Kill,
    Freeze,
    FlushRedis,
    RestartRedis,
    RestartPostgres,
    BrownOut,
    Heal,
    Storm,
    RevokeToken,
    BurnToken,
}

impl Blow {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Kill => "kills",
            Self::Freeze => "freezes",
            Self::FlushRedis => "Redis flushed",
            Self::RestartRedis => "Redis restarted",
            Self::RestartPostgres => "Postgres restarted",
            Self::BrownOut => "brown-outs",
            Self::Heal => "brown-outs ended",
            Self::Storm => "429 storms",
            Self::RevokeToken => "tokens revoked",
            Self::BurnToken => "refresh tokens burned",
        }
    }
}

/// How long the gateway tells everybody to wait in a storm.
pub(crate) const RETRY_AFTER_S: i64 = 2;

/// How long a sending call is waited for.
pub(crate) const SEND_TIMEOUT_MS: u64 = 3_000;

/// For each 60 kills.
const EACH_60: [(Blow, u32); 8] = [
    (Blow::Kill, 60),
    (Blow::Freeze, 20),
    (Blow::FlushRedis, 3),
    (Blow::RestartRedis, 2),
    (Blow::RestartPostgres, 1),
    (Blow::Storm, 2),
    (Blow::RevokeToken, 2),
    (Blow::BurnToken, 1),
];

/// Blows from the beginning of one brown-out to the next. The gateway is well again for half of them.
const BROWN_OUT_EVERY: usize = 30;

/// All that happens, in order: the same for a seed, and each kind at least once.
pub(crate) fn plan(size: Size, dice: &mut Dice) -> Vec<Blow> {
    let mut blows: Vec<Blow> = EACH_60
        .iter()
        .flat_map(|(blow, each)| {
            let times = if *blow == Blow::Kill { size.kills } else { (size.kills * each / 60).max(1) };
            std::iter::repeat_n(*blow, times as usize)
        })
        .collect();
    for at in (1..blows.len()).rev() {
        blows.swap(at, dice.below(at + 1));
    }
    let brown_out = |nth: usize| [Blow::BrownOut, Blow::Heal].into_iter().nth(nth % 2);
    let halves = blows.chunks(BROWN_OUT_EVERY / 2).enumerate();
    halves.flat_map(|(nth, half)| brown_out(nth).into_iter().chain(half.iter().copied())).collect()
}

/// 30 % of the bulk calls go wrong in one of these ways.
pub(crate) fn brown_out() -> Value {
    let late = SEND_TIMEOUT_MS + 1_000;
    json!([
        {"operation": "bulk_send", "fault": "refuse_connection", "share": 0.05},
        {"operation": "bulk_send", "fault": "status", "status": 503, "share": 0.05},
        {"operation": "bulk_send", "fault": "process_then_fail", "status": 500, "share": 0.06},
        {"operation": "bulk_send", "fault": "process_part", "part": 0.5, "status": 500, "share": 0.04},
        {"operation": "bulk_send", "fault": "drop_answer", "share": 0.05},
        {"operation": "bulk_send", "fault": "cut_answer", "share": 0.02},
        {"operation": "bulk_send", "fault": "delay", "ms": late, "effect": "before", "share": 0.02},
        {"operation": "bulk_send", "fault": "delay", "ms": late, "effect": "after", "share": 0.02},
    ])
}

pub(crate) fn storm() -> Value {
    json!({"fault": "throttle", "ms": 1_500, "retry_after_s": RETRY_AFTER_S, "times": 1})
}

/// SplitMix64: enough to choose by, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}
