//! `crier cancel`

use super::{Why, one, pause::unsent};
use crate::{
    exit::{Done, Stop},
    output,
    setup::Setup,
};
use campaign::RowState;
use ledger::{CampaignState, CampaignSummary, Steered};
use serde_json::json;

/// End a campaign: its unsent rows are never sent; says first how many they are and how many can't be recalled
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// Do it: the campaign's name once more
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,

    #[command(flatten)]
    why: Why,
}

/// Chunks that are ended in one transaction.
const CHUNKS_AT_ONCE: u16 = 50;

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let name = &args.campaign;
    let before = one(&ledger, name).await?;
    if args.confirm.as_ref() != Some(name) {
        tell(setup, &before, false)?;
        return Err(Stop::failed("nothing was cancelled").advise(format!("Say --confirm={name} to cancel it.")).into());
    }
    match ledger.cancel(before.id, args.why.by(setup), ledger.now()).await? {
        Steered::Done | Steered::Was(CampaignState::Cancelled) => {}
        Steered::Was(state) => {
            let what = format!("{name} is {}: it can't be cancelled now", state.name());
            return Err(Stop::failed(what).advise("Nothing was changed.").into());
        }
        Steered::NoCampaign => return Err(Stop::failed(format!("there is no campaign {name}")).into()),
    }
    // From here on nothing of it is begun; a crash in the middle is finished by any process that feeds the queue.
    while ledger.sweep_cancelled(Some(before.id), CHUNKS_AT_ONCE, ledger.now()).await?.chunks > 0 {}
    tell(setup, &one(&ledger, name).await?, true)?;
    Ok(Done::Well)
}

/// How many rows are, or would be, cancelled, and how many are beyond recall.
fn tell(setup: &Setup, summary: &CampaignSummary, done: bool) -> anyhow::Result<()> {
    let count = |state| summary.count(state);
    let (unsent, cancelled) = (unsent(summary), count(RowState::Cancelled));
    let [sending, unknown, accepted, held, sent] =
        [RowState::Sending, RowState::Unknown, RowState::Accepted, RowState::Held, RowState::Sent].map(count);
    let gone = sending + unknown + accepted + sent;
    if setup.json {
        output::print_json(&json!({
            "campaign": summary.campaign, "campaign_state": summary.campaign_state, "unsent": unsent,
            "cancelled": cancelled, "not_recallable": gone, "sending": sending, "unknown": unknown,
            "accepted": accepted, "sent": sent, "held": held,
        }))?;
        return Ok(());
    }
    let name = &summary.campaign;
    let of_them = format!(
        "{} in flight, {} unknown, {} accepted, {} sent",
        output::count(sending),
        output::count(unknown),
        output::count(accepted),
        output::count(sent)
    );
    if done {
        output::print(format_args!("{name}: cancelled; {} will not be sent", output::counted(cancelled, "row")))?;
        if unsent > 0 {
            let words = "still with a worker: they are cancelled when it lets go of them";
            output::print(format_args!("{}: {words}", output::counted(unsent, "row")))?;
        }
        output::print(format_args!("{} could not be recalled: {of_them}", output::counted(gone, "row")))?;
    } else {
        output::print(format_args!("{name}: {} unsent and would be cancelled", output::counted(unsent, "row")))?;
        output::print(format_args!("{} can't be recalled: {of_them}", output::counted(gone, "row")))?;
    }
    if held > 0 {
        output::print(format_args!("{} held; `crier resolve` decides", output::counted(held, "row")))?;
    }
    Ok(())
}
