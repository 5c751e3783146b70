//! `crier ingest`

use super::{
    file::{self, FileArgs, OptionArgs},
    run,
};
use crate::{exit::Done, exit::Stop, output, setup::Setup};
use ingest::Outcome;
use std::path::PathBuf;

/// Load a file into the ledger for workers to send, or watch a folder that files are dropped into
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The CSV file
    #[arg(value_name = "FILE", required_unless_present = "watch", conflicts_with = "watch")]
    pub(crate) file: Option<PathBuf>,

    /// Watch this folder: files go from inbox/ to processing/ to done/ or refused/
    #[arg(long, value_name = "DIR")]
    pub(crate) watch: Option<PathBuf>,

    #[command(flatten)]
    options: OptionArgs,

    /// Load it although the same bytes were launched before
    #[arg(long, requires = "file")]
    again: bool,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    match (args.file, args.watch) {
        (Some(file), _) => one(setup, FileArgs { file, options: args.options }, args.again).await,
        (None, Some(dir)) => watch(setup, dir).await,
        (None, None) => Err(Stop::failed("there is neither a FILE nor --watch DIR").into()),
    }
}

async fn one(setup: &Setup, args: FileArgs, again: bool) -> anyhow::Result<Done> {
    let ledger = setup.ledger().await?;
    let approved = file::approved(setup, &ledger).await?;
    match run::load(setup, &ledger, &args, approved, again).await? {
        Outcome::Loaded(loaded) => {
            if setup.json {
                output::print_json(&loaded)?;
            } else {
                for (_, name) in &loaded.campaigns {
                    output::print(format_args!("{name}: loaded"))?;
                }
            }
            Ok(if loaded.invalid > 0 { Done::WithRows } else { Done::Well })
        }
        Outcome::AlreadyUnfinished(earlier) => {
            let what = format!("the same bytes were launched before {earlier} and are still being sent");
            Err(Stop::failed(what).advise("Nothing was queued; --again launches them once more.").into())
        }
    }
}

async fn watch(_setup: &Setup, _dir: PathBuf) -> anyhow::Result<Done> {
    Err(Stop::failed("not yet").into())
}
