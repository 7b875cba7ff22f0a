//! The service that authenticates, and what the answer tells.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::auth::{BoxFuture, Insertion, Shared};
use super::{HttpHead, RejectionBody, into_response};
use crate::adapter::nobody::{Anonymous, ServesGrpc};
use crate::audit::{RequestId, Witness};
use crate::authenticator::{Admission, Attempt, Outcome};
use crate::error::AuthError;
use crate::key::{KeyId, UserId};
use crate::limit::Decision;
use crate::policy::Principal;
use crate::principal::KeyPrincipal;
use crate::telemetry;

/// Who was admitted, with what the mappings made of it; and who watches.
type Decided = (
    Result<(Admission, Vec<Insertion>), AuthError>,
    Option<Witness>,
);

/// The service that [`AuthLayer`](super::AuthLayer) makes.
#[derive(Clone)]
pub struct AuthService<S> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AuthFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        for name in &self.shared.secret_fields {
            // The first line is enough: a request that repeats such a field goes no further than
            // this.
            if let Some(value) = request.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let head = self.shared.head(&request);
        let witness = self.shared.authenticator.witness(&head);
        let attempt = self.shared.authenticator.attempt(&head);
        let state = match self.shared.settle(attempt, witness) {
            Settled::Now(Ok(admission), witness) => {
                let told =
                    self.shared
                        .admit(admission, Vec::new(), witness, request.extensions_mut());
                State::Inner {
                    future: self.inner.call(request),
                    told,
                }
            }
            Settled::Now(Err(error), witness) => State::Refused {
                response: Some(self.shared.refuse(&error, &head, witness)),
            },
            Settled::Later(pending) => {
                // The service that was polled ready goes with the request; a fresh clone stays for
                // the next one.
                let fresh = self.inner.clone();
                let service = mem::replace(&mut self.inner, fresh);
                let shared = Arc::clone(&self.shared);
                State::Parked {
                    parked: Box::new(Parked {
                        pending,
                        request: Some(request),
                        service,
                        shared,
                    }),
                }
            }
        };
        AuthFuture { state }
    }
}

/// What is to be done about a request.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and the usual variant must not be boxed"
)]
enum Settled {
    Now(Outcome, Option<Witness>),
    Later(BoxFuture<Decided>),
}

impl Shared {
    /// Whether the request must wait, for the authenticator or for a mapping.
    fn settle(self: &Arc<Self>, attempt: Attempt, mut witness: Option<Witness>) -> Settled {
        match attempt {
            Attempt::Ready(outcome) if self.inserts_later.is_empty() || outcome.is_err() => {
                Settled::Now(outcome, witness)
            }
            attempt => {
                let this = Arc::clone(self);
                Settled::Later(Box::pin(async move {
                    let decided = this.map(attempt, &mut witness).await;
                    (decided, witness)
                }))
            }
        }
    }

    /// Asks all mappings that must be awaited about whoever is admitted.
    async fn map(
        &self,
        attempt: Attempt,
        witness: &mut Option<Witness>,
    ) -> Result<(Admission, Vec<Insertion>), AuthError> {
        let admission = attempt.outcome().await?;
        let mut insertions = Vec::with_capacity(self.inserts_later.len());
        if let Some(principal) = &admission.principal {
            // Whoever goes away from here on was let through.
            if let Some(witness) = witness {
                witness.admitted(principal);
            }
            for later in &self.inserts_later {
                let mapped = later(principal.clone()).await;
                let told = |error: AuthError| {
                    error
                        .with_limits(admission.limits.clone())
                        .presenting(principal.record_arc(), None)
                };
                insertions.push(mapped.map_err(told)?);
            }
        }
        Ok((admission, insertions))
    }

    /// Puts whoever was admitted into the extensions. Returns what the answer shall tell.
    fn admit(
        self: &Arc<Self>,
        admission: Admission,
        insertions: Vec<Insertion>,
        mut witness: Option<Witness>,
        extensions: &mut Extensions,
    ) -> Option<Told> {
        for insert in &self.inserts {
            insert(admission.principal.as_ref(), extensions);
        }
        for insert in insertions {
            insert(extensions);
        }
        if self.grpc {
            extensions.insert(ServesGrpc);
        } else {
            // What another layer declared of its API is not said of this one.
            extensions.remove::<ServesGrpc>();
        }
        if let Some(witness) = &mut witness {
            if let Some(principal) = &admission.principal {
                witness.admitted(principal);
            }
            if let Some(id) = witness.request_id() {
                extensions.insert(id.clone());
            }
        }
        let key = admission
            .principal
            .as_ref()
            .filter(|_| telemetry::ON)
            .cloned();
        match admission.principal {
            Some(principal) => {
                extensions.insert(principal);
            }
            None => {
                // Somebody in another layer's API is nobody here.
                extensions.remove::<KeyPrincipal>();
                extensions.insert(Anonymous(Arc::clone(self.authenticator.responder())));
            }
        }
        let told = admission.limits.is_some()
            || admission.canonical_user.is_some()
            || witness.is_some()
            || telemetry::ON;
        let (limits, user) = (admission.limits, admission.canonical_user);
        told.then(|| Told {
            shared: Arc::clone(self),
            limits,
            user,
            key,
            witness,
        })
    }

    fn head<'r, B>(&self, request: &'r Request<B>) -> HttpHead<'r> {
        let extensions = request.extensions();
        HttpHead::new(request, (self.peer_of)(extensions))
            .with_tls((self.tls_of)(extensions))
            .with_grpc(self.grpc)
    }

    fn refuse<R: RejectionBody>(
        &self,
        error: &AuthError,
        head: &HttpHead<'_>,
        witness: Option<Witness>,
    ) -> Response<R> {
        let mut response = into_response(self.authenticator.responder().answer(error, head), error);
        count(&mut response, error.key_id());
        if let Some(witness) = witness {
            witness.saw(&mut response);
        }
        response
    }
}

/// Marks an answer that was counted, so that a layer further out does not count it again.
#[derive(Clone)]
struct Counted;

/// Counts an answer, once.
fn count<R>(response: &mut Response<R>, key: Option<&KeyId>) {
    if telemetry::ON && response.extensions().get::<Counted>().is_none() {
        telemetry::answered(response.extensions().get(), key);
        response.extensions_mut().insert(Counted);
    }
}

impl Witness {
    /// The head of the answer is there: the request's id goes along with it, for layers further
    /// out.
    fn saw<R>(self, response: &mut Response<R>) {
        let id: Option<RequestId> = self.request_id().cloned();
        self.answered(response.status().as_u16(), response.extensions().get());
        id.map(|id| response.extensions_mut().insert(id));
    }
}

impl<S: fmt::Debug> fmt::Debug for AuthService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// What the answer tells, whoever makes it: how the windows stand, and the id of the user named by
/// e-mail; and who is told of the answer.
struct Told {
    shared: Arc<Shared>,
    limits: Option<Decision>,
    user: Option<UserId>,
    /// Whose request it was, where somebody listens.
    key: Option<KeyPrincipal>,
    witness: Option<Witness>,
}

impl Told {
    fn tell<R>(self, response: &mut Response<R>) {
        self.add_fields(response.headers_mut());
        count(response, self.key.as_ref().map(Principal::key_id));
        if let Some(witness) = self.witness {
            witness.saw(response);
        }
    }

    fn add_fields(&self, headers: &mut HeaderMap) {
        let mut add = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(limits) = &self.limits {
            self.shared
                .authenticator
                .responder()
                .limit_fields(limits, &mut add);
        }
        if let Some(user) = &self.user {
            add("x-user-id", user.to_string());
        }
    }
}

/// A request whose key is being looked up, with the service that is ready for it.
struct Parked<S, B> {
    pending: BoxFuture<Decided>,
    request: Option<Request<B>>,
    service: S,
    shared: Arc<Shared>,
}

pin_project! {
    /// The future of [`AuthService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct AuthFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, R>
    where
        S: Service<Request<B>>,
    {
        Inner { #[pin] future: S::Future, told: Option<Told> },
        Refused { response: Option<Response<R>> },
        Parked { parked: Box<Parked<S, B>> },
    }
}

impl<S, B, R> Future for AuthFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Inner { future, told } => {
                    let mut answer = ready!(future.poll(cx));
                    match (&mut answer, told.take()) {
                        (Ok(response), told) => {
                            if let Some(told) = told {
                                told.tell(response);
                            }
                        }
                        (Err(_), told) => {
                            if let Some(witness) = told.and_then(|told| told.witness) {
                                witness.failed();
                            }
                        }
                    }
                    return Poll::Ready(answer);
                }
                StateProjection::Refused { response } => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                StateProjection::Parked { parked } => {
                    let (decided, witness) = ready!(parked.pending.as_mut().poll(cx));
                    // Taken once: the state is replaced right below.
                    let Some(mut request) = parked.request.take() else {
                        return Poll::Pending;
                    };
                    match decided {
                        Ok((admission, insertions)) => {
                            let told = parked.shared.admit(
                                admission,
                                insertions,
                                witness,
                                request.extensions_mut(),
                            );
                            State::Inner {
                                future: parked.service.call(request),
                                told,
                            }
                        }
                        Err(error) => {
                            let response = parked.shared.refuse(
                                &error,
                                &parked.shared.head(&request),
                                witness,
                            );
                            State::Refused {
                                response: Some(response),
                            }
                        }
                    }
                }
            };
            state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for AuthFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthFuture")
    }
}
