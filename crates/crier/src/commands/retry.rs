//! `crier retry`

use super::{Why, one, time};
use crate::{exit::Done, output, setup::Setup};
use ledger::Retriable;
use serde_json::json;

/// Send the failed rows of a campaign once more, as a campaign of their own; never unknown or held ones
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// The rows that the gateway says have failed
    #[arg(long, required = true)]
    failed: bool,

    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,

    /// Not after this time, instead of the rows' own
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,

    #[command(flatten)]
    why: Why,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let valid_until = args.valid_until.as_deref().map(|text| time::until(setup, "valid-until", text)).transpose()?;
    let campaign = one(&ledger, &args.campaign).await?;
    let (name, rows) = if args.dry_run {
        (None, ledger.retriable(campaign.id, valid_until, ledger.now()).await?)
    } else {
        match ledger.retry_failed(campaign.id, valid_until, args.why.by(setup), ledger.now()).await? {
            Some(retry) => (Some(retry.name), retry.rows),
            None => (None, Retriable::default()),
        }
    };
    let [failed, opted_out, late] = [rows.failed, rows.opted_out, rows.late].map(i64::unsigned_abs);
    if setup.json {
        output::print_json(&json!({
            "campaign": args.campaign, "retry": name, "rows": failed, "suppressed": opted_out, "expired": late,
        }))?;
        return Ok(Done::Well);
    }
    match &name {
        _ if failed == 0 => output::print(format_args!("{}: no failed row that was not retried yet", args.campaign))?,
        Some(name) => output::print(format_args!("{name}: launched with {}", output::counted(failed, "failed row")))?,
        None => output::print(format_args!(
            "{}: {} would be retried",
            args.campaign,
            output::counted(failed, "failed row")
        ))?,
    }
    if opted_out > 0 {
        let what = output::counted(opted_out, "row");
        output::print(format_args!("{what} of people who have opted out: not sent"))?;
    }
    if late > 0 {
        let what = output::counted(late, "row");
        output::print(format_args!("{what} past valid_until: not sent; --valid-until gives another time"))?;
    }
    Ok(Done::Well)
}
