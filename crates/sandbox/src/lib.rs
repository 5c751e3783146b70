//! A faithful fake of the SMS gateway, nastier than the real one, with a book of what it accepted.
//!
//! It serves all nine calls over HTTP in the recorded shapes: tokens that burn and revoke each other, 1,200 calls a window, ten rows a
//! page, newest first, delivery after a while, connections that close as Apache's do. The demo and the benchmarks run it in-process;
//! as a process of its own it is scripted and read by HTTP.
//!
//! Guarantee: an effect is in the book exactly when a real gateway would have sent the text, whatever the client was told.
//!
//! Deliberately absent: validation of numbers (the gateway has none), any real text, persistence.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sandbox::{Config, Fault, Operation, Rule, Sandbox};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let running = Sandbox::start(Config::default(), listener)?;
//! running.script(vec![Rule::once(Operation::BulkSend, Fault::DropAnswer)]);
//! assert_eq!(running.book().accepted, 0);
//! running.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Control calls
//! No authentication, answered to the loopback only.
//!
//! | call | what it does |
//! |---|---|
//! | `GET /sandbox/book[?full=1]` | the book; with `full` each accepted text |
//! | `GET /sandbox/twice` | (source, destination, text) accepted more than once |
//! | `GET /sandbox/calls[?operation=list]` | each call with its time and status |
//! | `GET`, `PUT`, `POST`, `DELETE /sandbox/faults` | the rules, replaced by a list, joined by one, removed |
//! | `POST /sandbox/reset` `{"forget_tokens": false}` | an empty book, list, window and script |
//! | `POST /sandbox/clock` `{"skew_ms": 600000}` | sets the gateway's clock wrong |
//! | `GET`, `PATCH /sandbox/config` | the settings; a part of them replaced |
//! | `POST /sandbox/senders` `{"sender_id": "ACME", "approved": true}` | adds or (dis)approves a sender id |
//! | `POST /sandbox/tokens` `{"revoke_access": true, "burn_refresh": true}` | revokes and burns all there are |
//! | `POST /sandbox/rows` `{"source", "destination", "text", "type": "2"}` | an inbound (2) or foreign (1) row |
//! | `GET`, `POST /sandbox/inbound` `{"from", "to", "text", "time"}` | what people wrote; one more such text |
//! | `DELETE /sandbox/rows/{sms_id}` | takes a row out of the list and the detail call; the book keeps it |
//!
//! A rule is flat JSON, `{"operation": "bulk_send", "fault": "drop_answer", "share": 0.05}`: [`Rule`] says when it strikes, [`Fault`] what it
//! does. Faults in JSON: `refuse_connection`, `status` (`status`, `field`), `process_then_fail` (`status`), `process_part` (`part`, `status`),
//! `drop_answer`, `cut_answer`, `delay` (`ms`, `effect`: `none`, `before`, `after`), `late_effect` (`ms`, `status`), `throttle` (`ms`,
//! `retry_after_s`), `revoke_token`, `burn_refresh`, `html_200` and `redirect` (`effect`: `none`, `before`), `list_lag` (`ms`), `shuffle_total`,
//! `unlisted`.

mod answer;
mod api;
mod book;
mod clock;
mod config;
mod control;
mod dice;
mod effect;
mod fault;
mod form;
mod limit;
mod operation;
mod pages;
mod rows;
mod serve;
mod state;
mod text;
mod tokens;

pub use book::{AcceptedText, Book, CallRecord, Twice};
pub use config::Config;
pub use fault::{Effect, Fault, Rule, RuleError};
pub use operation::Operation;

use state::State;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener has no address.
    #[error("the sandbox's listener has no address")]
    Listener(#[source] std::io::Error),
    /// `book_file` can't be opened.
    #[error("the sandbox's book file can't be opened")]
    BookFile(#[source] std::io::Error),
}

/// Starts sandboxes.
#[derive(Debug)]
pub struct Sandbox;

/// A sandbox at work. It stops when this is dropped.
pub struct Running {
    /// Where its API is: `http://127.0.0.1:PORT/api`.
    pub base_url: String,
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    /// Everything, for a moment: nobody awaits while holding it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// Serves on the listener, in tasks of the current runtime.
    ///
    /// # Errors
    /// The listener has no address, or the book's file can't be opened.
    pub fn start(config: Config, listener: TcpListener) -> Result<Running, StartError> {
        let addr = listener.local_addr().map_err(StartError::Listener)?;
        let base_url = format!("http://{addr}/api");
        let state = State::new(config, base_url.clone()).map_err(StartError::BookFile)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: stop.clone(), tasks: TaskTracker::new() });
        let router = api::routes(&shared).merge(control::routes(shared.clone()));
        shared.tasks.spawn(serve::listen(shared.clone(), listener, router));
        Ok(Running { base_url, addr, shared, _stop: stop.drop_guard() })
    }
}

impl Running {
    /// The book so far, without the texts.
    pub fn book(&self) -> Book {
        self.shared.state().summary()
    }

    /// Each accepted text, in the order of its id.
    pub fn texts(&self) -> Vec<AcceptedText> {
        self.shared.state().texts()
    }

    /// What one number got more than once.
    pub fn twice(&self) -> Vec<Twice> {
        self.shared.state().twice()
    }

    /// Replaces the faults in force.
    pub fn script(&self, rules: Vec<Rule>) {
        self.shared.state().script(rules);
    }

    /// Closes the listener and every connection, and waits until they are.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}
