//! The path that every request takes.
//!
//! 1. credential
//! 2. shape
//! 3. digest
//! 4. lookup
//! 5. standing
//! 6. environment, transport, network
//! 7. limit
//! 8. credits
//! 9. actor
//! 10. principal
//!
//! [`Authenticator::attempt`] decides synchronously if nothing must be awaited: the store, for
//! example, may answer without waiting. Otherwise it returns a future that owns its data and is
//! `Send`. `path` lists the steps. Routes check scopes afterwards: the cache holds a key's identity
//! and facts, never a decision.

mod attempt;
mod budget;
mod builder;
mod entry;
mod facts;
mod limits;
mod lookup;
mod outage;
mod path;
mod plans;
mod rehash;
mod requested;
mod routes;
mod rules;
mod tokens;
mod verify;
mod wait;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use crate::actor::{Directory, OwnerStanding, UserIds};
use crate::audit::{AuditTrail, RequestAudit, RequestId};
use crate::clock::Clock;
use crate::credential::{Accepted, Scheme};
use crate::credit::Spending;
use crate::entry::{Common, SharedSettings};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Environment, KeyHasher, KeyId, KeyKind, KeyRecord, Owner, PlanName, TenantId};
use crate::limit::{LimitTable, PlanLimits, WindowState};
use crate::network::{ClientIp, Transport};
use crate::quota::Quota;
use crate::request::RequestHead;
use crate::respond::Responder;
use crate::scope::{ScopeModel, ScopeSet};
use crate::store::{KeyLookup, KeyStore};
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::telemetry::PlanLabel;

pub(crate) use attempt::Outcome;
pub use attempt::{Attempt, Authenticated, Begun, PendingAttempt};
use budget::Budget;
pub(crate) use builder::AuthenticatorParts;
use limits::Limiting;
pub(crate) use plans::TenantPlans;
use rehash::Rehashes;
use routes::RouteClasses;
use tokens::Tokens;
pub use verify::{Introspection, Verdict};

pub use crate::credential::{MAX_CREDENTIAL_LENGTH, Presentation};
pub use crate::usage::UsageRecorder;

/// Authenticates requests. Clones share all state.
///
/// It is part of the service that [`Portunus::builder`](crate::Portunus::builder) builds.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
    anonymous: Anonymous,
    routes: RouteClasses,
}

/// The requests that pass as anonymous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anonymous {
    /// None.
    Never,
    /// Those without any credentials.
    WithoutCredentials,
    /// Those without any credentials, and those whose credentials have an unsupported scheme and
    /// contain no key.
    WithoutKey,
    /// All: no credentials are read.
    Always,
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
    limits: Arc<Limiting>,
    /// `None` if requests cost no credits.
    credits: Option<Arc<Spending>>,
    plans: Arc<TenantPlans>,
    owner_standing: Option<Arc<dyn OwnerStanding>>,
    directory: Option<Arc<dyn Directory>>,
    user_ids: UserIds,
    tokens: Option<Tokens>,
    audit: Option<AuditTrail>,
    responder: Arc<Responder>,
    /// In all entries that are compiled here.
    common: Arc<Common>,
    compiled: SharedSettings,
    rehashes: Rehashes,
}

impl Authenticator {
    /// Starts the authentication of a request and the recording of its audit event. An adapter
    /// needs nothing else from the request's head. The client's address is resolved once for both.
    #[inline]
    pub fn begin(&self, head: &dyn RequestHead) -> Begun {
        let mut request_audit = None;
        let attempt = self.begin_in(head, &mut request_audit);
        Begun {
            attempt,
            request_audit,
        }
    }

    /// Like [`begin`](Self::begin), without moving the attempt.
    #[inline]
    pub(crate) fn begin_in(
        &self,
        head: &dyn RequestHead,
        request_audit: &mut Option<RequestAudit>,
    ) -> Attempt {
        self.attempt_after(head, |client_ip| {
            // Requests that need no key are not audited.
            if self.inner.audit.is_some() && self.anonymous != Anonymous::Always {
                *request_audit = self.watch(head, *client_ip);
            }
        })
    }

    /// Starts the authentication of a request. No audit event is recorded; see
    /// [`begin`](Self::begin).
    pub fn attempt(&self, head: &dyn RequestHead) -> Attempt {
        self.attempt_after(head, |_| ())
    }

    #[inline]
    fn attempt_after(
        &self,
        head: &dyn RequestHead,
        watch: impl FnOnce(&Option<IpAddr>),
    ) -> Attempt {
        self.inner
            .attempt(head, watch, self.anonymous, &self.routes)
    }

    /// Authenticates a request, waiting if necessary. The head is read immediately; the future owns
    /// its data.
    ///
    /// # Errors
    /// Returns the error with which the request is refused.
    pub fn authenticate(
        &self,
        head: &dyn RequestHead,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        self.attempt(head).outcome()
    }

    /// Returns an authenticator that shares all state, for routes whose key is optional: a request
    /// without any credentials passes as anonymous. Invalid credentials, and those of a scheme that
    /// is not accepted, are refused.
    #[must_use]
    pub fn optional_key(&self) -> Self {
        Self {
            anonymous: Anonymous::WithoutCredentials,
            ..self.clone()
        }
    }

    /// Returns an authenticator that shares all state, for routes without a key: requests are only
    /// counted. `None` if there is nothing to count them by.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(crate) fn without_key(&self) -> Option<Self> {
        self.inner.limits.of_anonymous()?;
        Some(Self {
            anonymous: Anonymous::Always,
            ..self.clone()
        })
    }

    /// Returns whether it only counts requests, and reads no credentials.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn only_counts(&self) -> bool {
        self.anonymous == Anonymous::Always
    }

    /// Returns the label of a request with this plan in metrics.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn plan_label(&self, plan: Option<&PlanName>) -> PlanLabel {
        self.inner.limits.plan_label(plan)
    }

    /// Returns whether the route of a request with this method has a class.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn has_class(&self, method: &str) -> bool {
        self.routes.class_of(method) > 0
    }

    /// Returns an authenticator that shares all state, for routes of these classes, by method.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(crate) fn with_classes(
        &self,
        classes: impl IntoIterator<Item = (Option<&'static str>, u8)>,
    ) -> Self {
        Self {
            routes: RouteClasses(classes.into_iter().collect()),
            ..self.clone()
        }
    }

    /// Returns the number of a class of the [limits](crate::Limits::class).
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(crate) fn class(&self, name: &str) -> Option<u8> {
        self.inner.limits.table.class(name)
    }

    /// Returns the accepted ways to present a key, in configuration order, for API documentation.
    pub fn presentations(&self) -> impl Iterator<Item = Presentation<'_>> {
        self.inner.accepted.iter().map(|way| match &way.scheme {
            Scheme::Bearer => Presentation::Bearer,
            Scheme::Basic => Presentation::Basic,
            Scheme::Header(name) => Presentation::Header(name),
        })
    }

    /// Returns the names, in lower case, of the header fields that may carry a key and must not be
    /// logged.
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

    /// Starts recording the audit event of a request; `None` if nothing is audited. An adapter
    /// reports the authenticated caller and the response to it.
    #[must_use]
    pub fn request_audit(&self, head: &dyn RequestHead) -> Option<RequestAudit> {
        self.watch(head, self.client_ip(head))
    }

    fn watch(&self, head: &dyn RequestHead, client_ip: Option<IpAddr>) -> Option<RequestAudit> {
        let trail = self.inner.audit.as_ref()?;
        let is_key = |text: &str| self.inner.looks_like_key(text);
        let given = self.given_request_id(head);
        Some(RequestAudit::new(trail, head, client_ip, given, &is_key))
    }

    /// Returns the id of a request: the one that an outer layer assigned, or else the caller's
    /// `X-Request-Id` if it occurs once and is well-formed. An id that looks like a key is ignored.
    /// Without either, a new id is generated if requests are audited.
    #[must_use]
    pub fn request_id(&self, head: &dyn RequestHead) -> Option<RequestId> {
        let given = self.given_request_id(head);
        given.or_else(|| Some(self.inner.audit.as_ref()?.make_request_id()))
    }

    fn given_request_id(&self, head: &dyn RequestHead) -> Option<RequestId> {
        let outer = head.request_id();
        let given = outer
            .and_then(|id| RequestId::new(&id))
            .or_else(|| RequestId::of(head));
        given.filter(|id| !self.inner.looks_like_key(&id.to_string()))
    }

    /// Returns the client's address, if known.
    #[must_use]
    pub fn client_ip(&self, head: &dyn RequestHead) -> Option<IpAddr> {
        self.inner.client_ip.resolve(head)
    }

    /// Returns the scopes that a key grants: its own, or all scopes if keys of its kind are
    /// unscoped.
    ///
    /// # Errors
    /// Returns `STORE_UNAVAILABLE` if its scopes cannot be parsed.
    pub fn scopes_of(&self, record: &KeyRecord) -> Result<Arc<dyn ScopeSet>, AuthError> {
        self.inner.scopes_of(record)
    }

    /// Returns the limits of a key's plan: its own, or else that of its tenant. `own` are the key's
    /// own quotas.
    ///
    /// # Errors
    /// Returns `DIRECTORY_UNAVAILABLE` if the tenant's plan is not known, and
    /// `LIMITER_UNAVAILABLE` for a plan that is not declared.
    pub(crate) async fn limits_of(
        &self,
        plan: Option<&PlanName>,
        tenant: &TenantId,
    ) -> Result<Arc<PlanLimits>, AuthError> {
        self.inner.limits_of_plan(plan, tenant).await
    }

    /// Reads the limits of a key; see
    /// [`KeyManager::limit_states`](crate::manage::KeyManager::limit_states).
    ///
    /// # Errors
    /// Returns `LIMITER_UNAVAILABLE` if the limiter does not answer.
    pub(crate) async fn limit_states(
        &self,
        limits: &PlanLimits,
        record: &KeyRecord,
    ) -> Result<Vec<(Quota, Option<WindowState>)>, AuthError> {
        let read = self.inner.limits.read(limits, record).await;
        read.map_err(|error| AuthError::unavailable(ErrorCode::LimiterUnavailable, error))
    }

    /// Returns the limits by plan.
    pub(crate) fn limit_table(&self) -> &LimitTable {
        &self.inner.limits.table
    }

    /// Returns the plans of tenants, to notify them of changes.
    pub(crate) fn tenant_plans(&self) -> &Arc<TenantPlans> {
        &self.inner.plans
    }

    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.inner.hasher
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Returns the credits of the service, if requests cost any.
    pub(crate) fn spending(&self) -> Option<&Arc<Spending>> {
        self.inner.credits.as_ref()
    }

    pub(crate) fn user_ids(&self) -> UserIds {
        self.inner.user_ids
    }

    /// Checks the standing of an owner as it is checked for each request.
    pub(crate) async fn check_owner(&self, owner: &Owner) -> Result<(), AuthError> {
        match &self.inner.owner_standing {
            Some(owners) => rules::check_owner(owners.standing(owner).await),
            None => Ok(()),
        }
    }

    /// Returns the environment that is served, if it is only one.
    pub(crate) fn environment(&self) -> Option<&Environment> {
        self.inner.environment.as_ref()
    }

    /// Returns whether keys of this kind are unscoped and therefore grant all scopes.
    pub(crate) fn is_unscoped(&self, kind: KeyKind) -> bool {
        self.inner.unscoped.contains(&kind)
    }

    pub(crate) fn directory(&self) -> Option<&Arc<dyn Directory>> {
        self.inner.directory.as_ref()
    }

    pub(crate) fn scope_model(&self) -> &dyn ScopeModel {
        &*self.inner.scope_model
    }

    /// Returns the audit trail, if requests are audited.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.inner.audit.as_ref()
    }

    /// Returns the responder, which renders refusals.
    #[must_use]
    pub fn responder(&self) -> &Arc<Responder> {
        &self.inner.responder
    }

    /// Returns the usage recorder. The periodic jobs flush it; a host that calls them by
    /// [`maintain`](crate::Portunus::maintain) also flushes it before the process exits.
    #[must_use]
    pub fn usage(&self) -> &UsageRecorder {
        &self.inner.usage
    }

    /// Returns the number of keys that are queued to be stored under the current scheme.
    #[must_use]
    pub fn pending_rehashes(&self) -> usize {
        self.inner.rehashes.pending()
    }

    /// Stores the queued keys, which are stored under an older scheme, under the current one. Call
    /// it periodically: requests only queue such keys, up to 1000. Returns the number of keys
    /// written. After a failure of the store, nothing is written for a minute.
    ///
    /// Dropping the future loses nothing.
    pub async fn write_rehashes(&self) -> usize {
        self.inner.write_rehashes().await.0
    }

    /// Like [`write_rehashes`](Self::write_rehashes), for the periodic jobs, which report failures.
    pub(crate) async fn try_write_rehashes(&self) -> Result<(), crate::store::StoreError> {
        self.inner.write_rehashes().await.1
    }

    /// Returns the number of keys that were rehashed so far.
    pub(crate) fn written_rehashes(&self) -> u64 {
        self.inner.rehashes.written()
    }

    /// Frees the limiter's idle buckets.
    pub(crate) fn sweep_limiter(&self) {
        let limits = &self.inner.limits;
        limits.limiter.iter().for_each(|limiter| limiter.sweep());
        crate::limit::RateLimiter::sweep(&limits.outage.stand_in);
    }

    /// Frees the directory's expired cache entries.
    pub(crate) fn sweep_directory(&self) {
        let directory = self.inner.directory.iter();
        directory.for_each(Directory::sweep);
    }

    pub(crate) fn forget_tokens(&self, id: &KeyId) {
        self.inner.forget_tokens(id);
    }

    /// Returns the number of requests for which the limiter did not answer.
    #[must_use]
    pub fn limiter_outages(&self) -> u64 {
        self.inner.limits.outage.count()
    }

    /// Returns the store in which keys are looked up.
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
