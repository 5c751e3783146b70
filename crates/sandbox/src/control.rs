//! `/sandbox/…`: how a test scripts the sandbox and reads its book. The crate's doc lists the calls.

use crate::Shared;
use crate::book::{Book, CallRecord, Twice};
use crate::clock::{read, written};
use crate::fault::{Loaded, Rule};
use crate::operation::Operation;
use crate::rows::{NewRow, Origin};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Control = State<Arc<Shared>>;
type Refusal = (StatusCode, Json<Value>);

/// The control calls under `/sandbox`.
pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/sandbox/book", get(book))
        .route("/sandbox/twice", get(twice))
        .route("/sandbox/calls", get(calls))
        .route("/sandbox/faults", get(faults).put(replace_faults).post(add_fault).delete(remove_faults))
        .route("/sandbox/reset", post(reset))
        .route("/sandbox/clock", post(clock))
        .route("/sandbox/config", get(config).patch(change_config))
        .route("/sandbox/senders", post(set_sender))
        .route("/sandbox/tokens", post(spoil_tokens))
        .route("/sandbox/rows", post(add_row))
        .route("/sandbox/inbound", get(inbound).post(add_inbound))
        .route("/sandbox/rows/{sms_id}", delete(delete_row))
        .with_state(shared)
}

fn refuse(status: StatusCode, message: impl ToString) -> Refusal {
    (status, Json(json!({"message": message.to_string()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookQuery {
    full: Option<u8>,
}

async fn book(State(shared): Control, Query(query): Query<BookQuery>) -> Json<Book> {
    let state = shared.state();
    let texts = query.full.is_some_and(|full| full != 0).then(|| state.texts());
    Json(Book { texts, ..state.summary() })
}

async fn twice(State(shared): Control) -> Json<Vec<Twice>> {
    Json(shared.state().twice())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsQuery {
    operation: Option<Operation>,
}

async fn calls(State(shared): Control, Query(query): Query<CallsQuery>) -> Json<Vec<CallRecord>> {
    let state = shared.state();
    let wanted = |call: &&CallRecord| query.operation.is_none_or(|operation| call.operation == operation);
    Json(state.calls().iter().filter(wanted).cloned().collect())
}

async fn faults(State(shared): Control) -> Json<Vec<Loaded>> {
    Json(shared.state().script.rules().to_vec())
}

async fn replace_faults(State(shared): Control, Json(rules): Json<Vec<Rule>>) -> StatusCode {
    shared.state().script(rules);
    StatusCode::NO_CONTENT
}

async fn add_fault(State(shared): Control, Json(rule): Json<Rule>) -> StatusCode {
    shared.state().script.add(rule);
    StatusCode::NO_CONTENT
}

async fn remove_faults(State(shared): Control) -> StatusCode {
    shared.state().script.clear();
    StatusCode::NO_CONTENT
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reset {
    forget_tokens: bool,
}

async fn reset(State(shared): Control, body: Option<Json<Reset>>) -> StatusCode {
    let Json(reset) = body.unwrap_or_default();
    shared.state().reset(reset.forget_tokens);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skew {
    skew_ms: i64,
}

async fn clock(State(shared): Control, Json(skew): Json<Skew>) -> StatusCode {
    shared.state().config.clock_skew_ms = skew.skew_ms;
    StatusCode::NO_CONTENT
}

async fn config(State(shared): Control) -> Result<Json<Value>, Refusal> {
    let config = serde_json::to_value(&shared.state().config);
    config.map(Json).map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error))
}

async fn change_config(State(shared): Control, Json(changes): Json<Value>) -> Result<StatusCode, Refusal> {
    const AT_START_ONLY: [&str; 5] = ["senders", "unapproved_senders", "faults", "seed", "book_file"];
    let unprocessable = |error: serde_json::Error| refuse(StatusCode::UNPROCESSABLE_ENTITY, error);
    let mut state = shared.state();
    let mut merged = serde_json::to_value(&state.config).map_err(unprocessable)?;
    for (key, value) in changes.as_object().into_iter().flatten() {
        if AT_START_ONLY.contains(&key.as_str()) {
            return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("{key} is read at the start only")));
        }
        merged[key] = value.clone();
    }
    state.config = serde_json::from_value(merged).map_err(unprocessable)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetSender {
    sender_id: String,
    approved: bool,
}

async fn set_sender(State(shared): Control, Json(set): Json<SetSender>) -> StatusCode {
    let mut state = shared.state();
    let now_s = state.written_now().div_euclid(1000);
    match state.senders.iter_mut().find(|sender| sender.sender_id == set.sender_id) {
        Some(sender) => {
            sender.approved = set.approved;
            sender.updated_s = Some(now_s);
        }
        None => state.add_sender(set.sender_id, set.approved),
    }
    StatusCode::NO_CONTENT
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Spoil {
    revoke_access: bool,
    burn_refresh: bool,
}

async fn spoil_tokens(State(shared): Control, Json(spoil): Json<Spoil>) -> StatusCode {
    let mut state = shared.state();
    if spoil.revoke_access {
        state.tokens.revoke(None);
    }
    if spoil.burn_refresh {
        state.tokens.burn_refresh();
    }
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddRow {
    source: String,
    destination: String,
    text: String,
    #[serde(rename = "type")]
    kind: String,
    /// `YYYY-MM-DD HH:MM:SS`; now when absent.
    time: Option<String>,
}

async fn add_row(State(shared): Control, Json(add): Json<AddRow>) -> Result<Json<Value>, Refusal> {
    let origin = match add.kind.as_str() {
        "1" => Origin::Foreign,
        "2" => Origin::Inbound,
        _ => return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "type is \"1\" or \"2\"")),
    };
    let mut state = shared.state();
    let (now, written_now_s) = (state.now(), state.written_now().div_euclid(1000));
    let time_s = match &add.time {
        None => written_now_s,
        Some(time) => read(time).ok_or_else(|| refuse(StatusCode::UNPROCESSABLE_ENTITY, "time is no time"))?,
    };
    let new = NewRow {
        source: &add.source,
        destination: &add.destination,
        text: &add.text,
        origin,
        time_s,
        visible_from: now,
        final_from: now,
        fails: false,
        listed: true,
    };
    let sms_id = state.rows.add(new, 1, now).sms_id;
    Ok(Json(json!({"sms_id": sms_id})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddInbound {
    from: String,
    to: String,
    text: String,
    /// `YYYY-MM-DD HH:MM:SS`; now when absent.
    time: Option<String>,
}

async fn add_inbound(control: Control, Json(add): Json<AddInbound>) -> Result<Json<Value>, Refusal> {
    let AddInbound { from, to, text, time } = add;
    add_row(control, Json(AddRow { source: from, destination: to, text, kind: "2".to_owned(), time })).await
}

async fn inbound(State(shared): Control) -> Json<Value> {
    let state = shared.state();
    let texts = state.rows.iter().filter(|row| row.origin == Origin::Inbound).map(|row| {
        let (from, to) = (state.rows.source(row), row.destination.to_string());
        json!({"sms_id": row.sms_id, "from": from, "to": to, "text": state.rows.text(row), "time": written(row.time_s)})
    });
    Json(texts.collect())
}

async fn delete_row(State(shared): Control, Path(sms_id): Path<u64>) -> StatusCode {
    if shared.state().rows.delete(sms_id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
