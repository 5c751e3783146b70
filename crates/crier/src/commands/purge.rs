//! `crier purge`

use crate::{exit::Done, output, setup::Setup};
use jiff::SignedDuration;
use ledger::{Ledger, Purged, Retention};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Remove texts and numbers that are older than they may be kept; rows, states and counts stay
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what would go, and leave it
    #[arg(long)]
    dry_run: bool,

    /// Remove copies of dropped files too: those in done/ and refused/ of this folder
    #[arg(long, value_name = "DIR")]
    drop: Option<PathBuf>,
}

/// How long texts and numbers are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    texts: Duration,
    numbers: Duration,
}

impl Kept {
    /// By the settings.
    pub(crate) fn of(setup: &Setup) -> Self {
        let settings = &setup.settings.retention;
        Self { texts: settings.texts, numbers: settings.numbers }
    }

    fn until(self, ledger: &Ledger) -> Retention {
        let before = |kept| {
            let kept = SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX);
            ledger.now().checked_sub(kept).unwrap_or(jiff::Timestamp::MIN)
        };
        Retention { texts_before: before(self.texts), numbers_before: before(self.numbers) }
    }
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let kept = Kept::of(setup);
    let retention = kept.until(&ledger);
    let copies = match &args.drop {
        Some(folder) => ingest::purge_copies(&ledger, folder, kept.texts, args.dry_run).await?,
        None => 0,
    };
    let purged = if args.dry_run {
        ledger.purgeable(retention).await?
    } else {
        ledger.purge(retention, &setup.who, ledger.now()).await?
    };
    if setup.json {
        let Purged { texts, numbers, reply_texts, reply_numbers } = purged;
        output::print_json(&json!({
            "texts": texts, "numbers": numbers, "reply_texts": reply_texts, "reply_numbers": reply_numbers,
            "copies": copies, "dry_run": args.dry_run,
        }))?;
    } else {
        let kept = |kept: Duration| match kept.as_secs() {
            seconds if seconds % DAY_S == 0 => format!("older than {}", output::counted(seconds / DAY_S, "day")),
            _ => format!("older than {}", humantime::format_duration(kept)),
        };
        let (texts, numbers) = (kept(setup.settings.retention.texts), kept(setup.settings.retention.numbers));
        let mut rows = vec![
            vec!["texts".to_owned(), texts.clone(), output::count(purged.texts)],
            vec!["numbers".to_owned(), numbers.clone(), output::count(purged.numbers)],
            vec!["texts of replies".to_owned(), texts.clone(), output::count(purged.reply_texts)],
            vec!["numbers of replies".to_owned(), numbers, output::count(purged.reply_numbers)],
        ];
        if args.drop.is_some() {
            rows.push(vec!["copies of files".to_owned(), texts, output::count(copies)]);
        }
        output::print_table(&["", "", if args.dry_run { "would be purged" } else { "purged" }], rows)?;
    }
    Ok(Done::Well)
}

const DAY_S: u64 = 24 * 3600;

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(DAY_S);

/// Purges the ledger once a day till the process ends. What fails is tried again an hour later.
pub(crate) async fn daily(ledger: Ledger, kept: Kept, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let purge = ledger.purge(kept.until(&ledger), "daily purge", ledger.now());
        let wait = match stop.run_until_cancelled(purge).await {
            Some(Ok(purged)) => {
                let Purged { texts, numbers, reply_texts, reply_numbers } = purged;
                if !purged.is_empty() {
                    tracing::info!(texts, numbers, reply_texts, reply_numbers, "purged what was old");
                }
                EVERY
            }
            Some(Err(error)) => {
                tracing::warn!(error = %ledger::chain(&error), "the daily purge waits for the ledger");
                EVERY / 24
            }
            None => break,
        };
        _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// Removes copies of dropped files once a day till the process ends.
pub(crate) async fn daily_copies(ledger: Ledger, folder: &Path, kept: Kept, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let purge = ingest::purge_copies(&ledger, folder, kept.texts, false);
        match stop.run_until_cancelled(purge).await {
            Some(Ok(0)) => {}
            Some(Ok(copies)) => tracing::info!(copies, "removed old copies of files"),
            Some(Err(error)) => tracing::warn!(error = %ledger::chain(&error), "old copies of files were not removed"),
            None => break,
        }
        _ = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}
