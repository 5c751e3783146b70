//! `crier reconciler`

use crate::{
    exit::Done,
    setup::Setup,
    stages::{self, Stage},
};

/// Learn from the gateway what became of each text, and resolve unknown outcomes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End when nothing is left to do
    #[arg(long)]
    drain: bool,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    setup.needs_shared_queue("reconciler")?;
    stages::serve(setup, "reconciler", &[Stage::Reconciler], args.drain).await
}
