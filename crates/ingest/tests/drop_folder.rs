//! The drop folder: what is dropped is found in `done` or `refused`, once, whatever dies in between.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

use campaign::SenderId;
use ingest::{Happened, Options, WatchSettings, watch};
use jiff::Timestamp;
use ledger::{Ledger, OwnerGuard};
use sqlx::{Connection, SqliteConnection};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use testbed::eventually_async;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    "2026-03-02T09:00:00Z".parse().unwrap()
}

async fn know_acme(ledger: &Ledger) {
    ledger.record_senders(&[(SenderId::parse("ACME").unwrap(), true)], Timestamp::now()).await.unwrap();
}

struct House {
    dir: tempfile::TempDir,
    ledger: Ledger,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&format!("sqlite://{}", dir.path().join("ledger.db").display())).await.unwrap();
        ledger.migrate().await.unwrap();
        know_acme(&ledger).await;
        let house = Self { dir, ledger };
        for folder in ["inbox", "processing", "done", "refused"] {
            fs::create_dir_all(house.at(folder)).unwrap();
        }
        house
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("drop").join(name)
    }

    /// Writes elsewhere and renames in, as is asked of people.
    fn drop_in(&self, name: &str, bytes: &str) {
        let elsewhere = self.dir.path().join(name);
        fs::write(&elsewhere, bytes).unwrap();
        fs::rename(elsewhere, self.at("inbox").join(name)).unwrap();
    }

    async fn watcher(&self, name: &str) -> Running {
        self.watcher_of(name, self.ledger.clone(), Duration::from_secs(3600)).await
    }

    async fn watcher_of(&self, name: &str, ledger: Ledger, unchanged_for: Duration) -> Running {
        let owner = self.ledger.register_owner("ingest", name, 1, Timestamp::now()).await.unwrap();
        let mut settings = WatchSettings::new(self.dir.path().join("drop"), name.to_owned(), owner.id());
        settings.unchanged_for = unchanged_for;
        settings.rescan_every = Duration::from_millis(50);
        settings.options = Options { sender: Some("ACME".into()), text: Some("hi".into()), ..Options::default() };
        let cancel = CancellationToken::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (cancel, heard) = (cancel.clone(), Arc::clone(&heard));
            async move {
                let hear = |event: Happened<'_>| heard.lock().unwrap().push(told(&event));
                watch(&ledger, &settings, now, hear, &cancel).await.unwrap();
            }
        });
        let running = Running { cancel, task, heard, _owner: owner };
        running.until(|| self.at(&format!("processing/.{name}.lock")).exists()).await;
        running
    }

    async fn count(&self, table: &str) -> i64 {
        let url = format!("sqlite://{}", self.dir.path().join("ledger.db").display());
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(query).fetch_one(&mut SqliteConnection::connect(&url).await.unwrap()).await.unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    heard: Arc<Mutex<Vec<String>>>,
    _owner: OwnerGuard,
}

fn told(event: &Happened<'_>) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    match event {
        Happened::Launched { file, loaded, .. } => {
            format!("launched {} {}", name(file), if loaded.is_some() { "here" } else { "before" })
        }
        Happened::Refused { file, code, .. } => format!("refused {} {code}", name(file)),
        Happened::Waiting { .. } => "waiting".to_owned(),
        Happened::GoesOn => "goes on".to_owned(),
        Happened::Foreign { name } => format!("foreign {name}"),
    }
}

impl Running {
    async fn until(&self, what: impl Fn() -> bool) {
        eventually_async("the watcher does it", PATIENCE, async || {
            assert!(!self.task.is_finished(), "the watcher ended; heard {:?}", self.heard.lock().unwrap());
            what()
        })
        .await;
    }

    async fn until_heard(&self, what: &str) {
        self.until(|| self.heard.lock().unwrap().iter().any(|heard| heard == what)).await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }

    /// Ends without a word, as a process that is killed does.
    async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_in_is_launched_and_found_in_done() {
    let house = House::new().await;
    let watcher = house.watcher("one").await;
    house.drop_in("march.toml", "text = \"from the settings\"\n");
    house.drop_in("march.csv", "phone\n07700900001\n0770\n");
    watcher.until_heard("launched march.csv here").await;
    assert_eq!(house.names("done"), ["march.csv", "march.rejected.csv", "march.summary.json", "march.toml"]);
    assert_eq!((house.names("processing"), house.names("inbox")), (vec![], vec![]));
    assert_eq!(house.count("texts WHERE body = 'from the settings'").await, 1);
    assert_eq!(house.count("campaigns WHERE name = 'march' AND state = 'active'").await, 1);
    watcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_found_with_its_one_line() {
    let house = House::new().await;
    let watcher = house.watcher("one").await;
    house.drop_in("bad.csv", "phone,phone\n1,2\n");
    watcher.until_heard("refused bad.csv same_columns").await;
    assert_eq!(house.names("refused"), ["bad.csv", "bad.refused.txt"]);
    let why = fs::read_to_string(house.at("refused/bad.refused.txt")).unwrap();
    assert_eq!(why.lines().count(), 1, "{why}");
    assert_eq!(house.count("imports").await, 0);
    watcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_dropped_again_are_refused_and_the_same_name_gets_a_number() {
    let house = House::new().await;
    let watcher = house.watcher("one").await;
    house.drop_in("a.csv", "phone\n07700900001\n");
    watcher.until_heard("launched a.csv here").await;
    house.drop_in("b.csv", "phone\n07700900001\n");
    watcher.until_heard("refused b.csv launched_before").await;
    let why = fs::read_to_string(house.at("refused/b.refused.txt")).unwrap();
    assert!(why.contains("as a.csv on 2026-03-02"), "{why}");
    house.drop_in("a.csv", "phone\n07700900002\n");
    watcher.until_heard("launched a-2.csv here").await;
    assert_eq!(house.count("all_rows").await, 2);
    watcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_still_written_is_left_until_it_is_unchanged() {
    let house = House::new().await;
    let watcher = house.watcher_of("one", house.ledger.clone(), Duration::from_millis(400)).await;
    let path = house.at("inbox/slow.csv");
    let mut bytes = "phone\n".to_owned();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for n in 1..=8 {
        bytes.push_str(&format!("0770090000{n}\n"));
        fs::write(&path, &bytes).unwrap();
        pace.tick().await;
    }
    watcher.until_heard("launched slow.csv here").await;
    assert_eq!(house.count("all_rows").await, 8);
    watcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_and_foreign_names_are_left() {
    let house = House::new().await;
    let names = [".hidden.csv", "a.csv.part", "b.csv.tmp", "c.filepart", "d.crdownload", "later.toml", "photo.jpg"];
    for name in names {
        house.drop_in(name, "x");
    }
    let watcher = house.watcher_of("one", house.ledger.clone(), Duration::ZERO).await;
    watcher.until_heard("foreign photo.jpg").await;
    house.drop_in("go.csv", "phone\n07700900001\n");
    watcher.until_heard("launched go.csv here").await;
    assert_eq!(fs::read_dir(house.at("inbox")).unwrap().count(), names.len());
    assert_eq!(watcher.heard.lock().unwrap().len(), 2, "a foreign name is told once");
    watcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_watchers_launch_each_file_once() {
    let house = House::new().await;
    let (one, two, three) = tokio::join!(house.watcher("one"), house.watcher("two"), house.watcher("three"));
    for n in 0..20 {
        house.drop_in(&format!("f{n}.csv"), &format!("phone\n077009000{n:02}\n"));
    }
    one.until(|| house.names("done").iter().filter(|name| name.ends_with(".csv")).count() == 20).await;
    for watcher in [one, two, three] {
        watcher.stop().await;
    }
    assert_eq!((house.count("imports").await, house.count("all_rows").await), (20, 20));
    assert_eq!((house.names("processing"), house.names("refused")), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_down_is_waited_for() {
    let house = House::new().await;
    let other = tempfile::tempdir().unwrap();
    // Opened and never migrated: each call fails until it is.
    let ledger = Ledger::open(&format!("sqlite://{}", other.path().join("l.db").display())).await.unwrap();
    let watcher = house.watcher_of("one", ledger.clone(), Duration::ZERO).await;
    house.drop_in("a.csv", "phone\n07700900001\n");
    watcher.until_heard("waiting").await;
    assert_eq!(house.names("processing"), ["one--a.csv", "one--a.csv.claim"]);
    ledger.migrate().await.unwrap();
    know_acme(&ledger).await;
    ledger.register_owner("ingest", "one", 1, Timestamp::now()).await.unwrap();
    watcher.until_heard("launched a.csv here").await;
    assert_eq!(*watcher.heard.lock().unwrap(), ["waiting", "goes on", "launched a.csv here"]);
    watcher.stop().await;
}

/// What a watcher that died left behind; `note` is its claim note.
fn left_by_the_dead(house: &House, name: &str, bytes: &str, note: Option<&str>) {
    fs::write(house.at("processing/.dead.lock"), "").unwrap();
    fs::write(house.at(&format!("processing/dead--{name}")), bytes).unwrap();
    if let Some(note) = note {
        fs::write(house.at(&format!("processing/dead--{name}.claim")), note).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_point_1_a_half_claim_is_completed_with_its_settings() {
    let house = House::new().await;
    left_by_the_dead(&house, "a.csv", "phone\n07700900001\n", None);
    house.drop_in("a.toml", "text = \"from the settings\"\n");
    let heir = house.watcher("heir").await;
    heir.until_heard("launched a.csv here").await;
    assert_eq!(house.count("texts WHERE body = 'from the settings'").await, 1);
    heir.until(|| !house.at("processing/.dead.lock").exists()).await;
    assert_eq!(house.names("processing"), [""; 0]);
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_point_2_a_half_load_is_loaded_whole() {
    let house = House::new().await;
    let bytes = format!("phone\n{}", (0..21_000).map(|n| format!("07400 {:06}\n", 200_000 + n)).collect::<String>());
    let first = house.watcher("first").await;
    house.drop_in("a.csv", &bytes);
    let deadline = Instant::now() + PATIENCE;
    while house.count("all_rows").await == 0 {
        assert!(Instant::now() < deadline);
    }
    first.die().await;
    assert_eq!(house.count("campaigns WHERE state = 'active'").await, 0, "it was loaded before it could die");
    let heir = house.watcher("heir").await;
    heir.until_heard("launched a.csv here").await;
    assert_eq!(house.count("(SELECT DISTINCT row_number FROM all_rows)").await, 21_000);
    assert_eq!((house.count("all_rows").await, house.count("imports").await), (21_000, 1));
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_point_3_a_launched_file_is_moved_on_and_its_twin_refused() {
    let house = House::new().await;
    let bytes = "phone\n07700900001\n0770\n";
    let first = house.watcher("first").await;
    house.drop_in("a.csv", bytes);
    first.until_heard("launched a.csv here").await;
    first.stop().await;
    fs::remove_dir_all(house.at("done")).unwrap();
    // As if it had died right after the import was finished.
    left_by_the_dead(&house, "a.csv", bytes, Some(r#"{"import":1}"#));
    fs::write(house.at("processing/dead--a.csv.rejects"), "the rejects").unwrap();
    left_by_the_dead(&house, "twin.csv", bytes, Some("{}"));
    let heir = house.watcher("heir").await;
    heir.until_heard("launched a.csv before").await;
    heir.until_heard("refused twin.csv launched_before").await;
    assert_eq!(fs::read_to_string(house.at("done/a.rejected.csv")).unwrap(), "the rejects");
    assert_eq!(house.count("imports").await, 1);
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_point_4_a_half_move_is_completed_under_the_same_name() {
    let house = House::new().await;
    let bytes = "phone\n07700900001\n";
    let first = house.watcher("first").await;
    house.drop_in("a.csv", bytes);
    first.until_heard("launched a.csv here").await;
    first.stop().await;
    // As if it had died when all but the CSV was moved.
    fs::remove_file(house.at("done/a.csv")).unwrap();
    left_by_the_dead(&house, "a.csv", bytes, Some(r#"{"import":1,"moves_to":"a"}"#));
    let heir = house.watcher("heir").await;
    heir.until_heard("launched a.csv before").await;
    assert_eq!(house.names("done"), ["a.csv", "a.summary.json"]);
    heir.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_goes_on_with_what_an_earlier_one_of_its_name_left() {
    let house = House::new().await;
    left_by_the_dead(&house, "a.csv", "phone\n07700900001\n", None);
    let watcher = house.watcher("dead").await;
    watcher.until_heard("launched a.csv here").await;
    watcher.stop().await;
    assert_eq!(house.names("processing"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_living_watcher_are_left_alone() {
    let house = House::new().await;
    let lock = fs::File::create(house.at("processing/.alive.lock")).unwrap();
    lock.lock().unwrap();
    fs::write(house.at("processing/alive--a.csv"), "phone\n07700900001\n").unwrap();
    let watcher = house.watcher("other").await;
    house.drop_in("b.csv", "phone\n07700900002\n");
    watcher.until_heard("launched b.csv here").await;
    assert_eq!(house.names("processing"), ["alive--a.csv"]);
    drop(lock);
    watcher.until_heard("launched a.csv here").await;
    watcher.stop().await;
}

#[tokio::test]
async fn a_file_waits_until_it_is_known_which_senders_are_approved() {
    let house = House::new().await;
    house.ledger.record_senders(&[], Timestamp::now()).await.unwrap();
    let watcher = house.watcher("one").await;
    house.drop_in("a.csv", "phone\n07700900001\n");
    watcher.until_heard("waiting").await;
    know_acme(&house.ledger).await;
    watcher.until_heard("launched a.csv here").await;
}

#[tokio::test]
async fn a_file_whose_conditions_do_not_hold_is_refused_with_the_line() {
    let house = House::new().await;
    let watcher = house.watcher("one").await;
    let drop_with = |name: &str, toml: &str| {
        fs::write(house.at("inbox").join(format!("{name}.toml")), toml).unwrap();
        house.drop_in(&format!("{name}.csv"), &format!("phone,name\n07700900001,{name}\n"));
    };
    drop_with("dear", "max_cost = 0.05\n");
    watcher.until_heard("refused dear.csv conditions").await;
    let why = fs::read_to_string(house.at("refused/dear.refused.txt")).unwrap();
    assert!(why.contains("at most 0.05") && why.contains("no price for +44 (1 row)"), "{why}");
    drop_with("stale", "require_plan = \"aaaa-bbbb-cccc-dddd-eeee\"\n");
    watcher.until_heard("refused stale.csv conditions").await;
    let why = fs::read_to_string(house.at("refused/stale.refused.txt")).unwrap();
    assert!(why.contains("the plan aaaa-bbbb-cccc-dddd-eeee no longer holds"), "{why}");
    assert_eq!(house.count("imports").await, 0);
    watcher.stop().await;
}

#[tokio::test]
async fn a_file_whose_plan_holds_is_launched() {
    let house = House::new().await;
    let elsewhere = house.dir.path().join("spring.csv");
    fs::write(&elsewhere, "phone\n07700900001\n").unwrap();
    let options = Options { sender: Some("ACME".into()), text: Some("hi".into()), ..Options::default() };
    let approved = Some([SenderId::parse("ACME").unwrap()].into());
    let checks = ingest::Checks { approved, ..ingest::Checks::at(now()) };
    let terms = ingest::Terms::default();
    let (_, survey) = ingest::survey(Some(&house.ledger), &elsewhere, &options, &checks, &terms).await.unwrap();
    let watcher = house.watcher("one").await;
    fs::write(house.at("inbox/spring.toml"), format!("require_plan = \"{}\"\n", survey.id)).unwrap();
    fs::rename(elsewhere, house.at("inbox/spring.csv")).unwrap();
    watcher.until_heard("launched spring.csv here").await;
    watcher.stop().await;
}

/// One name that can't be worked with must not end the watcher, again and again after each restart.
#[cfg(unix)]
#[tokio::test]
async fn a_name_that_cannot_be_worked_with_is_told_and_keeps_no_other_file_waiting() {
    use std::os::unix::ffi::OsStrExt;
    let house = House::new().await;
    let long = format!("{}.csv", "a".repeat(250));
    house.drop_in(&long, "phone\n07700900001\n");
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9.csv");
    fs::write(house.at("inbox").join(latin), "phone\n07700900002\n").unwrap();
    let watcher = house.watcher_of("w", house.ledger.clone(), Duration::ZERO).await;
    house.drop_in("good.csv", "phone\n07700900003\n");
    watcher.until(|| house.names("done").contains(&"good.csv".to_owned())).await;
    let foreign = |name: &str| watcher.heard.lock().unwrap().iter().any(|told| told.contains(name));
    watcher.until(|| foreign(&long) && foreign("caf\u{fffd}.csv")).await;
    assert_eq!(house.names("inbox").len(), 2, "they are left where they are");
    assert_eq!(house.count("all_rows").await, 1);
    watcher.stop().await;
}
