//! Plan, then launch: what `crier plan` says holds for the run, and a launch on conditions is refused where it does not.

use crate::harness::{Crier, Database, Place, database};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::Path};

/// A journey's place with a ledger of either kind.
struct Desk {
    crier: Crier,
    place: Place,
    database: Option<Database>,
}

impl Desk {
    fn sqlite(sandbox: &Value) -> Self {
        let place = Place::with(sandbox);
        let crier = place.crier();
        crier.expect(0, ["migrate"]);
        Self { crier, place, database: None }
    }

    fn postgres(sandbox: &Value) -> Self {
        let (place, database) = (Place::with(sandbox), database());
        let crier = place.crier().ledger(&database.url());
        crier.expect(0, ["migrate"]);
        Self { crier, place, database: Some(database) }
    }

    fn execute(&self, statement: &'static str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            match &self.database {
                Some(database) => {
                    let pool = sqlx::PgPool::connect(&database.url()).await.expect("the database is there");
                    sqlx::query(statement).execute(&pool).await.map(|_| ()).expect("the statement is right");
                }
                None => {
                    let pool = sqlx::SqlitePool::connect(&self.place.sqlite()).await.expect("the ledger is there");
                    sqlx::query(statement).execute(&pool).await.map(|_| ()).expect("the statement is right");
                }
            }
        });
    }

    fn plan(&self, code: i32, file: &Path) -> Value {
        self.crier.json(code, &["plan", file.to_str().expect("a plain name")])["plan"].clone()
    }

    /// The launch is refused in one line that has these words; nothing is queued.
    #[track_caller]
    fn refused(&self, crier: &Crier, args: &[&str], words: &[&str]) {
        let ended = crier.run(args);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "not one line: {}", ended.stderr);
        assert!(ended.stderr.contains("Nothing of it was queued."), "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
        }
        assert_eq!(self.crier.json(0, &["status"]), json!([]), "something was queued");
    }
}

const SPRING: &str = "destination,sender,text\n07400000001,ACME,Hi\n+353851234567,ACME,Hi\n07400000003,ACME,It’s on\n";

fn on_both(body: impl Fn(&Desk)) {
    for desk in [Desk::sqlite(&json!({})), Desk::postgres(&json!({}))] {
        body(&desk);
    }
}

#[test]
fn a_launch_is_refused_when_what_was_planned_has_changed() {
    on_both(|desk| {
        let crier = desk.crier.clone().set("PLAN__PRICES__44", "0.035").set("PLAN__PRICES__DEFAULT", "0.1");
        let path = desk.place.file("spring.csv", SPRING);
        let file = path.to_str().expect("a plain name");
        let plan = crier.json(0, &["plan", file])["plan"].clone();
        assert_eq!((&plan["cost"]["amount"], &plan["to_send"]), (&json!("0.17"), &json!(3)));
        assert_eq!(plan["approval"][0]["approved"], json!(true));
        let id = plan["id"].as_str().expect("an id");
        assert_eq!(crier.json(0, &["plan", file])["plan"]["id"], id, "the same plan has the same id");

        let dearer = crier.clone().set("PLAN__PRICES__44", "0.036");
        for command in ["ingest", "run"] {
            desk.refused(&dearer, &[command, file, "--plan", id], &[id, "the prices"]);
            let other = [command, file, "--plan", id, "--valid-until", "2099-01-01 10:00"];
            desk.refused(&crier, &other, &[id, "the file or the options for it"]);
            desk.refused(&crier, &[command, file, "--max-cost", "0.16"], &["0.17 GBP", "0.16 GBP"]);
            desk.refused(&crier, &[command, file, "--plan", "spring"], &["\"spring\" is no plan id"]);
        }
        let unpriced = crier.clone().set("PLAN__PRICES__DEFAULT", "");
        desk.refused(&unpriced, &["ingest", file, "--max-cost", "5"], &["no price for +353 (1 row)", "plan.prices"]);

        desk.execute(
            "INSERT INTO suppressions (destination, sender, reason, added_by, added_at) VALUES (447400000003, '', 'x', 'x', 0)",
        );
        desk.refused(&crier, &["ingest", file, "--plan", id], &[id, "who has opted out"]);
        let now = crier.json(0, &["plan", file])["plan"].clone();
        assert_eq!(
            (&now["suppressed"], &now["to_send"], &now["cost"]["amount"]),
            (&json!(1), &json!(2), &json!("0.135"))
        );

        desk.place.file("spring.csv", SPRING.replace("Hi", "Ho"));
        desk.refused(&crier, &["ingest", file, "--plan", id], &["the file or the options for it, who has opted out"]);
        desk.place.file("spring.csv", SPRING);
        let id = now["id"].as_str().expect("an id");
        crier.expect(0, ["ingest", file, "--plan", id, "--max-cost", "0.135"]);
        assert_eq!(crier.json(0, &["status"])[0]["states"], json!({"queued": 2, "suppressed": 1}));
        // It held when it was launched: the same command goes on with it, whatever has changed since.
        let ended = dearer.run(["run", file, "--plan", id]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("Going on with what was launched before"), "{}", ended.stderr);
        let again = dearer.run(["run", file, "--plan", id, "--again"]);
        assert!(again.stderr.contains("what changed since: the prices"), "{}", again.stderr);
    });
}

#[test]
fn a_sender_that_lost_its_approval_is_named_as_what_changed() {
    on_both(|desk| {
        // No credentials: the ledger's list of senders counts.
        let alone = Crier::new(desk.place.dir.path());
        let url = desk.database.as_ref().map_or_else(|| desk.place.sqlite(), Database::url);
        let alone = alone.ledger(&url);
        let path = desk.place.file("spring.csv", SPRING);
        let file = path.to_str().expect("a plain name");
        let unknown = alone.json(0, &["plan", file])["plan"].clone();
        assert_eq!(unknown["approval"][0]["approved"], Value::Null);
        desk.execute("INSERT INTO senders (sender, status, checked_at) VALUES ('ACME', 'approved', 1)");
        let plan = alone.json(0, &["plan", file])["plan"].clone();
        desk.execute("UPDATE senders SET status = 'awaiting'");
        let id = plan["id"].as_str().expect("an id");
        desk.refused(&alone, &["ingest", file, "--plan", id], &[id, "which senders are approved"]);
        let shown = alone.run(["plan", file]);
        assert_eq!(shown.code, Some(1), "{}", shown.stderr);
        assert!(shown.stdout.contains("sender ACME: NOT approved"), "{}", shown.stdout);
        desk.execute("UPDATE senders SET status = 'approved'");
        alone.expect(0, ["ingest", file, "--plan", id]);
    });
}

#[test]
fn people_who_got_the_text_lately_are_shown() {
    on_both(|desk| {
        let path = desk.place.file("spring.csv", "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Hi\n");
        let before = desk.plan(0, &path);
        assert_eq!((&before["overlap"]["recipients"], &before["queued"]["rows"]), (&json!(0), &json!(0)));
        desk.crier.expect(0, [OsStr::new("run"), path.as_os_str()]);
        let numbers = "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Ho\n07400000003,ACME,Hi\n";
        let summer = desk.place.file("summer.csv", numbers);
        let overlap = desk.plan(0, &summer)["overlap"].clone();
        assert_eq!((&overlap["recipients"], &overlap["same_text"]), (&json!(2), &json!(1)));
        assert_eq!(overlap["campaigns"], json!({"spring": 2}));
        let shown = desk.crier.expect(0, [OsStr::new("plan"), path.as_os_str()]);
        assert!(shown.contains("2 of 2 (100 %) got this text, the last "), "{shown}");
        assert!(shown.contains("the same bytes were launched before, as spring.csv"), "{shown}");
        let week = desk.crier.clone().set("PLAN__OVERLAP_WINDOW", "1ms");
        let later = week.json(0, &["plan", summer.to_str().expect("a plain name")]);
        assert_eq!(later["plan"]["overlap"]["recipients"], json!(0));
    });
}

#[test]
fn what_is_queued_already_is_counted_into_the_time() {
    on_both(|desk| {
        let rows = |from: u32, to: u32| {
            (from..to).map(|n| format!("0{},ACME,Hi\n", 7_400_000_000 + u64::from(n))).collect::<String>()
        };
        let big = desk.place.file("big.csv", "destination,sender,text\n".to_owned() + &rows(0, 4_800));
        desk.crier.expect(0, [OsStr::new("ingest"), big.as_os_str()]);
        let small = desk.place.file("small.csv", "destination,sender,text\n".to_owned() + &rows(6_000, 6_100));
        let slow = desk.crier.clone().set("GATEWAY__CALLS_PER_WINDOW", "100").set("GATEWAY__WINDOW", "10s");
        let plan = slow.json(0, &["plan", small.to_str().expect("a plain name")])["plan"].clone();
        assert_eq!((&plan["queued"]["rows"], &plan["queued"]["calls"]), (&json!(4_800), &json!(528)));
        assert_eq!(plan["calls"], json!({"bulk": 1, "single": 0, "list": 10, "other": 4}));
        // 543 calls, 99 to a window: the sixth begins after 50 s.
        assert_eq!((&plan["seconds_alone"], &plan["seconds"]), (&json!(1), &json!(50)));
    });
}

#[test]
fn a_plan_foretells_the_calls_of_the_run() {
    let limits = json!({"senders": ["ACME", "CRIER", "SHOP"], "rate_limit": 100, "rate_window_ms": 1000});
    let desk = Desk::sqlite(&limits);
    let crier = desk.crier.clone().set("GATEWAY__CALLS_PER_WINDOW", "100").set("GATEWAY__WINDOW", "1s");
    let rows = (0..2_000_u32).map(|n| {
        let sender = ["ACME", "CRIER", "SHOP"][(n % 3) as usize];
        format!("0{},{sender},Text {} of the campaign\n", 7_400_000_000 + u64::from(n), n % 5)
    });
    let path = desk.place.file("spring.csv", "destination,sender,text\n".to_owned() + &rows.collect::<String>());
    let plan = crier.json(0, &["plan", path.to_str().expect("a plain name")])["plan"].clone();
    let planning = desk.place.sandbox.book()["calls"].clone();
    crier.expect(3, [OsStr::new("run"), path.as_os_str()]);
    let book = desk.place.sandbox.book()["calls"].clone();
    let made = |kind: &str| book[kind].as_u64().unwrap_or(0) - planning[kind].as_u64().unwrap_or(0);
    let total: u64 = book.as_object().expect("counts").keys().map(|kind| made(kind)).sum();
    println!("planned {}, made {book} after {planning}", plan["calls"]);
    assert_eq!(plan["calls"]["bulk"], made("bulk_send"));
    assert_eq!(plan["calls"]["single"], made("send"));
    let planned = plan["calls_total"].as_u64().expect("a count");
    assert!(planned.abs_diff(total) * 20 <= total, "planned {planned} calls, made {total}");
}
