//! `crier worker`

use crate::{
    exit::Done,
    setup::Setup,
    stages::{self, Stage},
};

/// Send what the ledger has, together with other workers over one Redis
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End when nothing is left to do
    #[arg(long)]
    drain: bool,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    setup.needs_shared_queue("worker")?;
    stages::serve(setup, "worker", &[Stage::Worker], args.drain).await
}
