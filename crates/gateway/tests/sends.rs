//! Send calls over a real socket: what leaves, how often, and what is made of the answer.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

mod support;

use campaign::{
    Msisdn, Outcome, SenderId, SmsId,
    outcome::{Ambiguous, Blame, NotSent},
};
use gateway::{CallClass, Gateway, Sent};
use std::time::{Duration, Instant};
use support::{Asked, BULK_TAKEN, File, Reply, Server, client, ledger, ok, settings};

const TEXT: &str = "Your table is booked";

fn numbers(count: u64) -> Vec<Msisdn> {
    (0..count).map(|n| Msisdn::from_digits(447_700_900_000 + n).unwrap()).collect()
}

async fn send(gateway: &Gateway, count: u64) -> Sent {
    let permit = gateway.permit(CallClass::Send).await.unwrap();
    gateway.send(permit, &SenderId::parse("ACME").unwrap(), TEXT, &numbers(count)).await
}

/// What one bulk call to three numbers comes to when it is answered so.
async fn outcome(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Outcome, Vec<String>) {
    let (server, file) = (Server::start(answer).await, File::new());
    let mut settings = settings(&server.base_url);
    settings.connect_timeout = Duration::from_millis(300);
    settings.send_timeout = Duration::from_millis(600);
    let gateway = client(&settings, &ledger(&file.url()).await, "test");
    let sent = send(&gateway, 3).await;
    let paths = server.paths().into_iter().filter(|path| !path.ends_with("/oauth/token")).collect();
    (sent.outcome, paths)
}

#[tokio::test]
async fn a_bulk_call_goes_out_as_it_was_recorded() {
    let (server, file) = (Server::start(|_| ok(BULK_TAKEN)).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    assert_eq!(send(&gateway, 2).await.outcome, Outcome::Accepted { sms_id: None });
    let asked = server.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.path, "/api/sms/bulk-send");
    let boundary = asked.body.lines().next().unwrap().to_owned();
    let part = |name: &str, value: &str| {
        format!("{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let expected = [
        part("source", "ACME"),
        part("text", TEXT),
        part("destination[]", "447700900000"),
        part("destination[]", "447700900001"),
        format!("{boundary}--\r\n"),
    ];
    assert_eq!(asked.body, expected.concat());
}

#[tokio::test]
async fn a_batch_of_one_goes_by_the_call_that_names_the_id() {
    let (server, file) = (Server::start(|_| ok(include_str!("recorded/send_message.json"))).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    assert_eq!(send(&gateway, 1).await.outcome, Outcome::Accepted { sms_id: Some(SmsId(747_033)) });
    let asked = server.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.path, "/api/sms/send");
    let names: Vec<_> = asked.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["source", "destination", "text"]);
}

#[tokio::test]
async fn connections_closed_while_idle_never_make_a_send_unknown() {
    let (server, file) = (Server::start(|_| Reply::JsonThenClose(200, BULK_TAKEN.to_owned())).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    for n in 0..200 {
        assert_eq!(send(&gateway, 2).await.outcome, Outcome::Accepted { sms_id: None }, "send {n}");
    }
    let sends = server.paths().iter().filter(|path| path.ends_with("/sms/bulk-send")).count();
    assert_eq!((sends, *server.connections.lock().unwrap()), (200, 201), "one connection for each call");
}

#[tokio::test]
async fn a_kept_connection_is_not_used_for_the_next_send() {
    let (server, file) = (Server::start(|_| ok(BULK_TAKEN)).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    for _ in 0..5 {
        send(&gateway, 2).await;
    }
    assert_eq!(*server.connections.lock().unwrap(), 6);
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let (server, file) = (Server::start(|_| ok(BULK_TAKEN)).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    let permit = gateway.permit(CallClass::Send).await.unwrap();
    drop(server);
    let address = gateway_is_gone(&gateway).await;
    let sent = gateway.send(permit, &SenderId::parse("ACME").unwrap(), TEXT, &numbers(2)).await;
    assert_eq!(sent.outcome, Outcome::NotSent { why: NotSent::NoConnection, retry_after: None }, "{address}");
}

/// Waits until the dropped server's socket is closed.
async fn gateway_is_gone(gateway: &Gateway) -> String {
    let shown = format!("{gateway:?}");
    let address = shown.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    testbed::eventually_async("the socket closes", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
    address
}

#[tokio::test]
async fn an_answer_that_is_lost_is_ambiguous_and_the_call_is_not_repeated() {
    let once = vec!["/api/sms/bulk-send".to_owned()];
    let broken = Outcome::Ambiguous { why: Ambiguous::Broken };
    assert_eq!(outcome(|_| Reply::Close).await, (broken.clone(), once.clone()));
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{{\"status\": \"succ", BULK_TAKEN.len());
    assert_eq!(outcome(move |_| Reply::Raw(cut.clone())).await, (broken, once.clone()));
    assert_eq!(outcome(|_| Reply::Hang).await, (Outcome::Ambiguous { why: Ambiguous::TimedOut }, once));
}

#[tokio::test]
async fn odd_answers_are_ambiguous_and_redirects_are_not_followed() {
    let once = vec!["/api/sms/bulk-send".to_owned()];
    let moved = outcome(|_| Reply::With(307, "location: /api/elsewhere\r\n", String::new())).await;
    assert_eq!(moved, (Outcome::Ambiguous { why: Ambiguous::Status(307) }, once.clone()));
    let html = outcome(|_| ok("<html>Down for maintenance</html>")).await;
    assert_eq!(html, (Outcome::Ambiguous { why: Ambiguous::Body(200) }, once.clone()));
    let failed = outcome(|_| Reply::Json(500, "<html>".to_owned())).await;
    assert_eq!(failed, (Outcome::Ambiguous { why: Ambiguous::Status(500) }, once));
}

#[tokio::test]
async fn a_validation_error_blames_destinations_without_naming_them() {
    let body = r#"{"message":"447700900001 is bad","errors":{"destination.1":["bad"]}}"#;
    let (outcome, _) = outcome(move |_| Reply::Json(422, body.to_owned())).await;
    let rejected = Outcome::Rejected { blame: Blame::Destinations(vec![1]), message: "… is bad".to_owned() };
    assert_eq!(outcome, rejected);
}

#[tokio::test]
async fn a_429_stops_every_later_call_until_retry_after() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/api/sms/bulk-send" => Reply::With(429, "retry-after: 1\r\n", "{}".to_owned()),
        _ => ok(support::EMPTY_LIST),
    })
    .await;
    let file = File::new();
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    let sent = send(&gateway, 2).await;
    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(sent.outcome, Outcome::NotSent { why: NotSent::RateLimited, retry_after });
    let began = Instant::now();
    gateway.permit(CallClass::Send).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(990));
}

#[tokio::test]
async fn the_gateways_clock_is_compared_with_the_ledgers() {
    let server =
        Server::start(|_| Reply::With(200, "date: Wed, 10 Dec 2025 06:07:50 GMT\r\n", BULK_TAKEN.to_owned())).await;
    let file = File::new();
    let ledger = ledger(&file.url()).await;
    let gateway = client(&settings(&server.base_url), &ledger, "test");
    let skew = send(&gateway, 2).await.clock_skew.unwrap();
    let date: jiff::Timestamp = "2025-12-10T06:07:50Z".parse().unwrap();
    let apart = date.duration_since(ledger.now()) - skew;
    assert!(apart.abs() < jiff::SignedDuration::from_secs(5), "{apart}");
}

#[tokio::test]
async fn a_refused_token_is_replaced_for_the_next_send_and_the_refused_one_went_nowhere() {
    let (server, file) = (Server::start(|_| ok(BULK_TAKEN)).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    assert_eq!(send(&gateway, 2).await.outcome, Outcome::Accepted { sms_id: None });
    server.account().revoke();
    let refused = Outcome::NotSent { why: NotSent::Unauthorized, retry_after: None };
    assert_eq!(send(&gateway, 2).await.outcome, refused);
    assert_eq!(send(&gateway, 2).await.outcome, Outcome::Accepted { sms_id: None });
    let account = server.account();
    assert_eq!((account.password_grants, account.presented.as_slice()), (1, ["refresh-1".to_owned()].as_slice()));
}
