//! A directory that caches the results of another directory.
//!
//! Users and misses are cached separately, each with its own capacity, so that lookups of
//! nonexistent users evict no existing ones. Outages are not cached.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::directory::{Directory, DirectoryError, User, UserRef};
use crate::clock::{Clock, SystemClock};
use crate::key::{PlanName, TenantId};
use crate::telemetry;

/// A caching [`Directory`] in front of another one. A change to a user takes effect after the time
/// to live at the latest.
pub struct CachedDirectory<D> {
    inner: D,
    found: Cache<(TenantId, UserRef), (Arc<User>, Duration), BySize>,
    missing: Cache<(TenantId, UserRef), Duration, BySize>,
    time_to_live: Duration,
    clock: Arc<dyn Clock>,
    /// The number of calls to `clear`. A result is not cached if it was requested before the last
    /// one.
    clears: AtomicU64,
}

/// The bytes that are reserved per cache entry.
const SHARE: u64 = 2048;

/// Bounds the cache by number of entries and by size: no entry weighs less than its share.
#[derive(Clone)]
struct BySize;

impl BySize {
    fn weight_of(tenant: &TenantId, user: &UserRef, bytes: usize) -> u64 {
        let named = match user {
            UserRef::Id(id) => id.as_str().len(),
            UserRef::Email(email) => email.len(),
        };
        ((tenant.as_str().len() + named + bytes + 128) as u64).max(SHARE)
    }
}

impl Weighter<(TenantId, UserRef), (Arc<User>, Duration)> for BySize {
    fn weight(
        &self,
        (tenant, who): &(TenantId, UserRef),
        (user, _): &(Arc<User>, Duration),
    ) -> u64 {
        let name = |name: &str| name.len() + size_of::<String>();
        let scopes = user
            .scopes
            .iter()
            .flatten()
            .map(|scope| name(scope.as_str()));
        let workspaces = user.workspaces.iter().flatten();
        let names: usize = scopes.chain(workspaces.map(|id| name(id.as_str()))).sum();
        let email = user.email.as_ref().map_or(0, String::len);
        let bytes = size_of::<User>() + user.id.as_str().len() + email + names;
        Self::weight_of(tenant, who, bytes)
    }
}

impl Weighter<(TenantId, UserRef), Duration> for BySize {
    fn weight(&self, (tenant, who): &(TenantId, UserRef), _: &Duration) -> u64 {
        Self::weight_of(tenant, who, 0)
    }
}

impl<D: Directory> CachedDirectory<D> {
    /// The maximum time to live.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Creates a cache for up to `capacity` users and as many misses. A time to live above
    /// [`LONGEST`](Self::LONGEST) is reduced to it. Users and misses may each take 2 KiB per entry
    /// on average; if they take more, fewer entries are kept.
    pub fn new(inner: D, capacity: usize, time_to_live: Duration) -> Self {
        let room = SHARE.saturating_mul(capacity as u64);
        Self {
            inner,
            found: Cache::with_weighter(capacity, room, BySize),
            missing: Cache::with_weighter(capacity, room, BySize),
            time_to_live: time_to_live.min(Self::LONGEST),
            clock: Arc::new(SystemClock::default()),
            clears: AtomicU64::new(0),
        }
    }

    /// Sets the clock; the system clock by default.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Clears the cache: the next request sees all changes.
    pub fn clear(&self) {
        self.clears.fetch_add(1, Ordering::SeqCst);
        self.found.clear();
        self.missing.clear();
    }

    fn remembered(&self, key: &(TenantId, UserRef)) -> Option<Option<Arc<User>>> {
        let now = self.clock.monotonic();
        if let Some((user, until)) = self.found.get(key)
            && now < until
        {
            return Some(Some(user));
        }
        self.missing
            .get(key)
            .filter(|until| now < *until)
            .map(|_| None)
    }

    fn remember(&self, key: (TenantId, UserRef), asked: Duration, answer: Option<&Arc<User>>) {
        // Counted from the start of the lookup, so that a slow lookup does not extend the lifetime.
        let until = asked + self.time_to_live;
        match answer {
            Some(user) => {
                self.missing.remove(&key);
                self.found.insert(key, (Arc::clone(user), until));
            }
            None => {
                self.found.remove(&key);
                self.missing.insert(key, until);
            }
        }
    }
}

#[async_trait]
impl<D: Directory> Directory for CachedDirectory<D> {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let key = (tenant.clone(), user.clone());
        if let Some(remembered) = self.remembered(&key) {
            telemetry::cache(telemetry::Cache::Directory, true);
            return Ok(remembered);
        }
        telemetry::cache(telemetry::Cache::Directory, false);
        let (asked, clears) = (self.clock.monotonic(), self.clears.load(Ordering::SeqCst));
        let answer = self.inner.resolve(tenant, user).await?;
        if self.clears.load(Ordering::SeqCst) == clears {
            self.remember(key.clone(), asked, answer.as_ref());
            // `clear` was called in between: remove the result again.
            if self.clears.load(Ordering::SeqCst) != clears {
                self.found.remove(&key);
                self.missing.remove(&key);
            }
        }
        Ok(answer)
    }

    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        match self.remembered(&(tenant.clone(), user.clone())) {
            Some(remembered) => {
                telemetry::cache(telemetry::Cache::Directory, true);
                Some(Ok(remembered))
            }
            // `resolve` counts the miss, if it is called next.
            None => self.inner.resolve_now(tenant, user),
        }
    }

    /// Not cached here: the service keeps plans for its own bounded time.
    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        self.inner.plan(tenant).await
    }

    fn tenant_changed(&self, tenant: &TenantId) {
        self.inner.tenant_changed(tenant);
        self.clears.fetch_add(1, Ordering::SeqCst);
        // A collaborator belongs to another tenant than the one that asked.
        self.found
            .retain(|(of, _), (user, _)| of != tenant && user.tenant_id != *tenant);
        self.missing.retain(|(of, _), _| of != tenant);
    }

    fn all_changed(&self) {
        self.inner.all_changed();
        self.clears.fetch_add(1, Ordering::SeqCst);
        self.found.clear();
        self.missing.clear();
    }

    fn sweep(&self) {
        let now = self.clock.monotonic();
        self.found.retain(|_, (_, until)| now < *until);
        self.missing.retain(|_, until| now < *until);
        self.inner.sweep();
    }
}

impl<D: fmt::Debug> fmt::Debug for CachedDirectory<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedDirectory")
            .field("inner", &self.inner)
            .field("time_to_live", &self.time_to_live)
            .finish_non_exhaustive()
    }
}
