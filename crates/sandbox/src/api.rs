//! The way of one call: the fault that strikes it, its reading, the window, its effect, its answer.

use crate::Shared;
use crate::answer::Reply;
use crate::fault::{Effect, Fault};
use crate::form::{BODY_MAX, Call, Unreadable};
use crate::limit::Admission;
use crate::operation::Operation;
use crate::serve::Connection;
use crate::state::{Twist, millis};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The nine calls under `/api`.
pub(crate) fn routes(shared: &Arc<Shared>) -> Router {
    let on = |method: fn(Arc<Shared>, Operation) -> MethodRouter, operation| method(shared.clone(), operation);
    let unknown = shared.clone();
    Router::new()
        .route("/api/oauth/token", on(posted, Operation::Token))
        .route("/api/sender-id/list", on(got, Operation::Senders))
        .route("/api/sender-id/add", on(posted, Operation::AddSender))
        .route("/api/sms/send", on(posted, Operation::Send))
        .route("/api/sms/bulk-send", on(posted, Operation::BulkSend))
        .route("/api/sms/list", on(got, Operation::List))
        .route("/api/sms/detail/{id}", on(got, Operation::Detail))
        .route("/api/click-to-dial/dial", on(posted, Operation::Dial))
        .route("/api/click-to-dial-mask/dial", on(posted, Operation::DialMasked))
        .fallback(async move || {
            let state = unknown.state();
            let limit = state.config.rate_limit;
            let reply = Reply::json(404, json!({"message": "The route could not be found."}));
            reply.into_response(state.written_now(), limit, Admission::Admitted { remaining: limit })
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

fn posted(shared: Arc<Shared>, operation: Operation) -> MethodRouter {
    post(async move |Extension(connection): Extension<Connection>, request: Request| {
        serve(shared, operation, connection, request).await
    })
}

fn got(shared: Arc<Shared>, operation: Operation) -> MethodRouter {
    get(async move |Extension(connection): Extension<Connection>, request: Request| {
        serve(shared, operation, connection, request).await
    })
}

async fn serve(shared: Arc<Shared>, operation: Operation, connection: Connection, request: Request) -> Response<Body> {
    connection.carries_a_call(&shared);
    // A task of its own: like PHP, the call goes on when its client has gone away.
    let (answer, stop) = (answer(shared.clone(), operation, request), shared.stop.clone());
    let task = shared.tasks.spawn(async move { stop.run_until_cancelled(answer).await.flatten() });
    match task.await {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => connection.cut().await,
    }
}

/// The answer to a call, or none where the connection is to be cut.
async fn answer(shared: Arc<Shared>, operation: Operation, request: Request) -> Option<Response<Body>> {
    let (ticket, fault) = shared.state().arrive(operation);
    if fault == Some(Fault::RefuseConnection) {
        shared.state().answered(ticket, None);
        return None;
    }
    let mut read = Call::read(operation, request).await;
    let admission = {
        let mut state = shared.state();
        let now = state.now();
        match (&fault, &read) {
            (Some(Fault::Throttle { ms, retry_after_s }), _) => {
                state.window.storm(now, millis(*ms), i64::from(*retry_after_s));
            }
            (Some(Fault::RevokeToken), Ok(call)) => {
                state.tokens.revoke(call.bearer.as_deref());
            }
            (Some(Fault::BurnRefresh), _) => state.tokens.burn_refresh(),
            (Some(_) | None, _) => {}
        }
        if let Ok(call) = &mut read {
            call.authorized = call.bearer.as_deref().is_some_and(|access| state.tokens.opens(access, now));
        }
        state.admit()
    };
    let reply = match (admission, read) {
        (_, Err(Unreadable::Broken)) => None,
        (Admission::Throttled { retry_after_s }, _) => Some(Reply::throttled(retry_after_s)),
        (Admission::Admitted { .. }, Err(Unreadable::TooLarge)) => Some(Reply::scripted(413, None)),
        (Admission::Admitted { .. }, Ok(call)) => act(&shared, call, fault).await,
    };
    let mut state = shared.state();
    state.answered(ticket, reply.as_ref().filter(|reply| !reply.cut).map(|reply| reply.status));
    Some(reply?.into_response(state.written_now(), state.config.rate_limit, admission))
}

/// Has the call's effect when and as far as the fault lets it.
async fn act(shared: &Arc<Shared>, call: Call, fault: Option<Fault>) -> Option<Reply> {
    let perform = |twist| shared.state().perform(&call, twist);
    let plain = Twist::default();
    let Some(fault) = fault else { return Some(perform(plain)) };
    match fault {
        Fault::Status { status, field } => Some(Reply::scripted(status, field.as_deref())),
        Fault::ProcessThenFail { status } => {
            perform(plain);
            Some(Reply::html(status))
        }
        Fault::ProcessPart { part, status } => {
            let reply = perform(Twist { part: Some(part), ..plain });
            Some(if status == 200 { reply } else { Reply::html(status) })
        }
        Fault::DropAnswer => {
            perform(plain);
            None
        }
        Fault::CutAnswer => Some(perform(plain).cut_short()),
        Fault::Delay { ms, effect: Effect::Before } => {
            let reply = perform(plain);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Some(reply)
        }
        Fault::Delay { ms, effect: Effect::After } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Some(perform(plain))
        }
        Fault::Delay { ms, effect: Effect::None } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Some(Reply::html(504))
        }
        Fault::LateEffect { ms, status } => {
            let later = shared.clone();
            shared.tasks.spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(ms)) => drop(later.state().perform(&call, plain)),
                    () = later.stop.cancelled() => {}
                }
            });
            status.map(Reply::html)
        }
        Fault::Html200 { effect } => {
            if effect != Effect::None {
                perform(plain);
            }
            Some(Reply::html(200))
        }
        Fault::Redirect { effect } => {
            if effect != Effect::None {
                perform(plain);
            }
            let login = format!("{}/login", shared.state().base_url);
            Some(Reply::redirect(login))
        }
        Fault::ListLag { ms } => Some(perform(Twist { lag_ms: millis(ms), ..plain })),
        Fault::ShuffleTotal => Some(perform(Twist { shuffle_total: true, ..plain })),
        Fault::Unlisted => Some(perform(Twist { unlisted: true, ..plain })),
        // These had their say before the call was read or admitted.
        Fault::RefuseConnection | Fault::Throttle { .. } | Fault::RevokeToken | Fault::BurnRefresh => {
            Some(perform(plain))
        }
    }
}
