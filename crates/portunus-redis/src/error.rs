//! Errors of this crate. None contains a password or another part of an address than its host and
//! port.

/// Error returned when Redis cannot be used. Its text is one line that says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// An address or a setting is invalid.
    #[error("{0}")]
    Address(String),
    /// What answers is not a server that this crate can use: another kind of server, too old, or in
    /// another mode (a replica, a node of a cluster, a Sentinel).
    #[error("{0}")]
    Server(String),
    /// The user and the password are wrong, or the user lacks a permission
    /// ([the permissions](crate#permissions)).
    #[error("{0}")]
    Permission(String),
    /// The server, the Sentinels or the cluster do not answer, or cannot write.
    #[error("{0}")]
    Unavailable(String),
}
