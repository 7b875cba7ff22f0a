//! One exchange: authenticates a request, forwards or refuses it, and reports its response.
//!
//! ```text
//! request ─▶ hide secret headers ─▶ begin audit and attempt ─▶ mappings ─▶ set extensions
//!                                        │ refused                 │ refused         │
//! response ◀── count, end audit ◀────────┴─────────────────────────┘                 ▼
//!    ▲                                                                         inner service
//!    └──────── limit headers, X-User-Id, request id, count, end audit ◀──────────────┘
//! ```
//!
//! What the layer requires is checked before the inner service is called; a refusal is reported as that
//! service's response is, but at once.
//!
//! An attempt that is decided at once, with mappings that do not wait, needs no boxed future. The
//! report is a part of the future, too.
//!
//! # Audit
//! [`Authenticator::begin`] starts the audit together with the attempt, from the same head and with
//! the client address resolved once. Where an audit is configured, no request is therefore
//! authenticated without it.
//!
//! A [`RequestAudit`] writes its event in `Drop`, and the methods that end it consume it. The
//! exchange owns it and moves it along exactly one path: with the request into [`Pending`] while it
//! waits, then into the [`Report`] of a request that passes or into the response of a refusal. So
//! an event is recorded at most once, and an exchange that is dropped anywhere in between (the
//! client disconnected, the handler panicked, an outer timeout fired) still records one, with the
//! outcome "abandoned". The trail's settings decide which events it keeps.

mod future;
mod mapping;
mod pending;
mod report;

use std::net::IpAddr;
use std::sync::Arc;

pub(super) use future::{DecidedFuture, ExchangeFuture};
pub(super) use mapping::{Mapped, Mapping};
pub(super) use report::ResponseFields;

use self::mapping::Mappings;
use self::pending::{Parked, Pending};
use self::report::{Report, end};
use super::carrier::{Anonymous, Carrier, Holds, Incoming, Inward, TlsOf, carries};
use super::inside::refused;
use crate::audit::RequestAudit;
use crate::authenticator::{Attempt, Authenticated, Authenticator};
use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyRecord, PlanName};
use crate::policy::{Principal, Requirement};
use crate::principal::KeyPrincipal;
use crate::request::{RequestHead, TlsVersion};
use crate::telemetry;

type PeerOf<C> = dyn Fn(&C) -> Option<IpAddr> + Send + Sync;

/// The host's configuration of an exchange, shared by all services of a layer in all workers.
#[derive(Clone)]
pub(super) struct Exchange<C: Carrier> {
    pub(super) authenticator: Authenticator,
    /// The headers that may carry a key.
    secret_fields: Vec<C::FieldName>,
    pub(super) peer_of: Arc<PeerOf<C>>,
    pub(super) tls_of: Arc<TlsOf<C>>,
    pub(super) grpc: bool,
    pub(super) mappings: Mappings<C>,
    /// What requests must meet, each of them; a separate layer would cost each request more.
    demanded: Vec<Requirement>,
    /// Whether requests that pass as anonymous need not meet it.
    key_is_optional: bool,
}

/// The service produced by an authenticating layer or middleware.
#[derive(Clone)]
pub struct Authenticating<S, C: Carrier> {
    pub(super) service: S,
    pub(super) exchange: Arc<Exchange<C>>,
}

impl<C: Carrier> Exchange<C> {
    pub(super) fn new(
        authenticator: Authenticator,
        peer_of: impl Fn(&C) -> Option<IpAddr> + Send + Sync + 'static,
        tls_of: impl Fn(&C) -> Option<TlsVersion> + Send + Sync + 'static,
    ) -> Self {
        // The authenticator's builder validated every name as a header name.
        let secret_fields = authenticator
            .secret_fields()
            .filter_map(|name| name.parse().ok())
            .collect();
        Self {
            authenticator,
            secret_fields,
            peer_of: Arc::new(peer_of),
            tls_of: Arc::new(tls_of),
            grpc: false,
            mappings: Mappings::default(),
            demanded: Vec::new(),
            key_is_optional: false,
        }
    }

    /// Makes credentials optional: requests without any pass as anonymous.
    pub(super) fn make_key_optional(&mut self) {
        self.authenticator = self.authenticator.optional_key();
        self.key_is_optional = true;
    }

    /// Requires this, too. Each requirement is checked for itself, as those of layers around each other
    /// are: what one states about the route does not count for another.
    pub(super) fn demand(&mut self, requirement: Requirement) {
        self.demanded.push(requirement);
    }

    /// Requires this of a route, too, which says itself whether requests without a key pass.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(super) fn be_of_route(&mut self, requirement: &Requirement, key_is_optional: bool) {
        self.demand(requirement.clone());
        self.key_is_optional = key_is_optional;
    }

    /// Counts requests of a route that needs no key, and requires nothing of them.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(super) fn only_count(&mut self, authenticator: Authenticator) {
        self.authenticator = authenticator;
        self.demanded.clear();
    }

    /// Processes a request as far as possible without waiting. `service` must be ready for a call.
    pub(super) fn begin<Q, S>(
        self: &Arc<Self>,
        mut request: Q,
        service: &mut S,
    ) -> ExchangeFuture<S, Q>
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q> + Clone,
    {
        if self.is_counted(&request) {
            return ExchangeFuture::forwarded(service.forward(request), None);
        }
        request.hide(&self.secret_fields);
        let mut audit = None;
        let mut attempt = self
            .authenticator
            .begin_in(&self.head(&request), &mut audit);
        match attempt {
            // An admission is large, so the usual one is not moved.
            Attempt::Ready(Ok(ref mut admission)) if !self.mappings.must_wait(admission) => {
                let report = self.prepare(admission, &mut [], audit, request.carrier_mut());
                match self.admit(admission, &mut request) {
                    None => ExchangeFuture::forwarded(service.forward(request), report),
                    Some(error) => {
                        ExchangeFuture::refused(self.refused::<Q, S>(request, error, report))
                    }
                }
            }
            Attempt::Ready(Err(error)) => self.refuse(&error, audit, request),
            Attempt::Ready(Ok(admission)) => {
                self.park(Pending::of_mappings(admission, audit), request, service)
            }
            Attempt::Pending(attempt) => {
                self.park(Pending::of_attempt(attempt, audit), request, service)
            }
        }
    }

    /// Returns whether this layer would only count the request, and an outer layer of the same
    /// service has counted it by the same policies.
    fn is_counted<Q: Incoming<Carrier = C>>(&self, request: &Q) -> bool {
        if !self.authenticator.only_counts() {
            return false;
        }
        let (carrier, ours) = (request.carrier(), self.authenticator.responder());
        let by_key = Holds::<KeyPrincipal>::look(carrier)
            .is_some_and(|principal| std::ptr::eq(principal.responder(), &**ours));
        let without_key = || {
            Holds::<Anonymous>::look(carrier)
                .is_some_and(|one| one.count.is_some() && Arc::ptr_eq(&one.responder, ours))
        };
        (by_key || without_key()) && !self.authenticator.has_class(self.head(request).method())
    }

    /// Parks a request that must wait.
    ///
    /// `poll_ready` reserved capacity on this very instance of the service, so the instance goes
    /// with the request and a clone, which is polled for readiness again, takes its place.
    fn park<Q, S>(
        self: &Arc<Self>,
        pending: Pending<C>,
        request: Q,
        service: &mut S,
    ) -> ExchangeFuture<S, Q>
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q> + Clone,
    {
        let fresh = service.clone();
        ExchangeFuture::parking(Parked {
            pending,
            request: Some(request),
            service: std::mem::replace(service, fresh),
            exchange: Arc::clone(self),
        })
    }

    /// Returns the error for a request that does not meet what is required.
    #[inline]
    fn unmet<Q>(&self, principal: Option<&KeyPrincipal>, request: &Q) -> Option<AuthError>
    where
        Q: Incoming<Carrier = C>,
    {
        if self.demanded.is_empty() {
            return None;
        }
        let Some(principal) = principal else {
            return (!self.key_is_optional).then(|| AuthError::new(ErrorCode::MissingKey));
        };
        let head = request.head(None, None, self.grpc);
        let mut demanded = self.demanded.iter();
        demanded.find_map(|demanded| demanded.check(principal, Some(&head)).err())
    }

    /// Prepares an admitted request for the inner service, together with [`admit`](Self::admit): records
    /// the admission in the audit, and sets the values that are created from it. Returns the report for
    /// the response. The caller forwards the request itself, because each function that a request or a
    /// report is moved to copies it.
    ///
    /// Authenticating layers may be nested, so the carrier may already have values of an outer one.
    /// Every value is therefore set or removed:
    ///
    /// - the host types that this layer maps: set, or removed if the request is anonymous;
    /// - `RequestId`: the audited id; otherwise the outer layer's stays;
    /// - `KeyPrincipal`: the admitted principal; removed if the request is anonymous, as a
    ///   principal of another API means nothing here. A layer that only counts leaves it and the
    ///   host types, as a public route without such a layer does;
    /// - `Anonymous`: set for an anonymous request. One from an outer layer may stay beside a
    ///   principal, which takes precedence everywhere (see `inside`).
    #[inline(always)] // So that the report, which is large, is not moved.
    fn prepare(
        &self,
        admission: &Authenticated,
        mapped: &mut [C::Mapping],
        mut audit: Option<RequestAudit>,
        carrier: &mut C,
    ) -> Option<Report> {
        if !self.authenticator.only_counts() {
            let principal = admission.principal.as_ref();
            self.mappings.put(principal, mapped, carrier);
        }
        if let Some(audit) = &mut audit {
            if let Some(principal) = &admission.principal {
                audit.admitted(principal);
            }
            if let Some(id) = audit.request_id() {
                carrier.put(id.clone());
            }
        }
        if telemetry::has_subscriber()
            && let Some(principal) = &admission.principal
        {
            identify(principal.record(), principal.plan(), carrier);
        }
        let responder = self.authenticator.responder();
        let counted = counts(carrier).then(|| {
            let plan = admission.principal.as_ref().and_then(KeyPrincipal::plan);
            self.authenticator.plan_label(plan)
        });
        Report::new(admission, audit, responder, counted)
    }

    /// Sets the caller for inner layers and handlers. Returns the error for a request that does not meet
    /// what is required.
    #[inline]
    fn admit<Q>(&self, admission: &mut Authenticated, request: &mut Q) -> Option<AuthError>
    where
        Q: Incoming<Carrier = C>,
    {
        let unmet = self.unmet(admission.principal.as_ref(), request);
        let carrier = request.carrier_mut();
        match admission.principal.take() {
            Some(mut principal) => {
                if self.grpc {
                    principal.set_serves_grpc();
                }
                carrier.put(principal);
            }
            None => {
                // An outer layer's principal belongs to another API, which is of no interest where
                // no key is read.
                if !self.authenticator.only_counts() {
                    Holds::<KeyPrincipal>::remove(carrier);
                }
                carrier.put(Anonymous {
                    responder: Arc::clone(self.authenticator.responder()),
                    count: admission.anonymous.take(),
                    grpc: self.grpc,
                });
            }
        }
        unmet
    }

    /// Refuses a request. The response is counted and its audit ended here, before the future is
    /// polled, so that the event is complete even if the client is gone by then.
    fn refuse<Q, S>(
        &self,
        error: &AuthError,
        audit: Option<RequestAudit>,
        request: Q,
    ) -> ExchangeFuture<S, Q>
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q>,
    {
        if telemetry::has_subscriber()
            && let Some(presented) = error.presented()
        {
            identify(&presented.record, error.plan(), request.carrier());
        }
        if counts(request.carrier()) {
            let plan = self.authenticator.plan_label(error.plan());
            telemetry::answered(Some(error), None, &plan);
        }
        let answer = self
            .authenticator
            .responder()
            .answer(error, &self.head(&request));
        let mut response = S::refused(request, answer, error);
        end(audit, &mut response);
        ExchangeFuture::refused(response)
    }

    /// Refuses a request that was admitted and does not meet what is required. This is reported at once,
    /// too.
    #[cold]
    fn refused<Q, S>(&self, request: Q, error: AuthError, report: Option<Report>) -> S::Response
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q>,
    {
        let mut response = refused::<Q, S>(request, error, self.grpc);
        if let Some(mut report) = report {
            report.answered(&mut response);
        }
        response
    }

    fn head<'r, Q: Incoming<Carrier = C>>(
        &'r self,
        request: &'r Q,
    ) -> impl RequestHead + use<'r, C, Q> {
        let carrier = request.carrier();
        request.head((self.peer_of)(carrier), Some(&*self.tls_of), self.grpc)
    }
}

/// Records a key on the span of the request, unless an outer layer has recorded the same one.
fn identify<C: Carrier>(key: &KeyRecord, plan: Option<&PlanName>, carrier: &C) {
    let outer = Holds::<KeyPrincipal>::look(carrier);
    if outer.is_none_or(|outer| outer.record().id != key.id) {
        telemetry::identify(key, plan);
    }
}

/// Returns whether this layer counts the response to a request: the outermost one does, however many
/// layers see it. To be asked before the carrier has this layer's own values.
fn counts<C: Carrier>(carrier: &C) -> bool {
    telemetry::ON && !carries::<KeyPrincipal>(carrier) && !carries::<Anonymous>(carrier)
}

impl<S: std::fmt::Debug, C: Carrier> std::fmt::Debug for Authenticating<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticating")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
