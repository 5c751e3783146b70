//! British mobile numbers, which nearly every file is full of, read without their plan.
//!
//! Whether one is in use hangs on its first five digits alone: the plan is asked once for each of these, and its answer kept.
//! It takes a tenth of the time. What is spelt in any other way, or is not in use, goes the long way and gets its reason there.

use super::{Msisdn, Parsed, Region};
use std::sync::atomic::{AtomicU8, Ordering};

/// By the four digits behind the 7: 0 was never asked, 1 is in use, 2 is not.
static PREFIXES: [AtomicU8; 10_000] = [const { AtomicU8::new(0) }; 10_000];

/// Reads plain digits that can only be a British mobile number in use; `ask` is the long way. `None` says nothing.
pub(super) fn read(input: &str, region: Region, ask: impl FnOnce(&str) -> bool) -> Option<Parsed> {
    let (national, repaired) = match (input.len(), region == Region::GB) {
        (13, _) => (input.strip_prefix("+44")?, false),
        (12, true) => (input.strip_prefix("44")?, false),
        (11, true) => (input.strip_prefix('0')?, false),
        (10, true) => (input, true),
        _ => return None,
    };
    if !national.starts_with('7') || !national.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let prefix = &PREFIXES[national[1..5].parse::<usize>().ok()?];
    let in_use = match prefix.load(Ordering::Relaxed) {
        0 => {
            let in_use = ask(&format!("+44{national}"));
            prefix.store(if in_use { 1 } else { 2 }, Ordering::Relaxed);
            in_use
        }
        known => known == 1,
    };
    let msisdn = Msisdn::from_digits(440_000_000_000 + national.parse::<u64>().ok()?)?;
    in_use.then_some(Parsed { msisdn, repaired })
}
