//! The real binary ends at each border of the way of a file and of a row, is started again, and nobody is texted twice or
//! lost. The points are listed in `crates/crash`.

use crate::harness::{
    Account, Crier, DEADLINE, Mailing, Place, Process, Redis, Signal, account, eventually, is_all_settled,
};
use serde_json::{Value, json};
use sqlx::Connection;
use std::{
    fs,
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// Ways at a time in each test: they mostly wait.
const AT_A_TIME: usize = 3;

/// How a point is reached, and what is to be seen in the end.
#[derive(Clone, Debug)]
struct Way {
    point: &'static str,
    rows: u32,
    faults: Value,
    on_absent: &'static str,
    /// The tokens are spoiled so before the services start; without it there are none yet.
    spoiled: Option<Value>,
    /// The worker is asked to end while it waits for the call budget.
    stopped: bool,
    /// The worker ends here first, and then comes the reconciler that is to end at the point.
    worker_ends_at: Option<&'static str>,
    /// A file that is refused comes first, and what watches ends with it.
    refused: bool,
    held: u64,
}

/// Each way to a point.
fn ways(point: &'static str) -> Vec<Way> {
    let way = Way {
        point,
        rows: 60,
        faults: json!([]),
        on_absent: "hold",
        spoiled: None,
        stopped: false,
        worker_ends_at: None,
        refused: false,
        held: 0,
    };
    let lost = json!([{"operation": "bulk_send", "fault": "status", "status": 500, "times": 1}]);
    let revoked = Some(json!({"revoke_access": true}));
    match point.split_once(": ").map_or(point, |(_, operation)| operation) {
        // Marked and not sent: the list can't tell that from a request that is late, so its batch is held.
        "before the request" => vec![Way { held: 20, ..way }],
        "mark a batch as being sent" if point.starts_with(crash::AFTER_COMMIT) => vec![Way { held: 20, ..way }],
        "take a batch back unsent" => {
            let throttle =
                json!({"operation": "bulk_send", "fault": "throttle", "ms": 4000, "retry_after_s": 5, "times": 1});
            vec![Way { faults: json!([throttle]), stopped: true, ..way }]
        }
        "take back what dead workers left" => {
            vec![Way { worker_ends_at: Some("after commit: mark a batch as being sent"), held: 20, ..way }]
        }
        "hold rows" | "remember a reading of the list" => vec![Way { faults: lost, held: 20, ..way }],
        "queue absent rows again" => vec![Way { faults: lost, rows: 1_300, on_absent: "resend_once", ..way }],
        "release the token row" => {
            vec![Way { spoiled: Some(json!({"revoke_access": true, "burn_refresh": true})), ..way }]
        }
        "claim the token row" | "before the token request" | "after the token answer" | "commit the new token pair" => {
            vec![way.clone(), Way { spoiled: revoked, ..way }]
        }
        "its place in done is noted" | "its summary is written" | "the file is in done" => {
            vec![way.clone(), Way { refused: true, ..way }]
        }
        _ => vec![way],
    }
}

/// The services over one embedded ledger and one Redis, each started again when it ends at its point.
struct Services<'a> {
    crier: &'a Crier,
    running: Vec<Running>,
    /// Ends at points since this was last set to none.
    ended_at_points: usize,
    /// Others were asked to end, too.
    asked: bool,
}

struct Running {
    service: Service,
    process: Process,
    may_crash: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    Watcher,
    Worker,
    Reconciler,
}

impl<'a> Services<'a> {
    fn new(crier: &'a Crier) -> Self {
        Self { crier, running: Vec::new(), ended_at_points: 0, asked: false }
    }

    fn start(&mut self, service: Service, crier: &Crier, may_crash: bool) {
        let process = match service {
            Service::Watcher => crier.spawn(["ingest", "--watch", "drop"]),
            Service::Worker => crier.spawn(["worker"]),
            Service::Reconciler => crier.spawn(["reconciler"]),
        };
        self.running.push(Running { service, process, may_crash });
    }

    /// Starts again what ended; each may only have ended at its point, or because it was asked to. Those that may still end
    /// at it are asked to, once one has: of three ends in a row each would be waited for.
    fn revive(&mut self) {
        for mut running in std::mem::take(&mut self.running) {
            if running.process.is_running() {
                self.running.push(running);
                continue;
            }
            let ended = running.process.wait(DEADLINE);
            let at_a_point = ended.code.is_none() && ended.stderr.contains("crash point: ");
            // A signal that comes before the program listens ends it before it has said or done anything.
            let unheard = ended.code.is_none() && ended.stderr.is_empty();
            let as_asked = self.asked && (ended.code == Some(0) || unheard);
            assert!(at_a_point || as_asked, "a service ended by itself: {}", ended.stderr);
            self.ended_at_points += usize::from(at_a_point);
            self.start(running.service, self.crier, false);
        }
        if self.ended_at_points > 0 && !self.asked {
            self.asked = true;
            for running in self.running.iter_mut().filter(|running| running.may_crash) {
                running.process.signal(Signal::Term);
            }
        }
    }
}

/// How many rows of the ledger are so.
fn count(place: &Place, from: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut ledger = sqlx::SqliteConnection::connect(&place.sqlite()).await.expect("the ledger is there");
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {from}"));
        sqlx::query_scalar(count).fetch_one(&mut ledger).await.expect("its words are SQL")
    })
}

/// Chunks that nobody works on and nobody can take: a row of theirs that is queued once more would never be sent.
const LEFT_TO_THE_DEAD: &str = "chunks k LEFT JOIN owners w ON w.id = k.owner_id
    WHERE k.state = 'working' AND (w.id IS NULL OR w.ended_at IS NOT NULL)";

fn go(way: &Way) -> Account {
    let place = Place::new();
    let redis = Redis::start();
    let crier = place
        .crier()
        .queue(&redis.url())
        .set("GATEWAY__CONNECT_TIMEOUT", "1s")
        .set("GATEWAY__SEND_TIMEOUT", "3s")
        .set("GATEWAY__REFRESH_STALE", "6s")
        .set("GATEWAY__PASSWORD_GRANT_EVERY", "1s")
        .set("RECONCILE__SETTLE", "1s")
        .set("RECONCILE__FIRST_LOOK", "200ms")
        .set("RECONCILE__ON_ABSENT", way.on_absent)
        .set("WORKER__CONCURRENCY", "1")
        .set("WORKER__BATCH_LEN_MAX", if way.rows > 500 { "100" } else { "20" });
    if let Some(spoiled) = &way.spoiled {
        crier.expect(0, ["senders", "list"]);
        place.sandbox.control("POST", "tokens", Some(spoiled));
    }
    place.sandbox.faults(&way.faults);

    // The inbox is filled before anybody looks: a reject, and settings beside the file.
    let mut mailing = Mailing::of(way.rows, 1);
    mailing.csv.push_str("07700,ACME,Text 0 of the campaign\n");
    mailing.rows += 1;
    mailing.invalid += 1;
    let drop = place.dir.path().join("drop");
    fs::create_dir_all(drop.join("inbox")).expect("the journey's directory is writable");
    for (name, content) in [("spring.toml", "priority = 1\n"), ("spring.csv", &mailing.csv)] {
        fs::write(drop.join(name), content).expect("the folder is writable");
    }

    let crashing = crier.clone().crash_at(way.point);
    let mut services = Services::new(&crier);
    let worker = way.worker_ends_at.map_or_else(|| crashing.clone(), |point| crier.clone().crash_at(point));
    services.start(Service::Watcher, &crashing, true);
    services.start(Service::Worker, &worker, true);
    if way.worker_ends_at.is_none() {
        services.start(Service::Reconciler, &crashing, true);
    }
    let renamed_in = |name: &str| fs::rename(drop.join(name), drop.join("inbox").join(name)).expect("one file system");
    renamed_in("spring.toml");
    let before = Instant::now();
    // Renamed in while somebody listens, or it is taken after ten seconds only.
    eventually("the watcher is there", DEADLINE, || {
        services.revive();
        drop.join("processing").read_dir().is_ok_and(|mut entries| entries.next().is_some())
            || before.elapsed() > Duration::from_secs(5)
    });
    if way.refused {
        fs::write(drop.join("bad.csv"), "phone,sender,text\n07700900001,ACME,\"no end\n")
            .expect("the folder is writable");
        renamed_in("bad.csv");
        eventually("the file is refused", DEADLINE, || {
            services.revive();
            services.ended_at_points > 0 && drop.join("refused/bad.csv").is_file()
        });
        assert!(drop.join("refused/bad.refused.txt").is_file(), "nobody is told why after the end {}", way.point);
    }
    renamed_in("spring.csv");

    if way.worker_ends_at.is_some() {
        eventually("the worker ends", DEADLINE, || {
            services.revive();
            services.ended_at_points > 0
        });
        services.ended_at_points = 0;
        services.start(Service::Reconciler, &crashing, true);
    }
    if way.stopped {
        // A batch is taken back while the outcome of the one before is written down: an end there leaves both, and that one unknown.
        eventually("a call was refused for the budget, and that is written down", DEADLINE, || {
            let refused = place.sandbox.book()["throttled"].as_u64() > Some(0);
            refused && count(&place, "attempts WHERE state = 'refused'") > 0
        });
        services.asked = true;
        let worker = services.running.iter_mut().find(|running| running.service == Service::Worker);
        worker.expect("it runs").process.signal(Signal::Term);
    }

    let done: PathBuf = drop.join("done/spring.csv");
    let mut looked = Instant::now();
    eventually(&format!("all is settled after the end {}", way.point), 3 * DEADLINE, || {
        services.revive();
        let look = services.ended_at_points > 0 && done.is_file() && looked.elapsed() > Duration::from_secs(1);
        look && {
            let (settled, _) = is_all_settled(&crier);
            looked = Instant::now();
            settled
        }
    });
    for companion in ["spring.toml", "spring.rejected.csv", "spring.summary.json"] {
        assert!(drop.join("done").join(companion).is_file(), "{companion} is lost");
    }
    eventually(&format!("no chunk is left to the dead after the end {}", way.point), DEADLINE, || {
        services.revive();
        count(&place, LEFT_TO_THE_DEAD) == 0
    });
    let account = account(&crier, &place.sandbox, "spring", &mailing);
    assert_eq!((account.held, account.held_and_sent), (way.held, 0), "{}: {account:?}", way.point);
    let book = place.sandbox.book();
    assert_eq!(book["calls_before_retry_after"], 0);
    // Once more for each process that ended with a pair that it had not yet written down.
    assert!(book["password_grants"].as_u64() <= Some(1 + services.ended_at_points as u64), "{book}");
    account
}

/// Goes all ways to these points, some at a time.
fn go_all(points: &[&'static str]) {
    let ways = Mutex::new(points.iter().flat_map(|point| ways(point)).collect::<Vec<_>>());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(way) = ways.lock().expect("nobody panics with it").pop() else { break };
                    let begun = Instant::now();
                    let account = go(&way);
                    println!("{}: {account:?} in {:.1} s", way.point, begun.elapsed().as_secs_f64());
                }
            });
        }
    });
}

fn half(nth: usize) -> &'static [&'static str] {
    let (first, second) = crash::POINTS.split_at(crash::POINTS.len() / 2);
    [first, second][nth]
}

#[test]
fn an_end_at_any_border_from_the_file_to_the_claim_loses_and_doubles_nobody() {
    go_all(half(0));
}

#[test]
fn an_end_at_any_border_from_the_request_to_the_report_loses_and_doubles_nobody() {
    go_all(half(1));
}
