//! The arguments that handlers can take, independent of the framework: the host's own type for a
//! caller, and a principal that meets a requirement. Each adapter implements extraction for them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;

/// The error for a missing host type on a request that does have a principal.
pub(super) fn missing_caller() -> AuthError {
    AuthError::with_detail(
        ErrorCode::Forbidden,
        "This route needs a caller type that no mapping provides",
    )
}

/// The host's own type for a caller, created by one of the layer's mappings (`map_principal` or
/// `try_map_principal`).
#[derive(Debug)]
pub struct Caller<T>(pub Arc<T>);

impl<T> Clone for Caller<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Caller<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A named requirement, for use with [`Granted`].
///
/// ```
/// use std::sync::LazyLock;
///
/// use portunus::adapter::axum::{Demand, Granted};
/// use portunus::{Principal, Requirement, scope};
///
/// struct ReadsDocuments;
///
/// impl Demand for ReadsDocuments {
///     fn requirement() -> &'static Requirement {
///         static READS: LazyLock<Requirement> = LazyLock::new(|| scope!("document:read").into());
///         &READS
///     }
/// }
///
/// async fn list(caller: Granted<ReadsDocuments>) -> String {
///     format!("the documents of {}", caller.owner().tenant_id)
/// }
/// ```
pub trait Demand: 'static {
    /// Returns the requirement.
    fn requirement() -> &'static Requirement;
}

/// A principal that meets the requirement `D`. A handler with this argument refuses every other
/// request.
pub struct Granted<D> {
    principal: KeyPrincipal,
    demand: PhantomData<fn() -> D>,
}

impl<D> Granted<D> {
    pub(super) fn new(principal: KeyPrincipal) -> Self {
        Self {
            principal,
            demand: PhantomData,
        }
    }

    /// Returns the principal.
    #[must_use]
    pub fn into_principal(self) -> KeyPrincipal {
        self.principal
    }
}

impl<D> Deref for Granted<D> {
    type Target = KeyPrincipal;
    fn deref(&self) -> &KeyPrincipal {
        &self.principal
    }
}

impl<D> Clone for Granted<D> {
    fn clone(&self) -> Self {
        Self::new(self.principal.clone())
    }
}

impl<D> fmt::Debug for Granted<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Granted").field(&self.principal).finish()
    }
}
