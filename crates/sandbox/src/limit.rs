//! The call limit: Laravel's fixed window, and the 429 storms that a fault starts.

use crate::clock::Millis;

/// What one call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go on; this many calls are left in the window.
    Admitted { remaining: u32 },
    /// 429; come back after this many seconds.
    Throttled { retry_after_s: i64 },
}

/// One user's window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    ends: Millis,
    used: u32,
    storm_ends: Millis,
    storm_retry_after_s: i64,
    told_to_wait_until: Millis,
}

impl Window {
    /// From now on, and for `ms`, every call is refused.
    pub(crate) fn storm(&mut self, now: Millis, ms: i64, retry_after_s: i64) {
        self.storm_ends = now.saturating_add(ms);
        self.storm_retry_after_s = retry_after_s;
    }

    /// True while a `Retry-After` that was handed out still runs.
    pub(crate) fn too_early(&self, now: Millis) -> bool {
        now < self.told_to_wait_until
    }

    /// Counts one call. The window starts at its first call; refused calls do not count, as in Laravel.
    pub(crate) fn admit(&mut self, now: Millis, limit: Option<u32>, otherwise: u32, window_ms: i64) -> Admission {
        if now < self.storm_ends {
            return self.refuse(now, self.storm_retry_after_s);
        }
        let Some(limit) = limit else { return Admission::Admitted { remaining: otherwise.saturating_sub(1) } };
        if now >= self.ends {
            self.ends = now.saturating_add(window_ms);
            self.used = 0;
        }
        if self.used >= limit {
            let left_ms = self.ends - now;
            return self.refuse(now, (left_ms + 999) / 1000);
        }
        self.used += 1;
        Admission::Admitted { remaining: limit - self.used }
    }

    fn refuse(&mut self, now: Millis, retry_after_s: i64) -> Admission {
        self.told_to_wait_until = self.told_to_wait_until.max(now.saturating_add(retry_after_s.saturating_mul(1000)));
        Admission::Throttled { retry_after_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_fixed_and_starts_at_its_first_call() {
        let mut window = Window::default();
        let mut at = |now| window.admit(now, Some(2), 2, 1000);
        assert_eq!(at(10_000), Admission::Admitted { remaining: 1 });
        assert_eq!(at(10_900), Admission::Admitted { remaining: 0 });
        assert_eq!(at(10_999), Admission::Throttled { retry_after_s: 1 });
        assert_eq!(at(11_000), Admission::Admitted { remaining: 1 });
    }

    #[test]
    fn a_storm_refuses_all_and_then_ends() {
        let mut window = Window::default();
        window.storm(0, 500, 3);
        assert_eq!(window.admit(499, None, 1200, 1000), Admission::Throttled { retry_after_s: 3 });
        assert!(window.too_early(3498) && !window.too_early(3499));
        assert_eq!(window.admit(500, None, 1200, 1000), Admission::Admitted { remaining: 1199 });
    }
}
