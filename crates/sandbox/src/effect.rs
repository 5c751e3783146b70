//! What each of the nine calls does and answers.

use crate::answer::Reply;
use crate::clock::{read, written};
use crate::form::Call;
use crate::operation::Operation;
use crate::pages::{PER_PAGE, Page, asked_for};
use crate::rows::{Filter, Origin};
use crate::state::{State, Twist};
use crate::text::segments;
use crate::tokens::{Pair, Refresh};
use serde_json::{Value, json};

type Errors = Vec<(String, String)>;

impl State {
    /// Has the effect of a call, and says what the gateway would.
    pub(crate) fn perform(&mut self, call: &Call, twist: Twist) -> Reply {
        if call.operation != Operation::Token && !call.authorized {
            return Reply::unauthenticated();
        }
        match call.operation {
            Operation::Token => self.token(call),
            Operation::Senders => self.list_senders(call),
            Operation::AddSender => self.ask_for_sender(call),
            Operation::Send => self.send(call, twist),
            Operation::BulkSend => self.bulk_send(call, twist),
            Operation::List => self.list(call, twist),
            Operation::Detail => self.detail(call),
            Operation::Dial => self.dial(call, &["destination"]),
            Operation::DialMasked => self.dial(call, &["destination", "source"]),
        }
    }

    fn token(&mut self, call: &Call) -> Reply {
        let grant = call.field("grant_type");
        let needed: &[&str] = match grant {
            Some("password") => &["client_id", "client_secret", "username", "password"],
            Some("refresh_token") => &["client_id", "client_secret", "refresh_token"],
            Some(_) | None => &["grant_type", "client_id", "client_secret"],
        };
        let missing = missing(call, needed);
        if !missing.is_empty() {
            return Reply::invalid(missing);
        }
        let is = |field: &str, value: &str| call.field(field) == Some(value);
        if !is("client_id", &self.config.client_id) || !is("client_secret", &self.config.client_secret) {
            return Reply::oauth(401, "invalid_client", "Client authentication failed", None);
        }
        let (now, written_now, expires_in_s) = (self.now(), self.written_now(), self.config.expires_in_s);
        match grant {
            Some("password") => {
                if !is("username", &self.config.username) || !is("password", &self.config.password) {
                    return Reply::oauth(400, "invalid_grant", "The user credentials were incorrect.", None);
                }
                self.book.password_grants += 1;
                let pair = self.tokens.issue(now, written_now, expires_in_s);
                self.tokens_answer(pair, json!(self.config.customer_user_id))
            }
            Some("refresh_token") => {
                let presented = call.field("refresh_token").unwrap_or_default();
                let hint = match self.tokens.refresh(presented, now, written_now, expires_in_s) {
                    Refresh::Fresh(pair) => {
                        self.book.refresh_grants += 1;
                        return self.tokens_answer(pair, json!(self.config.customer_user_id.to_string()));
                    }
                    Refresh::Burned => {
                        self.book.burned_presentations += 1;
                        "Token has been revoked"
                    }
                    Refresh::Unknown => {
                        self.book.unknown_presentations += 1;
                        "Cannot decrypt the refresh token"
                    }
                };
                Reply::oauth(401, "invalid_request", "The refresh token is invalid.", Some(hint))
            }
            Some(_) | None => Reply::oauth(
                400,
                "unsupported_grant_type",
                "The authorization grant type is not supported by the authorization server.",
                Some("Check that all required parameters have been provided"),
            ),
        }
    }

    fn tokens_answer(&self, pair: Pair, customer_user_id: Value) -> Reply {
        Reply::ok(json!({
            "customer_user_name": self.config.customer_user_name,
            "customer_user_id": customer_user_id,
            "expires_in": self.config.expires_in_s,
            "access_token": pair.access,
            "refresh_token": pair.refresh,
        }))
    }

    fn list_senders(&self, call: &Call) -> Reply {
        let current = asked_for(&call.query);
        let skip = (current - 1).saturating_mul(PER_PAGE);
        let by = &self.config.customer_user_name;
        let rows = self.senders.iter().rev().skip(skip).take(PER_PAGE).map(|sender| {
            json!({
                "id": sender.id,
                "customer_user_id": self.config.customer_user_id,
                "sender_id": sender.sender_id,
                "status": if sender.approved { "1" } else { "0" },
                "created_at": written(sender.created_s),
                "created_by": by,
                "updated_at": sender.updated_s.map(written),
                "updated_by": sender.updated_s.map(|_| by),
            })
        });
        let path = format!("{}/sender-id/list", self.base_url);
        let page = Page { path: &path, query: &call.query, current, total: self.senders.len() };
        success_page(page.around(rows.collect()))
    }

    fn ask_for_sender(&mut self, call: &Call) -> Reply {
        let mut errors = missing(call, &["sender_id"]);
        let Some(sender_id) = call.field("sender_id") else { return Reply::invalid(errors) };
        if !sender_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            errors.push(error("sender_id", "must only contain letters and numbers."));
        } else if self.senders.iter().any(|sender| sender.sender_id == sender_id) {
            errors.push(("sender_id".into(), "The sender id has already been taken.".into()));
        }
        if !errors.is_empty() {
            return Reply::invalid(errors);
        }
        self.add_sender(sender_id.to_owned(), false);
        Reply::ok(json!({
            "status": "success",
            "message": "Sender ID is created successfully and it will be reviewed soon for approval.",
        }))
    }

    fn send(&mut self, call: &Call, twist: Twist) -> Reply {
        let mut errors = missing(call, &["source", "destination", "text"]);
        if call.field("destination").is_some_and(|destination| !is_digits(destination)) {
            errors.push(error("destination", "must be a number."));
        }
        let (Some(source), Some(destination), Some(text), true) =
            (call.field("source"), call.field("destination"), call.field("text"), errors.is_empty())
        else {
            return Reply::invalid(errors);
        };
        if !self.approved(source) {
            return Reply::invalid(vec![unknown_source()]);
        }
        let row = self.accept(Origin::Send, source, destination, text, twist);
        let (sms_id, time) = (row.sms_id, written(row.time_s));
        self.flush_book_file();
        Reply::ok(json!({
            "status": "success",
            "message": "SMS sent Successfully!",
            "delivery_status": "0",
            "sms": {
                "source": source,
                "destination": destination,
                "text": text,
                "type": "1",
                "sms_count": segments(text),
                "delivery_status": "0",
                "read_status": "1",
                "time": time,
                "sms_id": sms_id,
                "chat_partner": destination,
            },
        }))
    }

    fn bulk_send(&mut self, call: &Call, twist: Twist) -> Reply {
        let mut destinations = call.fields("destination[]");
        let given = destinations.len();
        destinations.truncate(self.config.max_destinations);
        let mut errors = missing(call, &["source", "text"]);
        if destinations.is_empty() {
            errors.push(error("destination", "is required."));
        }
        for (at, destination) in destinations.iter().enumerate() {
            if !is_digits(destination) {
                errors.push(error(&format!("destination.{at}"), "must be a number."));
            }
        }
        let (Some(source), Some(text), true) = (call.field("source"), call.field("text"), errors.is_empty()) else {
            return Reply::invalid(errors);
        };
        if !self.approved(source) {
            return Reply::invalid(vec![unknown_source()]);
        }
        self.book.dropped_destinations += (given - destinations.len()) as u64;
        let taken = twist.part.map_or(destinations.len(), |part| part_of(destinations.len(), part));
        for destination in &destinations[..taken] {
            self.accept(Origin::BulkSend, source, destination, text, twist);
        }
        self.flush_book_file();
        Reply::ok(json!({"status": "success", "message": "SMS sent Successfully!", "delivery_status": "0"}))
    }

    fn list(&mut self, call: &Call, twist: Twist) -> Reply {
        let mut errors = Errors::new();
        for name in ["sender", "receiver"] {
            if call.parameter(name).is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
                errors.push(error(name, "format is invalid."));
            }
        }
        let mut time = |name: &str| {
            let given = call.parameter(name)?;
            let time = read(given);
            if time.is_none() {
                errors.push(error(name, "must match the format Y-m-d H:i:s."));
            }
            time
        };
        let (since_s, until_s) = (time("sent_since"), time("sent_until"));
        if !errors.is_empty() {
            return Reply::invalid(errors);
        }
        let now = self.now();
        let filter = Filter {
            sender: call.parameter("sender"),
            receiver: call.parameter("receiver"),
            since_s,
            until_s,
            visible_by: (twist.lag_ms > 0).then(|| now.saturating_sub(twist.lag_ms)),
        };
        let current = asked_for(&call.query);
        // Odd and even pages disagree, so that no reading of two pages balances.
        let drift = if twist.shuffle_total { 1 + current % 2 } else { 0 };
        let (page, total) = self.rows.list(&filter, (current - 1).saturating_mul(PER_PAGE), PER_PAGE, now);
        let ids: Vec<u64> = page.iter().map(|row| row.sms_id).collect();
        let rows = ids.into_iter().filter_map(|sms_id| self.row(sms_id, false)).collect();
        let path = format!("{}/sms/list", self.base_url);
        success_page(Page { path: &path, query: &call.query, current, total: total + drift }.around(rows))
    }

    fn detail(&self, call: &Call) -> Reply {
        let found = call.id.parse().ok().and_then(|sms_id| self.row(sms_id, true));
        match found {
            Some(row) => success_page(row),
            None => Reply::json(
                404,
                json!({"message": format!("No query results for model [App\\Models\\Sms] {}", call.id)}),
            ),
        }
    }

    /// A row as the list and the detail call show it; only the latter has `sms_count`.
    fn row(&self, sms_id: u64, with_count: bool) -> Option<Value> {
        let now = self.now();
        let row = self.rows.by_id(sms_id).filter(|row| row.found_by_id(now))?;
        let text = self.rows.text(row);
        let mut value = json!({
            "source": self.rows.source(row),
            "destination": row.destination.to_string(),
            "text": text,
            "type": if row.origin == Origin::Inbound { "2" } else { "1" },
            "delivery_status": row.delivery_status(now),
            "read_status": "1",
            "time": written(row.time_s),
            "sms_id": row.sms_id,
        });
        if with_count {
            value["sms_count"] = segments(text).into();
        }
        Some(value)
    }

    fn dial(&mut self, call: &Call, fields: &[&str]) -> Reply {
        let mut errors = missing(call, fields);
        for name in fields {
            if call.field(name).is_some_and(|number| !is_british(number)) {
                errors.push(error(name, "must be a valid UK number."));
            }
        }
        let (Some(destination), true) = (call.field("destination"), errors.is_empty()) else {
            return Reply::invalid(errors);
        };
        self.book.dials += 1;
        let (seconds, rest) = (self.written_now().div_euclid(1000), self.dice.between(0, 0xF_FFFF));
        Reply::ok(json!({
            "status": "success",
            "message": format!("Call Dialed successfully to {}.", destination.trim_start_matches('+')),
            "call_id": format!("1{seconds:08x}{rest:05x}"),
        }))
    }
}

fn success_page(data: Value) -> Reply {
    Reply::ok(json!({"status": "success", "message": "success", "data": data}))
}

fn missing(call: &Call, names: &[&str]) -> Errors {
    names.iter().filter(|name| call.field(name).is_none()).map(|name| error(name, "is required.")).collect()
}

fn error(field: &str, what: &str) -> (String, String) {
    (field.to_owned(), format!("The {} field {what}", field.replace('_', " ")))
}

fn unknown_source() -> (String, String) {
    ("source".into(), "The selected source is invalid.".into())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_british(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or(number);
    digits.starts_with("44") && is_digits(digits) && (11..=12).contains(&digits.len())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 0 to 1 of a length is a length"
)]
fn part_of(len: usize, part: f64) -> usize {
    ((len as f64) * part).floor() as usize
}
