//! `crier watch`

use super::{run::ended, status};
use crate::{exit::Done, output, setup::Setup};
use std::time::Duration;

/// Show the status again and again till every row is final or held
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this campaign
    campaign: Option<String>,

    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    every: Duration,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let mut shown = String::new();
    loop {
        let summaries = super::summaries(&ledger, args.campaign.as_deref()).await?;
        let now = serde_json::to_string(&summaries)?;
        // Only what has changed is worth a line.
        if now != shown {
            if setup.json {
                output::print(&now)?;
            } else if summaries.is_empty() {
                output::print("No campaigns yet.")?;
            } else {
                status::show(&summaries)?;
                output::print("")?;
            }
            shown = now;
        }
        if summaries.iter().all(|summary| summary.open() == 0 && summary.campaign_state != "loading") {
            return Ok(ended(&summaries));
        }
        if setup.pause(args.every).await.is_break() {
            return Ok(setup.stopper.done());
        }
    }
}
