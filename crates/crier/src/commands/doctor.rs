//! `crier doctor`

use super::file;
use crate::{
    config::{QueueUrl, masked_url},
    exit::{self, Done},
    output, serving,
    setup::Setup,
};
use gateway::{CallClass, Gateway, ListQuery};
use jiff::SignedDuration;
use ledger::Ledger;
use secrecy::ExposeSecret;
use serde::Serialize;

/// Say what is reachable, what is wrong and what to do
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only ask the process that serves at metrics.listen whether its loops turn: exit 0 or 1
    #[arg(long, conflicts_with = "ready")]
    live: bool,

    /// Only ask it whether all that it needs can be used: exit 0 or 1
    #[arg(long)]
    ready: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    subject: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip)]
    done: Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, and someone should look at it.
    Look,
    Wrong,
}

/// Clocks that are further apart are worth a look.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(30);
/// A process that is silent for longer may be dead.
const SILENT_MAX: SignedDuration = SignedDuration::from_mins(5);

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &'static str, found: impl Into<String>) {
        self.0.push(Finding { subject, verdict: Verdict::Ok, found: found.into(), done: Done::Well });
    }

    fn look(&mut self, subject: &'static str, found: impl Into<String>) {
        self.0.push(Finding { subject, verdict: Verdict::Look, found: found.into(), done: Done::Well });
    }

    fn wrong(&mut self, subject: &'static str, error: &anyhow::Error) {
        let (found, done) = (exit::line(error), exit::kind(error));
        self.0.push(Finding { subject, verdict: Verdict::Wrong, found, done });
    }

    /// The gravest: what a person must put right before what may come back by itself.
    fn done(&self) -> Done {
        [Done::Config, Done::Dependency, Done::Failed]
            .into_iter()
            .find(|done| self.0.iter().any(|finding| finding.done == *done))
            .unwrap_or(Done::Well)
    }
}

pub(crate) async fn run(setup: &Setup, args: &Args) -> anyhow::Result<Done> {
    if args.live || args.ready {
        return serving::ask(&setup.settings.metrics, if args.live { "/livez" } else { "/readyz" }).await;
    }
    let mut findings = Findings::default();
    findings.ok("settings", "read; `crier config` shows them");
    let ledger = match setup.ledger_to_read().await {
        Ok(ledger) => {
            findings.ok("ledger", format!("{} is reachable and its schema is current", setup.ledger_name()));
            Some(ledger)
        }
        Err(error) => {
            findings.wrong("ledger", &error);
            None
        }
    };
    let queue_is_up = queue(setup, &mut findings).await;
    match (setup.settings.gateway.credentials(), &ledger) {
        (Err(error), _) => findings.wrong("gateway", &error.into()),
        (Ok(_), None) => findings.look("gateway", "not tried: its token is kept in the ledger"),
        (Ok(_), Some(_)) if !queue_is_up => {
            findings.look("gateway", "not tried: the call budget that all processes share is on Redis");
        }
        (Ok(_), Some(ledger)) => match setup.gateway_alone(ledger, "doctor").await {
            Ok(made) => ask(ledger, &made, &mut findings).await,
            Err(error) => findings.wrong("gateway", &error),
        },
    }
    if let Some(ledger) = &ledger {
        contents(ledger, &mut findings).await?;
    }
    if setup.json {
        output::print_json(&findings.0)?;
    } else {
        for finding in &findings.0 {
            let mark = match finding.verdict {
                Verdict::Ok => "ok   ",
                Verdict::Look => "look ",
                Verdict::Wrong => "WRONG",
            };
            output::print(format_args!("{mark} {:<10} {}", finding.subject, finding.found))?;
        }
    }
    Ok(findings.done())
}

/// Answers whether the queue can be used.
async fn queue(setup: &Setup, findings: &mut Findings) -> bool {
    match &setup.settings.queue_url {
        QueueUrl::Memory => findings.ok("queue", "memory: inside `crier run`; worker and reconciler need redis://"),
        QueueUrl::Redis(url) => match setup.queue().await {
            Ok(_) => findings.ok("queue", format!("{} is reachable", masked_url(url.expose_secret()))),
            Err(error) => {
                findings.wrong("queue", &error);
                return false;
            }
        },
    }
    true
}

/// Asks the gateway for its senders, and for its time.
async fn ask(ledger: &Ledger, gateway: &Gateway, findings: &mut Findings) {
    let listed = match gateway.senders().await {
        Ok(listed) => listed,
        Err(error) => return findings.wrong("gateway", &crate::setup::gateway_stop(&error, gateway.address())),
    };
    findings.ok("gateway", "reachable, and takes the credentials");
    match file::record(ledger, &listed).await {
        Err(error) => findings.wrong("senders", &error),
        Ok(senders) => {
            let approved: Vec<_> =
                senders.iter().filter(|(_, approved)| *approved).map(|(sender, _)| sender.to_string()).collect();
            if approved.is_empty() {
                findings.look("senders", "none is approved: nothing can be sent; `crier senders add` asks for one");
            } else {
                findings.ok("senders", format!("approved: {}", approved.join(", ")));
            }
        }
    }
    let query = ListQuery { page: 1, ..ListQuery::default() };
    match gateway.list(CallClass::Status, &query).await.map(|listed| listed.clock_skew) {
        Err(error) => findings.wrong("clock", &crate::setup::gateway_stop(&error, gateway.address())),
        Ok(Some(skew)) if skew.abs() > SKEW_MAX => {
            let found = format!("this machine and the gateway are {skew:#} apart; is NTP running here?");
            findings.look("clock", found);
        }
        Ok(_) => findings.ok("clock", "agrees with the gateway's"),
    }
}

/// What the ledger itself tells.
async fn contents(ledger: &Ledger, findings: &mut Findings) -> anyhow::Result<()> {
    let trouble = ledger.trouble().await?;
    match trouble.token {
        Some(words) if trouble.token_refused => {
            findings.0.push(Finding { subject: "token", verdict: Verdict::Wrong, found: words, done: Done::Config });
        }
        Some(words) => findings.look("token", words),
        None => {}
    }
    let owners = ledger.live_owners().await?;
    if owners.is_empty() {
        findings.ok("processes", "none is running");
    }
    for owner in owners {
        let name = format!("{} {} on {}", owner.kind, owner.pid, owner.host);
        let silent = ledger.now().duration_since(owner.seen_at);
        if silent > SILENT_MAX {
            findings.look(
                "processes",
                format!("{name} was last heard {:.0}; if it is dead, a reconciler will find out", owner.seen_at),
            );
        } else {
            findings.ok("processes", format!("{name} is running"));
        }
    }
    match trouble.held {
        0 => findings.ok("held", "no row is held"),
        held => findings
            .look("held", format!("{} held for a decision: `crier held` says why", output::counted(held, "row"))),
    }
    match trouble.unexplained {
        0 => findings.ok("list", "every text that the gateway listed is ours"),
        rows => findings.look(
            "list",
            format!(
                "{} listed from our senders that crier did not send: who else uses this account?",
                output::counted(rows, "text")
            ),
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_weigh_more_than_what_is_down() {
        let mut findings = Findings::default();
        assert_eq!(findings.done(), Done::Well);
        findings.wrong("queue", &crate::exit::Stop::dependency("down").into());
        assert_eq!(findings.done(), Done::Dependency);
        findings.wrong("gateway", &crate::exit::Stop::config("refused").into());
        assert_eq!(findings.done(), Done::Config);
    }
}
