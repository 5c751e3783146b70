//! Noticing that the ledger was restored: more was sent from it than it knows.

use ledger::Ledger;
use queue::{Mark, MarkError};
use std::ops::RangeInclusive;

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

/// Raises the mark to the last of some calls whose beginning is committed (0: only reads it), and answers whether the ledger lacks a
/// call that was marked before. Calls are marked only after their commit, and the ledger is read after the mark: only a ledger that
/// lost commits is behind. No other calls have these numbers, so that a mark among them is another ledger's.
async fn ledger_is_behind(ledger: &Ledger, mark: &Mark, calls: &RangeInclusive<i64>) -> Result<bool, Unmarked> {
    loop {
        let before = if mark.ledger().is_empty() { i64::MAX } else { mark.raise(*calls.end()).await? };
        if before < *calls.start() {
            return Ok(false);
        }
        // Others are ahead, or were once. What was seen earlier counts for nothing: a ledger can be restored under a process.
        let found = ledger.identity().await?;
        if found.name == mark.ledger() {
            return Ok(before > found.begun || (before > 0 && calls.contains(&before)));
        }
        // The first time, or after a quarantine.
        mark.be_of(&found.name);
    }
}

/// The same, and begins a quarantine when the ledger is behind. Answers whether it is.
///
/// # Errors
/// [`Unmarked`]: nothing is known, and no call may go out.
pub async fn quarantine_if_behind(ledger: &Ledger, mark: &Mark, calls: RangeInclusive<i64>) -> Result<bool, Unmarked> {
    if !ledger_is_behind(ledger, mark, &calls).await? {
        return Ok(false);
    }
    let why = "more was sent from this ledger than it knows: it was restored from a backup, or lost commits";
    if ledger.begin_quarantine("worker", why, None, ledger.now()).await? {
        tracing::error!("{why}; nothing is sent until the gateway's list was read back: crier quarantine");
    }
    Ok(true)
}
