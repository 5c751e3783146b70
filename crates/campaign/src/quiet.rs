//! When people may be texted: quiet hours and weekdays, by the clocks where they live.
//!
//! A person's zone is their country's. Of a country with several zones the text must be allowed in all of them; where the
//! country is not known, or none of the table, the campaign's own zone counts.

use crate::Region;
use jiff::{
    Timestamp, ToSpan, Zoned,
    civil::{Time, Weekday},
    tz::TimeZone,
};

/// Hours and days at which a campaign texts nobody.
#[derive(Clone, Debug)]
pub struct Hours {
    quiet: Option<(Time, Time)>,
    /// Monday first.
    days: [bool; 7],
    home: TimeZone,
}

/// Whether somebody may be texted at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Yes, until then.
    Open {
        /// The first moment at which they may not.
        until: Timestamp,
    },
    /// No, until then.
    Closed {
        /// The first moment at which they may; after [`NEVER_AFTER`] days without one, that moment.
        until: Timestamp,
    },
}

/// Hours of several zones may leave no moment at all: this many days later it is looked at again.
pub const NEVER_AFTER: i64 = 8;

/// Why hours can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoursError {
    /// Not a span of hours.
    #[error("{0:?} is no span of hours; write it as 21:00-08:00")]
    Quiet(String),
    /// Not days of the week.
    #[error("{0:?} names no days; write them as mon-fri or mon,wed,sat")]
    Weekdays(String),
    /// No such zone.
    #[error("there is no zone {0:?}")]
    Zone(String),
}

impl HoursError {
    /// The setting that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Quiet(_) => "quiet",
            Self::Weekdays(_) => "weekdays",
            Self::Zone(_) => "zone",
        }
    }
}

impl Hours {
    /// Reads `21:00-08:00` and `mon-fri`; `None` when neither is given. `zone` is an IANA name.
    pub fn parse(quiet: Option<&str>, weekdays: Option<&str>, zone: &str) -> Result<Option<Self>, HoursError> {
        if quiet.is_none() && weekdays.is_none() {
            return Ok(None);
        }
        let quiet = quiet.map(|text| span(text).ok_or_else(|| HoursError::Quiet(text.to_owned()))).transpose()?;
        let days = match weekdays {
            None => [true; 7],
            Some(text) => days(text).ok_or_else(|| HoursError::Weekdays(text.to_owned()))?,
        };
        let home = TimeZone::get(zone).map_err(|_| HoursError::Zone(zone.to_owned()))?;
        Ok(Some(Self { quiet, days, home }))
    }

    /// Whether somebody of this country may be texted `now`.
    pub fn window(&self, country: Option<Region>, now: Timestamp) -> Window {
        let zones = match country.map(zones_of) {
            Some(names) if !names.is_empty() => names.iter().filter_map(|name| TimeZone::get(name).ok()).collect(),
            _ => vec![self.home.clone()],
        };
        let closed_until =
            |at: Timestamp| zones.iter().filter_map(|zone| self.closed_until(&at.to_zoned(zone.clone()))).max();
        let Some(mut until) = closed_until(now) else {
            let ends = zones.iter().map(|zone| self.open_until(&now.to_zoned(zone.clone())));
            return Window::Open { until: ends.min().unwrap_or(now) };
        };
        let never = now + (NEVER_AFTER * 24).hours();
        while let Some(later) = closed_until(until) {
            if later >= never {
                return Window::Closed { until: never };
            }
            until = later;
        }
        Window::Closed { until }
    }

    /// When a closed moment may open in its zone; `None` when it is open.
    fn closed_until(&self, at: &Zoned) -> Option<Timestamp> {
        let tomorrow = || start_of(&at.tomorrow().unwrap_or_else(|_| at.clone()));
        if !self.allows(at.weekday()) {
            return Some(tomorrow());
        }
        let (from, to) = self.quiet?;
        let time = at.time();
        let (inside, next_day) =
            if from <= to { (from <= time && time < to, false) } else { (time >= from || time < to, time >= from) };
        if !inside {
            return None;
        }
        // Midnight first: the next day may be one on which nobody is texted.
        if next_day {
            return Some(tomorrow());
        }
        // On a night on which the clocks are set back the same time comes twice, and the second is quiet too.
        Some(moment(at, to).filter(|then| *then > at.timestamp()).unwrap_or_else(|| at.timestamp() + 1.minute()))
    }

    /// When an open moment closes in its zone; looked at again at the end of the day.
    fn open_until(&self, at: &Zoned) -> Timestamp {
        let tomorrow = start_of(&at.tomorrow().unwrap_or_else(|_| at.clone()));
        let quiet = self.quiet.and_then(|(from, to)| if from == to { None } else { moment(at, from) });
        quiet.filter(|quiet| *quiet > at.timestamp()).map_or(tomorrow, |quiet| quiet.min(tomorrow))
    }

    fn allows(&self, day: Weekday) -> bool {
        usize::try_from(day.to_monday_zero_offset()).ok().and_then(|day| self.days.get(day)).copied().unwrap_or(true)
    }
}

/// That time of the same day.
fn moment(day: &Zoned, time: Time) -> Option<Timestamp> {
    day.date().to_datetime(time).to_zoned(day.time_zone().clone()).ok().map(|zoned| zoned.timestamp())
}

fn start_of(day: &Zoned) -> Timestamp {
    day.start_of_day().map_or_else(|_| day.timestamp(), |start| start.timestamp())
}

fn span(text: &str) -> Option<(Time, Time)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
    let (from, to) = (time(from)?, time(to)?);
    (from != to).then_some((from, to))
}

fn days(text: &str) -> Option<[bool; 7]> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        NAMES.iter().position(|name| {
            text.get(..3) == Some(*name) && "mondaytuesdaywednesdaythursdayfridaysaturdaysunday".contains(&text)
        })
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        for offset in 0..=(to + 7 - from) % 7 {
            days[(from + offset) % 7] = true;
        }
    }
    Some(days)
}

/// The zones of a country's people; none when the table has not got it.
fn zones_of(country: Region) -> &'static [&'static str] {
    match country.to_string().as_str() {
        "GB" => &["Europe/London"],
        "IE" => &["Europe/Dublin"],
        "JE" => &["Europe/Jersey"],
        "GG" => &["Europe/Guernsey"],
        "IM" => &["Europe/Isle_of_Man"],
        "AT" => &["Europe/Vienna"],
        "BE" => &["Europe/Brussels"],
        "BG" => &["Europe/Sofia"],
        "CH" => &["Europe/Zurich"],
        "CY" => &["Asia/Nicosia"],
        "CZ" => &["Europe/Prague"],
        "DE" => &["Europe/Berlin"],
        "DK" => &["Europe/Copenhagen"],
        "EE" => &["Europe/Tallinn"],
        "ES" => &["Europe/Madrid", "Atlantic/Canary"],
        "FI" => &["Europe/Helsinki"],
        "FR" => &["Europe/Paris"],
        "GR" => &["Europe/Athens"],
        "HR" => &["Europe/Zagreb"],
        "HU" => &["Europe/Budapest"],
        "IS" => &["Atlantic/Reykjavik"],
        "IT" => &["Europe/Rome"],
        "LT" => &["Europe/Vilnius"],
        "LU" => &["Europe/Luxembourg"],
        "LV" => &["Europe/Riga"],
        "MT" => &["Europe/Malta"],
        "NL" => &["Europe/Amsterdam"],
        "NO" => &["Europe/Oslo"],
        "PL" => &["Europe/Warsaw"],
        "PT" => &["Europe/Lisbon", "Atlantic/Azores"],
        "RO" => &["Europe/Bucharest"],
        "SE" => &["Europe/Stockholm"],
        "SI" => &["Europe/Ljubljana"],
        "SK" => &["Europe/Bratislava"],
        "TR" => &["Europe/Istanbul"],
        "UA" => &["Europe/Kyiv"],
        "AE" => &["Asia/Dubai"],
        "BD" => &["Asia/Dhaka"],
        "CN" => &["Asia/Shanghai"],
        "EG" => &["Africa/Cairo"],
        "GH" => &["Africa/Accra"],
        "HK" => &["Asia/Hong_Kong"],
        "IL" => &["Asia/Jerusalem"],
        "IN" => &["Asia/Kolkata"],
        "JP" => &["Asia/Tokyo"],
        "KE" => &["Africa/Nairobi"],
        "KR" => &["Asia/Seoul"],
        "LK" => &["Asia/Colombo"],
        "MA" => &["Africa/Casablanca"],
        "MY" => &["Asia/Kuala_Lumpur"],
        "NG" => &["Africa/Lagos"],
        "NZ" => &["Pacific/Auckland"],
        "PH" => &["Asia/Manila"],
        "PK" => &["Asia/Karachi"],
        "SA" => &["Asia/Riyadh"],
        "SG" => &["Asia/Singapore"],
        "TH" => &["Asia/Bangkok"],
        "VN" => &["Asia/Ho_Chi_Minh"],
        "ZA" => &["Africa/Johannesburg"],
        "AU" => {
            &["Australia/Sydney", "Australia/Brisbane", "Australia/Adelaide", "Australia/Darwin", "Australia/Perth"]
        }
        "BR" => &["America/Sao_Paulo", "America/Manaus", "America/Rio_Branco", "America/Noronha"],
        "CA" => &[
            "America/St_Johns",
            "America/Halifax",
            "America/Toronto",
            "America/Winnipeg",
            "America/Edmonton",
            "America/Vancouver",
        ],
        "ID" => &["Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura"],
        "MX" => &["America/Cancun", "America/Mexico_City", "America/Hermosillo", "America/Tijuana"],
        "US" => &[
            "America/New_York",
            "America/Chicago",
            "America/Denver",
            "America/Phoenix",
            "America/Los_Angeles",
            "America/Anchorage",
            "Pacific/Honolulu",
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(quiet: Option<&str>, weekdays: Option<&str>) -> Hours {
        Hours::parse(quiet, weekdays, "Europe/London").unwrap().unwrap()
    }

    fn region(code: &str) -> Option<Region> {
        Some(Region::parse(code).unwrap())
    }

    /// `+` open or `-` closed, and until when.
    fn at(hours: &Hours, country: &str, now: &str) -> String {
        match hours.window(region(country), now.parse().unwrap()) {
            Window::Open { until } => format!("+{until}"),
            Window::Closed { until } => format!("-{until}"),
        }
    }

    #[test]
    fn a_night_spans_midnight_and_its_ends_are_exact() {
        let night = hours(Some("21:00-08:00"), None);
        assert_eq!(at(&night, "GB", "2026-01-10T20:59:59Z"), "+2026-01-10T21:00:00Z");
        assert_eq!(at(&night, "GB", "2026-01-10T21:00:00Z"), "-2026-01-11T08:00:00Z");
        assert_eq!(at(&night, "GB", "2026-01-11T00:00:00Z"), "-2026-01-11T08:00:00Z");
        assert_eq!(at(&night, "GB", "2026-01-11T07:59:59Z"), "-2026-01-11T08:00:00Z");
        assert_eq!(at(&night, "GB", "2026-01-11T08:00:00Z"), "+2026-01-11T21:00:00Z");
        let noon = hours(Some("12:00-13:30"), None);
        assert_eq!(at(&noon, "GB", "2026-01-10T12:30:00Z"), "-2026-01-10T13:30:00Z");
    }

    #[test]
    fn the_recipients_clocks_count() {
        let night = hours(Some("21:00-08:00"), None);
        assert_eq!(at(&night, "DE", "2026-01-10T20:30:00Z"), "-2026-01-11T07:00:00Z");
        assert_eq!(at(&night, "GB", "2026-07-10T20:30:00Z"), "-2026-07-11T07:00:00Z");
        // All of America: from Hawaii's morning to New York's evening.
        assert_eq!(at(&night, "US", "2026-01-10T14:00:00Z"), "-2026-01-10T18:00:00Z");
        assert_eq!(at(&night, "US", "2026-01-10T18:00:00Z"), "+2026-01-11T02:00:00Z");
        let unknown = night.window(None, "2026-01-10T22:00:00Z".parse().unwrap());
        assert_eq!(unknown, Window::Closed { until: "2026-01-11T08:00:00Z".parse().unwrap() });
    }

    #[test]
    fn weekends_are_waited_out_with_the_night_after() {
        let office = hours(Some("18:00-09:00"), Some("mon-fri"));
        assert_eq!(at(&office, "GB", "2026-01-09T17:00:00Z"), "+2026-01-09T18:00:00Z");
        assert_eq!(at(&office, "GB", "2026-01-09T18:00:00Z"), "-2026-01-12T09:00:00Z");
        assert_eq!(at(&office, "GB", "2026-01-10T12:00:00Z"), "-2026-01-12T09:00:00Z");
        let weekend = hours(None, Some("sat, Sunday"));
        assert_eq!(at(&weekend, "GB", "2026-01-09T23:59:59Z"), "-2026-01-10T00:00:00Z");
        assert_eq!(at(&hours(None, Some("fri-mon")), "GB", "2026-01-13T10:00:00Z"), "-2026-01-16T00:00:00Z");
    }

    #[test]
    fn clock_changes_shift_the_morning_and_end_in_it() {
        let night = hours(Some("21:00-08:00"), None);
        assert_eq!(at(&night, "GB", "2026-03-28T22:00:00Z"), "-2026-03-29T07:00:00Z");
        assert_eq!(at(&night, "GB", "2026-10-24T22:00:00Z"), "-2026-10-25T08:00:00Z");
        // An end that the clocks skip is the moment after, and one that they show twice is reached.
        let late = hours(Some("23:00-01:30"), None);
        for (now, by) in
            [("2026-03-29T00:10:00Z", "2026-03-29T01:30:00Z"), ("2026-10-25T00:10:00Z", "2026-10-25T01:30:00Z")]
        {
            let Window::Closed { until } = late.window(region("GB"), now.parse().unwrap()) else {
                panic!("{now} is quiet")
            };
            assert!(until <= by.parse().unwrap(), "{until}");
            assert!(matches!(late.window(region("GB"), until), Window::Open { .. }));
        }
    }

    #[test]
    fn whatever_closes_opens_at_a_moment_that_is_open() {
        let all =
            [hours(Some("21:00-08:00"), Some("mon-fri")), hours(Some("08:00-21:00"), None), hours(None, Some("tue"))];
        for hours in all {
            for country in ["GB", "US", "AU", "NZ", "BR", "IE", "AQ"].iter().filter_map(|code| Region::parse(code).ok())
            {
                let mut now: Timestamp = "2026-03-20T00:00:00Z".parse().unwrap();
                for _ in 0..400 {
                    match hours.window(Some(country), now) {
                        Window::Open { until } => assert!(until > now),
                        Window::Closed { until } => {
                            assert!(until > now);
                            let never = now + (NEVER_AFTER * 24).hours();
                            let open = matches!(hours.window(Some(country), until), Window::Open { .. });
                            assert!(open || until == never, "{country} at {now}: {until}");
                        }
                    }
                    now += 37.minutes();
                }
            }
        }
    }

    #[test]
    fn what_is_no_span_and_no_day_is_refused() {
        for quiet in ["", "21:00", "21:00-21:00", "25:00-08:00", "9-17h"] {
            assert!(matches!(Hours::parse(Some(quiet), None, "Europe/London"), Err(HoursError::Quiet(_))), "{quiet:?}");
        }
        for days in ["", "weekdays", "mo", "mon-", "fri-day"] {
            assert!(
                matches!(Hours::parse(None, Some(days), "Europe/London"), Err(HoursError::Weekdays(_))),
                "{days:?}"
            );
        }
        assert!(Hours::parse(None, None, "Nowhere/Land").unwrap().is_none());
    }

    #[test]
    fn every_zone_of_the_table_exists() {
        for a in 'A'..='Z' {
            for b in 'A'..='Z' {
                let Ok(region) = Region::parse(&format!("{a}{b}")) else { continue };
                for zone in zones_of(region) {
                    assert!(TimeZone::get(zone).is_ok(), "{zone}");
                }
            }
        }
    }
}
