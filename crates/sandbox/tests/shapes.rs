//! Each call is answered in the recorded shape.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use gateway::wire;
use harness::{Rig, SENDER, quick};
use reqwest::Response;
use sandbox::Config;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn recorded(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("recorded.json")).unwrap();
    all[name].clone()
}

/// Same keys and JSON types throughout; null stands for any type, and rows are compared with the first recorded one.
fn assert_same_shape(path: &str, recorded: &Value, served: &Value) {
    match (recorded, served) {
        (Value::Object(recorded), Value::Object(served)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(recorded), keys(served), "at {path}");
            for (key, value) in recorded {
                assert_same_shape(&format!("{path}.{key}"), value, &served[key]);
            }
        }
        (Value::Array(recorded), Value::Array(served)) => {
            assert!(!served.is_empty(), "nothing served at {path}");
            for (at, value) in served.iter().enumerate() {
                assert_same_shape(&format!("{path}[{at}]"), &recorded[0], value);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        _ => assert_eq!(std::mem::discriminant(recorded), std::mem::discriminant(served), "at {path}"),
    }
}

async fn assert_recorded(name: &str, answer: Response) -> Value {
    let status = answer.status();
    for header in ["date", "server", "x-ratelimit-limit", "x-ratelimit-remaining", "keep-alive", "x-powered-by"] {
        assert!(answer.headers().contains_key(header), "{name} has no {header}");
    }
    assert_eq!(answer.headers()["transfer-encoding"], "chunked");
    let served: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{name}: {served}");
    assert_same_shape(name, &recorded(name), &served);
    served
}

#[tokio::test]
async fn every_call_is_answered_as_it_was_recorded() {
    let rig = Rig::new(quick()).await;
    assert_recorded("token_password", rig.password_grant().await).await;
    let tokens = assert_recorded("token_refresh", rig.refresh_grant(&rig.refresh).await).await;
    let rig = Rig { access: tokens["access_token"].as_str().unwrap().to_owned(), ..rig };
    assert_recorded("senders", rig.get("/sender-id/list").await.unwrap()).await;
    let added = rig.post("/sender-id/add", &[("sender_id", "12345")]).await.unwrap();
    assert_eq!(assert_recorded("add_sender", added).await, recorded("add_sender"));
    let sent = assert_recorded("send", rig.send("Test Message 999", "447520602707").await.unwrap()).await;
    assert_eq!(sent["sms"]["chat_partner"], "447520602707");
    let bulk = rig.bulk("This is test message 11 (bulk)", &["447520602707", "447700172124234235252524"]).await;
    assert_eq!(assert_recorded("bulk_send", bulk.unwrap()).await, recorded("bulk_send"));
    let list = assert_recorded("list", rig.get(&format!("/sms/list?sender={SENDER}")).await.unwrap()).await;
    let sms_id = &list["data"]["data"][0]["sms_id"];
    let detail = assert_recorded("detail", rig.get(&format!("/sms/detail/{sms_id}")).await.unwrap()).await;
    assert_eq!(detail["data"]["destination"], "447700172124234235252524");
    assert_eq!(detail["data"]["delivery_status"], "2", "a number that can't exist is accepted and fails later");
    let dialled = rig.post("/click-to-dial/dial", &[("destination", "442073771555")]).await.unwrap();
    assert_eq!(assert_recorded("dial", dialled).await["message"], recorded("dial")["message"]);
    let fields = [("destination", "+442035041824"), ("source", "442035043990")];
    let masked = rig.post("/click-to-dial-mask/dial", &fields).await.unwrap();
    assert_eq!(assert_recorded("dial_masked", masked).await["message"], recorded("dial_masked")["message"]);
    assert_eq!(rig.running.book().dials, 2);
}

#[tokio::test]
async fn what_laravel_refuses_it_refuses_with_422_and_the_field() {
    let rig = Rig::new(quick()).await;
    let refused = async |path: &str, fields: &[(&str, &str)], field: &str| {
        let answer = rig.post(path, fields).await.unwrap();
        assert_eq!(answer.status(), 422, "{path} {field}");
        let body: Value = answer.json().await.unwrap();
        assert!(body["errors"][field][0].is_string() && body["message"].is_string(), "{body}");
    };
    let good = ("destination", "447700900123");
    refused("/sms/send", &[("source", "SMTEST"), good, ("text", "hi")], "source").await;
    refused("/sms/send", &[("source", "NOBODY"), good, ("text", "hi")], "source").await;
    refused("/sms/send", &[("source", SENDER), good, ("text", "")], "text").await;
    refused("/sms/send", &[("source", SENDER), ("destination", "x"), ("text", "hi")], "destination").await;
    let bulk = [("source", SENDER), ("text", "hi"), ("destination[]", "447700900123"), ("destination[]", "x")];
    refused("/sms/bulk-send", &bulk, "destination.1").await;
    refused("/sms/bulk-send", &[("source", SENDER), ("text", "hi")], "destination").await;
    refused("/sender-id/add", &[("sender_id", "no good")], "sender_id").await;
    refused("/sender-id/add", &[("sender_id", SENDER)], "sender_id").await;
    refused("/click-to-dial/dial", &[("destination", "15167259623")], "destination").await;
    refused("/click-to-dial-mask/dial", &[("destination", "442073771555")], "source").await;
    for query in ["sender=a-b", "receiver=%2B44", "sent_since=2025-05-14", "sent_until=2025-05-14T00:00:00"] {
        assert_eq!(rig.get(&format!("/sms/list?{query}")).await.unwrap().status(), 422, "{query}");
    }
    assert_eq!(rig.running.book().accepted, 0);
}

#[tokio::test]
async fn a_urlencoded_form_is_no_form() {
    let rig = Rig::new(quick()).await;
    let url = format!("{}/sms/send", rig.running.base_url);
    let sent =
        rig.client.post(url).bearer_auth(&rig.access).header("content-type", "application/x-www-form-urlencoded");
    let answer = sent.body("source=ACME&destination=447700900123&text=hi").send().await.unwrap();
    assert_eq!(answer.status(), 422);
    assert_eq!(rig.running.book().accepted, 0);
}

#[tokio::test]
async fn nothing_opens_without_a_token_and_no_id_is_invented() {
    let rig = Rig::new(quick()).await;
    let missing = rig.get("/sms/detail/1").await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.text().await.unwrap().contains("No query results"));
    let stranger = Rig { access: "nobody".into(), ..rig };
    let answer = stranger.send("hi", "447700900123").await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"message": "Unauthenticated."}));
}

#[tokio::test]
async fn date_and_row_times_follow_the_skewed_clock() {
    let rig = Rig::new(Config { clock_skew_ms: -600_000, ..quick() }).await;
    let answer = rig.send("hi", "447700900123").await.unwrap();
    let date = httpdate_seconds(answer.headers()["date"].to_str().unwrap());
    let sent: Value = answer.json().await.unwrap();
    let time: jiff::civil::DateTime = sent["sms"]["time"].as_str().unwrap().parse().unwrap();
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
    assert!((0..=1).contains(&(date - time)), "{date} {time}");
    let now = jiff::Timestamp::now().as_second();
    assert!((598..=605).contains(&(now - date)), "{now} {date}");

    let ahead = rig.control("POST", "/clock").json(&json!({"skew_ms": 600_000})).send().await.unwrap();
    assert_eq!(ahead.status(), 204);
    let answer = rig.get("/sms/list").await.unwrap();
    let date = httpdate_seconds(answer.headers()["date"].to_str().unwrap());
    assert!((598..=605).contains(&(date - jiff::Timestamp::now().as_second())), "{date}");
}

fn httpdate_seconds(text: &str) -> i64 {
    let time = httpdate::parse_http_date(text).unwrap();
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[tokio::test]
async fn sms_count_is_the_number_of_segments() {
    let rig = Rig::new(quick()).await;
    let sent: Value = rig.send(&"a".repeat(161), "447700900123").await.unwrap().json().await.unwrap();
    assert_eq!(sent["sms"]["sms_count"], 2);
}

#[tokio::test]
async fn the_client_reads_what_the_sandbox_serves() {
    async fn read<T: DeserializeOwned>(answer: Response) -> T {
        answer.json().await.unwrap()
    }
    let rig = Rig::new(quick()).await;
    let number = "447700900123";
    let sent: wire::SendAnswer = read(rig.send("hi", number).await.unwrap()).await;
    let _: wire::BulkSendAnswer = read(rig.bulk("hi", &[number]).await.unwrap()).await;
    let list: wire::Envelope<wire::Paginator<wire::Sms>> = read(rig.get("/sms/list").await.unwrap()).await;
    assert_eq!((list.data.total, list.data.data.len()), (2, 2));
    assert_eq!(list.data.data[1].sms_id, sent.sms.sms_id);
    let path = format!("/sms/detail/{}", sent.sms.sms_id);
    let detail: wire::Envelope<wire::Sms> = read(rig.get(&path).await.unwrap()).await;
    assert_eq!(detail.data.delivery_status, wire::DeliveryStatus::Sent);
    let senders: wire::Envelope<wire::Paginator<wire::SenderIdRow>> =
        read(rig.get("/sender-id/list").await.unwrap()).await;
    assert!(senders.data.data.iter().any(|row| row.status == wire::SenderStatus::AwaitingApproval));
    let _: wire::AddSenderAnswer = read(rig.post("/sender-id/add", &[("sender_id", "NEW")]).await.unwrap()).await;
    let dialled = rig.post("/click-to-dial/dial", &[("destination", "442073771555")]).await.unwrap();
    assert!(!read::<wire::DialAnswer>(dialled).await.call_id.is_empty());
    let refused: wire::RefusalAnswer = read(rig.send("", number).await.unwrap()).await;
    assert!(refused.errors.unwrap().contains_key("text"));
    let tokens: wire::TokenAnswer = read(rig.refresh_grant(&rig.refresh).await).await;
    assert_eq!(tokens.customer_user_id, wire::NumberOrText::Text("2".into()));
}
