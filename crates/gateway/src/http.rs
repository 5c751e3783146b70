//! HTTP under the calls: two clients, and an answer read whole or known to be missing.
//!
//! hyper repeats a request that was not yet started when a reused connection turns out to be closed, and reqwest has no
//! switch for it. Calls that must be made once therefore go over connections that are never reused.

use crate::{CallError, CallErrorKind, Settings, wire::Fields};
use bytes::{Bytes, BytesMut};
use campaign::outcome::Answer;
use jiff::{SignedDuration, Timestamp};
use ledger::Ledger;
use reqwest::{Client, RequestBuilder, Response, header, multipart::Form};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// An answer longer than this is none of the recorded ones.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A gateway that asks to wait longer is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// As many connections as pages of the list are read at a time: with fewer, every other page would open its own.
const IDLE_MAX: usize = 8;

/// Both clients.
pub(crate) struct Http {
    once: Client,
    repeatable: Client,
    base: Url,
    /// Knows the clock that the gateway's is compared with.
    ledger: Ledger,
    #[cfg(feature = "simulated")]
    wire: Option<std::sync::Arc<dyn crate::simulated::Wire>>,
}

/// A complete answer.
pub(crate) struct Complete {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) limit: Option<u32>,
    pub(crate) remaining: Option<u32>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) clock_skew: Option<SignedDuration>,
}

/// Why there is no complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No byte of the request left.
    NoConnection,
    TimedOut,
    Broken,
}

impl Missing {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection could be made",
            Self::TimedOut => "no answer came in time",
            Self::Broken => "the connection broke",
        }
    }
}

/// A call that must be made at most once, or one that may be repeated.
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    /// A POST over a connection of its own.
    Once { path: &'a str, fields: &'a Fields },
    /// A GET over a kept connection.
    Repeatable { path: &'a str, query: &'a [(&'a str, String)] },
}

impl Http {
    pub(crate) fn new(settings: &Settings, ledger: Ledger) -> Result<Self, CallError> {
        let base = settings.base_url.as_str().trim_end_matches('/');
        let base = Url::parse(&format!("{base}/"))
            .map_err(|error| CallError::new(CallErrorKind::Unexpected, format!("gateway.base_url: {error}")))?;
        let client = || {
            Client::builder()
                .http1_only()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(settings.connect_timeout)
                .user_agent(concat!("crier/", env!("CARGO_PKG_VERSION")))
        };
        let built = |client: reqwest::ClientBuilder| {
            client.build().map_err(|error| {
                CallError::new(CallErrorKind::Unexpected, format!("the HTTP client can't be built: {error}"))
            })
        };
        Ok(Self {
            once: built(client().pool_max_idle_per_host(0))?,
            // The gateway closes an idle connection after 5 s.
            repeatable: built(client().pool_max_idle_per_host(IDLE_MAX).pool_idle_timeout(Duration::from_secs(2)))?,
            base,
            ledger,
            #[cfg(feature = "simulated")]
            wire: None,
        })
    }

    /// The same over no network.
    #[cfg(feature = "simulated")]
    pub(crate) fn over(wire: std::sync::Arc<dyn crate::simulated::Wire>, settings: &Settings, ledger: Ledger) -> Self {
        // Never used, and dear to build.
        static UNUSED: std::sync::LazyLock<Client> = std::sync::LazyLock::new(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
            Client::new()
        });
        let (once, repeatable) = (UNUSED.clone(), UNUSED.clone());
        Self { once, repeatable, base: settings.base_url.clone(), ledger, wire: Some(wire) }
    }

    /// Makes one call. `timeout` counts from the connection's first byte to the answer's last.
    pub(crate) async fn exchange(
        &self,
        call: Call<'_>,
        token: Option<&SecretString>,
        timeout: Duration,
    ) -> Result<Complete, Missing> {
        #[cfg(feature = "simulated")]
        if let Some(wire) = &self.wire {
            let began = self.ledger.now();
            return crate::simulated::exchange(&**wire, call, token, timeout, || {
                began + (self.ledger.now().duration_since(began)) / 2
            })
            .await;
        }
        let path = match call {
            Call::Once { path, .. } | Call::Repeatable { path, .. } => path,
        };
        let url = self.base.join(path).map_err(|_| Missing::NoConnection)?;
        let mut request = match call {
            Call::Once { fields, .. } => {
                let boundary = Form::new().boundary().to_owned();
                let kind = format!("multipart/form-data; boundary={boundary}");
                self.once.post(url).header(header::CONTENT_TYPE, kind).body(form_data(fields, &boundary))
            }
            Call::Repeatable { query, .. } => self.repeatable.get(url).query(query),
        };
        request = request.header(header::ACCEPT, "application/json").timeout(timeout);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        let began = Instant::now();
        let answer = self.answer(request).await.map_err(|error| missing(&error));
        telemetry::gateway_called(operation(path), outcome(&answer), began.elapsed());
        answer
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Complete, Fault> {
        let began = (self.ledger.now(), Instant::now());
        let response = request.send().await?;
        let middle = began.0 + SignedDuration::try_from(began.1.elapsed() / 2).unwrap_or_default();
        let date = date(&response, header::DATE);
        let mut complete = Complete {
            status: response.status().as_u16(),
            body: Bytes::new(),
            limit: number(&response, "x-ratelimit-limit"),
            remaining: number(&response, "x-ratelimit-remaining"),
            retry_after: retry_after(&response, date.unwrap_or(middle)),
            clock_skew: date.map(|date| date.duration_since(middle)),
        };
        complete.body = whole(response).await?;
        Ok(complete)
    }
}

impl Complete {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// For [`campaign::outcome::classify`].
    pub(crate) fn seen(answer: &Result<Self, Missing>) -> Answer<'_> {
        match answer {
            Ok(complete) => {
                Answer::Complete { status: complete.status, body: &complete.body, retry_after: complete.retry_after }
            }
            Err(Missing::NoConnection) => Answer::NoConnection,
            Err(Missing::TimedOut) => Answer::TimedOut,
            Err(Missing::Broken) => Answer::Broken,
        }
    }
}

/// Fields as `multipart/form-data` (RFC 7578), in one piece; their names are plain. reqwest's form is a stream that asks all parts
/// before it for each piece of one, which for a hundred recipients costs more than all else of the call.
fn form_data(fields: &Fields, boundary: &str) -> String {
    let mut body = String::with_capacity(fields.len() * 128);
    for (name, value) in fields {
        for piece in ["--", boundary, "\r\nContent-Disposition: form-data; name=\"", name, "\"\r\n\r\n", value, "\r\n"]
        {
            body.push_str(piece);
        }
    }
    for piece in ["--", boundary, "--\r\n"] {
        body.push_str(piece);
    }
    body
}

enum Fault {
    Http(reqwest::Error),
    TooLong,
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

/// What a call asks, in a word.
fn operation(path: &str) -> &'static str {
    match path {
        "oauth/token" => "token",
        "sms/send" => "send",
        "sms/bulk-send" => "bulk_send",
        "sms/list" => "list",
        "sender-id/list" => "senders",
        "sender-id/add" => "add_sender",
        path if path.starts_with("sms/detail/") => "detail",
        _ => "dial",
    }
}

/// How a call ended, in a word. Whether an answer of 2xx has the right shape is judged elsewhere.
fn outcome(answer: &Result<Complete, Missing>) -> &'static str {
    match answer {
        Ok(complete) => match complete.status {
            200..=299 => "ok",
            401 => "unauthorized",
            422 => "refused",
            429 => "throttled",
            400..=499 => "client_error",
            500..=599 => "server_error",
            _ => "unexpected",
        },
        Err(Missing::NoConnection) => "no_connection",
        Err(Missing::TimedOut) => "timed_out",
        Err(Missing::Broken) => "broken",
    }
}

/// A connect error is raised before the request is handed to a connection; a builder error before there is a request. A
/// timeout of the whole call is neither, even if it came while connecting: bytes may have left.
fn missing(fault: &Fault) -> Missing {
    match fault {
        Fault::Http(error) if error.is_connect() || error.is_builder() => Missing::NoConnection,
        Fault::Http(error) if error.is_timeout() => Missing::TimedOut,
        Fault::Http(_) | Fault::TooLong => Missing::Broken,
    }
}

async fn whole(mut response: Response) -> Result<Bytes, Fault> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > BODY_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn header_text<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok().map(str::trim)
}

fn number(response: &Response, name: &str) -> Option<u32> {
    header_text(response, name)?.parse().ok()
}

fn date(response: &Response, name: header::HeaderName) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(header_text(response, name.as_str())?).ok()?).ok()
}

/// Seconds, or a date by the gateway's own clock.
fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let text = header_text(response, header::RETRY_AFTER.as_str())?;
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(after.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::{Fields, Form, form_data};
    use bytes::Bytes;
    use futures::TryStreamExt as _;

    #[tokio::test]
    async fn a_form_is_written_as_reqwest_writes_it() {
        let fields: Fields =
            [("sender", "ACME"), ("destinations[0]", "447700900120"), ("text", "\u{e9} \"--x\" & 100 %\r\n\r\n£5")]
                .map(|(name, value)| (name.into(), value.to_owned()))
                .into();
        let form = fields.iter().fold(Form::new(), |form, (name, value)| form.text(name.clone(), value.clone()));
        let boundary = form.boundary().to_owned();
        let written: Vec<Bytes> = form.into_stream().try_collect().await.unwrap();
        assert_eq!(form_data(&fields, &boundary).as_bytes(), written.concat());
    }
}
