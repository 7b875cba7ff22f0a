//! The one path that every request takes.
//!
//! 1. credential · 2. shape · 3. digest · 4. look-up · 5. standing · 6. environment (then transport and network) ·
//! 7. limit · 8. actor · 9. principal
//!
//! [`Authenticator::attempt`] answers synchronously what it can, which is everything when the store answers without
//! waiting; for the rest it hands back a future that owns its data and is `Send`. Scopes are demanded by routes,
//! afterwards: what is kept of a key is identity and facts, never a decision.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use crate::actor::Wanted;
use crate::clock::{Clock, SystemClock};
use crate::credential::{self, Accepted, Credential, Scheme};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Candidates, Environment, KeyDigest, KeyFormat, KeyHasher, KeyKind, KeyRecord, KeyStatus};
use crate::principal::{KeyEntry, KeyPrincipal};
use crate::request::RequestHead;
use crate::respond::{Challenges, ProblemDetails, RejectionRenderer, Responder};
use crate::scope;
use crate::scope::{Scope, ScopeModel, WildcardModel};
use crate::store::{Change, KeyStore, StoreError, StoredKey, WriteBatch};
use crate::usage::UsageRecorder;

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
    responder: Arc<Responder>,
    /// Tells this authenticator's compiled entries from another's.
    tag: u64,
    /// After a rehash failed: not before this many milliseconds of monotonic time.
    next_rehash: AtomicU64,
}

/// What came of a request: somebody, or nobody where authentication is optional.
pub type Outcome = Result<Option<KeyPrincipal>, AuthError>;

/// The answer to an attempt.
#[derive(Debug)]
#[must_use = "an attempt that is dropped lets nobody in"]
pub enum Attempt {
    /// It is decided.
    Ready(Outcome),
    /// It must be awaited; the request is no longer needed for it.
    Pending(PendingAttempt),
}

/// The rest of an attempt. It owns its data, so the request may be kept elsewhere or be no `Send`.
#[must_use = "futures do nothing unless polled"]
pub struct PendingAttempt(Pin<Box<dyn Future<Output = Outcome> + Send>>);

impl Future for PendingAttempt {
    type Output = Outcome;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingAttempt")
    }
}

/// What is remembered of the request's head once the head is gone.
struct Facts {
    now: SystemTime,
    client_ip: Option<IpAddr>,
    wanted: Result<Wanted, AuthError>,
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

    /// Decides about a request, waiting where it must.
    ///
    /// # Errors
    /// Whatever refuses the request.
    pub async fn authenticate(&self, head: &dyn RequestHead) -> Outcome {
        match self.attempt(head) {
            Attempt::Ready(outcome) => outcome,
            Attempt::Pending(pending) => pending.await,
        }
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
            Credential::Absent if self.optional => Ok(Attempt::Ready(Ok(None))),
            Credential::Absent => Err(AuthError::new(ErrorCode::MissingKey)),
        }
    }

    fn facts(&self, head: &dyn RequestHead) -> Facts {
        Facts { now: self.clock.now(), client_ip: head.peer_ip(), wanted: Wanted::read(head) }
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

    /// Step 4 for a store that must be awaited: all digests in one trip.
    fn wait_for(self: &Arc<Self>, digests: Candidates, facts: Facts) -> Attempt {
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let found = this.store.find(digests.as_slice()).await;
            match this.proceed(found, digests.as_slice(), facts) {
                Attempt::Ready(outcome) => outcome,
                Attempt::Pending(pending) => pending.await,
            }
        })))
    }

    /// Steps 5 to 9, for what the store answered. `digests` begins with the one under the current scheme.
    fn proceed(
        self: &Arc<Self>,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
        facts: Facts,
    ) -> Attempt {
        let decided = self.identify(found, digests).and_then(|(stored, entry)| {
            standing(&entry.record, facts.now)?;
            self.environment(&entry.record)?;
            let mode = facts.wanted?.resolve(&entry.record)?;
            entry.usage.count(facts.now, facts.client_ip);
            Ok((stored, KeyPrincipal::new(entry, mode, facts.client_ip)))
        });
        match decided {
            Ok((stored, principal)) if self.is_stale(&stored) => self.rehash(&stored, digests, principal),
            Ok((_, principal)) => Attempt::Ready(Ok(Some(principal))),
            Err(error) => Attempt::Ready(Err(error)),
        }
    }

    /// The entry of the key that was found, after the constant-time comparison that also a miss goes through.
    fn identify(
        &self,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
    ) -> Result<(Arc<StoredKey>, Arc<KeyEntry>), AuthError> {
        let found = found.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?;
        let stored = found.as_ref().map(|stored| stored.digest()).or(digests.first());
        let matches = digests.iter().fold(false, |any, digest| any | (Some(digest) == stored));
        let (Some(stored), true) = (found, matches) else { return Err(AuthError::new(ErrorCode::InvalidKey)) };
        let entry = stored.compiled().get_or_try_make(self.tag, || self.compile(stored.record()))?;
        Ok((stored, entry))
    }

    fn compile(&self, record: &Arc<KeyRecord>) -> Result<Arc<KeyEntry>, AuthError> {
        const EVERYTHING: &[Scope] = &[scope!("*")];
        let unscoped = self.unscoped.contains(&record.kind);
        let scopes = self.scope_model.compile(if unscoped { EVERYTHING } else { &record.scopes });
        Ok(Arc::new(KeyEntry {
            record: Arc::clone(record),
            // A grant that cannot be understood refuses the key: nobody can tell what it was meant to allow.
            scopes: scopes.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?,
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

    /// Stores the key under the current scheme, once, and lets the request through whatever comes of it.
    fn rehash(self: &Arc<Self>, stored: &Arc<StoredKey>, digests: &[KeyDigest], principal: KeyPrincipal) -> Attempt {
        let Some(&to) = digests.first() else { return Attempt::Ready(Ok(Some(principal))) };
        let (this, stored) = (Arc::clone(self), Arc::clone(stored));
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let change = Change::Rehash { id: stored.record().id.clone(), from: *stored.digest(), to };
            match this.store.apply(&WriteBatch::new().change(change)).await {
                Ok(()) => {}
                // Another request, or another node, was quicker.
                Err(error) if error.as_rejected().is_some() => {}
                // A store that cannot write for now must not slow every request down.
                Err(_) => {
                    let later = this.clock.monotonic() + REHASH_PAUSE;
                    let later = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
                    this.next_rehash.store(later, Ordering::Relaxed);
                }
            }
            Ok(Some(principal))
        })))
    }
}

const REHASH_PAUSE: Duration = Duration::from_secs(60);

/// Step 5: told only to who presented the real key.
fn standing(record: &KeyRecord, now: SystemTime) -> Result<(), AuthError> {
    Err(match record.status(now) {
        KeyStatus::Active => return Ok(()),
        KeyStatus::Revoked => AuthError::new(ErrorCode::KeyRevoked),
        KeyStatus::Expired => AuthError::new(ErrorCode::KeyExpired),
        KeyStatus::Disabled => AuthError::new(ErrorCode::KeyDisabled),
        KeyStatus::NotYetValid => AuthError::with_detail(ErrorCode::KeyDisabled, "The API key is not valid yet"),
    })
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

/// Why an authenticator cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no way to present a key.
    #[error("say how keys are presented: bearer(), basic() or header() with at least one format")]
    NoFormat,
    /// A header's name is not one that may carry a key.
    #[error("{0:?} cannot carry a key: it is no field name, or it has another meaning")]
    Header(String),
}

/// Describes an [`Authenticator`].
#[must_use = "a builder does nothing until build()"]
pub struct AuthenticatorBuilder {
    accepted: Vec<Accepted>,
    hasher: KeyHasher,
    store: Arc<dyn KeyStore>,
    scope_model: Arc<dyn ScopeModel>,
    environment: Option<Environment>,
    unscoped: Vec<KeyKind>,
    optional: bool,
    clock: Arc<dyn Clock>,
    usage: UsageRecorder,
    renderer: Arc<dyn RejectionRenderer>,
    realm: String,
}

impl AuthenticatorBuilder {
    fn new(store: Arc<dyn KeyStore>) -> Self {
        Self {
            accepted: Vec::new(),
            hasher: KeyHasher::default(),
            store,
            scope_model: Arc::new(WildcardModel),
            environment: None,
            unscoped: Vec::new(),
            optional: false,
            clock: Arc::new(SystemClock::default()),
            usage: UsageRecorder::default(),
            renderer: Arc::new(ProblemDetails::new()),
            realm: "api".into(),
        }
    }

    /// Accepts keys of these formats as `Authorization: Bearer KEY` (RFC 6750).
    pub fn bearer(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Bearer, formats)
    }

    /// Accepts keys of these formats as the user name of `Authorization: Basic`, with an empty password (RFC 7617).
    pub fn basic(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Basic, formats)
    }

    /// Accepts keys of these formats as the whole value of a header such as `X-API-Key`.
    pub fn header(self, name: &str, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Header(name.to_ascii_lowercase()), formats)
    }

    fn accept(mut self, scheme: Scheme, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        match self.accepted.iter_mut().find(|way| way.scheme == scheme) {
            Some(way) => way.formats.extend(formats),
            None => self.accepted.push(Accepted { scheme, formats: formats.into_iter().collect() }),
        }
        self
    }

    /// How digests are made; plain SHA-256 unless set.
    pub fn hasher(mut self, hasher: KeyHasher) -> Self {
        self.hasher = hasher;
        self
    }

    /// How stored scopes are understood; as wildcards unless set.
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.scope_model = Arc::new(model);
        self
    }

    /// Keys of these kinds may do everything, whatever scopes they carry: for an API whose keys have none.
    pub fn grant_everything_to(mut self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.unscoped.extend(kinds);
        self
    }

    /// Serves this environment only. Unset, keys of all environments pass, and the host partitions its data by the
    /// principal's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Lets requests without credentials pass as nobody. Credentials that are present and wrong are refused all the same.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Where usage is counted; a recorder of its own unless set.
    pub fn usage(mut self, usage: UsageRecorder) -> Self {
        self.usage = usage;
        self
    }

    /// The words of refusals; [`ProblemDetails`] unless set.
    pub fn renderer(mut self, renderer: impl RejectionRenderer) -> Self {
        self.renderer = Arc::new(renderer);
        self
    }

    /// The `realm` of challenges; `api` unless set. Quotes, backslashes and other than visible ASCII are left out.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// The authenticator.
    ///
    /// # Errors
    /// Where no way to present a key was given, or a header's name cannot carry one.
    pub fn build(self) -> Result<Authenticator, BuildError> {
        if self.accepted.is_empty() || self.accepted.iter().any(|way| way.formats.is_empty()) {
            return Err(BuildError::NoFormat);
        }
        for way in &self.accepted {
            if let Scheme::Header(name) = &way.scheme
                && !may_carry_a_key(name)
            {
                return Err(BuildError::Header(name.clone()));
            }
        }
        static TAGS: AtomicU64 = AtomicU64::new(0);
        let responder = Responder::new(self.renderer, Challenges::new(&self.realm, &self.accepted));
        Ok(Authenticator {
            inner: Arc::new(Inner {
                accepted: self.accepted,
                hasher: self.hasher,
                store: self.store,
                scope_model: self.scope_model,
                environment: self.environment,
                unscoped: self.unscoped,
                optional: self.optional,
                clock: self.clock,
                usage: self.usage,
                responder: Arc::new(responder),
                tag: TAGS.fetch_add(1, Ordering::Relaxed),
                next_rehash: AtomicU64::new(0),
            }),
        })
    }
}

/// A field name (RFC 9110 §5.1) that means nothing else to the library.
fn may_carry_a_key(name: &str) -> bool {
    const TAKEN: &[&str] = &[
        "authorization",
        "x-user-id",
        "x-on-behalf-of",
        "x-on-behalf-email",
        "x-forwarded-for",
        "forwarded",
        "x-request-id",
        "cookie",
        "host",
    ];
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(tchar) && !TAKEN.contains(&name)
}

impl fmt::Debug for AuthenticatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatorBuilder").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}
