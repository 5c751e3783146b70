//! `crier doctor`

use super::file;
use crate::{
    config::{QueueUrl, masked_url},
    exit::{self, Done, Stop},
    output, serving,
    setup::Setup,
};
use gateway::{CallClass, Gateway, ListQuery};
use jiff::SignedDuration;
use ledger::Ledger;
use queue::{Mark, Queue};
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
/// One that is silent for longer has nothing under way any more.
const LONG_GONE: SignedDuration = SignedDuration::from_hours(24);

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
    let queue = queue(setup, &mut findings).await;
    match (setup.settings.gateway.credentials(), &ledger) {
        (Err(error), _) => findings.wrong("gateway", &error.into()),
        (Ok(_), None) => findings.look("gateway", "not tried: its token is kept in the ledger"),
        (Ok(_), Some(_)) if queue.is_none() => {
            findings.look("gateway", "not tried: the call budget that all processes share is on Redis");
        }
        (Ok(_), Some(ledger)) => match setup.gateway_alone(ledger, "doctor").await {
            Ok(made) => ask(ledger, &made, &mut findings).await,
            Err(error) => findings.wrong("gateway", &error),
        },
    }
    if let Some(ledger) = &ledger {
        if let Some(queue) = &queue {
            mark(ledger, &queue.mark(ledger.mark_file()), &mut findings).await?;
        }
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

/// The queue, if it can be used.
async fn queue(setup: &Setup, findings: &mut Findings) -> Option<Queue> {
    let made = setup.queue().await;
    match (&setup.settings.queue_url, &made) {
        (_, Err(error)) => findings.wrong("queue", error),
        (QueueUrl::Memory, Ok(_)) => {
            findings.ok("queue", "memory: inside `crier run`; worker and reconciler need redis://");
        }
        (QueueUrl::Redis(url), Ok(_)) => {
            findings.ok("queue", format!("{} is reachable", masked_url(url.expose_secret())));
        }
    }
    made.ok()
}

/// What tells that the ledger was restored from a backup.
async fn mark(ledger: &Ledger, mark: &Mark, findings: &mut Findings) -> anyhow::Result<()> {
    if mark.is_nowhere() {
        let found = "nothing but the ledger knows how many calls were made: the queue is memory: and the ledger is a server's. \
             After a restore say `crier quarantine begin` before anything is sent";
        findings.look("mark", found);
        return Ok(());
    }
    // The mark first: what is sent meanwhile raises both.
    mark.be_of(&ledger.identity().await?.name);
    let marked = match mark.raise(0).await {
        Ok(marked) => marked,
        Err(error) => {
            let what = format!("it can't be read how many calls were made, at {mark}: nothing is sent");
            findings.wrong("mark", &Stop::dependency(what).because(error).into());
            return Ok(());
        }
    };
    let begun = ledger.identity().await?.begun;
    if marked > begun {
        let calls = output::counted(marked.abs_diff(begun), "call");
        let found = format!(
            "{calls} that {mark} knows of are not in the ledger: it was restored, or lost commits; crier quarantine begin"
        );
        findings.look("mark", found);
    } else if marked == 0 && begun > 0 {
        let found = format!(
            "{mark} was lost, and comes with the next call; if the ledger was restored, too, say `crier quarantine begin` now"
        );
        findings.look("mark", found);
    } else {
        findings.ok(
            "mark",
            format!("{mark} knows of {} as the ledger does", output::counted(marked.unsigned_abs(), "call")),
        );
    }
    Ok(())
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
    if let Some(quarantine) = ledger.quarantine().await? {
        findings.look("quarantine", format!("nothing is sent: {}; crier quarantine", quarantine.why));
    }
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
    let (mut silent_for_long, mut last_heard) = (0_u64, None);
    for owner in owners {
        let name = format!("{} {} on {}", owner.kind, owner.pid, owner.host);
        let silent = ledger.now().duration_since(owner.seen_at);
        if silent > LONG_GONE {
            silent_for_long += 1;
            last_heard = last_heard.max(Some(owner.seen_at));
        } else if silent > SILENT_MAX {
            let found = format!(
                "{name} was last heard {:.0}; if it is dead, a reconciler finds out, unless Postgres was restarted meanwhile",
                owner.seen_at
            );
            findings.look("processes", found);
        } else {
            findings.ok("processes", format!("{name} is running"));
        }
    }
    if let Some(at) = last_heard {
        let many = output::counted(silent_for_long, "registration");
        let found =
            format!("{many} of before, last heard {at:.0}, can't be proven to have ended; nothing waits for that");
        findings.ok("processes", found);
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
        findings.wrong("queue", &Stop::dependency("down").into());
        assert_eq!(findings.done(), Done::Dependency);
        findings.wrong("gateway", &Stop::config("refused").into());
        assert_eq!(findings.done(), Done::Config);
    }

    #[tokio::test]
    async fn a_ledger_that_lacks_calls_is_shown_and_so_is_one_that_nothing_else_knows() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        let found = async |at: &Mark| {
            let mut findings = Findings::default();
            mark(&ledger, at, &mut findings).await.unwrap();
            let finding = findings.0.pop().expect("something is said");
            (finding.verdict, finding.found)
        };
        let file = Mark::in_file(ledger.mark_file().expect("it is embedded"));
        let (verdict, words) = found(&file).await;
        assert!(verdict == Verdict::Ok && words.contains("ledger.sent knows of 0 calls"), "{words}");
        file.raise(3).await.unwrap();
        let (verdict, words) = found(&file).await;
        assert!(verdict == Verdict::Look && words.starts_with("3 calls that "), "{words}");
        let (verdict, words) = found(&Mark::nowhere()).await;
        assert!(verdict == Verdict::Look && words.contains("crier quarantine begin"), "{words}");
    }
}
