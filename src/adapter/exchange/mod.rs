//! One exchange: a request is authenticated, goes on or is refused, and its answer is reported.
//!
//! ```text
//! request ─▶ hide secret fields ─▶ audit begins, attempt ─▶ mappings ─▶ values go with the request
//!                                        │ refused             │ refused          │
//! answer ◀─ counted, audit ends ◀────────┴─────────────────────┘                  ▼
//!    ▲                                                                     the service further in
//!    └──────────── limit fields, X-User-Id, request id, counted, audit ends ──────┘
//! ```
//!
//! An attempt that is decided at once, with mappings that need no wait, goes through without a
//! boxed future; what the answer reports is boxed, and made only where there is something to report.

mod future;
mod mapping;
mod pending;
mod report;

use std::net::IpAddr;
use std::sync::Arc;

pub(super) use future::ExchangeFuture;
pub(super) use mapping::{Mapped, Mapping};
pub(super) use report::ResponseFields;

use self::mapping::Mappings;
use self::pending::{Parked, Pending};
use self::report::{Report, count, end};
use super::carrier::{Anonymous, Carrier, Holds, Incoming, Inward, ServesGrpc};
use crate::audit::RequestAudit;
use crate::authenticator::{Attempt, Authenticated, Authenticator};
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::request::{RequestHead, TlsVersion};

type PeerOf<C> = dyn Fn(&C) -> Option<IpAddr> + Send + Sync;
type TlsOf<C> = dyn Fn(&C) -> Option<TlsVersion> + Send + Sync;

/// What a host has said of its exchanges: shared by all services of a layer, in all workers.
#[derive(Clone)]
pub(super) struct Exchange<C: Carrier> {
    pub(super) authenticator: Authenticator,
    /// The fields that may carry a key.
    secret_fields: Vec<C::FieldName>,
    pub(super) peer_of: Arc<PeerOf<C>>,
    pub(super) tls_of: Arc<TlsOf<C>>,
    pub(super) grpc: bool,
    pub(super) mappings: Mappings<C>,
}

/// The service that an authenticating layer or middleware makes.
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
        // Every name was checked to be a field name when the authenticator was built.
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
        }
    }

    /// From here on, requests without credentials pass as nobody.
    pub(super) fn key_is_optional(&mut self) {
        self.authenticator = self.authenticator.optional_key();
    }

    /// Takes a request as far as it comes without waiting. `service` is ready for it.
    pub(super) fn begin<Q, S>(
        self: &Arc<Self>,
        mut request: Q,
        service: &mut S,
    ) -> ExchangeFuture<S, Q>
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q> + Clone,
    {
        request.hide(&self.secret_fields);
        let begun = self.authenticator.begin(&self.head(&request));
        let audit = begun.request_audit;
        match begun.attempt {
            Attempt::Ready(Ok(admission)) if !self.mappings.must_wait(&admission) => {
                self.pass(admission, Vec::new(), audit, request, service)
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

    /// Lets a request wait. The service that is ready goes with it; a fresh clone stays for the
    /// next one.
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

    /// Lets a request pass, with all that those further in ask about it.
    fn pass<Q, S>(
        &self,
        admission: Authenticated,
        mapped: Vec<C::Mapping>,
        audit: Option<RequestAudit>,
        mut request: Q,
        service: &mut S,
    ) -> ExchangeFuture<S, Q>
    where
        Q: Incoming<Carrier = C>,
        S: Inward<Q>,
    {
        let report = self.admit(admission, mapped, audit, request.carrier_mut());
        ExchangeFuture::passing(service.forward(request), report)
    }

    /// Puts whoever was admitted into the carrier, and takes out whatever another API's layer has
    /// left there. Returns what the answer reports.
    fn admit(
        &self,
        admission: Authenticated,
        mapped: Vec<C::Mapping>,
        mut audit: Option<RequestAudit>,
        carrier: &mut C,
    ) -> Option<Box<Report>> {
        self.mappings
            .put(admission.principal.as_ref(), mapped, carrier);
        if self.grpc {
            carrier.put(ServesGrpc);
        } else {
            Holds::<ServesGrpc>::remove(carrier);
        }
        if let Some(audit) = &mut audit {
            if let Some(principal) = &admission.principal {
                audit.admitted(principal);
            }
            if let Some(id) = audit.request_id() {
                carrier.put(id.clone());
            }
        }
        let responder = self.authenticator.responder();
        let (principal, report) = Report::split(admission, audit, responder);
        match principal {
            Some(principal) => carrier.put(principal),
            None => {
                // Somebody in another API is nobody here.
                Holds::<KeyPrincipal>::remove(carrier);
                carrier.put(Anonymous(Arc::clone(responder)));
            }
        }
        report
    }

    /// Refuses a request.
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
        let answer = self
            .authenticator
            .responder()
            .answer(error, &self.head(&request));
        let mut response = S::refused(request, answer, error);
        count(&mut response, error.key_id());
        end(audit, &mut response);
        ExchangeFuture::refusing(response)
    }

    fn head<'r, Q: Incoming<Carrier = C>>(
        &self,
        request: &'r Q,
    ) -> impl RequestHead + use<'r, C, Q> {
        let carrier = request.carrier();
        request.head((self.peer_of)(carrier), (self.tls_of)(carrier), self.grpc)
    }
}

impl<S: std::fmt::Debug, C: Carrier> std::fmt::Debug for Authenticating<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticating")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
