//! What a seed's world is like before anything goes wrong.

use crate::{fault::Fault, rng::Rng};
use campaign::resolve::OnAbsent;

/// A world and the list of what goes wrong in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it comes from.
    pub seed: u64,
    /// The campaigns, each with the place in the numbers of its first row, how many rows it has and which text.
    pub campaigns: Vec<NewCampaign>,
    /// Rows of a chunk.
    pub chunk_len: u32,
    /// Processes that send, and jobs that each works on at a time.
    pub workers: u32,
    /// Likewise.
    pub concurrency: u32,
    /// Processes that reconcile.
    pub reconcilers: u32,
    /// Most destinations of a call.
    pub batch_len_max: u32,
    /// How long the list may lag, in seconds.
    pub settle_s: u32,
    /// How late most texts are listed, in seconds.
    pub lag_s: u32,
    /// How many of a hundred texts are listed as late as `settle_s` allows.
    pub slow_percent: u32,
    /// How long a status stays pending at most.
    pub pending_s: u32,
    /// What is done about absent rows.
    pub on_absent: OnAbsent,
    /// Calls of ten seconds.
    pub budget: u32,
    /// The gateway's clock minus the ledger's, in seconds.
    pub skew_s: i32,
    /// How long an access token lives.
    pub token_life_s: u32,
    /// When faults stop.
    pub heal_s: u32,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// One campaign.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// When it is launched.
    pub at_s: u32,
    /// The first of its numbers.
    pub from: u32,
    /// Its rows; the numbers follow each other.
    pub rows: u32,
    /// Which text.
    pub text: u32,
    /// Higher goes first.
    pub priority: i32,
}

impl Scenario {
    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let settle_s = rng.of(40, 90);
        let mut campaigns = Vec::new();
        let (mut from, mut left) = (0, rng.of(80, 121));
        while left > 0 {
            let rows = if campaigns.len() == 2 { left } else { rng.of(10, 70).min(left) };
            // Often to numbers that another campaign has, and often with the same text.
            let shared = !campaigns.is_empty() && rng.percent(60);
            let start = if shared { from / 3 } else { from };
            let text = if rng.percent(50) { 0 } else { rng.of(0, 3) };
            let at_s = if campaigns.is_empty() { 0 } else { rng.of(0, 90) };
            campaigns.push(NewCampaign { at_s, from: start, rows, text, priority: i32::from(rng.percent(20)) });
            from = from.max(start + rows);
            left -= rows;
        }
        let on_absent = if rng.percent(75) { OnAbsent::ResendOnce } else { OnAbsent::Hold };
        let mut scenario = Self {
            seed,
            campaigns,
            chunk_len: rng.of(15, 45),
            workers: rng.of(1, 4),
            concurrency: rng.of(1, 3),
            reconcilers: if rng.percent(20) { 2 } else { 1 },
            batch_len_max: rng.pick(&[4, 8, 15, 25, 40]),
            settle_s,
            lag_s: rng.of(0, 6),
            slow_percent: rng.pick(&[0, 0, 5, 20, 60]),
            pending_s: rng.of(1, 30),
            on_absent,
            budget: rng.of(60, 200),
            skew_s: i32::try_from(rng.of(0, 1_201)).expect("small") - 600,
            token_life_s: rng.of(90, 900),
            heal_s: 0,
            faults: Vec::new(),
        };
        scenario.faults = Fault::list(&mut rng, &scenario);
        if rng.percent(20) {
            scenario.faults.extend(Fault::written(&mut rng, &scenario));
        }
        if rng.percent(10) {
            scenario.faults.push(Fault::restored(&mut rng, &scenario));
        }
        if rng.percent(6) {
            scenario.faults.extend(Fault::stopped(&mut rng));
        }
        scenario.heal_s = scenario.faults.iter().map(Fault::lasts_s).max().unwrap_or(0) + 240 + rng.of(0, 120);
        scenario
    }

    /// Whether the ledger is restored from a copy.
    pub(crate) fn is_restored(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::Restore { .. }))
    }

    /// Whether anybody writes to us: else nobody looks.
    pub(crate) fn is_written_to(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::Write { .. }))
    }

    /// The latest that a text takes effect after its call has ended, and that it is listed after that: together within
    /// `settle_s`, which is what is assumed of the gateway.
    pub(crate) fn late_s(&self) -> (u32, u32) {
        let room = self.settle_s - 8;
        (room / 2, room / 2)
    }
}
