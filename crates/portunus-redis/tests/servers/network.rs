//! A faulty network before a server: a TCP port whose connections can be reset, stall or be slow.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// How connections fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// They are reset.
    Reset,
    /// They stay open, and nothing passes until the network is healed.
    Silent,
    /// What a server answers arrives later.
    Slow(Duration),
}

/// A port in front of a server. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    port: u16,
    fault: watch::Sender<Option<Failing>>,
}

type Fault = watch::Receiver<Option<Failing>>;

impl Network {
    pub(crate) fn before(server: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, fault) = watch::channel(None);
        // On a separate thread, so that a busy test does not slow it down.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, server, fault)));
        Self { port, fault: told }
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Makes all connections fail, present and future ones.
    pub(crate) fn fail(&self, failing: Failing) {
        self.fault.send_replace(Some(failing));
    }

    /// Ends the fault. Stalled connections go on with what was held back.
    pub(crate) fn heal(&self) {
        self.fault.send_replace(None);
    }
}

async fn serve(listener: std::net::TcpListener, server: u16, fault: Fault) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut dropped = fault.clone();
    let accept = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, server, fault.clone()));
        }
    };
    let dropped = async { while dropped.changed().await.is_ok() {} };
    tokio::select! {
        () = accept => {}
        () = dropped => {}
    }
}

async fn carry(client: TcpStream, server: u16, fault: Fault) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return;
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    client.set_zero_linger().unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut reset = fault.clone();
    tokio::select! {
        () = copy(from_client, to_server, fault.clone(), false) => {}
        () = copy(from_server, to_client, fault, true) => {}
        _ = reset.wait_for(|fault| *fault == Some(Failing::Reset)) => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut fault: Fault,
    is_answer: bool,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let now = *fault.borrow();
        match now {
            Some(Failing::Silent) => {
                let _ = fault
                    .wait_for(|fault| *fault != Some(Failing::Silent))
                    .await;
            }
            Some(Failing::Slow(delay)) if is_answer => sleep(delay).await,
            _ => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
