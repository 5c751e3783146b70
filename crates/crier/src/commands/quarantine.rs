//! `crier quarantine`

use super::time;
use crate::{
    exit::{Done, Stop},
    output,
    setup::Setup,
};
use clap::Subcommand;
use jiff::SignedDuration;
use ledger::Ledger;
use serde_json::json;

/// Send nothing from a restored ledger until the gateway's list was read back
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    deed: Option<Deed>,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Say whether the ledger is in quarantine
    Status,
    /// Begin one: after every restore, before the services start
    Begin {
        /// When the backup was made, or earlier [default: the last sign of life in the ledger]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,

        /// Why, for the record
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// End it although the list was not read back: whoever was texted after the backup may be texted again
    End {
        /// Why, for the record
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,

        /// Say that this is meant
        #[arg(long)]
        confirm: bool,
    },
}

/// A sender that was seen this lately is running.
const RUNNING: SignedDuration = SignedDuration::from_secs(60);

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    match args.deed {
        None | Some(Deed::Status) => {}
        Some(Deed::Begin { since, reason }) => {
            let since = since.map(|text| time::from(setup, "--since", &text)).transpose()?;
            if since.is_some_and(|since| since > ledger.now()) {
                let advice = "Say when the backup was made, or earlier.";
                return Err(Stop::failed("--since is yet to come").advise(advice).into());
            }
            let seen = ledger.last_sign_of_life().await?;
            if since.is_none() && seen.is_some_and(|seen| ledger.now().duration_since(seen) < RUNNING) {
                let what = "a process that sends is running on this ledger, or was until a minute ago";
                let advice = "Stop the services first, or say with --since when the backup was made.";
                return Err(Stop::failed(what).advise(advice).into());
            }
            if !ledger.begin_quarantine(&setup.who, &reason, since, ledger.now()).await? {
                output::say(format_args!("It has begun already."));
            }
        }
        Some(Deed::End { reason, confirm }) => {
            if !confirm && ledger.quarantine().await?.is_some() {
                output::say(format_args!(
                    "crier: whoever was texted after the backup and is not found yet is texted again. Say --confirm to end it."
                ));
                return Ok(Done::Usage);
            }
            ledger.end_quarantine(&setup.who, &reason, None, ledger.now()).await?;
        }
    }
    show(setup, &ledger).await
}

async fn show(setup: &Setup, ledger: &Ledger) -> anyhow::Result<Done> {
    let quarantine = ledger.quarantine().await?;
    if setup.json {
        output::print_json(&quarantine.map(|q| {
            json!({"since": q.since, "began_at": q.began_at, "began_by": q.began_by, "why": q.why, "read_at": q.read_at})
        }))?;
        return Ok(Done::Well);
    }
    match quarantine {
        None => output::print("No quarantine: what is queued is sent.")?,
        Some(quarantine) => {
            let read = match quarantine.read_at {
                None => "it was not read back completely yet; a reconciler does that".to_owned(),
                Some(at) => format!(
                    "last read back completely at {at:.0}; it ends when a second reading, a settle later, agrees"
                ),
            };
            output::print(format_args!(
                "Quarantine: nothing is sent.\n  began    {:.0}, by {}\n  because  {}\n  list     from {:.0} on; {read}",
                quarantine.began_at, quarantine.began_by, quarantine.why, quarantine.since
            ))?;
        }
    }
    Ok(Done::Well)
}
