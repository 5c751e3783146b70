//! `crier results`

use crate::{exit::Done, output, setup::Setup};
use campaign::RowState;
use jiff::Timestamp;
use ledger::{Ledger, REPORT_COLUMNS, ReportRow};
use std::{
    borrow::Cow,
    io::{BufWriter, IsTerminal, Write},
};

/// Print the delivery report: one line per row of the file, rejected ones too
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this campaign
    campaign: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Only rows in this state; may be given more than once
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<RowState>,

    /// Only rows that never went to the gateway or that it refused: invalid, duplicate, suppressed, rejected
    #[arg(long, conflicts_with = "states")]
    rejects_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The columns that matter, for reading
    Table,
    /// All columns, safe to open in a spreadsheet
    Csv,
    /// All columns, one JSON array
    Json,
}

const REJECTS: [RowState; 4] = [RowState::Invalid, RowState::Duplicate, RowState::Suppressed, RowState::Rejected];

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let names = match &args.campaign {
        Some(name) => super::summaries(&ledger, Some(name)).await.map(|_| vec![name.clone()])?,
        None => ledger.campaign_names().await?,
    };
    let states: &[RowState] = if args.rejects_only { &REJECTS } else { &args.states };
    let rows = Rows { ledger: &ledger, names: &names, states };
    match args.format {
        Format::Csv if !setup.json => csv(rows, std::io::stdout().lock()).await?,
        Format::Table if !setup.json => table(rows).await?,
        Format::Csv | Format::Json | Format::Table => json(rows).await?,
    }
    Ok(Done::Well)
}

/// The rows to print, read page by page.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) names: &'a [String],
    pub(crate) states: &'a [RowState],
}

impl Rows<'_> {
    pub(crate) async fn each(self, mut take: impl FnMut(ReportRow) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for name in self.names {
            let Some(mut results) = self.ledger.results(name, self.states).await? else { continue };
            while let Some(page) = results.next_page().await? {
                page.into_iter().try_for_each(&mut take)?;
            }
        }
        Ok(())
    }
}

/// All columns of the view as CSV, formula characters in free text quoted.
pub(crate) async fn csv(rows: Rows<'_>, to: impl Write) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(BufWriter::new(to));
    writer.write_record(REPORT_COLUMNS)?;
    rows.each(|row| Ok(writer.write_record(cells(&row).iter().map(|cell| cell.as_bytes()))?)).await?;
    Ok(writer.flush()?)
}

/// One array, a row to a line, so that neither we nor the reader need hold it whole.
async fn json(rows: Rows<'_>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut before = "[\n";
    rows.each(|row| {
        write!(out, "{before}{}", serde_json::to_string(&row)?)?;
        before = ",\n";
        Ok(())
    })
    .await?;
    write!(out, "{}", if before == "[\n" { "[]\n" } else { "\n]\n" })?;
    Ok(out.flush()?)
}

/// Rows that are drawn as one table; more are for a file.
const DRAWN_MAX: usize = 1_000;

async fn table(rows: Rows<'_>) -> anyhow::Result<()> {
    let header = ["campaign", "row", "destination", "sender", "state", "reason", "sms_id"];
    let (mut drawn, mut left_out) = (Vec::new(), 0_u64);
    let stream = !std::io::stdout().is_terminal();
    let mut out = BufWriter::new(std::io::stdout().lock());
    if stream {
        writeln!(out, "{}", header.join("\t"))?;
    }
    rows.each(|row| {
        let cells = short(row);
        if stream {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace(['\t', '\r', '\n'], " ")).collect();
            writeln!(out, "{}", cells.join("\t"))?;
        } else if drawn.len() < DRAWN_MAX {
            drawn.push(cells);
        } else {
            left_out += 1;
        }
        Ok(())
    })
    .await?;
    out.flush()?;
    drop(out);
    if !stream {
        output::print(output::drawn(&header, drawn))?;
    }
    if left_out > 0 {
        output::say(format_args!("{} more; --format csv prints all.", output::counted(left_out, "row")));
    }
    Ok(())
}

/// The cells that a person reads first.
fn short(row: ReportRow) -> Vec<String> {
    vec![
        row.campaign,
        row.row_number.to_string(),
        row.destination.unwrap_or(row.destination_raw),
        row.sender.unwrap_or_default(),
        row.state.to_string(),
        row.reason.unwrap_or_default(),
        row.gateway_sms_id.map(|id| id.to_string()).unwrap_or_default(),
    ]
}

/// All cells, in the order of the view's columns.
fn cells(row: &ReportRow) -> [Cow<'_, str>; 24] {
    fn free(text: Option<&String>) -> Cow<'_, str> {
        text.map_or(Cow::Borrowed(""), |text| spreadsheet_safe(text))
    }
    fn word(text: Option<&String>) -> Cow<'_, str> {
        text.map_or(Cow::Borrowed(""), |text| Cow::Borrowed(text.as_str()))
    }
    fn other(value: Option<impl ToString>) -> Cow<'static, str> {
        value.map_or(Cow::Borrowed(""), |value| Cow::Owned(value.to_string()))
    }
    fn at(instant: Option<Timestamp>) -> Cow<'static, str> {
        instant.map_or(Cow::Borrowed(""), |instant| Cow::Owned(format!("{instant:.3}")))
    }
    // What was read as a number and is written like one is left as it was typed.
    let number_like = |c: char| c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')' | '.');
    let raw = if row.destination.is_some() && row.destination_raw.chars().all(number_like) {
        Cow::Borrowed(row.destination_raw.as_str())
    } else {
        spreadsheet_safe(&row.destination_raw)
    };
    [
        spreadsheet_safe(&row.campaign),
        other(Some(row.row_number)),
        free(row.reference.as_ref()),
        raw,
        word(row.destination.as_ref()),
        free(row.sender.as_ref()),
        free(row.text.as_ref()),
        word(row.encoding.as_ref()),
        other(row.segments),
        Cow::Borrowed(row.state.name()),
        free(row.reason.as_ref()),
        other(Some(row.attempts)),
        word(row.sent_via.as_ref()),
        other(row.gateway_sms_id),
        free(row.gateway_status.as_ref()),
        word(row.id_source.as_ref()),
        at(row.scheduled_for),
        at(row.valid_until),
        at(row.queued_at),
        at(row.attempted_at),
        at(row.accepted_at),
        at(row.checked_at),
        at(row.final_at),
        at(row.updated_at),
    ]
}

/// A cell that a spreadsheet would take for a formula gets a leading `'`.
fn spreadsheet_safe(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_in_free_text_is_quoted_and_other_text_is_not() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(spreadsheet_safe(formula), format!("'{formula}"));
        }
        for plain in ["", "Hello = you", "'=1", "447700900123"] {
            assert_eq!(spreadsheet_safe(plain), plain);
        }
    }
}
