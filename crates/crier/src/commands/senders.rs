//! `crier senders`

use super::{Why, file};
use crate::{exit::Done, exit::Stop, output, setup::Setup};
use campaign::{SenderId, rate::Rate};
use gateway::wire::SenderStatus;
use ledger::{By, Event, Ledger};
use serde_json::json;

/// List the gateway's sender ids, ask for a new one, or set how many texts may go out from one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them, and whether they are approved; the ledger remembers what it hears
    List,
    /// Ask the gateway for a new one; a person there approves it
    Add {
        /// Letters and digits, at most 11
        sender: String,
    },
    /// Send no more texts than this in a time from a sender, in all campaigns together; without a rate, list what is set
    Rate {
        /// The sender id
        #[arg(requires = "rate")]
        sender: Option<String>,
        /// As 100/min, 5/s or 2000/h; `none` lifts the limit
        rate: Option<String>,
        #[command(flatten)]
        why: Why,
    },
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger().await?;
    match args.command {
        Command::Rate { sender, rate, why } => {
            return set_rate(setup, &ledger, sender.as_deref().zip(rate.as_deref()), why.by(setup)).await;
        }
        Command::List => {
            let gateway = setup.gateway_alone(&ledger, "senders").await?;
            let listed =
                gateway.senders().await.map_err(|error| crate::setup::gateway_stop(&error, gateway.address()))?;
            file::record(&ledger, &listed).await?;
            if setup.json {
                let rows: Vec<_> = listed
                    .iter()
                    .map(|row| json!({ "sender": row.sender_id, "approved": (row.status == SenderStatus::Approved) }))
                    .collect();
                output::print_json(&rows)?;
            } else {
                let word = |approved| if approved { "approved" } else { "awaits approval" };
                let rows = listed
                    .iter()
                    .map(|row| vec![row.sender_id.clone(), word(row.status == SenderStatus::Approved).to_owned()]);
                output::print_table(&["sender", "is"], rows.collect())?;
            }
        }
        Command::Add { sender } => {
            let gateway = setup.gateway_alone(&ledger, "senders").await?;
            let sender = SenderId::parse(&sender).map_err(|error| Stop::failed(error.to_string()))?;
            let message = gateway
                .add_sender(&sender)
                .await
                .map_err(|error| crate::setup::gateway_stop(&error, gateway.address()))?;
            let event =
                Event::new("sender_asked_for", &setup.who, format!("asked the gateway for the sender id {sender}"));
            ledger.append_event(&event, ledger.now()).await?;
            if setup.json {
                output::print_json(&json!({ "sender": sender, "message": message }))?;
            } else {
                output::print(format_args!("{sender}: {message}"))?;
            }
        }
    }
    Ok(Done::Well)
}

/// Sets a sender's rate, and lists those that are set.
async fn set_rate(setup: &Setup, ledger: &Ledger, wish: Option<(&str, &str)>, by: By<'_>) -> anyhow::Result<Done> {
    if let Some((sender, words)) = wish {
        let sender = SenderId::parse(sender).map_err(|error| Stop::failed(error.to_string()))?;
        let rate = match words {
            "none" => None,
            words => Some(Rate::parse(words).map_err(|error| Stop::failed(error.to_string()))?),
        };
        ledger.set_sender_rate(&sender, rate, by, words, ledger.now()).await?;
    }
    let rates = ledger.sender_rates().await?;
    if setup.json {
        let rows = rates.iter().map(|(sender, rate)| json!({ "sender": sender, "microseconds_a_text": rate.text_us }));
        output::print_json(&rows.collect::<Vec<_>>())?;
    } else if rates.is_empty() {
        output::print("No sender has a rate of its own.")?;
    } else {
        let rows = rates.iter().map(|(sender, rate)| vec![sender.clone(), rate.to_string()]);
        output::print_table(&["sender", "at most"], rows.collect())?;
    }
    Ok(Done::Well)
}
