//! Errors of stores.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::Rejected;

/// Error returned by a store.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("the key store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    #[error("a stored key cannot be read: {0}")]
    Corrupt(String),
    #[error(transparent)]
    Rejected(Rejected),
    #[error(
        "the change was applied, but is not published to other nodes yet; they will see it within \
         {} seconds",
        within.as_secs_f64()
    )]
    NotPublished {
        within: Duration,
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Creates an error for a store that does not respond: a lost connection, a timeout, an
    /// exhausted pool.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Kind::Unavailable(source.into()))
    }

    /// Creates an error for stored data that cannot be read. `what` names the row and the column,
    /// never a secret or a digest.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self(Kind::Corrupt(what.into()))
    }

    /// Creates an error for a batch that was rejected without any change.
    #[must_use]
    pub fn rejected(condition: Rejected) -> Self {
        Self(Kind::Rejected(condition))
    }

    /// Creates an error for a batch that was applied but not yet published to other nodes, which
    /// may use cached answers for this long. For caches in front of a store. A caller must not
    /// repeat the batch under other conditions, because it has been applied.
    pub fn not_published(
        within: Duration,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self(Kind::NotPublished { within, source })
    }

    /// Returns an error that several waiters share.
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

    /// Returns whether the batch was applied, but not yet published to other nodes.
    #[must_use]
    pub const fn is_not_published(&self) -> bool {
        matches!(self.0, Kind::NotPublished { .. })
    }

    /// Returns whether stored data cannot be read.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self.0, Kind::Corrupt(_))
    }

    /// Returns the name of the data that cannot be read.
    ///
    /// # Errors
    /// Returns any other error unchanged.
    pub(crate) fn into_corrupt(self) -> Result<String, Self> {
        match self.0 {
            Kind::Corrupt(what) => Ok(what),
            _ => Err(self),
        }
    }

    /// Returns why a batch was rejected, if it was.
    #[must_use]
    pub fn as_rejected(&self) -> Option<&Rejected> {
        match &self.0 {
            Kind::Rejected(condition) => Some(condition),
            _ => None,
        }
    }
}
