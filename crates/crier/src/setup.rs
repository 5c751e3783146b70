//! What a command works with: its settings, and the ledger, queue and gateway that they name.

use crate::{
    config::{Merged, QueueUrl, Settings, masked_url},
    exit::Stop,
    stop::Stopper,
};
use ledger::{Ledger, Schema};
use secrecy::ExposeSecret;
use std::{path::Path, time::Duration};

/// What every command gets.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) merged: Merged,
    /// Data is printed as JSON.
    pub(crate) json: bool,
    pub(crate) stopper: Stopper,
}

impl Setup {
    /// The ledger's URL as it may be shown.
    pub(crate) fn ledger_name(&self) -> String {
        masked_url(self.settings.ledger_url.expose_secret())
    }

    /// The ledger of a command that writes; an embedded one is made and migrated as needed. Fails at once when down.
    pub(crate) async fn ledger(&self) -> anyhow::Result<Ledger> {
        let ledger = self.open().await?;
        self.check_schema(&ledger).await?;
        Ok(ledger)
    }

    /// The ledger of a command that only reads: none is made where none is.
    pub(crate) async fn ledger_to_read(&self) -> anyhow::Result<Ledger> {
        if let Some(path) = self.settings.ledger_url.expose_secret().strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !Path::new(path).exists() {
                let what = format!("there is no ledger at {}", self.ledger_name());
                let advice = "`crier run FILE` makes one; ledger.url says where.";
                return Err(Stop::dependency(what).advise(advice).into());
            }
        }
        self.ledger().await
    }

    /// The ledger of a service: waits till it can be reached, saying so; `None` when asked to stop meanwhile.
    pub(crate) async fn ledger_when_up(&self) -> anyhow::Result<Option<Ledger>> {
        let mut waits = waits();
        loop {
            let error = match self.ledger().await {
                Ok(ledger) => return Ok(Some(ledger)),
                Err(error) => error,
            };
            let reachable = error.chain().any(|cause| cause.to_string().contains("schema"));
            if reachable || crate::exit::kind(&error) != crate::exit::Done::Dependency {
                return Err(error);
            }
            let wait = waits.next().unwrap_or(LONGEST_WAIT);
            tracing::warn!(wait_s = wait.as_secs(), "{} Trying again.", crate::exit::line(&error));
            if self.pause(wait).await.is_break() {
                return Ok(None);
            }
        }
    }

    /// Waits; breaks when asked to stop.
    pub(crate) async fn pause(&self, wait: Duration) -> std::ops::ControlFlow<()> {
        tokio::select! {
            () = self.stopper.asked.cancelled() => std::ops::ControlFlow::Break(()),
            () = tokio::time::sleep(wait) => std::ops::ControlFlow::Continue(()),
        }
    }

    pub(crate) async fn open(&self) -> anyhow::Result<Ledger> {
        Ledger::open(self.settings.ledger_url.expose_secret()).await.map_err(|error| {
            let what = format!("the ledger can't be reached at {}", self.ledger_name());
            Stop::dependency(what).because(error).advise("Is it running? ledger.url names it.").into()
        })
    }

    async fn check_schema(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let name = self.ledger_name();
        match ledger.schema().await? {
            Schema::Current => Ok(()),
            Schema::Behind if ledger.is_embedded() => Ok(ledger.migrate().await?),
            Schema::Behind => {
                Err(Stop::dependency(format!("the ledger at {name} is on an old schema")).advise("Run crier migrate.").into())
            }
            Schema::Ahead => {
                let what = format!("the ledger at {name} is on a newer schema than this crier knows");
                Err(Stop::dependency(what).advise("Update this crier.").into())
            }
        }
    }

    /// Refuses a queue that only exists inside another process.
    pub(crate) fn needs_shared_queue(&self, command: &str) -> anyhow::Result<()> {
        match &self.settings.queue_url {
            QueueUrl::Redis(_) => Ok(()),
            QueueUrl::Memory => {
                let what = format!("queue.url is memory:, which lives inside `crier run`; `crier {command}` shares a queue");
                Err(Stop::config(what).advise("Set CRIER_QUEUE__URL to redis://HOST:PORT, or use `crier run`.").into())
            }
        }
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Growing waits between tries: 1 s, 2 s, 4 s, … 30 s.
pub(crate) fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_secs(1)), |wait| Some((*wait * 2).min(LONGEST_WAIT)))
}
