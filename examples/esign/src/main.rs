//! `esign`: five e-signature APIs on Portunus, a demo to try by hand and the target of the
//! black-box tests.
//!
//! Parses the flags, opens the store, builds the authenticator and the manager of one profile,
//! serves until it receives a stop signal, drains requests and flushes usage and audit events.

mod activity;
mod admin;
mod api;
mod app;
mod banner;
mod cli;
mod cors;
mod directory;
mod limits;
mod lingering;
mod on_actix;
mod on_axum;
mod operators;
mod redis;
mod sessions;
mod storage;
mod tls;
mod unwritten;
mod wording;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use portunus::request::TlsVersion;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::cli::{Adapter, Flags, Limiter};
use crate::operators::Operators;
use crate::storage::Storage;
use crate::tls::TlsListener;
use crate::unwritten::Unwritten;

/// How long requests in flight may take to complete after the stop signal.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait for the audit events of requests that were aborted after [`DRAIN`].
const SETTLE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let flags = match Flags::parse() {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    // By default: errors, and the demo's own warnings, such as failed writes. actix_http is off
    // because it logs malformed client input as an error. portunus reports that Redis does not answer,
    // and esign the warnings of portunus_redis.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(
            "error,esign=warn,portunus=warn,portunus::audit=off,portunus_sqlx=warn,\
             portunus_redis=error,actix_http=off",
        )
    });
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let served = runtime.block_on(serve(&flags));
    // Tasks that still run after the drain must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Ok(unwritten) => {
            if let Some(line) = unwritten.line() {
                eprintln!("esign: {line}");
            }
            ExitCode::from(if unwritten.has_losses() { 3 } else { 0 })
        }
        Err(reason) => fail(&reason),
    }
}

/// Prints one line on stderr and returns exit code 2.
fn fail(reason: &str) -> ExitCode {
    eprintln!("esign: {}", reason.lines().next().unwrap_or_default());
    ExitCode::from(2)
}

/// Serves until the stop signal and returns what could not be written.
async fn serve(flags: &Flags) -> Result<Unwritten, String> {
    let listener = TcpListener::bind(flags.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot listen: {error}"))?;
    let operators = Operators::from_env(flags.profile).map_err(|error| error.to_string())?;
    let storage = Storage::open(&flags.location(), flags.bus.as_ref(), flags.profile).await?;
    let limiter = match &flags.limiter {
        Limiter::Local => None,
        Limiter::Redis(server) => Some(server.limiter(flags.profile).await?),
    };
    let app = App::new(flags, &storage, limiter, operators).map_err(|error| error.to_string())?;

    let tls = match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::config(certificate, key)?),
        _ => None,
    };
    // The signal handlers are installed before the server is announced as ready.
    let shutdown = shutdown()?;
    banner::announce(flags, &app, address).await?;
    info!(profile = %flags.profile, %address, "serving");

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let (served, all_served) = tokio::sync::oneshot::channel::<()>();
    let jobs = tokio::spawn(app.keys.run(async move {
        let _ = all_served.await;
    }));
    let shutdown = async move {
        shutdown.await;
        let _ = stop.send(true);
    };
    let server = async {
        match flags.adapter {
            Adapter::Axum => on_axum(&app, listener, tls, shutdown).await,
            Adapter::Actix => on_actix(&app, listener, tls, shutdown).await,
        }
    };
    let drained = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    let in_time = tokio::select! {
        served = server => served.map(|()| true).map_err(|error| format!("the server failed: {error}"))?,
        () = drained => false,
    };
    if !in_time {
        warn!("some requests did not complete in time");
        // Requests on other threads are being aborted now; each records its audit event when it
        // ends.
        tokio::time::sleep(SETTLE).await;
    }
    let dropped_before = app.dropped();
    let _ = served.send(());
    let done = jobs
        .await
        .map_err(|error| format!("the periodic jobs failed: {error}"))?;
    info!("stopped");
    Ok(Unwritten::of(&done, dropped_before))
}

async fn on_axum(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let routes = cors::outermost(app.router(), Arc::clone(&app.trusted_origins));
    match tls {
        None => on_axum::serve(listener, None, routes, shutdown).await,
        Some(config) => {
            let listener = TlsListener::new(listener, config)?;
            // The TLS configuration offers only this version.
            on_axum::serve(listener, Some(TlsVersion::V1_3), routes, shutdown).await
        }
    }
}

async fn on_actix(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut server = on_actix::server(app, listener.into_std()?, tls, DRAIN.as_secs())?;
    let handle = server.handle();
    tokio::select! {
        served = &mut server => return served,
        () = shutdown => {}
    }
    // The server stops only while it is polled, so both futures run together.
    tokio::join!(server, handle.stop(true)).0
}

/// Listens for Ctrl-C and `SIGTERM` from now on.
#[cfg(unix)]
fn shutdown() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut interrupted, mut terminated) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

/// Listens for Ctrl-C.
#[cfg(not(unix))]
fn shutdown() -> Result<impl Future<Output = ()>, String> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
