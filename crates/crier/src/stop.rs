//! Signals: the first asks for an orderly end, the second leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Told apart because a supervisor's SIGTERM is a success and a person's Ctrl-C is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopper {
    /// Cancelled at the first signal, of either kind.
    pub(crate) asked: CancellationToken,
    /// Cancelled when that signal was Ctrl-C.
    interrupted: CancellationToken,
}

impl Stopper {
    /// Listens to SIGTERM and SIGINT from now on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let stopper = Self::default();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = stopper.clone();
        tokio::spawn(async move {
            loop {
                let by_hand = tokio::select! {
                    _ = terminate.recv() => false,
                    _ = interrupt.recv() => true,
                };
                if told.asked.is_cancelled() {
                    crate::output::say(format_args!("crier: left at once; the ledger knows what was under way."));
                    std::process::exit(130);
                }
                if by_hand {
                    told.interrupted.cancel();
                    crate::output::say(format_args!("crier: finishing what is under way; once more to leave at once."));
                }
                told.asked.cancel();
            }
        });
        Ok(stopper)
    }

    /// A person asked for the end.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.is_cancelled()
    }

    /// How a service ends that was asked to: well, unless a person interrupted it.
    pub(crate) fn done(&self) -> crate::exit::Done {
        if self.was_interrupted() { crate::exit::Done::Interrupted } else { crate::exit::Done::Well }
    }
}
