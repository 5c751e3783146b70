//! Answers in the gateway's shapes: recorded JSON, Laravel's errors, Apache's pages.

use crate::limit::Admission;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures::StreamExt;
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// An answer before it meets the wire.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    body: Text,
    location: Option<String>,
    retry_after_s: Option<i64>,
    pub(crate) cut: bool,
}

#[derive(Clone, Debug)]
enum Text {
    Json(Value),
    Html(String),
}

impl Reply {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, body: Text::Json(body), location: None, retry_after_s: None, cut: false }
    }

    pub(crate) fn ok(body: Value) -> Self {
        Self::json(200, body)
    }

    pub(crate) fn html(status: u16) -> Self {
        let reason = reason(status);
        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{reason}</title></head>\n\
             <body><div class=\"code\">{status}</div><div class=\"message\">{reason}</div></body>\n</html>\n"
        );
        Self { status, body: Text::Html(page), location: None, retry_after_s: None, cut: false }
    }

    pub(crate) fn redirect(to: String) -> Self {
        Self { location: Some(to), ..Self::html(302) }
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::json(401, json!({"message": "Unauthenticated."}))
    }

    pub(crate) fn throttled(retry_after_s: i64) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::json(429, json!({"message": "Too Many Attempts."})) }
    }

    /// OAuth's error shape, as Passport writes it.
    pub(crate) fn oauth(status: u16, error: &str, description: &str, hint: Option<&str>) -> Self {
        let mut body = json!({"error": error, "error_description": description, "message": description});
        if let Some(hint) = hint {
            body["hint"] = hint.into();
        }
        Self::json(status, body)
    }

    /// The same answer, broken off in the middle of its body.
    pub(crate) fn cut_short(self) -> Self {
        Self { cut: true, ..self }
    }

    /// Laravel's 422 from the fields that are wrong and why.
    pub(crate) fn invalid(errors: Vec<(String, String)>) -> Self {
        let first = errors.first().map_or("The given data was invalid.", |(_, message)| message.as_str());
        let message = match errors.len().saturating_sub(1) {
            0 => first.to_owned(),
            1 => format!("{first} (and 1 more error)"),
            more => format!("{first} (and {more} more errors)"),
        };
        let mut fields = Map::new();
        for (field, message) in errors {
            fields.insert(field, json!([message]));
        }
        Self::json(422, json!({"message": message, "errors": fields}))
    }

    /// A status that a fault asks for.
    pub(crate) fn scripted(status: u16, field: Option<&str>) -> Self {
        match status {
            200..=399 | 500.. => Self::html(status),
            401 => Self::unauthenticated(),
            422 => {
                let field = field.unwrap_or("source");
                Self::invalid(vec![(field.to_owned(), format!("The selected {field} is invalid."))])
            }
            429 => Self::throttled(1),
            _ => Self::json(status, json!({"message": reason(status)})),
        }
    }

    /// The answer with the headers that each of the gateway's answers has.
    pub(crate) fn into_response(self, written_now_ms: i64, limit: u32, admission: Admission) -> Response<Body> {
        let (content_type, bytes) = match self.body {
            Text::Json(value) => ("application/json", Bytes::from(value.to_string())),
            Text::Html(page) => ("text/html; charset=UTF-8", Bytes::from(page)),
        };
        let mut response = Response::new(if self.cut { cut_body(&bytes) } else { chunked(bytes) });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::SERVER, HeaderValue::from_static("Apache/2.4.62 (CentOS Stream) OpenSSL/3.2.2"));
        headers.insert("x-powered-by", HeaderValue::from_static("PHP/8.2.29"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin,Authorization"));
        let date = UNIX_EPOCH + Duration::from_millis(written_now_ms.try_into().unwrap_or(0));
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(date)) {
            headers.insert(header::DATE, date);
        }
        if let Some(to) = self.location.and_then(|to| HeaderValue::from_str(&to).ok()) {
            headers.insert(header::LOCATION, to);
        }
        let remaining = match admission {
            Admission::Admitted { remaining } => remaining,
            Admission::Throttled { .. } => 0,
        };
        headers.insert("x-ratelimit-limit", limit.into());
        headers.insert("x-ratelimit-remaining", remaining.into());
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
            headers.insert("x-ratelimit-reset", (written_now_ms.div_euclid(1000) + seconds).into());
        }
        response
    }
}

/// PHP's answers have no length: they come in chunks.
fn chunked(bytes: Bytes) -> Body {
    Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]))
}

/// Half of the body, and then a broken connection.
fn cut_body(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let broken = futures::stream::once(async {
        // The first half has to be on its way before the connection breaks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    Body::from_stream(futures::stream::iter([Ok(half)]).chain(broken))
}

fn reason(status: u16) -> &'static str {
    match status {
        500 => "Server Error",
        _ => StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error"),
    }
}
