//! The one path that every request takes.
//!
//! 1. credential · 2. shape · 3. digest · 4. look-up · 5. standing · 6. environment, transport,
//!    network · 7. limit ·
//! 8. actor · 9. principal
//!
//! [`Authenticator::attempt`] answers synchronously what it can, which is everything when the store
//! answers without waiting; for the rest it hands back a future that owns its data and is `Send`.
//! Scopes are demanded by routes, afterwards: what is kept of a key is identity and facts, never a
//! decision.

mod attempt;
mod builder;
mod entry;
mod path;
mod rules;
mod verify;
mod wanted;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::actor::{Directory, OwnerStanding, UserIds};
use crate::audit::{AuditTrail, RequestId, Witness};
use crate::clock::Clock;
use crate::credential::{Accepted, Presentation, Scheme};
use crate::error::AuthError;
use crate::key::{Environment, KeyHasher, KeyKind, KeyRecord};
use crate::limit::{FailureLimits, LocalLimiter, OnOutage, RateLimiter};
use crate::network::{ClientIp, Transport};
use crate::quota::Quotas;
use crate::request::RequestHead;
use crate::respond::Responder;
use crate::scope::{ScopeModel, ScopeSet};
use crate::store::{KeyLookup, KeyStore};
use crate::telemetry;
use crate::usage::UsageRecorder;
use crate::verifier::TokenVerifier;

pub use attempt::{Admission, Attempt, Outcome, PendingAttempt};
pub use builder::{AuthenticatorBuilder, BuildError};
pub use verify::{Introspection, Verdict};
use wanted::Wanted;

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
    failures: Option<FailureLimits>,
    limits: Option<Limits>,
    quotas: Quotas,
    tenant_quotas: Option<Quotas>,
    cost_of: Option<Arc<CostOf>>,
    bucket_of: Option<Arc<BucketOf>>,
    owner_standing: Option<Arc<dyn OwnerStanding>>,
    directory: Option<Arc<dyn Directory>>,
    user_ids: UserIds,
    verifier: Option<Arc<dyn TokenVerifier>>,
    audit: Option<AuditTrail>,
    responder: Arc<Responder>,
    /// Tells this authenticator's compiled entries from another's.
    tag: u64,
    /// After a rehash failed: not before this many milliseconds of monotonic time.
    next_rehash: AtomicU64,
}

/// What is remembered of the request's head once the head is gone.
struct Facts {
    purpose: Purpose,
    now: SystemTime,
    client_ip: Option<IpAddr>,
    /// Whether the connection is as secure as demanded.
    secure: bool,
    wanted: Result<Wanted, AuthError>,
    /// A text that may be a token of the verifier's, where the store has no such key.
    token: Option<Zeroizing<String>>,
    cost: u64,
    bucket: Option<(String, Quotas)>,
}

/// What the steps are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To let a request pass.
    Request,
    /// To tell what a request would get: it takes no quota and is no use of the key.
    Verification,
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
    /// Starts an authenticator that looks keys up here.
    pub fn builder(store: impl KeyLookup) -> AuthenticatorBuilder {
        AuthenticatorBuilder::new(Arc::new(store))
    }

    /// Decides about a request, or begins to.
    pub fn attempt(&self, head: &dyn RequestHead) -> Attempt {
        match self.inner.attempt(head, self.anonymous) {
            Ok(Attempt::Pending(PendingAttempt(rest))) => {
                Attempt::Pending(PendingAttempt(Box::pin(telemetry::in_span(rest))))
            }
            Ok(ready) => ready,
            Err(error) => Attempt::Ready(Err(error)),
        }
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
    /// the witness who was let through and how the request was answered.
    #[must_use]
    pub fn witness(&self, head: &dyn RequestHead) -> Option<Witness> {
        let trail = self.inner.audit.as_ref()?;
        let is_key = |text: &str| self.inner.gives_away(text);
        Some(Witness::new(
            trail,
            head,
            self.inner.client_ip.resolve(head),
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
        let given = given.filter(|id| !self.inner.gives_away(id.as_str()));
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
        &self.inner.quotas
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

    /// How many requests the limiter gave no answer for.
    #[must_use]
    pub fn limiter_outages(&self) -> u64 {
        self.inner
            .limits
            .as_ref()
            .map_or(0, |limits| limits.outages.load(Ordering::Relaxed))
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
