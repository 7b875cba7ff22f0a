//! Why an act of management was not done.

use super::{Denied, ManagedKey};
use crate::audit::AuditError;
use crate::error::{AuthError, ErrorCode};
use crate::key::{GenerateError, KeyId};
use crate::store::{Rejected, StoreError};

/// Why a management act was not done. Nothing was changed then, but where the store gave no answer,
/// and for [`NotPublished`](Self::NotPublished), which was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManageError {
    /// There is no such key.
    #[error("there is no key {0}")]
    NotFound(KeyId),
    /// What was asked for cannot be: which field, and why.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No more keys may be active.
    #[error("{active} keys would be active; {limit} is the most")]
    QuotaExceeded {
        /// How many there would be.
        active: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The operator may not do this.
    #[error(transparent)]
    Forbidden(#[from] Denied),
    /// The host's own rules refuse this, or could not be asked.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// The key is not in a state in which this can be done.
    #[error("{0}")]
    Conflict(&'static str),
    /// A newer version wrote its record ([`KeyRecord::needs`](crate::key::KeyRecord::needs)): here
    /// it can only be revoked, disabled or deleted.
    #[error(
        "the key's record is for programs that understand {needs}, this one understands \
         {understands}: it can only be revoked, disabled or deleted here",
        understands = crate::key::KeyRecord::UNDERSTANDS
    )]
    Newer {
        /// The number that a program must understand to change it.
        needs: u64,
    },
    /// It is no longer at the version that was expected.
    #[error("the key is at version {stored}, not {expected}")]
    Changed {
        /// The version that was expected.
        expected: u64,
        /// The version that is stored.
        stored: u64,
    },
    /// The precondition of [`KeyManager::only_if`](super::KeyManager::only_if) does not hold:
    /// nothing was done.
    #[error("the key was modified since it was read, or the precondition names no version of it")]
    PreconditionFailed,
    /// A key with this digest is known, or was.
    #[error("a key with this digest is known already")]
    DigestKnown,
    /// The same request was done before: this is the key that it made, without its secret.
    #[error("this was done before")]
    DoneBefore(Box<ManagedKey>),
    /// Somebody else changed it at the same time, again and again.
    #[error("the key is being changed by others; try again")]
    Contended,
    /// No key could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The store gave no answer, or refused.
    #[error(transparent)]
    Store(StoreError),
    /// It was done, and a key may do less than before; but other nodes could not be told yet, and may
    /// use what they remember for as long as the error says. They are told as soon as the bus works;
    /// doing the same again is harmless, and tells them too. A key that was issued, imported or
    /// rotated is returned all the same, without this error.
    #[error(transparent)]
    NotPublished(StoreError),
    /// The log of events gave no answer.
    #[error(transparent)]
    Log(AuditError),
}

impl ManageError {
    /// The stable code.
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
            Self::Generate(_) | Self::Store(_) | Self::NotPublished(_) | Self::Log(_) => {
                ErrorCode::StoreUnavailable
            }
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
