//! Bytes that may contain a secret: wiped on drop and when the buffer grows.

use std::io;
use std::ops::Deref;

use axum::body::Bytes;
use zeroize::{Zeroize, Zeroizing};

/// A buffer that leaves no copy of its content in memory.
#[derive(Default)]
pub(crate) struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// Creates a buffer that holds this many bytes before it grows.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends bytes. A `Vec` that grows by itself would free its old memory without wiping it.
    pub(crate) fn push(&mut self, more: &[u8]) {
        let needed = self.0.len() + more.len();
        if needed > self.0.capacity() {
            let mut grown = Self::with_capacity(needed.max(2 * self.0.capacity()));
            grown.0.extend_from_slice(&self.0);
            *self = grown;
        }
        self.0.extend_from_slice(more);
    }

    /// Appends received bytes and wipes their source if it is not shared. A server that hands out
    /// slices of its read buffer still shares it.
    pub(crate) fn take(&mut self, data: Bytes) {
        self.push(&data);
        if let Ok(mut own) = data.try_into_mut() {
            own.zeroize();
        }
    }

    /// Converts the buffer into response bytes, which are wiped when the server drops them.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl io::Write for Wiped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.push(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
