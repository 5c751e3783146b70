//! The wire types against the recorded answers of the collection.

#![expect(clippy::unwrap_used, reason = "clippy takes only the tests themselves for tests")]

use gateway::wire::{
    AddSenderAnswer, BulkSendAnswer, DeliveryStatus, DialAnswer, Envelope, MessageType, NumberOrText, Paginator,
    ReadStatus, SendAnswer, SenderIdRow, SenderStatus, Sms, TokenAnswer,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads a recording, and checks that writing it again loses nothing.
fn recorded<T: Serialize + DeserializeOwned>(body: &str) -> T {
    let read: T = serde_json::from_str(body).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(body).unwrap());
    read
}

#[test]
fn both_token_answers_are_read() {
    let first: TokenAnswer = recorded(include_str!("recorded/token_password.json"));
    assert_eq!((first.customer_user_id, first.expires_in), (NumberOrText::Number(2), 3600));
    let refreshed: TokenAnswer = recorded(include_str!("recorded/token_refresh.json"));
    assert_eq!(refreshed.customer_user_id, NumberOrText::Text("2".to_owned()));
    assert_eq!(refreshed.refresh_token, "def502-dummy-2");
}

#[test]
fn the_answer_to_a_single_send_names_its_id() {
    let answer: SendAnswer = recorded(include_str!("recorded/send_message.json"));
    assert_eq!(answer.sms.sms_id, 747_033);
    assert_eq!(answer.sms.sent_at().to_string(), "2025-12-10T05:08:51Z");
    assert_eq!(answer.sms.delivery_status, DeliveryStatus::Pending);
}

#[test]
fn the_answer_to_a_bulk_send_names_nothing() {
    let answer: BulkSendAnswer = recorded(include_str!("recorded/send_bulk_message.json"));
    assert_eq!((answer.status.as_str(), answer.delivery_status), ("success", DeliveryStatus::Pending));
}

#[test]
fn a_listed_text_has_no_segment_count() {
    let list: Envelope<Paginator<Sms>> = recorded(include_str!("recorded/sms_list.json"));
    assert_eq!((list.data.total, list.data.current_page, list.data.last_page), (4, 1, 1));
    let first = &list.data.data[0];
    assert_eq!((first.sms_id, first.sms_count), (95_340, None));
    assert_eq!((&first.message_type, &first.read_status), (&MessageType::Sent, &ReadStatus::Read));
}

#[test]
fn a_number_that_cannot_exist_is_read_as_it_is() {
    let detail: Envelope<Sms> = recorded(include_str!("recorded/sms_detail.json"));
    assert_eq!(detail.data.destination, "447700172124234235252524");
    assert_eq!((detail.data.delivery_status, detail.data.sms_count), (DeliveryStatus::Failed, Some(1)));
}

#[test]
fn sender_ids_and_dialled_calls_are_read() {
    let list: Envelope<Paginator<SenderIdRow>> = recorded(include_str!("recorded/sender_id_list.json"));
    let approved: Vec<_> =
        list.data.data.iter().filter(|row| row.status == SenderStatus::Approved).map(|row| &*row.sender_id).collect();
    assert_eq!(approved, ["13234710258", "447520602706"]);
    let added: AddSenderAnswer = recorded(include_str!("recorded/sender_id_add.json"));
    assert_eq!(added.status, "success");
    let dialled: DialAnswer = recorded(include_str!("recorded/click_to_dial_dial.json"));
    assert_eq!(dialled.call_id, "16939009e8d03f");
    let masked: DialAnswer = recorded(include_str!("recorded/click_to_dial_mask.json"));
    assert_eq!(masked.call_id, "16979e91e03cdd");
}

#[test]
fn an_unknown_status_stays_unknown_and_an_id_may_be_a_string() {
    let body = include_str!("recorded/sms_detail.json")
        .replace(r#""delivery_status": "2""#, r#""delivery_status": "7""#)
        .replace("44147", r#""44147""#);
    let detail: Envelope<Sms> = serde_json::from_str(&body).unwrap();
    assert_eq!(detail.data.delivery_status, DeliveryStatus::Unknown("7".to_owned()));
    assert_eq!(detail.data.sms_id, 44_147);
    for (spelt, meant) in [("2", DeliveryStatus::Failed), ("\"\"", DeliveryStatus::Unknown(String::new()))] {
        assert_eq!(serde_json::from_str::<DeliveryStatus>(spelt).unwrap(), meant);
    }
    let absent: DeliveryStatus = serde_json::from_str("null").unwrap();
    assert_eq!(absent, DeliveryStatus::Unknown(String::new()));
}

#[test]
fn debug_shows_no_number_text_or_token() {
    let list: Envelope<Paginator<Sms>> = recorded(include_str!("recorded/sms_list.json"));
    let token: TokenAnswer = recorded(include_str!("recorded/token_password.json"));
    let shown = format!("{list:?} {:?} {:?} {token:?}", list.data, list.data.data);
    for secret in ["447520602707", "test sms", "dummy"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
