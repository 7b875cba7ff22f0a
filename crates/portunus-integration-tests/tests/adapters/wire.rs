//! A minimal HTTP/1.1 client on a real socket: exact bytes sent and received, with timeouts.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

pub(crate) use portunus_test_support::wait::{PATIENCE, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves an app on a free port, HTTP/1.1 and HTTP/2.
pub(crate) async fn serve(app: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case, in the order on the wire.
    pub(crate) fields: Vec<(String, String)>,
}

impl Reply {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
    pub(crate) fn content_length(&self) -> Option<usize> {
        self.get("content-length").map(|text| text.parse().unwrap())
    }
}

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// A request without a body: the request line, then its fields.
    pub(crate) async fn ask(&mut self, line: &str, fields: &[(&str, &str)]) -> Reply {
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        self.send(format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
        ))
        .await;
        self.reply().await
    }

    /// Sends more bytes; returns `false` if the other side has closed the connection.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // A reset connection counts as closed.
        let count = soon(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }

    async fn through(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self
                .read
                .windows(end.len())
                .position(|window| window == end)
            {
                let taken = self.read.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(
                self.more().await,
                "closed in the middle of {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads the next head, whatever its status; `100 Continue` is one.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.through(b"\r\n\r\n").await;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        Reply {
            status,
            fields: fields
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
        }
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> String {
        while self.read.len() < count {
            assert!(self.more().await, "closed in the middle of a body");
        }
        String::from_utf8(self.read.drain(..count).collect()).unwrap()
    }

    pub(crate) async fn body(&mut self, reply: &Reply) -> String {
        self.exactly(reply.content_length().expect("a content-length"))
            .await
    }

    /// Reads the next chunk of a chunked body; the last one is empty.
    pub(crate) async fn chunk(&mut self) -> String {
        let size = self.through(b"\r\n").await;
        let text = self
            .exactly(usize::from_str_radix(size.trim_end(), 16).unwrap() + 2)
            .await;
        text.trim_end_matches("\r\n").to_owned()
    }

    /// Reads the first bytes of a chunked binary body.
    pub(crate) async fn first_chunk_bytes(&mut self) -> Vec<u8> {
        let size = self.through(b"\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        while self.read.len() < size {
            assert!(self.more().await, "closed in the middle of a body");
        }
        self.read.drain(..size).collect()
    }

    /// Whether the other side closes the connection without sending more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }
}
