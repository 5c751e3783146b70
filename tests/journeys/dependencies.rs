//! What is needed is down, wrong or old: one clear line, nothing lost, and services go on by themselves.

use crate::harness::{Crier, DEADLINE, Mailing, Place, Port, Process, Production, Sandbox, account, eventually};
use serde_json::json;
use std::path::Path;

const FILE: &str = "destination,sender,text\n07400000001,ACME,Hi\n07400000002,ACME,Hi\n";

/// It ends with this code and one line that has all of these words.
#[track_caller]
fn refused(crier: &Crier, code: i32, args: &[&str], words: &[&str]) {
    let ended = crier.run(args);
    assert_eq!(ended.code, Some(code), "{args:?}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stderr.trim().lines().count(), 1, "{args:?}: not one line: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{args:?}: no {word:?} in {}", ended.stderr);
    }
    for secret in ["sandbox-secret", "sandbox-password", "s3cret"] {
        assert!(!ended.stderr.contains(secret), "{args:?} shows a secret: {}", ended.stderr);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

#[test]
fn a_gateway_that_is_down_is_named_and_nothing_is_queued() {
    let place = Place::new();
    let file = place.file("spring.csv", FILE);
    let nowhere = Port::reserve();
    let address = nowhere.address();
    let crier = place.crier().set("GATEWAY__BASE_URL", &format!("http://{address}/api"));
    for args in [["run", path(&file)], ["ingest", path(&file)], ["senders", "list"]] {
        refused(&crier, 5, &args, &["gateway", &address, "gateway.base_url"]);
    }
    assert_eq!(crier.json(0, &["status"]), json!([]));
    // It is back: the same command goes through.
    place.crier().expect(0, ["run", path(&file)]);
}

#[test]
fn wrong_credentials_are_a_matter_of_configuration() {
    let place = Place::new();
    let file = place.file("spring.csv", FILE);
    let wrong = place.crier().set("GATEWAY__PASSWORD", "s3cret");
    refused(&wrong, 4, &["run", path(&file)], &["credentials", "gateway.client_id", "username"]);
    let none = Crier::new(place.dir.path()).set("LEDGER__URL", &place.sqlite());
    refused(&none, 4, &["run", path(&file)], &["gateway.client_id"]);
    assert_eq!(place.crier().json(0, &["status"]), json!([]));
    assert_eq!(place.sandbox.book()["accepted"], 0);
    // Corrected, it goes on at once: the breaker of the password grant is about wrong answers, not about the person.
    place.crier().expect(0, ["run", path(&file)]);
}

#[test]
fn a_redis_that_is_down_is_named() {
    let place = Place::new();
    let file = place.file("spring.csv", FILE);
    let nowhere = Port::reserve();
    let address = nowhere.address();
    let crier = place.crier().set("QUEUE__URL", &format!("redis://:s3cret@{address}"));
    for args in [["run", path(&file)], ["ingest", path(&file)]] {
        refused(&crier, 5, &args, &["queue can't be reached", &address, "queue.url"]);
    }
    assert_eq!(crier.json(0, &["status"]), json!([]));
}

#[test]
fn a_postgres_that_is_down_is_named() {
    let place = Place::new();
    let file = place.file("spring.csv", FILE);
    let nowhere = Port::reserve();
    let address = nowhere.address();
    let crier = place.crier().ledger(&format!("postgres://crier:s3cret@{address}/crier"));
    for args in [&["run", path(&file)][..], &["ingest", path(&file)], &["status"], &["verify"], &["migrate"]] {
        refused(&crier, 5, args, &["ledger can't be reached", &address, "ledger.url"]);
    }
    assert_eq!(place.sandbox.book()["accepted"], 0);
}

#[test]
fn a_ledger_on_an_old_schema_asks_to_be_migrated() {
    let place = Place::new();
    let file = place.file("spring.csv", FILE);
    let database = crate::harness::database();
    let crier = place.crier().ledger(&database.url());
    for args in [&["run", path(&file)][..], &["ingest", path(&file)], &["status"], &["verify"]] {
        refused(&crier, 5, args, &["old schema", "crier migrate"]);
    }
    crier.expect(0, ["migrate"]);
    crier.expect(0, ["run", path(&file)]);
    crier.expect(0, ["verify"]);
}

/// Waits until a service has said this.
fn wait_for(service: &mut Process, words: &str) {
    eventually(&format!("a service says {words:?}"), DEADLINE, || {
        assert!(service.is_running(), "it ended: {}", service.stderr());
        service.stderr().contains(words)
    });
}

#[test]
fn services_wait_for_what_is_down_and_go_on_by_themselves() {
    let mut production = Production::on_its_own_postgres(&json!({}));
    production.redis.stop();
    production.postgres.as_mut().expect("it has its own").stop();
    // The gateway comes last of all, at an address that is known now and taken by nobody until then.
    let port = Port::reserve();
    let address = port.address();
    production.set("GATEWAY__BASE_URL", &format!("http://{address}/api"));
    let mut services = vec![production.crier.spawn(["worker"]), production.crier.spawn(["reconciler"])];
    let folder = production.folder();
    services.push(production.crier.spawn(["ingest".as_ref(), "--watch".as_ref(), folder.as_os_str()]));
    for service in &mut services {
        wait_for(service, "the ledger can't be reached");
    }
    production.postgres.as_mut().expect("it has its own").resume();
    for service in &mut services {
        wait_for(service, "the queue can't be reached");
    }
    production.redis.resume();
    let inbox = folder.join("inbox");
    eventually("the watcher makes its inbox", DEADLINE, || inbox.is_dir());
    let mailing = Mailing::of(50, 2);
    production.drop_in("spring.csv", &mailing.csv);
    let done = folder.join("done/spring.csv");
    // Nothing is queued from a sender that may not be approved, and only the gateway knows.
    wait_for(&mut services[2], "files wait");
    assert!(!done.is_file());
    let late = json!({"delivery_min_ms": 100, "delivery_max_ms": 500});
    let gateway = Sandbox::start_at(production.place.dir.path(), &late, &address);
    eventually("the file is loaded once the gateway is there", DEADLINE, || done.is_file());
    production.wait_till_settled();
    let result = account(&production.crier, &gateway, "spring", &mailing);
    assert_eq!(result.confirmed(), mailing.valid.len() as u64);
}

#[test]
fn a_ledger_that_goes_away_keeps_a_dropped_file_waiting() {
    let mut production = Production::on_its_own_postgres(&json!({}));
    production.start();
    production.postgres.as_mut().expect("it has its own").stop();
    let mailing = Mailing::of(50, 2);
    production.drop_in("spring.csv", &mailing.csv);
    wait_for(production.watcher.as_mut().expect("it runs"), "files wait");
    production.postgres.as_mut().expect("it has its own").resume();
    let result = production.account("spring", &mailing);
    assert_eq!(result.confirmed(), mailing.valid.len() as u64);
    production.assert_good_manners();
    production.stop();
}
