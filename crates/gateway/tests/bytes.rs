//! Whatever the gateway answers: no panic, bounded memory, and nothing but the success message is taken for success.
//!
//! `tests/corpus/answers` is changed at random places (`testbed::bytes`); `BYTES_RUNS=n` runs more of it.

use campaign::{
    Outcome,
    outcome::{Answer, Asked, Blame, SendCall, classify},
};
use gateway::wire::{
    AddSenderAnswer, BulkSendAnswer, DialAnswer, Envelope, Page, RefusalAnswer, SendAnswer, SenderIdRow, Sms,
    TokenAnswer,
};
use peak_alloc::PeakAlloc;
use serde_json::Value;
use std::{
    cell::Cell,
    sync::{Mutex, MutexGuard, PoisonError},
};
use testbed::bytes::for_changed;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const TEXT: &str = "the text that was sent";
const STATUSES: [u16; 13] = [200, 201, 204, 206, 301, 302, 400, 401, 413, 422, 429, 500, 503];
const IN_ANSWERS: [&[u8]; 24] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"0",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\"status\":\"success\",",
    b"\"status\":\"error\",",
    b"\"sms_id\":7,",
    b"\"errors\":{",
    b"\"destination.1\":",
    b"447700900001",
    b"the text that was sent",
    b"\"failed\":[],",
    b"\"time\":\"2025-05-14 06:43:39\",",
];

/// One test of this program at a time: allocations are counted for all threads together.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether 7 digits or more stand together.
fn shows_a_number(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() >= 7)
}

#[test]
fn any_answer_is_classified_and_only_the_success_message_is_success() {
    let _alone = alone();
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let try_one = |body: &[u8], status: u16, call: SendCall| {
        let asked = Asked { call, destinations: 3, text: TEXT };
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let outcome = classify(asked, Answer::Complete { status, body, retry_after: None });
        let peak = MEMORY.peak_usage().saturating_sub(before);
        assert!(peak < (64 << 10) + 128 * body.len(), "{peak} bytes were allocated for {}", body.len());
        match outcome {
            Outcome::Accepted { sms_id } => {
                accepted.set(accepted.get() + 1);
                assert!((200..300).contains(&status), "{status}");
                let said: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(said["status"], "success", "{said}");
                assert_eq!(sms_id.is_some(), call == SendCall::Send);
                // Another member may be the gateway's way to say "some of them".
                let recorded = ["status", "message", "delivery_status"];
                let plain = said.as_object().unwrap().keys().all(|name| recorded.contains(&name.as_str()));
                assert!(plain || call == SendCall::Send, "{said}");
            }
            Outcome::Rejected { blame, message } => {
                refused.set(refused.get() + 1);
                assert_eq!(status, 422);
                assert!(!message.contains(TEXT) && !shows_a_number(&message), "{message}");
                assert!(message.chars().count() <= 201 && !message.contains('\n'), "{message}");
                if let Blame::Destinations(places) = blame {
                    assert!(places.iter().all(|place| *place < 3), "{places:?}");
                }
            }
            Outcome::NotSent { .. } => assert!([401, 413, 429].contains(&status), "{status}"),
            Outcome::Ambiguous { .. } => assert!(![401, 413, 429].contains(&status), "{status}"),
        }
    };
    for_changed("answers", &IN_ANSWERS, 1_000, |body| {
        for status in STATUSES {
            try_one(body, status, SendCall::Send);
            try_one(body, status, SendCall::Bulk);
        }
    });
    assert!(accepted.get() > 0 && refused.get() > 0, "the corpus shows nothing");
}

#[test]
fn any_answer_is_read_or_refused() {
    fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
        serde_json::from_slice(body).ok()
    }
    let _alone = alone();
    let lists = Cell::new(0);
    for_changed("answers", &IN_ANSWERS, 2_000, |body| {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        if let Some(list) = read::<Envelope<Page<Sms>>>(body) {
            lists.set(lists.get() + 1);
            // The time is read on its way out of the crate.
            assert_eq!(list.data.data.iter().map(Sms::sent_at).count(), list.data.data.len());
        }
        read::<Envelope<Sms>>(body);
        read::<Envelope<Page<SenderIdRow>>>(body);
        read::<SendAnswer>(body);
        read::<BulkSendAnswer>(body);
        read::<TokenAnswer>(body);
        read::<AddSenderAnswer>(body);
        read::<DialAnswer>(body);
        read::<RefusalAnswer>(body);
        let peak = MEMORY.peak_usage().saturating_sub(before);
        assert!(peak < (64 << 10) + 128 * body.len(), "{peak} bytes were allocated for {}", body.len());
    });
    assert!(lists.get() > 0, "the corpus shows nothing");
}
