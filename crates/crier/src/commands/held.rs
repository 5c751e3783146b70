//! `crier held`

use crate::{exit::Done, output, setup::Setup};

/// List the rows that wait for a decision, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this campaign
    campaign: Option<String>,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let rows = ledger.held_rows(args.campaign.as_deref()).await?;
    if let (Some(name), true) = (&args.campaign, rows.is_empty()) {
        super::summaries(&ledger, Some(name)).await?;
    }
    if setup.json {
        output::print_json(&rows)?;
    } else if rows.is_empty() {
        output::print("No row is held.")?;
    } else {
        let some = |value: Option<String>| value.unwrap_or_default();
        let cells = rows.into_iter().map(|row| {
            vec![
                row.campaign,
                row.row_number.to_string(),
                row.sender,
                row.reason,
                some(row.attempted_at.map(|at| at.to_string())),
                some(row.outcome),
                row.looks.to_string(),
                row.since.to_string(),
            ]
        });
        let header = ["campaign", "row", "sender", "why", "called at", "answer", "looks", "held since"];
        output::print_table(&header, cells.collect())?;
        output::say(format_args!(
            "Decide with: crier resolve CAMPAIGN ROW… --assume-sent | --resend | --cancel --reason …"
        ));
    }
    Ok(Done::Well)
}
