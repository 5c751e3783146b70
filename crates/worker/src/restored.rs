//! Noticing that the ledger was restored: more was sent from it than it knows.

use ledger::Ledger;
use queue::{Mark, MarkError};

/// It could not be found out how far the sending has come.
#[derive(Debug, thiserror::Error)]
pub enum Unmarked {
    /// The mark can't be used.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Raises the mark to a call whose beginning is committed (0: only reads it), and answers whether the ledger lacks a call that
/// was marked before. A call is marked only after that commit, and the ledger is read after the mark: only a ledger that lost
/// commits is behind. No other call has this one's number, so that one which is marked already is another ledger's.
async fn ledger_is_behind(ledger: &Ledger, mark: &Mark, call: i64) -> Result<bool, Unmarked> {
    loop {
        let before = if mark.ledger().is_empty() { i64::MAX } else { mark.raise(call).await? };
        if before < call {
            return Ok(false);
        }
        // Others are ahead, or were once. What was seen earlier counts for nothing: a ledger can be restored under a process.
        let found = ledger.identity().await?;
        if found.name == mark.ledger() {
            return Ok(before > found.begun || (call > 0 && before == call));
        }
        // The first time, or after a quarantine.
        mark.be_of(&found.name);
    }
}

/// The same, and begins a quarantine when the ledger is behind. Answers whether it is.
pub async fn quarantine_if_behind(ledger: &Ledger, mark: &Mark, call: i64) -> Result<bool, Unmarked> {
    if !ledger_is_behind(ledger, mark, call).await? {
        return Ok(false);
    }
    let why = "more was sent from this ledger than it knows: it was restored from a backup, or lost commits";
    if ledger.begin_quarantine("worker", why, None, ledger.now()).await? {
        tracing::error!("{why}; nothing is sent until the gateway's list was read back: crier quarantine");
    }
    Ok(true)
}
