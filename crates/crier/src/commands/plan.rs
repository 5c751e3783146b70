//! `crier plan`

use super::file::{self, FileArgs};
use crate::{
    config::{GatewaySettings, PlanSettings},
    exit::Done,
    output,
    setup::Setup,
};
use ingest::Preview;
use serde::Serialize;
use std::time::Duration;

/// Say what sending a file would take: segments, cost, gateway calls, time; nothing is sent
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,
}

/// What sending takes.
#[derive(Debug, PartialEq, Serialize)]
struct Plan {
    segments: u64,
    cost: Option<f64>,
    currency: String,
    /// Calls that send: at most this many.
    send_calls: u64,
    /// Calls that learn the final statuses: at least this many.
    status_calls: u64,
    /// The least time that the call budget allows.
    seconds: u64,
}

/// Rows on one page of the gateway's list.
const ROWS_A_PAGE: u64 = 10;

impl Plan {
    fn of(preview: &Preview, batch_len_max: usize, gateway: &GatewaySettings, prices: &PlanSettings) -> Self {
        let (rows, texts) = (preview.sendable, preview.texts.max(1));
        // Each text but one may end in a batch that is not full.
        let send_calls = (rows.div_ceil(batch_len_max as u64) + texts - 1).min(rows);
        let status_calls = rows.div_ceil(ROWS_A_PAGE);
        let windows = (send_calls + status_calls).div_ceil(u64::from(gateway.calls_per_window));
        // What fits into one window goes out at once.
        let seconds = windows.saturating_sub(1) * gateway.window.as_secs();
        #[expect(clippy::cast_precision_loss, reason = "no file has 2^53 segments")]
        let cost = prices.price_per_segment.map(|price| price * preview.segments as f64);
        Self { segments: preview.segments, cost, currency: prices.currency.clone(), send_calls, status_calls, seconds }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    plan: &'a Plan,
    file: &'a Preview,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let preview = file::check(setup, &args.file, None).await?;
    let settings = &setup.settings;
    let plan = Plan::of(&preview, settings.worker.batch_len_max, &settings.gateway, &settings.plan);
    if setup.json {
        output::print_json(&Whole { plan: &plan, file: &preview })?;
    } else {
        file::print(&preview)?;
        let calls = output::count(plan.send_calls + plan.status_calls);
        let (sending, status) = (output::count(plan.send_calls), output::count(plan.status_calls));
        output::print(format_args!(
            "gateway calls: about {calls}: {sending} to send, {status} to learn the final statuses"
        ))?;
        let time = if plan.seconds == 0 {
            "within one window of the call limit".to_owned()
        } else {
            format!("at least {}", humantime::format_duration(Duration::from_secs(plan.seconds)))
        };
        output::print(format_args!("time at the call limit: {time}"))?;
        match plan.cost {
            Some(cost) => output::print(format_args!(
                "cost: {cost:.2} {} for {} segments",
                plan.currency,
                output::count(plan.segments)
            ))?,
            None => output::print("cost: not known; set plan.price_per_segment")?,
        }
    }
    Ok(if preview.invalid > 0 { Done::WithRows } else { Done::Well })
}
