//! `crier`: sends bulk SMS campaigns.
//!
//! One binary for all stages: it reads the command line and the settings, opens what they name, drives the stages and
//! gives each end its exit code. What is promised about rows is kept by the crates below, not here.

mod cli;
mod commands;
mod config;
mod exit;
mod health;
mod output;
mod progress;
mod serving;
mod setup;
mod stages;
mod stop;
mod supervisor;
mod telemetry;
mod traces;

use crate::{
    cli::{Cli, Command},
    config::{Merged, Settings, Sources},
    exit::Done,
    setup::Setup,
};
use clap::Parser;
use std::{process::ExitCode, time::Duration};

/// The longest that a command that is done waits for a token that is being renewed.
const RENEWAL_MAX: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // Before any client is built: rustls has no default provider of its own.
    _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // What works waits for the ledger and the gateway: one thread for it is woken less often than two, which takes a tenth of the
    // CPU of a recipient. The sandbox has all cores, for it stands for somebody else's machine.
    if !matches!(cli.command, Command::Sandbox(_) | Command::Demo(_)) {
        runtime.worker_threads(1);
    }
    // Where nothing is optimized a reconciler's deepest call takes most of the 2 MB that a thread has otherwise. What is not touched
    // takes no memory.
    runtime.thread_stack_size(8 << 20);
    let runtime = runtime.enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(start(cli));
        // A refresh token that was presented is spent: its answer is waited for and stored.
        _ = runtime.block_on(async { tokio::time::timeout(RENEWAL_MAX, gateway::renewals_are_over()).await });
        // A thread that still waits for something must not keep a finished command.
        runtime.shutdown_background();
        result
    });
    exit::end(result)
}

async fn start(cli: Cli) -> anyhow::Result<Done> {
    if let Command::Completions(args) = &cli.command {
        return commands::completions::run(args);
    }
    let sources = Sources {
        file: cli.config,
        usual_files: vec!["crier.toml".into(), "/etc/crier/crier.toml".into()],
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        set: cli.set,
    };
    let merged = Merged::load(&sources)?;
    let settings = Settings::parse(&merged)?;
    let set = merged.is_set("log.filter");
    telemetry::start(&settings.log, if set { &settings.log.filter } else { cli.command.usual_filter() });
    let who = cli.who.map_or_else(setup::system_user, |name| format!("{name} ({})", setup::system_user()));
    let stopper = stop::Stopper::listen()?;
    let health = health::Health::new(stopper.asked.clone(), settings.metrics.stuck_after);
    let traces = traces::Traces::start(&settings, &cli.command);
    let setup = Setup { settings, merged, json: cli.json, who, stopper, health };
    let done = run(setup, cli.command).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    done
}

async fn run(setup: Setup, command: Command) -> anyhow::Result<Done> {
    match command {
        Command::Run(args) => commands::run::run(setup, args).await,
        Command::Check(args) => commands::check::run(&setup, args).await,
        Command::Plan(args) => commands::plan::run(&setup, args).await,
        Command::Ingest(args) => commands::ingest::run(&setup, args).await,
        Command::Worker(args) => commands::worker::run(&setup, &args).await,
        Command::Reconciler(args) => commands::reconciler::run(&setup, &args).await,
        Command::Status(args) => commands::status::run(&setup, &args).await,
        Command::Watch(args) => commands::watch::run(&setup, &args).await,
        Command::Results(args) => commands::results::run(&setup, &args).await,
        Command::Show(args) => commands::show::run(&setup, &args).await,
        Command::Log(args) => commands::log::run(&setup, &args).await,
        Command::Held(args) => commands::held::run(&setup, &args).await,
        Command::Resolve(args) => commands::resolve::run(&setup, args).await,
        Command::Pause(args) => commands::pause::run(&setup, &args).await,
        Command::Resume(args) => commands::pause::resume(&setup, &args).await,
        Command::Cancel(args) => commands::cancel::run(&setup, &args).await,
        Command::Reschedule(args) => commands::reschedule::run(&setup, &args).await,
        Command::Retry(args) => commands::retry::run(&setup, &args).await,
        Command::Verify(args) => commands::verify::run(&setup, &args).await,
        Command::Suppress(args) => commands::suppress::run(&setup, args).await,
        Command::Inbox(args) => commands::inbox::run(&setup, &args).await,
        Command::Quarantine(args) => commands::quarantine::run(&setup, args).await,
        Command::Purge(args) => commands::purge::run(&setup, &args).await,
        Command::Senders(args) => commands::senders::run(&setup, args).await,
        Command::Dial(args) => commands::dial::run(&setup, args).await,
        Command::Migrate(args) => commands::migrate::run(&setup, &args).await,
        Command::Doctor(args) => commands::doctor::run(&setup, &args).await,
        Command::Config(args) => commands::config::run(&setup, &args),
        Command::Demo(args) => commands::demo::run(setup, args).await,
        Command::Sandbox(args) => commands::sandbox::run(&setup, args).await,
        Command::Completions(args) => commands::completions::run(&args),
    }
}
