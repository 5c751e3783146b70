//! Traces for an OpenTelemetry collector, from a program that was built with the feature `otlp`.

use crate::{cli::Command, config::Settings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An export that runs beside a service.
pub(crate) struct Traces {
    stop: CancellationToken,
    exporting: JoinHandle<()>,
}

impl Traces {
    /// Begins to export what this command does, if it does anything that is traced and there is somebody to tell.
    pub(crate) fn start(settings: &Settings, command: &Command) -> Option<Self> {
        let service = match command {
            Command::Run(_) => "run",
            Command::Ingest(_) => "ingest",
            Command::Worker(_) => "worker",
            Command::Reconciler(_) => "reconciler",
            _ => return None,
        };
        let endpoint = settings.otlp_endpoint.as_ref()?.to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        Some(Self { stop, exporting: tokio::spawn(telemetry::export(endpoint, service, stopped)) })
    }

    /// Sends what is left.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        _ = self.exporting.await;
    }
}
