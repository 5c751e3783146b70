//! Points at which a test has the process end as `kill -9` would end it.
//!
//! ```text
//! CRASH_AT="after commit: claim a chunk" crier worker
//! ```
//!
//! Guarantee: without the feature `armed` every point is an empty function and the environment is not read. The feature is a
//! development dependency of `crier` alone: programs that are built for tests have it, programs that are built to be
//! used do not. A test of the repository's shape holds both that and that [`POINTS`] is complete.
//!
//! Deliberately absent: delays, errors, probabilities. Chaos with real processes does the rest.

/// What precedes a ledger's operation in the name of the point just before its commit.
pub const BEFORE_COMMIT: &str = "before commit: ";

/// What precedes a ledger's operation in the name of the point just after its commit, before its caller learns of it.
pub const AFTER_COMMIT: &str = "after commit: ";

/// The borders of the way of a file into the ledger and of a row to the gateway, in the order in which a row meets them.
pub const POINTS: &[&str] = &[
    // A file from the drop folder into the ledger.
    "the file is renamed out of the inbox",
    "its settings are renamed, too",
    "the claim is noted",
    "before commit: begin to load a file",
    "after commit: begin to load a file",
    "the import is noted",
    "before commit: load rows into the ledger",
    "after commit: load rows into the ledger",
    "before commit: finish loading a file",
    "after commit: finish loading a file",
    "its place in done is noted",
    "its summary is written",
    "its settings are in done",
    "its rejects are in done",
    "the file is in done",
    // Which senders may be used.
    "before commit: record the gateway's senders",
    "after commit: record the gateway's senders",
    // Chunks to the queue.
    "before commit: mark chunks as being on the queue",
    "after commit: mark chunks as being on the queue",
    "the jobs are pushed",
    // A batch to the gateway.
    "before commit: claim a chunk",
    "after commit: claim a chunk",
    "before commit: mark a batch as being sent",
    "after commit: mark a batch as being sent",
    "before the request",
    "after the answer",
    "before commit: record the outcome of a batch",
    "after commit: record the outcome of a batch",
    "before commit: take a batch back unsent",
    "after commit: take a batch back unsent",
    "before commit: finish a chunk",
    "after commit: finish a chunk",
    // The token that it needs.
    "before commit: claim the token row",
    "after commit: claim the token row",
    "before the token request",
    "after the token answer",
    "before commit: commit the new token pair",
    "after commit: commit the new token pair",
    "before commit: release the token row",
    "after commit: release the token row",
    // What is learned from the list, and what dead workers left.
    "before commit: take back what dead workers left",
    "after commit: take back what dead workers left",
    "before commit: apply a reading of the gateway's list",
    "after commit: apply a reading of the gateway's list",
    "before commit: settle attempts",
    "after commit: settle attempts",
    "before commit: remember a reading of the list",
    "after commit: remember a reading of the list",
    "before commit: hold rows",
    "after commit: hold rows",
    "before commit: queue absent rows again",
    "after commit: queue absent rows again",
];

/// The point just before a commit of the ledger.
#[inline]
pub fn before_commit(operation: &str) {
    end_at(BEFORE_COMMIT, operation);
}

/// The point just after a commit of the ledger: nobody knows of it yet.
#[inline]
pub fn after_commit(operation: &str) {
    end_at(AFTER_COMMIT, operation);
}

/// A point that is no commit.
#[inline]
pub fn reach(point: &str) {
    end_at("", point);
}

#[cfg(not(feature = "armed"))]
#[inline]
fn end_at(_: &str, _: &str) {}

#[cfg(feature = "armed")]
fn end_at(border: &str, name: &str) {
    static AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let at = AT.get_or_init(|| std::env::var("CRASH_AT").ok());
    if at.as_ref().and_then(|at| at.strip_prefix(border)) == Some(name) {
        eprintln!("crash point: {border}{name}");
        std::process::abort();
    }
}
