//! A waiting request: it waits for the authenticator, then for each mapping in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::Exchange;
use super::future::ExchangeFuture;
use crate::adapter::carrier::{Carrier, Incoming, Inward};
use crate::adapter::exchange::Mapped;
use crate::audit::RequestAudit;
use crate::authenticator::{Authenticated, Outcome, PendingAttempt};
use crate::error::AuthError;
use crate::key::KeyRecord;

/// What a request waits for. It owns its data and is `Send` if the mappings are.
pub(super) struct Pending<C: Carrier> {
    /// `None` once the authenticator has decided.
    attempt: Option<PendingAttempt>,
    /// The authenticated request, until all mappings have succeeded.
    admission: Option<Authenticated>,
    running: Option<C::Mapping>,
    done: Vec<C::Mapping>,
    audit: Option<RequestAudit>,
}

impl<C: Carrier> Pending<C> {
    /// Waits for the authenticator, then for the mappings.
    pub(super) fn of_attempt(attempt: PendingAttempt, audit: Option<RequestAudit>) -> Self {
        Self {
            attempt: Some(attempt),
            admission: None,
            running: None,
            done: Vec::new(),
            audit,
        }
    }

    /// Waits for the mappings only.
    pub(super) fn of_mappings(admission: Authenticated, audit: Option<RequestAudit>) -> Self {
        let mut pending = Self {
            attempt: None,
            admission: None,
            running: None,
            done: Vec::new(),
            audit,
        };
        pending.admit(admission);
        pending
    }

    /// Records the principal in the audit at once: if the client disconnects during a mapping, the
    /// event still names the key.
    fn admit(&mut self, admission: Authenticated) {
        if let (Some(audit), Some(principal)) = (&mut self.audit, &admission.principal) {
            audit.admitted(principal);
        }
        self.admission = Some(admission);
    }

    /// Polls the authenticator, then the mappings.
    fn poll(&mut self, exchange: &Exchange<C>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(attempt) = &mut self.attempt {
            let outcome = ready!(Pin::new(attempt).poll(cx));
            self.attempt = None;
            self.admit(outcome?);
        }
        ready!(self.poll_mappings(exchange, cx))?;
        let admission = self.admission.take();
        // Polled again after completion: stays pending.
        admission.map_or(Poll::Pending, |admission| Poll::Ready(Ok(admission)))
    }

    /// Polls the mappings in order. Ready when all have succeeded or one has refused.
    fn poll_mappings(
        &mut self,
        exchange: &Exchange<C>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AuthError>> {
        let Some(admission) = &self.admission else {
            return Poll::Ready(Ok(()));
        };
        let Some(principal) = &admission.principal else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let next = || exchange.mappings.begin(self.done.len(), principal);
            let Some(mut mapping) = self.running.take().or_else(next) else {
                return Poll::Ready(Ok(()));
            };
            match mapping.poll(cx) {
                Poll::Ready(Ok(())) => self.done.push(mapping),
                Poll::Ready(Err(error)) => {
                    principal.give_credits_back();
                    return Poll::Ready(Err(refusal(error, admission, principal.record_arc())));
                }
                Poll::Pending => {
                    self.running = Some(mapping);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Adds the rate limits and the key to the error of a mapping that refuses a request.
fn refusal(error: AuthError, admission: &Authenticated, record: &Arc<KeyRecord>) -> AuthError {
    error
        .with_limits(admission.limits())
        .presenting(record, None)
}

/// A waiting request and the ready service that it will be forwarded to.
pub(super) struct Parked<S, Q: Incoming> {
    pub(super) pending: Pending<Q::Carrier>,
    /// `None` once it has been forwarded or refused.
    pub(super) request: Option<Q>,
    pub(super) service: S,
    pub(super) exchange: Arc<Exchange<Q::Carrier>>,
}

impl<S: Inward<Q>, Q: Incoming> Parked<S, Q> {
    /// Polls the decision and returns the future that continues the exchange.
    ///
    /// `take` moves the request and the audit out, so they are used once even if a caller polls
    /// again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeFuture<S, Q>> {
        let outcome = ready!(self.pending.poll(&self.exchange, cx));
        let Some(mut request) = self.request.take() else {
            return Poll::Pending;
        };
        let audit = self.pending.audit.take();
        let mut mapped = std::mem::take(&mut self.pending.done);
        Poll::Ready(match outcome {
            Ok(mut admission) => {
                let exchange = &self.exchange;
                let report =
                    exchange.prepare(&admission, &mut mapped, audit, request.carrier_mut());
                // What the host's futures hold is free before the inner service is called.
                drop(mapped);
                match exchange.admit(&mut admission, &mut request) {
                    None => ExchangeFuture::forwarded(self.service.forward(request), report),
                    Some(error) => {
                        ExchangeFuture::refused(exchange.refused::<Q, S>(request, error, report))
                    }
                }
            }
            Err(error) => self.exchange.refuse(&error, audit, request),
        })
    }
}
