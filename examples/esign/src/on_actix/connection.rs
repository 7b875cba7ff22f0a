//! Accepts connections for actix-web's server and closes those that stay idle.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::Protocol;
use actix_http::error::DispatchError;
use actix_web::web::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::activity::Activity;
use crate::limits::{HANDSHAKE, HEAD, IDLE};
use crate::lingering::Lingering;

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Accepted = (Connection, Protocol, Option<SocketAddr>);

/// Accepts a connection and determines the version of HTTP, by its first bytes or by ALPN. Times
/// out if the client sends nothing, and returns at once when the server shuts down.
pub(super) async fn accept(
    mut stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shutdown: impl Future<Output = ()>,
) -> Result<Accepted, DispatchError> {
    let peer = stream.peer_addr().ok();
    let (stream, protocol) = if let Some(acceptor) = tls {
        let shaken = timeout(HANDSHAKE, acceptor.accept(stream)).await;
        let stream = shaken.map_err(|_| late())??;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        (Lingering::new(Bytes::new(), stream), protocol)
    } else {
        let first = tokio::select! {
            first = timeout(HEAD, first_bytes(&mut stream)) => first.map_err(|_| late())??,
            () = shutdown => return Err(late()),
        };
        let protocol = match first == PREFACE {
            true => Protocol::Http2,
            false => Protocol::Http1,
        };
        (Lingering::new(first.into(), stream), protocol)
    };
    Ok((Connection::new(stream, protocol), protocol, peer))
}

fn late() -> DispatchError {
    DispatchError::SlowRequestTimeout
}

/// Reads as many bytes as needed to tell HTTP/2 from HTTP/1.1, or fewer if the client closes the
/// connection.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let wanted = (PREFACE.len() - first.len()) as u64;
        if (&mut *stream).take(wanted).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first)
}

/// A connection that times out if the next request does not arrive in time. actix-web's server
/// limits only the first head, and reads an unwanted chunked body without a time limit.
pub(super) struct Connection {
    stream: Lingering,
    pub(super) activity: Arc<Activity>,
    protocol: Protocol,
    /// The idle timer, and how many requests had begun when it was started.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Connection {
    fn new(stream: Lingering, protocol: Protocol) -> Self {
        Self {
            stream,
            activity: Arc::default(),
            protocol,
            waiting: None,
        }
    }

    fn has_timed_out(&mut self, context: &mut Context<'_>) -> bool {
        let begun = self.activity.begun();
        let (patience, applies) = match self.protocol {
            Protocol::Http2 => (IDLE, true),
            // The server itself limits the first head and answers 408.
            _ => (HEAD, begun > 0),
        };
        if !applies || !self.activity.is_idle() {
            self.waiting = None;
            return false;
        }
        let new = || (begun, Box::pin(sleep(patience)));
        let waiting = self.waiting.get_or_insert_with(new);
        if waiting.0 != begun {
            *waiting = new();
        }
        waiting.1.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_timed_out(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // After a response, the server is not polled to read until more input arrives. Checking
        // here too registers the timer, so that the task wakes up for the timeout.
        if self.has_timed_out(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
