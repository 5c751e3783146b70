//! `/metrics`, `/livez` and `/readyz` of a service, and asking another process for them.

use crate::{
    config::MetricsSettings,
    exit::{Done, Stop},
    health::Health,
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves where the settings say, until the process ends. A usual address that is taken is only mentioned: the service is
/// worth more than its metrics.
pub(crate) async fn start(settings: &MetricsSettings, health: &Health) -> anyhow::Result<()> {
    let Some(address) = settings.listen else { return Ok(()) };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if settings.asked_for => {
            let what = format!("metrics can't be served at {address}");
            return Err(Stop::config(what).because(error).advise("metrics.listen names another place, or off.").into());
        }
        Err(error) => {
            tracing::warn!(%address, %error, "metrics and health are not served; metrics.listen names another place, or off");
            return Ok(());
        }
    };
    let address = listener.local_addr()?;
    tracing::info!(%address, "serves /metrics, /livez and /readyz");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "metrics and health are no longer served");
        }
    });
    Ok(())
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], health.measured().await)
}

async fn livez(State(health): State<Health>) -> (StatusCode, String) {
    let mut lines = String::new();
    for (name, age, stuck) in health.loops() {
        let mark = if stuck { "FAIL" } else { "ok  " };
        let _ = writeln!(lines, "{mark} {name}: turned {:.1} s ago", age.as_secs_f64());
    }
    if health.draining().is_cancelled() {
        lines.push_str("ok   draining: finishes what is under way\n");
    }
    (status(health.is_live()), lines)
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let look = health.look().await;
    (status(look.is_ready()), look.lines())
}

fn status(fine: bool) -> StatusCode {
    if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Asks the process that serves at the configured address for `/livez` or `/readyz`: exit 0 or 1.
pub(crate) async fn ask(settings: &MetricsSettings, path: &str) -> anyhow::Result<Done> {
    let Some(mut address) = settings.listen else {
        return Err(Stop::failed("metrics.listen is off: there is nobody to ask").into());
    };
    // Who listens on all addresses is asked on the loopback.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    let answer = tokio::time::timeout(ASK_WITHIN, fetch(address, path)).await;
    let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let answer = answer.map_err(|error| Stop::failed(format!("nobody answers at {address}")).because(error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    crate::output::print(body.trim_end())?;
    Ok(if head.split(' ').nth(1) == Some("200") { Done::Well } else { Done::Failed })
}

async fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
