//! A layer that checks the requirement of each gRPC method, from a table, and refuses methods
//! without an entry.
//!
//! A method is a path, `/package.Service/Method`. Adding this layer declares that the service
//! serves gRPC: its refusals are gRPC statuses for gRPC calls, and so are those of inner layers if an
//! outer layer let the request pass.

mod layer;
mod table;

use std::sync::Arc;

pub use self::layer::GrpcMethodsLayer;
pub use self::table::GrpcMethodsError;
use self::table::{Entry, Table};
use crate::policy::Requirement;

/// A table of the requirements of gRPC methods. The method's own entry is used first, then its
/// service's, then [`otherwise`](Self::otherwise). A method without any of them is refused with
/// `FORBIDDEN` (`PERMISSION_DENIED`).
///
/// Names are compared exactly. All gRPC calls are `POST` requests, so a read-only key is refused
/// unless the requirement includes [`reading`](Requirement::reading).
///
/// This layer implies [`AuthLayer::grpc`](super::AuthLayer::grpc) for itself and for inner layers;
/// the outer `AuthLayer` needs its own declaration.
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
    /// Creates an empty table, which refuses every call.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the requirement of one method, by its path: `/package.Service/Method`.
    pub fn method(self, path: &str, requirement: impl Into<Requirement>) -> Self {
        self.with_method(path, Entry::Require(requirement.into()))
    }

    /// Sets the requirement of all methods of a service that have no entry of their own.
    pub fn service(self, name: &str, requirement: impl Into<Requirement>) -> Self {
        self.with_service(name, Entry::Require(requirement.into()))
    }

    /// Makes a method public. Calls without a key reach it only if the authenticator is
    /// [optional](crate::config::Credentials::optional); calls with a wrong key never do.
    pub fn public_method(self, path: &str) -> Self {
        self.with_method(path, Entry::Public)
    }

    /// Makes a service public, like [`public_method`](Self::public_method): for example, health
    /// checks and reflection.
    pub fn public_service(self, name: &str) -> Self {
        self.with_service(name, Entry::Public)
    }

    /// Sets the requirement of all methods that have no entry, neither of their own nor of their
    /// service. Without it they are refused.
    pub fn otherwise(mut self, requirement: impl Into<Requirement>) -> Self {
        self.table.otherwise = Some(Entry::Require(requirement.into()));
        self
    }

    /// Builds the layer. It belongs inside an [`AuthLayer`](super::AuthLayer), and refuses every
    /// non-public call if none ran.
    ///
    /// # Errors
    /// Returns an error for the first entry that is malformed or duplicate, so that a misspelt path
    /// does not silently fall back to its service's entry.
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
