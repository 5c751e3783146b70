//! `crier migrate`

use crate::{exit::Done, output, setup::Setup};
use ledger::{Event, Schema};
use serde_json::json;

/// Bring the ledger's schema up to date; an embedded ledger does this by itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(setup: &Setup, _args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.open().await?;
    let before = ledger.schema().await?;
    if before == Schema::Behind {
        ledger.migrate().await?;
        ledger.append_event(&Event::new("migrated", &setup.who, "brought the schema up to date"), ledger.now()).await?;
    }
    let (said, done) = match before {
        Schema::Behind => ("migrated", Done::Well),
        Schema::Current => ("up to date already", Done::Well),
        Schema::Newer => ("on a newer schema already, with which this crier works", Done::Well),
        Schema::Ahead => ("on a newer schema than this crier knows; update this crier", Done::Dependency),
        Schema::Foreign => ("made by a crier with another schema of the same number; use that one", Done::Dependency),
    };
    if setup.json {
        output::print_json(&json!({ "ledger": setup.ledger_name(), "result": said }))?;
    } else {
        output::print(format_args!("{}: {said}", setup.ledger_name()))?;
    }
    Ok(done)
}
