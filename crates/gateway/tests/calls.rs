//! The calls that read, and those that act without sending, over a real socket.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

mod support;

use campaign::{Msisdn, Region, SenderId, SmsId};
use gateway::{CallClass, CallErrorKind, Dialled, ListQuery, wire::DeliveryStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Asked, File, Reply, Server, client, ledger, ok, settings};

async fn gateway(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Server, File, gateway::Gateway) {
    let (server, file) = (Server::start(answer).await, File::new());
    let gateway = client(&settings(&server.base_url), &ledger(&file.url()).await, "test");
    (server, file, gateway)
}

fn number() -> Msisdn {
    Msisdn::parse("020 7377 1555", Region::GB).unwrap().msisdn
}

#[tokio::test]
async fn a_page_of_the_list_is_asked_for_in_seconds_and_utc() {
    let (server, _file, gateway) = gateway(|_| ok(include_str!("recorded/sms_list.json"))).await;
    let query = ListQuery {
        sender: Some(SenderId::parse("447520602706").unwrap()),
        sent_since: Some("2025-05-14T00:00:00.9Z".parse().unwrap()),
        sent_until: Some("2025-05-25T07:54:58Z".parse().unwrap()),
        page: 3,
        ..ListQuery::default()
    };
    let listed = gateway.list(CallClass::Status, &query).await.unwrap();
    assert_eq!((listed.rows.len(), listed.total, listed.current_page, listed.last_page), (4, 4, 1, 1));
    let asked = server.paths().pop().unwrap();
    let query = "sender=447520602706&sent_since=2025-05-14+00%3A00%3A00&sent_until=2025-05-25+07%3A54%3A58&page=3";
    assert_eq!(asked, format!("/api/sms/list?{query}"));
}

#[tokio::test]
async fn a_text_that_the_gateway_does_not_know_is_none() {
    let (_server, _file, gateway) = gateway(|asked| match asked.path.as_str() {
        "/api/sms/detail/44147" => ok(include_str!("recorded/sms_detail.json")),
        _ => Reply::Json(404, r#"{"message":"Not Found"}"#.to_owned()),
    })
    .await;
    let known = gateway.detail(CallClass::Status, SmsId(44_147)).await.unwrap().unwrap();
    assert_eq!(known.delivery_status, DeliveryStatus::Failed);
    assert!(gateway.detail(CallClass::Status, SmsId(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn all_pages_of_sender_ids_are_read() {
    let (server, _file, gateway) = gateway(|asked| {
        let page = if asked.path.ends_with("page=1") { 1 } else { 2 };
        let body = include_str!("recorded/sender_id_list.json")
            .replace(r#""current_page": 1"#, &format!(r#""current_page": {page}"#))
            .replace(r#""last_page": 1"#, r#""last_page": 2"#);
        ok(&body)
    })
    .await;
    assert_eq!(gateway.senders().await.unwrap().len(), 8);
    assert_eq!(server.paths().len(), 3);
}

#[tokio::test]
async fn a_read_is_repeated_until_the_gateway_is_back() {
    let failures = AtomicU32::new(0);
    let (server, _file, gateway) = gateway(move |_| match failures.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Close,
        1 => Reply::Json(503, "<html>".to_owned()),
        _ => ok(support::EMPTY_LIST),
    })
    .await;
    gateway.list(CallClass::Status, &ListQuery::default()).await.unwrap();
    assert_eq!(server.paths().len(), 4);
}

#[tokio::test]
async fn a_page_that_is_no_json_is_unexpected_and_not_asked_for_again() {
    let (server, _file, gateway) = gateway(|_| ok("<html>Down for maintenance</html>")).await;
    let error = gateway.list(CallClass::Status, &ListQuery::default()).await.unwrap_err();
    assert_eq!(error.kind(), CallErrorKind::Unexpected, "{error}");
    assert_eq!(server.paths().len(), 2);
}

#[tokio::test]
async fn a_call_is_dialled_once_and_its_number_is_not_kept() {
    let (server, _file, gateway) = gateway(|_| ok(include_str!("recorded/click_to_dial_dial.json"))).await;
    let dialled =
        Dialled { message: "Call Dialed successfully to ….".to_owned(), call_id: "16939009e8d03f".to_owned() };
    assert_eq!(gateway.dial(&number()).await.unwrap(), dialled);
    assert_eq!(gateway.dial_masked(&number(), &number()).await.unwrap(), dialled);
    let asked = server.asked.lock().unwrap();
    assert_eq!((asked[1].path.as_str(), asked[1].field("destination")), ("/api/click-to-dial/dial", "442073771555"));
    assert_eq!((asked[2].path.as_str(), asked[2].field("source")), ("/api/click-to-dial-mask/dial", "442073771555"));
}

#[tokio::test]
async fn a_dial_whose_answer_is_lost_is_not_repeated() {
    for reply in [|| Reply::Close, || Reply::Json(502, "<html>".to_owned())] {
        let (server, _file, gateway) = gateway(move |_| reply()).await;
        let error = gateway.dial(&number()).await.unwrap_err();
        assert_eq!(error.kind(), CallErrorKind::Unexpected);
        assert!(error.to_string().contains("whether it was done is not known"), "{error}");
        assert_eq!(server.paths().len(), 2);
    }
}

#[tokio::test]
async fn a_new_sender_id_is_asked_for_once() {
    let (server, _file, gateway) = gateway(|_| ok(include_str!("recorded/sender_id_add.json"))).await;
    let said = gateway.add_sender(&SenderId::parse("ACME").unwrap()).await.unwrap();
    assert_eq!(said, "Sender ID is created successfully and it will be reviewed soon for approval.");
    assert_eq!(server.asked.lock().unwrap()[1].field("sender_id"), "ACME");
}
