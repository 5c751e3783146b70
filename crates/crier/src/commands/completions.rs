//! `crier completions`

use crate::{cli::Cli, exit::Done};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Done> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "crier", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Done::Well)
}
