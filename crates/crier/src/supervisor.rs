//! What systemd is told of a service (`Type=notify`): that it is ready, that its loops turn, that it ends.

use crate::health::Health;
use sd_notify::NotifyState;
use std::time::Duration;

/// How often a service that is not ready looks again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often one that is looks for what its status line should say.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// For how long a start that waits for something asks systemd for more time, each time that it looked.
const MORE_TIME_US: u32 = 60_000_000;

/// Tells systemd, if it wants to know.
pub(crate) fn start(health: &Health) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tokio::spawn(tell_readiness(health.clone()));
    if let Some(within) = sd_notify::watchdog_enabled() {
        tokio::spawn(tell_liveness(health.clone(), within / 2));
    }
}

/// `READY=1` once all that is needed was found usable, then what the service waits for, then its end.
async fn tell_readiness(health: Health) {
    let (mut ready, mut said) = (false, String::new());
    while !health.draining().is_cancelled() {
        let Some(look) = health.draining().run_until_cancelled(health.look()).await else { break };
        let status = if look.is_ready() { "works".to_owned() } else { format!("waits for {}", look.trouble()) };
        if look.is_ready() && !ready {
            ready = true;
            tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        } else if !ready {
            // What is down is waited for, however long: the start has not failed.
            tell(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(MORE_TIME_US)]);
        } else if status != said {
            tell(&[NotifyState::Status(&status)]);
        }
        said = status;
        let wait = tokio::time::sleep(if ready { STATUS_EVERY } else { LOOK_EVERY });
        health.draining().run_until_cancelled(wait).await;
    }
    tell(&[NotifyState::Stopping, NotifyState::Status("finishes what is under way")]);
}

/// `WATCHDOG=1` as long as every loop turns: one that is stuck sends none, and systemd starts the service again.
async fn tell_liveness(health: Health, every: Duration) {
    loop {
        if health.is_live() {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(every).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
