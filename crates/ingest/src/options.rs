//! What flags and `NAME.toml` say about a file.

use crate::{
    columns::Columns,
    refusal::Refusal,
    source::{file_name, open_regular},
    times::{Bound, Times},
};
use campaign::{
    Money, Region, SenderId,
    outcome::fit_to_keep,
    quiet::{Hours, HoursError},
    rate::{NoRate, Rate},
    template::Template,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::{io::Read, path::Path};

const MAX_SEGMENTS: u32 = 4;
const SETTINGS_FILE_MAX: u64 = 64 * 1024;

/// Values that hold for all rows of a file, unless a row's own cell says otherwise.
///
/// The same keys stand in `NAME.toml` beside `NAME.csv`; what is set by flags wins over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Who the texts are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The text; `{{column}}` is filled from the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Name of the campaign; the file's name unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// Not before; RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` in `zone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_at: Option<String>,
    /// Not after; like `send_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// How numbers without a country code are read; GB unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Zone of times that name none; Europe/London unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Higher goes first; 0 unless set. In a file also `high`, `normal` or `low`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "priority_as_written")]
    pub priority: Option<i32>,
    /// Hours in which nobody is texted, as `21:00-08:00`, by the clocks of the recipient's country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// Days on which people are texted, as `mon-fri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekdays: Option<String>,
    /// Most texts in a time, as `100/min`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Texts with more segments are rejected; 4 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_segments: Option<u32>,
    /// Encoding of a file that is not Unicode, as `windows-1252`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The file is refused if it costs more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Money>,
    /// The file is refused unless what this plan promised still holds; see [`PlanId`](crate::PlanId).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_plan: Option<String>,
}

/// Reads a priority: `high`, `normal`, `low` or a number.
///
/// # Errors
/// It is none of these.
pub fn parse_priority(text: &str) -> Result<i32, String> {
    match text.trim() {
        "high" => Ok(100),
        "normal" => Ok(0),
        "low" => Ok(-100),
        number => number.parse().map_err(|_| format!("{text:?} is no priority; write high, normal, low or a number")),
    }
}

fn priority_as_written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i32),
        Name(String),
    }
    Ok(match Option::<Written>::deserialize(deserializer)? {
        None => None,
        Some(Written::Number(number)) => Some(number),
        Some(Written::Name(name)) => Some(parse_priority(&name).map_err(D::Error::custom)?),
    })
}

impl Options {
    /// Whether the file is launched on conditions that a survey must show to hold.
    pub fn has_conditions(&self) -> bool {
        self.max_cost.is_some() || self.require_plan.is_some()
    }

    /// Reads `NAME.toml` beside `NAME.csv`; `None` if there is none.
    pub fn beside(path: &Path) -> Result<Option<Self>, Refusal> {
        let path = path.with_extension("toml");
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(None);
        }
        let (file, metadata) = open_regular(&path)?;
        let wrong = |problem| Refusal::SettingsFile { file: file_name(&path), problem };
        // Half of it would be other settings.
        if metadata.len() > SETTINGS_FILE_MAX {
            return Err(wrong(format!("it is longer than {} KiB", SETTINGS_FILE_MAX / 1024)));
        }
        let mut text = String::new();
        file.take(SETTINGS_FILE_MAX)
            .read_to_string(&mut text)
            .map_err(|source| Refusal::Unreadable { file: file_name(&path), source })?;
        let text = text.trim_start_matches('\u{feff}');
        toml::from_str(text).map(Some).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            wrong(format!("line {line}: {}", fit_to_keep(error.message(), "")))
        })
    }

    /// These, and the other's where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            sender: self.sender.or(other.sender),
            text: self.text.or(other.text),
            campaign: self.campaign.or(other.campaign),
            send_at: self.send_at.or(other.send_at),
            valid_until: self.valid_until.or(other.valid_until),
            region: self.region.or(other.region),
            zone: self.zone.or(other.zone),
            priority: self.priority.or(other.priority),
            quiet: self.quiet.or(other.quiet),
            weekdays: self.weekdays.or(other.weekdays),
            rate: self.rate.or(other.rate),
            max_segments: self.max_segments.or(other.max_segments),
            encoding: self.encoding.or(other.encoding),
            max_cost: self.max_cost.or(other.max_cost),
            require_plan: self.require_plan.or(other.require_plan),
        }
    }

    /// When people may be texted; `None` at any time.
    pub(crate) fn hours(&self) -> Result<Option<Hours>, HoursError> {
        Hours::parse(self.quiet.as_deref(), self.weekdays.as_deref(), self.zone.as_deref().unwrap_or("Europe/London"))
    }

    /// Most texts in a time.
    pub(crate) fn rate(&self) -> Result<Option<Rate>, NoRate> {
        self.rate.as_deref().map(Rate::parse).transpose()
    }

    /// The encoding to read a file by that has no byte order mark.
    pub(crate) fn encoding(&self) -> Result<Option<&'static encoding_rs::Encoding>, Refusal> {
        let unknown = |label: &String| Refusal::Setting {
            key: "encoding",
            problem: format!("{:?} is no encoding; try utf-8, windows-1252 or utf-16le", short(label)),
        };
        self.encoding
            .as_ref()
            .map(|label| encoding_rs::Encoding::for_label(label.as_bytes()).ok_or_else(|| unknown(label)))
            .transpose()
    }
}

/// What a person wrote, as far as a line about it can hold it.
fn short(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Options, parsed.
pub(crate) struct Defaults {
    pub(crate) sender: Option<SenderId>,
    pub(crate) text: Option<String>,
    pub(crate) campaign: String,
    pub(crate) send_at: Option<String>,
    pub(crate) valid_until: Option<String>,
    pub(crate) region: Region,
    pub(crate) times: Times,
    pub(crate) max_segments: u32,
}

impl Defaults {
    /// Parses and checks options against a header. `stem` names the campaign if nothing else does.
    pub(crate) fn read(
        options: &Options,
        columns: &Columns,
        header: &csv::StringRecord,
        stem: &str,
    ) -> Result<Self, Refusal> {
        let wrong =
            |key, problem: &dyn std::fmt::Display| Refusal::Setting { key, problem: short(&problem.to_string()) };
        let sender =
            options.sender.as_deref().map(SenderId::parse).transpose().map_err(|error| wrong("sender", &error))?;
        let unset = |what| Refusal::Unset { what, toml: format!("{stem}.toml") };
        if sender.is_none() && columns.sender.is_none() {
            return Err(unset("sender"));
        }
        match options.text.as_deref() {
            None if columns.text.is_none() => return Err(unset("text")),
            None => {}
            Some(text) => {
                let template = Template::parse(text).map_err(|error| wrong("text", &error))?;
                if text.trim().is_empty() {
                    return Err(wrong("text", &"it is empty"));
                }
                if let Some(column) = template.columns().find(|column| columns.named(column).is_none()) {
                    let found = crate::columns::list(header);
                    return Err(Refusal::UnknownColumn { column: fit_to_keep(column, ""), found });
                }
            }
        }
        let region = match options.region.as_deref() {
            None => Region::GB,
            Some(code) => Region::parse(code).map_err(|error| wrong("region", &error))?,
        };
        let times =
            Times::new(options.zone.as_deref().unwrap_or("Europe/London")).map_err(|error| wrong("zone", &error))?;
        let bounds = [("send_at", &options.send_at, Bound::From), ("valid_until", &options.valid_until, Bound::Until)];
        for (key, value, bound) in bounds {
            if let Some(value) = value {
                times.read(value, bound).map_err(|error| wrong(key, &error))?;
            }
        }
        options.hours().map_err(|error| wrong(error.key(), &error))?;
        options.rate().map_err(|error| wrong("rate", &error))?;
        let max_segments = options.max_segments.unwrap_or(MAX_SEGMENTS);
        if max_segments == 0 {
            return Err(wrong("max_segments", &"it must be at least 1"));
        }
        let campaign = options.campaign.as_deref().unwrap_or(stem).trim().to_owned();
        if let Err(problem) = crate::row::check_campaign_name(&campaign) {
            return Err(wrong("campaign", &problem));
        }
        Ok(Self {
            sender,
            text: options.text.clone(),
            campaign,
            send_at: options.send_at.clone(),
            valid_until: options.valid_until.clone(),
            region,
            times,
            max_segments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "sender = \"ACME\"\nsendr = \"X\"\n").unwrap();
        let refusal = Options::beside(&dir.path().join("a.csv")).unwrap_err();
        assert_eq!(refusal.code(), "settings_file");
        let line = refusal.to_string();
        assert!(line.contains("a.toml") && line.contains("line 2") && line.contains("sendr"), "{line}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_line_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "\u{feff}é = 1\n").unwrap();
        let line = Options::beside(&dir.path().join("a.csv")).unwrap_err().to_string();
        assert!(line.contains("line 1"), "{line}");
    }

    #[test]
    fn settings_that_are_too_long_are_refused_and_never_cut() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("sender = \"ACME\"\n{}\nmax_cost = 1\n", "# why\n".repeat(12_000));
        std::fs::write(dir.path().join("a.toml"), long).unwrap();
        let line = Options::beside(&dir.path().join("a.csv")).unwrap_err().to_string();
        assert!(line.contains("longer than 64 KiB"), "{line}");
    }

    #[test]
    fn flags_win_over_the_file_beside() {
        let flags = Options { sender: Some("ACME".into()), ..Options::default() };
        let beside = Options { sender: Some("OTHER".into()), priority: Some(3), ..Options::default() };
        let both = flags.or(beside);
        assert_eq!((both.sender.as_deref(), both.priority), (Some("ACME"), Some(3)));
    }
}
