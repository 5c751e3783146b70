//! Logs on stderr, as text or JSON; panics are logged once.

use crate::config::{LogFormat, LogSettings};
use std::{io::IsTerminal, panic::PanicHookInfo};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt::writer::BoxMakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// The crates whose debug and trace lines are ours to answer for.
const OURS: [&str; 9] =
    ["crier", "campaign", "gateway", "ingest", "ledger", "queue", "reconciler", "sandbox", "worker"];

/// Libraries quote what they work on when they are asked for details, numbers among it: below `info` only our own are heard,
/// whatever the filter says.
fn may_be_heard(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OURS.contains(&crate_name)
}

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
            builder.with_ansi(colour).with_target(false).finish().with(filter_fn(may_be_heard)).try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            builder.finish().with(filter_fn(may_be_heard)).try_init()
        }
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    // The payload may quote what was being worked on; where it happened is enough to find it.
    tracing::error!(place, "panicked; this is a defect of crier");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written_by(deed: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_writer(move || writer.clone())
            .finish()
            .with(filter_fn(may_be_heard));
        tracing::subscriber::with_default(subscriber, deed);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_panic_is_logged_without_what_it_quotes() {
        let before = std::panic::take_hook();
        let written = written_by(|| {
            std::panic::set_hook(Box::new(log_panic));
            let number = "447400555678";
            _ = std::panic::catch_unwind(|| panic!("no idea what to do with {number}"));
        });
        std::panic::set_hook(before);
        assert!(written.contains("this is a defect of crier") && written.contains("telemetry.rs"), "{written}");
        assert!(!written.contains("447400555678"), "{written}");
    }

    #[test]
    fn below_info_only_our_own_crates_are_heard() {
        let written = written_by(|| {
            tracing::trace!("ours");
            tracing::trace!(target: "some_library::parser", "the number 447400555678");
            tracing::info!(target: "some_library::parser", "it started");
        });
        assert!(written.contains("ours") && written.contains("it started") && !written.contains("4474"), "{written}");
    }
}
