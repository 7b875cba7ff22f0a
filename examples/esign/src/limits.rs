//! Time and size limits for clients, the same on both servers.

use std::time::Duration;

/// How long a client may take to send its first complete request head, and later to send the next
/// one. actix-web's default.
pub(crate) const HEAD: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take. actix-web's default.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(3);

/// How long an HTTP/2 connection may stay open without a request.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// The maximum number of field lines and of bytes in a head. actix-web's server has these limits
/// built in for HTTP/1.1.
pub(crate) const FIELDS: usize = 96;
pub(crate) const HEAD_BYTES: u32 = 131_072;

/// How long, and how many bytes, of unwanted input are read and discarded, so that a client that
/// finishes sending before it reads still receives the response.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 64 * 1024 * 1024;
