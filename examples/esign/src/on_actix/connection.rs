//! How a connection to actix-web's server begins, and how long it stays without a request.

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

/// How HTTP/2 without TLS begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Accepted = (Connection, Protocol, Option<SocketAddr>);

/// A connection that speaks HTTP, and in which version: by its first bytes, or by TLS. Whoever sends
/// nothing is not waited for, and not at all once the server is told to stop.
pub(super) async fn accept(
    mut stream: TcpStream,
    tls: Option<TlsAcceptor>,
    told_to_stop: impl Future<Output = ()>,
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
            () = told_to_stop => return Err(late()),
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

/// As many as it takes to tell HTTP/2 from HTTP/1.1; none where the client ends the connection.
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

/// A connection that ends where the next request does not come in time: actix-web's server limits
/// the first head only, and reads a chunked body that nobody wants for as long as it comes.
pub(super) struct Connection {
    stream: Lingering,
    pub(super) activity: Arc<Activity>,
    protocol: Protocol,
    /// Until when it is, and how many requests had begun by then.
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

    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        let begun = self.activity.begun();
        let (patience, is_limited) = match self.protocol {
            Protocol::Http2 => (IDLE, true),
            // The server's own limit holds for the first head, and has an answer (408).
            _ => (HEAD, begun > 0),
        };
        if !is_limited || !self.activity.is_idle() {
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
        if self.is_given_up(context) {
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
        // After an answer the server does not read until more comes: it is to wake up for the limit.
        if self.is_given_up(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
