//! How a command ends: one place that gives each error its exit code and its one line.

use crate::config::ConfigError;
use std::{fmt, process::ExitCode};

/// How a command ended when it ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well: 0.
    Well,
    /// What was to be checked does not hold: 1.
    Failed,
    /// Finished, and some rows were rejected, are held or failed: 3.
    WithRows,
    /// What was asked for can't be done as it was asked for, and was said: 2.
    Usage,
    /// Something in the configuration or the credentials is wrong, and was said: 4.
    Config,
    /// Something that is needed is down, and was said: 5.
    Dependency,
    /// Interrupted before it was finished: 130.
    Interrupted,
}

impl Done {
    /// Its exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::WithRows => 3,
            Self::Config => 4,
            Self::Dependency => 5,
            Self::Interrupted => 130,
        }
    }
}

/// A command that can't go on: what is wrong, why, and what to do.
#[derive(Debug)]
pub(crate) struct Stop {
    done: Done,
    what: String,
    advice: Option<String>,
    source: Option<anyhow::Error>,
}

impl Stop {
    /// Something failed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { done: Done::Failed, what: what.into(), advice: None, source: None }
    }

    /// It was asked for in a way that can't be done.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { done: Done::Usage, ..Self::failed(what) }
    }

    /// The configuration or the credentials are wrong.
    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self { done: Done::Config, ..Self::failed(what) }
    }

    /// Something that is needed is down.
    pub(crate) fn dependency(what: impl Into<String>) -> Self {
        Self { done: Done::Dependency, ..Self::failed(what) }
    }

    /// A person stopped it.
    pub(crate) fn interrupted(what: impl Into<String>) -> Self {
        Self { done: Done::Interrupted, ..Self::failed(what) }
    }

    /// Why.
    pub(crate) fn because(self, source: impl Into<anyhow::Error>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// What a person can do about it: a sentence.
    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Stop {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref())
    }
}

/// What kind of end an error is.
pub(crate) fn kind(error: &anyhow::Error) -> Done {
    for cause in error.chain() {
        if let Some(stop) = cause.downcast_ref::<Stop>() {
            return stop.done;
        }
        if cause.is::<ConfigError>() {
            return Done::Config;
        }
        if let Some(error) = cause.downcast_ref::<ledger::Error>() {
            return match error.kind() {
                ledger::ErrorKind::Down | ledger::ErrorKind::Conflict => Done::Dependency,
                ledger::ErrorKind::Broken => Done::Failed,
            };
        }
        // Whoever read our output went away: `crier results | head` is no failure.
        let io = match cause.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(error)) => Some(error),
            _ => cause.downcast_ref::<std::io::Error>(),
        };
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Done::Well;
        }
    }
    Done::Failed
}

/// The error's chain in one line, then what to do. A cause that the line above it has said already is left out.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.contains(text.trim_end_matches('.')) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    if !line.ends_with(['.', '?', '!']) {
        line.push('.');
    }
    if let Some(advice) = error.chain().find_map(|cause| cause.downcast_ref::<Stop>()?.advice.as_deref()) {
        line.push(' ');
        line.push_str(advice);
    }
    line
}

/// Says once what went wrong, and gives the exit code.
pub(crate) fn end(result: anyhow::Result<Done>) -> ExitCode {
    let done = result.unwrap_or_else(|error| {
        let done = kind(&error);
        if done != Done::Well {
            crate::output::say(format_args!("crier: {}", line(&error)));
        }
        done
    });
    ExitCode::from(done.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use anyhow::Context;

    #[test]
    fn each_kind_of_error_has_its_exit_code() {
        let config = ConfigError::new("there is no setting x", Origin::Flag, "Remove it.");
        assert_eq!(kind(&anyhow::Error::from(config)).code(), 4);
        assert_eq!(kind(&Stop::dependency("the queue can't be reached").into()).code(), 5);
        assert_eq!(kind(&anyhow::anyhow!("something else")).code(), 1);
        let deep = Err::<(), _>(Stop::config("refused")).context("reading").context("more").unwrap_err();
        assert_eq!(kind(&deep).code(), 4, "the kind is found wherever in the chain it stands");
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(kind(&anyhow::Error::from(csv::Error::from(pipe))).code(), 0);
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(kind(&anyhow::Error::from(pipe)).code(), 0);
    }

    #[tokio::test]
    async fn a_ledger_that_is_down_is_exit_5_and_a_wrong_url_is_not() {
        let down = ledger::Ledger::open("sqlite:///nowhere/at/all/crier.db").await.unwrap_err();
        assert_eq!(kind(&down.into()).code(), 5);
    }

    #[test]
    fn the_chain_is_printed_once_and_the_advice_last() {
        let cause = anyhow::anyhow!("connection refused").context("open the ledger");
        let stop = Stop::dependency("the ledger can't be reached at postgres://db").because(cause);
        let error = anyhow::Error::from(stop.advise("Is it running? ledger.url names it.")).context("status");
        assert_eq!(
            line(&error),
            "status: the ledger can't be reached at postgres://db: open the ledger: connection refused. \
             Is it running? ledger.url names it."
        );
        let twice = anyhow::anyhow!("no such file").context("a.csv: no such file");
        assert_eq!(line(&twice), "a.csv: no such file.");
    }
}
