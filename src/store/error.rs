//! Why a store did not do what it was asked.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::Rejected;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("the key store gave no answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    #[error("a stored key cannot be read: {0}")]
    Corrupt(String),
    #[error(transparent)]
    Rejected(Rejected),
    #[error(
        "the change is applied, but other nodes could not be told of it yet; they follow within {} \
         seconds",
        within.as_secs_f64()
    )]
    NotPublished {
        within: Duration,
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Storage gave no answer: a lost connection, a timeout, an exhausted pool.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Kind::Unavailable(source.into()))
    }

    /// What is stored cannot be understood. Say which row and which column, never a secret or
    /// digest.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self(Kind::Corrupt(what.into()))
    }

    /// A condition of a batch did not hold, and nothing was changed.
    #[must_use]
    pub fn rejected(condition: Rejected) -> Self {
        Self(Kind::Rejected(condition))
    }

    /// A batch is applied, but other nodes could not be told of it yet: they may use what they
    /// remember for this long. For caches in front of a store; whoever sees this must not do the same
    /// again under other conditions, because it is done.
    pub fn not_published(
        within: Duration,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self(Kind::NotPublished { within, source })
    }

    /// The same error, which several wait for.
    pub(crate) fn shared(error: Arc<Self>) -> Self {
        match Arc::try_unwrap(error) {
            Ok(error) => error,
            Err(error) => match &error.0 {
                Kind::Corrupt(what) => Self::corrupt(what.clone()),
                Kind::Rejected(condition) => Self::rejected(condition.clone()),
                Kind::Unavailable(_) | Kind::NotPublished { .. } => Self::unavailable(error),
            },
        }
    }

    /// Whether the batch is applied all the same, and only other nodes could not be told yet.
    #[must_use]
    pub const fn is_not_published(&self) -> bool {
        matches!(self.0, Kind::NotPublished { .. })
    }

    /// Whether what is stored cannot be understood.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self.0, Kind::Corrupt(_))
    }

    /// What cannot be understood, if that is what happened.
    ///
    /// # Errors
    /// Any other error, as it is.
    pub(crate) fn into_corrupt(self) -> Result<String, Self> {
        match self.0 {
            Kind::Corrupt(what) => Ok(what),
            _ => Err(self),
        }
    }

    /// The condition that did not hold, if that is what happened.
    #[must_use]
    pub fn as_rejected(&self) -> Option<&Rejected> {
        match &self.0 {
            Kind::Rejected(condition) => Some(condition),
            _ => None,
        }
    }
}
