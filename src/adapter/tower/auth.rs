//! The layer that authenticates.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use http::Extensions;
use http::header::HeaderName;
use tower::Layer;

use super::service::AuthService;
use crate::authenticator::Authenticator;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::request::TlsVersion;

type TlsOf = dyn Fn(&Extensions) -> Option<TlsVersion> + Send + Sync;
type PeerOf = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;
/// Inserts what a mapping makes of a principal, or takes out what another layer's has left.
type Insert = dyn Fn(Option<&KeyPrincipal>, &mut Extensions) + Send + Sync;
/// What came of a mapping that was awaited, to be inserted.
pub(super) type Insertion = Box<dyn FnOnce(&mut Extensions) + Send>;
type InsertLater = dyn Fn(KeyPrincipal) -> BoxFuture<Result<Insertion, AuthError>> + Send + Sync;
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Wraps a service so that only authenticated requests reach it.
///
/// The [`KeyPrincipal`] is then in the request's extensions.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AuthLayer {
    shared: Arc<Shared>,
}

/// What all services of a layer share.
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

impl From<Authenticator> for AuthLayer {
    fn from(authenticator: Authenticator) -> Self {
        Self::new(authenticator)
    }
}

impl AuthLayer {
    /// A layer around this authenticator.
    ///
    /// The peer's address is taken from the extensions that axum's `ConnectInfo<SocketAddr>`
    /// (feature `axum`) or the server (a plain `SocketAddr`) put there; see [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        // Every name was checked to be a field name when the authenticator was built.
        let secret_fields = authenticator
            .secret_fields()
            .filter_map(|name| name.parse().ok())
            .collect();
        let peer_of = Arc::new(default_peer);
        let tls_of = Arc::new(|extensions: &Extensions| extensions.get::<TlsVersion>().copied());
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

    /// Says how the address at the other end of the connection is found; with tonic,
    /// `|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr().map(|peer| peer.ip())`.
    pub fn peer(
        self,
        peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.peer_of = Arc::new(peer_of))
    }

    /// Says how the connection's version of TLS is found; a [`TlsVersion`] in the extensions unless
    /// set.
    pub fn tls(
        self,
        tls_of: impl Fn(&Extensions) -> Option<TlsVersion> + Send + Sync + 'static,
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

    /// The same layer, for routes whose key is optional: a request that sends no credentials at all
    /// passes as nobody, and a handler takes `Option<KeyPrincipal>`. A wrong or revoked key is
    /// refused, and so are credentials of a scheme that is not accepted.
    pub fn optional_key(self) -> Self {
        self.with(|shared| shared.authenticator = shared.authenticator.optional_key())
    }

    /// Puts a type of the host's own, made of the principal, into the extensions too, as `Arc<T>`.
    pub fn map_principal<T: Send + Sync + 'static>(
        self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| {
            shared
                .inserts
                .push(Arc::new(move |principal, extensions| match principal {
                    Some(principal) => {
                        extensions.insert(Arc::new(map(principal)));
                    }
                    None => {
                        extensions.remove::<Arc<T>>();
                    }
                }));
        })
    }

    /// Puts a type of the host's own into the extensions, as `Arc<T>`, that must be awaited and may
    /// refuse: a row of the host's database, say. It is asked once for each request that was let
    /// through so far, after everything else.
    ///
    /// A refusal is answered like the library's own; an error that is [caused
    /// by](AuthError::caused_by) one of the host's reaches the renderer with it.
    ///
    /// ```
    /// use portunus::adapter::tower::AuthLayer;
    /// use portunus::{AuthError, Authenticator, ErrorCode, KeyPrincipal, Principal};
    ///
    /// struct Customer { name: String }
    ///
    /// async fn load(principal: KeyPrincipal) -> Result<Customer, AuthError> {
    ///     match principal.owner().tenant_id.as_str() {
    ///         "acme" => Ok(Customer { name: "Acme".into() }),
    ///         _ => Err(AuthError::with_detail(ErrorCode::Forbidden, "The account is closed")),
    ///     }
    /// }
    ///
    /// # fn with(authenticator: Authenticator) {
    /// let layer = AuthLayer::new(authenticator).try_map_principal(load);
    /// # }
    /// ```
    pub fn try_map_principal<T, E, F>(
        self,
        map: impl Fn(KeyPrincipal) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Send + Sync + 'static,
        E: Into<AuthError>,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.with(|shared| {
            // Somebody in another layer's API is nobody here until this one has said who it is.
            shared.inserts.push(Arc::new(|_, extensions| {
                drop(extensions.remove::<Arc<T>>());
            }));
            shared.inserts_later.push(Arc::new(move |principal| {
                let mapped = map(principal);
                Box::pin(async move {
                    let mapped = Arc::new(mapped.await.map_err(Into::into)?);
                    let insert: Insertion =
                        Box::new(move |extensions| drop(extensions.insert(mapped)));
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

fn default_peer(extensions: &Extensions) -> Option<IpAddr> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(address.ip());
    }
    extensions.get::<SocketAddr>().map(SocketAddr::ip)
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;
    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer")
            .field("authenticator", &self.shared.authenticator)
            .finish_non_exhaustive()
    }
}
