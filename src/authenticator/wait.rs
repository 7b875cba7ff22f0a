//! The calls that the steps may have to await.

use std::sync::Arc;

use super::Inner;
use super::budget::Refused;
use super::facts::Facts;
use super::path::{Progress, Step};
use super::plans::Asked;
use crate::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use crate::credit::{Purse, Spending, Spent, Unpaid};
use crate::entry::Entry;
use crate::error::{AuthError, ErrorCode};
use crate::limit::{Decision, LimiterError, RateLimiter};
use crate::store::{StoreError, StoredKey};
use crate::telemetry;

/// A call to await, with its arguments.
pub(super) enum Wait {
    /// The store; after waiting for a turn, unless the key is known.
    Lookup {
        known: bool,
    },
    /// The verifier; after waiting for a turn, unless the token is known.
    Token {
        known: bool,
    },
    Owner(Arc<dyn OwnerStanding>, Entry),
    Plan(Arc<dyn Directory>, Entry),
    Limiter(Arc<dyn RateLimiter>),
    Credits(Arc<Spending>, Arc<Purse>),
    Directory(Arc<dyn Directory>, Entry, UserRef),
}

/// The result of an awaited call.
pub(super) enum Answer {
    Key(Result<Option<Arc<StoredKey>>, StoreError>),
    Token(Result<Option<Entry>, AuthError>),
    Owner(Result<Standing, DirectoryError>),
    Plan(Asked),
    Limiter(Result<Decision, LimiterError>),
    Credits(Result<Spent, Unpaid>),
    User(Result<Option<Arc<User>>, DirectoryError>),
}

impl Answer {
    /// Returns the step that waited for it.
    pub(super) fn step(&self) -> Step {
        match self {
            Self::Key(_) => Step::Lookup,
            Self::Token(_) => Step::ExternalToken,
            Self::Owner(_) => Step::Owner,
            Self::Plan(_) => Step::Plan,
            Self::Limiter(_) => Step::Limit,
            Self::Credits(_) => Step::Credits,
            Self::User(_) => Step::Actor,
        }
    }
}

/// Evaluates to the awaited answer, or else to the one that is available at once; otherwise returns
/// what to wait for.
macro_rules! answered {
    ($answer:ident, $kind:ident, $now:expr, $wait:expr) => {
        match $crate::authenticator::wait::taken!($answer) {
            Some(Answer::$kind(answer)) => answer,
            _ => match $now {
                Some(answer) => answer,
                None => return Ok(Some($wait)),
            },
        }
    };
}
pub(super) use answered;

/// Evaluates to the answer, which is taken only where there is one: it is large.
macro_rules! taken {
    ($answer:ident) => {
        $answer.is_some().then(|| $answer.take()).flatten()
    };
}
pub(super) use taken;

impl Wait {
    pub(super) fn owner(owners: &Arc<dyn OwnerStanding>, entry: &Entry) -> Self {
        Self::Owner(Arc::clone(owners), entry.clone())
    }

    pub(super) fn plan(directory: &Arc<dyn Directory>, entry: &Entry) -> Self {
        Self::Plan(Arc::clone(directory), entry.clone())
    }

    pub(super) fn directory(directory: &Arc<dyn Directory>, entry: &Entry, user: &UserRef) -> Self {
        Self::Directory(Arc::clone(directory), entry.clone(), user.clone())
    }
}

impl Inner {
    /// Awaits a call.
    ///
    /// # Errors
    /// Returns an error if no turn was granted, so that the call was not made.
    pub(super) async fn ask(
        &self,
        wait: Wait,
        facts: &Facts,
        so_far: &mut Progress,
    ) -> Result<Answer, AuthError> {
        Ok(match wait {
            Wait::Lookup { known } => {
                let busy = ErrorCode::StoreUnavailable;
                self.enter(known, busy, facts, so_far).await?;
                let asked = self.store.find(facts.digests());
                Answer::Key(telemetry::awaited(telemetry::Step::Store, asked).await)
            }
            Wait::Token { known } => {
                let busy = ErrorCode::VerifierUnavailable;
                self.enter(known, busy, facts, so_far).await?;
                Answer::Token(self.verify_token(facts).await)
            }
            Wait::Owner(owners, entry) => {
                let asked = owners.standing(&entry.record.owner);
                Answer::Owner(telemetry::awaited(telemetry::Step::OwnerStanding, asked).await)
            }
            Wait::Plan(directory, entry) => {
                let tenant = &entry.record.owner.tenant_id;
                Answer::Plan(self.plans.ask(&directory, tenant, &self.limits.table).await)
            }
            Wait::Limiter(limiter) => {
                let (limits, caller) =
                    self.counted_by(facts, so_far.entry.as_deref(), so_far.tenants.as_ref());
                let decided = self.limits.decide(&limiter, limits, caller, facts.cost);
                Answer::Limiter(decided.await)
            }
            Wait::Credits(credits, purse) => {
                Answer::Credits(credits.spend(&purse, facts.credits).await)
            }
            Wait::Directory(directory, entry, user) => {
                let asked = directory.resolve(&entry.record.owner.tenant_id, &user);
                Answer::User(telemetry::awaited(telemetry::Step::Directory, asked).await)
            }
        })
    }

    /// Waits for a turn to look up an unknown key or token.
    async fn enter(
        &self,
        known: bool,
        busy: ErrorCode,
        facts: &Facts,
        so_far: &mut Progress,
    ) -> Result<(), AuthError> {
        if known || so_far.permit.is_some() {
            return Ok(());
        }
        match self.budget.enter(self.counted(facts)).await {
            Ok(permit) => so_far.permit = Some(permit),
            Err(Refused::Failures(wait)) => return Err(AuthError::too_many_failures(wait)),
            Err(Refused::Busy) => {
                return Err(AuthError::unavailable(
                    busy,
                    "too many lookups are in flight",
                ));
            }
        }
        Ok(())
    }
}
