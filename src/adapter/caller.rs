//! What handlers take as arguments, whichever the framework: the host's own type for a caller, and
//! a principal who meets a requirement. Each adapter makes extractors of them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use super::carrier::Carrier;
use super::inside;
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;
use crate::request::RequestHead;
use crate::respond::Answer;

/// Why a host's own type is missing, though there is a principal.
pub(super) fn no_such_caller() -> AuthError {
    AuthError::with_detail(
        ErrorCode::Forbidden,
        "This route asks for a type of caller that nothing makes",
    )
}

/// Why an extractor refused: the error, and the answer in the API's dialect.
#[derive(Debug)]
pub struct Rejection {
    pub(super) error: AuthError,
    pub(super) answer: Answer,
}

impl Rejection {
    pub(super) fn new<C: Carrier>(error: AuthError, carrier: &C, head: &dyn RequestHead) -> Self {
        let answer = inside::answer(&error, carrier, head);
        Self { error, answer }
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &AuthError {
        &self.error
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The host's own type for a caller, made by a mapping of the layer: `map_principal` or
/// `try_map_principal`.
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

/// A requirement with a name, for [`Granted`].
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
    /// What is required.
    fn requirement() -> &'static Requirement;
}

/// The principal, for those only who meet a requirement: whoever takes this argument has demanded
/// it.
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

    /// The principal.
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
