//! A run: one scenario from its beginning to its end.

use crate::{
    driver,
    fault::Fault,
    model::Violation,
    process::{self, Kind, Parts},
    scenario::Scenario,
    world::{self, Sim},
};
use campaign::mutant::Mutant;
use gateway::Budget;
use jiff::Timestamp;
use ledger::Ledger;
use queue::Queue;
use std::{
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::Notify;

/// What the simulation adds to the ledger: the log of what each commit changed.
const LOG: &str = "
CREATE TABLE sim_log (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, id INTEGER NOT NULL, was TEXT, \"is\" TEXT, a INTEGER,
    b INTEGER, text TEXT);
CREATE TRIGGER sim_packed AFTER INSERT ON packs BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text)
        SELECT 'new', m.id, m.sender, m.state, m.destination, m.campaign_id, (SELECT body FROM texts WHERE id = m.text_id)
        FROM packed_rows m WHERE m.chunk_id = new.chunk_id;
END;
CREATE TRIGGER sim_opened AFTER INSERT ON messages
    WHEN new.state <> (SELECT state FROM packed_rows WHERE chunk_id = new.id / 512 AND id = new.id) BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text)
        SELECT 'row', new.id, new.state, state, new.attempt_id, new.sms_id, reason FROM told_rows WHERE id = new.id;
END;
CREATE TRIGGER sim_changed AFTER INSERT ON messages
    WHEN EXISTS (SELECT 1 FROM packed_rows p WHERE p.chunk_id = new.id / 512 AND p.id = new.id AND (p.destination <> new.destination
        OR p.sender <> new.sender OR p.text_id <> new.text_id OR p.campaign_id <> new.campaign_id OR p.row_number <> new.row_number)) BEGIN
    SELECT raise(ABORT, 'a row came out of its pack as another one');
END;
CREATE TRIGGER sim_lost AFTER DELETE ON packs
    WHEN (SELECT state FROM chunks WHERE id = old.chunk_id) = 'working' AND EXISTS (SELECT 1 FROM json_each(old.rows)
        WHERE NOT EXISTS (SELECT 1 FROM messages WHERE id = old.chunk_id * 512 + (value->>0))) BEGIN
    SELECT raise(ABORT, 'a row was lost with its pack');
END;
CREATE TRIGGER sim_unpacked AFTER DELETE ON packs BEGIN
    INSERT INTO sim_log (kind, id) SELECT 'gone', old.chunk_id * 512 + (value->>0) FROM json_each(old.rows)
        WHERE NOT EXISTS (SELECT 1 FROM messages WHERE id = old.chunk_id * 512 + (value->>0));
END;
CREATE TRIGGER sim_new AFTER INSERT ON messages
    WHEN NOT EXISTS (SELECT 1 FROM packed_rows WHERE chunk_id = new.id / 512 AND id = new.id) BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text) VALUES ('new', new.id, new.sender, new.state, new.destination, new.campaign_id,
        (SELECT body FROM texts WHERE id = new.text_id));
END;
CREATE TRIGGER sim_gone AFTER DELETE ON messages BEGIN
    INSERT INTO sim_log (kind, id) VALUES ('gone', old.id);
END;
CREATE TRIGGER sim_row AFTER UPDATE OF state, attempt_id, sms_id ON messages
    WHEN old.state <> new.state OR old.attempt_id IS NOT new.attempt_id OR old.sms_id IS NOT new.sms_id BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text)
        SELECT 'row', new.id, old.state, state, new.attempt_id, new.sms_id, reason FROM told_rows WHERE id = new.id;
END;
CREATE TRIGGER sim_attempt_new AFTER INSERT ON attempts BEGIN
    INSERT INTO sim_log (kind, id, \"is\", a, b, text) VALUES ('attempt', new.id, new.state, new.chunk_id, new.owner_id, new.row_ids);
END;
CREATE TRIGGER sim_attempt AFTER UPDATE OF state, sending_at, ended_at ON attempts
    WHEN old.state <> new.state OR old.ended_at IS NOT new.ended_at BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text)
        VALUES ('attempt', new.id, old.state, new.state, new.sending_at, new.ended_at, new.outcome);
END;
CREATE TRIGGER sim_told AFTER UPDATE OF state ON attempts
    WHEN old.state <> new.state AND new.state IN ('accepted', 'unknown') BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a, b, text)
        SELECT 'row', t.id, old.state, t.state, t.attempt_id, t.sms_id, t.reason
        FROM json_each(new.row_ids) r CROSS JOIN messages m ON m.id = r.value CROSS JOIN told_rows t ON t.id = m.id
        WHERE m.attempt_id = new.id AND m.state = 'attempted';
END;
CREATE TRIGGER sim_campaign AFTER UPDATE OF state ON campaigns BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a) VALUES ('campaign', new.id, old.state, new.state,
        (SELECT rows_in_file FROM imports i WHERE i.id = new.import_id));
END;
CREATE TRIGGER sim_opt_out AFTER INSERT ON suppressions BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\") VALUES ('opt_out', new.destination, new.sender, new.made_by);
END;
CREATE TRIGGER sim_opt_in AFTER DELETE ON suppressions BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\", a) VALUES ('opt_in', old.destination, old.sender, old.made_by,
        (SELECT count(*) FROM suppressions s WHERE s.destination = old.destination));
END;
CREATE TRIGGER sim_inbound AFTER INSERT ON inbound BEGIN
    INSERT INTO sim_log (kind, id, was, \"is\") VALUES ('inbound', new.sms_id, new.sender, new.keyword);
END;
CREATE TRIGGER sim_unexplained AFTER INSERT ON unexplained BEGIN
    INSERT INTO sim_log (kind, id) VALUES ('unexplained', new.sms_id);
END;
CREATE TRIGGER sim_token AFTER UPDATE OF generation ON tokens WHEN old.generation <> new.generation BEGIN
    INSERT INTO sim_log (kind, id) VALUES ('token', new.generation);
END;
CREATE TRIGGER sim_owner AFTER UPDATE OF ended_at ON owners WHEN old.ended_at IS NULL AND new.ended_at IS NOT NULL BEGIN
    INSERT INTO sim_log (kind, id, \"is\") VALUES ('owner', new.id, new.ended_how);
END;
CREATE TRIGGER sim_trusted AFTER UPDATE OF since ON quarantine WHEN old.since IS NOT NULL AND new.since IS NULL BEGIN
    INSERT INTO sim_log (kind, id) VALUES ('trusted', 0);
END;
-- Between two runs all of it is emptied.
DROP TRIGGER events_are_never_deleted;
";

/// What a run begins with: a ledger in which nothing has happened.
///
/// Opening one costs more than most runs, and so does preparing its statements: a ledger serves run after run, and is emptied before each.
pub struct Template {
    dir: TempDir,
    /// Empties a ledger.
    anew: String,
    opened: AtomicUsize,
    idle: Mutex<Vec<(Option<&'static str>, Ledger)>>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// A number that two runs share only if they were the same.
    pub digest: u64,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
    /// Rows.
    pub rows: usize,
    /// Rows that are held in the end.
    pub held: usize,
    /// Faults that met something to go wrong.
    pub met: usize,
    /// How long it took, in virtual seconds.
    pub secs: u64,
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("it is one")
}

/// Waiting for the database takes no virtual time, and the runs' clock is paused: what is done between runs has another.
fn between<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(work)
}

/// What the database itself would refuse, and is taken away where the rule under it is broken.
fn taken_away(mutant: Option<Mutant>) -> Option<&'static str> {
    match mutant {
        Some(Mutant::SmsIdClaimedTwice) => Some("an_sms_id_is_claimed_once"),
        Some(Mutant::NoLiveKeyLock) => Some("one_open_attempt_per_recipient"),
        _ => None,
    }
}

impl Template {
    /// Makes it; the processes' locks are in memory where the machine has a file system there.
    pub fn make() -> Self {
        let in_memory = Path::new("/dev/shm");
        let dir = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { TempDir::new() };
        let mut template = Self {
            dir: dir.expect("a folder can be made"),
            anew: String::new(),
            opened: AtomicUsize::new(0),
            idle: Mutex::default(),
        };
        let (ledger, tables) = between(async {
            let ledger = template.open(None).await;
            let tables = ledger.simulated_tables().await.expect("it has some");
            (ledger, tables)
        });
        template.anew = format!("BEGIN;\n{}COMMIT", Ledger::simulated_fill(&tables, "fresh.of_"));
        template.idle.lock().expect("nobody panics with it").push((None, ledger));
        template
    }

    /// A ledger in which nothing has happened.
    async fn take(&self, mutant: Option<Mutant>) -> Ledger {
        let without = taken_away(mutant);
        let idle = {
            let mut idle = self.idle.lock().expect("nobody panics with it");
            idle.iter().position(|(taken, _)| *taken == without).map(|at| idle.swap_remove(at).1)
        };
        let ledger = match idle {
            Some(ledger) => ledger,
            None => self.open(without).await,
        };
        ledger.simulated_script(self.anew.clone()).await.expect("its words are SQL");
        ledger
    }

    /// Opens one, with what it holds at first beside it.
    async fn open(&self, without: Option<&str>) -> Ledger {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let ledger = Ledger::simulated(&self.dir.path().join(number.to_string()), start()).await.expect("it opens");
        ledger.simulated_migrate().await.expect("it is new");
        ledger.simulated_script(LOG.to_owned()).await.expect("its words are SQL");
        let tables = ledger.simulated_tables().await.expect("it has some");
        let fresh = tables.iter().map(|table| format!("; CREATE TABLE fresh.of_{table} AS SELECT * FROM main.{table}"));
        let drop = without.map_or(String::new(), |index| format!("; DROP INDEX main.{index}"));
        let script = format!("ATTACH ':memory:' AS fresh{}{drop}", fresh.collect::<String>());
        ledger.simulated_script(script).await.expect("its words are SQL");
        ledger
    }
}

/// Runs a scenario, with a rule of the product broken if one is given.
pub fn run(template: &Template, scenario: &Scenario, mutant: Option<Mutant>, trace: bool) -> Ended {
    let mut ledger = between(template.take(mutant));
    Mutant::break_rule(mutant);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let ended = runtime.block_on(tokio::task::unconstrained(one(&mut ledger, scenario, trace)));
    Mutant::break_rule(None);
    drop(runtime);
    ledger.simulated_forget_owners();
    template.idle.lock().expect("nobody panics with it").push((taken_away(mutant), ledger));
    ended
}

async fn one(ledger: &mut Ledger, scenario: &Scenario, trace: bool) -> Ended {
    ledger.simulated_clock(start());
    let sim = Rc::new(Sim::new(scenario.clone(), trace, 0));
    world::install(Some(Rc::clone(&sim)));
    process::share(Some(Parts {
        ledger: ledger.clone(),
        budget: Budget::in_process(scenario.budget, Duration::from_secs(10)),
        queue: Queue::in_process(),
        wake: Arc::new(Notify::new()),
    }));
    process::start(&sim, Kind::World);
    sim.new_tasks.borrow_mut().push((0, Box::pin(process::people())));
    driver::drive(Rc::clone(&sim), process::restart).await;
    world::install(None);
    process::share(None);
    let (digest, trace) = sim.told();
    let model = sim.model.borrow();
    let violation = sim.violation.borrow().clone();
    Ended {
        violation,
        digest,
        trace,
        rows: model.rows.len(),
        held: model.rows.values().filter(|row| row.state == campaign::RowState::Held).count(),
        met: sim.met.get(),
        secs: sim.began.elapsed().as_secs(),
    }
}

/// Leaves out one fault after another as long as the same invariant still breaks.
pub fn shrink(template: &Template, scenario: &Scenario, mutant: Option<Mutant>, invariant: &str) -> Scenario {
    let mut shortest = scenario.clone();
    let mut at = 0;
    while at < shortest.faults.len() {
        let mut fewer = shortest.clone();
        fewer.faults.remove(at);
        let violation = run(template, &fewer, mutant, false).violation;
        if violation.is_some_and(|violation| violation.invariant == invariant) {
            shortest = fewer;
        } else {
            at += 1;
        }
    }
    shortest
}

/// The faults of a scenario, a line each.
pub fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("  {fault:?}\n")).collect()
}
