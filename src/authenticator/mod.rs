//! The one path that every request takes.
//!
//! 1. credential · 2. shape · 3. digest · 4. look-up · 5. standing · 6. environment, transport,
//!    network · 7. limit ·
//! 8. actor · 9. principal
//!
//! [`Authenticator::attempt`] answers synchronously what it can, which is everything when the store
//! answers without waiting; for the rest it hands back a future that owns its data and is `Send`.
//! `path` has the steps, as a list.
//! Scopes are demanded by routes, afterwards: what is kept of a key is identity and facts, never a
//! decision.

mod attempt;
mod budget;
mod builder;
mod entry;
mod facts;
mod limits;
mod lookup;
mod path;
mod rehash;
mod requested;
mod rules;
mod tokens;
mod verify;
mod wait;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::actor::{Directory, OwnerStanding, UserIds};
use crate::audit::{AuditTrail, RequestAudit, RequestId};
use crate::clock::Clock;
use crate::credential::{Accepted, Scheme};
use crate::error::AuthError;
use crate::key::{Environment, KeyHasher, KeyKind, KeyRecord};
use crate::network::{ClientIp, Transport};
use crate::quota::Quotas;
use crate::request::RequestHead;
use crate::respond::Responder;
use crate::scope::{ScopeModel, ScopeSet};
use crate::store::{KeyLookup, KeyStore};

pub use attempt::{Attempt, Authenticated, Begun, Outcome, PendingAttempt};
use budget::Budget;
pub(crate) use builder::AuthenticatorParts;
use limits::Limiting;
use rehash::Rehashes;
use tokens::Tokens;
pub use verify::{Introspection, Verdict};

pub use crate::credential::{MAX_CREDENTIAL_LENGTH, Presentation};
pub use crate::usage::UsageRecorder;

/// Authenticates requests. Cloning shares everything.
///
/// It is a part of what [`Portunus::builder`](crate::Portunus::builder) builds.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
    anonymous: Anonymous,
}

/// Which requests pass as nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anonymous {
    /// None.
    Never,
    /// Those without any credentials.
    WithoutCredentials,
    /// Those too whose credentials are of a scheme that is not accepted, and hold no key.
    WithoutKey,
}

struct Inner {
    accepted: Vec<Accepted>,
    hasher: KeyHasher,
    store: Arc<dyn KeyLookup>,
    rehash_in: Option<Arc<dyn KeyStore>>,
    scope_model: Arc<dyn ScopeModel>,
    environment: Option<Environment>,
    unscoped: Vec<KeyKind>,
    clock: Arc<dyn Clock>,
    usage: UsageRecorder,
    transport: Option<Transport>,
    client_ip: ClientIp,
    budget: Budget,
    limits: Limiting,
    owner_standing: Option<Arc<dyn OwnerStanding>>,
    directory: Option<Arc<dyn Directory>>,
    user_ids: UserIds,
    tokens: Option<Tokens>,
    audit: Option<AuditTrail>,
    responder: Arc<Responder>,
    /// Tells this authenticator's compiled entries from another's.
    tag: u64,
    rehashes: Rehashes,
}

impl Authenticator {
    /// Decides about a request, or begins to, and begins its audit: all that an adapter needs of a
    /// request's head, read once. The client's address is resolved once for both.
    pub fn begin(&self, head: &dyn RequestHead) -> Begun {
        let client_ip = self.client_ip(head);
        Begun {
            request_audit: self.watch(head, client_ip),
            attempt: self.attempt_from(head, client_ip),
        }
    }

    /// Decides about a request, or begins to. Nothing is noted of it; see [`begin`](Self::begin).
    pub fn attempt(&self, head: &dyn RequestHead) -> Attempt {
        self.attempt_from(head, self.client_ip(head))
    }

    fn attempt_from(&self, head: &dyn RequestHead, client_ip: Option<IpAddr>) -> Attempt {
        self.inner.attempt(head, client_ip, self.anonymous)
    }

    /// Decides about a request, waiting where it must. The head is read at once; the future owns
    /// its data.
    ///
    /// # Errors
    /// Whatever refuses the request.
    pub fn authenticate(
        &self,
        head: &dyn RequestHead,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        self.attempt(head).outcome()
    }

    /// The same authenticator, sharing everything, for routes whose key is optional: a request that
    /// sends no credentials at all passes as nobody. Credentials that fail, and those of a scheme
    /// that is not accepted, are refused.
    #[must_use]
    pub fn optional_key(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            anonymous: Anonymous::WithoutCredentials,
        }
    }

    /// The ways to present a key that are accepted, in the order in which they were given: for
    /// documents of an API.
    pub fn presentations(&self) -> impl Iterator<Item = Presentation<'_>> {
        self.inner.accepted.iter().map(|way| match &way.scheme {
            Scheme::Bearer => Presentation::Bearer,
            Scheme::Basic => Presentation::Basic,
            Scheme::Header(name) => Presentation::Header(name),
        })
    }

    /// The fields that may carry a key, by their names in lower case: to be kept out of logs.
    pub fn secret_fields(&self) -> impl Iterator<Item = &str> {
        let own = self
            .inner
            .accepted
            .iter()
            .filter_map(|way| match &way.scheme {
                Scheme::Header(name) => Some(name.as_str()),
                Scheme::Bearer | Scheme::Basic => None,
            });
        std::iter::once("authorization").chain(own)
    }

    /// Begins to watch a request for the audit; `None` where nothing is audited. An adapter tells
    /// the request_audit who was let through and how the request was answered.
    #[must_use]
    pub fn request_audit(&self, head: &dyn RequestHead) -> Option<RequestAudit> {
        self.watch(head, self.client_ip(head))
    }

    fn watch(&self, head: &dyn RequestHead, client_ip: Option<IpAddr>) -> Option<RequestAudit> {
        let trail = self.inner.audit.as_ref()?;
        let is_key = |text: &str| self.inner.looks_like_key(text);
        Some(RequestAudit::new(
            trail,
            head,
            client_ip,
            self.request_id(head),
            &is_key,
        ))
    }

    /// The id of a request: what a layer further out has said, else the caller's `X-Request-Id`
    /// where it stands once and is harmless; not with a key in it. Else one is made, where there is
    /// an audit that would tell of it.
    #[must_use]
    pub fn request_id(&self, head: &dyn RequestHead) -> Option<RequestId> {
        let given = head
            .request_id()
            .and_then(RequestId::new)
            .or_else(|| RequestId::of(head));
        let given = given.filter(|id| !self.inner.looks_like_key(id.as_str()));
        given.or_else(|| self.inner.audit.as_ref()?.make_request_id())
    }

    /// The address of whoever makes a request, as far as it is known.
    #[must_use]
    pub fn client_ip(&self, head: &dyn RequestHead) -> Option<IpAddr> {
        self.inner.client_ip.resolve(head)
    }

    /// What a key grants here: its own scopes, or everything where keys of its kind have none.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE` where its scopes cannot be understood.
    pub fn scopes_of(&self, record: &KeyRecord) -> Result<Arc<dyn ScopeSet>, AuthError> {
        self.inner.scopes_of(record)
    }

    /// The quotas of keys that have none of their own.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.inner.limits.quotas
    }

    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.inner.hasher
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(crate) fn user_ids(&self) -> UserIds {
        self.inner.user_ids
    }

    /// The one environment that is served, if it is only one.
    pub(crate) fn environment(&self) -> Option<&Environment> {
        self.inner.environment.as_ref()
    }

    /// Whether keys of this kind have no scopes and may do everything.
    pub(crate) fn is_unscoped(&self, kind: KeyKind) -> bool {
        self.inner.unscoped.contains(&kind)
    }

    pub(crate) fn directory(&self) -> Option<&Arc<dyn Directory>> {
        self.inner.directory.as_ref()
    }

    pub(crate) fn scope_model(&self) -> &dyn ScopeModel {
        &*self.inner.scope_model
    }

    /// The trail that requests are noted in, where they are.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.inner.audit.as_ref()
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

    /// How many keys wait to be stored under the current scheme.
    #[must_use]
    pub fn pending_rehashes(&self) -> usize {
        self.inner.rehashes.pending()
    }

    /// Stores keys under the current scheme that were used and are stored under an older one. Call it
    /// on an interval: requests note such keys, a thousand at most, and write nothing themselves.
    /// Returns how many were written. After the store has failed, nothing is tried for a minute.
    ///
    /// Dropping the future loses nothing.
    pub async fn write_rehashes(&self) -> usize {
        self.inner.write_rehashes().await.0
    }

    /// The same, for the periodic jobs, which report failures.
    pub(crate) async fn try_write_rehashes(&self) -> Result<(), crate::store::StoreError> {
        self.inner.write_rehashes().await.1
    }

    /// How many keys were stored under the current scheme so far.
    pub(crate) fn written_rehashes(&self) -> u64 {
        self.inner.rehashes.written()
    }

    /// Frees what the limiter keeps for idle buckets.
    pub(crate) fn sweep_limiter(&self) {
        let limits = &self.inner.limits;
        limits.limiter.iter().for_each(|limiter| limiter.sweep());
        crate::limit::RateLimiter::sweep(&limits.stand_in);
    }

    /// Frees what the directory remembers and does not use any more.
    pub(crate) fn sweep_directory(&self) {
        let directory = self.inner.directory.iter();
        directory.for_each(Directory::sweep);
    }

    /// How many requests the limiter gave no answer for.
    #[must_use]
    pub fn limiter_outages(&self) -> u64 {
        self.inner.limits.outages.load(Ordering::Relaxed)
    }

    /// The store that keys are looked up in.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn KeyLookup> {
        &self.inner.store
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("accepted", &self.inner.accepted)
            .field("hasher", &self.inner.hasher)
            .field("store", &self.inner.store)
            .field("environment", &self.inner.environment)
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}
