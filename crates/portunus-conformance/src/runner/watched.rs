//! Subjects whose calls are monitored: each call has a time limit, and one that hangs or panics
//! ends the check and is reported by name.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, StoredCredits,
};
use portunus::events::SigningStore;
use portunus::key::{KeyDigest, KeyId, KeyRecord, PlanName, SigningState, TenantId};
use portunus::limit::{Decision, LimitRequest, LimiterError, RateLimiter, WindowState};
use portunus::store::{
    BulkOperation, BusError, Invalidation, InvalidationBus, InvalidationListener, KeyLookup,
    KeyStore, ListQuery, OwnerRef, Page, StoreError, StoredKey, Usage, UsageByHour, UsageDelta,
    UsageStore, WriteBatch,
};

use super::Calls;

/// A subject whose calls go through [`Calls`].
pub(crate) struct Watched<T> {
    subject: T,
    calls: Calls,
}

impl<T> Watched<T> {
    pub(crate) const fn new(subject: T, calls: Calls) -> Self {
        Self { subject, calls }
    }
}

/// The subject's own `Debug`: a check verifies that it contains no secrets.
impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyLookup> KeyLookup for Watched<T> {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.calls.call("find", self.subject.find(digests)).await
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let call = || self.subject.find_now(digests);
        self.calls.now("find_now", call).flatten()
    }

    fn knows(&self, digests: &[KeyDigest]) -> bool {
        let call = || self.subject.knows(digests);
        self.calls.now("knows", call).unwrap_or_default()
    }

    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        self.calls.now("bus", || self.subject.bus()).flatten()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: KeyStore> KeyStore for Watched<T> {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.calls.call("get", self.subject.get(id)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.calls.call("list", self.subject.list(query)).await
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let call = self.subject.primaries(owners, at);
        self.calls.call("primaries", call).await
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.calls
            .call("primary", self.subject.primary(owner, at))
            .await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.calls.call("apply", self.subject.apply(batch)).await
    }

    fn record_changes(&self) -> bool {
        let records = || self.subject.record_changes();
        self.calls.now("record_changes", records).unwrap_or(false)
    }

    async fn recorded_changes(&self) -> Result<Vec<(u64, Invalidation)>, StoreError> {
        let call = self.subject.recorded_changes();
        self.calls.call("recorded_changes", call).await
    }

    async fn forget_changes(&self, numbers: &[u64]) -> Result<(), StoreError> {
        let call = self.subject.forget_changes(numbers);
        self.calls.call("forget_changes", call).await
    }

    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        let call = self.subject.bulk_operation(id);
        self.calls.call("bulk_operation", call).await
    }

    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        let call = self.subject.open_bulk_operations();
        self.calls.call("open_bulk_operations", call).await
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        let usage = self.calls.now("usage", || self.subject.usage()).flatten()?;
        Some(Arc::new(Watched::new(usage, self.calls.clone())))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        let signing = self
            .calls
            .now("signing", || self.subject.signing())
            .flatten()?;
        Some(Arc::new(Watched::new(signing, self.calls.clone())))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: CreditStore> CreditStore for Watched<T> {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        self.calls.call("load", self.subject.load(account)).await
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        let call = self.subject.save(account, write);
        self.calls.call("save", call).await
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        let call = self.subject.ledger(account, after, most);
        self.calls.call("ledger", call).await
    }

    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        let call = self.subject.accounts(after, most);
        self.calls.call("accounts", call).await
    }

    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        let call = self.subject.forget_entries(account, last);
        self.calls.call("forget_entries", call).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: UsageStore> UsageStore for Watched<T> {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let call = self.subject.record_usage(batch);
        self.calls.call("record_usage", call).await
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        self.calls
            .call("usage_of", self.subject.usage_of(ids))
            .await
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let call = self.subject.usage_by_hour(id, from, to);
        self.calls.call("usage_by_hour", call).await
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let call = self.subject.forget_usage_before(before);
        self.calls.call("forget_usage_before", call).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: SigningStore> SigningStore for Watched<T> {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.calls
            .call("signing_state", self.subject.signing_state(id))
            .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: RateLimiter> RateLimiter for Watched<T> {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.calls
            .call("acquire", self.subject.acquire(request))
            .await
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        self.calls.call("peek", self.subject.peek(request)).await
    }

    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        let call = || self.subject.try_acquire(request);
        self.calls.now("try_acquire", call).flatten()
    }

    fn counts_together(&self) -> bool {
        let call = || self.subject.counts_together();
        self.calls.now("counts_together", call).unwrap_or(true)
    }

    fn sweep(&self) {
        self.calls.now("sweep", || self.subject.sweep());
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
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

    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        self.calls.call("plan", self.subject.plan(tenant)).await
    }

    fn tenant_changed(&self, tenant: &TenantId) {
        let call = || self.subject.tenant_changed(tenant);
        self.calls.now("tenant_changed", call);
    }

    fn all_changed(&self) {
        self.calls.now("all_changed", || self.subject.all_changed());
    }

    fn sweep(&self) {
        self.calls.now("sweep", || self.subject.sweep());
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: InvalidationBus> InvalidationBus for Watched<T> {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.calls
            .now("subscribe", || self.subject.subscribe(listener));
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        // Publishing on a disconnected node may wait for the connection, and a listener may panic.
        self.calls
            .free_call("publish", self.subject.publish(what))
            .await
    }

    fn store_publishes(&self) -> bool {
        let call = || self.subject.store_publishes();
        self.calls.now("store_publishes", call).unwrap_or_default()
    }

    fn is_lossless(&self) -> bool {
        let call = || self.subject.is_lossless();
        self.calls.now("is_lossless", call).unwrap_or_default()
    }
}
