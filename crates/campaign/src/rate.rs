//! How many texts may go out in a time: `100/min`.

/// A rate, as the time that each text takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds, at least 1.
    pub text_us: i64,
}

/// What is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate; write it as 100/min, 5/s or 2000/h")]
pub struct NoRate(String);

/// Texts of at most this long, or one, may go out together: few enough to be smooth, and enough for a bulk call.
const TOGETHER_US: i64 = 3_000_000;

impl Rate {
    /// Reads `N/s`, `N/min` or `N/h`.
    pub fn parse(text: &str) -> Result<Self, NoRate> {
        let wrong = || NoRate(text.to_owned());
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3_600,
            _ => return Err(wrong()),
        };
        let number: i64 = number.trim().parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(wrong)?;
        Ok(Self { text_us: (seconds * 1_000_000 / number).max(1) })
    }

    /// How long texts that go out together take at this rate, in microseconds, and how many these are.
    pub fn turn(self) -> (i64, usize) {
        let turn_us = TOGETHER_US.max(self.text_us);
        (turn_us, usize::try_from(turn_us / self.text_us).unwrap_or(1))
    }

    /// How many texts may go out now, and the moment up to which texts are spread once `taken` of them are taken. `spread_to`
    /// is that moment before; all in microseconds.
    ///
    /// Shape: in any span of time at most its share and three seconds' worth.
    pub fn allowed(self, spread_to: i64, now: i64) -> (i64, impl Fn(i64) -> i64) {
        let from = spread_to.max(now - TOGETHER_US.max(self.text_us));
        ((now - from).max(0) / self.text_us, move |taken| from + taken * self.text_us)
    }
}

impl std::fmt::Display for Rate {
    /// Texts a minute.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/min", (60_000_000 + self.text_us / 2) / self.text_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_nothing_else() {
        assert_eq!(
            ["5/s", "100/min", " 3600 / h "].map(|text| Rate::parse(text).unwrap().text_us),
            [200_000, 600_000, 1_000_000]
        );
        for text in ["", "100", "0/min", "-1/s", "5/day", "1.5/s"] {
            assert!(Rate::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_minute_has_more_than_its_share_and_three_seconds_worth() {
        let rate = Rate::parse("100/min").unwrap();
        for step in [100_000, 700_000, 1_000_000, 5_000_000] {
            let (mut spread_to, mut sent) = (0, 0);
            let begin = 1_000_000_000_000;
            for now in (begin..begin + 600_000_000).step_by(step) {
                let (allowed, after) = rate.allowed(spread_to, now);
                assert!(allowed <= 5, "{allowed} at once");
                spread_to = after(allowed);
                sent += allowed;
            }
            assert!((if step > 3_000_000 { 500 } else { 990 }..=1_005).contains(&sent), "{sent} in ten minutes");
        }
        let slow = Rate::parse("1/min").unwrap();
        assert_eq!(slow.allowed(0, 1_000_000_000).0, 1);
    }
}
