//! How an authenticator is described: what is accepted, where keys are kept, and everything a host
//! may choose.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::Limits;
use super::rehash::Rehashes;
use super::tokens::Tokens;
use super::{Anonymous, Authenticator, Budget, Inner};
use crate::actor::{Directory, OwnerStanding, UserIds};
use crate::audit::AuditTrail;
use crate::clock::{Clock, SystemClock};
use crate::credential::{Accepted, Scheme};
use crate::key::{Environment, KeyFormat, KeyHasher, KeyKind};
use crate::limit::{LimitFields, LocalLimiter, LookupBudget, OnOutage, RateLimiter};
use crate::network::{ClientIp, Transport};
use crate::quota::Quotas;
use crate::request::RequestHead;
use crate::respond::{Challenges, ProblemDetails, RejectionRenderer, Responder};
use crate::scope::{ScopeModel, WildcardModel};
use crate::store::{KeyLookup, KeyStore};
use crate::usage::UsageRecorder;
use crate::verifier::TokenVerifier;

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
    /// What is made. Only what takes its time from the clock is made last.
    inner: Inner,
    anonymous: Anonymous,
    lookups: LookupBudget,
    limit_fields: LimitFields,
    renderer: Arc<dyn RejectionRenderer>,
    realm: String,
}

impl AuthenticatorBuilder {
    pub(super) fn new(store: Arc<dyn KeyLookup>) -> Self {
        static TAGS: AtomicU64 = AtomicU64::new(0);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let lookups = LookupBudget::default();
        Self {
            inner: Inner {
                accepted: Vec::new(),
                hasher: KeyHasher::default(),
                store,
                rehash_in: None,
                scope_model: Arc::new(WildcardModel),
                environment: None,
                unscoped: Vec::new(),
                budget: Budget::new(&lookups, Arc::clone(&clock)),
                clock,
                usage: UsageRecorder::default(),
                transport: None,
                client_ip: ClientIp::peer(),
                limits: Limits::default(),
                owner_standing: None,
                directory: None,
                user_ids: UserIds::default(),
                tokens: None,
                audit: None,
                responder: Arc::new(Responder::default()),
                tag: TAGS.fetch_add(1, Ordering::Relaxed),
                rehashes: Rehashes::default(),
            },
            anonymous: Anonymous::Never,
            lookups,
            limit_fields: LimitFields::default(),
            renderer: Arc::new(ProblemDetails::new()),
            realm: "api".into(),
        }
    }

    /// Accepts keys of these formats as `Authorization: Bearer KEY` (RFC 6750).
    pub fn bearer(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Bearer, formats)
    }

    /// Accepts keys of these formats as the user name of `Authorization: Basic`, with an empty
    /// password (RFC 7617).
    pub fn basic(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Basic, formats)
    }

    /// Accepts keys of these formats as the whole value of a header such as `X-API-Key`.
    pub fn header(self, name: &str, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Header(name.to_ascii_lowercase()), formats)
    }

    fn accept(mut self, scheme: Scheme, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        match self
            .inner
            .accepted
            .iter_mut()
            .find(|way| way.scheme == scheme)
        {
            Some(way) => way.formats.extend(formats),
            None => self.inner.accepted.push(Accepted {
                scheme,
                formats: formats.into_iter().collect(),
            }),
        }
        self
    }

    /// Where the digest of a key is written anew that is still stored under an older scheme; nowhere
    /// unless set. It is written by [`Authenticator::write_rehashes`], not by a request.
    pub fn rehash_in(mut self, store: impl KeyStore) -> Self {
        self.inner.rehash_in = Some(Arc::new(store));
        self
    }

    /// How digests are made; plain SHA-256 unless set.
    pub fn hasher(mut self, hasher: KeyHasher) -> Self {
        self.inner.hasher = hasher;
        self
    }

    /// How stored scopes are understood; as wildcards unless set.
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.inner.scope_model = Arc::new(model);
        self
    }

    /// Keys of these kinds may do everything, whatever scopes they carry: for an API whose keys
    /// have none.
    pub fn grant_everything_to(mut self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.inner.unscoped.extend(kinds);
        self
    }

    /// Serves this environment only. Unset, keys of all environments pass, and the host partitions
    /// its data by the principal's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.inner.environment = Some(environment);
        self
    }

    /// Lets requests without credentials pass as nobody, and those whose `Authorization` is of a
    /// scheme that is not accepted, unless an accepted key stands in it. Credentials that are
    /// present and wrong are refused all the same.
    ///
    /// For some routes only, there is `optional_key()` of the adapters and of
    /// [`Authenticator`](Authenticator::optional_key).
    pub fn optional(mut self) -> Self {
        self.anonymous = Anonymous::WithoutKey;
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.inner.clock = Arc::new(clock);
        self
    }

    /// Where usage is counted; a recorder of its own unless set.
    pub fn usage(mut self, usage: UsageRecorder) -> Self {
        self.inner.usage = usage;
        self
    }

    /// How secure connections must be; anything passes unless set, or with `None`.
    pub fn transport(mut self, transport: Option<Transport>) -> Self {
        self.inner.transport = transport;
        self
    }

    /// How the client's address is found; the peer's unless set.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.inner.client_ip = client_ip;
        self
    }

    /// How many look-ups of unknown keys clients may cause; [`LookupBudget::default`] unless set.
    pub fn lookup_budget(mut self, budget: LookupBudget) -> Self {
        self.lookups = budget;
        self
    }

    /// How many well-formed keys that no store knows a client may present; 100 a minute unless set,
    /// `None` for any number. It is the [budget's](Self::lookup_budget) part that is set most often.
    pub fn failure_quotas(mut self, quotas: Option<Quotas>) -> Self {
        self.lookups.failures = quotas;
        self
    }

    /// Limits how often keys may be used: by [`quotas`](Self::quotas) or the key's own. Without a
    /// limiter nothing is limited.
    pub fn limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.inner.limits.limiter = Some(Arc::new(limiter));
        self
    }

    /// What happens while the limiter gives no answer; counting in this process unless set.
    pub fn on_limiter_outage(mut self, mode: OnOutage) -> Self {
        self.inner.limits.on_outage = mode;
        self
    }

    /// The quotas of keys that have none of their own; 60 a minute and 1000 an hour unless set.
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.inner.limits.quotas = quotas;
        self
    }

    /// Quotas that all keys of a tenant share, beside their own; none unless set. Name them apart
    /// from the keys'.
    pub fn tenant_quotas(mut self, quotas: Quotas) -> Self {
        self.inner.limits.tenant_quotas = Some(quotas);
        self
    }

    /// A further bucket for some requests, by a name that the host makes of them: an endpoint
    /// group, a region.
    pub fn bucket(
        mut self,
        bucket_of: impl Fn(&dyn RequestHead) -> Option<(String, Quotas)> + Send + Sync + 'static,
    ) -> Self {
        self.inner.limits.bucket_of = Some(Arc::new(bucket_of));
        self
    }

    /// How many units a request takes; 1 unless set. A request that costs more than one of the
    /// quotas that hold for the key can never pass, and is refused with 403 `FORBIDDEN`. A cost of
    /// 0 is an error of the host's and answered with 503.
    pub fn cost(
        mut self,
        cost_of: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.inner.limits.cost_of = Some(Arc::new(cost_of));
        self
    }

    /// Which fields tell callers how their quotas stand.
    pub fn limit_fields(mut self, fields: LimitFields) -> Self {
        self.limit_fields = fields;
        self
    }

    /// Asks on every request how the key's owner stands; nobody is asked unless set.
    pub fn owner_standing(mut self, owners: impl OwnerStanding) -> Self {
        self.inner.owner_standing = Some(Arc::new(owners));
        self
    }

    /// Lets keys that may delegate act for users of this directory. Unset, fields that name a user
    /// are refused.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.inner.directory = Some(Arc::new(directory));
        self
    }

    /// Which identifiers name users, in requests and in what directories and verifiers answer; the
    /// manager needs the same ([`KeyManagerBuilder::user_ids`](crate::manage::KeyManagerBuilder)).
    /// Any, byte for byte, unless set.
    pub fn user_ids(mut self, ids: UserIds) -> Self {
        self.inner.user_ids = ids;
        self
    }

    /// Lets Bearer tokens pass that this verifier vouches for, where the store has no such key.
    pub fn token_verifier(mut self, verifier: impl TokenVerifier) -> Self {
        self.inner.tokens = Some(Tokens::new(Arc::new(verifier)));
        self
    }

    /// Where every request that was decided is noted; nowhere unless set.
    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.inner.audit = Some(trail);
        self
    }

    /// The words of refusals; [`ProblemDetails`] unless set.
    pub fn renderer(mut self, renderer: impl RejectionRenderer) -> Self {
        self.renderer = Arc::new(renderer);
        self
    }

    /// The `realm` of challenges; `api` unless set. Quotes, backslashes and other than visible
    /// ASCII are left out.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// The authenticator.
    ///
    /// # Errors
    /// Where no way to present a key was given, or a header's name cannot carry one.
    pub fn build(self) -> Result<Authenticator, BuildError> {
        let mut inner = self.inner;
        let takes_tokens = inner.tokens.is_some();
        let external = |way: &Accepted| way.scheme == Scheme::Bearer && takes_tokens;
        if takes_tokens && !inner.accepted.iter().any(external) {
            inner.accepted.push(Accepted {
                scheme: Scheme::Bearer,
                formats: Vec::new(),
            });
        }
        let is_usable = |way: &Accepted| !way.formats.is_empty() || external(way);
        if inner.accepted.is_empty() || !inner.accepted.iter().all(is_usable) {
            return Err(BuildError::NoFormat);
        }
        for way in &inner.accepted {
            if let Scheme::Header(name) = &way.scheme
                && !may_carry_a_key(name)
            {
                return Err(BuildError::Header(name.clone()));
            }
        }
        let challenges = Challenges::new(&self.realm, &inner.accepted);
        let responder = Responder::new(self.renderer, challenges, self.limit_fields);
        inner.responder = Arc::new(responder);
        let clock = || Arc::clone(&inner.clock);
        inner.budget = Budget::new(&self.lookups, clock());
        inner.limits.stand_in = LocalLimiter::builder().clock(clock()).build();
        Ok(Authenticator {
            anonymous: self.anonymous,
            inner: Arc::new(inner),
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
        f.debug_struct("AuthenticatorBuilder")
            .field("accepted", &self.inner.accepted)
            .finish_non_exhaustive()
    }
}
