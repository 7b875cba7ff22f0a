//! A faulty network between a node and a server: a TCP port in front of the server's Unix socket,
//! whose connections can be reset or stall, either all of them or only those that listen for
//! notifications. It can be switched to another server, as a virtual address can.
//!
//! It runs on its own thread, so that it works for programs and for tasks, and stops when its
//! [`Proxy`] is dropped.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// How a connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The connection is reset.
    Reset,
    /// The connection stays open, but nothing passes in either direction until it is healed. Then
    /// everything that was held back is delivered.
    Silent,
}

/// Which connections fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those on which a client listens for notifications.
    Listening,
    All,
}

/// A fault, and the connections that it affects: those with a number less than `below`.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    failing: Failing,
    which: Which,
    below: u64,
}

#[derive(Debug)]
pub struct Proxy {
    port: u16,
    trouble: watch::Sender<Option<Trouble>>,
    counts: Arc<Counts>,
    socket: Arc<Mutex<PathBuf>>,
}

/// The number of connections so far, and how many of them have begun to listen.
#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    listening: AtomicU64,
}

impl Proxy {
    /// Opens a port in front of a socket.
    pub fn before(socket: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (trouble, watched) = watch::channel(None);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let socket = Arc::new(Mutex::new(socket));
        let current = Arc::clone(&socket);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, current, watched, shared)));
        Self {
            port,
            trouble,
            counts,
            socket,
        }
    }

    /// Leads new connections to another server. Present ones stay where they are.
    pub fn lead_to(&self, socket: PathBuf) {
        *self.socket.lock().unwrap() = socket;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of a database through the proxy, for the owner.
    pub fn address(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://tester@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Makes present and future connections fail.
    pub fn fail(&self, failing: Failing, which: Which) {
        self.trouble.send_replace(Some(Trouble {
            failing,
            which,
            below: u64::MAX,
        }));
    }

    /// Makes only the present connections fail; new ones work.
    pub fn fail_present(&self, failing: Failing, which: Which) {
        let below = self.counts.all.load(Ordering::SeqCst);
        self.trouble.send_replace(Some(Trouble {
            failing,
            which,
            below,
        }));
    }

    /// Ends all faults. Stalled connections continue where they stopped.
    pub fn heal(&self) {
        self.trouble.send_replace(None);
    }

    /// Returns how many connections have begun to listen so far.
    pub fn listening(&self) -> u64 {
        self.counts.listening.load(Ordering::SeqCst)
    }
}

/// Accepts connections until the [`Proxy`] is dropped.
async fn serve(
    listener: std::net::TcpListener,
    socket: Arc<Mutex<PathBuf>>,
    trouble: watch::Receiver<Option<Trouble>>,
    counts: Arc<Counts>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut changes = trouble.clone();
    let gone = async { while changes.changed().await.is_ok() {} };
    let accept = async {
        while let Ok((client, _)) = listener.accept().await {
            let link = Link {
                number: counts.all.fetch_add(1, Ordering::SeqCst),
                listens: AtomicBool::new(false),
                counts: Arc::clone(&counts),
                trouble: trouble.clone(),
            };
            let socket = socket.lock().unwrap().clone();
            tokio::spawn(async move { link.carry(client, socket).await });
        }
    };
    tokio::select! {
        () = gone => {}
        () = accept => {}
    }
}

/// A connection through the proxy.
struct Link {
    number: u64,
    listens: AtomicBool,
    counts: Arc<Counts>,
    trouble: watch::Receiver<Option<Trouble>>,
}

impl Link {
    fn is_affected_by(&self, trouble: Option<Trouble>, failing: Failing) -> bool {
        trouble.is_some_and(|trouble| {
            let is_selected = trouble.which == Which::All || self.listens.load(Ordering::SeqCst);
            trouble.failing == failing && is_selected && self.number < trouble.below
        })
    }

    /// Waits until this kind of fault affects the connection, or until it no longer does.
    async fn wait_for(&self, failing: Failing, is_affected_by: bool) {
        let mut trouble = self.trouble.clone();
        let is_so =
            |trouble: &Option<Trouble>| self.is_affected_by(*trouble, failing) == is_affected_by;
        let _ = trouble.wait_for(is_so).await;
    }

    async fn carry(&self, client: TcpStream, socket: PathBuf) {
        let Ok(server) = UnixStream::connect(socket).await else {
            return;
        };
        // However this ends, the client sees a reset, as from a network that lost the connection.
        client.set_zero_linger().unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = self.copy(from_client, to_server) => {}
            () = self.copy(from_server, to_client) => {}
            () = self.wait_for(Failing::Reset, true) => {}
        }
    }

    async fn copy(&self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
        let mut buffer = vec![0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..length];
            // Clients send this short message alone, so it is never split between reads.
            if bytes.windows(8).any(|window| window == b"LISTEN \"")
                && !self.listens.swap(true, Ordering::SeqCst)
            {
                self.counts.listening.fetch_add(1, Ordering::SeqCst);
            }
            if self.is_affected_by(*self.trouble.borrow(), Failing::Reset) {
                return;
            }
            self.wait_for(Failing::Silent, false).await;
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
        // The end of a connection does not pass a silent network either.
        self.wait_for(Failing::Silent, false).await;
    }
}
