//! hyper's server with the limits that `axum::serve` does not set: how long a head may take, how
//! large it may be, how long a connection may idle.
//!
//! How long a body may take is the handler's matter: it knows what it waits for. Here a handler
//! reads 2 MiB at most.

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

/// Serves until it is told to stop, and then until the last request is answered.
pub(crate) async fn serve(
    mut listener: impl Listener<Addr = SocketAddr, Io: Stream>,
    tls: Option<TlsVersion>,
    routes: Router,
    told_to_stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Arc::new(server());
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut told_to_stop = pin!(told_to_stop);
    loop {
        tokio::select! {
            (stream, address) = listener.accept() => {
                let peer = Peer { address, tls };
                let (server, routes) = (Arc::clone(&server), routes.clone());
                let stream = Lingering::new(Bytes::new(), stream);
                connections.spawn(connection(server, stream, peer, routes, stopped.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = &mut told_to_stop => break,
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
        // Who has sent all, and says so, is answered.
        .half_close(true)
        .max_buf_size(HEAD_BYTES as usize)
        .http2()
        .timer(TokioTimer::new())
        // Whoever is gone without a word is found out.
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
            // hyper's own timer begins when it knows the version of HTTP, and ends with HTTP/1.1:
            // this one counts from the first byte, and also for HTTP/2.
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
