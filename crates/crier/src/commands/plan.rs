//! `crier plan`

use super::file::{self, FileArgs};
use crate::{exit::Done, output, setup::Setup};
use campaign::{
    SenderId,
    budget::Limits,
    forecast::{self, Calls},
};
use ingest::{Overlap, Preview, Survey};
use jiff::Timestamp;
use ledger::{Ledger, QueuedWork};
use serde::Serialize;
use std::{collections::HashSet, time::Duration};

/// Say what launching a file would take: rows, segments, cost, gateway calls, time, people who got texts lately; nothing is
/// sent. `crier run FILE --plan ID` then sends exactly that or nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,
}

/// What launching takes.
#[derive(Serialize)]
struct Plan {
    #[serde(flatten)]
    survey: Survey,
    /// All calls of this file.
    calls_total: u64,
    approval: Vec<Approval>,
    /// What is queued already; nothing without a ledger.
    queued: Queued,
    /// The least time that the call budget allows, if nothing else were queued.
    seconds_alone: u64,
    /// The same together with what is queued.
    seconds: u64,
    launched_before: Option<Earlier>,
}

#[derive(Serialize)]
struct Approval {
    sender: String,
    rows: u64,
    /// `None` when it is not known.
    approved: Option<bool>,
}

#[derive(Default, Serialize)]
struct Queued {
    rows: u64,
    /// Rows that wait for a time to come.
    later: u64,
    /// Calls that are left to do for what is due.
    calls: u64,
}

#[derive(Serialize)]
struct Earlier {
    file_name: String,
    at: Timestamp,
    by: String,
}

#[derive(Serialize)]
struct Whole<'a> {
    plan: &'a Plan,
    file: &'a Preview,
}

/// A token, the senders (when the file is checked, and when the reconciler begins), the gateway's clock.
const OTHER_CALLS: u64 = 4;

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_if_any().await?;
    let approved = match &ledger {
        Some(ledger) => approved(setup, ledger).await?,
        None => None,
    };
    let (preview, survey) = file::survey(setup, ledger.as_ref(), &args.file, approved.clone()).await?;
    let plan = plan(setup, ledger.as_ref(), &preview, survey, approved.as_ref()).await?;
    if setup.json {
        output::print_json(&Whole { plan: &plan, file: &preview })?;
    } else {
        print(&plan, &preview, &args.file.file.display().to_string())?;
    }
    if plan.approval.iter().any(|sender| sender.approved == Some(false)) {
        return Ok(Done::Failed);
    }
    Ok(if preview.invalid > 0 { Done::WithRows } else { Done::Well })
}

/// The approved senders as the gateway says now, else as the ledger knows them.
async fn approved(setup: &Setup, ledger: &Ledger) -> anyhow::Result<Option<HashSet<SenderId>>> {
    if setup.settings.gateway.credentials_if_any()?.is_some() {
        let gateway = setup.gateway_alone(ledger, "plan").await?;
        match file::approved_by_gateway(ledger, &gateway).await {
            Ok(approved) => return Ok(Some(approved)),
            Err(error) => output::say(format_args!("{}", crate::exit::line(&error))),
        }
    }
    Ok(ledger.approved_senders().await?.map(|(_, senders)| senders.into_iter().collect()))
}

async fn plan(
    setup: &Setup,
    ledger: Option<&Ledger>,
    preview: &Preview,
    mut survey: Survey,
    approved: Option<&HashSet<SenderId>>,
) -> anyhow::Result<Plan> {
    let settings = &setup.settings;
    if survey.to_send > 0 {
        survey.calls.other = OTHER_CALLS;
    }
    let (mut work, mut launched_before) = (QueuedWork::default(), None);
    let mut first_look = settings.reconcile.first_look;
    if let Some(ledger) = ledger {
        work = ledger.queued_work(settings.worker.batch_len_max as u64, ledger.now()).await?;
        launched_before = ledger.launched_before(&preview.sha256).await?;
        for sender in survey.senders.keys() {
            if let Some((_, learned)) = ledger.cursor(sender).await? {
                first_look = first_look.max(learned.unsigned_abs());
            }
        }
    }
    let limits = Limits {
        limit: settings.gateway.calls_per_window,
        window_ms: i64::try_from(settings.gateway.window.as_millis()).unwrap_or(i64::MAX / 4),
    };
    let all = together(&survey, &work);
    let approval = preview.senders.iter().map(|(sender, rows)| Approval {
        sender: sender.clone(),
        rows: *rows,
        approved: approved.map(|approved| approved.iter().any(|id| id.as_str() == sender)),
    });
    Ok(Plan {
        calls_total: survey.calls.total(),
        approval: approval.collect(),
        queued: Queued { rows: work.rows, later: work.later, calls: all.total() - survey.calls.total() },
        seconds_alone: forecast::duration(survey.calls, limits, first_look).as_secs(),
        seconds: forecast::duration(all, limits, first_look).as_secs(),
        launched_before: launched_before.map(|(file_name, at, by)| Earlier { file_name, at, by }),
        survey,
    })
}

/// The calls of the file and of what is queued: statuses of one sender are read together.
fn together(survey: &Survey, work: &QueuedWork) -> Calls {
    let ours = |sender| survey.senders.get(sender).copied().unwrap_or(0);
    let queued = work.recipients.iter().map(|(sender, recipients)| {
        forecast::list_pages(recipients + ours(sender)).saturating_sub(forecast::list_pages(ours(sender)))
    });
    Calls {
        bulk: survey.calls.bulk + work.calls.bulk,
        single: survey.calls.single + work.calls.single,
        list: survey.calls.list + queued.sum::<u64>(),
        other: survey.calls.other,
    }
}

fn print(plan: &Plan, preview: &Preview, path: &str) -> std::io::Result<()> {
    let (count, survey) = (output::count, &plan.survey);
    file::print(preview)?;
    if survey.suppressed > 0 {
        let rows = output::counted(survey.suppressed, "row");
        output::print(format_args!("opted out: {rows} left out, {} to send", count(survey.to_send)))?;
    }
    for Approval { sender, approved, .. } in &plan.approval {
        let word = match approved {
            Some(true) => "approved",
            Some(false) => "NOT approved: the file would be refused; `crier senders add` asks for it",
            None => "not known whether approved: there is no ledger that knows, or no credentials to ask with",
        };
        output::print(format_args!("sender {sender}: {word}"))?;
    }
    print_cost(survey)?;
    let Calls { bulk, single, list, other } = survey.calls;
    output::print(format_args!(
        "gateway calls: {}: {} to send ({} bulk, {} single), {} to learn the final statuses, {other} others",
        count(plan.calls_total),
        count(bulk + single),
        count(bulk),
        count(single),
        count(list),
    ))?;
    let time = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    output::print(format_args!("time at the call limit: at least {}", time(plan.seconds_alone)))?;
    let Queued { rows, later, calls } = plan.queued;
    if calls == 0 {
        output::print("queued already: nothing")?;
    } else {
        let (queued, total) = (output::counted(rows, "row"), time(plan.seconds));
        output::print(format_args!("queued already: {queued} ({} calls); together at least {total}", count(calls)))?;
    }
    if later > 0 {
        output::print(format_args!("scheduled for later, not counted: {}", output::counted(later, "row")))?;
    }
    if let Some(overlap) = &survey.overlap {
        print_overlap(overlap, survey.to_send)?;
    }
    if let Some(Earlier { file_name, at, by }) = &plan.launched_before {
        output::print(format_args!(
            "the same bytes were launched before, as {file_name} {} by {by}: they are refused without --again",
            ago(*at)
        ))?;
    }
    output::print(format_args!("plan {}", survey.id))?;
    output::print(format_args!("to send exactly this: crier run {path} --plan {}", survey.id))
}

fn print_cost(survey: &Survey) -> std::io::Result<()> {
    let (cost, segments) = (&survey.cost, output::counted(survey.segments, "segment"));
    if cost.by_prefix.is_empty() {
        if survey.to_send == 0 {
            return output::print("cost: nothing to send");
        }
        return output::print(format_args!("cost: not known for {segments}; set plan.prices"));
    }
    let part = |part: &ingest::CostOf| format!("{}: {} × {}", part.prefix, output::count(part.segments), part.price);
    let parts: Vec<String> = cost.by_prefix.iter().map(part).collect();
    let least = if cost.unpriced.is_empty() { "" } else { "at least " };
    output::print(format_args!(
        "cost: {least}{} {} for {segments} ({})",
        cost.amount,
        cost.currency,
        parts.join(", ")
    ))?;
    if !cost.unpriced.is_empty() {
        output::print(format_args!("no price for {}: set plan.prices", cost.unpriced_in_words()))?;
    }
    Ok(())
}

fn print_overlap(overlap: &Overlap, to_send: u64) -> std::io::Result<()> {
    let share = |people: u64| {
        format!("{} of {} ({} %)", output::count(people), output::count(to_send), people * 100 / to_send.max(1))
    };
    let since = overlap.since.strftime("%Y-%m-%d %H:%M UTC");
    if overlap.recipients == 0 {
        return output::print(format_args!("earlier texts: none of these people got one since {since}"));
    }
    if let (1.., Some(latest)) = (overlap.same_text, overlap.same_text_latest) {
        output::print(format_args!(
            "earlier texts: {} got this text, the last {}",
            share(overlap.same_text),
            ago(latest)
        ))?;
    }
    let latest = overlap.latest.map(ago).unwrap_or_default();
    let from: Vec<String> =
        overlap.campaigns.iter().take(5).map(|(name, people)| format!("{name} ({})", output::count(*people))).collect();
    let more = if overlap.campaigns.len() > from.len() { ", …" } else { "" };
    output::print(format_args!(
        "earlier texts: {} got some text since {since}, the last {latest}; {} from the same sender; by {}{more}",
        share(overlap.recipients),
        output::count(overlap.same_sender),
        from.join(", ")
    ))
}

/// `14 minutes ago`: the largest unit of it.
fn ago(at: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0).unsigned_abs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", output::counted(number, unit))
}
