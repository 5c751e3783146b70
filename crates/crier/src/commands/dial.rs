//! `crier dial`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use campaign::Msisdn;
use ledger::Event;
use serde_json::json;

/// Have the gateway call a number (click to dial)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The number to call
    destination: String,

    /// Call this number too and connect the two, each without the other's number
    #[arg(long, value_name = "SOURCE")]
    from: Option<String>,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let region = setup.settings.ingest.region;
    let parse = |what: &str, number: &str| {
        let wrong = |error| Stop::failed(format!("the {what} is no number: {error}"));
        Msisdn::parse(number, region).map(|parsed| parsed.msisdn).map_err(wrong)
    };
    let destination = parse("destination", &args.destination)?;
    let source = args.from.as_deref().map(|number| parse("source", number)).transpose()?;
    let ledger = setup.ledger().await?;
    let gateway = setup.gateway_alone(&ledger, "dial").await?;
    let dialled = match &source {
        Some(source) => gateway.dial_masked(source, &destination).await,
        None => gateway.dial(&destination).await,
    }
    .map_err(|error| crate::setup::gateway_stop(&error, gateway.address()))?;
    let both = source.as_ref().map(|source| format!(" and {}", source.masked())).unwrap_or_default();
    let detail = format!("had the gateway call {}{both}: call {}", destination.masked(), dialled.call_id);
    ledger.append_event(&Event::new("dialled", &setup.who, detail), ledger.now()).await?;
    if setup.json {
        output::print_json(&json!({ "message": dialled.message, "call_id": dialled.call_id }))?;
    } else {
        output::print(format_args!("{} (call {})", dialled.message, dialled.call_id))?;
    }
    Ok(Done::Well)
}
