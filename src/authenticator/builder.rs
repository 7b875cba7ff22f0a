//! How an authenticator is described: what is accepted, where keys are kept, and everything a host
//! may choose.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Anonymous, Authenticator, BucketOf, CostOf, Inner, Limits};
use crate::actor::{Directory, OwnerStanding, UserIds};
use crate::audit::AuditTrail;
use crate::clock::{Clock, SystemClock};
use crate::credential::{Accepted, Scheme};
use crate::key::{Environment, KeyFormat, KeyHasher, KeyKind};
use crate::limit::{FailureLimits, LimitFields, LocalLimiter, OnOutage, RateLimiter};
use crate::network::{ClientIp, Transport};
use crate::quota::{Quota, Quotas};
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
    accepted: Vec<Accepted>,
    hasher: KeyHasher,
    store: Arc<dyn KeyLookup>,
    rehash_in: Option<Arc<dyn KeyStore>>,
    scope_model: Arc<dyn ScopeModel>,
    environment: Option<Environment>,
    unscoped: Vec<KeyKind>,
    anonymous: Anonymous,
    clock: Arc<dyn Clock>,
    usage: UsageRecorder,
    transport: Option<Transport>,
    client_ip: ClientIp,
    failure_quotas: Option<Quotas>,
    limiter: Option<Arc<dyn RateLimiter>>,
    on_outage: OnOutage,
    quotas: Quotas,
    tenant_quotas: Option<Quotas>,
    cost_of: Option<Arc<CostOf>>,
    bucket_of: Option<Arc<BucketOf>>,
    limit_fields: LimitFields,
    owner_standing: Option<Arc<dyn OwnerStanding>>,
    directory: Option<Arc<dyn Directory>>,
    user_ids: UserIds,
    verifier: Option<Arc<dyn TokenVerifier>>,
    audit: Option<AuditTrail>,
    renderer: Arc<dyn RejectionRenderer>,
    realm: String,
}

impl AuthenticatorBuilder {
    pub(super) fn new(store: Arc<dyn KeyLookup>) -> Self {
        Self {
            accepted: Vec::new(),
            hasher: KeyHasher::default(),
            store,
            rehash_in: None,
            scope_model: Arc::new(WildcardModel),
            environment: None,
            unscoped: Vec::new(),
            anonymous: Anonymous::Never,
            clock: Arc::new(SystemClock::default()),
            usage: UsageRecorder::default(),
            transport: None,
            client_ip: ClientIp::peer(),
            failure_quotas: Quota::per_minute(100)
                .and_then(|quota| Quotas::new([quota]))
                .ok(),
            limiter: None,
            on_outage: OnOutage::default(),
            quotas: Quotas::default(),
            tenant_quotas: None,
            cost_of: None,
            bucket_of: None,
            limit_fields: LimitFields::default(),
            owner_standing: None,
            directory: None,
            user_ids: UserIds::default(),
            verifier: None,
            audit: None,
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
        match self.accepted.iter_mut().find(|way| way.scheme == scheme) {
            Some(way) => way.formats.extend(formats),
            None => self.accepted.push(Accepted {
                scheme,
                formats: formats.into_iter().collect(),
            }),
        }
        self
    }

    /// Where the digest of a key is written anew that is still stored under an older scheme; nowhere
    /// unless set.
    pub fn rehash_in(mut self, store: impl KeyStore) -> Self {
        self.rehash_in = Some(Arc::new(store));
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

    /// Keys of these kinds may do everything, whatever scopes they carry: for an API whose keys
    /// have none.
    pub fn grant_everything_to(mut self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.unscoped.extend(kinds);
        self
    }

    /// Serves this environment only. Unset, keys of all environments pass, and the host partitions
    /// its data by the principal's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
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
        self.clock = Arc::new(clock);
        self
    }

    /// Where usage is counted; a recorder of its own unless set.
    pub fn usage(mut self, usage: UsageRecorder) -> Self {
        self.usage = usage;
        self
    }

    /// How secure connections must be; anything passes unless set, or with `None`.
    pub fn transport(mut self, transport: Option<Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// How the client's address is found; the peer's unless set.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.client_ip = client_ip;
        self
    }

    /// How many well-formed keys that no store knows a client may present; 100 a minute unless set,
    /// `None` for any number.
    pub fn failure_quotas(mut self, quotas: Option<Quotas>) -> Self {
        self.failure_quotas = quotas;
        self
    }

    /// Limits how often keys may be used: by [`quotas`](Self::quotas) or the key's own. Without a
    /// limiter nothing is limited.
    pub fn limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.limiter = Some(Arc::new(limiter));
        self
    }

    /// What happens while the limiter gives no answer; counting in this process unless set.
    pub fn on_limiter_outage(mut self, mode: OnOutage) -> Self {
        self.on_outage = mode;
        self
    }

    /// The quotas of keys that have none of their own; 60 a minute and 1000 an hour unless set.
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Quotas that all keys of a tenant share, beside their own; none unless set. Name them apart
    /// from the keys'.
    pub fn tenant_quotas(mut self, quotas: Quotas) -> Self {
        self.tenant_quotas = Some(quotas);
        self
    }

    /// A further bucket for some requests, by a name that the host makes of them: an endpoint
    /// group, a region.
    pub fn bucket(
        mut self,
        bucket_of: impl Fn(&dyn RequestHead) -> Option<(String, Quotas)> + Send + Sync + 'static,
    ) -> Self {
        self.bucket_of = Some(Arc::new(bucket_of));
        self
    }

    /// How many units a request takes; 1 unless set. A request that costs more than one of the
    /// quotas that hold for the key can never pass, and is refused with 403 `FORBIDDEN`. A cost of
    /// 0 is an error of the host's and answered with 503.
    pub fn cost(
        mut self,
        cost_of: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.cost_of = Some(Arc::new(cost_of));
        self
    }

    /// Which fields tell callers how their quotas stand.
    pub fn limit_fields(mut self, fields: LimitFields) -> Self {
        self.limit_fields = fields;
        self
    }

    /// Asks on every request how the key's owner stands; nobody is asked unless set.
    pub fn owner_standing(mut self, owners: impl OwnerStanding) -> Self {
        self.owner_standing = Some(Arc::new(owners));
        self
    }

    /// Lets keys that may delegate act for users of this directory. Unset, fields that name a user
    /// are refused.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.directory = Some(Arc::new(directory));
        self
    }

    /// Which identifiers name users, in requests and in what directories and verifiers answer; the
    /// manager needs the same ([`KeyManagerBuilder::user_ids`](crate::manage::KeyManagerBuilder)).
    /// Any, byte for byte, unless set.
    pub fn user_ids(mut self, ids: UserIds) -> Self {
        self.user_ids = ids;
        self
    }

    /// Lets Bearer tokens pass that this verifier vouches for, where the store has no such key.
    pub fn token_verifier(mut self, verifier: impl TokenVerifier) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// Where every request that was decided is noted; nowhere unless set.
    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.audit = Some(trail);
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
    pub fn build(mut self) -> Result<Authenticator, BuildError> {
        let foreign = |way: &Accepted| way.scheme == Scheme::Bearer && self.verifier.is_some();
        if self.verifier.is_some() && !self.accepted.iter().any(foreign) {
            self.accepted.push(Accepted {
                scheme: Scheme::Bearer,
                formats: Vec::new(),
            });
        }
        if self.accepted.is_empty()
            || self
                .accepted
                .iter()
                .any(|way| way.formats.is_empty() && !foreign(way))
        {
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
        let challenges = Challenges::new(&self.realm, &self.accepted);
        let responder = Responder::new(self.renderer, challenges, self.limit_fields);
        let clock = self.clock;
        let limits = self.limiter.map(|limiter| Limits {
            limiter,
            stand_in: LocalLimiter::builder().clock(Arc::clone(&clock)).build(),
            on_outage: self.on_outage,
            outages: AtomicU64::new(0),
        });
        Ok(Authenticator {
            anonymous: self.anonymous,
            inner: Arc::new(Inner {
                accepted: self.accepted,
                hasher: self.hasher,
                store: self.store,
                rehash_in: self.rehash_in,
                scope_model: self.scope_model,
                environment: self.environment,
                unscoped: self.unscoped,
                failures: self
                    .failure_quotas
                    .map(|quotas| FailureLimits::new(quotas, &clock)),
                clock,
                usage: self.usage,
                transport: self.transport,
                client_ip: self.client_ip,
                limits,
                quotas: self.quotas,
                tenant_quotas: self.tenant_quotas,
                cost_of: self.cost_of,
                bucket_of: self.bucket_of,
                owner_standing: self.owner_standing,
                directory: self.directory,
                user_ids: self.user_ids,
                verifier: self.verifier,
                audit: self.audit,
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
        f.debug_struct("AuthenticatorBuilder")
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
