//! `crier sandbox`

use crate::{exit::Done, exit::Stop, output, setup::Setup};
use ::sandbox::{Config, Sandbox};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serve a fake of the gateway on this machine, with faults that a test can script; no real text can go out
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// What it is like, as a JSON object: {"delivery_max_ms": 500, "fail_endings": ["999"]}
    #[arg(long, value_name = "JSON")]
    config_json: Option<String>,
}

pub(crate) async fn run(setup: &Setup, args: Args) -> anyhow::Result<Done> {
    let config: Config = match &args.config_json {
        Some(json) => {
            serde_json::from_str(json).map_err(|error| Stop::config("--config-json is wrong").because(error))?
        }
        None => Config::default(),
    };
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Stop::failed(format!("can't listen on {}", args.listen)).because(error).advise("Is the port taken?")
    })?;
    let (client_id, username) = (config.client_id.clone(), config.username.clone());
    let running = Sandbox::start(config, listener)?;
    // The first line of stdout is for programs that start a sandbox.
    output::print(&running.base_url)?;
    output::say(format_args!(
        "sandbox: client id {client_id}, user {username}; faults by HTTP under /sandbox/; Ctrl-C ends it"
    ));
    setup.stopper.asked.cancelled().await;
    running.stop().await;
    Ok(Done::Well)
}
