//! The nine calls.

use crate::{
    Budget, CallClass, CallError, CallErrorKind, Settings,
    http::{Call, Complete, Http, Missing},
    patience::Patience,
    tokens::{Token, Tokens, hear},
    wire::{
        AddSenderAnswer, AddSenderRequest, BulkSendRequest, DialAnswer, DialMaskedRequest, DialRequest, Envelope,
        Fields, ListParams, Page, RefusalAnswer, SUCCESS, SendRequest, SenderIdRow, Sms, TIME_FORMAT,
    },
};
use campaign::{
    Msisdn, Outcome, SenderId, SmsId,
    outcome::{Asked, SendCall, classify, fit_to_keep},
};
use jiff::{SignedDuration, Timestamp};
use ledger::Ledger;
use serde::de::DeserializeOwned;
use std::{fmt, sync::Arc, time::Duration};
use telemetry::Pulse;
use tokio::time::Instant;

/// A wait for the budget this long may have outlived the token.
const TOKEN_RECHECK: Duration = Duration::from_millis(500);

/// How often one read is answered 401 or 429 before it is given up.
const REFUSALS_MAX: u32 = 4;

/// Pages of sender ids that are read at most.
const SENDER_PAGES_MAX: u32 = 1000;

/// The gateway; clones share connections, token and budget.
#[derive(Clone)]
pub struct Gateway {
    http: Arc<Http>,
    tokens: Arc<Tokens>,
    budget: Budget,
    settings: Settings,
    pulse: Pulse,
}

/// One call's worth of budget, and the token to make it with.
pub struct Permit {
    token: Token,
    window: i64,
}

/// What one send call did, and how the gateway's clock stands.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it did.
    pub outcome: Outcome,
    /// The gateway's `Date` less the ledger's clock in the middle of the call.
    pub clock_skew: Option<SignedDuration>,
}

/// Which texts to list. Both instants are of the gateway's clock, to the second, and included.
#[derive(Clone, Default)]
pub struct ListQuery {
    /// From this sender only.
    pub sender: Option<SenderId>,
    /// To this number only.
    pub receiver: Option<Msisdn>,
    /// What this sender of ours received, when there is no `receiver`.
    pub answered: Option<SenderId>,
    /// Not before.
    pub sent_since: Option<Timestamp>,
    /// Not after.
    pub sent_until: Option<Timestamp>,
    /// From 1; 0 reads the first too.
    pub page: u32,
}

/// One page of the list, newest first.
#[derive(Clone, Debug)]
pub struct Listed {
    /// At most ten.
    pub rows: Vec<Sms>,
    /// Rows on all pages.
    pub total: u64,
    /// From 1.
    pub current_page: u32,
    /// From 1.
    pub last_page: u32,
    /// The gateway's `Date` less the ledger's clock in the middle of the call.
    pub clock_skew: Option<SignedDuration>,
}

/// A call that was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The gateway's words, without the number.
    pub message: String,
    /// The gateway's id of the call.
    pub call_id: String,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("token.generation", &self.token.generation).finish_non_exhaustive()
    }
}

impl fmt::Debug for ListQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListQuery")
            .field("sender", &self.sender)
            .field("sent_since", &self.sent_since)
            .field("sent_until", &self.sent_until)
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A client of the account in `settings`. `who` names this process in the token row, and should differ from every
    /// other's.
    ///
    /// The process must have installed a rustls crypto provider.
    pub fn new(settings: Settings, ledger: Ledger, budget: Budget, who: String) -> Result<Self, CallError> {
        if settings.connect_timeout >= settings.send_timeout {
            return Err(CallError::new(
                CallErrorKind::Unexpected,
                "gateway.connect_timeout must be shorter than gateway.send_timeout",
            ));
        }
        let http = Arc::new(Http::new(&settings, ledger.clone())?);
        let tokens = Tokens::new(settings.clone(), ledger, Arc::clone(&http), budget.clone(), who);
        Ok(Self { http, tokens: Arc::new(tokens), budget, settings, pulse: Pulse::default() })
    }

    /// The same gateway for a loop whose pulse this is: while it waits for an answer or for the budget, it is not stuck.
    pub fn with_pulse(&self, pulse: Pulse) -> Self {
        Self { pulse, ..self.clone() }
    }

    /// The pulse of the loop that calls by this value.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whether calls could be made now: has a token, or gets one, which may cost a token call. Cancel-safe.
    pub async fn check(&self) -> Result<(), CallError> {
        self.tokens.usable().await.map(|_| ())
    }

    /// The budget that its calls are counted in.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The same client over no network.
    #[cfg(feature = "simulated")]
    pub fn simulated(
        wire: Arc<dyn crate::simulated::Wire>,
        settings: Settings,
        ledger: Ledger,
        budget: Budget,
        who: String,
    ) -> Self {
        let http = Arc::new(Http::over(wire, &settings, ledger.clone()));
        let tokens = Tokens::new(settings.clone(), ledger, Arc::clone(&http), budget.clone(), who);
        Self { http, tokens: Arc::new(tokens), budget, settings, pulse: Pulse::default() }
    }

    /// The address that it calls.
    pub fn address(&self) -> &str {
        self.settings.base_url.as_str()
    }

    /// Waits for a usable token and for the call budget, holding no connection. Cancel-safe.
    ///
    /// Errors: `Credentials`, or `Down` with [`CallError::wait`] where that is known.
    pub async fn permit(&self, class: CallClass) -> Result<Permit, CallError> {
        loop {
            // A read that is answered 401 is made again, so for reads the row need not be asked each time.
            let age = match class {
                CallClass::Status | CallClass::Resolve => TOKEN_RECHECK / 2,
                CallClass::Send | CallClass::Auth => Duration::ZERO,
            };
            let (mut token, asked) = self.tokens.usable_within(age).await?;
            let window = self.pulse.while_waiting(self.budget.acquire(class)).await;
            let granted = Instant::now();
            if granted - asked >= TOKEN_RECHECK {
                token = self.tokens.usable().await?;
            }
            // Renewing the token took long in its turn: the window of the grant may be over.
            if granted.elapsed() < TOKEN_RECHECK {
                return Ok(Permit { token, window });
            }
        }
    }

    /// Sends one text to `destinations`: one POST, never repeated. One destination goes by `/sms/send`, whose answer names
    /// its id, more by `/sms/bulk-send`.
    pub async fn send(&self, permit: Permit, sender: &SenderId, text: &str, destinations: &[Msisdn]) -> Sent {
        let source = sender.as_str().to_owned();
        let (call, path, fields) = match destinations {
            [destination] => {
                let request = SendRequest { source, destination: destination.to_string(), text: text.to_owned() };
                (SendCall::Send, "sms/send", request.fields())
            }
            several => {
                let destinations = several.iter().map(Msisdn::to_string).collect();
                let request = BulkSendRequest { source, text: text.to_owned(), destinations };
                (SendCall::Bulk, "sms/bulk-send", request.fields())
            }
        };
        crash::reach("before the request");
        let answer = self.once(&permit, path, &fields).await;
        crash::reach("after the answer");
        let outcome = classify(Asked { call, destinations: destinations.len(), text }, Complete::seen(&answer));
        Sent { outcome, clock_skew: answer.ok().and_then(|complete| complete.clock_skew) }
    }

    /// Reads one page of the list.
    pub async fn list(&self, class: CallClass, query: &ListQuery) -> Result<Listed, CallError> {
        let time =
            |instant: Timestamp| instant.to_zoned(self.settings.filter_zone.clone()).strftime(TIME_FORMAT).to_string();
        let params = ListParams {
            sender: query.sender.as_ref().map(|sender| sender.as_str().to_owned()),
            receiver: query
                .receiver
                .map(|receiver| receiver.to_string())
                .or_else(|| query.answered.as_ref().map(SenderId::to_string)),
            sent_since: query.sent_since.map(time),
            sent_until: query.sent_until.map(time),
            page: Some(query.page.max(1)),
        };
        let complete = self.read(class, "sms/list", &params).await?;
        let page: Page<Sms> = page(&complete, "sms/list")?;
        let count = |value: i64| u32::try_from(value).map_err(|_| unexpected("sms/list", "a page number out of range"));
        Ok(Listed {
            rows: page.data,
            total: u64::try_from(page.total).map_err(|_| unexpected("sms/list", "a negative total"))?,
            current_page: count(page.current_page)?,
            last_page: count(page.last_page)?,
            clock_skew: complete.clock_skew,
        })
    }

    /// Reads one text; `None` when the gateway knows none of that id.
    pub async fn detail(&self, class: CallClass, id: SmsId) -> Result<Option<Sms>, CallError> {
        let complete = self.read(class, &format!("sms/detail/{id}"), &ListParams::default()).await?;
        if complete.status == 404 {
            return Ok(None);
        }
        let envelope: Envelope<Sms> = parsed(&complete, "sms/detail")?;
        if envelope.status != SUCCESS {
            return Err(unexpected("sms/detail", "a status that is not success"));
        }
        Ok(Some(envelope.data))
    }

    /// Reads all sender ids of the account.
    pub async fn senders(&self) -> Result<Vec<SenderIdRow>, CallError> {
        let mut rows = Vec::new();
        for number in 1..=SENDER_PAGES_MAX {
            let params = ListParams { page: Some(number), ..ListParams::default() };
            let complete = self.read(CallClass::Send, "sender-id/list", &params).await?;
            let page: Page<SenderIdRow> = page(&complete, "sender-id/list")?;
            rows.extend(page.data);
            if i64::from(number) >= page.last_page {
                break;
            }
        }
        Ok(rows)
    }

    /// Asks for a new sender id, once; answers the gateway's words.
    pub async fn add_sender(&self, sender: &SenderId) -> Result<String, CallError> {
        let request = AddSenderRequest { sender_id: sender.as_str().to_owned() };
        let answer: AddSenderAnswer = self.act("sender-id/add", &request.fields()).await?;
        succeeded(&answer.status, "sender-id/add")?;
        Ok(fit_to_keep(&answer.message, ""))
    }

    /// Dials a number, once.
    pub async fn dial(&self, destination: &Msisdn) -> Result<Dialled, CallError> {
        let request = DialRequest { destination: destination.to_string() };
        self.dialled("click-to-dial/dial", &request.fields()).await
    }

    /// Dials a number, once, showing `source`.
    pub async fn dial_masked(&self, source: &Msisdn, destination: &Msisdn) -> Result<Dialled, CallError> {
        let request = DialMaskedRequest { destination: destination.to_string(), source: source.to_string() };
        self.dialled("click-to-dial-mask/dial", &request.fields()).await
    }

    async fn dialled(&self, path: &str, fields: &Fields) -> Result<Dialled, CallError> {
        let answer: DialAnswer = self.act(path, fields).await?;
        succeeded(&answer.status, path)?;
        Ok(Dialled { message: fit_to_keep(&answer.message, ""), call_id: answer.call_id })
    }

    /// One POST over a connection of its own.
    async fn once(&self, permit: &Permit, path: &str, fields: &Fields) -> Result<Complete, Missing> {
        let call = Call::Once { path, fields };
        let exchange = self.http.exchange(call, Some(&permit.token.access), self.settings.send_timeout);
        let answer = self.pulse.while_waiting(exchange).await;
        self.heed(permit, &answer).await;
        answer
    }

    /// What every answer tells, whatever was asked for.
    async fn heed(&self, permit: &Permit, answer: &Result<Complete, Missing>) {
        if answer.as_ref().is_ok_and(|complete| complete.status == 401) {
            self.tokens.refuse(permit.token.generation);
        }
        hear(&self.budget, permit.window, answer).await;
    }

    /// A POST that has an effect: made once, and what can't be known is said.
    async fn act<T: DeserializeOwned>(&self, path: &str, fields: &Fields) -> Result<T, CallError> {
        let permit = self.permit(CallClass::Send).await?;
        let complete = match self.once(&permit, path, fields).await {
            Ok(complete) if complete.status >= 500 => {
                let seen = format!("status {}: whether it was done is not known", complete.status);
                return Err(unexpected(path, &seen));
            }
            Ok(complete) => complete,
            Err(Missing::NoConnection) => return Err(unreachable(path, Missing::NoConnection)),
            Err(missing @ (Missing::TimedOut | Missing::Broken)) => {
                return Err(unexpected(path, &format!("{}: whether it was done is not known", missing.words())));
            }
        };
        parsed(&complete, path)
    }

    /// A GET, repeated while the gateway can't be reached.
    async fn read(&self, class: CallClass, path: &str, params: &ListParams) -> Result<Complete, CallError> {
        let mut patience = Patience::lasting(self.settings.repeat_for);
        let mut refusals = 0;
        let query = query(params);
        loop {
            let permit = self.permit(class).await?;
            let call = Call::Repeatable { path, query: &query };
            let exchange = self.http.exchange(call, Some(&permit.token.access), self.settings.read_timeout);
            let answer = self.pulse.while_waiting(exchange).await;
            self.heed(&permit, &answer).await;
            let failed = match answer {
                Ok(complete) => match complete.status {
                    // The next permit renews the token or waits until Retry-After.
                    401 | 429 if refusals < REFUSALS_MAX => {
                        refusals += 1;
                        continue;
                    }
                    401 => return Err(CallError::down(format!("{path}: the gateway refuses every new token"))),
                    429 => {
                        let error =
                            CallError::new(CallErrorKind::Throttled, format!("{path}: the gateway answers 429"));
                        return Err(complete.retry_after.into_iter().fold(error, CallError::retry_after));
                    }
                    status @ 500..=599 => CallError::down(format!("{path}: the gateway answers {status}")),
                    _ => return Ok(complete),
                },
                Err(missing) => unreachable(path, missing),
            };
            if !patience.pause().await {
                return Err(failed);
            }
        }
    }
}

fn query(params: &ListParams) -> Vec<(&'static str, String)> {
    let ListParams { sender, receiver, sent_since, sent_until, page } = params.clone();
    [
        ("sender", sender),
        ("receiver", receiver),
        ("sent_since", sent_since),
        ("sent_until", sent_until),
        ("page", page.map(|page| page.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn page<T: DeserializeOwned>(complete: &Complete, call: &str) -> Result<Page<T>, CallError> {
    let envelope: Envelope<Page<T>> = parsed(complete, call)?;
    succeeded(&envelope.status, call)?;
    Ok(envelope.data)
}

fn succeeded(status: &str, call: &str) -> Result<(), CallError> {
    if status == SUCCESS { Ok(()) } else { Err(unexpected(call, "a status that is not success")) }
}

/// The answer's JSON, or what a person should know about the answer.
fn parsed<T: DeserializeOwned>(complete: &Complete, call: &str) -> Result<T, CallError> {
    if complete.is_success() {
        return serde_json::from_slice(&complete.body).map_err(|_| unexpected(call, "an answer of another shape"));
    }
    let said: Option<RefusalAnswer> = serde_json::from_slice(&complete.body).ok();
    let said = said.map(|said| fit_to_keep(&said.message, "")).filter(|said| !said.is_empty());
    let seen = match said {
        Some(said) => format!("status {}: {said}", complete.status),
        None => format!("status {}", complete.status),
    };
    let kind = match complete.status {
        401 => CallErrorKind::Down,
        429 => CallErrorKind::Throttled,
        _ => CallErrorKind::Unexpected,
    };
    let error = CallError::new(kind, format!("{call}: {seen}"));
    Err(complete.retry_after.into_iter().fold(error, CallError::retry_after))
}

fn unexpected(call: &str, what: &str) -> CallError {
    CallError::new(CallErrorKind::Unexpected, format!("{call}: {what}"))
}

fn unreachable(call: &str, missing: Missing) -> CallError {
    CallError::down(format!("{call}: {}", missing.words()))
}
