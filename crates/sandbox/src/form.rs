//! What a call brings: its form, query, path and bearer token.

use crate::operation::Operation;
use axum::extract::{FromRequest, Multipart, Query, Request};
use axum::http::header;

/// Largest body that is read (PHP's `post_max_size`).
pub(crate) const BODY_MAX: usize = 8 << 20;

/// One call, read.
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) bearer: Option<String>,
    /// Its token was good when it arrived: a token that is revoked later stops no call under way.
    pub(crate) authorized: bool,
    pub(crate) query: Vec<(String, String)>,
    /// The path's last part: the id of a detail call.
    pub(crate) id: String,
    form: Vec<(String, String)>,
}

/// Why a call could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    TooLarge,
    /// The client went away or sent half a form.
    Broken,
}

impl Call {
    /// Reads a request. A body that is not `multipart/form-data` counts as an empty form: the fields are then missed one by one.
    pub(crate) async fn read(operation: Operation, request: Request) -> Result<Self, Unreadable> {
        let bearer = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::to_owned);
        let id = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let query = Query::try_from_uri(request.uri()).map(|Query(query)| query).unwrap_or_default();
        let form = match Multipart::from_request(request, &()).await {
            Ok(multipart) => read_form(multipart).await?,
            Err(_not_multipart) => Vec::new(),
        };
        Ok(Self { operation, bearer, authorized: false, query, id, form })
    }

    /// A field's value; empty counts as absent, as behind Laravel's middleware.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.form
            .iter()
            .rev()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Every value of a repeated field, in order.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        self.form.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    }

    /// A query parameter's value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .rev()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }
}

async fn read_form(mut multipart: Multipart) -> Result<Vec<(String, String)>, Unreadable> {
    let unreadable = |error: axum::extract::multipart::MultipartError| match error.status().as_u16() {
        413 => Unreadable::TooLarge,
        _ => Unreadable::Broken,
    };
    let mut form = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(unreadable)? {
        let name = field.name().unwrap_or_default().to_owned();
        form.push((name, field.text().await.map_err(unreadable)?));
    }
    Ok(form)
}
