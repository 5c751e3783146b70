//! One run: blows while files come in, an end of all blows, and the account.

use crate::{
    Size,
    blows::{self, Blow, Dice, SEND_TIMEOUT_MS},
    harness::{Crier, Database, Mailing, Process, Production, Signal, eventually, is_all_settled},
    manners::{Calls, Excuses},
    oracle,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// Everything must be over by then, once nothing is broken any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(240);

const RESUMED_WITHIN_S: f64 = 60.0;

const HELD_SHARE_MAX: f64 = 0.03;

/// How long it may take from a dropped file to its first text on a busy machine, before it is called a hang.
const PATIENCE: Duration = Duration::from_secs(120);

const FILE_ROWS: u32 = 250;

/// The processes, each with what it takes to start it again.
struct Fleet {
    crier: Crier,
    drop: String,
    running: Vec<(&'static str, Process)>,
    frozen: Vec<(usize, i64, Instant)>,
}

impl Fleet {
    fn spawn(&self, role: &'static str) -> Process {
        match role {
            "watcher" => self.crier.spawn(["ingest", "--watch", &self.drop]),
            role => self.crier.spawn([role]),
        }
    }

    fn start(&mut self) {
        for role in ["worker", "worker", "worker", "reconciler", "watcher"] {
            let process = self.spawn(role);
            self.running.push((role, process));
        }
    }

    fn kill(&mut self, at: usize) {
        let role = self.running[at].0;
        let fresh = self.spawn(role);
        let (_, old) = std::mem::replace(&mut self.running[at], (role, fresh));
        old.kill();
        self.frozen.retain(|(frozen, ..)| *frozen != at);
    }

    fn freeze(&mut self, at: usize, until: Instant) {
        if !self.frozen.iter().any(|(frozen, ..)| *frozen == at) {
            self.running[at].1.signal(Signal::Stop);
            self.frozen.push((at, now_ms(), until));
        }
    }

    /// Lets those go on whose time has come; answers when they were frozen.
    fn thaw(&mut self, all: bool) -> Vec<(i64, i64)> {
        let due = self.frozen.extract_if(.., |(_, _, until)| all || Instant::now() >= *until).collect::<Vec<_>>();
        due.into_iter()
            .map(|(at, since, _)| {
                self.running[at].1.signal(Signal::Continue);
                (since, now_ms())
            })
            .collect()
    }

    /// What ended although nobody killed it.
    fn fallen(&mut self) -> Vec<String> {
        let fallen: Vec<usize> = (0..self.running.len()).filter(|at| !self.running[*at].1.is_running()).collect();
        fallen
            .into_iter()
            .map(|at| {
                let role = self.running[at].0;
                let fresh = self.spawn(role);
                let (_, old) = std::mem::replace(&mut self.running[at], (role, fresh));
                let ended = old.wait(PATIENCE);
                format!(
                    "a {role} ended by itself ({:?}): {}",
                    ended.code,
                    ended.stderr.lines().last().unwrap_or_default()
                )
            })
            .collect()
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a time of this age")
}

/// Whether the token row is being renewed: whoever does it may have been hit in the middle.
fn is_renewing(database: &Database) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let phase: Option<String> = runtime.block_on(async {
        let pool = sqlx::PgPool::connect(&database.url()).await.ok()?;
        sqlx::query_scalar("SELECT phase FROM tokens").fetch_one(&pool).await.ok()
    });
    phase.is_some_and(|phase| !matches!(phase.as_str(), "ready" | "none"))
}

/// Files of other people each.
fn mailings(recipients: u32) -> Vec<(String, Mailing)> {
    let count = recipients.div_ceil(FILE_ROWS);
    (0..count)
        .map(|nth| {
            let rows = FILE_ROWS.min(recipients - nth * FILE_ROWS);
            (format!("wave{nth}"), Mailing::from(nth * FILE_ROWS, rows, 3))
        })
        .collect()
}

/// Does it all; answers what is wrong.
pub(crate) fn run(size: Size) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut dice = Dice(size.seed);
    let mut production =
        Production::on_its_own_postgres(&json!({"seed": size.seed, "list_lag_ms": 300, "expires_in_s": 40}));
    for (key, value) in [
        ("WORKER__BATCH_LEN_MAX", "10"),
        ("WORKER__CONCURRENCY", "2"),
        ("WORKER__LEASE", "2s"),
        ("RECONCILE__SETTLE", "2s"),
        ("RECONCILE__FIRST_LOOK", "500ms"),
        ("RECONCILE__ON_ABSENT", "resend_once"),
        // Of a worker that is killed before it has its lock from a restarted Postgres nobody can prove the death: it is held.
        ("RECONCILE__PROVE_WITHIN", "20s"),
        ("GATEWAY__CONNECT_TIMEOUT", "1s"),
        ("GATEWAY__SEND_TIMEOUT", &format!("{SEND_TIMEOUT_MS}ms")),
        ("GATEWAY__REFRESH_STALE", "6s"),
        ("GATEWAY__PASSWORD_GRANT_EVERY", "5s"),
        ("INGEST__UNCHANGED_FOR", "1s"),
    ] {
        production.set(key, value);
    }
    let crier = production.crier.clone();
    let drop = production.folder().display().to_string();
    let mut fleet = Fleet { crier: crier.clone(), drop, running: Vec::new(), frozen: Vec::new() };
    fleet.start();
    let inbox = production.folder().join("inbox");
    eventually("the watcher makes its inbox", PATIENCE, || inbox.is_dir());

    let mailings = mailings(size.recipients);
    let (last, others) = mailings.split_last().expect("there is somebody to text");
    let mut waiting = others.iter();
    let mut drop_next = |production: &Production| {
        let (name, mailing) = waiting.next().expect("as many as were counted");
        production.drop_in(&format!("{name}.csv"), &mailing.csv);
    };
    drop_next(&production);
    let mut dropped = 1;
    production.wait_for_texts(1);

    let begun = (Instant::now(), now_ms());
    let plan = blows::plan(size, &mut dice);
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut excuses, mut renewals_hit) = (Excuses::default(), 0);
    for (nth, blow) in plan.iter().enumerate() {
        // Evenly over the whole, so that there is always something to send.
        while dropped < others.len() * (nth + 1) / plan.len() {
            drop_next(&production);
            dropped += 1;
        }
        match blow {
            Blow::Kill => {
                let at = dice.below(fleet.running.len());
                fleet.kill(at);
                renewals_hit += u64::from(is_renewing(&production.database));
            }
            Blow::Freeze => {
                let at = dice.below(fleet.running.len());
                // Now and then longer than the lease, and than a batch may wait to be sent.
                let ms = if dice.below(6) == 0 { 3_500 } else { dice.between(50, 500) };
                fleet.freeze(at, Instant::now() + Duration::from_millis(ms));
                renewals_hit += u64::from(is_renewing(&production.database));
            }
            Blow::FlushRedis => {
                production.redis.flush();
                excuses.forgotten.push(now_ms());
            }
            Blow::RestartRedis => {
                production.redis.restart();
                excuses.forgotten.push(now_ms());
            }
            Blow::RestartPostgres => production.postgres.as_mut().expect("it has its own").restart(),
            Blow::BrownOut => production.place.sandbox.faults(&blows::brown_out()),
            Blow::Heal => production.place.sandbox.heal(),
            Blow::Storm => _ = production.place.sandbox.control("POST", "faults", Some(&blows::storm())),
            Blow::RevokeToken => {
                production.place.sandbox.control("POST", "tokens", Some(&json!({"revoke_access": true})));
            }
            Blow::BurnToken => {
                let both = json!({"revoke_access": true, "burn_refresh": true});
                production.place.sandbox.control("POST", "tokens", Some(&both));
            }
        }
        *done.entry(blow.words()).or_default() += 1;
        let next = Instant::now() + Duration::from_millis(dice.between(50, 500));
        eventually("the next blow is due", PATIENCE, || {
            excuses.frozen.extend(fleet.thaw(false));
            Instant::now() >= next
        });
        wrong.extend(fleet.fallen());
    }
    let (took, ended_ms) = (begun.0.elapsed(), now_ms());
    production.place.sandbox.heal();
    excuses.frozen.extend(fleet.thaw(true));

    // Nothing is broken any more: how long until somebody new is texted?
    let resumed = Instant::now();
    let (name, mailing) = last;
    production.drop_in(&format!("{name}.csv"), &mailing.csv);
    let first = format!(
        "SELECT count(*) FROM told_rows m JOIN campaigns c ON c.id = m.campaign_id WHERE c.name = '{name}' \
        AND m.state IN ('accepted', 'sent', 'failed')"
    );
    let query: &'static str = first.leak();
    let mut resume_s = f64::INFINITY;
    while resumed.elapsed() < PATIENCE && resume_s.is_infinite() {
        if production.ask::<i64>(query) > 0 {
            resume_s = resumed.elapsed().as_secs_f64();
        }
    }
    let settling = Instant::now();
    let (mut settled, mut last_status) = (false, String::new());
    while !settled && settling.elapsed() < SETTLED_WITHIN {
        let looked = Instant::now();
        (settled, last_status) = is_all_settled(&crier);
        eventually("a moment", PATIENCE, || looked.elapsed() > Duration::from_secs(1));
    }
    if !settled {
        wrong.push(format!("rows are stuck after {SETTLED_WITHIN:?}: {last_status}"));
    }
    wrong.extend(fleet.fallen());

    let fate = oracle::fate(&crier, &production.place.sandbox, &mailings);
    let book = production.place.sandbox.book();
    let calls = Calls::of(&production.place.sandbox.calls());
    let early = calls.early(&excuses);
    let count = |name: &str| book[name].as_u64().expect("a count");
    #[expect(clippy::cast_precision_loss, reason = "some minutes at most")]
    let silence_s = calls.longest_silence_ms(begun.1, ended_ms) as f64 / 1000.0;
    let (grants, burned) = (count("password_grants"), count("burned_presentations"));
    #[expect(clippy::cast_precision_loss, reason = "some thousand at most")]
    let held_share = fate.held as f64 / f64::from(size.recipients);

    println!("blows in {:.0} s: {done:?}", took.as_secs_f64());
    println!("faults of the gateway: {}", book["faults"]);
    println!(
        "twice {}, lost {}, held {} ({:.2} %), sent {}, failed {}",
        fate.twice,
        fate.lost.len(),
        fate.held,
        held_share * 100.0,
        fate.sent,
        fate.failed
    );
    println!(
        "password grants {grants} (refresh tokens refused {burned}, renewals hit {renewals_hit}), refreshes {}",
        count("refresh_grants")
    );
    println!("calls before Retry-After {} (excused {}), throttled {}", early.calls, early.excused, count("throttled"));
    println!(
        "seconds to resume {resume_s:.1}, longest without a send {silence_s:.1}, settled {:.0} s after the last blow",
        settling.elapsed().as_secs_f64()
    );

    let mut check = |good: bool, what: String| wrong.extend((!good).then_some(what));
    check(fate.twice == 0, format!("{} people were texted twice", fate.twice));
    check(fate.lost.is_empty(), format!("lost: {:#?}", fate.lost.iter().take(20).collect::<Vec<_>>()));
    check(fate.held_and_sent == 0, format!("{} rows are held and the list has their text", fate.held_and_sent));
    check(held_share <= HELD_SHARE_MAX, format!("{:.2} % are held", held_share * 100.0));
    check(grants <= 1 + burned + renewals_hit, format!("{grants} password grants"));
    check(early.calls == 0, format!("{} calls before Retry-After", early.calls));
    check(
        resume_s.max(silence_s) <= RESUMED_WITHIN_S,
        format!("nothing was sent for {:.1} s", resume_s.max(silence_s)),
    );
    wrong
}
