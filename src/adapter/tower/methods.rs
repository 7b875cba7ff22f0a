//! The layer that demands of each gRPC method what a table says, and refuses methods that are not
//! in it.
//!
//! A method is a path, `/package.Service/Method`. Whoever puts this layer around a service declares
//! that it serves gRPC: its refusals, and those further in, are gRPC statuses for gRPC calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tower::{Layer, Service};

use super::require::RequireFuture;
use super::{HttpHead, RejectionBody, check, principal, refuse};
use crate::adapter::nobody::ServesGrpc;
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;

/// What each method requires: first of all the method's own entry, then its service's, then
/// [`otherwise`](Self::otherwise). Whatever has none is refused, `FORBIDDEN` (`PERMISSION_DENIED`).
///
/// Names are compared exactly. gRPC calls are all `POST`, so a read-only key is refused unless the
/// requirement says [`reading`](Requirement::reading).
///
/// This layer implies [`AuthLayer::grpc`](super::AuthLayer::grpc) for itself and what is further
/// in; the `AuthLayer` further out must be told.
///
/// ```
/// use portunus::adapter::tower::GrpcMethods;
/// use portunus::{Requirement, scope};
///
/// let methods = GrpcMethods::new()
///     .service("acme.v1.Documents", scope!("document:write"))
///     .method(
///         "/acme.v1.Documents/List",
///         Requirement::scope(scope!("document:read")).and(Requirement::reading()),
///     )
///     .method("/acme.v1.Documents/Delete", scope!("document:delete"))
///     .public_service("grpc.health.v1.Health")
///     .build()?;
/// # Ok::<_, portunus::adapter::tower::GrpcMethodsError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a table does nothing until it is built, and the layer wraps a service"]
pub struct GrpcMethods {
    table: Table,
    error: Option<GrpcMethodsError>,
}

/// An entry that no table can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcMethodsError {
    /// Not the path of a method: `/`, the service's name, `/` and the method's, none of them empty
    /// or percent-encoded.
    #[error("{0:?} is not the path of a method, such as /package.Service/Method")]
    Method(String),
    /// Not the name of a service: a method's path without its first slash, and without its last one
    /// and what follows.
    #[error("{0:?} is not the name of a service, such as package.Service")]
    Service(String),
    /// A method or a service that has an entry already.
    #[error("{0:?} has two entries")]
    Twice(String),
}

#[derive(Debug, Clone, Default)]
struct Table {
    methods: HashMap<String, Entry>,
    services: HashMap<String, Entry>,
    otherwise: Option<Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Public,
    Require(Requirement),
}

impl GrpcMethods {
    /// A table without entries, under which everything is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// What one method requires, by its path: `/package.Service/Method`.
    pub fn method(self, path: &str, requirement: impl Into<Requirement>) -> Self {
        self.with_method(path, Entry::Require(requirement.into()))
    }

    /// What the methods of a service require that have no entry of their own.
    pub fn service(self, name: &str, requirement: impl Into<Requirement>) -> Self {
        self.with_service(name, Entry::Require(requirement.into()))
    }

    /// A method for everybody. Calls without a key come this far only where the authenticator is
    /// [optional](crate::AuthenticatorBuilder::optional); calls with a wrong one never do.
    pub fn public_method(self, path: &str) -> Self {
        self.with_method(path, Entry::Public)
    }

    /// A service for everybody, as [`public_method`](Self::public_method): health checks and
    /// reflection, say.
    pub fn public_service(self, name: &str) -> Self {
        self.with_service(name, Entry::Public)
    }

    /// What all methods require that neither have an entry nor belong to a service that has one.
    /// Without it they are refused.
    pub fn otherwise(mut self, requirement: impl Into<Requirement>) -> Self {
        self.table.otherwise = Some(Entry::Require(requirement.into()));
        self
    }

    /// The layer. It belongs inside of [`AuthLayer`](super::AuthLayer): where none ran, it refuses.
    ///
    /// # Errors
    /// The first entry that was malformed or there already. A misspelt path must not fall to its
    /// service's entry unnoticed.
    pub fn build(self) -> Result<GrpcMethodsLayer, GrpcMethodsError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(GrpcMethodsLayer {
                table: Arc::new(self.table),
            }),
        }
    }

    fn with_method(mut self, path: &str, entry: Entry) -> Self {
        if split(path).is_none() {
            self.error
                .get_or_insert(GrpcMethodsError::Method(path.to_owned()));
        } else if self.table.methods.insert(path.to_owned(), entry).is_some() {
            self.error
                .get_or_insert(GrpcMethodsError::Twice(path.to_owned()));
        }
        self
    }

    fn with_service(mut self, name: &str, entry: Entry) -> Self {
        if split(&format!("/{name}/x")).is_none() {
            self.error
                .get_or_insert(GrpcMethodsError::Service(name.to_owned()));
        } else if self.table.services.insert(name.to_owned(), entry).is_some() {
            self.error
                .get_or_insert(GrpcMethodsError::Twice(name.to_owned()));
        }
        self
    }
}

/// The service of a method's path. What is percent-encoded or has empty parts could be another
/// method to who reads it later.
fn split(path: &str) -> Option<&str> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let named = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#' | b';'))
    };
    (service.split('/').all(named) && named(method)).then_some(service)
}

impl Table {
    fn find(&self, path: &str) -> Option<&Entry> {
        let service = split(path)?;
        self.methods
            .get(path)
            .or_else(|| self.services.get(service))
            .or(self.otherwise.as_ref())
    }

    /// `path` is what the service further in is asked for, without what an outer router stripped.
    fn check(
        &self,
        path: &str,
        extensions: &Extensions,
        head: &HttpHead<'_>,
    ) -> Result<(), AuthError> {
        match self.find(path) {
            Some(Entry::Public) => Ok(()),
            Some(Entry::Require(requirement)) => check(extensions, requirement, head),
            None => {
                // Who has no key is told that first, here as everywhere.
                principal(extensions)?;
                Err(AuthError::with_detail(
                    ErrorCode::Forbidden,
                    "This method is not open to API keys",
                ))
            }
        }
    }
}

/// Made by [`GrpcMethods::build`].
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct GrpcMethodsLayer {
    table: Arc<Table>,
}

impl<S> Layer<S> for GrpcMethodsLayer {
    type Service = GrpcMethodsService<S>;
    fn layer(&self, inner: S) -> GrpcMethodsService<S> {
        GrpcMethodsService {
            inner,
            table: Arc::clone(&self.table),
        }
    }
}

/// The service that [`GrpcMethodsLayer`] makes.
#[derive(Debug, Clone)]
pub struct GrpcMethodsService<S> {
    inner: S,
    table: Arc<Table>,
}

impl<S, B, R> Service<Request<B>> for GrpcMethodsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RequireFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(ServesGrpc);
        let head = HttpHead::new(&request, None);
        let path = request.uri().path();
        match self.table.check(path, request.extensions(), &head) {
            Ok(()) => RequireFuture::inner(self.inner.call(request)),
            Err(error) => RequireFuture::refused(refuse(&error, &head, request.extensions())),
        }
    }
}
