//! A network that fails: a TCP port in front of a server's socket, whose connections can be cut or
//! fall silent.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use super::Duration;

/// Which connections still work: those with at least this number.
#[derive(Debug, Clone, Copy, Default)]
struct Failing {
    silent_below: u64,
    cut_below: u64,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    failing: watch::Sender<Failing>,
    connections: watch::Receiver<u64>,
}

impl Proxy {
    pub(crate) async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (failing, watched) = watch::channel(Failing::default());
        let (count, connections) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let number = *count.borrow();
                count.send_replace(number + 1);
                let (socket, watched) = (socket.clone(), watched.clone());
                tokio::spawn(async move {
                    let Ok(server) = UnixStream::connect(socket).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let cut = async {
                        let mut watched = watched.clone();
                        let _ = watched.wait_for(|failing| number < failing.cut_below).await;
                    };
                    tokio::select! {
                        () = copy(from_client, to_server, number, watched.clone()) => {}
                        () = copy(from_server, to_client, number, watched.clone()) => {}
                        () = cut => {}
                    }
                });
            }
        });
        Self {
            port,
            failing,
            connections,
        }
    }

    /// From now on, nothing comes through any more on the connections that are there.
    pub(crate) fn silence(&self) {
        let count = *self.connections.borrow();
        self.failing
            .send_modify(|failing| failing.silent_below = count);
    }

    /// From now on, nothing comes through at all.
    pub(crate) fn silence_all(&self) {
        self.failing
            .send_modify(|failing| failing.silent_below = u64::MAX);
    }

    /// Closes the connections that are there.
    pub(crate) fn cut(&self) {
        let count = *self.connections.borrow();
        self.failing
            .send_modify(|failing| failing.cut_below = count);
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    number: u64,
    watched: watch::Receiver<Failing>,
) {
    let mut buffer = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        while number < watched.borrow().silent_below {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
