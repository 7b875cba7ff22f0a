//! How long a client may take, and how much it may send: the same on both servers.

use std::time::Duration;

/// How long a connection may take to its first whole head, and the next head to come and end:
/// actix-web's default.
pub(crate) const HEAD: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an HTTP/2 connection may stay open without a request.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// How many field lines a head may have, and how many bytes: what actix-web's server has built in.
pub(crate) const FIELDS: usize = 96;
pub(crate) const HEAD_BYTES: u32 = 131_072;

/// How long the rest of a refused body is read after the answer, so that a client which sends
/// before it reads finds the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// The same on actix-web, which keeps every connection open for so long whose request's body was
/// left unread, however short: a client that waits for its end waits for this.
pub(crate) const LINGER_ON_ACTIX: Duration = Duration::from_secs(2);

/// How many bytes of it are read at most (axum; actix-web's server knows the time only).
pub(crate) const LINGER_BYTES: usize = 64 * 1024 * 1024;
