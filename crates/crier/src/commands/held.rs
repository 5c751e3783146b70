//! `crier held`

use crate::{exit::Done, output, setup::Setup};
use ledger::HeldRow;

/// List the rows that wait for a decision: why, and what was seen of each
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
            let seen = seen(&row);
            vec![
                row.campaign,
                row.row_number.to_string(),
                row.destination,
                row.sender,
                row.reason,
                some(row.attempted_at.map(|at| format!("{at:.0}"))),
                some(row.outcome),
                seen,
                format!("{:.0}", row.since),
            ]
        });
        let header = ["campaign", "row", "to", "from", "why", "called at", "answer", "seen in the list", "held since"];
        output::print_table(&header, cells.collect())?;
        output::say(format_args!(
            "Decide with: crier resolve CAMPAIGN ROW… --assume-sent | --resend | --cancel --reason …"
        ));
    }
    Ok(Done::Well)
}

/// What the gateway's list showed of a row.
fn seen(row: &HeldRow) -> String {
    match (row.gateway_sms_id, row.looked_at) {
        (Some(id), _) => format!("text {id}, never with a final status"),
        (None, Some(at)) => format!(
            "nothing in {}, the last that counts at {at:.0}",
            output::counted(row.looks.unsigned_abs(), "reading")
        ),
        (None, None) => format!("nothing in {}", output::counted(row.looks.unsigned_abs(), "reading")),
    }
}
