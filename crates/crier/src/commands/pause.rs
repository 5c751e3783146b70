//! `crier pause` and `crier resume`

use super::{Why, one};
use crate::{
    exit::{Done, Stop},
    output,
    setup::Setup,
};
use campaign::RowState;
use ledger::{CampaignState, CampaignSummary, Steered};
use serde_json::json;

/// Begin nothing new of a campaign until it is resumed; what is in flight is finished
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    #[command(flatten)]
    why: Why,
}

/// Go on with a paused campaign
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    args: Args,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let before = one(&ledger, &args.campaign).await?;
    let steered = ledger.pause(before.id, args.why.by(setup), ledger.now()).await?;
    let now = one(&ledger, &args.campaign).await?;
    let words = format!(
        "paused; {} unsent, {} in flight",
        output::counted(unsent(&now), "row"),
        output::count(now.count(RowState::Sending))
    );
    tell(setup, &args.campaign, steered, CampaignState::Paused, &words)
}

pub(crate) async fn resume(setup: &Setup, args: &ResumeArgs) -> anyhow::Result<Done> {
    let args = &args.args;
    let ledger = setup.ledger_to_read().await?;
    let campaign = one(&ledger, &args.campaign).await?;
    let steered = ledger.resume(campaign.id, args.why.by(setup), ledger.now()).await?;
    let words = format!("resumed; {} unsent", output::counted(unsent(&campaign), "row"));
    tell(setup, &args.campaign, steered, CampaignState::Active, &words)
}

/// Rows of which nothing was sent yet.
pub(super) fn unsent(summary: &CampaignSummary) -> u64 {
    summary.count(RowState::Scheduled) + summary.count(RowState::Queued)
}

/// Says how steering went; that it was so already is no failure, that it can't be so is one.
fn tell(setup: &Setup, name: &str, steered: Steered, wanted: CampaignState, words: &str) -> anyhow::Result<Done> {
    let state = match steered {
        Steered::Done => wanted,
        Steered::Was(was) => was,
        Steered::NoCampaign => return Err(Stop::failed(format!("there is no campaign {name}")).into()),
    };
    if state != wanted {
        let what = format!("{name} is {}: it can't become {}", state.name(), wanted.name());
        return Err(Stop::failed(what).advise("Nothing was changed.").into());
    }
    if setup.json {
        let changed = steered == Steered::Done;
        output::print_json(&json!({ "campaign": name, "campaign_state": state, "changed": changed }))?;
    } else if steered == Steered::Done {
        output::print(format_args!("{name}: {words}"))?;
    } else {
        output::print(format_args!("{name}: was {} already", state.name()))?;
    }
    Ok(Done::Well)
}
