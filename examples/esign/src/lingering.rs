//! A connection that can be closed without losing the last response.
//!
//! If a socket is closed while bytes from the client are still unread, the operating system resets
//! the connection, and the client may lose the response. So dropping a [`Lingering`] closes only
//! the write half; further input is read for a limited time and discarded (RFC 9112 §9.6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::limits::{LINGER, LINGER_BYTES};

/// The byte stream of a connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A connection that lingers when it is dropped; see the module.
pub(crate) struct Lingering {
    /// Bytes that were read before the connection was wrapped.
    first: Bytes,
    /// `None` once it has been dropped.
    stream: Option<Box<dyn Stream>>,
    /// Whether the client has closed its side, so that there is nothing to linger for.
    ended: bool,
}

impl Lingering {
    /// Wraps a connection from which the bytes `first` have already been read.
    pub(crate) fn new(first: Bytes, stream: impl Stream) -> Self {
        Self {
            first,
            stream: Some(Box::new(stream)),
            ended: false,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut dyn Stream>> {
        match &mut self.stream {
            Some(stream) => Ok(Pin::new(&mut **stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining();
        ready!(self.stream()?.poll_read(context, buffer))?;
        if buffer.remaining() == room && room > 0 {
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // There is no runtime any more while the process exits.
        if let (Some(stream), Ok(runtime)) = (self.stream.take(), Handle::try_current()) {
            runtime.spawn(timeout(LINGER, linger(stream)));
        }
    }
}

async fn linger(mut stream: Box<dyn Stream>) -> io::Result<()> {
    stream.shutdown().await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
