//! The layer that authenticates.

use std::fmt;
use std::future::Future;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Anonymous, HttpHead, RejectionBody, into_response};
use crate::authenticator::{Admission, Attempt, Authenticator, PendingAttempt};
use crate::error::AuthError;
use crate::key::UserId;
use crate::limit::Decision;
use crate::network::TlsVersion;
use crate::principal::KeyPrincipal;

type TlsOf = dyn Fn(&Extensions) -> Option<TlsVersion> + Send + Sync;
type PeerOf = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;
/// Inserts what a mapping makes of a principal, or takes out what another layer's has left.
type Insert = dyn Fn(Option<&KeyPrincipal>, &mut Extensions) + Send + Sync;

/// Wraps a service so that only authenticated requests reach it.
///
/// The [`KeyPrincipal`] is then in the request's extensions.
#[derive(Clone)]
pub struct AuthLayer {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    authenticator: Authenticator,
    /// The fields that may carry a key.
    secret_fields: Vec<HeaderName>,
    peer_of: Arc<PeerOf>,
    tls_of: Arc<TlsOf>,
    inserts: Vec<Arc<Insert>>,
}

impl AuthLayer {
    /// A layer around this authenticator.
    ///
    /// The peer's address is taken from the extensions that axum's `ConnectInfo<SocketAddr>` (feature `axum`) or the
    /// server (a plain `SocketAddr`) put there; see [`peer`](Self::peer).
    #[must_use]
    pub fn new(authenticator: Authenticator) -> Self {
        // Every name was checked to be a field name when the authenticator was built.
        let secret_fields = authenticator.secret_fields().filter_map(|name| name.parse().ok()).collect();
        let peer_of = Arc::new(default_peer);
        let tls_of = Arc::new(|extensions: &Extensions| extensions.get::<TlsVersion>().copied());
        let inserts = Vec::new();
        Self { shared: Arc::new(Shared { authenticator, secret_fields, peer_of, tls_of, inserts }) }
    }

    /// Says how the address at the other end of the connection is found.
    #[must_use]
    pub fn peer(self, peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.with(|shared| shared.peer_of = Arc::new(peer_of))
    }

    /// Says how the connection's version of TLS is found; a [`TlsVersion`] in the extensions unless set.
    #[must_use]
    pub fn tls(self, tls_of: impl Fn(&Extensions) -> Option<TlsVersion> + Send + Sync + 'static) -> Self {
        self.with(|shared| shared.tls_of = Arc::new(tls_of))
    }

    /// Puts a type of the host's own, made of the principal, into the extensions too, as `Arc<T>`.
    #[must_use]
    pub fn map_principal<T: Send + Sync + 'static>(
        self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| {
            shared.inserts.push(Arc::new(move |principal, extensions| match principal {
                Some(principal) => {
                    extensions.insert(Arc::new(map(principal)));
                }
                None => {
                    extensions.remove::<Arc<T>>();
                }
            }));
        })
    }

    /// The authenticator.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.shared.authenticator
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        change(&mut shared);
        Self { shared: Arc::new(shared) }
    }
}

fn default_peer(extensions: &Extensions) -> Option<IpAddr> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>() {
        return Some(address.ip());
    }
    extensions.get::<SocketAddr>().map(SocketAddr::ip)
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;
    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService { inner, shared: Arc::clone(&self.shared) }
    }
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer").field("authenticator", &self.shared.authenticator).finish_non_exhaustive()
    }
}

/// The service that [`AuthLayer`] makes.
#[derive(Clone)]
pub struct AuthService<S> {
    inner: S,
    shared: Arc<Shared>,
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
            // The first line is enough: a request that repeats such a field goes no further than this.
            if let Some(value) = request.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let head = self.shared.head(&request);
        let state = match self.shared.authenticator.attempt(&head) {
            Attempt::Ready(Ok(admission)) => {
                let told = self.shared.admit(admission, request.extensions_mut());
                State::Inner { future: self.inner.call(request), told }
            }
            Attempt::Ready(Err(error)) => State::Refused { response: Some(self.shared.refuse(&error, &head)) },
            Attempt::Pending(pending) => {
                // The service that was polled ready goes with the request; a fresh clone stays for the next one.
                let fresh = self.inner.clone();
                let service = mem::replace(&mut self.inner, fresh);
                let shared = Arc::clone(&self.shared);
                State::Parked { parked: Box::new(Parked { pending, request: Some(request), service, shared }) }
            }
        };
        AuthFuture { state }
    }
}

impl Shared {
    /// Puts whoever was admitted into the extensions. Returns what the answer shall tell.
    fn admit(self: &Arc<Self>, admission: Admission, extensions: &mut Extensions) -> Option<Told> {
        for insert in &self.inserts {
            insert(admission.principal.as_ref(), extensions);
        }
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
        let told = admission.limits.is_some() || admission.canonical_user.is_some();
        told.then(|| Told { shared: Arc::clone(self), limits: admission.limits, user: admission.canonical_user })
    }

    fn head<'r, B>(&self, request: &'r Request<B>) -> HttpHead<'r> {
        let extensions = request.extensions();
        HttpHead::new(request, (self.peer_of)(extensions)).with_tls((self.tls_of)(extensions))
    }

    fn refuse<R: RejectionBody>(&self, error: &AuthError, head: &HttpHead<'_>) -> Response<R> {
        into_response(self.authenticator.responder().answer(error, head), error)
    }
}

impl<S: fmt::Debug> fmt::Debug for AuthService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What the answer tells, whoever makes it: how the windows stand, and the id of the user named by e-mail.
struct Told {
    shared: Arc<Shared>,
    limits: Option<Decision>,
    user: Option<UserId>,
}

impl Told {
    fn tell(self, headers: &mut HeaderMap) {
        let mut add = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(limits) = &self.limits {
            self.shared.authenticator.responder().limit_fields(limits, &mut add);
        }
        if let Some(user) = self.user {
            add("x-user-id", user.into());
        }
    }
}

/// A request whose key is being looked up, with the service that is ready for it.
struct Parked<S, B> {
    pending: PendingAttempt,
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
                    let mut response = ready!(future.poll(cx))?;
                    if let Some(told) = told.take() {
                        told.tell(response.headers_mut());
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Refused { response } => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
                StateProjection::Parked { parked } => {
                    let outcome = ready!(Pin::new(&mut parked.pending).poll(cx));
                    // Taken once: the state is replaced right below.
                    let Some(mut request) = parked.request.take() else { return Poll::Pending };
                    match outcome {
                        Ok(admission) => {
                            let told = parked.shared.admit(admission, request.extensions_mut());
                            State::Inner { future: parked.service.call(request), told }
                        }
                        Err(error) => {
                            let response = parked.shared.refuse(&error, &parked.shared.head(&request));
                            State::Refused { response: Some(response) }
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
