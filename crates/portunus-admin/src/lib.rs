//! The management API of Portunus: issue, list, change, rotate and revoke keys over HTTP, for
//! operators that the host authenticates.
//!
//! [`Admin`] builds an axum [`Router`] to nest. The host authenticates operators
//! ([`OperatorProof`]): the library has no passwords of its own, and no call bypasses the proof.
//! Identity and tenant come from the authenticated operator, never from the body; another tenant's
//! key gets the same 404 as an unknown id. The [policy](portunus::manage::OperatorPolicy) of the
//! manager decides what the operator can do; [`HostRules`] adds the host's own rules.
//!
//! Writes accept JSON only (`application/json`, for `PATCH` also `application/merge-patch+json`, and
//! for `POST /import` also lines of JSON and CSV, which describe many keys: [`KeyImport`]), and
//! only from the API's own site or from one that the host trusts ([`Admin::trusted_origins`]): a page
//! on another site cannot use the session of an operator who opens it. `If-Match` and `If-None-Match`
//! are supported by every call on a key (RFC 9110 §13).
//!
//! `POST /verify` evaluates what a request with a key would get, by the same rules as the request
//! itself ([`Authenticator::verify`]): for given scopes, a method, an address and a workspace.
//! Other requirements of a route cannot be given: a plan
//! ([`PlanOrder`](portunus::policy::PlanOrder)), a user, the organization. `"allowed": true` does
//! not cover these, and the rate limit and the transport are never checked. To evaluate all of it,
//! a host calls [`Authenticator::verify`] with the route's own
//! [`Requirement`](portunus::Requirement).
//!
//! # Failed calls
//! Every refused call is recorded as an audit event, without any of the presented credentials,
//! subject to the limit on recorded refusals per source
//! ([`failures_per_source`](portunus::audit::AuditTrailBuilder::failures_per_source)).
//!
//! - A call without an authenticated operator (a failed proof, a write from a page of another site,
//!   an unknown path or method) counts against the client's address, IPv6 by /64, /56 and /48: 100
//!   a minute ([`Admin::failures`]), then 429. Its event has no tenant, so only operators who are
//!   not confined to a tenant see it. Calls without a client address, and calls for which the proof
//!   itself is unavailable (5xx), are not counted.
//! - The proof runs even after a client exceeded its failures, because only the proof can recognize
//!   a valid operator: operators are not locked out by failing neighbours at the same address. To
//!   protect the proof from floods, at most 16 proofs run concurrently for one client and 64 on a
//!   node, 16 of them reserved for clients without recent failures; further requests wait for up to
//!   a second and then get 503. A client with ten times the allowed failures gets four proofs a
//!   second and 429 beyond. Credentials that were proven within the last minutes
//!   ([`OperatorProof::credentials`]) are exempt from these limits.
//! - Failed calls of an authenticated operator count only against the operator's own requests
//!   ([`Admin::quotas`]). Unknown secrets in `POST /verify` are counted by operator, 1000 a minute
//!   ([`Admin::failed_verifications`]); beyond, the response is 429 instead of `"active": false`.
//!   Known secrets are still answered.
//!
//! # Self-serve
//! With the policy [`own_keys`](portunus::manage::own_keys), the same API is for the service's
//! customers: every user manages exactly its own keys, and another user's key gets the 404 of an
//! unknown id. The guide `self_serve` of `portunus` has the rules.
//!
//! ```
//! use axum::http::header::COOKIE;
//! use axum::http::request::Parts;
//! use portunus::manage::{Operator, Role, own_keys};
//! use portunus::{AuthError, ErrorCode, Portunus, scope};
//! use portunus_admin::{Admin, OperatorProof};
//!
//! /// Proves the user that is signed in to the service's site.
//! #[derive(Debug)]
//! struct Sessions;
//!
//! #[async_trait::async_trait]
//! impl OperatorProof for Sessions {
//!     async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
//!         let cookie = request.headers.get(COOKIE).ok_or(AuthError::new(ErrorCode::MissingKey))?;
//!         // A look-up in the service's sessions, and the user's permissions as they are now.
//!         let _ = cookie;
//!         let (user, tenant) = ("ann".parse(), "acme".parse());
//!         let (Ok(user), Ok(tenant)) = (user, tenant) else {
//!             return Err(AuthError::new(ErrorCode::InvalidKey));
//!         };
//!         Ok(Operator::new(user, tenant, Role::Member)
//!             .with_authority([scope!("document:read")])
//!             .in_organization())
//!     }
//! }
//!
//! # fn with(keys: &Portunus) {
//! let own = Admin::new(keys, Sessions).operators(own_keys()).cookie("session");
//! let app: axum::Router = axum::Router::new().nest("/me/api", own.into_router());
//! # }
//! ```
//!
//! # Credits
//! If requests cost [credits](portunus::credit), an account's are at `/credits/{id}`, where the id is
//! the [text form](portunus::credit::CreditAccount) of the account. By default an operator of a tenant
//! reads the accounts of its tenant, and only the service itself grants, voids and gives back; see
//! [`allows_credits`](portunus::manage::OperatorPolicy::allows_credits).
//!
//! # On actix-web
//! With the feature `actix-web`, `Admin::into_actix` builds a service for `App::service` of actix-web
//! 4. Bodies are streamed in both directions.
//!
//! # Dashboard
//! With the feature `dashboard`, `Admin::dashboard` builds pages on which operators do the same in a
//! browser, with the same settings: proof, policy, limits, events, audit. They work without script
//! and wherever they are mounted. Forms are sent as `application/x-www-form-urlencoded` and carry a token
//! that is bound to the operator's session ([`Admin::cookie`], [`OperatorProof::credentials`]), in
//! addition to the check of the origin. `Dashboard::within` puts the pages into pages of the host, and
//! `Dashboard::into_actix` mounts them on actix-web.
//!
//! # Answers
//! Responses are JSON with `Cache-Control: no-store`; error responses are problem documents (RFC
//! 9457) with a stable `code`. Unknown fields are errors, so that a misspelt restriction is not
//! silently ignored.
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
//!         // The host's session, its single sign-on, a client certificate, …
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

#[cfg(feature = "actix-web")]
mod actix;
mod authenticated;
mod body;
mod bulk;
mod call;
mod conditions;
mod content;
mod credits;
#[cfg(feature = "dashboard")]
mod dashboard;
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
mod patterns;
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
use portunus::limit::{BucketId, LimitBucket, LimitReport, LimitRequest, LocalLimiter};
use portunus::manage::{KeyManager, Operator, OperatorPolicy};
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, Authenticator, Portunus, RateLimiter};

use authenticated::AuthenticatedOperator;
use proofs::Proofs;

#[cfg(feature = "actix-web")]
pub use actix::ActixMount;
#[cfg(feature = "dashboard")]
pub use dashboard::{Dashboard, Fragment, Texts, UnknownText};
pub use fault::Fault;
pub use host::{EventView, OperatorProof};
pub use import::{
    ImportFormat, ImportRecord, ImportRecords, ImportReport, ImportStopped, KeyImport, RefusedLine,
};
pub use origin::{InvalidOrigin, Origin, check as check_origin};
pub use portunus::manage::HostRules;
pub use security::{ApiSecurity, Undescribed};
pub use time::{parse_time, time_text};

/// How long `GET /events` waits for events that are not yet written.
const MAX_FLUSH_WAIT: Duration = Duration::from_millis(500);

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
    /// Whether requests cost credits.
    has_credits: bool,
    event_view: Option<EventView>,
    /// The name of the cookie by which operators authenticate, for the document.
    cookie: Option<&'static str>,
    peer_of: Arc<PeerOf>,
    limiter: LocalLimiter,
    quotas: Option<Quotas>,
    /// Counts unknown secrets in `POST /verify`, by operator.
    unknown: LocalLimiter,
    unknown_quotas: Option<Quotas>,
    trusted_origins: Arc<[Origin]>,
}

impl Admin {
    /// Creates the management API of a service's keys. `proof` authenticates its operators.
    ///
    /// Reads do not write to storage. `GET /events` requests the periodic jobs
    /// ([`Portunus::maintain`]) to write pending events, waits for up to half a second, and returns
    /// the stored events.
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
                has_credits: keys.credits().is_some(),
                event_view: None,
                cookie: None,
                peer_of: Arc::new(default_peer),
                quotas: per_minute(6000),
                trusted_origins: Arc::new([]),
            },
        }
    }

    /// Sets the policy of this API's operators; that of the service
    /// ([`Management::operators`](portunus::manage::Management::operators)) by default. With
    /// [`own_keys`](portunus::manage::own_keys), the API is for self-serve: every user manages its own
    /// keys. Nest it beside the API of the administrators, with another proof.
    pub fn operators(mut self, policy: impl OperatorPolicy) -> Self {
        self.shared.manager = self.shared.manager.under(policy);
        self
    }

    /// Says in the OpenAPI document that operators authenticate by a cookie with this name. By default
    /// it says that they send a bearer token. What counts is the [`OperatorProof`]. Forms of the
    /// dashboard are bound to this cookie: by default to all cookies and the `Authorization` header, so
    /// that they are refused once if another cookie changes.
    pub fn cookie(mut self, name: &'static str) -> Self {
        self.shared.cookie = Some(name);
        self
    }

    /// Sets the log that `GET /events` reads. Without a log, the path does not exist.
    pub fn events(mut self, log: impl AuditReader) -> Self {
        self.shared.events = Some(Arc::new(log));
        self
    }

    /// Sets a function that adds the host's own members to each event in a response.
    pub fn event_view(mut self, view: EventView) -> Self {
        self.shared.event_view = Some(view);
        self
    }

    /// Sets how the peer address of the connection is determined; axum's
    /// `ConnectInfo<SocketAddr>` by default.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.shared.peer_of = Arc::new(peer_of);
        self
    }

    /// Limits the requests of an operator; 6000 a minute by default, `None` for no limit.
    pub fn quotas(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.quotas = quotas;
        self
    }

    /// Limits the calls of a client without an authenticated operator: failed proofs, writes from
    /// pages of other sites, unknown paths and methods. 100 a minute by default, `None` for no
    /// limit; beyond, they get 429. They are counted by address; a /56 network has four times and a
    /// /48 sixteen times the limit of a /64. They do not lock out an operator whose proof succeeds
    /// (see [failed calls](crate#failed-calls)).
    #[allow(clippy::needless_pass_by_value, reason = "same signature as `quotas`")]
    pub fn failures(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.proofs = Arc::new(self.shared.proofs.with_failures(quotas.as_ref()));
        self
    }

    /// Limits how many secrets that are not keys of its tenant an operator can send to
    /// `POST /verify`; 1000 a minute by default, `None` for no limit.
    pub fn failed_verifications(mut self, quotas: Option<Quotas>) -> Self {
        self.shared.unknown_quotas = quotas;
        self
    }

    /// Returns the host's proof under the limits of this API, for the host's own operator routes:
    /// failures there are counted and recorded together with those of this API. Call this after
    /// setting [`peer`](Self::peer) and [`failures`](Self::failures).
    #[must_use]
    pub fn limited_proof(&self) -> Arc<dyn OperatorProof> {
        Arc::new(call::LimitedProof(self.shared.clone()))
    }

    /// Sets the other sites whose pages can write; none by default. A page on one of them can do
    /// everything that the operator who opens it can do. List only sites that you control.
    ///
    /// A write (any method except `GET`, `HEAD`, `OPTIONS` and `TRACE`) is checked first, in this
    /// order, and refused with 403 `CROSS_SITE` if no rule lets it pass:
    ///
    /// 1. An `Origin` on this list passes.
    /// 2. `Sec-Fetch-Site` of `same-origin` or `none` passes; any other value is refused, also
    ///    `same-site`: another port or subdomain is another site here.
    /// 3. Without `Sec-Fetch-Site`, a request without `Origin` passes (it does not come from a
    ///    browser), and so does an `Origin` whose host and port are the request's own. Every other
    ///    `Origin`, including `null`, is refused.
    ///
    /// A proxy in front must therefore forward the `Host` that the browser sent. For pages of
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

    /// Builds the router, to be nested under a path of the host.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let mut router = Router::new()
            .route("/keys", post(issue::issue).get(keys::list))
            .route(
                "/keys/{id}",
                get(keys::show).patch(update::update).delete(keys::delete),
            )
            .route("/keys/bulk", post(bulk::start))
            .route("/keys/bulk/{id}", get(bulk::show))
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
        if self.shared.has_credits {
            router = credits::routes(router);
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
    /// Requests a flush of the recorded events and waits for it, up to [`MAX_FLUSH_WAIT`].
    async fn events_written(&self) {
        if let Some(trail) = self.authenticator.audit() {
            // A slow or hanging sink must not prevent reads of the stored events.
            let _ = tokio::time::timeout(MAX_FLUSH_WAIT, trail.request_flush()).await;
        }
    }

    /// Counts a request of the operator.
    fn limit(&self, operator: &Operator) -> Result<(), AuthError> {
        let Some(quotas) = &self.quotas else {
            return Ok(());
        };
        let name = name_of(operator);
        let bucket = LimitBucket::new(BucketId::Custom(&name), quotas);
        match self.limiter.try_acquire(&LimitRequest::new(&[bucket], 1)) {
            Some(Ok(decision)) if !decision.is_admitted() => {
                Err(AuthError::rate_limited(LimitReport::of(quotas, decision)))
            }
            // With more operators than the limiter can count, requests are admitted.
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a secret in `POST /verify` that is not a key of the operator's tenant.
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

/// Returns the operator's name qualified by the tenant. Neither contains a space.
fn name_of(operator: &Operator) -> String {
    let tenant = operator.tenant().map_or("", |tenant| tenant.as_str());
    format!("{tenant} {}", operator.name())
}
