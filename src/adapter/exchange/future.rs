//! The futures of the services of this crate: an inner service's future, a refusal, or a waiting
//! request on the heap.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::pending::Parked;
use super::report::Report;
use crate::adapter::carrier::{Incoming, Inward};

pin_project! {
    /// The future of an exchange. One enum, with no struct or future around it: each would move the
    /// inner service's future, which is large, once more.
    #[project = ExchangeProjection]
    #[must_use = "futures do nothing unless polled"]
    pub enum ExchangeFuture<S, Q>
    where
        S: Inward<Q>,
        Q: Incoming,
    {
        /// Forwarded.
        Forwarded { #[pin] future: S::Future, report: Option<Report> },
        /// Refused; `None` once polled.
        Refused { response: Option<S::Response> },
        /// Waits.
        Parked { parked: Box<Parked<S, Q>> },
    }
}

pin_project! {
    /// The future of a request that was forwarded or refused, and whose response nothing reports.
    #[project = DecidedProjection]
    #[must_use = "futures do nothing unless polled"]
    pub enum DecidedFuture<S, Q>
    where
        S: Inward<Q>,
    {
        /// Forwarded.
        Passing { #[pin] future: S::Future },
        /// Refused; `None` once polled.
        Refused { response: Option<S::Response> },
    }
}

impl<S: Inward<Q>, Q> DecidedFuture<S, Q> {
    #[inline]
    pub(in crate::adapter) fn passing(future: S::Future) -> Self {
        Self::Passing { future }
    }

    pub(in crate::adapter) fn refusing(response: S::Response) -> Self {
        let response = Some(response);
        Self::Refused { response }
    }
}

/// Returns the response of a refusal. Polled again after it: stays pending.
fn taken<R, E>(response: &mut Option<R>) -> Poll<Result<R, E>> {
    let response = response.take();
    response.map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
}

impl<S: Inward<Q>, Q> Future for DecidedFuture<S, Q> {
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            DecidedProjection::Passing { future } => S::poll(future, cx),
            DecidedProjection::Refused { response } => taken(response),
        }
    }
}

impl<S: Inward<Q>, Q: Incoming> ExchangeFuture<S, Q> {
    /// A request that was forwarded, and the report for its response.
    #[inline]
    pub(in crate::adapter) fn forwarded(future: S::Future, report: Option<Report>) -> Self {
        Self::Forwarded { future, report }
    }

    /// A request that was refused.
    pub(super) fn refused(response: S::Response) -> Self {
        let response = Some(response);
        Self::Refused { response }
    }

    /// A request that waits.
    pub(super) fn parking(parked: Parked<S, Q>) -> Self {
        let parked = Box::new(parked);
        Self::Parked { parked }
    }
}

impl<S: Inward<Q>, Q: Incoming> Future for ExchangeFuture<S, Q> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                ExchangeProjection::Forwarded { future, report } => {
                    return if report.is_none() {
                        S::poll(future, cx)
                    } else {
                        S::poll(future, cx).map(|answer| reported::<S, Q>(answer, report))
                    };
                }
                ExchangeProjection::Refused { response } => return taken(response),
                ExchangeProjection::Parked { parked } => ready!(parked.poll(cx)),
            };
            self.set(next);
        }
    }
}

/// Reports the result of the inner service. The report is dropped then, so this happens once; a
/// future that is dropped earlier drops the report, and with it ends the audit.
fn reported<S: Inward<Q>, Q>(
    mut answer: Result<S::Response, S::Error>,
    report: &mut Option<Report>,
) -> Result<S::Response, S::Error> {
    let Some(mut report) = report.take() else {
        return answer;
    };
    // Changed where it is, because a response is large.
    match &mut answer {
        Ok(response) => report.answered(response),
        Err(_) => answer = answer.map_err(|error| S::failed(error, report.failed())),
    }
    answer
}

impl<S: Inward<Q>, Q: Incoming> fmt::Debug for ExchangeFuture<S, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeFuture")
    }
}

impl<S: Inward<Q>, Q> fmt::Debug for DecidedFuture<S, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecidedFuture")
    }
}
