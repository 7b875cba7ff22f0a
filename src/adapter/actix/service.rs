//! The service that authenticates, and its future: the inner service's, a refusal, or a request
//! that waits on the heap.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::EitherBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, forward_ready};
use actix_web::http::header::HeaderName;
use actix_web::{Error, HttpRequest};
use pin_project_lite::pin_project;

use super::response::{Told, count, saw};
use super::transform::{Insertion, LocalFuture, Shared, put, take};
use super::{ActixHead, into_response};
use crate::adapter::nobody::{Anonymous, ServesGrpc};
use crate::audit::Witness;
use crate::authenticator::{Admission, Attempt, Outcome};
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::telemetry;

/// Who was admitted, with what the mappings made of it; and who watches.
type Decided = (
    Result<(Admission, Vec<Insertion>), AuthError>,
    Option<Witness>,
);

/// The service that [`Auth`](super::Auth) makes, one in each worker.
pub struct AuthMiddleware<S> {
    pub(super) service: Rc<S>,
    pub(super) shared: Arc<Shared>,
}

impl<S, B> Service<ServiceRequest> for AuthMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = AuthFuture<S, B>;

    forward_ready!(service);

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        hide(&mut request, &self.shared.secret_fields);
        let head = self.shared.head(request.request());
        let witness = self.shared.authenticator.witness(&head);
        let attempt = self.shared.authenticator.attempt(&head);
        let state = match self.shared.settle(attempt, witness) {
            Settled::Now(Ok(admission), witness) => {
                let told = self
                    .shared
                    .admit(admission, Vec::new(), witness, request.request());
                State::Inner {
                    future: self.service.call(request),
                    told,
                }
            }
            Settled::Now(Err(error), witness) => State::Refused {
                response: Some(self.shared.refuse(&error, request, witness)),
            },
            Settled::Later(pending) => {
                let (service, shared) = (Rc::clone(&self.service), Arc::clone(&self.shared));
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

/// Marks the fields that may carry a key as sensitive, for whoever logs the request: all lines, as
/// a refused request is still seen by middleware further out.
fn hide(request: &mut ServiceRequest, names: &[HeaderName]) {
    for name in names {
        if request.headers().contains_key(name) {
            let headers = request.headers_mut();
            for mut value in headers.remove(name).collect::<smallvec::SmallVec<[_; 2]>>() {
                value.set_sensitive(true);
                headers.append(name.clone(), value);
            }
        }
    }
}

/// What is to be done about a request.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and the usual variant must not be boxed"
)]
enum Settled {
    Now(Outcome, Option<Witness>),
    Later(LocalFuture<Decided>),
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
        &self,
        admission: Admission,
        insertions: Vec<Insertion>,
        mut witness: Option<Witness>,
        request: &HttpRequest,
    ) -> Option<Told> {
        for insert in &self.inserts {
            insert(admission.principal.as_ref(), request);
        }
        for insert in insertions {
            insert(request);
        }
        if self.grpc {
            put(request, ServesGrpc);
        } else {
            // What other middleware declared of its API is not said of this one.
            take::<ServesGrpc>(request);
        }
        if let Some(witness) = &mut witness {
            if let Some(principal) = &admission.principal {
                witness.admitted(principal);
            }
            if let Some(id) = witness.request_id() {
                put(request, id.clone());
            }
        }
        let key = admission
            .principal
            .as_ref()
            .filter(|_| telemetry::ON)
            .cloned();
        let responder = self.authenticator.responder();
        match admission.principal {
            Some(principal) => put(request, principal),
            None => {
                // Somebody in another API is nobody here.
                take::<KeyPrincipal>(request);
                put(request, Anonymous(Arc::clone(responder)));
            }
        }
        let told = admission.limits.is_some()
            || admission.canonical_user.is_some()
            || witness.is_some()
            || telemetry::ON;
        let (limits, user) = (admission.limits, admission.canonical_user);
        told.then(|| Told {
            responder: Arc::clone(responder),
            limits,
            user,
            key,
            witness,
        })
    }

    fn head<'r>(&self, request: &'r HttpRequest) -> ActixHead<'r> {
        ActixHead::new(request, (self.peer_of)(request))
            .with_tls((self.tls_of)(request))
            .with_grpc(self.grpc)
    }

    fn refuse<B>(
        &self,
        error: &AuthError,
        request: ServiceRequest,
        witness: Option<Witness>,
    ) -> ServiceResponse<EitherBody<B>> {
        let answer = self
            .authenticator
            .responder()
            .answer(error, &self.head(request.request()));
        let mut response = into_response(answer, error);
        count(&mut response, error.key_id());
        if let Some(witness) = witness {
            saw(witness, &mut response);
        }
        request.into_response(response).map_into_right_body()
    }
}

/// A request whose key is being looked up.
struct Parked<S> {
    pending: LocalFuture<Decided>,
    request: Option<ServiceRequest>,
    service: Rc<S>,
    shared: Arc<Shared>,
}

pin_project! {
    /// The future of [`AuthMiddleware`].
    #[must_use = "futures do nothing unless polled"]
    pub struct AuthFuture<S, B>
    where
        S: Service<ServiceRequest>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<ServiceRequest>,
    {
        Inner { #[pin] future: S::Future, told: Option<Told> },
        Refused { response: Option<ServiceResponse<EitherBody<B>>> },
        Parked { parked: Box<Parked<S>> },
    }
}

impl<S, B> Future for AuthFuture<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Output = Result<ServiceResponse<EitherBody<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Inner { future, told } => {
                    let mut answer = ready!(future.poll(cx));
                    if let Some(told) = told.take() {
                        match &mut answer {
                            Ok(response) => told.tell(response),
                            Err(_) => answer = answer.map_err(|error| told.failed(error)),
                        }
                    }
                    return Poll::Ready(answer.map(ServiceResponse::map_into_left_body));
                }
                StateProjection::Refused { response } => {
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                StateProjection::Parked { parked } => {
                    let (decided, witness) = ready!(parked.pending.as_mut().poll(cx));
                    // Taken once: the state is replaced right below.
                    let Some(request) = parked.request.take() else {
                        return Poll::Pending;
                    };
                    match decided {
                        Ok((admission, insertions)) => {
                            let told = parked.shared.admit(
                                admission,
                                insertions,
                                witness,
                                request.request(),
                            );
                            State::Inner {
                                future: parked.service.call(request),
                                told,
                            }
                        }
                        Err(error) => State::Refused {
                            response: Some(parked.shared.refuse(&error, request, witness)),
                        },
                    }
                }
            };
            state.set(next);
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for AuthMiddleware<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthMiddleware")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl<S, B> fmt::Debug for AuthFuture<S, B>
where
    S: Service<ServiceRequest>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthFuture")
    }
}
