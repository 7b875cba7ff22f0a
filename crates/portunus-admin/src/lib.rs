//! The management API of Portunus: issue, list, change, rotate and revoke keys over HTTP, for
//! operators whom the host has proven.
//!
//! [`Admin`] makes an axum [`Router`] to nest. Who an operator is, the host says
//! ([`OperatorProof`]): there is no password of the library's and no way around the proof. Identity
//! and tenant come from the proven operator, never from the body; another tenant's key is the 404
//! of an unknown id. What the operator may do is the [policy](portunus::manage::OperatorPolicy) of
//! the manager; what the host's own rules add is in [`HostRules`].
//!
//! Writes take JSON and nothing else (`application/json`, for `PATCH` also
//! `application/merge-patch+json`), and only from the API's own site or from one that the host
//! trusts ([`Admin::trusted_origins`]): a page on another site cannot use the session of an
//! operator who looks at it. `If-Match` and `If-None-Match` hold for every call on a key
//! (RFC 9110 §13).
//!
//! `POST /verify` says what a request with a key would get, by the rules that the request itself
//! passes ([`Authenticator::verify`]). It is asked about scopes, a method, an address and a
//! workspace. What else a route may require cannot be asked there: a plan
//! ([`PlanOrder`](portunus::policy::PlanOrder)), a user, the organization. `"allowed": true` then
//! says nothing of that, and the rate limit and the transport are never looked at. A host that wants
//! to know all of it asks [`Authenticator::verify`] with the route's own
//! [`Requirement`](portunus::Requirement).
//!
//! # Calls that fail
//! Every refused call is an event of the audit, without anything of what it presented, as often as
//! refusals of one source are noted
//! ([`failures_per_source`](portunus::audit::AuditTrailBuilder::failures_per_source)).
//!
//! - A call that nobody is proven to make (a failed proof, a write from a page of another site, a
//!   path or method that there is not) counts for the client's address, IPv6 by /64, /56 and /48:
//!   100 a minute ([`Admin::failures`]), then 429. Its event names no tenant, so that only operators
//!   who are confined to none see it. Without an address, and where the proof itself gives no
//!   answer (5xx), nothing is counted.
//! - The proof is asked before a client's failures say no, as a working proof is found out in no
//!   other way: an operator works beside neighbours who fail. So that it is not flooded, 16 proofs
//!   are asked for at once for one client and 64 on a node, 16 of these only for clients that have
//!   not failed lately; more wait for a second and get 503. A client that fails ten times the
//!   allowed number has four proofs a second and gets 429 beyond. Credentials that were proven in the last
//!   minutes ([`OperatorProof::credentials`]) are under none of these limits.
//! - Whatever a proven operator does wrong counts against its own number of requests
//!   ([`Admin::quotas`]) and nothing else. Secrets that `POST /verify` does not know are counted for
//!   the operator, 1000 a minute ([`Admin::failed_verifications`]), then 429 in the place of
//!   `"active": false`; known ones are shown all the same.
//!
//! Answers are JSON with `Cache-Control: no-store`, refusals are problem documents (RFC 9457) with
//! a stable `code`. Fields that are not known are errors, so that nobody believes a restriction was
//! taken that was not.
//!
//! ```
//! use axum::http::request::Parts;
//! use portunus::ErrorCode;
//! use portunus::key::TenantId;
//! use portunus::manage::{Operator, Role};
//! use portunus::{AuthError, Portunus};
//! use portunus_admin::{Admin, OperatorProof};
//!
//! #[derive(Debug)]
//! struct Sessions;
//!
//! #[async_trait::async_trait]
//! impl OperatorProof for Sessions {
//!     async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
//!         // The host's session, its single sign-on, a client certificate…
//!         let _ = request;
//!         Err(AuthError::new(ErrorCode::MissingKey))
//!     }
//! }
//!
//! # fn with(keys: &Portunus) {
//! let app: axum::Router =
//!     axum::Router::new().nest("/admin", Admin::new(keys, Sessions).into_router());
//! # }
//! ```

mod authenticated;
mod body;
mod call;
mod conditions;
mod content;
mod events;
mod failures;
mod fault;
mod host;
mod import;
mod issue;
mod keys;
mod limits;
mod openapi;
mod origin;
mod proofs;
mod query;
mod record;
mod security;
mod terms;
mod time;
mod update;
mod verify;
mod wiped;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Extensions;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use portunus::audit::AuditReader;
use portunus::limit::{BucketId, LimitBucket, LimitRequest, LocalLimiter};
use portunus::manage::{KeyManager, Operator};
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, Authenticator, Portunus, RateLimiter};

use authenticated::AuthenticatedOperator;
use proofs::Proofs;

pub use fault::Fault;
pub use host::{EventView, OperatorProof};
pub use origin::{InvalidOrigin, Origin};
pub use portunus::manage::HostRules;
pub use security::{ApiSecurity, Undescribed};
pub use time::{parse_time, time_text};

/// How long a reader of events waits for those that are not written yet.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

type PeerOf = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;

/// The management API.
#[must_use = "an API does nothing until into_router()"]
pub struct Admin {
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    manager: KeyManager,
    authenticator: Authenticator,
    proofs: Arc<Proofs>,
    events: Option<Arc<dyn AuditReader>>,
    event_view: Option<EventView>,
    peer_of: Arc<PeerOf>,
    limiter: LocalLimiter,
    quotas: Option<Quotas>,
    /// Secrets that `POST /verify` did not know, by operator.
    unknown: LocalLimiter,
    unknown_quotas: Option<Quotas>,
    trusted_origins: Arc<[Origin]>,
}

impl Admin {
    /// The management API of a service's keys. Its operators are proven by the host.
    ///
    /// Reading writes nothing. `GET /events` asks the periodic jobs ([`Portunus::maintain`]) to write
    /// what was noted, waits half a second for it at most, and shows what is stored then.
    pub fn new(keys: &Portunus, proof: impl OperatorProof) -> Self {
        let per_minute = |limit| {
            Quota::per_minute(limit)
                .and_then(|quota| Quotas::new([quota]))
                .ok()
        };
        let manager = keys.manager().clone();
        let by_operator = || {
            let clock = Arc::clone(manager.clock());
            LocalLimiter::builder().most_buckets(10_000).clock(clock)
        };
        Self {
            shared: Shared {
                proofs: Arc::new(Proofs::new(proof, manager.clock())),
                unknown: by_operator().build(),
                unknown_quotas: per_minute(1000),
                limiter: by_operator().build(),
                manager,
                authenticator: keys.authenticator().clone(),
                events: None,
                event_view: None,
                peer_of: Arc::new(default_peer),
                quotas: per_minute(6000),
                trusted_origins: Arc::new([]),
            },
        }
    }

    /// The log that `GET /events` reads; without one there is no such path.
    pub fn events(mut self, log: impl AuditReader) -> Self {
        self.shared.events = Some(Arc::new(log));
        self
    }

    /// Adds members of the host's own to each event that is shown.
    pub fn event_view(mut self, view: EventView) -> Self {
        self.shared.event_view = Some(view);
        self
    }

    /// How the address at the other end of the connection is found; axum's
    /// `ConnectInfo<SocketAddr>` unless set.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.shared.peer_of = Arc::new(peer_of);
        self
    }

    /// How many requests an operator may make; 6000 a minute unless set, `None` for any number.
    pub fn quotas(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.quotas = quotas;
        self
    }

    /// How many calls a client may make without a proven operator: failed proofs, writes from pages
    /// of other sites, paths and methods that there are not. 100 a minute unless set, `None` for any
    /// number; beyond, they get 429. They are counted by address; a network /56 has four times and
    /// a /48 sixteen times as many as a /64. An operator who is proven is not kept out by them
    /// ([how](crate#calls-that-fail)).
    #[allow(clippy::needless_pass_by_value, reason = "as `quotas` takes it")]
    pub fn failures(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.proofs = Arc::new(self.shared.proofs.with_failures(quotas.as_ref()));
        self
    }

    /// How many secrets that are no key of its tenant an operator may ask `POST /verify` about;
    /// 1000 a minute unless set, `None` for any number.
    pub fn failed_verifications(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.unknown_quotas = quotas;
        self
    }

    /// The host's proof under the limits of this API, for routes of the host's own that its operators
    /// call: a failure there counts and is noted as one here. To be taken after
    /// [`peer`](Self::peer) and [`failures`](Self::failures) are set.
    #[must_use]
    pub fn limited_proof(&self) -> Arc<dyn OperatorProof> {
        Arc::new(call::LimitedProof(self.shared.clone()))
    }

    /// Other sites whose pages may write; none unless set. A page on one of them can do whatever
    /// the operator who looks at it may do. List only sites that you control.
    ///
    /// A write (any method but `GET`, `HEAD`, `OPTIONS` and `TRACE`) is checked before anything
    /// else, in this order, and otherwise refused with 403 `CROSS_SITE`:
    ///
    /// 1. An `Origin` on this list passes.
    /// 2. `Sec-Fetch-Site` of `same-origin` or `none` passes; any other value is refused, also
    ///    `same-site`: another port or subdomain is another site here.
    /// 3. Without `Sec-Fetch-Site`, a request without `Origin` passes (it is no browser's), and so
    ///    does an `Origin` whose host and port are the request's own. Every other `Origin`,
    ///    including `null`, is refused.
    ///
    /// A proxy in front must therefore pass on the `Host` that the browser asked for. For pages of
    /// these sites to read answers, the host's CORS layer must allow the same origins, and expose
    /// `ETag`.
    ///
    /// ```
    /// # fn with(admin: portunus_admin::Admin) -> Result<(), portunus_admin::InvalidOrigin> {
    /// let admin = admin.trusted_origins(["https://console.example.com".parse()?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trusted_origins(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.shared.trusted_origins = origins.into_iter().collect();
        self
    }

    /// The router, to be nested under a path of the host's.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let mut router = Router::new()
            .route("/keys", post(issue::issue).get(keys::list))
            .route(
                "/keys/{id}",
                get(keys::show).patch(update::update).delete(keys::delete),
            )
            .route("/keys/{id}/revoke", post(keys::revoke))
            .route("/keys/{id}/rotate", post(keys::rotate))
            .route("/keys/{id}/primary", post(keys::make_primary))
            .route("/keys/{id}/usage", get(keys::usage))
            .route("/import", post(import::import))
            .route("/verify", post(verify::verify))
            .route("/openapi.json", openapi::route(&self.shared));
        if self.shared.events.is_some() {
            router = router.route("/events", get(events::list));
        }
        router
            .fallback(fault::unknown)
            .method_not_allowed_fallback(fault::method_not_allowed)
            .layer(from_fn_with_state(self.shared.clone(), call::observe))
            .with_state(self.shared)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("manager", &self.shared.manager)
            .finish_non_exhaustive()
    }
}

fn default_peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(address)| address.ip())
}

impl Shared {
    /// Asks for what was noted so far to be written, and waits for it; not for long.
    async fn events_written(&self) {
        if let Some(trail) = self.authenticator.audit() {
            // A sink that is slow or hangs keeps nobody from reading what is stored.
            let _ = tokio::time::timeout(LONGEST_WAIT, trail.request_flush()).await;
        }
    }

    /// Counts a request of the operator's.
    fn limit(&self, operator: &Operator) -> Result<(), AuthError> {
        let Some(quotas) = &self.quotas else {
            return Ok(());
        };
        let name = name_of(operator);
        let bucket = LimitBucket::new(BucketId::Custom(&name), quotas);
        match self.limiter.try_acquire(&LimitRequest::new(&[bucket], 1)) {
            Some(Ok(decision)) if !decision.is_admitted() => Err(AuthError::rate_limited(decision)),
            // More operators than can be counted: none of them is kept from work for it.
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a secret that the operator asked about and that is no key of its tenant.
    fn count_unknown(&self, operator: &Operator) -> Result<(), AuthError> {
        let Some(quotas) = &self.unknown_quotas else {
            return Ok(());
        };
        match failures::take(&self.unknown, &name_of(operator), quotas) {
            Ok(Some(wait)) => Err(AuthError::too_many_failures(wait)),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// An operator, told apart from those of other tenants.
fn name_of(operator: &Operator) -> String {
    let tenant = operator.tenant().map_or("", |tenant| tenant.as_str());
    format!("{tenant} {}", operator.name)
}
