//! Errors of management operations.

use super::{Denied, ManagedKey};
use crate::audit::AuditError;
use crate::credit::CreditError;
use crate::error::{AuthError, ErrorCode};
use crate::key::{GenerateError, KeyId};
use crate::store::{Rejected, StoreError};

/// Error returned by management operations. Nothing was changed, except possibly for
/// [`Store`](Self::Store), if the store did not answer, and for
/// [`NotPublished`](Self::NotPublished), where the operation was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManageError {
    /// The key does not exist.
    #[error("key {0} not found")]
    NotFound(KeyId),
    /// A value of the request is invalid.
    #[error("{field}: {reason}")]
    Invalid {
        /// The invalid field.
        field: &'static str,
        /// Why the value is invalid.
        reason: String,
    },
    /// The quota of active keys is used up.
    #[error("{active} active keys would exceed the limit of {limit}")]
    QuotaExceeded {
        /// The number of active keys that there would be.
        active: u64,
        /// The maximum number of active keys.
        limit: u64,
    },
    /// The policy refuses the operation to this operator.
    #[error(transparent)]
    Forbidden(#[from] Denied),
    /// The host's own rules refused the request or failed.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// The key's status does not allow the operation.
    #[error("{0}")]
    Conflict(&'static str),
    /// The record was written by a newer version
    /// ([`KeyRecord::needs`](crate::key::KeyRecord::needs)): this version can only revoke, disable
    /// or delete the key.
    #[error(
        "the key's record requires format {needs}, but this version understands only \
         {understands}: it can only be revoked, disabled or deleted here",
        understands = crate::key::KeyRecord::UNDERSTANDS
    )]
    Newer {
        /// The format number that a program must understand to change the key.
        needs: u64,
    },
    /// The key is no longer at the expected version.
    #[error("the key is at version {stored}, not {expected}")]
    Changed {
        /// The expected version.
        expected: u64,
        /// The stored version.
        stored: u64,
    },
    /// The precondition of [`KeyManager::only_if`](super::KeyManager::only_if) does not hold.
    /// Nothing was changed.
    #[error(
        "the key was modified since it was read, or the precondition does not match its version"
    )]
    PreconditionFailed,
    /// A key with this digest exists or existed.
    #[error("a key with this digest already exists or existed")]
    DigestKnown,
    /// The same request was completed before. Contains the key that it created, without its secret.
    #[error("this request was already completed")]
    DoneBefore(Box<ManagedKey>),
    /// The key was modified concurrently on every attempt.
    #[error("the key is being modified concurrently; try again")]
    Contended,
    /// Key generation failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The store did not answer, or refused the operation.
    #[error(transparent)]
    Store(StoreError),
    /// The operation was done and may have restricted a key, but the change could not be published
    /// to other nodes. They may use cached data for as long as the error says. The change is
    /// published as soon as the bus works again; repeating the operation is harmless and publishes
    /// it too. Issuing, importing and rotating return their key and not this error.
    #[error(transparent)]
    NotPublished(StoreError),
    /// Credits could not be read or changed.
    #[error(transparent)]
    Credits(#[from] CreditError),
    /// The event log did not answer.
    #[error(transparent)]
    Log(AuditError),
}

impl ManageError {
    /// Returns the stable error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Invalid { .. } => ErrorCode::InvalidBody,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::Refused(error) => error.code(),
            Self::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            Self::Conflict(_)
            | Self::Newer { .. }
            | Self::DigestKnown
            | Self::DoneBefore(_)
            | Self::Contended => ErrorCode::Conflict,
            Self::Changed { .. } | Self::PreconditionFailed => ErrorCode::PreconditionFailed,
            Self::Credits(CreditError::Invalid(_)) => ErrorCode::InvalidBody,
            Self::Credits(CreditError::NotFound(_)) => ErrorCode::NotFound,
            Self::Credits(CreditError::Conflict(_) | CreditError::Exhausted) => ErrorCode::Conflict,
            Self::Credits(CreditError::Unavailable(_) | CreditError::Unreadable(_))
            | Self::Generate(_)
            | Self::Store(_)
            | Self::NotPublished(_)
            | Self::Log(_) => ErrorCode::StoreUnavailable,
        }
    }

    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }
}

impl From<StoreError> for ManageError {
    fn from(error: StoreError) -> Self {
        match error.as_rejected() {
            Some(Rejected::TooManyActive { active, limit }) => Self::QuotaExceeded {
                active: *active,
                limit: *limit,
            },
            Some(Rejected::Missing(id)) => Self::NotFound(id.clone()),
            Some(Rejected::DigestKnown) => Self::DigestKnown,
            _ => Self::Store(error),
        }
    }
}
