//! Settings: defaults, then a file, then the environment, then flags; each value knows where it came from.
//!
//! A key that is not known, a value that can't be read and two values for one secret are errors that say what is wrong,
//! where it stands and what to do.

mod keys;
mod layers;
mod settings;

pub(crate) use keys::{KEYS, Kind, PRICES, variable};
pub(crate) use layers::{Merged, Sources};
pub(crate) use settings::{LogFormat, LogSettings, MetricsSettings, QueueUrl, Settings};

use std::{fmt, path::PathBuf};
use url::Url;

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// `--set`.
    Flag,
}

impl Origin {
    /// Values of equal rank come from one layer.
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// What is wrong with the settings, where it stands and what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) struct ConfigError {
    what: String,
    origin: Origin,
    advice: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, origin, advice } = self;
        match origin {
            // It was not set anywhere: there is no place to name.
            Origin::Default => write!(f, "{what}. {advice}"),
            Origin::File(_) | Origin::Environment(_) | Origin::Flag => write!(f, "{what} (from {origin}). {advice}"),
        }
    }
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, origin: Origin, advice: impl Into<String>) -> Self {
        Self { what: what.into(), origin, advice: advice.into() }
    }
}

/// A URL as it may be shown: a password in it, before the host or as a parameter, is masked.
pub(crate) fn masked_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return url.split_once(':').map_or_else(|| "…".to_owned(), |(scheme, _)| format!("{scheme}:…"));
    };
    if parsed.password().is_none() && !url.contains("password=") {
        return url.to_owned();
    }
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return format!("{}:…", parsed.scheme());
    }
    if parsed.query().is_some() {
        let pairs: Vec<(String, String)> = parsed
            .query_pairs()
            .map(|(name, value)| {
                (name.clone().into_owned(), if name == "password" { "***".into() } else { value.into_owned() })
            })
            .collect();
        parsed.query_pairs_mut().clear().extend_pairs(pairs);
    }
    parsed.to_string()
}

#[cfg(test)]
mod tests;
