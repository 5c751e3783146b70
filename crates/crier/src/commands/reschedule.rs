//! `crier reschedule`

use super::{Why, one, pause::unsent, time};
use crate::{
    exit::{Done, Stop},
    output,
    setup::Setup,
};
use campaign::RowState;
use ledger::NewTimes;
use serde_json::json;

/// Give the unsent rows of a campaign another time; says how many moved and how many were too late
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("times").required(true).multiple(true).args(["send_at", "valid_until"])))]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// Not before this time
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,

    /// Not after this time
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,

    #[command(flatten)]
    why: Why,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let times = NewTimes {
        send_at: args.send_at.as_deref().map(|text| time::from(setup, "send-at", text)).transpose()?,
        valid_until: args.valid_until.as_deref().map(|text| time::until(setup, "valid-until", text)).transpose()?,
    };
    if let (Some(from), Some(until)) = (times.send_at, times.valid_until)
        && until <= from
    {
        return Err(Stop::failed("--valid-until is not after --send-at").advise("Nothing was changed.").into());
    }
    if times.valid_until.is_some_and(|until| until <= ledger.now()) {
        let advice = "Nothing was changed; `crier cancel` ends a campaign.";
        return Err(Stop::failed("--valid-until has passed").advise(advice).into());
    }
    let campaign = one(&ledger, &args.campaign).await?;
    let done = ledger.reschedule(campaign.id, times, args.why.by(setup), ledger.now()).await?;
    let after = one(&ledger, &args.campaign).await?;
    let never: u64 =
        [RowState::Invalid, RowState::Duplicate, RowState::Suppressed].map(|s| after.count(s)).iter().sum();
    let too_late = (after.rows - never).saturating_sub(done.moved.max(unsent(&after)));
    if setup.json {
        output::print_json(&json!({
            "campaign": args.campaign, "moved": done.moved, "too_late": too_late, "expire_before": done.expire_before,
        }))?;
        return Ok(Done::Well);
    }
    let (moved, too_late) = (output::counted(done.moved, "row"), output::count(too_late));
    output::print(format_args!("{}: {moved} moved, {too_late} too late", args.campaign))?;
    if done.expire_before > 0 {
        let what = output::counted(done.expire_before, "row");
        output::print(format_args!("{what} would expire before that time: --valid-until gives another"))?;
    }
    Ok(Done::Well)
}
