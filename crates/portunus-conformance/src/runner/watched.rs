//! Subjects whose calls are watched: each call has a limit of time, and one that hangs or panics
//! ends the check by its name.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::key::TenantId;
use portunus::limit::{Decision, LimitRequest, LimiterError, RateLimiter};
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};

use super::Calls;

/// A subject that makes its calls by [`Calls`].
#[derive(Debug)]
pub(crate) struct Watched<T> {
    subject: T,
    calls: Calls,
}

impl<T> Watched<T> {
    pub(crate) const fn new(subject: T, calls: Calls) -> Self {
        Self { subject, calls }
    }
}

#[async_trait]
impl<T: RateLimiter> RateLimiter for Watched<T> {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.calls
            .call("acquire", self.subject.acquire(request))
            .await
    }

    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        let call = || self.subject.try_acquire(request);
        self.calls.now("try_acquire", call).flatten()
    }
}

#[async_trait]
impl<T: Directory> Directory for Watched<T> {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let call = self.subject.resolve(tenant, user);
        self.calls.call("resolve", call).await
    }

    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        let call = || self.subject.resolve_now(tenant, user);
        self.calls.now("resolve_now", call).flatten()
    }
}

#[async_trait]
impl<T: InvalidationBus> InvalidationBus for Watched<T> {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.calls
            .now("subscribe", || self.subject.subscribe(listener));
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        // One that is cut off may wait until it is not.
        self.calls
            .slow_call("publish", self.subject.publish(what))
            .await
    }

    fn is_told_by_the_store(&self) -> bool {
        let call = || self.subject.is_told_by_the_store();
        self.calls
            .now("is_told_by_the_store", call)
            .unwrap_or_default()
    }

    fn never_misses(&self) -> bool {
        let call = || self.subject.never_misses();
        self.calls.now("never_misses", call).unwrap_or_default()
    }
}
