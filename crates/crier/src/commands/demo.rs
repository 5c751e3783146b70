//! `crier demo`

use super::{
    file::{self, FileArgs, OptionArgs},
    results::{self, Rows},
    run,
};
use crate::{
    config::{Merged, Settings, Sources},
    exit::{Done, Stop},
    output, progress,
    setup::{BRIEFLY, PATIENTLY, Setup},
    stages::Parts,
};
use ::sandbox::{Config, Running, Sandbox};
use anyhow::Context;
use campaign::RowState;
use ingest::Outcome;
use ledger::{CampaignSummary, Ledger, ReportRow};
use std::path::Path;
use tokio::net::TcpListener;

/// See it work: a fake gateway, a ledger in a temporary folder, the example file, a delivery report at the end
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The one file that the demo leaves behind, in the working directory.
const REPORT: &str = "crier-demo-report.csv";
/// Characters of a text that the demo's table shows.
const TEXT_MAX: usize = 32;
const EXAMPLE: &[u8] = include_bytes!("../../../../campaigns.example.csv");

pub(crate) async fn run(setup: Setup, _args: Args) -> anyhow::Result<Done> {
    output::say(format_args!(
        "This is a demo: the gateway is a sandbox on this machine. No credentials, no real text."
    ));
    let dir = tempfile::tempdir().context("make a temporary folder")?;
    let example = dir.path().join("campaigns.example.csv");
    std::fs::write(&example, EXAMPLE).context("write the example file")?;
    let config = Config {
        delivery_min_ms: 300,
        delivery_max_ms: 2_000,
        fail_share: 0.02,
        fail_endings: vec!["999".to_owned()],
        ..Config::default()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen on this machine")?;
    let credentials = [&config.client_id, &config.client_secret, &config.username, &config.password].map(Clone::clone);
    let sandbox = Sandbox::start(config, listener)?;
    let setup = Setup { settings: settings(&sandbox, dir.path(), credentials)?, ..setup };

    let ledger = setup.ledger().await?;
    let queue = setup.queue().await?;
    let budget = setup.budget(&queue);
    let asking = setup.gateway(&ledger, budget.clone(), "demo", BRIEFLY)?;
    let gateway = setup.gateway(&ledger, budget, "demo", PATIENTLY)?;
    let parts = Parts { ledger, queue, gateway };
    let approved = file::approved_by_gateway(&parts.ledger, &asking).await?;
    let args = FileArgs { file: example, options: OptionArgs::default() };
    let Outcome::Loaded(loaded) = run::load_quietly(&setup, &parts.ledger, &args, Some(approved), false).await? else {
        return Err(Stop::failed("a new ledger knows the example file already").into());
    };
    let names: Vec<String> = loaded.campaigns.into_iter().map(|(_, name)| name).collect();
    let summaries = run::send(&setup, &parts, &names).await?;
    if setup.stopper.asked.is_cancelled() {
        return Ok(setup.stopper.done());
    }
    report(&parts.ledger, &names, &summaries, sandbox).await
}

/// The sandbox's address and its made-up credentials instead of whatever is configured.
fn settings(sandbox: &Running, dir: &Path, credentials: [String; 4]) -> anyhow::Result<Settings> {
    let [client_id, client_secret, username, password] = credentials;
    let set = [
        format!("gateway.base_url={}", sandbox.base_url),
        format!("gateway.client_id={client_id}"),
        format!("gateway.client_secret={client_secret}"),
        format!("gateway.username={username}"),
        format!("gateway.password={password}"),
        format!("ledger.url=sqlite://{}", dir.join("crier.db").display()),
        "reconcile.settle=1s".to_owned(),
        "reconcile.first_look=500ms".to_owned(),
    ];
    Ok(Settings::parse(&Merged::load(&Sources { set: set.to_vec(), ..Sources::default() })?)?)
}

/// One row as the demo shows it.
fn line(row: ReportRow) -> Vec<String> {
    let text: String = row.text.unwrap_or_default().replace('\n', " ");
    let shown =
        if text.chars().count() > TEXT_MAX { text.chars().take(TEXT_MAX).chain(['…']).collect() } else { text };
    vec![
        row.row_number.to_string(),
        row.destination.unwrap_or(row.destination_raw),
        row.sender.unwrap_or_default(),
        shown,
        row.state.to_string(),
        row.reason.unwrap_or_default(),
    ]
}

async fn report(
    ledger: &Ledger,
    names: &[String],
    summaries: &[CampaignSummary],
    sandbox: Running,
) -> anyhow::Result<Done> {
    let rows = Rows { ledger, names, states: &[] };
    let mut lines = Vec::new();
    rows.each(|row| {
        lines.push((row.row_number, line(row)));
        Ok(())
    })
    .await?;
    lines.sort_by_key(|(row, _)| *row);
    let cells = lines.into_iter().map(|(_, cells)| cells).collect();
    output::print(output::drawn(&["row", "to", "from", "text", "state", "why"], cells))?;

    output::print(format_args!("\n{}", progress::in_words(summaries)))?;
    let checks = ledger.verify().await?;
    let balanced = checks.iter().all(|check| check.holds);
    for check in checks.iter().filter(|check| !check.holds) {
        output::print(format_args!("FAIL {}: {}", check.check, check.found))?;
    }
    if let (true, Some(first)) = (balanced, checks.first()) {
        output::print(format_args!("verify: {}; {}", first.check, first.found))?;
    }
    let (book, twice) = (sandbox.book(), sandbox.twice());
    let calls: u64 = book.calls.values().sum();
    let texted = if twice.is_empty() {
        "nobody was texted twice".to_owned()
    } else {
        format!("{} were texted TWICE", twice.len())
    };
    let gateway = format!(
        "gateway: {} made, {} taken, {texted}",
        output::counted(calls, "call"),
        output::counted(book.accepted, "text")
    );
    output::print(gateway)?;
    let file = std::fs::File::create(REPORT).with_context(|| format!("write {REPORT}"))?;
    results::csv(rows, file).await?;
    output::print(format_args!("The whole report: {REPORT}"))?;
    sandbox.stop().await;
    let settled = summaries.iter().map(CampaignSummary::open).sum::<u64>() == 0
        && summaries.iter().all(|summary| summary.count(RowState::Held) == 0);
    if balanced && settled && twice.is_empty() {
        Ok(Done::Well)
    } else {
        Err(Stop::failed("the demo did not end as it should").into())
    }
}
