//! `crier senders`

use super::file;
use crate::{exit::Done, exit::Stop, output, setup::Setup};
use campaign::SenderId;
use gateway::wire::SenderStatus;
use ledger::Event;
use serde_json::json;

/// List the gateway's sender ids, or ask for a new one
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
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger().await?;
    let gateway = setup.gateway_alone(&ledger, "senders").await?;
    match args.command {
        Command::List => {
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
