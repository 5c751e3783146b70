//! What one send call did, decided in one place.

use crate::SmsId;
use serde_json::{Map, Value};
use std::time::Duration;

/// What is known after one send call (`/sms/send` or `/sms/bulk-send`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx with exactly the success JSON of the collection.
    Accepted {
        /// Only `/sms/send` names it.
        sms_id: Option<SmsId>,
    },
    /// Certainly not sent: the rows go back to queued.
    NotSent {
        /// What stopped it.
        why: NotSent,
        /// The gateway asked to wait this long.
        retry_after: Option<Duration>,
    },
    /// A Laravel-shaped 422: certainly not sent, and it would be refused again.
    Rejected {
        /// Which of the destinations are to blame.
        blame: Blame,
        /// The gateway's words, without numbers or texts.
        message: String,
    },
    /// Nobody knows, in whole or in part.
    Ambiguous {
        /// What was seen, for the row's story.
        why: Ambiguous,
    },
}

/// Reasons for which a call certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// No connection was made: no byte left.
    NoConnection,
    /// 401: the token was refused.
    Unauthorized,
    /// 413: the request was too large.
    TooLarge,
    /// 429: the call budget is spent.
    RateLimited,
}

/// Which rows a 422 is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The sender, the text or the request as a whole.
    All,
    /// These positions of `destination[]`, from 0; the others were not sent either and may be tried again.
    Destinations(Vec<usize>),
}

/// What an ambiguous answer looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// No answer in time.
    TimedOut,
    /// The connection broke after a byte may have left.
    Broken,
    /// A status that is none of the known ones, a redirect or a 5xx.
    Status(u16),
    /// 2xx, but not the success JSON.
    Body(u16),
}

/// What came back of a send call, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A complete answer.
    Complete {
        /// HTTP status.
        status: u16,
        /// Body, complete.
        body: &'a [u8],
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The client never had a connection.
    NoConnection,
    /// The client gave up waiting.
    TimedOut,
    /// The connection or the body broke off.
    Broken,
}

/// The send call that an answer belongs to.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Which of the two calls it was.
    pub call: SendCall,
    /// How many destinations it named.
    pub destinations: usize,
    /// The text that it carried; it is cut out of whatever the gateway says about it.
    pub text: &'a str,
}

/// The two calls that send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendCall {
    /// `/sms/send`: one destination; the answer names the `sms_id`.
    Send,
    /// `/sms/bulk-send`: many destinations; the answer names nothing.
    Bulk,
}

/// Decides what a send call did: the one place where this is decided.
///
/// Source: collection, "send-message" and "send-bulk-message"; Laravel's 401, 413, 422 and 429. A bulk call may have been
/// accepted in part, so whatever is not surely accepted and not surely refused is ambiguous.
pub fn classify(asked: Asked<'_>, answer: Answer<'_>) -> Outcome {
    let (status, body, retry_after) = match answer {
        Answer::Complete { status, body, retry_after } => (status, body, retry_after),
        Answer::NoConnection => return Outcome::NotSent { why: NotSent::NoConnection, retry_after: None },
        #[cfg(feature = "simulated")]
        Answer::TimedOut if crate::mutant::Mutant::RetryOnTimeout.is_on() => {
            return Outcome::NotSent { why: NotSent::NoConnection, retry_after: None };
        }
        Answer::TimedOut => return Outcome::Ambiguous { why: Ambiguous::TimedOut },
        Answer::Broken => return Outcome::Ambiguous { why: Ambiguous::Broken },
    };
    match status {
        #[cfg(feature = "simulated")]
        500..=599 if crate::mutant::Mutant::ServerErrorIsNotSent.is_on() => {
            Outcome::NotSent { why: NotSent::NoConnection, retry_after }
        }
        200..=299 => match success(asked.call, body) {
            Some(sms_id) => Outcome::Accepted { sms_id },
            None => Outcome::Ambiguous { why: Ambiguous::Body(status) },
        },
        401 => Outcome::NotSent { why: NotSent::Unauthorized, retry_after },
        413 => Outcome::NotSent { why: NotSent::TooLarge, retry_after },
        429 => Outcome::NotSent { why: NotSent::RateLimited, retry_after },
        422 => refusal(asked, body).unwrap_or(Outcome::Ambiguous { why: Ambiguous::Status(status) }),
        _ => Outcome::Ambiguous { why: Ambiguous::Status(status) },
    }
}

/// The id of an accepted text, where the call names one; `None` when the body is not the success JSON.
fn success(call: SendCall, body: &[u8]) -> Option<Option<SmsId>> {
    let answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
    if answer.get("status")? != "success" {
        return None;
    }
    match call {
        SendCall::Send => {
            let id = answer.get("sms")?.get("sms_id")?;
            let id = id.as_i64().or_else(|| id.as_str()?.parse().ok())?;
            Some(Some(SmsId(id)))
        }
        // A member that no recording has may be the gateway's way to say "some of them".
        SendCall::Bulk => {
            let recorded = answer.iter().all(|(name, value)| match name.as_str() {
                "status" | "message" => value.is_string(),
                "delivery_status" => ["0", "1"].into_iter().any(|known| value == known),
                _ => false,
            });
            recorded.then_some(None)
        }
    }
}

/// Laravel's validation answer, `{"message": "…", "errors": {"field": ["…"]}}`: nothing of the request was done.
fn refusal(asked: Asked<'_>, body: &[u8]) -> Option<Outcome> {
    let answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let message = answer.get("message")?.as_str()?;
    let errors = answer.get("errors")?.as_object()?;
    let sentences: Vec<&str> = errors
        .values()
        .map(|list| list.as_array().filter(|list| !list.is_empty()))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .flatten()
        .map(Value::as_str)
        .collect::<Option<_>>()?;
    if sentences.is_empty() {
        return None;
    }
    let positions: Option<Vec<usize>> =
        errors.keys().map(|field| field.strip_prefix("destination.")?.parse().ok()).collect();
    let blame = match positions {
        Some(positions) if positions.iter().any(|&position| position >= asked.destinations) => return None,
        Some(mut positions) => {
            positions.sort_unstable();
            Blame::Destinations(positions)
        }
        None => Blame::All,
    };
    let said = if message.is_empty() { sentences.join(" ") } else { message.to_owned() };
    Some(Outcome::Rejected { blame, message: fit_to_keep(&said, asked.text) })
}

const MESSAGE_CHARS_MAX: usize = 200;
const NUMBER_DIGITS_MIN: usize = 7;

/// A message of the gateway as it may be stored and logged: without `text`, without anything that may be a phone number
/// (7 or more digits, however they are grouped), on one line, at most 200 characters.
pub fn fit_to_keep(message: &str, text: &str) -> String {
    let message = if text.is_empty() { message.to_owned() } else { message.replace(text, "…") };
    let mut kept = String::with_capacity(message.len());
    let mut run = String::new();
    for c in message.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\0']) {
        if c.is_numeric() || (!run.is_empty() && matches!(c, ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}')) {
            run.push(c);
        } else {
            let digits = run.chars().filter(|c| c.is_numeric()).count();
            if digits >= NUMBER_DIGITS_MIN {
                let after = run.trim_end_matches(|c: char| !c.is_numeric()).len();
                kept.push('…');
                kept.push_str(&run[after..]);
            } else {
                kept.push_str(&run);
            }
            run.clear();
            if c != '\0' {
                kept.push(c);
            }
        }
    }
    let kept = kept.trim();
    match kept.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &kept[..end]),
        None => kept.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Your table is booked";

    fn bulk(status: u16, body: &str) -> Outcome {
        let asked = Asked { call: SendCall::Bulk, destinations: 3, text: TEXT };
        classify(asked, Answer::Complete { status, body: body.as_bytes(), retry_after: None })
    }

    fn single(status: u16, body: &str) -> Outcome {
        let asked = Asked { call: SendCall::Send, destinations: 1, text: TEXT };
        classify(asked, Answer::Complete { status, body: body.as_bytes(), retry_after: None })
    }

    const RECORDED_BULK: &str = r#"{"status": "success", "message": "SMS sent Successfully!", "delivery_status": "0"}"#;

    #[test]
    fn only_the_recorded_success_is_accepted() {
        assert_eq!(bulk(200, RECORDED_BULK), Outcome::Accepted { sms_id: None });
        assert_eq!(bulk(201, RECORDED_BULK), Outcome::Accepted { sms_id: None });
        let id = |id| Outcome::Accepted { sms_id: Some(SmsId(id)) };
        assert_eq!(single(200, r#"{"status":"success","message":"m","sms":{"sms_id":747033}}"#), id(747_033));
        assert_eq!(single(200, r#"{"status":"success","message":"m","sms":{"sms_id":"747033"}}"#), id(747_033));
    }

    #[test]
    fn a_2xx_that_is_not_the_recorded_success_is_ambiguous() {
        for body in [
            "",
            "<html>Maintenance</html>",
            "null",
            "[]",
            r#"{"status":"error","message":"no credit"}"#,
            r#"{"message":"SMS sent Successfully!","delivery_status":"0"}"#,
            r#"{"status":"success","message":"m","delivery_status":"0","failed":["447700900123"]}"#,
            r#"{"status":"success","message":"m","delivery_status":"2"}"#,
            r#"{"status": "success", "message": "SMS sent Succ"#,
        ] {
            assert_eq!(bulk(200, body), Outcome::Ambiguous { why: Ambiguous::Body(200) }, "{body}");
        }
        assert_eq!(single(200, RECORDED_BULK), Outcome::Ambiguous { why: Ambiguous::Body(200) });
        assert_eq!(
            single(200, r#"{"status":"success","sms":{"sms_id":null}}"#),
            Outcome::Ambiguous { why: Ambiguous::Body(200) }
        );
        assert_eq!(bulk(204, ""), Outcome::Ambiguous { why: Ambiguous::Body(204) });
    }

    #[test]
    fn refusals_before_any_effect_send_the_rows_back() {
        let retry_after = Some(Duration::from_secs(17));
        for (status, why) in [(401, NotSent::Unauthorized), (413, NotSent::TooLarge), (429, NotSent::RateLimited)] {
            let asked = Asked { call: SendCall::Bulk, destinations: 3, text: TEXT };
            let outcome = classify(asked, Answer::Complete { status, body: b"<html>", retry_after });
            assert_eq!(outcome, Outcome::NotSent { why, retry_after }, "{status}");
        }
        let asked = Asked { call: SendCall::Bulk, destinations: 3, text: TEXT };
        let outcome = classify(asked, Answer::NoConnection);
        assert_eq!(outcome, Outcome::NotSent { why: NotSent::NoConnection, retry_after: None });
    }

    #[test]
    fn an_answer_that_was_lost_is_ambiguous() {
        let asked = Asked { call: SendCall::Bulk, destinations: 3, text: TEXT };
        assert_eq!(classify(asked, Answer::TimedOut), Outcome::Ambiguous { why: Ambiguous::TimedOut });
        assert_eq!(classify(asked, Answer::Broken), Outcome::Ambiguous { why: Ambiguous::Broken });
    }

    #[test]
    fn every_other_status_is_ambiguous() {
        for status in (100..600).filter(|status| !matches!(status, 200..=299 | 401 | 413 | 422 | 429)) {
            let outcome = Outcome::Ambiguous { why: Ambiguous::Status(status) };
            assert_eq!(bulk(status, RECORDED_BULK), outcome, "{status}");
            assert_eq!(single(status, r#"{"message":"Unauthenticated."}"#), outcome, "{status}");
        }
    }

    #[test]
    fn a_422_blames_the_destinations_only_when_it_names_nothing_else() {
        let rejected = |blame| Outcome::Rejected { blame, message: "The given data was invalid.".to_owned() };
        let said = |errors: &str| format!(r#"{{"message":"The given data was invalid.","errors":{errors}}}"#);
        assert_eq!(bulk(422, &said(r#"{"source":["not approved"]}"#)), rejected(Blame::All));
        assert_eq!(bulk(422, &said(r#"{"destination":["required"]}"#)), rejected(Blame::All));
        assert_eq!(
            bulk(422, &said(r#"{"destination.2":["bad"],"destination.0":["bad"]}"#)),
            rejected(Blame::Destinations(vec![0, 2]))
        );
        assert_eq!(bulk(422, &said(r#"{"destination.0":["bad"],"text":["too long"]}"#)), rejected(Blame::All));
    }

    #[test]
    fn a_422_of_another_shape_is_ambiguous() {
        for body in [
            "",
            "<html>",
            r#"{"message":"Unprocessable"}"#,
            r#"{"errors":{"text":["too long"]}}"#,
            r#"{"message":"m","errors":{}}"#,
            r#"{"message":"m","errors":[]}"#,
            r#"{"message":"m","errors":{"text":"too long"}}"#,
            r#"{"message":"m","errors":{"text":[]}}"#,
            r#"{"message":"m","errors":{"destination.3":["there were only three"]}}"#,
        ] {
            assert_eq!(bulk(422, body), Outcome::Ambiguous { why: Ambiguous::Status(422) }, "{body}");
        }
    }

    #[test]
    fn kept_messages_have_no_number_no_text_and_an_end() {
        assert_eq!(fit_to_keep("The number 447700900123 is bad.", ""), "The number … is bad.");
        assert_eq!(fit_to_keep("call +44 7700 900-123 or 12345", ""), "call +… or 12345");
        assert_eq!(fit_to_keep("Error 422 on line 17", ""), "Error 422 on line 17");
        assert_eq!(fit_to_keep("Text 'Your table is booked' refused", TEXT), "Text '…' refused");
        assert_eq!(fit_to_keep("one\r\ntwo", ""), "one  two");
        assert_eq!(fit_to_keep(&"é".repeat(500), "").chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
