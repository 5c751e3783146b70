//! Each fault does what it says, as the book sees it.

mod harness;

use harness::{Rig, eventually, quick};
use sandbox::{Config, Operation};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const THREE: [&str; 3] = ["447700900100", "447700900101", "447700900102"];
const FOUR: [&str; 4] = ["447700900100", "447700900101", "447700900102", "447700900103"];

#[tokio::test]
async fn a_refused_connection_has_no_effect() {
    let rig = Rig::faulty(r#"[{"operation":"bulk_send","fault":"refuse_connection","times":1}]"#).await;
    assert!(rig.bulk("hi", &THREE).await.is_err());
    let book = rig.running.book();
    assert_eq!((book.accepted, book.calls[&Operation::BulkSend]), (0, 1));
    assert_eq!(book.answers[&Operation::BulkSend]["none"], 1);
    assert_eq!(rig.bulk("hi", &THREE).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_status_has_no_effect_and_comes_in_its_own_dress() {
    let rules = r#"[{"fault":"status","status":503,"times":1},
                    {"fault":"status","status":422,"field":"destination.1","times":1},
                    {"fault":"status","status":413,"times":1}]"#;
    let rig = Rig::faulty(rules).await;
    let answer = rig.bulk("hi", &THREE).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let answer = rig.bulk("hi", &THREE).await.unwrap();
    assert_eq!(answer.status(), 422);
    assert!(answer.text().await.unwrap().contains("destination.1"));
    assert_eq!(rig.bulk("hi", &THREE).await.unwrap().status(), 413);
    assert_eq!(rig.running.book().accepted, 0);
}

#[tokio::test]
async fn a_call_that_is_processed_and_then_fails_has_its_effect() {
    let rig = Rig::faulty(r#"[{"operation":"bulk_send","fault":"process_then_fail"}]"#).await;
    let answer = rig.bulk("hi", &THREE).await.unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(rig.running.book().accepted, 3);
}

#[tokio::test]
async fn a_part_of_a_batch_is_its_first_part() {
    let rules = r#"[{"operation":"bulk_send","fault":"process_part","part":0.5,"times":1},
                    {"operation":"bulk_send","fault":"process_part","part":0.25,"status":200,"times":1}]"#;
    let rig = Rig::faulty(rules).await;
    assert_eq!(rig.bulk("hi", &FOUR).await.unwrap().status(), 500);
    let taken: Vec<_> = rig.running.texts().into_iter().map(|text| text.destination).collect();
    assert_eq!(taken, FOUR[..2]);
    assert_eq!(rig.bulk("hi", &FOUR).await.unwrap().status(), 200, "a success that was none");
    assert_eq!(rig.running.book().accepted, 3);
}

#[tokio::test]
async fn a_dropped_answer_is_a_broken_connection_after_the_effect() {
    let rig = Rig::faulty(r#"[{"operation":"bulk_send","fault":"drop_answer"}]"#).await;
    let error = rig.bulk("hi", &THREE).await.unwrap_err();
    assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{error:?}");
    assert_eq!(rig.running.book().accepted, 3);
}

#[tokio::test]
async fn a_cut_answer_breaks_in_its_body() {
    let rig = Rig::faulty(r#"[{"operation":"bulk_send","fault":"cut_answer"}]"#).await;
    let answer = rig.bulk("hi", &THREE).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    assert_eq!(rig.running.book().accepted, 3);
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_stop_the_effect() {
    for (effect, at_once) in [("before", 3), ("after", 0)] {
        let rule = format!(r#"[{{"operation":"bulk_send","fault":"delay","ms":2000,"effect":"{effect}"}}]"#);
        let rig = Rig::faulty(&rule).await;
        let impatient = tokio::time::timeout(Duration::from_millis(500), rig.bulk("hi", &THREE)).await;
        assert!(impatient.is_err(), "answered in time");
        assert_eq!(rig.running.book().accepted, at_once, "effect {effect}");
        eventually("the effect is had", async || rig.running.book().accepted == 3).await;
    }
}

#[tokio::test]
async fn a_late_effect_comes_after_the_answer() {
    let rules = r#"[{"operation":"bulk_send","fault":"late_effect","ms":1000,"times":1},
                    {"operation":"bulk_send","fault":"late_effect","ms":1000,"status":504,"times":1}]"#;
    let rig = Rig::faulty(rules).await;
    assert!(rig.bulk("hi", &THREE).await.is_err());
    assert_eq!(rig.running.book().accepted, 0);
    eventually("the effect is had", async || rig.running.book().accepted == 3).await;
    assert_eq!(rig.bulk("hi", &THREE).await.unwrap().status(), 504);
    eventually("the effect is had", async || rig.running.book().accepted == 6).await;
}

#[tokio::test]
async fn html_and_redirects_have_the_effect_that_they_are_told() {
    let rules = r#"[{"operation":"bulk_send","fault":"html_200","times":1},
                    {"operation":"bulk_send","fault":"redirect","times":1},
                    {"operation":"bulk_send","fault":"html_200","effect":"before","times":1},
                    {"operation":"bulk_send","fault":"redirect","effect":"before","times":1}]"#;
    let rig = Rig::faulty(rules).await;
    for (status, accepted) in [(200, 0), (302, 0), (200, 3), (302, 6)] {
        let answer = rig.bulk("hi", &THREE).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().contains_key("location"), status == 302);
        assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
        assert_eq!(rig.running.book().accepted, accepted);
    }
}

#[tokio::test]
async fn a_dropped_token_answer_has_burned_the_refresh_token() {
    let rig = Rig::new(quick()).await;
    rig.running.script(serde_json::from_str(r#"[{"operation":"token","fault":"cut_answer","times":1}]"#).unwrap());
    assert!(rig.refresh_grant(&rig.refresh).await.bytes().await.is_err());
    assert_eq!(rig.refresh_grant(&rig.refresh).await.status(), 401);
    assert_eq!(rig.running.book().refresh_tokens_presented_twice, 1);
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_it_says() {
    let rig = Rig::new(Config { requests_per_connection: 3, ..quick() }).await;
    let left = rig.get("/sms/list").await.unwrap().headers()["keep-alive"].to_str().unwrap().to_owned();
    assert_eq!(left, "timeout=5, max=1", "the token call was the first");
    assert_eq!(rig.get("/sms/list").await.unwrap().headers()["connection"], "close");
    assert_eq!(rig.running.book().connections, 1);
    rig.get("/sms/list").await.unwrap();
    let book = rig.running.book();
    assert_eq!((book.connections, book.connections_open_max), (2, 1));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let rig = Rig::new(Config { keep_alive_ms: 100, ..quick() }).await;
    let mut stream = tokio::net::TcpStream::connect(rig.running.addr).await.unwrap();
    stream.write_all(b"GET /api/sms/list HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "still open");
    assert!(
        answer.starts_with(b"HTTP/1.1 401") && answer.ends_with(b"0\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn an_http_1_0_answer_ends_with_its_connection() {
    let rig = Rig::new(Config { keep_alive_ms: 60_000, ..quick() }).await;
    let mut stream = tokio::net::TcpStream::connect(rig.running.addr).await.unwrap();
    stream.write_all(b"GET /sandbox/book HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "still open");
    assert!(answer.contains("\r\n\r\n{") && answer.ends_with('}'), "{answer}");
}

#[tokio::test]
async fn a_stopped_sandbox_lets_go_of_its_port_whatever_is_under_way() {
    let rules = r#"[{"operation":"send","fault":"delay","ms":3600000},{"fault":"late_effect","ms":3600000}]"#;
    let rig = Rig::faulty(rules).await;
    assert!(rig.bulk("hi", &THREE).await.is_err());
    let impatient = tokio::time::timeout(Duration::from_millis(100), rig.send("hi", THREE[0])).await;
    assert!(impatient.is_err(), "answered in time");
    let addr = rig.running.addr;
    tokio::time::timeout(Duration::from_secs(10), rig.running.stop()).await.expect("it stops");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
