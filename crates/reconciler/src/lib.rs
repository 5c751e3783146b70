//! What became of what was sent: reads the gateway's list and details, and resolves what is unknown.
//!
//! Guarantee: that a row is not listed decides nothing in one reading, in an incomplete one, or while its sender may still
//! send; a row whose fate can't be learnt is held and shown.
//!
//! Deliberately not here: sending. A row that is to be sent again goes back to the ledger's queue like any other.

mod audit;
mod detail;
mod inbound;
mod odd;
mod quarantine;
mod reading;
mod sweeps;

use campaign::{
    Region,
    resolve::{self, OnAbsent},
    sweep::Pace,
};
use gateway::{CallError, CallErrorKind, Gateway};
use jiff::{SignedDuration, Timestamp};
use ledger::{Ledger, OwnerGuard, chain};
use std::{sync::Mutex, time::Duration};
use tokio_util::sync::CancellationToken;

/// How the reconciler works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the list may lag; unset, the larger of 15 minutes and five times the slowest lag seen.
    pub settle: Option<SignedDuration>,
    /// What to do with rows that are proven absent.
    pub on_absent: OnAbsent,
    /// How old a text should be when it is first read; learned from there on, sender by sender.
    pub first_look: SignedDuration,
    /// When to give up waiting for a final status.
    pub give_up: SignedDuration,
    /// When to give up waiting for proof that a silent worker is done, or that the list has caught up.
    pub prove_within: SignedDuration,
    /// A worker that was not heard of for this long is silent.
    pub lease: SignedDuration,
    /// The longest that a send request can last: the sum of its time limits.
    pub send_limit: SignedDuration,
    /// Recipients that must have been found in the list before absence from it is believed.
    pub proof_recipients_min: u64,
    /// How often to look for work.
    pub every: Duration,
    /// How often to look for what people wrote.
    pub inbound_every: Duration,
    /// The country of a writer's number without a country code.
    pub region: Region,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            settle: None,
            on_absent: OnAbsent::Hold,
            first_look: SignedDuration::from_secs(10),
            give_up: SignedDuration::from_hours(72),
            prove_within: SignedDuration::from_hours(1),
            lease: SignedDuration::from_secs(60),
            send_limit: SignedDuration::from_secs(75),
            proof_recipients_min: 1_000,
            every: Duration::from_millis(300),
            inbound_every: Duration::from_secs(60),
            region: Region::GB,
        }
    }
}

/// Learns what became of what was sent.
pub struct Reconciler {
    ledger: Ledger,
    gateway: Gateway,
    settings: Settings,
    /// The gateway's clock minus the ledger's, as last measured.
    skew: Mutex<Option<SignedDuration>>,
    /// When to look next for what people wrote.
    inbound_at: Mutex<Option<Timestamp>>,
}

/// Why a round of work ended early. Nothing is lost by it: the next round begins with what the ledger has.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The gateway did not answer.
    #[error(transparent)]
    Gateway(#[from] CallError),
}

impl Reconciler {
    /// A reconciler; [`Reconciler::run`] sets it going.
    pub fn new(ledger: Ledger, gateway: Gateway, settings: Settings) -> Self {
        Self { ledger, gateway, settings, skew: Mutex::new(None), inbound_at: Mutex::new(None) }
    }

    /// Works until `stop`. A ledger or a gateway that is away is waited for. A second reconciler on one ledger waits for
    /// the first to end.
    pub async fn run(self, owner: &OwnerGuard, stop: CancellationToken) {
        let mut troubled = false;
        while !stop.is_cancelled() {
            self.gateway.pulse().beat();
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                round = self.round(owner) => round,
            };
            let mut wait = self.settings.every;
            match round {
                Ok(more) => {
                    if troubled {
                        tracing::info!("the reconciler goes on");
                        troubled = false;
                    }
                    if more {
                        wait = Duration::ZERO;
                    }
                }
                Err(error) => {
                    let line = chain(&error);
                    if troubled {
                        tracing::debug!(error = %line, "the reconciler still waits");
                    } else if matches!(&error, RoundError::Gateway(e) if e.kind() == CallErrorKind::Credentials) {
                        tracing::error!(error = %line, "the reconciler waits: a person must act");
                    } else {
                        tracing::warn!(error = %line, "the reconciler waits for the ledger or the gateway");
                    }
                    troubled = true;
                    wait = Duration::from_secs(1);
                }
            }
            let _ = tokio::time::timeout(wait, stop.cancelled()).await;
        }
    }

    /// One round, when the simulation says.
    #[cfg(feature = "simulated")]
    pub async fn simulated_round(&self, owner: &OwnerGuard) -> Result<(), RoundError> {
        self.round(owner).await.map(|_| ())
    }

    /// One round of everything that is due. Answers whether more may be due at once.
    async fn round(&self, owner: &OwnerGuard) -> Result<bool, RoundError> {
        let now = self.ledger.now();
        let until = now + SignedDuration::from_secs(30);
        let leased = self.ledger.take_lease("reconciler", owner.id(), until, now).await?;
        for dead in self.ledger.prove_deaths(now).await? {
            tracing::warn!(owner.id = %dead, "a process has died; what it left is taken up");
        }
        // Of a holder that is proven dead the lease need not be waited out.
        if !leased && !self.ledger.take_lease("reconciler", owner.id(), until, now).await? {
            return Ok(false);
        }
        // A file lock is free only when its process is gone; a session's lock also when the session was lost, and then a
        // request may still be in flight for as long as it may last.
        let send_limit = if self.ledger.is_embedded() { SignedDuration::ZERO } else { self.settings.send_limit };
        self.ledger.sweep_owners(self.settings.lease, send_limit, now).await?;
        let statuses = match self.ledger.quarantine().await? {
            // The list shows what the ledger does not know yet: it would be no one's.
            Some(quarantine) => self.read_back(&quarantine, owner.id()).await.map(|()| false),
            None => self.learn_statuses().await,
        };
        // A list that is refused for one sender must not keep opt-outs from being read.
        let inbound = self.read_inbound().await;
        let more = statuses?;
        inbound.map(|()| more)
    }

    async fn learn_statuses(&self) -> Result<bool, RoundError> {
        // Each ends by itself when the gateway is away; one sender that the gateway is silent about must not end the others.
        let (swept, reread) = (self.sweep_senders().await, self.reread_windows().await);
        let (asked, audited) = (self.ask_details().await, self.audit().await);
        reread.and(asked).and(audited).and(swept)
    }

    /// The gateway's clock minus the ledger's; asks the gateway when it was never measured.
    async fn skew(&self) -> Result<SignedDuration, RoundError> {
        if let Some(skew) = *self.skew.lock().expect("no one panics while holding the skew") {
            return Ok(skew);
        }
        self.measure_skew().await
    }

    fn note_skew(&self, measured: Option<SignedDuration>) {
        if let Some(skew) = measured {
            *self.skew.lock().expect("no one panics while holding the skew") = Some(skew);
        }
    }

    /// A moment of the ledger's clock as a second of the gateway's.
    fn gateway_second(at: Timestamp, skew: SignedDuration) -> i64 {
        (at + skew).as_second()
    }

    async fn settle(&self) -> Result<SignedDuration, RoundError> {
        let slowest = self.ledger.learned(SLOWEST_LAG).await?.map(SignedDuration::from_millis);
        Ok(resolve::settle(self.settings.settle, slowest))
    }

    fn pace(&self, first_look: SignedDuration) -> Pace {
        Pace { first_look, pages_min: 50, patience: SignedDuration::from_secs(10).min(self.settings.first_look) }
    }
}

/// The name under which the slowest lag of the list is remembered, in milliseconds.
const SLOWEST_LAG: &str = "list_lag_ms";
