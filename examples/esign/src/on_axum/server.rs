//! hyper's server with limits that `axum::serve` does not set: the time and size of a request head,
//! and the idle time of a connection.
//!
//! The time limit of a body is left to the handler, which knows what it expects. The demo's
//! handlers read at most 2 MiB.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use portunus::request::TlsVersion;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use super::edge;
use crate::activity::{Activity, InFlight};
use crate::limits::{FIELDS, HEAD, HEAD_BYTES, IDLE};
use crate::lingering::{Lingering, Stream};
use crate::tls::Peer;

/// Serves until `shutdown` completes, and then until the last request is answered.
pub(crate) async fn serve(
    mut listener: impl Listener<Addr = SocketAddr, Io: Stream>,
    tls: Option<TlsVersion>,
    routes: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Arc::new(server());
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            (stream, address) = listener.accept() => {
                let peer = Peer { address, tls };
                let (server, routes) = (Arc::clone(&server), routes.clone());
                let stream = Lingering::new(Bytes::new(), stream);
                connections.spawn(connection(server, stream, peer, routes, stopped.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(FIELDS)
        // A client that has closed its write half after its request still gets the response.
        .half_close(true)
        .max_buf_size(HEAD_BYTES as usize)
        .http2()
        .timer(TokioTimer::new())
        // Detects clients that have disappeared without closing the connection.
        .keep_alive_interval(IDLE)
        .max_header_list_size(HEAD_BYTES);
    server
}

async fn connection(
    server: Arc<Builder<TokioExecutor>>,
    stream: Lingering,
    peer: Peer,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request: Request<Incoming>| {
        let in_flight = InFlight::begin(&activity);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        edge::answer(routes.clone(), request, in_flight)
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let (mut patience, mut stopping) = (HEAD, false);
    loop {
        let begun = activity.begun();
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    debug!(error, "connection ended");
                }
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // hyper's own timer starts only after the version of HTTP is known, and only covers
            // HTTP/1.1. This one starts with the connection and also covers HTTP/2.
            () = sleep(patience) => {
                let idle = activity.is_idle() && activity.begun() == begun;
                if !idle {
                    patience = IDLE;
                } else if patience == HEAD {
                    return;
                } else {
                    connection.as_mut().graceful_shutdown();
                    patience = HEAD;
                }
            }
        }
    }
}
