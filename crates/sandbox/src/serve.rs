//! Connections as Apache keeps them: closed when idle for 5 s and after 100 requests, and cut at the TCP level when a fault says so.

use crate::Shared;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// One TCP connection, as its calls know it.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<Wire>);

#[derive(Default)]
struct Wire {
    cut: Notify,
    requests: AtomicU32,
    counted: AtomicBool,
}

impl Connection {
    /// Counts the connection in the book at its first call; those of control calls do not count.
    pub(crate) fn carries_a_call(&self, shared: &Shared) {
        if !self.0.counted.swap(true, Ordering::Relaxed) {
            shared.state().connected();
        }
    }

    /// Closes the connection without another byte.
    pub(crate) async fn cut(&self) -> Response<Body> {
        self.0.cut.notify_one();
        std::future::pending().await
    }
}

/// Accepts connections until the sandbox stops.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener, router: Router) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(shared.clone(), stream, peer, router.clone());
                shared.tasks.spawn(connection);
            }
            // Out of file descriptors, most likely: others have to close first.
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, router: Router) {
    // An answer that waits for the client's ACK would make every call look slow.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let (keep_alive, requests_max) = {
        let config = &shared.state().config;
        (Duration::from_millis(config.keep_alive_ms), config.requests_per_connection)
    };
    let connection = Connection::default();
    let (inner, each) = (TowerToHyperService::new(router), connection.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (inner, each) = (inner.clone(), each.clone());
        async move {
            let nth = each.0.requests.fetch_add(1, Ordering::Relaxed) + 1;
            let mut response = if request.uri().path().starts_with("/sandbox") && !peer.ip().is_loopback() {
                let mut forbidden = Response::new(Body::empty());
                *forbidden.status_mut() = StatusCode::FORBIDDEN;
                forbidden
            } else {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(each);
                inner.call(request).await?
            };
            say_how_long(response.headers_mut(), keep_alive, requests_max.saturating_sub(nth));
            Ok::<_, Infallible>(response)
        }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = http => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
        () = connection.0.cut.notified() => {}
        () = shared.stop.cancelled() => {}
    }
    if connection.0.counted.load(Ordering::Relaxed) {
        shared.state().disconnected();
    }
}

fn say_how_long(headers: &mut axum::http::HeaderMap, keep_alive: Duration, left: u32) {
    if left == 0 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        return;
    }
    let line = format!("timeout={}, max={left}", keep_alive.as_secs().max(1));
    if let Ok(line) = HeaderValue::from_str(&line) {
        headers.insert("keep-alive", line);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Keep-Alive"));
    }
}
