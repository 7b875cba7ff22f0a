//! What the host brings: the proof of who an operator is, and a view of its own on events.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::request::Parts;
use portunus::AuthError;
use portunus::audit::AuditEvent;
use portunus::manage::Operator;
use serde_json::{Map, Value};

/// Proves who makes a request. `Arc` and `Box` of a proof are proofs.
///
/// A proof may be what browsers add by themselves: a session cookie, Basic credentials, a client
/// certificate. Requests that pages of other sites make carry it too, so the API refuses their
/// writes before the proof is asked:
///
/// - with 403 `CROSS_SITE`, by `Origin` and `Sec-Fetch-Site`
///   ([`Admin::trusted_origins`](crate::Admin::trusted_origins) has the rule and its one setting);
/// - with 415 `UNSUPPORTED_MEDIA_TYPE`, where content is sent as anything but `application/json`
///   (`PATCH`: or `application/merge-patch+json`), in UTF-8 and without a content coding: forms can
///   send no such type.
///
/// A session cookie should still be `HttpOnly`, `Secure` and `SameSite`. `SameSite` alone is not
/// enough: other ports and subdomains of the same site count as the same.
#[async_trait]
pub trait OperatorProof: fmt::Debug + Send + Sync + 'static {
    /// The operator who makes this request.
    ///
    /// # Errors
    /// How a request without a valid proof is refused: `MISSING_KEY` or `INVALID_KEY` for 401.
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError>;
}

#[async_trait]
impl<T: OperatorProof + ?Sized> OperatorProof for Arc<T> {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        (**self).prove(request).await
    }
}

#[async_trait]
impl<T: OperatorProof + ?Sized> OperatorProof for Box<T> {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        (**self).prove(request).await
    }
}

/// Adds members to an event that is shown.
pub type EventView = fn(&AuditEvent, &mut Map<String, Value>);
