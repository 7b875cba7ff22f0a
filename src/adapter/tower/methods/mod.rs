//! The layer that demands of each gRPC method what a table says, and refuses methods that are not
//! in it.
//!
//! A method is a path, `/package.Service/Method`. Whoever puts this layer around a service declares
//! that it serves gRPC: its refusals, and those further in, are gRPC statuses for gRPC calls.

mod layer;
mod table;

use std::sync::Arc;

pub use self::layer::GrpcMethodsLayer;
pub use self::table::GrpcMethodsError;
use self::table::{Entry, Table};
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
    /// [optional](crate::config::Credentials::optional); calls with a wrong one never do.
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
        let added = self.table.add_method(path, entry);
        self.error = self.error.or(added.err());
        self
    }

    fn with_service(mut self, name: &str, entry: Entry) -> Self {
        let added = self.table.add_service(name, entry);
        self.error = self.error.or(added.err());
        self
    }
}
