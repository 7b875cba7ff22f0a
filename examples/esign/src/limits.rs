//! How long a client may take, and how much it may send: the same on both servers.

use std::time::Duration;

/// How long a connection may take to its first whole head, and the next head to come and end:
/// actix-web's default.
pub(crate) const HEAD: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take: actix-web's default.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(3);

/// How long an HTTP/2 connection may stay open without a request.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// How many field lines a head may have, and how many bytes: what actix-web's server has built in
/// for HTTP/1.1.
pub(crate) const FIELDS: usize = 96;
pub(crate) const HEAD_BYTES: u32 = 131_072;

/// How long, and how much, is read of what nobody wants, so that a client which sends before it
/// reads finds the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
pub(crate) const LINGER_BYTES: usize = 64 * 1024 * 1024;
