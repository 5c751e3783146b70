//! `crier resolve`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use ledger::Verdict;
use serde_json::json;

/// Decide what becomes of held rows; who and why is recorded
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("decision").required(true).args(["assume_sent", "resend", "cancel"])))]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// The rows, as the spreadsheet numbers them
    #[arg(required = true, value_name = "ROW")]
    rows: Vec<u32>,

    /// They were sent: count them as sent
    #[arg(long)]
    assume_sent: bool,

    /// Send them once more: if the first text did go out, the person gets it twice
    #[arg(long)]
    resend: bool,

    /// Never send them
    #[arg(long)]
    cancel: bool,

    /// Why, for the record
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    super::summaries(&ledger, Some(&args.campaign)).await?;
    let (verdict, words) = match (args.assume_sent, args.resend) {
        (true, _) => (Verdict::AssumeSent, "counted as sent"),
        (_, true) => (Verdict::Resend, "queued to be sent once more"),
        _ => (Verdict::Cancel, "cancelled"),
    };
    // All rows are looked up before the first is decided: a mistyped number decides nothing.
    let mut found = Vec::with_capacity(args.rows.len());
    for row in &args.rows {
        let Some(ids) = ledger.find_row(&args.campaign, *row).await? else {
            let what = format!("the campaign {} has no row {row}", args.campaign);
            return Err(Stop::failed(what).advise("Nothing was decided.").into());
        };
        found.push((*row, ids));
    }
    let mut outcomes = Vec::new();
    for (row, (campaign, id)) in found {
        let decided = ledger.decide(campaign, id, verdict, &setup.who, &args.reason, ledger.now()).await?;
        outcomes.push((row, decided));
        if !setup.json {
            let words = if decided { words } else { "is not held (any more): left as it is" };
            output::print(format_args!("row {row}: {words}"))?;
        }
    }
    if setup.json {
        let rows: Vec<_> = outcomes.iter().map(|(row, decided)| json!({ "row": row, "decided": decided })).collect();
        output::print_json(&rows)?;
    }
    Ok(if outcomes.iter().all(|(_, decided)| *decided) { Done::Well } else { Done::Failed })
}
