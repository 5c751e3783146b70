//! `crier show`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use jiff::Timestamp;
use ledger::{Story, StoryAttempt};
use std::fmt::Write;

/// Tell what happened to one row
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The campaign
    campaign: String,

    /// The row, as the spreadsheet numbers it: the header is row 1
    row: u32,
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let Some(story) = ledger.story(&args.campaign, args.row).await? else {
        super::summaries(&ledger, Some(&args.campaign)).await?;
        let what = format!("the campaign {} has no row {}", args.campaign, args.row);
        return Err(Stop::failed(what).advise("The header is row 1; a file may hold several campaigns.").into());
    };
    if setup.json {
        output::print_json(&story)?;
    } else {
        output::print(told(&story).trim_end())?;
    }
    Ok(Done::Well)
}

/// The story in lines.
fn told(story: &Story) -> String {
    let row = &story.row;
    let mut text = format!("Row {} of {} ({}) is {}", row.row_number, row.campaign, story.file_name, row.state);
    match &row.reason {
        Some(reason) => _ = writeln!(text, ": {reason}"),
        None => text.push('\n'),
    }
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            _ = writeln!(text, "  {name:<11} {value}");
        }
    };
    let raw = Some(row.destination_raw.as_str()).filter(|raw| Some(*raw) != row.destination.as_deref());
    line("to", row.destination.clone());
    line("written as", raw.map(str::to_owned));
    line("from", row.sender.clone());
    line("text", row.text.clone());
    line("segments", row.segments.map(|segments| format!("{segments} ({})", row.encoding.as_deref().unwrap_or("?"))));
    line("reference", row.reference.clone());
    line("not before", row.scheduled_for.map(at));
    line("not after", row.valid_until.map(at));
    line("queued", row.queued_at.map(at));
    for attempt in &story.attempts {
        line(&format!("call {}", attempt.id), Some(call(attempt)));
    }
    let source = match row.id_source.as_deref() {
        Some("response") => " (from the answer)",
        Some("list") => " (found in the gateway's list)",
        _ => "",
    };
    line("accepted", row.accepted_at.map(at));
    line("sms_id", row.gateway_sms_id.map(|id| format!("{id}{source}")));
    line("status", row.gateway_status.clone().map(|status| status_in_words(&status)));
    line("checked", row.checked_at.map(at));
    line("final", row.final_at.map(at));
    for event in &story.events {
        let reason = event.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        line("event", Some(format!("{} {} by {}: {}{reason}", at(event.at), event.kind, event.who, event.detail)));
    }
    text
}

/// One attempt in a sentence.
fn call(attempt: &StoryAttempt) -> String {
    let way =
        if attempt.sent_via == "send" { "alone".to_owned() } else { format!("with {} in all", attempt.batch_len) };
    let mut text = format!("{way}, formed {}", at(attempt.formed_at));
    match attempt.sending_at {
        Some(sending_at) => _ = write!(text, ", sent out {}", at(sending_at)),
        None => text.push_str(", never sent out"),
    }
    _ = write!(text, ", {}", attempt.state);
    if let Some(outcome) = &attempt.outcome {
        _ = write!(text, ": {outcome}");
    }
    if attempt.looks > 0 {
        _ = write!(
            text,
            "; looked for in the gateway's list: {}",
            output::counted(attempt.looks.unsigned_abs(), "time")
        );
    }
    text
}

fn at(instant: Timestamp) -> String {
    format!("{:.0}", instant)
}

/// The gateway's number and what it means; the gateway never says *delivered*.
fn status_in_words(status: &str) -> String {
    match status {
        "0" => "0, pending".to_owned(),
        "1" => "1, sent".to_owned(),
        "2" => "2, failed".to_owned(),
        other => other.to_owned(),
    }
}
