//! `crier run`

use super::{
    file::{self, ConditionArgs, FileArgs, OptionArgs},
    status,
};
use crate::{
    exit::{Done, Stop},
    health::Watched,
    output,
    progress::Progress,
    setup::{BRIEFLY, PATIENTLY, Setup},
    stages::{End, Parts, Stage, Stages},
};
use campaign::{RowState, SenderId};
use ingest::{Launch, LoadError, Outcome};
use ledger::{CampaignSummary, Ledger};
use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Send a file from beginning to end, all stages in one process; goes on with it after a crash
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The CSV file; without one, what the ledger has is sent
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) conditions: ConditionArgs,

    /// Send it although the same bytes were launched before
    #[arg(long, requires = "file")]
    pub(crate) again: bool,
}

pub(crate) async fn run(setup: Setup, args: Args) -> anyhow::Result<Done> {
    setup.settings.gateway.credentials()?;
    let ledger = setup.ledger().await?;
    let queue = setup.queue().await?;
    let budget = setup.budget(&queue);
    let asking = setup.gateway(&ledger, budget.clone(), "run", BRIEFLY)?;
    let gateway = setup.gateway(&ledger, budget, "run", PATIENTLY)?;
    let parts = Parts { ledger, queue, gateway };
    if setup.settings.metrics.asked_for {
        setup.health.stands_on(Watched {
            ledger: parts.ledger.clone(),
            queue: parts.queue.clone(),
            gateway: Some(parts.gateway.clone()),
        });
        setup.be_a_service().await?;
    }
    let approved = file::approved_by_gateway(&parts.ledger, &asking).await?;
    let names = match args.file {
        None => open_campaigns(&parts.ledger).await?,
        Some(file) => {
            let args_of_file = FileArgs { file, options: args.options.on(args.conditions) };
            match load(&setup, &parts.ledger, &args_of_file, Some(approved), args.again).await? {
                Outcome::Loaded(loaded) => loaded.campaigns.into_iter().map(|(_, name)| name).collect(),
                Outcome::AlreadyUnfinished(earlier) => {
                    output::say(format_args!("Going on with what was launched before {earlier}."));
                    earlier.campaigns
                }
            }
        }
    };
    let summaries = send(&setup, &parts, &names).await?;
    report(&setup, &parts.ledger, &summaries).await?;
    let open: u64 = summaries.iter().map(CampaignSummary::open).sum();
    if setup.stopper.asked.is_cancelled() && open > 0 {
        output::say(format_args!(
            "{} not final yet; the same command goes on with them.",
            output::counted(open, "row")
        ));
        return Ok(setup.stopper.done());
    }
    Ok(ended(&summaries))
}

/// Checks and loads a file, and says what became of it and where the rejects are.
pub(crate) async fn load(
    setup: &Setup,
    ledger: &Ledger,
    args: &FileArgs,
    approved: Option<HashSet<SenderId>>,
    again: bool,
) -> anyhow::Result<Outcome> {
    let outcome = load_quietly(setup, ledger, args, approved, again).await?;
    if let Outcome::Loaded(loaded) = &outcome {
        if let Some(rejects) = &loaded.rejects_file {
            output::say(format_args!("What is left out is listed in {}.", rejects.display()));
        }
        if let Some(problem) = &loaded.rejects_problem {
            let instead = "`crier results --rejects-only` has it";
            output::say(format_args!("The list of rejects could not be written ({problem}); {instead}."));
        }
    }
    Ok(outcome)
}

/// Checks and loads a file, and says what became of it.
pub(crate) async fn load_quietly(
    setup: &Setup,
    ledger: &Ledger,
    args: &FileArgs,
    approved: Option<HashSet<SenderId>>,
    again: bool,
) -> anyhow::Result<Outcome> {
    let preview = file::checked(setup, ledger, args, approved, again).await?;
    let name = &preview.file_name;
    for note in &preview.notes {
        output::say(format_args!("{name}: {note}"));
    }
    let owner = setup.owner(ledger, "ingest").await?;
    let launch = Launch { again, launched_by: setup.who.clone(), owner: owner.id(), rejects_dir: None };
    let (clock, progress, stop) = (|| ledger.now(), |_| {}, &setup.stopper.asked);
    let loaded = ingest::load(ledger, &args.file, &preview, &launch, clock, progress, stop).await;
    owner.end(ledger.now()).await?;
    let outcome = loaded.map_err(|error| match error {
        LoadError::Cancelled if setup.stopper.asked.is_cancelled() => Stop::interrupted(error.to_string()).into(),
        error => anyhow::Error::from(error),
    })?;
    if let Outcome::Loaded(loaded) = &outcome {
        let counts = [
            ("to send", loaded.sendable),
            ("invalid", loaded.invalid),
            ("duplicate", loaded.duplicate),
            ("suppressed", loaded.suppressed),
        ];
        let words = counts.iter().enumerate().filter(|(at, (_, rows))| *at == 0 || *rows > 0);
        let words: Vec<_> = words.map(|(_, (word, rows))| format!("{} {word}", output::count(*rows))).collect();
        output::say(format_args!("{name}: {}", words.join(", ")));
    }
    Ok(outcome)
}

/// Runs all stages till everything is final or held, or the process is asked to end; how far the campaigns are then.
pub(crate) async fn send(setup: &Setup, parts: &Parts, names: &[String]) -> anyhow::Result<Vec<CampaignSummary>> {
    let mut progress = Progress::start();
    let (mut counted, mut counting) = (Instant::now(), Duration::ZERO);
    let mut look = async || {
        // Counting a million rows takes its time: it is done for at most a fortieth of it.
        if counted.elapsed() >= (counting * 40).max(progress.every()) {
            let began = Instant::now();
            if let Ok(summaries) = of(&parts.ledger, names).await {
                progress.show(&summaries);
            }
            (counted, counting) = (Instant::now(), began.elapsed());
        }
        parts.ledger.todo().await.is_ok_and(|todo| todo.is_empty())
    };
    let ended = loop {
        let stages = Stages::start(setup, parts, "run", &[Stage::Worker, Stage::Reconciler]).await?;
        match stages.until(Duration::from_millis(200), &mut look).await {
            Ok(End::TakenForDead) => {}
            Ok(End::Asked) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let summaries = of(&parts.ledger, names).await;
    if let Ok(summaries) = &summaries {
        progress.show(summaries);
    }
    progress.end();
    ended.and(summaries)
}

/// The campaigns of these names.
async fn of(ledger: &Ledger, names: &[String]) -> anyhow::Result<Vec<CampaignSummary>> {
    if let [name] = names {
        return Ok(ledger.campaign_summaries(Some(name)).await?);
    }
    let mut summaries = ledger.campaign_summaries(None).await?;
    summaries.retain(|summary| names.contains(&summary.campaign));
    Ok(summaries)
}

/// The campaigns that have something left to do.
async fn open_campaigns(ledger: &Ledger) -> anyhow::Result<Vec<String>> {
    let summaries = ledger.campaign_summaries(None).await?;
    Ok(summaries.into_iter().filter(|summary| summary.open() > 0).map(|summary| summary.campaign).collect())
}

async fn report(setup: &Setup, ledger: &Ledger, summaries: &[CampaignSummary]) -> anyhow::Result<()> {
    if setup.json {
        return output::print_json(&summaries);
    }
    if summaries.is_empty() {
        return Ok(output::print("Nothing was left to send.")?);
    }
    status::show(summaries)?;
    let mut rows = Vec::new();
    for summary in summaries {
        for reason in ledger.failure_reasons(Some(&summary.campaign)).await? {
            rows.push(vec![reason.campaign, reason.state.to_string(), output::count(reason.rows), reason.reason]);
        }
    }
    if !rows.is_empty() {
        output::print("")?;
        output::print_table(&["campaign", "state", "rows", "why"], rows)?;
    }
    Ok(())
}

/// How campaigns ended, as an exit code tells it.
pub(crate) fn ended(summaries: &[CampaignSummary]) -> Done {
    let wanting = [RowState::Invalid, RowState::Rejected, RowState::Held, RowState::Failed, RowState::Expired];
    let any = summaries.iter().any(|summary| wanting.into_iter().any(|state| summary.count(state) > 0));
    if any { Done::WithRows } else { Done::Well }
}
