//! Several processes over one Redis and one Postgres, and a drop folder.

use super::{
    Account, Crier, DEADLINE, Database, Mailing, Place, Postgres, Process, Redis, account, database, eventually,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A production of its own. The services are killed first, then what they stand on.
pub(crate) struct Production {
    pub(crate) workers: Vec<Process>,
    pub(crate) reconciler: Option<Process>,
    pub(crate) watcher: Option<Process>,
    pub(crate) crier: Crier,
    pub(crate) database: Database,
    pub(crate) postgres: Option<Postgres>,
    pub(crate) redis: Redis,
    pub(crate) place: Place,
}

impl Production {
    /// Ledger, queue and gateway; no service yet.
    pub(crate) fn new(sandbox: &Value) -> Self {
        Self::on(Place::with(sandbox), database(), None)
    }

    /// On a Postgres that may be taken away.
    pub(crate) fn on_its_own_postgres(sandbox: &Value) -> Self {
        let postgres = Postgres::start();
        let database = postgres.new_database();
        Self::on(Place::with(sandbox), database, Some(postgres))
    }

    fn on(place: Place, database: Database, postgres: Option<Postgres>) -> Self {
        let redis = Redis::start();
        let crier = place.crier_on(&database, &redis);
        crier.expect(0, ["migrate"]);
        Self { workers: Vec::new(), reconciler: None, watcher: None, crier, database, postgres, redis, place }
    }

    /// Changes a setting of what is started from now on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.crier = self.crier.clone().set(key, value);
    }

    /// Three workers, a reconciler and a watcher.
    pub(crate) fn start(&mut self) {
        self.workers = (0..3).map(|_| self.crier.spawn(["worker"])).collect();
        self.reconciler = Some(self.crier.spawn(["reconciler"]));
        self.start_watcher();
    }

    pub(crate) fn start_watcher(&mut self) {
        self.watcher = Some(self.crier.spawn(["ingest".as_ref(), "--watch".as_ref(), self.folder().as_os_str()]));
        let inbox = self.folder().join("inbox");
        eventually("the watcher makes its inbox", DEADLINE, || inbox.is_dir());
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.place.dir.path().join("drop")
    }

    /// Renames a file into the inbox.
    pub(crate) fn drop_in(&self, name: &str, content: impl AsRef<[u8]>) {
        let written = self.folder().join(name);
        fs::write(&written, content).expect("the folder is writable");
        fs::rename(&written, self.folder().join("inbox").join(name)).expect("the inbox is in the same folder");
    }

    /// Waits until the sandbox has taken this many texts.
    pub(crate) fn wait_for_texts(&self, at_least: u64) {
        eventually(&format!("{at_least} texts are in the book"), DEADLINE, || self.texts() >= at_least);
    }

    pub(crate) fn texts(&self) -> u64 {
        self.place.sandbox.book()["accepted"].as_u64().expect("a count")
    }

    /// Waits until no row of any campaign is to change by itself.
    pub(crate) fn wait_till_settled(&self) {
        wait_till_settled(&self.crier, || {
            let open = "SELECT coalesce(json_agg(a), '[]')::text FROM (SELECT id, state, owner_id, sending_at, ended_at, outcome,
                look_at, looks, looked_at FROM attempts WHERE state IN ('formed', 'sending', 'accepted', 'unknown')) a";
            let cursors = "SELECT coalesce(json_agg(c), '[]')::text FROM cursors c";
            let owners = "SELECT coalesce(json_agg(o), '[]')::text FROM owners o";
            [open, cursors, owners].map(|query| self.ask::<String>(query)).join("\n")
        });
    }

    /// Asks the ledger's database itself.
    pub(crate) fn ask<T>(&self, query: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let pool = sqlx::PgPool::connect(&self.database.url()).await.expect("the database is there");
            sqlx::query_scalar(query).fetch_one(&pool).await.expect("the query is right")
        })
    }

    /// Waits for the end of a mailing that was dropped as `{campaign}.csv`, and checks the promise.
    pub(crate) fn account(&self, campaign: &str, mailing: &Mailing) -> Account {
        self.wait_till_settled();
        account(&self.crier, &self.place.sandbox, campaign, mailing)
    }

    /// The gateway's book says that tokens and limits were kept.
    #[track_caller]
    pub(crate) fn assert_good_manners(&self) {
        let book = self.place.sandbox.book();
        let counts = ["password_grants", "refresh_tokens_presented_twice", "burned_presentations", "throttled"];
        let found = counts.map(|count| book[count].as_u64().expect("a count"));
        assert_eq!(found, [1, 0, 0, 0], "{counts:?}");
        assert_eq!(book["unknown_presentations"], 0);
        assert_eq!(book["calls_before_retry_after"], 0);
    }

    /// Ends all services; each must end well.
    pub(crate) fn stop(&mut self) {
        let services = self.workers.drain(..).chain(self.reconciler.take()).chain(self.watcher.take());
        let services: Vec<_> = services
            .map(|mut service| {
                service.signal(super::Signal::Term);
                service
            })
            .collect();
        for service in services {
            let ended = service.wait(DEADLINE);
            assert_eq!(ended.code, Some(0), "a service ended badly:\n{}", ended.stderr);
        }
    }
}

/// Waits until no row is to change by itself. Asks now and then only: each question is a process.
/// `explain` says more where that takes too long.
pub(crate) fn wait_till_settled(crier: &Crier, explain: impl Fn() -> String) {
    const EVERY: Duration = Duration::from_millis(1500);
    let mut asked: Option<Instant> = None;
    let mut last = String::new();
    let begun = Instant::now();
    eventually("every row is settled", DEADLINE, || {
        if asked.is_some_and(|at| at.elapsed() < EVERY) {
            return false;
        }
        let (settled, answer) = is_all_settled(crier);
        asked = Some(Instant::now());
        last = answer;
        assert!(begun.elapsed() < DEADLINE - Duration::from_secs(5), "not settled: {last}\n{}", explain());
        settled
    });
}

/// Whether there are rows and none is to change by itself, with what `crier status` printed. While the ledger is away, no.
pub(crate) fn is_all_settled(crier: &Crier) -> (bool, String) {
    let answer = crier.run(["status", "--json"]);
    let campaigns: Value = serde_json::from_str(&answer.stdout).unwrap_or(json!([]));
    let settled = answer.code == Some(0)
        && campaigns.as_array().is_some_and(|campaigns| {
            !campaigns.is_empty()
                && campaigns.iter().all(|campaign| campaign["campaign_state"] == "active" && is_settled(campaign))
        });
    (settled, answer.stdout)
}

fn is_settled(campaign: &Value) -> bool {
    const OPEN: [&str; 5] = ["scheduled", "queued", "sending", "unknown", "accepted"];
    campaign["rows"].as_u64() > Some(0) && OPEN.iter().all(|state| campaign["states"].get(state).is_none())
}
