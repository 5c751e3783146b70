//! `crier verify`

use crate::{exit::Done, output, setup::Setup};

/// Prove that the rows of every file balance, and that rows, chunks and attempts agree
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(setup: &Setup, _args: &Args) -> anyhow::Result<Done> {
    let ledger = setup.ledger_to_read().await?;
    let checks = ledger.verify().await?;
    let failed = checks.iter().filter(|check| !check.holds).count();
    if setup.json {
        output::print_json(&checks)?;
    } else {
        for check in &checks {
            let mark = if check.holds { "ok  " } else { "FAIL" };
            output::print(format_args!("{mark} {}: {}", check.check, check.found))?;
        }
        if failed == 0 {
            output::print("The rows balance.")?;
        } else {
            let total = checks.len();
            output::print(format_args!(
                "{failed} of {total} checks fail: the ledger was changed by something else, or crier is wrong."
            ))?;
        }
    }
    Ok(if failed == 0 { Done::Well } else { Done::Failed })
}
