//! `crier check`

use super::file::{self, FileArgs};
use crate::{exit::Done, output, setup::Setup};

/// Read a file and say what it would do; nothing is queued, neither ledger nor gateway is asked
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,

    /// Print this many of the texts as they would be sent
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    sample: usize,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let preview = file::check(setup, &args.file, args.sample).await?;
    if setup.json {
        output::print_json(&preview)?;
    } else {
        file::print(&preview)?;
        for sample in preview.samples.iter().take(args.sample) {
            output::print(format_args!("row {} reads: {}", sample.row_number, sample.text))?;
        }
    }
    Ok(if preview.invalid > 0 { Done::WithRows } else { Done::Well })
}
