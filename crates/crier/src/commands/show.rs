//! `crier show`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use jiff::Timestamp;
use ledger::{ReportRow, Story, StoryAttempt, StoryReading};
use serde_json::json;
use std::fmt::Write;

/// Tell what happened to one row: its line, its calls, what the gateway's list showed, and who decided what
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
        let told = sentences(&story).into_iter().map(|(at, sentence)| json!({ "at": at, "sentence": sentence }));
        let mut document = serde_json::to_value(&story)?;
        document["sentences"] = told.collect();
        output::print_json(&document)?;
    } else {
        output::print(told(&story).trim_end())?;
    }
    Ok(Done::Well)
}

/// The row as it stands, then what happened to it in sentences, oldest first.
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
    line("to", row.destination.clone());
    line("written as", written_as(row));
    line("from", row.sender.clone());
    line("text", row.text.clone());
    line("segments", row.segments.map(|segments| format!("{segments} ({})", row.encoding.as_deref().unwrap_or("?"))));
    line("reference", row.reference.clone());
    line("not before", row.scheduled_for.map(at));
    line("not after", row.valid_until.map(at));
    let source = match row.id_source.as_deref() {
        Some("response") => " (from the answer)",
        Some("list") => " (found in the gateway's list)",
        _ => "",
    };
    line("sms_id", row.gateway_sms_id.map(|id| format!("{id}{source}")));
    line("status", row.gateway_status.clone().map(|status| status_in_words(&status)));
    text.push_str("What happened:\n");
    for (when, sentence) in sentences(story) {
        _ = writeln!(text, "  {}  {sentence}", at(when));
    }
    text
}

/// How the file writes the number, where that is not how the gateway takes it, and what was put right.
fn written_as(row: &ReportRow) -> Option<String> {
    let raw = row.destination_raw.as_str();
    let number = row.destination.as_deref();
    if number == Some(raw) {
        return None;
    }
    let digits: String = raw.chars().filter(char::is_ascii_digit).collect();
    let lost_its_zero = |number: &str| {
        !raw.trim_start().starts_with('+')
            && !digits.starts_with('0')
            && number.len() > digits.len()
            && number.ends_with(&digits)
    };
    Some(match number {
        Some(number) if lost_its_zero(number) => format!("{raw} (the lost zero was put back)"),
        _ => raw.to_owned(),
    })
}

/// What happened to a row, oldest first.
pub(super) fn sentences(story: &Story) -> Vec<(Timestamp, String)> {
    let row = &story.row;
    let mut told = vec![(story.launched_at, launch(story))];
    for attempt in &story.attempts {
        told.extend(call(attempt));
    }
    for reading in &story.readings {
        told.push((reading.began_at, look(story, reading)));
    }
    let asked_for = row.checked_at.filter(|checked| !story.readings.iter().any(|reading| is_within(*checked, reading)));
    if let (Some(checked), Some(status)) = (asked_for, &row.gateway_status) {
        told.push((checked, format!("The gateway said of it: {}.", status_in_words(status))));
    }
    // What a worker met is told with its call.
    for event in story.events.iter().filter(|event| (event.kind.as_str(), event.who.as_str()) != ("unknown", "worker"))
    {
        let reason = event.reason.as_ref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
        told.push((event.at, format!("{}: {}{reason}.", event.who, event.detail)));
    }
    if let Some(end) = row.final_at.filter(|_| !row.state.is_rejected_at_loading()) {
        told.push((end, format!("It is {}: that is final.", row.state)));
    }
    // Stable: what has the same time stays in the order in which it is told above.
    told.sort_by_key(|(when, _)| *when);
    told
}

/// How the row came in, and what was found right or wrong with it.
fn launch(story: &Story) -> String {
    let row = &story.row;
    let mut text =
        format!("{} launched {}, of which this is row {}", story.launched_by, story.file_name, row.row_number);
    match (row.state.is_rejected_at_loading() && row.attempts == 0, &row.reason) {
        (true, Some(reason)) => _ = write!(text, "; it was not queued but {}: {reason}.", row.state),
        (true, None) => _ = write!(text, "; it was not queued but {}.", row.state),
        (false, _) => text.push_str("; it was found valid and queued."),
    }
    text
}

/// One call, from its forming to its answer.
fn call(attempt: &StoryAttempt) -> Vec<(Timestamp, String)> {
    let id = attempt.id;
    let others = attempt.batch_len.unsigned_abs().saturating_sub(1);
    let with = match (attempt.sent_via.as_str(), others) {
        ("send", _) | (_, 0) => "alone".to_owned(),
        (_, others) => format!("with {}", output::counted(others, "other")),
    };
    let mut told = vec![(attempt.formed_at, format!("It was put into call {id}, {with}."))];
    if let Some(sending_at) = attempt.sending_at {
        told.push((sending_at, format!("Call {id} went out.")));
    }
    let outcome = attempt.outcome.as_deref().unwrap_or("nothing is known of its end");
    if let Some(ended_at) = attempt.ended_at {
        let sentence = match attempt.state.as_str() {
            "released" => format!("Call {id} was taken back before a byte of it had left: {outcome}."),
            "refused" => format!("Call {id} did not send anything: {outcome}."),
            _ if outcome == "accepted" => format!("Call {id}: the gateway took it."),
            _ => format!("Call {id}: {outcome}; whether it went out, the gateway's list must tell."),
        };
        told.push((ended_at, sentence));
    }
    told
}

/// One reading of the gateway's list.
fn look(story: &Story, reading: &StoryReading) -> String {
    let clock = |instant: Timestamp| instant.strftime("%H:%M:%S").to_string();
    let what = if reading.only_this_number { "texts to this number" } else { "texts" };
    let saw = match (story.found_at, story.row.gateway_sms_id) {
        (Some(found), Some(id)) if is_within(found, reading) => format!("this one is among them, as {id}"),
        (Some(found), _) if reading.began_at > found => match story.row.final_at {
            Some(end) if is_within(end, reading) => "this one has its final status".to_owned(),
            _ => "this one is still pending".to_owned(),
        },
        _ if story.row.id_source.as_deref() == Some("response") => "its status was looked for".to_owned(),
        _ => "this one is not among them".to_owned(),
    };
    let listed = match reading.listed {
        Some(listed) => format!("read: {} {what}", output::count(listed.unsigned_abs())),
        None => "read, though not completely".to_owned(),
    };
    let (since, until) = (clock(reading.since), clock(reading.until));
    format!("The gateway's list from {since} to {until} of its clock was {listed}; {saw}.")
}

/// What a reading showed was written down between its beginning and its end.
fn is_within(at: Timestamp, reading: &StoryReading) -> bool {
    (reading.began_at..=reading.read_at).contains(&at)
}

fn at(instant: Timestamp) -> String {
    format!("{:.0}", instant)
}

/// The gateway's word and what it means; the gateway never says *delivered*.
fn status_in_words(status: &str) -> String {
    match status {
        "operator" => "taken for sent by a person".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use campaign::RowState;

    fn row() -> ReportRow {
        ReportRow {
            campaign: "spring".to_owned(),
            row_number: 17,
            reference: None,
            destination_raw: "07700 900021".to_owned(),
            destination: Some("447700900021".to_owned()),
            sender: Some("ACME".to_owned()),
            text: Some("Hello".to_owned()),
            encoding: Some("gsm7".to_owned()),
            segments: Some(1),
            state: RowState::Sent,
            reason: None,
            attempts: 1,
            sent_via: Some("bulk".to_owned()),
            gateway_sms_id: Some(7),
            gateway_status: Some("sent".to_owned()),
            id_source: Some("list".to_owned()),
            scheduled_for: None,
            valid_until: None,
            queued_at: None,
            attempted_at: None,
            accepted_at: None,
            checked_at: None,
            final_at: None,
            updated_at: None,
        }
    }

    #[test]
    fn a_repaired_number_says_so() {
        let written = |raw: &str| written_as(&ReportRow { destination_raw: raw.to_owned(), ..row() });
        assert_eq!(written("447700900021"), None);
        assert_eq!(written("07700 900021").as_deref(), Some("07700 900021"));
        assert_eq!(written("7700900021").as_deref(), Some("7700900021 (the lost zero was put back)"));
        assert_eq!(written("+44 7700 900021").as_deref(), Some("+44 7700 900021"));
    }
}
