//! Extractors: the principal, maybe the principal, the principal who meets a requirement, and the host's own idea of a
//! caller.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::adapter::tower::{HttpHead, check, principal, refuse};
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;

/// Why an extractor refused: the error, and the answer in the API's dialect.
#[derive(Debug)]
pub struct Rejection {
    error: AuthError,
    response: Response,
}

impl Rejection {
    fn new(error: AuthError, parts: &Parts) -> Self {
        let response = refuse(&error, &HttpHead::of_parts(parts, None), &parts.extensions);
        Self { error, response }
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &AuthError {
        &self.error
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match principal(&parts.extensions) {
            Ok(principal) => Ok(principal.clone()),
            Err(error) => Err(Rejection::new(error, parts)),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    /// `None` where the request passed as nobody, or no authentication ran.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// The host's own type for a caller, made by
/// [`AuthLayer::map_principal`](crate::adapter::tower::AuthLayer::map_principal).
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

impl<S: Send + Sync, T: Send + Sync + 'static> FromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        if let Some(caller) = parts.extensions.get::<Arc<T>>() {
            return Ok(Self(Arc::clone(caller)));
        }
        let error = principal(&parts.extensions).err().unwrap_or_else(|| {
            AuthError::with_detail(ErrorCode::Forbidden, "This route asks for a type of caller that nothing makes")
        });
        Err(Rejection::new(error, parts))
    }
}

impl<S: Send + Sync, T: Send + Sync + 'static> OptionalFromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    /// `None` where the request passed as nobody.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts.extensions.get::<Arc<T>>().map(|caller| Self(Arc::clone(caller))))
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

/// The principal, for those only who meet a requirement: whoever takes this argument has demanded it.
pub struct Granted<D> {
    principal: KeyPrincipal,
    demand: PhantomData<fn() -> D>,
}

impl<D> Granted<D> {
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
        Self { principal: self.principal.clone(), demand: PhantomData }
    }
}

impl<D> fmt::Debug for Granted<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Granted").field(&self.principal).finish()
    }
}

impl<S: Send + Sync, D: Demand> FromRequestParts<S> for Granted<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let head = HttpHead::of_parts(parts, None);
        match check(&parts.extensions, D::requirement(), &head).and_then(|()| principal(&parts.extensions)) {
            Ok(principal) => Ok(Self { principal: principal.clone(), demand: PhantomData }),
            Err(error) => Err(Rejection::new(error, parts)),
        }
    }
}
