//! `esign`: five e-signature APIs on Portunus, to try it by hand and to test it from outside.
//!
//! It reads its flags, makes a store, an authenticator and a manager of one profile, serves until
//! it is told to stop, drains, and writes the last usage.

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
mod storage;
mod tls;
mod unwritten;

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
use crate::cli::{Adapter, Flags};
use crate::operators::Operators;
use crate::storage::Storage;
use crate::tls::TlsListener;
use crate::unwritten::Unwritten;

/// How long requests that were begun may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long those that did not are given to be noted.
const SETTLE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let flags = match Flags::parse() {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    // Unless asked, errors, and what the demo itself warns of, such as writes that failed. To
    // actix-web a client's bad bytes are an error.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("error,esign=warn,portunus=warn,portunus_sqlx=warn,actix_http=off")
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
    // Whatever still runs after the drain must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Ok(unwritten) => {
            if let Some(line) = unwritten.line() {
                eprintln!("esign: {line}");
            }
            ExitCode::from(if unwritten.is_a_loss() { 3 } else { 0 })
        }
        Err(reason) => fail(&reason),
    }
}

/// One clear line, and exit code 2.
fn fail(reason: &str) -> ExitCode {
    eprintln!("esign: {}", reason.lines().next().unwrap_or_default());
    ExitCode::from(2)
}

/// Serves until it is told to stop; what was lost by then.
async fn serve(flags: &Flags) -> Result<Unwritten, String> {
    let listener = TcpListener::bind(flags.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", flags.listen))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot listen: {error}"))?;
    let operators = Operators::from_env(flags.profile).map_err(|error| error.to_string())?;
    let storage =
        Storage::open(&flags.place(), flags.bus.as_ref(), flags.profile.user_ids()).await?;
    let app = App::new(flags, &storage, operators).map_err(|error| error.to_string())?;

    let tls = match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::config(certificate, key)?),
        _ => None,
    };
    // Listened for before anybody is told that the server is ready.
    let told_to_stop = told_to_stop()?;
    banner::announce(flags, &app, address).await?;
    info!(profile = %flags.profile, %address, "serving");

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let (served, all_served) = tokio::sync::oneshot::channel::<()>();
    let jobs = tokio::spawn(app.keys.run(async move {
        let _ = all_served.await;
    }));
    let told_to_stop = async move {
        told_to_stop.await;
        let _ = stop.send(true);
    };
    let server = async {
        match flags.adapter {
            Adapter::Axum => on_axum(&app, listener, tls, told_to_stop).await,
            Adapter::Actix => on_actix(&app, listener, tls, told_to_stop).await,
        }
    };
    let drained = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    let in_time = tokio::select! {
        served = server => served.map(|()| true).map_err(|error| format!("serving ended: {error}"))?,
        () = drained => false,
    };
    if !in_time {
        warn!("some requests did not end in time");
        // Those of other threads are ended about now; each is noted as it ends.
        tokio::time::sleep(SETTLE).await;
    }
    let dropped_before = app.dropped();
    let _ = served.send(());
    let done = jobs
        .await
        .map_err(|error| format!("the periodic jobs ended: {error}"))?;
    info!("stopped");
    Ok(Unwritten::of(&done, dropped_before))
}

async fn on_axum(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    told_to_stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let routes = cors::outermost(app.router(), Arc::clone(&app.trusted_origins));
    match tls {
        None => on_axum::serve(listener, None, routes, told_to_stop).await,
        Some(config) => {
            let listener = TlsListener::new(listener, config)?;
            // The configuration offers no other version.
            on_axum::serve(listener, Some(TlsVersion::V1_3), routes, told_to_stop).await
        }
    }
}

async fn on_actix(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    told_to_stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut server = on_actix::server(app, listener.into_std()?, tls, DRAIN.as_secs())?;
    let handle = server.handle();
    tokio::select! {
        served = &mut server => return served,
        () = told_to_stop => {}
    }
    // Told while the server is polled, which is what ends it.
    tokio::join!(server, handle.stop(true)).0
}

/// Ctrl-C, or `SIGTERM` where there is such a thing: heard from now on.
#[cfg(unix)]
fn told_to_stop() -> Result<impl Future<Output = ()>, String> {
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

/// Ctrl-C.
#[cfg(not(unix))]
fn told_to_stop() -> Result<impl Future<Output = ()>, String> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
