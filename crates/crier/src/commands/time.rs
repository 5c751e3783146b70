//! Times on the command line: as in a file, in the zone of the settings.

use crate::{exit::Stop, output, setup::Setup};
use ingest::{Bound, Times};
use jiff::Timestamp;

/// A time not before which something is to be done.
pub(super) fn from(setup: &Setup, flag: &str, text: &str) -> anyhow::Result<Timestamp> {
    read(setup, flag, text, Bound::From)
}

/// A time not after which something is to be done.
pub(super) fn until(setup: &Setup, flag: &str, text: &str) -> anyhow::Result<Timestamp> {
    read(setup, flag, text, Bound::Until)
}

fn read(setup: &Setup, flag: &str, text: &str, bound: Bound) -> anyhow::Result<Timestamp> {
    let zone = &setup.settings.ingest.zone;
    let read = Times::new(zone)?.read(text, bound).map_err(|error| Stop::failed(format!("--{flag} is {error}")))?;
    if let Some(words) = read.change {
        output::say(format_args!("--{flag} {text} is {words} in {zone}: taken as {}", read.at));
    }
    Ok(read.at)
}
