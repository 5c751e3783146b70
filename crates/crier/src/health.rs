//! What a service knows about itself: whether its loops turn, and whether all that it needs can be used.

use gateway::Gateway;
use jiff::Timestamp;
use ledger::{Gauges, Ledger, Schema};
use queue::Queue;
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use telemetry::Pulse;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a look counts: many who ask at once cost one.
const LOOK_KEEPS: Duration = Duration::from_secs(2);
/// How long one dependency may take to answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A service's health; clones share it.
#[derive(Clone)]
pub(crate) struct Health(Arc<Inner>);

struct Inner {
    draining: CancellationToken,
    stuck_after: Duration,
    loops: Mutex<BTreeMap<&'static str, Pulse>>,
    watched: Mutex<Option<Watched>>,
    waits_for: Mutex<Option<String>>,
    looked: tokio::sync::Mutex<Option<(Instant, Look)>>,
}

/// What a service stands on.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    /// `None` for a service that makes no calls.
    pub(crate) gateway: Option<Gateway>,
}

/// What was found of one thing that a service needs: words, and whether it can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    pub(crate) fine: bool,
    pub(crate) words: String,
}

/// What a look found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look(pub(crate) Vec<Finding>);

impl Look {
    fn add(&mut self, subject: &'static str, found: Result<&str, String>) {
        let fine = found.is_ok();
        self.0.push(Finding { subject, fine, words: found.map_or_else(|words| words, str::to_owned) });
    }

    /// Everything that is needed can be used.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.iter().all(|finding| finding.fine)
    }

    /// A line for each.
    pub(crate) fn lines(&self) -> String {
        let mut lines = String::new();
        for finding in &self.0 {
            let _ = writeln!(
                lines,
                "{} {}: {}",
                if finding.fine { "ok  " } else { "FAIL" },
                finding.subject,
                finding.words
            );
        }
        lines
    }

    /// What is in the way, in one line.
    pub(crate) fn trouble(&self) -> String {
        let trouble = self.0.iter().filter(|finding| !finding.fine);
        trouble.map(|finding| format!("{}: {}", finding.subject, finding.words)).collect::<Vec<_>>().join("; ")
    }
}

impl Health {
    pub(crate) fn new(draining: CancellationToken, stuck_after: Duration) -> Self {
        Self(Arc::new(Inner {
            draining,
            stuck_after,
            loops: Mutex::default(),
            watched: Mutex::default(),
            waits_for: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
        }))
    }

    /// A loop of this process, which must turn from now on.
    pub(crate) fn watch_loop(&self, name: &'static str) -> Pulse {
        let pulse = Pulse::default();
        locked(&self.0.loops).insert(name, pulse.clone());
        pulse
    }

    /// The loops have ended, or are to begin anew.
    pub(crate) fn forget_loops(&self) {
        locked(&self.0.loops).clear();
    }

    /// The service has what it stands on.
    pub(crate) fn stands_on(&self, watched: Watched) {
        *locked(&self.0.watched) = Some(watched);
    }

    /// What the service waits for before it can begin; `None` when it need not.
    pub(crate) fn waits_for(&self, words: Option<String>) {
        *locked(&self.0.waits_for) = words;
    }

    /// The process was asked to end.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// When each loop turned last; those that are stuck say so.
    pub(crate) fn loops(&self) -> Vec<(&'static str, Duration, bool)> {
        let draining = self.0.draining.is_cancelled();
        let loops = locked(&self.0.loops);
        // While a service finishes what is under way, its loops have ended.
        let turned = |(name, pulse): (&&'static str, &Pulse)| {
            let age = pulse.age();
            (*name, age, !draining && age > self.0.stuck_after)
        };
        loops.iter().map(turned).collect()
    }

    /// Every loop turns.
    pub(crate) fn is_live(&self) -> bool {
        self.loops().iter().all(|(_, _, stuck)| !stuck)
    }

    /// Looks whether all that is needed can be used.
    pub(crate) async fn look(&self) -> Look {
        let mut looked = self.0.looked.lock().await;
        let mut look = match &*looked {
            Some((at, look)) if at.elapsed() < LOOK_KEEPS => look.clone(),
            _ => {
                let look = self.look_now().await;
                *looked = Some((Instant::now(), look.clone()));
                look
            }
        };
        // Not kept: whoever asks after the signal is told.
        let draining = self.0.draining.is_cancelled();
        look.add("draining", if draining { Err("asked to end".to_owned()) } else { Ok("no") });
        look
    }

    async fn look_now(&self) -> Look {
        let mut look = Look::default();
        let watched = locked(&self.0.watched).clone();
        if let Some(words) = locked(&self.0.waits_for).clone() {
            look.add("start", Err(words));
        }
        let Some(Watched { ledger, queue, gateway }) = watched else {
            if look.is_ready() {
                look.add("start", Err("begins".to_owned()));
            }
            return look;
        };
        match timeout(ANSWER_WITHIN, ledger.schema()).await {
            Ok(Ok(schema)) => {
                look.add("ledger", Ok("answers"));
                look.add(
                    "schema",
                    match schema {
                        Schema::Current => Ok("current"),
                        Schema::Newer => Ok("newer, and this program works with it"),
                        Schema::Behind => Err("older than this program needs; run crier migrate".to_owned()),
                        Schema::Ahead => Err("newer than this program knows; update it".to_owned()),
                        Schema::Foreign => Err("that of another program; use the one that made it".to_owned()),
                    },
                );
            }
            Ok(Err(_)) => look.add("ledger", Err("can't be used".to_owned())),
            Err(_) => look.add("ledger", Err("does not answer".to_owned())),
        }
        // Waiting is what a service in quarantine is there for: it is ready.
        if let Ok(Ok(Some(quarantine))) = timeout(ANSWER_WITHIN, ledger.quarantine()).await {
            let words = format!("since {:.0}: nothing is sent, {}", quarantine.began_at, quarantine.why);
            look.0.push(Finding { subject: "quarantine", fine: true, words });
        }
        let queue = timeout(ANSWER_WITHIN, queue.check()).await;
        look.add(
            "queue",
            match queue {
                Ok(Ok(())) => Ok("answers"),
                Ok(Err(_)) => Err("can't be used".to_owned()),
                Err(_) => Err("does not answer".to_owned()),
            },
        );
        if let Some(gateway) = gateway {
            let token = timeout(ANSWER_WITHIN, gateway.check()).await;
            look.add(
                "token",
                match token {
                    Ok(Ok(())) => Ok("at hand"),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("not had in time".to_owned()),
                },
            );
        }
        look
    }

    /// Everything that is measured, as Prometheus reads it.
    pub(crate) async fn measured(&self) -> String {
        let look = self.look().await;
        telemetry::set("crier_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
        telemetry::set("crier_ready", &[], flag(look.is_ready()));
        // A service that makes no calls has no token to miss.
        let calls = locked(&self.0.watched).as_ref().is_none_or(|watched| watched.gateway.is_some());
        let subjects = ["ledger", "schema", "queue"].into_iter().chain(calls.then_some("token"));
        for subject in subjects {
            let up = look.0.iter().any(|finding| finding.subject == subject && finding.fine);
            telemetry::set("crier_dependency_up", &[subject], flag(up));
        }
        telemetry::unset("crier_loop_turned_seconds");
        for (name, age, _) in self.loops() {
            telemetry::set("crier_loop_turned_seconds", &[name], age.as_secs_f64());
        }
        let watched = locked(&self.0.watched).clone();
        let ledger = watched.as_ref().map(|watched| &watched.ledger);
        let gauges = match ledger {
            Some(ledger) => timeout(ANSWER_WITHIN, ledger.gauges(ledger.now())).await.ok().and_then(Result::ok),
            None => None,
        };
        show_gauges(gauges.as_ref(), ledger.map_or_else(Timestamp::now, Ledger::now));
        let budget = watched.as_ref().and_then(|watched| watched.gateway.as_ref()).map(Gateway::budget);
        let left = match budget {
            Some(budget) => budget.left().await,
            None => None,
        };
        for (name, calls) in [
            ("crier_budget_calls_left", left.map(|(left, _)| left)),
            ("crier_budget_calls_limit", left.map(|(_, limit)| limit)),
        ] {
            show(name, calls.map(number));
        }
        telemetry::render()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

/// A gauge that is `NaN` while it can't be read.
fn show(name: &'static str, value: Option<f64>) {
    match value {
        Some(value) => telemetry::set(name, &[], value),
        None => telemetry::unset(name),
    }
}

const CHUNK_STATES: [&str; 3] = ["waiting", "fed", "working"];
const ATTEMPT_STATES: [&str; 4] = ["formed", "sending", "accepted", "unknown"];
const KINDS: [&str; 4] = ["ingest", "worker", "reconciler", "run"];

fn show_gauges(gauges: Option<&Gauges>, now: Timestamp) {
    for name in [
        "crier_queue_chunks",
        "crier_queue_rows",
        "crier_attempts_open",
        "crier_attempt_recipients_open",
        "crier_processes",
    ] {
        telemetry::unset(name);
    }
    let since = |at: Option<Timestamp>| at.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
    show("crier_queue_oldest_seconds", gauges.map(|gauges| since(gauges.oldest_due)));
    show("crier_reconcile_lag_seconds", gauges.map(|gauges| since(gauges.oldest_sent)));
    show("crier_rows_held", gauges.map(|gauges| number(gauges.held)));
    show("crier_quarantined", gauges.map(|gauges| flag(gauges.quarantined)));
    show("crier_texts_unexplained", gauges.map(|gauges| number(gauges.unexplained)));
    show("crier_token_age_seconds", gauges.and_then(|gauges| gauges.token).map(|(issued, _)| since(Some(issued))));
    let left = gauges.and_then(|gauges| gauges.token).map(|(_, ends)| ends.duration_since(now).as_secs_f64());
    show("crier_token_left_seconds", left);
    show("crier_token_trouble", gauges.map(|gauges| flag(gauges.token_trouble)));
    let Some(gauges) = gauges else { return };
    for (states, found, names) in [
        (&CHUNK_STATES[..], &gauges.chunks, ["crier_queue_chunks", "crier_queue_rows"]),
        (&ATTEMPT_STATES[..], &gauges.attempts, ["crier_attempts_open", "crier_attempt_recipients_open"]),
    ] {
        for state in states {
            let (count, rows) =
                found.iter().find(|(found, ..)| found == state).map_or((0, 0), |(_, count, rows)| (*count, *rows));
            telemetry::set(names[0], &[state], number(count));
            telemetry::set(names[1], &[state], number(rows));
        }
    }
    for kind in KINDS {
        let count = gauges.processes.iter().find(|(found, _)| found == kind).map_or(0, |(_, count)| *count);
        telemetry::set("crier_processes", &[kind], number(count));
    }
}
