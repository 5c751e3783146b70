//! The command line.

use crate::commands::{
    cancel, check, completions, config, demo, dial, doctor, held, inbox, ingest, log, migrate, pause, plan, purge,
    quarantine, reconciler, reschedule, resolve, results, retry, run, sandbox, senders, show, status, suppress, verify,
    watch, worker,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Send bulk SMS campaigns: every row of the file ends in exactly one visible state, and nobody is texted twice.
#[derive(Debug, Parser)]
#[command(name = "crier", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Read the settings from this file [default: crier.toml here, else /etc/crier/crier.toml, if there is one]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FILE",
        env = "CRIER_CONFIG",
        hide_env = true
    )]
    pub(crate) config: Option<PathBuf>,

    /// Set one setting, over file and environment; `crier config` lists them
    #[arg(long = "set", global = true, help_heading = "Global options", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Print data as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,

    /// Record this name as who did it [default: the user as the system knows it]
    #[arg(
        long = "as",
        global = true,
        help_heading = "Global options",
        value_name = "NAME",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) who: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 finished with rejected, held or failed rows, \
4 configuration or credentials, 5 something needed is down, 130 interrupted";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Check(check::Args),
    Plan(plan::Args),
    Ingest(ingest::Args),
    Worker(worker::Args),
    Reconciler(reconciler::Args),
    Status(status::Args),
    Watch(watch::Args),
    Results(results::Args),
    Show(show::Args),
    Log(log::Args),
    Held(held::Args),
    Resolve(resolve::Args),
    Pause(pause::Args),
    Resume(pause::ResumeArgs),
    Cancel(cancel::Args),
    Reschedule(reschedule::Args),
    Retry(retry::Args),
    Verify(verify::Args),
    Suppress(suppress::Args),
    Inbox(inbox::Args),
    Purge(purge::Args),
    Quarantine(quarantine::Args),
    Senders(senders::Args),
    Dial(dial::Args),
    Migrate(migrate::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Demo(demo::Args),
    Sandbox(sandbox::Args),
    Completions(completions::Args),
}

impl Command {
    /// What is logged unless it is set: services tell what they do, `run` tells what is wrong, and the others, which
    /// people run for what they print, end with one line when something is wrong.
    pub(crate) fn usual_filter(&self) -> &'static str {
        match self {
            Self::Worker(_) | Self::Reconciler(_) | Self::Sandbox(_) => "info",
            Self::Ingest(args) if args.watch.is_some() => "info",
            Self::Run(_) => "warn",
            _ => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
