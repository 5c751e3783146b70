//! `crier status`

use crate::{exit::Done, output, setup::Setup};
use campaign::RowState;
use ledger::{CampaignSummary, WaitingRows};

/// Show each campaign's rows by state, and what is waiting for what
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this campaign
    campaign: Option<String>,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let summaries = super::summaries(&ledger, args.campaign.as_deref()).await?;
    if setup.json {
        output::print_json(&summaries)?;
    } else if summaries.is_empty() {
        output::print("No campaigns yet.")?;
    } else {
        show(&summaries)?;
    }
    Ok(Done::Well)
}

/// A line for each campaign with a column for each state that occurs, then what is being waited for.
pub(crate) fn show(summaries: &[CampaignSummary]) -> std::io::Result<()> {
    let states: Vec<RowState> =
        RowState::ALL.into_iter().filter(|state| summaries.iter().any(|summary| summary.count(*state) > 0)).collect();
    let mut header = vec!["campaign", "is", "rows"];
    header.extend(states.iter().map(|state| state.name()));
    let rows = summaries.iter().map(|summary| {
        let mut row = vec![summary.campaign.clone(), summary.campaign_state.clone(), output::count(summary.rows)];
        row.extend(states.iter().map(|state| output::count(summary.count(*state))));
        row
    });
    output::print_table(&header, rows.collect())?;
    for summary in summaries {
        for waiting in &summary.waiting {
            output::print(format_args!("{}: {}", summary.campaign, sentence(waiting)))?;
        }
    }
    Ok(())
}

/// What some rows wait for: `12 queued: behind a held row to the same number`.
pub(crate) fn sentence(waiting: &WaitingRows) -> String {
    let usual = match waiting.state {
        RowState::Scheduled => "wait for their time",
        RowState::Queued => "wait for their turn",
        RowState::Sending => "are being sent",
        RowState::Unknown => "may or may not have gone out; the gateway's list will tell",
        RowState::Held => "wait for a decision: `crier held` says why",
        RowState::Accepted => "were taken by the gateway, which has not said the final status yet",
        _ => "",
    };
    format!("{} {}: {}", output::count(waiting.rows), waiting.state, waiting.reason.as_deref().unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_said_with_the_ledgers_reason_if_it_has_one() {
        let waiting = |reason: Option<&str>| {
            sentence(&WaitingRows { state: RowState::Queued, reason: reason.map(str::to_owned), rows: 12 })
        };
        assert_eq!(waiting(None), "12 queued: wait for their turn");
        assert_eq!(waiting(Some("behind a held row")), "12 queued: behind a held row");
    }
}
