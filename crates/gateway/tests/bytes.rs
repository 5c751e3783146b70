//! Whatever the gateway answers: no panic, and nothing but the success message is taken for success.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for no tests")]

#[path = "../../../tests/corpus/dice.rs"]
mod dice;

use campaign::{
    Outcome,
    outcome::{Answer, Asked, SendCall, classify},
};
use dice::{Dice, corpus, runs};
use gateway::wire::{BulkSendAnswer, Envelope, Paginator, SendAnswer, SenderIdRow, Sms, TokenAnswer};
use serde_json::Value;

const TEXT: &str = "the text that was sent";

#[test]
fn any_answer_is_classified_and_only_a_success_is_one() {
    let (seeds, mut dice) = (corpus("answers"), Dice::new(0xa115));
    let mut accepted = 0;
    for run in 0..runs() * 10 {
        let body = dice.changed(&seeds);
        let status = [200, 201, 204, 302, 400, 401, 413, 422, 429, 500, 503][dice.below(11)];
        let call = if run % 2 == 0 { SendCall::Send } else { SendCall::Bulk };
        let asked = Asked { call, destinations: 3, text: TEXT };
        match classify(asked, Answer::Complete { status, body: &body, retry_after: None }) {
            Outcome::Accepted { .. } => {
                accepted += 1;
                assert!((200..300).contains(&status));
                let said: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(said["status"], "success", "{said}");
            }
            Outcome::Rejected { message, .. } => {
                assert_eq!(status, 422);
                assert!(!message.contains(TEXT) && message.len() < 1_000, "{message}");
            }
            Outcome::NotSent { .. } => assert!([401, 413, 429].contains(&status), "{status}"),
            Outcome::Ambiguous { .. } => {}
        }
    }
    assert!(accepted > 0, "the corpus shows nothing");
}

#[test]
fn any_answer_is_read_or_refused() {
    let (seeds, mut dice) = (corpus("answers"), Dice::new(0x11a2));
    for _ in 0..runs() * 10 {
        let body = dice.changed(&seeds);
        _ = serde_json::from_slice::<Envelope<Paginator<Sms>>>(&body).map(|list| {
            // The time is read on its way out of the crate.
            list.data.data.iter().map(Sms::sent_at).count()
        });
        _ = serde_json::from_slice::<Envelope<Sms>>(&body).is_ok();
        _ = serde_json::from_slice::<Paginator<SenderIdRow>>(&body).is_ok();
        _ = serde_json::from_slice::<SendAnswer>(&body).is_ok();
        _ = serde_json::from_slice::<BulkSendAnswer>(&body).is_ok();
        _ = serde_json::from_slice::<TokenAnswer>(&body).is_ok();
    }
}
