//! The gateway: its texts, its list, its tokens, and its book of what it did, which the ledger is compared with.

use crate::rng::Rng;
use gateway::simulated::{Asked, Reply};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::json;
use std::{fmt::Write as _, time::Duration};

/// The ids of what people wrote begin here.
const RECEIVED_FROM: i64 = 900_000;

const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// A text that went out, or goes out for certain.
#[derive(Clone, Debug)]
pub struct Text {
    /// The gateway's id of it.
    pub sms_id: i64,
    /// From whom.
    pub sender: String,
    /// To whom.
    pub destination: u64,
    /// What.
    pub text: String,
    /// Seconds of the gateway's clock.
    pub time: i64,
    /// From when the list shows it, by the ledger's clock.
    pub listed_at: Timestamp,
    /// From when its status is final.
    pub final_at: Timestamp,
    /// Its status then: 1 or 2.
    pub status: u8,
    /// The list shows it no more.
    pub deleted: bool,
    /// The row that it is for; none for a text of somebody else.
    pub row: Option<i64>,
    /// The attempt that it came by.
    pub attempt: Option<i64>,
}

/// What a person wrote to us.
#[derive(Clone, Debug)]
pub struct Received {
    /// The gateway's id of it.
    pub sms_id: i64,
    /// Who.
    pub person: u64,
    /// To which sender.
    pub receiver: String,
    /// What.
    pub text: String,
    /// Seconds of the gateway's clock.
    pub time: i64,
    /// From when the list shows it, by the ledger's clock.
    pub listed_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Pair {
    expires_at: Timestamp,
    revoked: bool,
    refresh_spent: bool,
    used: bool,
}

/// The gateway.
#[derive(Debug)]
pub struct Book {
    /// All texts, by id.
    pub texts: Vec<Text>,
    /// What people wrote, in the order in which they did.
    pub received: Vec<Received>,
    pairs: Vec<Pair>,
    skew: SignedDuration,
    life: SignedDuration,
    /// Password grants that it was asked for.
    pub grants: u32,
}

/// When a text takes effect and is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) effect: Timestamp,
    pub(crate) listed: Timestamp,
    pub(crate) finals: Timestamp,
    pub(crate) status: u8,
}

/// What a call may do with its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    Yes { first_use: bool },
    No,
}

impl Book {
    pub(crate) fn new(skew: SignedDuration, life: SignedDuration) -> Self {
        Self { texts: Vec::new(), received: Vec::new(), pairs: Vec::new(), skew, life, grants: 0 }
    }

    pub(crate) fn clock(&self, now: Timestamp) -> Timestamp {
        now + self.skew
    }

    pub(crate) fn take(
        &mut self,
        sender: &str,
        destination: u64,
        text: &str,
        when: When,
        whose: Option<(i64, i64)>,
    ) -> i64 {
        let sms_id = 750_000 + i64::try_from(self.texts.len()).expect("few");
        self.texts.push(Text {
            sms_id,
            sender: sender.to_owned(),
            destination,
            text: text.to_owned(),
            time: self.clock(when.effect).as_second(),
            listed_at: when.listed,
            final_at: when.finals,
            status: when.status,
            deleted: false,
            attempt: whose.map(|(attempt, _)| attempt),
            row: whose.map(|(_, row)| row),
        });
        sms_id
    }

    /// A person writes to us.
    pub(crate) fn receive(&mut self, person: u64, receiver: &str, text: &str, now: Timestamp, lag: SignedDuration) {
        self.received.push(Received {
            sms_id: RECEIVED_FROM + i64::try_from(self.received.len()).expect("few"),
            person,
            receiver: receiver.to_owned(),
            text: text.to_owned(),
            time: self.clock(now).as_second(),
            listed_at: now + lag,
        });
    }

    /// What a person wrote, by the gateway's id of it.
    pub(crate) fn written(&self, sms_id: i64) -> Option<&Received> {
        self.received.get(usize::try_from(sms_id - RECEIVED_FROM).ok()?)
    }

    pub(crate) fn text(&self, sms_id: i64) -> Option<&Text> {
        self.texts.get(usize::try_from(sms_id - 750_000).ok()?)
    }

    /// Texts of a row.
    pub(crate) fn of_row(&self, row: i64) -> impl Iterator<Item = &Text> {
        self.texts.iter().filter(move |text| text.row == Some(row))
    }

    pub(crate) fn admit(&mut self, token: Option<&str>, now: Timestamp) -> Admitted {
        let pair = token.and_then(|token| token.strip_prefix("access-")?.parse::<usize>().ok());
        match pair.and_then(|at| self.pairs.get_mut(at)) {
            Some(pair) if !pair.revoked && now < pair.expires_at => {
                Admitted::Yes { first_use: !std::mem::replace(&mut pair.used, true) }
            }
            _ => Admitted::No,
        }
    }

    pub(crate) fn revoke(&mut self, burn: bool) {
        for pair in &mut self.pairs {
            pair.revoked = true;
            pair.refresh_spent |= burn;
        }
    }

    /// A token call that is heard: a new pair, or a refusal.
    pub(crate) fn token(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        let field = |name: &str| asked.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        if field("grant_type") == Some("refresh_token") {
            let pair = field("refresh_token").and_then(|token| token.strip_prefix("refresh-")?.parse::<usize>().ok());
            let Some(pair) = pair.and_then(|at| self.pairs.get_mut(at)).filter(|pair| !pair.refresh_spent) else {
                let said = json!({"message": "The refresh token is invalid.", "error": "invalid_request"});
                return self.answer(401, said.to_string(), now);
            };
            pair.refresh_spent = true;
            pair.revoked = true;
        } else {
            self.grants += 1;
        }
        let number = self.pairs.len();
        let expires_at = now + self.life;
        self.pairs.push(Pair { expires_at, revoked: false, refresh_spent: false, used: false });
        let said = json!({
            "customer_user_name": "sim", "customer_user_id": "2", "expires_in": self.life.as_secs(),
            "access_token": format!("access-{number}"), "refresh_token": format!("refresh-{number}"),
        });
        self.answer(200, said.to_string(), now)
    }

    pub(crate) fn answer(&self, status: u16, body: String, now: Timestamp) -> Reply {
        let retry_after = (status == 429).then_some(Duration::from_secs(7));
        let date = Timestamp::from_second(self.clock(now).as_second()).expect("near");
        Reply::Complete { status, body, retry_after, date, remaining: 1_000 }
    }

    fn entry(&self, text: &Text, now: Timestamp) -> String {
        let status = if now >= text.final_at { text.status } else { 0 };
        entry(&text.sender, &text.destination.to_string(), &text.text, ("1", status), text.time, text.sms_id)
    }

    /// `/sms/list`. `flicker`: the newest text is on the first page only.
    pub(crate) fn list(&self, asked: &Asked, now: Timestamp, flicker: bool) -> Reply {
        let field = |name: &str| asked.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let second = |name: &str| {
            let at = DateTime::strptime(TIME, field(name)?).ok()?;
            Some(TimeZone::UTC.to_timestamp(at).ok()?.as_second())
        };
        let (since, until) = (second("sent_since").unwrap_or(i64::MIN), second("sent_until").unwrap_or(i64::MAX));
        let page = field("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1).max(1);
        let receiver = field("receiver");
        let sender = field("sender");
        let shows = |time: i64, listed_at: Timestamp, from: &str, to: &dyn Fn() -> String| {
            listed_at <= now
                && (since..=until).contains(&time)
                && sender.is_none_or(|sender| sender == from)
                && receiver.is_none_or(|receiver| receiver == to())
        };
        let sent = self.texts.iter().filter(|text| {
            !text.deleted && shows(text.time, text.listed_at, &text.sender, &|| text.destination.to_string())
        });
        let received = self
            .received
            .iter()
            .filter(|text| shows(text.time, text.listed_at, &text.person.to_string(), &|| text.receiver.clone()));
        let sent = sent.map(|text| (text.time, text.sms_id));
        let mut found: Vec<(i64, i64)> = sent.chain(received.map(|text| (text.time, text.sms_id))).collect();
        found.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
        if flicker && page > 1 && !found.is_empty() {
            found.remove(0);
        }
        let total = found.len();
        let mut data = String::new();
        for (_, sms_id) in found.iter().skip((page - 1) * 10).take(10) {
            let line = match (self.text(*sms_id), self.written(*sms_id)) {
                (Some(text), _) => self.entry(text, now),
                (None, Some(text)) => {
                    entry(&text.person.to_string(), &text.receiver, &text.text, ("2", 1), text.time, *sms_id)
                }
                (None, None) => continue,
            };
            let _ = write!(data, "{}{line}", if data.is_empty() { "" } else { "," });
        }
        let last = total.div_ceil(10).max(1);
        let body = format!(
            r#"{{"status":"success","message":"","data":{{"current_page":{page},"data":[{data}],"last_page":{last},"total":{total}}}}}"#
        );
        self.answer(200, body, now)
    }

    /// `/sender-id/list`.
    pub(crate) fn senders(&self, sender: &str, now: Timestamp) -> Reply {
        let data = format!(r#"{{"id":1,"sender_id":"{sender}","status":"1"}}"#);
        let body = format!(
            r#"{{"status":"success","message":"","data":{{"current_page":1,"data":[{data}],"last_page":1,"total":1}}}}"#
        );
        self.answer(200, body, now)
    }

    /// `/sms/detail/{id}`.
    pub(crate) fn detail(&self, id: i64, now: Timestamp) -> Reply {
        match self.text(id).filter(|text| !text.deleted && text.listed_at <= now) {
            Some(text) => {
                let entry = self.entry(text, now);
                self.answer(200, format!(r#"{{"status":"success","message":"","data":{entry}}}"#), now)
            }
            None => self.answer(404, r#"{"message":"Not Found"}"#.to_owned(), now),
        }
    }

    /// The answer to a send call that was taken: `/sms/send` names the text.
    pub(crate) fn accepted(&self, single: Option<i64>, now: Timestamp) -> Reply {
        let body = match single.and_then(|id| self.text(id)) {
            Some(text) => {
                let entry = self.entry(text, now);
                format!(
                    r#"{{"status":"success","message":"SMS sent Successfully!","delivery_status":"0","sms":{entry}}}"#
                )
            }
            None => r#"{"status":"success","message":"SMS sent Successfully!","delivery_status":"0"}"#.to_owned(),
        };
        self.answer(200, body, now)
    }

    /// The texts that the list shows now, newest first; one of them by chance.
    pub(crate) fn any_listed(&self, rng: &mut Rng, now: Timestamp) -> Option<usize> {
        let listed: Vec<usize> =
            (0..self.texts.len()).filter(|at| !self.texts[*at].deleted && self.texts[*at].listed_at <= now).collect();
        (!listed.is_empty()).then(|| rng.pick(&listed))
    }
}

/// One line of the list. `kind`: its type, and its delivery status.
fn entry(source: &str, destination: &str, text: &str, kind: (&str, u8), time: i64, sms_id: i64) -> String {
    let time = Timestamp::from_second(time).expect("near").to_zoned(TimeZone::UTC).strftime(TIME);
    let (kind, status) = kind;
    format!(
        r#"{{"source":"{source}","destination":"{destination}","text":"{text}","type":"{kind}","delivery_status":"{status}","time":"{time}","sms_id":{sms_id}}}"#
    )
}
