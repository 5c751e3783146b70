//! What can go wrong with the ledger, by what a caller can do about it.

/// A failed ledger call: the operation, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    operation: &'static str,
    #[source]
    source: Source,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Source {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Url(String),
    #[error("{0}")]
    Content(String),
}

/// What a caller can do about a failed ledger call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The database can't be reached or used now; nothing was done; the same call may go through later.
    Down,
    /// Another transaction won; the same call may go through at once.
    Conflict,
    /// The ledger's URL or the stored content is wrong.
    Broken,
}

impl Error {
    pub(crate) fn new(operation: &'static str, source: impl Into<Source>) -> Self {
        Self { operation, source: source.into() }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match &self.source {
            Source::Sql(sqlx::Error::Database(error)) => match error.code().as_deref() {
                // unique violation, serialization failure, deadlock; SQLite: busy, constraint (unique, primary key)
                Some("23505" | "40001" | "40P01" | "5" | "517" | "2067" | "1555") => ErrorKind::Conflict,
                // undefined table or column, and SQLite's generic error: the schema is another
                Some("42P01" | "42703" | "1") => ErrorKind::Broken,
                _ => ErrorKind::Down,
            },
            Source::Sql(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound) => {
                ErrorKind::Broken
            }
            Source::Sql(_) | Source::Io(_) => ErrorKind::Down,
            Source::Migrate(_) | Source::Url(_) | Source::Content(_) => ErrorKind::Broken,
        }
    }
}

/// Names the operation of a failed call.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<Source>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::new(operation, source))
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        line = format!("{line}: {next}");
        cause = next.source();
    }
    line
}
