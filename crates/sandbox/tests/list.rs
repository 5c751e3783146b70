//! The list: ten a page, newest first, late, drifting.

mod harness;

use harness::{Rig, SENDER, eventually, ids, quick};
use sandbox::{Config, Rule};
use serde_json::{Value, json};

const NUMBERS: [&str; 12] = [
    "447700900100",
    "447700900101",
    "447700900102",
    "447700900103",
    "447700900104",
    "447700900105",
    "447700900106",
    "447700900107",
    "447700900108",
    "447700900109",
    "447700900110",
    "447700900111",
];

#[tokio::test]
async fn pages_hold_ten_newest_first_and_add_up_to_the_total() {
    let rig = Rig::new(quick()).await;
    rig.bulk("hi", &NUMBERS).await.unwrap();
    rig.bulk("hi again", &NUMBERS).await.unwrap();
    let mut all = Vec::new();
    for page in 1..=3 {
        let page = rig.list(&format!("sender={SENDER}&page={page}")).await;
        assert_eq!((&page["total"], &page["last_page"], &page["per_page"]), (&json!(24), &json!(3), &json!(10)));
        all.extend(ids(&page));
    }
    assert_eq!(all.len(), 24);
    assert!(all.is_sorted_by(|newer, older| newer > older), "{all:?}");
    assert!(all.windows(2).any(|pair| pair[0] - pair[1] > 1), "ids have gaps");
    assert_eq!(ids(&rig.list("page=4").await), [0; 0]);
}

#[tokio::test]
async fn rows_that_arrive_push_others_across_the_page_border() {
    let rig = Rig::new(quick()).await;
    rig.bulk("hi", &NUMBERS).await.unwrap();
    let first = ids(&rig.list("page=1").await);
    rig.bulk("hi", &["447700900112"]).await.unwrap();
    let second = ids(&rig.list("page=2").await);
    assert_eq!(first.last(), second.first());
}

#[tokio::test]
async fn filters_are_inclusive_and_by_both_ends() {
    let rig = Rig::new(quick()).await;
    let injected = async |time: &str, kind: &str, source: &str, destination: &str| -> u64 {
        let row = json!({"source": source, "destination": destination, "text": "x", "type": kind, "time": time});
        let answer = rig.control("POST", "/rows").json(&row).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["sms_id"].as_u64().unwrap()
    };
    let one = injected("2025-05-14 00:00:00", "1", SENDER, "447700900100").await;
    let two = injected("2025-05-14 00:00:01", "1", SENDER, "447700900101").await;
    let three = injected("2025-05-14 00:00:02", "2", "447700900100", SENDER).await;
    let window = "sent_since=2025-05-14%2000:00:00&sent_until=2025-05-14%2000:00:01";
    assert_eq!(ids(&rig.list(window).await), [two, one]);
    assert_eq!(ids(&rig.list(&format!("{window}&receiver=447700900100")).await), [one]);
    let replies = rig.list(&format!("receiver={SENDER}")).await;
    assert_eq!((ids(&replies), replies["data"][0]["type"].as_str()), (vec![three], Some("2")));
    assert_eq!(rig.running.book().accepted, 0, "injected rows are in no book");

    let deleted = rig.control("DELETE", &format!("/rows/{two}")).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(ids(&rig.list(window).await), [one]);
    assert_eq!(rig.get(&format!("/sms/detail/{two}")).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_text_is_hidden_until_its_lag_has_passed() {
    let rig = Rig::new(Config { list_lag_ms: 1000, ..quick() }).await;
    let sent: Value = rig.send("hi", "447700900100").await.unwrap().json().await.unwrap();
    let detail = format!("/sms/detail/{}", sent["sms"]["sms_id"]);
    assert_eq!(rig.list("").await["total"], 0);
    assert_eq!(rig.get(&detail).await.unwrap().status(), 404);
    eventually("the text is listed", async || rig.list("").await["total"] == 1).await;
    assert_eq!(rig.get(&detail).await.unwrap().status(), 200);
}

#[tokio::test]
async fn lag_unlisted_and_shuffled_totals_can_be_scripted() {
    let rules = r#"[{"operation":"bulk_send","fault":"unlisted","times":1},
                    {"operation":"bulk_send","fault":"list_lag","ms":3600000,"times":1},
                    {"operation":"list","fault":"list_lag","ms":3600000,"after":1,"times":1},
                    {"operation":"list","fault":"shuffle_total","after":1,"times":2}]"#;
    let rig = Rig::faulty(rules).await;
    for text in ["never", "late", "seen"] {
        rig.bulk(text, &["447700900100"]).await.unwrap();
    }
    assert_eq!(rig.running.book().accepted, 3);
    let page = rig.list("").await;
    assert_eq!((page["total"].as_u64(), page["data"][0]["text"].as_str()), (Some(1), Some("seen")));
    assert_eq!(rig.list("").await["total"], 0, "younger than the list's lag");
    let totals = [rig.list("page=1").await["total"].clone(), rig.list("page=2").await["total"].clone()];
    assert_ne!(totals[0], totals[1]);
    let unlisted = rig.running.texts()[0].sms_id;
    assert_eq!(rig.get(&format!("/sms/detail/{unlisted}")).await.unwrap().status(), 200, "known by id");
}

#[tokio::test]
async fn texts_become_final_after_their_delay_and_some_fail() {
    let endings = vec!["13".to_owned()];
    let config = Config { delivery_min_ms: 1000, delivery_max_ms: 1200, fail_endings: endings, ..Config::default() };
    let rig = Rig::new(config).await;
    rig.bulk("hi", &["447700900112", "447700900113", "123456", "1234567"]).await.unwrap();
    let statuses = async || {
        let page = rig.list("").await;
        let rows = page["data"].as_array().unwrap().clone();
        rows.iter().rev().map(|row| row["delivery_status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(statuses().await, ["0", "0", "0", "0"]);
    eventually("all are final", async || statuses().await == ["1", "2", "2", "1"]).await;
}

#[tokio::test]
async fn destinations_over_the_limit_vanish_without_a_word() {
    let rig = Rig::new(Config { max_destinations: 5, ..quick() }).await;
    assert_eq!(rig.bulk("hi", &NUMBERS).await.unwrap().status(), 200);
    let book = rig.running.book();
    assert_eq!((book.accepted, book.dropped_destinations), (5, 7));
}

#[tokio::test]
async fn the_control_calls_read_and_reset_the_book() {
    let rig = Rig::new(quick()).await;
    rig.bulk("hi", &["447700900100", "447700900100", "447700900101"]).await.unwrap();
    let read = async |path: &str| rig.control("GET", path).send().await.unwrap().json::<Value>().await.unwrap();
    let book = read("/book?full=1").await;
    assert_eq!((&book["accepted"], book["texts"].as_array().unwrap().len()), (&json!(3), 3));
    assert!(read("/book").await.get("texts").is_none());
    let twice = json!([{"source": SENDER, "destination": "447700900100", "text": "hi", "times": 2}]);
    assert_eq!(read("/twice").await, twice);
    assert_eq!(read("/calls?operation=bulk_send").await[0]["status"], 200);

    let rules = json!([{"operation": "send", "fault": "drop_answer"}]);
    assert_eq!(rig.control("PUT", "/faults").json(&rules).send().await.unwrap().status(), 204);
    assert_eq!(read("/faults").await[0]["rule"]["fault"], "drop_answer");
    let wrong = json!([{"operation": "send", "fault": "drop_answer", "tims": 1}]);
    assert_eq!(rig.control("PUT", "/faults").json(&wrong).send().await.unwrap().status(), 422);
    let approve = json!({"sender_id": "SMTEST", "approved": true});
    assert_eq!(rig.control("POST", "/senders").json(&approve).send().await.unwrap().status(), 204);
    let senders: Value = rig.get("/sender-id/list").await.unwrap().json().await.unwrap();
    assert_eq!(senders["data"]["data"][0]["status"], "1");

    assert_eq!(rig.control("POST", "/reset").send().await.unwrap().status(), 204);
    assert_eq!(read("/book").await["accepted"], 0);
    assert_eq!(read("/faults").await, json!([]));
    assert_eq!(rig.list("").await["total"], 0, "the token is still good");
    let forget = json!({"forget_tokens": true});
    assert_eq!(rig.control("POST", "/reset").json(&forget).send().await.unwrap().status(), 204);
    assert_eq!(rig.get("/sms/list").await.unwrap().status(), 401);
    let _: Vec<Rule> = serde_json::from_value(rules).unwrap();
}

#[tokio::test]
async fn each_accepted_text_is_appended_to_the_book_file() {
    let path = std::env::temp_dir().join(format!("sandbox-book-{}.jsonl", std::process::id()));
    let rig = Rig::new(Config { book_file: Some(path.clone()), ..quick() }).await;
    rig.bulk("hi", &["447700900100", "447700900101"]).await.unwrap();
    let lines = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let numbers: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers.iter().map(|line| &line["destination"]).collect::<Vec<_>>(), ["447700900100", "447700900101"]);
}
