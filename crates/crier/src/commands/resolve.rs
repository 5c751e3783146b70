//! `crier resolve`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use campaign::{CampaignId, RowId};
use ledger::{By, Decided, EarlierDecision, FoundRow, Ledger, Verdict};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    str::FromStr,
};

/// Decide what becomes of held rows; who and why is recorded
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("decision").required(true).args(["assume_sent", "resend", "cancel"])))]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// The rows, as the spreadsheet numbers them: 17, or 20-25 for the held ones among these
    #[arg(required_unless_present = "all", value_name = "ROW")]
    rows: Vec<Rows>,

    /// All rows of the campaign that are held
    #[arg(long, conflicts_with = "rows")]
    all: bool,

    /// They were sent: count them as sent
    #[arg(long)]
    assume_sent: bool,

    /// Send them once more: if the first text did go out, the person gets it twice
    #[arg(long)]
    resend: bool,

    /// Never send them
    #[arg(long)]
    cancel: bool,

    /// Why, for the record
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,

    /// Do it: needed to send again, and to decide about all at once
    #[arg(long)]
    confirm: bool,
}

/// One row or a run of rows, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    first: u32,
    last: u32,
}

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| "a row is a number, a range two: 17 or 20-25");
        let rows = match text.split_once('-') {
            None => number(text).map(|row| Self { first: row, last: row })?,
            Some((first, last)) => Self { first: number(first)?, last: number(last)? },
        };
        if rows.first > rows.last { Err(format!("{rows} runs backwards")) } else { Ok(rows) }
    }
}

impl Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let campaign = super::one(&ledger, &args.campaign).await?;
    let (verdict, words) = match (args.assume_sent, args.resend) {
        (true, _) => (Verdict::AssumeSent, "counted as sent"),
        (_, true) => (Verdict::Resend, "queued to be sent once more"),
        _ => (Verdict::Cancel, "cancelled"),
    };
    if verdict == Verdict::Resend && campaign.campaign_state == "cancelled" {
        let what = format!("the campaign {} is cancelled: nothing of it is sent any more", args.campaign);
        return Err(Stop::failed(what).advise("Nothing was decided. Use --assume-sent or --cancel.").into());
    }
    let rows = if args.all { vec![Rows { first: 0, last: u32::MAX }] } else { args.rows.clone() };
    let found = look_up(&ledger, campaign.id, &args.campaign, &rows).await?;
    if found.is_empty() {
        let which = if args.all { "No row".to_owned() } else { format!("None of the rows {}", listed(&rows)) };
        return Err(Stop::failed(format!("{which} of {} is held", args.campaign))
            .advise("Nothing was decided.")
            .into());
    }
    if !args.confirm && (args.all || verdict == Verdict::Resend) {
        return Err(unconfirmed(verdict, words, found.len()).into());
    }
    let ids: Vec<RowId> = found.values().map(|row| row.id).collect();
    let by = By { who: &setup.who, reason: Some(&args.reason) };
    let decided = ledger.decide_all(campaign.id, &ids, verdict, by, ledger.now()).await?;
    let outcomes: Vec<(i64, Decided)> =
        found.keys().copied().zip(decided.into_iter().map(|(_, decided)| decided)).collect();
    if setup.json {
        let rows = outcomes.iter().map(|(row, decided)| match decided {
            Decided::Done => json!({ "row": row, "decided": true }),
            Decided::NotHeld { state, by } => {
                json!({ "row": row, "decided": false, "state": state, "decided_before": by })
            }
            Decided::NotThere => json!({ "row": row, "decided": false }),
        });
        output::print_json(&rows.collect::<Vec<_>>())?;
    } else {
        for (row, decided) in &outcomes {
            output::print(format_args!("row {row}: {}", said(decided, words)))?;
        }
    }
    Ok(if outcomes.iter().all(|(_, decided)| *decided == Decided::Done) { Done::Well } else { Done::Failed })
}

/// The rows to decide about, by their numbers: each that is named by itself, and the held ones of ranges.
///
/// All are looked up before the first is decided: a mistyped number decides nothing.
async fn look_up(
    ledger: &Ledger,
    campaign: CampaignId,
    name: &str,
    wanted: &[Rows],
) -> anyhow::Result<BTreeMap<i64, FoundRow>> {
    let mut found = BTreeMap::new();
    for rows in wanted {
        let there = if rows.first == rows.last {
            let Some(row) = ledger.row_numbered(campaign, rows.first).await? else {
                let what = format!("the campaign {name} has no row {rows}");
                return Err(Stop::failed(what).advise("Nothing was decided.").into());
            };
            vec![row]
        } else {
            ledger.held_between(campaign, rows.first, rows.last).await?
        };
        found.extend(there.into_iter().map(|row| (row.row_number, row)));
    }
    Ok(found)
}

fn listed(rows: &[Rows]) -> String {
    rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is to be confirmed.
fn unconfirmed(verdict: Verdict, words: &str, rows: usize) -> Stop {
    let rows = output::counted(rows as u64, "row");
    let what = match verdict {
        Verdict::Resend => format!(
            "what became of the first text is not known: if it did go out, the person gets it twice ({rows} would be sent again)"
        ),
        Verdict::AssumeSent | Verdict::Cancel => format!("{rows} would be {words}"),
    };
    Stop::usage(what).advise("Nothing was decided. Say --confirm to do it.")
}

fn said(decided: &Decided, words: &str) -> String {
    match decided {
        Decided::Done => words.to_owned(),
        Decided::NotHeld { by: Some(EarlierDecision { at, who, detail, reason }), state } => {
            let reason = reason.as_ref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
            format!("left as it is, {state}: {who} decided at {at:.0}: {detail}{reason}")
        }
        Decided::NotHeld { by: None, state } => format!("left as it is: it is {state}, not held"),
        Decided::NotThere => "there is no such row any more".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbers_and_ranges() {
        assert_eq!("17".parse(), Ok(Rows { first: 17, last: 17 }));
        assert_eq!("20-25".parse(), Ok(Rows { first: 20, last: 25 }));
        for wrong in ["", "x", "-", "5-", "-5", "25-20", "1-2-3", "4294967296"] {
            assert!(wrong.parse::<Rows>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_came_first_is_told() {
        let by = EarlierDecision {
            at: "2026-03-01T09:00:00Z".parse().unwrap(),
            who: "bob@desk".to_owned(),
            detail: "held row given up".to_owned(),
            reason: Some("too late".to_owned()),
        };
        let told = said(&Decided::NotHeld { state: campaign::RowState::Cancelled, by: Some(by) }, "counted as sent");
        assert_eq!(
            told,
            "left as it is, cancelled: bob@desk decided at 2026-03-01T09:00:00Z: held row given up, because: too late"
        );
    }
}
