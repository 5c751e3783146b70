//! `crier ingest`

use super::{
    file::{self, ConditionArgs, FileArgs, OptionArgs},
    purge, run,
};
use crate::{
    exit::{Done, Stop},
    health::Watched,
    output,
    setup::{PATIENTLY, Setup, host},
    stages::{End, Stages},
};
use ingest::{Happened, Outcome, WatchSettings};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::Notify;

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

    #[command(flatten)]
    conditions: ConditionArgs,

    /// Load it although the same bytes were launched before
    #[arg(long, requires = "file")]
    again: bool,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    match (args.file, args.watch) {
        (Some(file), _) => one(setup, FileArgs { file, options: args.options.on(args.conditions) }, args.again).await,
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

async fn watch(setup: &Setup, dir: PathBuf) -> anyhow::Result<Done> {
    setup.needs_shared_queue("ingest --watch")?;
    // Without credentials the ledger's list of senders is used as it is.
    setup.be_a_service().await?;
    let with_gateway = setup.settings.gateway.credentials_if_any()?.is_some();
    let Some(ledger) = setup.when_up(async || setup.ledger().await).await? else { return Ok(setup.stopper.done()) };
    let Some(queue) = setup.when_up(async || setup.queue().await).await? else { return Ok(setup.stopper.done()) };
    let gateway =
        if with_gateway { Some(setup.gateway(&ledger, setup.budget(&queue), "ingest", PATIENTLY)?) } else { None };
    setup.health.stands_on(Watched { ledger: ledger.clone(), queue: queue.clone(), gateway: gateway.clone() });
    loop {
        let started = setup.when_up(async || Stages::feeding(setup, &ledger, &queue, "ingest").await).await?;
        let Some(mut stages) = started else { break };
        let name = format!("{}-{}-{}", host(), std::process::id(), ledger.now().as_millisecond());
        let mut settings = WatchSettings::new(dir.clone(), name, stages.owner());
        settings.launched_by.clone_from(&setup.who);
        settings.options = file::settings_options(setup);
        settings.terms = file::terms(setup);
        settings.unchanged_for = setup.settings.ingest.unchanged_for;
        settings.pulse = setup.health.watch_loop("watcher");
        let (to_load, wake) = (ledger.clone(), stages.wake());
        stages.beside("watcher", async move |stop| {
            let clock = || to_load.now();
            Ok(ingest::watch(&to_load, &settings, clock, |happened| tell(&happened, &wake), &stop).await?)
        });
        let (of_copies, kept, folder) = (ledger.clone(), purge::Kept::of(setup), dir.clone());
        stages.beside("purge of copies", async move |stop| {
            purge::daily_copies(of_copies, &folder, kept, stop).await;
            Ok(())
        });
        if let Some(gateway) = gateway.clone() {
            stages.know_senders(&ledger, gateway);
        }
        tracing::info!(folder = %dir.display(), "watching for files");
        if stages.until(Duration::from_secs(1), async || false).await? == End::Asked {
            break;
        }
    }
    Ok(setup.stopper.done())
}

/// Logs what the watcher does, and wakes the feeder for what was loaded.
fn tell(happened: &Happened<'_>, wake: &Notify) {
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match happened {
        Happened::Launched { file, preview, loaded } => {
            wake.notify_one();
            telemetry::file_ended("launched");
            if let Some(loaded) = loaded {
                for (code, rows) in &preview.invalid_by_code {
                    telemetry::rows_refused(code, *rows);
                }
                for (state, rows) in [
                    ("queued", loaded.sendable),
                    ("invalid", loaded.invalid),
                    ("duplicate", loaded.duplicate),
                    ("suppressed", loaded.suppressed),
                ] {
                    telemetry::rows_became(state, rows);
                }
            }
            let loaded_now = loaded.is_some();
            tracing::info!(
                file = name(file),
                rows = preview.rows,
                sendable = preview.sendable,
                loaded_now,
                "launched a file"
            );
        }
        Happened::Refused { file, code, why } => {
            telemetry::file_ended("refused");
            tracing::warn!(file = name(file), code, "refused a file: {why}");
        }
        Happened::Waiting { why } => tracing::warn!("files wait: {why}"),
        Happened::GoesOn => tracing::info!("files are loaded again"),
        Happened::Foreign { name } => tracing::warn!(name, "left in the inbox: no .csv file"),
    }
}
