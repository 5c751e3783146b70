//! A usable access token for every call, from one row that all processes share.
//!
//! The decision is [`campaign::token::decide`]; here it is carried out: claim the row, present once, commit, use. Whatever
//! is presented runs in a task of its own, so that a caller that goes away can't leave a spent refresh token behind.

use crate::{
    Budget, CallClass, CallError, CallErrorKind, Settings,
    budget::Heard,
    http::{Call, Complete, Http, Missing},
    patience::Patience,
    seal::{Pair, Sealer},
    wire::{RefusalAnswer, TokenAnswer, TokenRequest},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use campaign::{
    outcome::fit_to_keep,
    token::{
        Credentials, PairTimes, TokenCall, TokenDecision, TokenPhase, TokenPolicy, TokenView, decide, life, phase_after,
    },
};
use jiff::{SignedDuration, Timestamp};
#[cfg(feature = "simulated")]
use ledger::simulated::spawn;
use ledger::{Ledger, TokenClaim, TokenRow, TokenTrouble, TokenTroubleKind};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
#[cfg(not(feature = "simulated"))]
use tokio::spawn;
use tokio::{sync::watch, time::Instant};

/// How often the row is read while another process is at it: ever more rarely, since one that ended in the middle of it is
/// waited for much longer than one that lives.
const POLL: Duration = Duration::from_millis(75);
const POLL_MAX: Duration = Duration::from_secs(1);

/// How long the end of a claim is tried to be written while the ledger is down.
const WRITE_FOR: Duration = Duration::from_secs(600);

const LIFE_MAX: SignedDuration = SignedDuration::from_hours(24 * 366);

/// An access token, and which pair it belongs to.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) generation: i64,
    pub(crate) access: SecretString,
}

/// The token row, as this process handles it.
pub(crate) struct Tokens {
    ledger: Ledger,
    http: Arc<Http>,
    budget: Budget,
    settings: Settings,
    who: String,
    sealer: Sealer,
    fingerprint: Vec<u8>,
    /// The row has had this process's credentials before.
    met: AtomicBool,
    /// Generation of the newest pair that was answered 401.
    refused: AtomicI64,
    /// One task of this process at a time renews; the end of the last failed try answers those that waited for it.
    turn: tokio::sync::Mutex<()>,
    failed: Mutex<Option<(Instant, CallError)>>,
    /// The token that was read last, and when.
    recent: Mutex<Option<(Instant, Token)>>,
}

/// What to present, once the row is claimed.
struct Presented {
    phase: TokenPhase,
    refresh_token: Option<String>,
    discard_pair: bool,
    breaker_counts: bool,
}

enum Answered {
    Pair(Box<TokenAnswer>),
    NotDone { why: String, wait: Option<Duration> },
    Refused { status: u16, why: String },
    Lost { why: String },
}

/// Renewals that this process has under way.
static RENEWALS: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        RENEWALS.send_modify(|renewals| *renewals += 1);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        RENEWALS.send_modify(|renewals| *renewals -= 1);
    }
}

/// Waits until no renewal of a token is under way in this process. A process that ends in the middle of one, however well it
/// ends, leaves a spent refresh token behind.
pub async fn renewals_are_over() {
    // It is a static: nobody drops the sender.
    let _ = RENEWALS.subscribe().wait_for(|renewals| *renewals == 0).await;
}

impl Tokens {
    pub(crate) fn new(settings: Settings, ledger: Ledger, http: Arc<Http>, budget: Budget, who: String) -> Self {
        let sealer = Sealer::new(&settings.client_secret);
        let fingerprint = sealer.fingerprint(&settings.client_id, &settings.username, &settings.password);
        Self {
            ledger,
            http,
            budget,
            settings,
            who,
            sealer,
            fingerprint,
            met: AtomicBool::new(false),
            refused: AtomicI64::new(-1),
            turn: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// The pair of this generation was answered 401: it must not be used again.
    pub(crate) fn refuse(&self, generation: i64) {
        // Not the highest: a ledger that was restored counts from an earlier one again. A late 401 of an older pair costs
        // one call that is refused.
        self.refused.store(generation, Ordering::Relaxed);
    }

    /// A usable token that was read at most `age` ago, and when it was read. Cancel-safe.
    pub(crate) async fn usable_within(self: &Arc<Self>, age: Duration) -> Result<(Token, Instant), CallError> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, token)) = recent
            && at.elapsed() < age
            && token.generation != self.refused.load(Ordering::Relaxed)
        {
            return Ok((token, at));
        }
        let token = self.usable().await?;
        let read = (Instant::now(), token.clone());
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok((token, Instant::now()))
    }

    /// Waits for a usable token. Cancel-safe.
    pub(crate) async fn usable(self: &Arc<Self>) -> Result<Token, CallError> {
        let mut poll = POLL;
        loop {
            let row = self.ledger.token().await?;
            let pair = self.open(&row);
            let view = self.view(&row, pair.is_some());
            match decide(self.policy(), view, row.read_at) {
                TokenDecision::Use => {
                    if let Some(token) = token(&row, pair) {
                        return Ok(token);
                    }
                }
                TokenDecision::Wait => {
                    tokio::time::sleep(poll).await;
                    poll = (poll * 3 / 2).min(POLL_MAX);
                }
                TokenDecision::Pause { until } => return Err(paused(&row, until)),
                TokenDecision::Outdated => {
                    return Err(CallError::new(
                        CallErrorKind::Credentials,
                        "other credentials are in use since this process began; start it again with these",
                    ));
                }
                decision @ (TokenDecision::Refresh | TokenDecision::Retry | TokenDecision::Grant) => {
                    let good = view.pair.is_some_and(|pair| !view.refused && row.read_at < pair.expires_at);
                    let this = Arc::clone(self);
                    let renewed = spawn(async move { this.renew(decision).await }).await;
                    match (renewed, token(&row, pair)) {
                        (Ok(Ok(())), _) => {}
                        // An early refresh that failed: the token at hand still serves.
                        (Ok(Err(_)), Some(token)) if good => return Ok(token),
                        (Ok(Err(error)), _) => return Err(error),
                        (Err(_), _) => return Err(CallError::down("renewing the token was broken off")),
                    }
                }
            }
        }
    }

    fn policy(&self) -> TokenPolicy {
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(LIFE_MAX);
        TokenPolicy {
            claim_stale: signed(self.settings.refresh_stale),
            password_grant_every: signed(self.settings.password_grant_every),
        }
    }

    fn open(&self, row: &TokenRow) -> Option<Pair> {
        self.sealer.open(row.generation, row.sealed.as_deref()?)
    }

    fn view(&self, row: &TokenRow, opened: bool) -> TokenView {
        let credentials = match &row.credentials {
            None => Credentials::Ours,
            Some(stored) if *stored == self.fingerprint => {
                self.met.store(true, Ordering::Relaxed);
                Credentials::Ours
            }
            // A process imposes its credentials once: two that disagree must not take turns for ever.
            Some(_) if self.met.load(Ordering::Relaxed) => Credentials::Newer,
            Some(_) => Credentials::Older,
        };
        let times = row.issued_at.zip(row.expires_at);
        TokenView {
            phase: row.phase,
            phase_at: row.phase_at,
            pair: times.filter(|_| opened).map(|(issued_at, expires_at)| PairTimes { issued_at, expires_at }),
            refused: row.generation == self.refused.load(Ordering::Relaxed),
            password_granted_at: row.password_granted_at,
            credentials,
        }
    }

    /// Carries out a decision, if it still stands once it is this task's turn.
    async fn renew(&self, decided: TokenDecision) -> Result<(), CallError> {
        let asked = Instant::now();
        let _under_way = UnderWay::begin();
        let _turn = self.turn.lock().await;
        if let Some((at, error)) = &*self.failed.lock().unwrap_or_else(PoisonError::into_inner)
            && *at >= asked
        {
            return Err(error.clone());
        }
        let renewed = self.renew_in_turn(decided).await;
        if let Err(error) = &renewed {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
        }
        renewed
    }

    async fn renew_in_turn(&self, decided: TokenDecision) -> Result<(), CallError> {
        let row = self.ledger.token().await?;
        let pair = self.open(&row);
        let view = self.view(&row, pair.is_some());
        if decide(self.policy(), view, row.read_at) != decided {
            return Ok(());
        }
        let window = self.budget.acquire(CallClass::Auth).await;
        let presented = match decided {
            TokenDecision::Refresh | TokenDecision::Retry => Presented {
                phase: if decided == TokenDecision::Retry { TokenPhase::Retrying } else { TokenPhase::Refreshing },
                refresh_token: pair.map(|pair| pair.refresh_token),
                discard_pair: false,
                breaker_counts: true,
            },
            TokenDecision::Grant => Presented {
                phase: TokenPhase::Granting,
                refresh_token: None,
                discard_pair: pair.is_none() || view.credentials != Credentials::Ours,
                breaker_counts: view.credentials == Credentials::Ours,
            },
            TokenDecision::Use | TokenDecision::Wait | TokenDecision::Pause { .. } | TokenDecision::Outdated => {
                return Ok(());
            }
        };
        let claim = TokenClaim {
            phase: presented.phase,
            by: &self.who,
            credentials: &self.fingerprint,
            discard_pair: presented.discard_pair,
        };
        let before_claim = Instant::now();
        // Guarded by the very row that the decision was made on: of any number of processes one comes through.
        let Some(claimed) = self.ledger.claim_token(&row, claim).await? else { return Ok(()) };
        // A process that froze here may be taken for dead and replaced: it must not present what another presents.
        let safe = self.settings.refresh_stale / 4;
        let answered = self.present(presented.refresh_token, window, before_claim, safe).await;
        self.conclude(&row, &claimed, answered, before_claim, presented.breaker_counts).await
    }

    async fn present(&self, refresh_token: Option<String>, window: i64, since: Instant, safe: Duration) -> Answered {
        let client_id = self.settings.client_id.clone();
        let client_secret = self.settings.client_secret.expose_secret().to_owned();
        let repeatable = refresh_token.is_none();
        let request = match refresh_token {
            Some(refresh_token) => TokenRequest::Refresh { refresh_token, client_id, client_secret },
            None => TokenRequest::Password {
                client_id,
                client_secret,
                username: self.settings.username.clone(),
                password: self.settings.password.expose_secret().to_owned(),
            },
        };
        let fields = request.fields();
        let mut patience = Patience::lasting(safe / 2);
        loop {
            if since.elapsed() >= safe {
                return Answered::NotDone { why: Missing::NoConnection.words().to_owned(), wait: None };
            }
            let call = Call::Once { path: "oauth/token", fields: &fields };
            crash::reach("before the token request");
            let answer = self.http.exchange(call, None, self.settings.token_timeout()).await;
            crash::reach("after the token answer");
            hear(&self.budget, window, &answer).await;
            match token_answer(answer) {
                Answered::NotDone { wait: None, .. } if repeatable && patience.pause().await => {}
                answered => return answered,
            }
        }
    }

    /// Writes how the claim ended.
    async fn conclude(
        &self,
        before: &TokenRow,
        claimed: &TokenRow,
        answered: Answered,
        since: Instant,
        breaker_counts: bool,
    ) -> Result<(), CallError> {
        let granting = claimed.phase == TokenPhase::Granting;
        let (call, trouble, error) = match answered {
            Answered::Pair(answer) => return self.keep(claimed, *answer, since).await,
            Answered::NotDone { why, wait } => {
                let error = CallError::down(format!("the gateway can't be asked for a token: {why}"));
                (TokenCall::NotDone, None, Some(wait.into_iter().fold(error, CallError::retry_after)))
            }
            Answered::Refused { status, why } if granting => {
                let message = format!(
                    "the gateway refused the credentials (status {status}: {why}); correct gateway.client_id, \
                     client_secret, username or password"
                );
                let trouble = TokenTrouble { kind: TokenTroubleKind::Refused, message: message.clone() };
                (TokenCall::Refused, Some(trouble), Some(CallError::new(CallErrorKind::Credentials, message)))
            }
            // The password is next.
            Answered::Refused { .. } => (TokenCall::Refused, None, None),
            Answered::Lost { why } => {
                let call = if granting { "a password grant" } else { "a token refresh" };
                let message = format!("the gateway's answer to {call} was lost: {why}");
                let trouble = TokenTrouble { kind: TokenTroubleKind::Unanswered, message: message.clone() };
                (TokenCall::Lost, Some(trouble), granting.then(|| CallError::down(message)))
            }
        };
        let phase = phase_after(claimed.phase, before.phase, call);
        // A password that never left does not count; one that another's credentials spent does not either.
        let granted_at = match call {
            TokenCall::NotDone if granting => before.password_granted_at.filter(|_| breaker_counts),
            TokenCall::NotDone | TokenCall::Granted | TokenCall::Refused | TokenCall::Lost => {
                claimed.password_granted_at
            }
        };
        // Whoever asked for the token says what is wrong, once.
        tracing::debug!(phase = phase.name(), ?call, "no new gateway token");
        let mut patience = Patience::lasting(WRITE_FOR);
        while let Err(failed) = self.ledger.release_token(claimed, phase, granted_at, trouble.as_ref()).await {
            if !patience.pause().await {
                return Err(failed.into());
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Commits a new pair; only then may it be used.
    async fn keep(&self, claimed: &TokenRow, answer: TokenAnswer, since: Instant) -> Result<(), CallError> {
        let by_jwt = jwt_life(&answer.access_token, claimed.read_at);
        let life = life(SignedDuration::from_secs(answer.expires_in.clamp(0, LIFE_MAX.as_secs())), by_jwt);
        #[cfg(feature = "simulated")]
        let pair_token = answer.access_token.clone();
        let pair = Pair { access_token: answer.access_token, refresh_token: answer.refresh_token };
        let generation = claimed.generation + 1;
        let Some(sealed) = self.sealer.seal(generation, &pair) else {
            return Err(CallError::new(CallErrorKind::Unexpected, "the system has no randomness to seal the token"));
        };
        #[cfg(feature = "simulated")]
        if campaign::mutant::Mutant::TokenWrittenAfterUse.is_on() {
            let token: SecretString = pair_token.into();
            let call = Call::Repeatable { path: "sms/list", query: &[] };
            let _ = self.http.exchange(call, Some(&token), self.settings.read_timeout).await;
        }
        let mut patience = Patience::lasting(WRITE_FOR);
        loop {
            let left = life - SignedDuration::try_from(since.elapsed()).unwrap_or_default();
            match self.ledger.commit_token(claimed, &sealed, left.max(SignedDuration::ZERO)).await {
                Ok(true) => {
                    tracing::info!(token.generation = generation, life_secs = life.as_secs(), "new gateway token");
                    return Ok(());
                }
                // Lost to a process that took this one for dead, or committed by a try whose answer was lost: the row
                // says which, and the caller reads it next.
                Ok(false) => return Ok(()),
                Err(error) => {
                    if !patience.pause().await {
                        return Err(error.into());
                    }
                }
            }
        }
    }
}

/// Tells the budget that a call is over, and what its answer says about the limit.
pub(crate) async fn hear(budget: &Budget, window: i64, answer: &Result<Complete, Missing>) {
    let heard = match answer {
        Ok(complete) => Heard {
            window,
            limit: complete.limit,
            remaining: complete.remaining,
            stop: (complete.status == 429).then(|| complete.retry_after.unwrap_or_else(|| budget.window())),
        },
        Err(_) => Heard { window, limit: None, remaining: None, stop: None },
    };
    budget.feedback(heard).await;
}

fn token(row: &TokenRow, pair: Option<Pair>) -> Option<Token> {
    pair.map(|pair| Token { generation: row.generation, access: pair.access_token.into() })
}

fn paused(row: &TokenRow, until: Timestamp) -> CallError {
    let wait = Duration::try_from(until.duration_since(row.read_at)).unwrap_or_default();
    let (kind, why) = match &row.trouble {
        Some(TokenTrouble { kind: TokenTroubleKind::Refused, message }) => (CallErrorKind::Credentials, &**message),
        Some(TokenTrouble { kind: TokenTroubleKind::Unanswered, message }) => (CallErrorKind::Down, &**message),
        None => (CallErrorKind::Down, "the gateway refused the refresh token"),
    };
    let until = until.strftime("%H:%M:%S");
    CallError::new(kind, format!("{why}; the next password grant is made after {until} UTC")).retry_after(wait)
}

fn token_answer(answer: Result<Complete, Missing>) -> Answered {
    let complete = match answer {
        Ok(complete) => complete,
        Err(Missing::NoConnection) => {
            return Answered::NotDone { why: Missing::NoConnection.words().to_owned(), wait: None };
        }
        Err(missing @ (Missing::TimedOut | Missing::Broken)) => {
            return Answered::Lost { why: missing.words().to_owned() };
        }
    };
    match complete.status {
        200..=299 => match serde_json::from_slice(&complete.body) {
            Ok(answer) => Answered::Pair(Box::new(answer)),
            Err(_) => Answered::Lost { why: format!("status {} without tokens", complete.status) },
        },
        429 => Answered::NotDone {
            why: "it answers 429 (too many calls)".to_owned(),
            wait: Some(complete.retry_after.unwrap_or(Duration::from_secs(1))),
        },
        status @ (400 | 401 | 403 | 422) => {
            let said: Option<RefusalAnswer> = serde_json::from_slice(&complete.body).ok();
            let why = said.map(|said| fit_to_keep(&said.message, "")).filter(|said| !said.is_empty());
            Answered::Refused { status, why: why.unwrap_or_else(|| "no reason given".to_owned()) }
        }
        status => Answered::Lost { why: format!("status {status}") },
    }
}

/// What a JWT says about its own life: `exp` less `iat`, both by the gateway's clock; less `now` when it has no `iat`.
fn jwt_life(token: &str, now: Timestamp) -> Option<SignedDuration> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
        iat: Option<f64>,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()?;
    let from = claims.iat.unwrap_or_else(|| now.as_duration().as_secs_f64());
    SignedDuration::try_from_secs_f64(claims.exp - from).ok()
}
