//! Reading the list back after the ledger was restored: what it shows was sent, whatever the backup says.

use crate::{Reconciler, RoundError, reading::Purpose};
use campaign::{
    OwnerId, SenderId,
    sweep::{CLOSED_AFTER, Window},
};
use ledger::Quarantine;
use std::collections::BTreeSet;

/// The longest piece of the list that is read at a time, in seconds.
const WINDOW_S: i64 = 300;

impl Reconciler {
    /// Reads the list back, when it is time, and ends the quarantine once a complete reading, a settle after the one before,
    /// shows nothing new. Nothing is decided from one reading: a text may be listed late.
    pub(crate) async fn read_back(&self, quarantine: &Quarantine, owner: OwnerId) -> Result<(), RoundError> {
        let settle = self.settle().await?;
        let began = self.ledger.now();
        if quarantine.read_at.is_some_and(|read_at| began < read_at + settle) {
            return Ok(());
        }
        let skew = self.skew().await?;
        let since = Self::gateway_second(quarantine.since, skew);
        let until = Self::gateway_second(began, skew) - CLOSED_AFTER;
        let mut found = 0;
        for sender in self.our_senders().await? {
            let mut from = since;
            while from <= until {
                let window = Window { since: from, until: until.min(from + WINDOW_S - 1) };
                let purpose = Purpose::ReadBack(owner);
                let reading = self.read_window(purpose, &sender, None, window).await?;
                if reading.listed.is_none() {
                    return Ok(());
                }
                found += reading.applied.found;
                from = window.until + 1;
            }
        }
        tracing::info!(rows.found = found, since = %quarantine.since, "read the list back after a restore");
        // Requests that were under way when it began have ended, and what they did is listed.
        let quiet = quarantine.began_at + self.settings.send_limit + settle;
        if found == 0 && quarantine.read_at.is_some() && began >= quiet {
            let why = "two complete readings of the gateway's list agree";
            if self.ledger.end_quarantine("reconciler", why, Some((quarantine, began)), self.ledger.now()).await? {
                tracing::warn!("the quarantine is over: what is queued is sent");
                return Ok(());
            }
        }
        self.ledger.note_read_back(quarantine, began).await?;
        Ok(())
    }

    /// Whoever may have sent: the account's sender ids and those that the ledger knows.
    async fn our_senders(&self) -> Result<BTreeSet<SenderId>, RoundError> {
        let listed = self.gateway.senders().await?;
        let mut senders: BTreeSet<SenderId> =
            listed.into_iter().filter_map(|row| SenderId::parse(&row.sender_id).ok()).collect();
        senders.extend(self.ledger.receivers().await?);
        Ok(senders)
    }
}
