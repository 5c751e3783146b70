//! `crier log`

use crate::{exit::Done, output, setup::Setup};
use ledger::{Log, LogEntry};

/// Tell what happened and who did it, oldest first; of one campaign, or of everything
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this campaign
    campaign: Option<String>,

    /// Only the last so many lines
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let Some(Log { mut entries, older_left_out }) = ledger.log(args.campaign.as_deref()).await? else {
        let name = args.campaign.as_deref().unwrap_or_default();
        return Err(super::no_campaign(&ledger, name).await?.into());
    };
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let left_out = entries.len().saturating_sub(limit);
    entries.drain(..left_out);
    if setup.json {
        output::print_json(&entries)?;
    } else if entries.is_empty() {
        output::print("Nothing has happened yet.")?;
    } else {
        for entry in &entries {
            output::print(line(entry, args.campaign.is_none()))?;
        }
    }
    if left_out > 0 || older_left_out {
        output::say(format_args!("What happened before is left out."));
    }
    Ok(Done::Well)
}

/// `2026-03-01T09:00:00Z  ann@desk: held row taken for sent (rows 17, 20-25), because: they rang`
fn line(entry: &LogEntry, name_campaign: bool) -> String {
    let mut text = format!("{:.0}  ", entry.at);
    if let (Some(campaign), true) = (&entry.campaign, name_campaign) {
        text.push_str(&format!("{campaign}: "));
    }
    text.push_str(&format!("{}: {}", entry.who, entry.detail));
    let mut counts = Vec::new();
    if !entry.row_numbers.is_empty() {
        let word = if entry.row_numbers.len() == 1 { "row" } else { "rows" };
        counts.push(format!("{word} {}", runs(&entry.row_numbers)));
    } else if entry.kind != "finished" && entry.kind != "finished_but_held" {
        counts.extend(entry.rows.map(|rows| output::counted(rows, "row")));
        if entry.times > 1 {
            counts.push(format!("{} times", output::count(entry.times)));
        }
    }
    counts.extend(entry.until.filter(|until| *until > entry.at).map(|until| format!("until {until:.0}")));
    if !counts.is_empty() {
        text.push_str(&format!(" ({})", counts.join(", ")));
    }
    if let Some(reason) = &entry.reason {
        text.push_str(&format!(", because: {reason}"));
    }
    text
}

/// Numbers as a person writes them: `17, 20-25`; of many runs only the first.
fn runs(numbers: &[i64]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let runs: Vec<&[i64]> = sorted.chunk_by(|a, b| a + 1 == *b).collect();
    let told = runs.iter().take(RUNS_TOLD).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [one] => one.to_string(),
        [] => String::new(),
    });
    let mut told = told.collect::<Vec<_>>().join(", ");
    if runs.len() > RUNS_TOLD {
        told.push_str(&format!(", … {} in all", output::count(sorted.len() as u64)));
    }
    told
}

/// Runs of row numbers that one line names.
const RUNS_TOLD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_numbers_are_told_in_runs() {
        assert_eq!(runs(&[25, 17, 20, 21, 22, 23, 24]), "17, 20-25");
        let apart: Vec<i64> = (0..50).map(|n| n * 2).collect();
        assert!(runs(&apart).ends_with("38, … 50 in all"), "{}", runs(&apart));
    }
}
