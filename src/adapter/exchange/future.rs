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
    /// The future of an exchange.
    #[must_use = "futures do nothing unless polled"]
    pub struct ExchangeFuture<S, Q>
    where
        S: Inward<Q>,
        Q: Incoming,
    {
        #[pin]
        state: State<S, Q>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Q>
    where
        S: Inward<Q>,
        Q: Incoming,
    {
        Decided { #[pin] decided: DecidedFuture<S, Q>, report: Option<Report> },
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

impl<S: Inward<Q>, Q> Future for DecidedFuture<S, Q> {
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            DecidedProjection::Passing { future } => S::poll(future, cx),
            DecidedProjection::Refused { response } => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

impl<S: Inward<Q>, Q: Incoming> ExchangeFuture<S, Q> {
    /// A request that was decided, and the report for its response.
    #[inline]
    pub(super) fn decided(decided: DecidedFuture<S, Q>, report: Option<Report>) -> Self {
        // One expression, so that the future is moved once.
        Self {
            state: State::Decided { decided, report },
        }
    }

    /// A request that was forwarded, and the report for its response.
    #[inline]
    pub(super) fn forwarded(future: S::Future, report: Option<Report>) -> Self {
        Self::decided(DecidedFuture::passing(future), report)
    }

    /// A request that no authenticator reads.
    #[cfg(feature = "actix-web")]
    pub(in crate::adapter) fn passing(future: S::Future) -> Self {
        Self::forwarded(future, None)
    }

    /// A request that waits.
    pub(super) fn parking(parked: Parked<S, Q>) -> Self {
        let parked = Box::new(parked);
        let state = State::Parked { parked };
        Self { state }
    }
}

impl<S: Inward<Q>, Q: Incoming> Future for ExchangeFuture<S, Q> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Decided { decided, report } => {
                    return if report.is_none() {
                        decided.poll(cx)
                    } else {
                        decided
                            .poll(cx)
                            .map(|answer| reported::<S, Q>(answer, report))
                    };
                }
                StateProjection::Parked { parked } => ready!(parked.poll(cx)),
            };
            state.set(next.state);
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
