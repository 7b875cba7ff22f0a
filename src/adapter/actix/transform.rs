//! The middleware that authenticates, as a host describes it; what all workers share of it.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::EitherBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::HeaderName;
use actix_web::{Error, HttpMessage, HttpRequest};

use super::AuthMiddleware;
use crate::authenticator::Authenticator;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::request::TlsVersion;

type PeerOf = dyn Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync;
type TlsOf = dyn Fn(&HttpRequest) -> Option<TlsVersion> + Send + Sync;
/// Inserts what a mapping makes of a principal, or takes out what another API's has left.
type Insert = dyn Fn(Option<&KeyPrincipal>, &HttpRequest) + Send + Sync;
/// What came of a mapping that was awaited, to be inserted.
pub(super) type Insertion = Box<dyn FnOnce(&HttpRequest)>;
type InsertLater = dyn Fn(KeyPrincipal) -> LocalFuture<Result<Insertion, AuthError>> + Send + Sync;
pub(super) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Middleware that only authenticated requests get through.
///
/// The [`KeyPrincipal`] is then in the request's extensions. Cloning shares everything: make it
/// once, outside of the closure that `HttpServer::new` calls for every worker, and clone it into
/// each `App`. An authenticator that is built inside of that closure has limits and caches of its
/// own in every worker.
#[derive(Clone)]
#[must_use = "middleware does nothing until it wraps something"]
pub struct Auth {
    pub(super) shared: Arc<Shared>,
}

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) authenticator: Authenticator,
    /// The fields that may carry a key.
    pub(super) secret_fields: Vec<HeaderName>,
    pub(super) peer_of: Arc<PeerOf>,
    pub(super) tls_of: Arc<TlsOf>,
    pub(super) grpc: bool,
    pub(super) inserts: Vec<Arc<Insert>>,
    pub(super) inserts_later: Vec<Arc<InsertLater>>,
}

impl From<Authenticator> for Auth {
    fn from(authenticator: Authenticator) -> Self {
        Self::new(authenticator)
    }
}

impl Auth {
    /// Middleware around this authenticator.
    ///
    /// The peer's address is the connection's; see [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        // Every name was checked to be a field name when the authenticator was built.
        let secret_fields = authenticator
            .secret_fields()
            .filter_map(|name| name.parse().ok())
            .collect();
        let peer_of =
            Arc::new(|request: &HttpRequest| request.peer_addr().map(|address| address.ip()));
        let tls_of = Arc::new(default_tls);
        let (inserts, inserts_later) = (Vec::new(), Vec::new());
        Self {
            shared: Arc::new(Shared {
                authenticator,
                secret_fields,
                peer_of,
                tls_of,
                grpc: false,
                inserts,
                inserts_later,
            }),
        }
    }

    /// Says how the address at the other end of the connection is found.
    pub fn peer(
        self,
        peer_of: impl Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.peer_of = Arc::new(peer_of))
    }

    /// Says how the connection's version of TLS is found; unless set, a [`TlsVersion`] that
    /// `HttpServer::on_connect` put into the connection's data, or middleware further out into the
    /// request's extensions.
    pub fn tls(
        self,
        tls_of: impl Fn(&HttpRequest) -> Option<TlsVersion> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.tls_of = Arc::new(tls_of))
    }

    /// Declares that what is behind this serves gRPC: refused calls, that is `POST`s of
    /// `application/grpc`, are answered by a gRPC status (trailers only, under HTTP 200).
    ///
    /// Unless declared, every refusal has its HTTP status, whatever `Content-Type` the client
    /// sends. Do not declare it for routes that answer a proxy's question whether a request may
    /// pass (forward-auth): such a proxy lets pass what is answered with 200.
    pub fn grpc(self) -> Self {
        self.with(|shared| shared.grpc = true)
    }

    /// The same middleware, for resources whose key is optional: a request that sends no
    /// credentials at all passes as nobody, and a handler takes `Option<KeyPrincipal>`. A wrong or
    /// revoked key is refused, and so are credentials of a scheme that is not accepted.
    pub fn optional_key(self) -> Self {
        self.with(|shared| shared.authenticator = shared.authenticator.optional_key())
    }

    /// Puts a type of the host's own, made of the principal, into the extensions too, as `Arc<T>`.
    pub fn map_principal<T: 'static>(
        self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| {
            shared
                .inserts
                .push(Arc::new(move |principal, request| match principal {
                    Some(principal) => put(request, Arc::new(map(principal))),
                    None => take::<Arc<T>>(request),
                }));
        })
    }

    /// Puts a type of the host's own into the extensions, as `Arc<T>`, that must be awaited and may
    /// refuse: a row of the host's database, say. It is asked once for each request that was let
    /// through so far, after everything else. The future stays on its worker and need not be
    /// `Send`.
    ///
    /// A refusal is answered like the library's own; an error that is [caused
    /// by](AuthError::caused_by) one of the host's reaches the renderer with it.
    pub fn try_map_principal<T, E, F>(
        self,
        map: impl Fn(KeyPrincipal) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: 'static,
        E: Into<AuthError>,
        F: Future<Output = Result<T, E>> + 'static,
    {
        self.with(|shared| {
            // Somebody in another API is nobody here until this one has said who it is.
            shared
                .inserts
                .push(Arc::new(|_, request| take::<Arc<T>>(request)));
            shared.inserts_later.push(Arc::new(move |principal| {
                let mapped = map(principal);
                Box::pin(async move {
                    let mapped = Arc::new(mapped.await.map_err(Into::into)?);
                    let insert: Insertion = Box::new(move |request| put(request, mapped));
                    Ok(insert)
                })
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
        Self {
            shared: Arc::new(shared),
        }
    }
}

fn default_tls(request: &HttpRequest) -> Option<TlsVersion> {
    let of_connection = request.conn_data::<TlsVersion>().copied();
    of_connection.or_else(|| request.extensions().get::<TlsVersion>().copied())
}

/// Puts a value into the request's extensions. They are free again when what was there before is
/// dropped.
pub(super) fn put<T: 'static>(request: &HttpRequest, value: T) {
    let before = request.extensions_mut().insert(value);
    drop(before);
}

/// Takes a value out of the request's extensions.
pub(super) fn take<T: 'static>(request: &HttpRequest) {
    let before = request.extensions_mut().remove::<T>();
    drop(before);
}

impl<S, B> Transform<S, ServiceRequest> for Auth
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = AuthMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<AuthMiddleware<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(AuthMiddleware {
            service: Rc::new(service),
            shared: Arc::clone(&self.shared),
        }))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("authenticator", &self.shared.authenticator)
            .finish_non_exhaustive()
    }
}
