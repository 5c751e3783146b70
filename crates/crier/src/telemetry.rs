//! Logs on stderr, as text or JSON; panics are logged once.

use crate::config::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// Starts logging what `filter` lets through.
pub(crate) fn start(settings: &LogSettings, filter: &str) {
    // The filter was checked when the settings were parsed.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Through the progress bars, so that a line doesn't tear them.
    let writer = BoxMakeWriter::new(crate::output::Stderr::default);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match settings.format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            // The payload may quote what was being worked on; where it happened is enough to find it.
            tracing::error!(place, "panicked; this is a defect of crier");
        }));
    }
}
