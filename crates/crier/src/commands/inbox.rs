//! `crier inbox`

use crate::{exit::Done, output, setup::Setup};

/// List what people wrote back, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// STOP, START and the like too
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let texts = ledger.inbox(args.all).await?;
    if setup.json {
        output::print_json(&texts)?;
    } else if texts.is_empty() {
        output::print("Nobody wrote.")?;
    } else {
        let purged = || "(purged)".to_owned();
        let cells = texts.into_iter().map(|text| {
            vec![text.time.to_string(), text.from.unwrap_or_else(purged), text.to, text.text.unwrap_or_else(purged)]
        });
        output::print_table(&["time", "from", "to", "text"], cells.collect())?;
    }
    Ok(Done::Well)
}
