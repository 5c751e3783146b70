//! What a command works with: its settings, and the ledger, queue and gateway that they name.

use crate::{
    config::{Merged, QueueUrl, Settings, masked_url},
    exit::{self, Done, Stop},
    health::Health,
    serving,
    stop::Stopper,
    supervisor,
};
use gateway::{Budget, CallError, CallErrorKind, Gateway};
use ledger::{Ledger, OwnerGuard, Schema};
use queue::Queue;
use secrecy::ExposeSecret;
use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

/// What every command gets.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) merged: Merged,
    /// Data is printed as JSON.
    pub(crate) json: bool,
    /// Who runs the command, for the record.
    pub(crate) who: String,
    pub(crate) stopper: Stopper,
    pub(crate) health: Health,
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
        match self.ledger_if_any().await? {
            Some(ledger) => Ok(ledger),
            None => {
                let what = format!("there is no ledger at {}", self.ledger_name());
                let advice = "`crier run FILE` makes one; ledger.url says where.";
                Err(Stop::dependency(what).advise(advice).into())
            }
        }
    }

    /// The ledger, unless it is an embedded one that was never made.
    pub(crate) async fn ledger_if_any(&self) -> anyhow::Result<Option<Ledger>> {
        if let Some(path) = self.settings.ledger_url.expose_secret().strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !Path::new(path).exists() {
                return Ok(None);
            }
        }
        self.ledger().await.map(Some)
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
            Schema::Current | Schema::Newer => Ok(()),
            Schema::Behind if ledger.is_embedded() => Ok(ledger.migrate().await?),
            Schema::Behind => Err(Stop::dependency(format!("the ledger at {name} is on an old schema"))
                .advise("Run crier migrate.")
                .into()),
            Schema::Ahead => {
                let what = format!("the ledger at {name} is on a newer schema than this crier knows");
                Err(Stop::dependency(what).advise("Update this crier.").into())
            }
            Schema::Foreign => {
                let what = format!("the ledger at {name} was made by a crier with another schema of the same number");
                Err(Stop::dependency(what)
                    .advise(
                        "Use the crier that made it: a new ledger knows nothing of what was sent and who opted out.",
                    )
                    .into())
            }
        }
    }

    /// The queue; fails at once when Redis is down.
    pub(crate) async fn queue(&self) -> anyhow::Result<Queue> {
        match &self.settings.queue_url {
            QueueUrl::Memory => Ok(Queue::in_process()),
            QueueUrl::Redis(url) => {
                let queue = Queue::redis(url.expose_secret(), &self.settings.queue_name).await;
                queue.map_err(|error| self.queue_stop(error.into()))
            }
        }
    }

    /// The call budget that all processes of a queue share.
    pub(crate) fn budget(&self, queue: &Queue) -> Budget {
        let (limit, window) = (self.settings.gateway.calls_per_window, self.settings.gateway.window);
        match queue.redis_connection() {
            Some(connection) => {
                Budget::shared(connection, &format!("{}:budget", self.settings.queue_name), limit, window)
            }
            None => Budget::in_process(limit, window),
        }
    }

    /// The gateway for a command that only asks it something.
    pub(crate) async fn gateway_alone(&self, ledger: &Ledger, role: &str) -> anyhow::Result<Gateway> {
        self.settings.gateway.credentials()?;
        let queue = self.queue().await?;
        self.gateway(ledger, self.budget(&queue), role, BRIEFLY)
    }

    fn queue_stop(&self, error: anyhow::Error) -> anyhow::Error {
        let QueueUrl::Redis(url) = &self.settings.queue_url else { return error };
        let what = format!("the queue can't be reached at {}", masked_url(url.expose_secret()));
        Stop::dependency(what).because(error).advise("Is Redis running? queue.url names it.").into()
    }

    /// The gateway, with the credentials that are configured. `role` tells this process from others in the token
    /// row; calls that are safe to repeat are repeated for so long while it can't be reached.
    pub(crate) fn gateway(
        &self,
        ledger: &Ledger,
        budget: Budget,
        role: &str,
        repeat_for: Duration,
    ) -> anyhow::Result<Gateway> {
        let settings = &self.settings.gateway;
        let credentials = settings.credentials()?;
        let mut wanted = gateway::Settings::new(
            settings.base_url.clone(),
            credentials.client_id,
            credentials.client_secret,
            credentials.username,
            credentials.password,
        );
        wanted.connect_timeout = settings.connect_timeout;
        wanted.read_timeout = settings.read_timeout;
        wanted.send_timeout = settings.send_timeout;
        wanted.refresh_stale = settings.refresh_stale;
        wanted.password_grant_every = settings.password_grant_every;
        wanted.repeat_for = repeat_for;
        let who = format!("{role} {}@{}", std::process::id(), host());
        Gateway::new(wanted, ledger.clone(), budget, who)
            .map_err(|error| gateway_stop(&error, settings.base_url.as_str()))
    }

    /// Registers this process as one whose death can be proven.
    pub(crate) async fn owner(&self, ledger: &Ledger, kind: &str) -> anyhow::Result<OwnerGuard> {
        Ok(ledger.register_owner(kind, &host(), std::process::id(), ledger.now()).await?)
    }

    /// Tells from now on how this service is: over HTTP, and to systemd.
    pub(crate) async fn be_a_service(&self) -> anyhow::Result<()> {
        serving::start(&self.settings.metrics, &self.health).await?;
        supervisor::start(&self.health);
        Ok(())
    }

    /// Makes something of a service: tries till it can be had, saying what is in the way; `None` when asked to stop
    /// meanwhile. Only what is down is waited for.
    pub(crate) async fn when_up<T>(&self, make: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        let mut waits = waits();
        let turns = self.health.watch_loop("start");
        loop {
            turns.beat();
            let error = match make().await {
                Ok(made) => {
                    self.health.waits_for(None);
                    return Ok(Some(made));
                }
                Err(error) if exit::kind(&error) == Done::Dependency => error,
                Err(error) => return Err(error),
            };
            let wait = waits.next().unwrap_or(LONGEST_WAIT);
            self.health.waits_for(Some(exit::line(&error)));
            tracing::warn!("{} Trying again in {}.", exit::line(&error), humantime::format_duration(wait));
            if self.pause(wait).await.is_break() {
                return Ok(None);
            }
        }
    }

    /// Refuses a queue that only exists inside another process.
    pub(crate) fn needs_shared_queue(&self, command: &str) -> anyhow::Result<()> {
        match &self.settings.queue_url {
            QueueUrl::Redis(_) => Ok(()),
            QueueUrl::Memory => {
                let what =
                    format!("queue.url is memory:, which lives inside `crier run`; `crier {command}` shares a queue");
                Err(Stop::config(what).advise("Set CRIER_QUEUE__URL to redis://HOST:PORT, or use `crier run`.").into())
            }
        }
    }
}

/// How long a command that somebody waits for tries to reach the gateway.
pub(crate) const BRIEFLY: Duration = Duration::from_secs(2);
/// How long a service repeats one call; what it could not do comes again by itself.
pub(crate) const PATIENTLY: Duration = Duration::from_secs(15);

const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Growing waits between tries: 1 s, 2 s, 4 s, … 30 s.
pub(crate) fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_secs(1)), |wait| Some((*wait * 2).min(LONGEST_WAIT)))
}

/// The end of a command that the gateway did not answer.
pub(crate) fn gateway_stop(error: &CallError, address: &str) -> anyhow::Error {
    let because = anyhow::Error::from(error.clone());
    match error.kind() {
        CallErrorKind::Down | CallErrorKind::Throttled => {
            Stop::dependency(format!("the gateway can't be used now at {address}"))
                .because(because)
                .advise("gateway.base_url names it.")
                .into()
        }
        // The gateway's crate says itself what to correct.
        CallErrorKind::Credentials => Stop::config(error.to_string()).into(),
        CallErrorKind::Unexpected => {
            Stop::failed("the gateway gave an answer that was not expected").because(because).into()
        }
    }
}

/// This machine's name.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// Who runs this program: the user as the system knows it, whatever the environment says.
pub(crate) fn system_user() -> String {
    let uid = std::fs::metadata("/proc/self").map(|metadata| metadata.uid()).ok();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_uid = |line: &&str| line.split(':').nth(2).and_then(|field| field.parse().ok()) == uid && uid.is_some();
    let name = passwd.lines().find(of_uid).and_then(|line| line.split(':').next()).map(str::to_owned);
    let user = name.or_else(|| uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "unknown".to_owned());
    format!("{user}@{}", host())
}
