//! A faithful fake of the SMS gateway, nastier than the real one, with a book of what it accepted.
//!
//! It serves all nine calls over HTTP in the recorded shapes: tokens that burn and revoke each other, 1,200 calls a window, ten rows a
//! page, newest first, delivery after a while, connections that close as Apache's do. A test scripts faults and reads the book under
//! `/sandbox/…` (listed in `control.rs`); the demo and the benchmarks run it in-process.
//!
//! Guarantee: an effect is in the book exactly when a real gateway would have sent the text, whatever the client was told.
//!
//! Deliberately absent: validation of numbers (the gateway has none), any real text, persistence.

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
