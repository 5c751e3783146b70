//! `crier resolve`

use crate::{exit::Done, output, setup::Setup, setup::who};
use ledger::Decision;

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

    /// They were not sent, or may be sent twice: send them again
    #[arg(long)]
    resend: bool,

    /// Never send them
    #[arg(long)]
    cancel: bool,

    /// Why, for the record
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger().await?;
    super::summaries(&ledger, Some(&args.campaign)).await?;
    let decision = match (args.assume_sent, args.resend) {
        (true, _) => Decision::AssumeSent,
        (_, true) => Decision::Resend,
        _ => Decision::Cancel,
    };
    _ = (setup, decision, who());
    output::print("not yet")?;
    Ok(Done::Failed)
}
