//! The one path that every request takes.
//!
//! 1. credential · 2. shape · 3. digest · 4. look-up · 5. standing · 6. environment, transport, network · 7. limit ·
//! 8. actor · 9. principal
//!
//! [`Authenticator::attempt`] answers synchronously what it can, which is everything when the store answers without
//! waiting; for the rest it hands back a future that owns its data and is `Send`. Scopes are demanded by routes,
//! afterwards: what is kept of a key is identity and facts, never a decision.

mod attempt;
mod builder;
mod rules;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use crate::actor::{
    self, ActorMode, Directory, DirectoryError, Intersection, OwnerStanding, User, UserIds, UserRef, Wanted,
};
use crate::clock::Clock;
use crate::credential::{self, Accepted, Credential, Scheme};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Candidates, Delegation, Environment, KeyDigest, KeyHasher, KeyKind, KeyRecord};
use crate::limit::{
    BucketId, Decision, FailureLimits, LimitBucket, LimitRequest, LimiterError, LimiterSlot, LocalLimiter, OnOutage,
    Quotas, RateLimiter,
};
use crate::network::{ClientIp, Transport};
use crate::principal::{Acting, KeyEntry, KeyPrincipal};
use crate::request::RequestHead;
use crate::respond::Responder;
use crate::scope;
use crate::scope::{Scope, ScopeModel, ScopeSet};
use crate::store::{Change, KeyStore, Rejected, StoreError, StoredKey, WriteBatch};
use crate::usage::UsageRecorder;

pub use attempt::{Admission, Attempt, Outcome, PendingAttempt};
pub use builder::{AuthenticatorBuilder, BuildError};
use rules::{is_own_user, may_act_for, may_delegate, network, standing, stands, transport};

/// Authenticates requests. Cloning shares everything.
///
/// ```
/// use portunus::Authenticator;
/// use portunus::key::{Alphabet, KeyFormat};
/// use portunus::store::MemoryStore;
///
/// let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// let authenticator = Authenticator::builder(MemoryStore::new()).bearer([format]).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    accepted: Vec<Accepted>,
    hasher: KeyHasher,
    store: Arc<dyn KeyStore>,
    scope_model: Arc<dyn ScopeModel>,
    environment: Option<Environment>,
    unscoped: Vec<KeyKind>,
    optional: bool,
    clock: Arc<dyn Clock>,
    usage: UsageRecorder,
    transport: Option<Transport>,
    client_ip: ClientIp,
    failures: Option<FailureLimits>,
    limits: Option<Limits>,
    quotas: Quotas,
    tenant_quotas: Option<Quotas>,
    cost_of: Option<Arc<CostOf>>,
    bucket_of: Option<Arc<BucketOf>>,
    owner_standing: Option<Arc<dyn OwnerStanding>>,
    directory: Option<Arc<dyn Directory>>,
    user_ids: UserIds,
    responder: Arc<Responder>,
    /// Tells this authenticator's compiled entries from another's.
    tag: u64,
    /// After a rehash failed: not before this many milliseconds of monotonic time.
    next_rehash: AtomicU64,
}

/// What is remembered of the request's head once the head is gone.
struct Facts {
    now: SystemTime,
    client_ip: Option<IpAddr>,
    /// Whether the connection is as secure as demanded.
    secure: bool,
    wanted: Result<Wanted, AuthError>,
    cost: u64,
    bucket: Option<(String, Quotas)>,
}

type CostOf = dyn Fn(&dyn RequestHead) -> u64 + Send + Sync;
type BucketOf = dyn Fn(&dyn RequestHead) -> Option<(String, Quotas)> + Send + Sync;

/// Step 7, where a host limits.
struct Limits {
    limiter: Arc<dyn RateLimiter>,
    /// Counts while the limiter gives no answer, in mode [`OnOutage::Local`].
    stand_in: LocalLimiter,
    on_outage: OnOutage,
    outages: AtomicU64,
}

impl Authenticator {
    /// Starts an authenticator on this store.
    pub fn builder(store: impl KeyStore) -> AuthenticatorBuilder {
        AuthenticatorBuilder::new(Arc::new(store))
    }

    /// Decides about a request, or begins to.
    pub fn attempt(&self, head: &dyn RequestHead) -> Attempt {
        self.inner.attempt(head).unwrap_or_else(|error| Attempt::Ready(Err(error)))
    }

    /// Decides about a request, waiting where it must. The head is read at once; the future owns its data.
    ///
    /// # Errors
    /// Whatever refuses the request.
    pub fn authenticate(&self, head: &dyn RequestHead) -> impl Future<Output = Outcome> + Send + use<> {
        self.attempt(head).outcome()
    }

    /// The fields that may carry a key, by their names in lower case: to be kept out of logs.
    pub fn secret_fields(&self) -> impl Iterator<Item = &str> {
        let own = self.inner.accepted.iter().filter_map(|way| match &way.scheme {
            Scheme::Header(name) => Some(name.as_str()),
            Scheme::Bearer | Scheme::Basic => None,
        });
        std::iter::once("authorization").chain(own)
    }

    /// How refusals are answered.
    #[must_use]
    pub fn responder(&self) -> &Arc<Responder> {
        &self.inner.responder
    }

    /// What has been counted: to be flushed on an interval and before the process ends.
    #[must_use]
    pub fn usage(&self) -> &UsageRecorder {
        &self.inner.usage
    }

    /// How many requests the limiter gave no answer for.
    #[must_use]
    pub fn limiter_outages(&self) -> u64 {
        self.inner.limits.as_ref().map_or(0, |limits| limits.outages.load(Ordering::Relaxed))
    }

    /// The store that keys are looked up in.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn KeyStore> {
        &self.inner.store
    }
}

impl Inner {
    /// Steps 1 and 2: a text that has the shape of a key, or nobody where that is allowed.
    fn attempt(self: &Arc<Self>, head: &dyn RequestHead) -> Result<Attempt, AuthError> {
        match credential::read(head, &self.accepted)? {
            Credential::Presented(way, value) => {
                credential::with_key(way, value, |key| self.look_up(key, self.facts(head)))
            }
            Credential::Absent if self.optional => Ok(Attempt::Ready(Ok(Admission::nobody()))),
            Credential::Absent => Err(AuthError::new(ErrorCode::MissingKey)),
        }
    }

    fn facts(&self, head: &dyn RequestHead) -> Facts {
        Facts {
            now: self.clock.now(),
            client_ip: self.client_ip.resolve(head),
            secure: self.transport.as_ref().is_none_or(|transport| transport.is_met_by(head)),
            wanted: Wanted::read(head, self.user_ids),
            cost: self.cost_of.as_ref().map_or(1, |cost_of| cost_of(head)),
            bucket: self.bucket_of.as_ref().and_then(|bucket_of| bucket_of(head)),
        }
    }

    /// Steps 3 and 4: the digest, and the key that is stored under it; now if the store can, else in the continuation.
    fn look_up(self: &Arc<Self>, key: &str, facts: Facts) -> Attempt {
        let current = self.hasher.digest(key);
        match self.store.find_now(slice::from_ref(&current)) {
            // Nothing under the current scheme: perhaps under an older one.
            Some(Ok(None)) if self.hasher.has_older() => {
                let all = self.hasher.candidates(key, current);
                match self.store.find_now(all.as_slice()) {
                    Some(found) => self.proceed(found, all.as_slice(), facts),
                    None => self.wait_for(all, facts),
                }
            }
            Some(found) => self.proceed(found, slice::from_ref(&current), facts),
            None => self.wait_for(self.hasher.candidates(key, current), facts),
        }
    }

    /// Step 4 for a store that must be awaited: all digests in one trip, unless this client has failed too often.
    fn wait_for(self: &Arc<Self>, digests: Candidates, mut facts: Facts) -> Attempt {
        if let Some(wait) = self.failures.as_ref().and_then(|failures| failures.blocked(facts.client_ip)) {
            return Attempt::Ready(Err(AuthError::too_many_failures(wait)));
        }
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let found = this.store.find(digests.as_slice()).await;
            // A key may have expired while its store was asked.
            facts.now = this.clock.now();
            this.proceed(found, digests.as_slice(), facts).outcome().await
        })))
    }

    /// Steps 5 to 9, for what the store answered. `digests` begins with the one under the current scheme.
    fn proceed(
        self: &Arc<Self>,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
        facts: Facts,
    ) -> Attempt {
        let identified = self.identify(found, digests, &facts).and_then(|(stored, entry)| {
            standing(&entry.record, facts.now)?;
            Ok((stored, entry))
        });
        match identified {
            Err(error) => Attempt::Ready(Err(error)),
            Ok((stored, entry)) => {
                let attempt = self.owner(entry, facts);
                match digests.first() {
                    Some(&to) if self.is_stale(&stored) => self.rehash(stored, to, attempt),
                    _ => attempt,
                }
            }
        }
    }

    /// Step 5, its last part: how the key's owner stands; now if that can be told, else in the continuation.
    fn owner(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let Some(owners) = &self.owner_standing else { return self.place(entry, facts) };
        if let Some(answer) = owners.standing_now(&entry.record.owner) {
            return match stands(answer) {
                Ok(()) => self.place(entry, facts),
                Err(error) => Attempt::Ready(Err(error)),
            };
        }
        let (this, owners) = (Arc::clone(self), Arc::clone(owners));
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            stands(owners.standing(&entry.record.owner).await)?;
            this.place(entry, facts).outcome().await
        })))
    }

    /// Step 6: environment, transport and network.
    fn place(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let allowed = self
            .environment(&entry.record)
            .and_then(|()| transport(&facts))
            .and_then(|()| network(&entry.record, facts.client_ip));
        match allowed {
            Ok(()) => self.limit(entry, facts),
            Err(error) => Attempt::Ready(Err(error)),
        }
    }

    /// Step 7: all windows at once; now if the limiter can, else in the continuation.
    fn limit(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let Some(limits) = &self.limits else { return self.act(entry, facts, None) };
        let decided = self.with_buckets(&entry, &facts, |request| limits.limiter.try_acquire(request));
        if let Some(decided) = decided {
            return self.limited(limits, entry, facts, decided);
        }
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let Some(limits) = &this.limits else { return this.act(entry, facts, None).outcome().await };
            let decided = {
                let buckets = this.buckets(&entry, &facts);
                limits.limiter.acquire(&LimitRequest::new(&buckets, facts.cost)).await
            };
            this.limited(limits, entry, facts, decided).outcome().await
        })))
    }

    /// What the limiter's answer means, or its silence.
    fn limited(
        self: &Arc<Self>,
        limits: &Limits,
        entry: Arc<KeyEntry>,
        facts: Facts,
        decided: Result<Decision, LimiterError>,
    ) -> Attempt {
        let decided = decided.or_else(|error| {
            // No mode lets pass what could never pass, and nothing is down.
            if matches!(error, LimiterError::Cost { .. }) {
                return Err(error);
            }
            limits.outages.fetch_add(1, Ordering::Relaxed);
            match (limits.on_outage, error) {
                (OnOutage::Closed, error) => Err(error),
                (OnOutage::Open, _) => Ok(Decision::admitted()),
                (OnOutage::Local, _) => self.with_buckets(&entry, &facts, |request| limits.stand_in.decide(request)),
            }
        });
        match decided {
            Ok(decision) if decision.is_admitted() => self.act(entry, facts, Some(decision)),
            Ok(decision) => Attempt::Ready(Err(AuthError::rate_limited(decision))),
            Err(error) => Attempt::Ready(Err(AuthError::unavailable(ErrorCode::LimiterUnavailable, error))),
        }
    }

    /// Step 8: the owner, or whom the directory knows by what the request says; now if it can, else in the continuation.
    fn act(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts, limits: Option<Decision>) -> Attempt {
        let (mode, user) = match &facts.wanted {
            Ok(Wanted::User(mode, user)) if !is_own_user(&entry.record, *mode, user) => (*mode, user.clone()),
            Ok(_) => return Attempt::Ready(Ok(finish(entry, &facts, limits, None))),
            Err(error) => return Attempt::Ready(Err(error.clone().with_limits(limits))),
        };
        let directory = match &self.directory {
            Some(directory) if may_delegate(&entry.record) => directory,
            _ => return Attempt::Ready(Err(AuthError::new(ErrorCode::UnknownActor).with_limits(limits))),
        };
        if let Some(answer) = directory.resolve_now(&entry.record.owner.tenant_id, &user) {
            return Attempt::Ready(self.acting(entry, &facts, limits, (mode, &user), answer));
        }
        let (this, directory) = (Arc::clone(self), Arc::clone(directory));
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let answer = directory.resolve(&entry.record.owner.tenant_id, &user).await;
            this.acting(entry, &facts, limits, (mode, &user), answer)
        })))
    }

    /// Step 8, for what the directory answered: one answer for users who are unknown, foreign or suspended.
    fn acting(
        &self,
        entry: Arc<KeyEntry>,
        facts: &Facts,
        limits: Option<Decision>,
        (mode, named): (ActorMode, &UserRef),
        answer: Result<Option<Arc<User>>, DirectoryError>,
    ) -> Outcome {
        let refused = match answer {
            Err(error) => AuthError::unavailable(ErrorCode::DirectoryUnavailable, error),
            Ok(Some(user)) if may_act_for(&entry.record, &user) => match self.authority(&entry, &user) {
                Ok(scopes) => {
                    let canonical = mode == ActorMode::AppUser && matches!(named, UserRef::Email(_));
                    let canonical_user = canonical.then(|| user.id.clone());
                    let acting = Some((mode, Arc::new(Acting { user, scopes })));
                    return Ok(Admission { canonical_user, ..finish(entry, facts, limits, acting) });
                }
                Err(error) => error,
            },
            Ok(_) => AuthError::new(ErrorCode::UnknownActor),
        };
        Err(refused.with_limits(limits))
    }

    /// What the key has, what its delegation permits, and what the user has: what all of these grant.
    fn authority(&self, entry: &KeyEntry, user: &User) -> Result<Arc<dyn ScopeSet>, AuthError> {
        let of_user = user.scopes.as_ref().map(|scopes| self.scope_model.compile(scopes)).transpose();
        let of_user = of_user.map_err(|error| AuthError::unavailable(ErrorCode::DirectoryUnavailable, error))?;
        let mut sets = vec![Arc::clone(&entry.scopes)];
        sets.extend(entry.delegated.clone());
        sets.extend(of_user);
        Ok(if sets.len() == 1 { sets.remove(0) } else { Arc::new(Intersection::of(sets)) })
    }

    fn with_buckets<R>(&self, entry: &KeyEntry, facts: &Facts, then: impl FnOnce(&LimitRequest<'_>) -> R) -> R {
        then(&LimitRequest::new(&self.buckets(entry, facts), facts.cost))
    }

    fn buckets<'a>(&'a self, entry: &'a KeyEntry, facts: &'a Facts) -> SmallVec<[LimitBucket<'a>; 3]> {
        let record = &entry.record;
        let family = LimitBucket::new(BucketId::Family(&record.family), &entry.quotas).with_slot(&entry.family_slot);
        let mut buckets = SmallVec::new();
        buckets.push(family);
        if let Some(quotas) = &self.tenant_quotas {
            let id = BucketId::Tenant(&record.owner.tenant_id);
            buckets.push(LimitBucket::new(id, quotas).with_slot(&entry.tenant_slot));
        }
        if let Some((name, quotas)) = &facts.bucket {
            buckets.push(LimitBucket::new(BucketId::Custom(name), quotas));
        }
        buckets
    }

    /// The entry of the key that was found, after the constant-time comparison that also a miss goes through.
    fn identify(
        &self,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
        facts: &Facts,
    ) -> Result<(Arc<StoredKey>, Arc<KeyEntry>), AuthError> {
        let found = found.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?;
        let stored = found.as_ref().map(|stored| stored.digest()).or(digests.first());
        let matches = digests.iter().fold(false, |any, digest| any | (Some(digest) == stored));
        let (Some(stored), true) = (found, matches) else { return Err(self.unknown(facts)) };
        let entry = stored.compiled().get_or_try_make(self.tag, || self.compile(stored.record()))?;
        Ok((stored, entry))
    }

    /// A well-formed key that no store knows: counted against the client, never against any key.
    fn unknown(&self, facts: &Facts) -> AuthError {
        match self.failures.as_ref().and_then(|failures| failures.count(facts.client_ip)) {
            Some(wait) => AuthError::too_many_failures(wait),
            None => AuthError::new(ErrorCode::InvalidKey),
        }
    }

    fn compile(&self, record: &Arc<KeyRecord>) -> Result<Arc<KeyEntry>, AuthError> {
        const EVERYTHING: &[Scope] = &[scope!("*")];
        let unreadable = |error| AuthError::unavailable(ErrorCode::StoreUnavailable, error);
        let unscoped = self.unscoped.contains(&record.kind);
        let scopes = self.scope_model.compile(if unscoped { EVERYTHING } else { &record.scopes });
        Ok(Arc::new(KeyEntry {
            record: Arc::clone(record),
            // A grant that cannot be understood refuses the key: nobody can tell what it was meant to allow.
            scopes: scopes.map_err(unreadable)?,
            delegated: match &record.delegation {
                Delegation::Only(scopes) => Some(self.scope_model.compile(scopes).map_err(unreadable)?),
                Delegation::Off | Delegation::On => None,
            },
            quotas: record.quotas.as_ref().unwrap_or(&self.quotas).apart(),
            family_slot: LimiterSlot::new(),
            tenant_slot: LimiterSlot::new(),
            usage: self.usage.cell(&record.id),
            responder: Arc::clone(&self.responder),
        }))
    }

    /// Step 6: a key of another environment than the one that is served.
    fn environment(&self, record: &KeyRecord) -> Result<(), AuthError> {
        match &self.environment {
            Some(bound) if *bound != record.environment => Err(AuthError::new(ErrorCode::WrongEnvironment)),
            _ => Ok(()),
        }
    }

    fn is_stale(&self, stored: &StoredKey) -> bool {
        stored.digest().scheme() != self.hasher.scheme()
            && self.clock.monotonic() >= Duration::from_millis(self.next_rehash.load(Ordering::Relaxed))
    }

    /// Stores the key under the current scheme, once; the attempt comes to the same whatever comes of that.
    fn rehash(self: &Arc<Self>, stored: Arc<StoredKey>, to: KeyDigest, attempt: Attempt) -> Attempt {
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let change = Change::Rehash { id: stored.record().id.clone(), from: *stored.digest(), to };
            match this.store.apply(&WriteBatch::new().change(change)).await {
                Ok(()) => {}
                // Another request, or another node, was quicker.
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Missing(_))) => {}
                // A store that cannot write for now, or will not take the digest back, must not slow every request down.
                Err(_) => {
                    let later = this.clock.monotonic() + REHASH_PAUSE;
                    let later = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
                    this.next_rehash.store(later, Ordering::Relaxed);
                }
            }
            attempt.outcome().await
        })))
    }
}

const REHASH_PAUSE: Duration = Duration::from_secs(60);

/// Step 9: the principal; usage is counted without waiting.
fn finish(
    entry: Arc<KeyEntry>,
    facts: &Facts,
    limits: Option<Decision>,
    acting: Option<(ActorMode, Arc<Acting>)>,
) -> Admission {
    entry.usage.count(facts.now, facts.client_ip);
    let (mode, acting) = acting.map_or_else(|| (actor::own_mode(entry.record.kind), None), |(mode, a)| (mode, Some(a)));
    let principal = KeyPrincipal::new(entry, mode, acting, facts.client_ip);
    Admission { principal: Some(principal), limits, canonical_user: None }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("accepted", &self.inner.accepted)
            .field("hasher", &self.inner.hasher)
            .field("store", &self.inner.store)
            .field("environment", &self.inner.environment)
            .field("optional", &self.inner.optional)
            .finish_non_exhaustive()
    }
}
