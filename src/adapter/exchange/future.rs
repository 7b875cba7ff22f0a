//! The future of all services of this crate: an inner service's future, a refusal, or a waiting
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
        Inner { #[pin] future: S::Future, report: Option<Report> },
        Refused { response: Option<S::Response> },
        Parked { parked: Box<Parked<S, Q>> },
    }
}

impl<S: Inward<Q>, Q: Incoming> ExchangeFuture<S, Q> {
    /// A request that was forwarded.
    pub(in crate::adapter) fn passing(future: S::Future, report: Option<Report>) -> Self {
        let state = State::Inner { future, report };
        Self { state }
    }

    /// A request that was refused.
    pub(in crate::adapter) fn refusing(response: S::Response) -> Self {
        let response = Some(response);
        let state = State::Refused { response };
        Self { state }
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
                StateProjection::Inner { future, report } => {
                    let answer = ready!(future.poll(cx));
                    let report = report.take();
                    return Poll::Ready(reported::<S, Q>(answer, report).map(S::passed));
                }
                StateProjection::Refused { response } => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                StateProjection::Parked { parked } => ready!(parked.poll(cx)),
            };
            state.set(next.state);
        }
    }
}

/// Reports the result of the inner service. The report was taken out of the future, so this happens
/// once; a future that is dropped earlier drops the report, and with it ends the audit.
fn reported<S: Inward<Q>, Q>(
    mut answer: Result<S::Answer, S::Error>,
    report: Option<Report>,
) -> Result<S::Answer, S::Error> {
    let Some(report) = report else {
        return answer;
    };
    match &mut answer {
        Ok(answer) => report.answered(answer),
        Err(_) => {
            let fields = report.failed();
            return answer.map_err(|error| S::failed(error, &fields));
        }
    }
    answer
}

impl<S: Inward<Q>, Q: Incoming> fmt::Debug for ExchangeFuture<S, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeFuture")
    }
}
