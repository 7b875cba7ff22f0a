//! What the host brings: the proof of who an operator is, and a view of its own on events.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, COOKIE, GetAll};
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
    /// How a request without a valid proof is refused: `MISSING_KEY` or `INVALID_KEY` for 401. Each
    /// counts for the client's address ([how](crate#calls-that-fail)), except a 5xx: that the proof
    /// gives no answer is nobody's failure. A proof that takes over ten seconds is 503.
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError>;

    /// What the request presents as a proof, to tell it from what others present:
    /// `Authorization` and `Cookie` unless said. A host whose operators prove themselves otherwise,
    /// as by a certificate, names that. Requests that present what was proven in the last five
    /// minutes go before others while somebody floods this API. Only a keyed hash is kept, and the
    /// proof is asked all the same.
    fn credentials<'r>(&self, request: &'r Parts) -> Vec<&'r [u8]> {
        let lines = [AUTHORIZATION, COOKIE].map(|name| request.headers.get_all(name));
        let lines = lines.iter().flat_map(GetAll::iter);
        lines.map(HeaderValue::as_bytes).collect()
    }
}

#[async_trait]
impl<T: OperatorProof + ?Sized> OperatorProof for Arc<T> {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        (**self).prove(request).await
    }

    fn credentials<'r>(&self, request: &'r Parts) -> Vec<&'r [u8]> {
        (**self).credentials(request)
    }
}

#[async_trait]
impl<T: OperatorProof + ?Sized> OperatorProof for Box<T> {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        (**self).prove(request).await
    }

    fn credentials<'r>(&self, request: &'r Parts) -> Vec<&'r [u8]> {
        (**self).credentials(request)
    }
}

/// Adds members to an event that is shown.
pub type EventView = fn(&AuditEvent, &mut Map<String, Value>);
