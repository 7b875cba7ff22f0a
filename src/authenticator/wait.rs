//! What the steps may have to wait for, and how each is asked.

use std::sync::Arc;

use super::Inner;
use super::budget::Refused;
use super::facts::Facts;
use super::path::Progress;
use crate::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use crate::error::{AuthError, ErrorCode};
use crate::limit::{Decision, LimiterError, RateLimiter};
use crate::principal::KeyEntry;
use crate::store::{StoreError, StoredKey};
use crate::telemetry::{self, Step};

/// What is awaited, with all that it is asked.
pub(super) enum Wait {
    /// The store, in its turn unless the key is known.
    Lookup {
        known: bool,
    },
    /// The verifier, in its turn unless the token is known.
    Token {
        known: bool,
    },
    Owner(Arc<dyn OwnerStanding>, Arc<KeyEntry>),
    Limiter(Arc<dyn RateLimiter>, Arc<KeyEntry>),
    Directory(Arc<dyn Directory>, Arc<KeyEntry>, UserRef),
}

/// What it answered.
pub(super) enum Answer {
    Key(Result<Option<Arc<StoredKey>>, StoreError>),
    Token(Result<Option<Arc<KeyEntry>>, AuthError>),
    Owner(Result<Standing, DirectoryError>),
    Limiter(Result<Decision, LimiterError>),
    User(Result<Option<Arc<User>>, DirectoryError>),
    /// It was not asked.
    Refused(AuthError),
}

/// The answer that was waited for, else the one that is there at once; else what to wait for.
macro_rules! answered {
    ($answer:ident, $kind:ident, $now:expr, $wait:expr) => {
        match $answer.take() {
            Some(Answer::$kind(answer)) => answer,
            Some(Answer::Refused(error)) => return Err(error),
            _ => match $now {
                Some(answer) => answer,
                None => return Ok(Some($wait)),
            },
        }
    };
}
pub(super) use answered;

impl Wait {
    pub(super) fn owner(owners: &Arc<dyn OwnerStanding>, entry: &Arc<KeyEntry>) -> Self {
        Self::Owner(Arc::clone(owners), Arc::clone(entry))
    }

    pub(super) fn limiter(limiter: &Arc<dyn RateLimiter>, entry: &Arc<KeyEntry>) -> Self {
        Self::Limiter(Arc::clone(limiter), Arc::clone(entry))
    }

    pub(super) fn directory(
        directory: &Arc<dyn Directory>,
        entry: &Arc<KeyEntry>,
        user: &UserRef,
    ) -> Self {
        Self::Directory(Arc::clone(directory), Arc::clone(entry), user.clone())
    }
}

impl Inner {
    /// Awaits an answer.
    pub(super) async fn ask(&self, wait: Wait, facts: &Facts, so_far: &mut Progress) -> Answer {
        match wait {
            Wait::Lookup { known } => {
                if let Err(error) = self
                    .enter(known, ErrorCode::StoreUnavailable, facts, so_far)
                    .await
                {
                    return Answer::Refused(error);
                }
                let asked = self.store.find(facts.digests());
                Answer::Key(telemetry::awaited(Step::Store, asked).await)
            }
            Wait::Token { known } => {
                let entered = self.enter(known, ErrorCode::VerifierUnavailable, facts, so_far);
                match entered.await {
                    Ok(()) => Answer::Token(self.verify_token(facts).await),
                    Err(error) => Answer::Refused(error),
                }
            }
            Wait::Owner(owners, entry) => {
                let asked = owners.standing(&entry.record.owner);
                Answer::Owner(telemetry::awaited(Step::OwnerStanding, asked).await)
            }
            Wait::Limiter(limiter, entry) => {
                Answer::Limiter(self.limits.decide(&limiter, &entry, facts).await)
            }
            Wait::Directory(directory, entry, user) => {
                let asked = directory.resolve(&entry.record.owner.tenant_id, &user);
                Answer::User(telemetry::awaited(Step::Directory, asked).await)
            }
        }
    }

    /// Waits for the turn to look up what is not known.
    async fn enter(
        &self,
        known: bool,
        busy: ErrorCode,
        facts: &Facts,
        so_far: &mut Progress,
    ) -> Result<(), AuthError> {
        if known || so_far.place.is_some() {
            return Ok(());
        }
        match self.budget.enter(self.counted(facts)).await {
            Ok(place) => so_far.place = Some(place),
            Err(Refused::Failures(wait)) => return Err(AuthError::too_many_failures(wait)),
            Err(Refused::Busy) => {
                return Err(AuthError::unavailable(
                    busy,
                    "too many look-ups are in flight",
                ));
            }
        }
        Ok(())
    }
}
