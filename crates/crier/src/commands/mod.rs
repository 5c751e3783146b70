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

use crate::exit::Stop;
use ledger::{CampaignSummary, Ledger};

/// The campaigns asked for; a name that is none is an error that lists what there is.
async fn summaries(ledger: &Ledger, name: Option<&str>) -> anyhow::Result<Vec<CampaignSummary>> {
    let found = ledger.campaign_summaries(name).await?;
    match name {
        Some(name) if found.is_empty() => Err(no_campaign(ledger, name).await?.into()),
        _ => Ok(found),
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
