//! The commands, one to a file.

pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod dial;
pub(crate) mod doctor;
pub(crate) mod file;
pub(crate) mod held;
pub(crate) mod inbox;
pub(crate) mod ingest;
pub(crate) mod log;
pub(crate) mod migrate;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod purge;
pub(crate) mod quarantine;
pub(crate) mod reconciler;
pub(crate) mod reschedule;
pub(crate) mod resolve;
pub(crate) mod results;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod senders;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod suppress;
mod time;
pub(crate) mod verify;
pub(crate) mod watch;
pub(crate) mod worker;

use crate::{exit::Stop, setup::Setup};
use ledger::{By, CampaignSummary, Ledger};

/// The record of a change says why.
#[derive(Debug, clap::Args)]
struct Why {
    /// Why, for the record
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

impl Why {
    /// Who runs the command, and why.
    fn by<'a>(&'a self, setup: &'a Setup) -> By<'a> {
        By { who: &setup.who, reason: self.reason.as_deref() }
    }
}

/// The campaign of this name; a name that is none is an error that lists what there is.
async fn one(ledger: &Ledger, name: &str) -> anyhow::Result<CampaignSummary> {
    match ledger.campaign_summaries(Some(name)).await?.pop() {
        Some(summary) => Ok(summary),
        None => Err(no_campaign(ledger, name).await?.into()),
    }
}

/// All campaigns, or the one of this name.
async fn summaries(ledger: &Ledger, name: Option<&str>) -> anyhow::Result<Vec<CampaignSummary>> {
    match name {
        Some(name) => Ok(vec![one(ledger, name).await?]),
        None => Ok(ledger.campaign_summaries(None).await?),
    }
}

/// The error for a campaign that there is not.
async fn no_campaign(ledger: &Ledger, name: &str) -> anyhow::Result<Stop> {
    let names = ledger.campaign_names().await?;
    let advice = match names.as_slice() {
        [] => "There are none yet.".to_owned(),
        [.., _] if names.len() <= 8 => format!("There are: {}.", names.join(", ")),
        _ => "`crier status` lists them.".to_owned(),
    };
    Ok(Stop::failed(format!("there is no campaign {name}")).advise(advice))
}
