//! `crier suppress`

use crate::{
    exit::{Done, Stop},
    output,
    setup::Setup,
};
use campaign::{Msisdn, SenderId};
use clap::builder::NonEmptyStringValueParser;
use ledger::{MadeBy, NewOptOut, OptedOut};
use serde_json::json;
use std::path::PathBuf;

/// See to it that people get no more texts; who and why is recorded
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send no more texts to these numbers; what is not begun yet is stopped
    Add {
        /// The numbers, as a file may have them
        #[arg(required = true, value_name = "NUMBER")]
        numbers: Vec<String>,
        /// Only texts from this sender
        #[arg(long, value_name = "ID")]
        sender: Option<String>,
        /// Why, for the record
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Take a CSV file of numbers: one column, or a header with destination, and sender and reason if wanted. All or nothing
    Import {
        /// The CSV file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only texts from this sender, where the file has none
        #[arg(long, value_name = "ID")]
        sender: Option<String>,
        /// Why, where the file does not say
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        reason: Option<String>,
    },
    /// List who gets no texts
    List,
    /// Let a number have texts again
    Remove {
        /// The number
        number: String,
        /// Only texts from this sender
        #[arg(long, value_name = "ID")]
        sender: Option<String>,
        /// Why, for the record
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    match args.command {
        Command::Add { numbers, sender, reason } => {
            let sender = sender.as_deref().map(sender_id).transpose()?;
            // All are read before the first is entered: a mistyped one enters nothing.
            let entered = (1..).zip(&numbers).map(|(nth, number)| {
                Ok(NewOptOut { number: read(setup, nth, number)?, sender: sender.clone(), reason: reason.clone() })
            });
            enter(setup, &entered.collect::<anyhow::Result<Vec<_>>>()?).await
        }
        Command::Import { file, sender, reason } => import(setup, file, sender, reason).await,
        Command::List => list(setup).await,
        Command::Remove { number, sender, reason } => {
            let sender = sender.as_deref().map(sender_id).transpose()?;
            remove(setup, read(setup, 1, &number)?, sender, &reason).await
        }
    }
}

/// The nth number of the command line. The error does not repeat it.
fn read(setup: &Setup, nth: usize, number: &str) -> anyhow::Result<Msisdn> {
    let parsed = Msisdn::parse(number, setup.settings.ingest.region);
    let unread = |error| Stop::failed(format!("NUMBER {nth} can't be read: {error}")).advise("Nothing was changed.");
    Ok(parsed.map_err(unread)?.msisdn)
}

fn sender_id(id: &str) -> anyhow::Result<SenderId> {
    Ok(SenderId::parse(id).map_err(|error| Stop::failed(error.to_string()).advise("Nothing was changed."))?)
}

async fn import(setup: &Setup, file: PathBuf, sender: Option<String>, reason: Option<String>) -> anyhow::Result<Done> {
    let sender = sender.as_deref().map(sender_id).transpose()?;
    let (region, name) = (setup.settings.ingest.region, file.display().to_string());
    let read = tokio::task::spawn_blocking(move || ingest::opt_outs(&file, region)).await?;
    let refused =
        |error: ingest::Refusal| Stop::failed(format!("the file is refused: {error}")).advise("Nothing was changed.");
    let (mut entered, mut bad) = (Vec::new(), 0);
    for line in read.map_err(refused)? {
        match line.read {
            Ok((number, of_line, why)) => {
                let Some(reason) = why.or_else(|| reason.clone()) else {
                    let what = format!("row {} of {name} has no reason", line.row_number);
                    return Err(Stop::failed(what).advise("Say --reason for all of them. Nothing was changed.").into());
                };
                entered.push(NewOptOut { number, sender: of_line.or_else(|| sender.clone()), reason });
            }
            Err(error) => {
                bad += 1;
                output::say(format_args!("row {}: {error}", line.row_number));
            }
        }
    }
    if bad > 0 {
        let what = format!("{} of {name} can't be read", output::counted(bad, "row"));
        return Err(Stop::failed(what).advise("Correct or remove them. Nothing was changed.").into());
    }
    enter(setup, &entered).await
}

async fn enter(setup: &Setup, entered: &[NewOptOut]) -> anyhow::Result<Done> {
    let ledger = setup.ledger().await?;
    let done = ledger.opt_out(entered, &setup.who, ledger.now()).await?;
    if setup.json {
        output::print_json(&done)?;
    } else {
        let OptedOut { added, already, under_way } = done;
        output::print(format_args!(
            "{} entered, {} there before",
            output::counted(added, "opt-out"),
            output::count(already)
        ))?;
        if under_way > 0 {
            let texts = output::counted(under_way, "text");
            output::print(format_args!("{texts} to them begun before can't be recalled"))?;
        }
    }
    Ok(Done::Well)
}

async fn list(setup: &Setup) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let listed = ledger.opt_outs().await?;
    if setup.json {
        output::print_json(&listed)?;
    } else if listed.is_empty() {
        output::print("Nobody has opted out.")?;
    } else {
        let cells = listed.into_iter().map(|out| {
            let by = match out.made_by {
                MadeBy::Operator => out.added_by,
                MadeBy::Message => format!("the person, {}", out.added_by),
            };
            let sender = out.sender.unwrap_or_else(|| "every sender".to_owned());
            vec![out.destination, sender, out.reason, by, out.added_at.to_string()]
        });
        output::print_table(&["destination", "no texts from", "why", "by", "since"], cells.collect())?;
    }
    Ok(Done::Well)
}

async fn remove(setup: &Setup, number: Msisdn, sender: Option<SenderId>, reason: &str) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let done = ledger.opt_in(number, sender.as_ref(), &setup.who, reason, ledger.now()).await?;
    if setup.json {
        output::print_json(&json!({ "destination": number.to_string(), "removed": done.removed, "left": done.left }))?;
    } else if done.removed == 0 {
        output::print(format_args!("{number}: there was no such opt-out"))?;
    } else {
        output::print(format_args!("{number}: {} removed", output::counted(done.removed, "opt-out")))?;
    }
    if done.left > 0 {
        output::say(format_args!(
            "{} of this number left: `crier suppress list`",
            output::counted(done.left, "opt-out")
        ));
    }
    Ok(if done.removed > 0 { Done::Well } else { Done::Failed })
}
