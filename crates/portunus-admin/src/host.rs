//! Interfaces for the host: authentication of operators, and its own members in events.

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

/// Authenticates the operator of a request. Also implemented for `Arc` and `Box` of a proof.
///
/// A proof can rely on credentials that browsers add automatically: a session cookie, Basic
/// credentials, a client certificate. Requests from pages of other sites carry them too, so the API
/// refuses writes of such pages:
///
/// - with 403 `CROSS_SITE`, by `Origin` and `Sec-Fetch-Site`, before the proof runs
///   ([`Admin::trusted_origins`](crate::Admin::trusted_origins) describes the rule and its
///   setting);
/// - with 415 `UNSUPPORTED_MEDIA_TYPE`, if the content is not `application/json` (or, for `PATCH`,
///   `application/merge-patch+json`, and for an import `application/x-ndjson` or `text/csv`) in
///   UTF-8 without a content coding: HTML forms cannot send these types.
///
/// A session cookie should still be `HttpOnly`, `Secure` and `SameSite`. `SameSite` alone is not
/// enough: other ports and subdomains of the same site count as the same.
#[async_trait]
pub trait OperatorProof: fmt::Debug + Send + Sync + 'static {
    /// Returns the operator who makes this request.
    ///
    /// # Errors
    /// Returns the refusal of a request without valid credentials: `MISSING_KEY` or `INVALID_KEY`
    /// for 401. Each counts against the client's address (see [failed calls](crate#failed-calls)),
    /// except 5xx, which means that the proof is unavailable. A proof that takes more than ten
    /// seconds is answered with 503.
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError>;

    /// Returns the credentials that the request presents, to recognize repeated ones:
    /// `Authorization` and `Cookie` by default. Override this if operators authenticate in another
    /// way, such as a client certificate. Requests with credentials that were proven within the
    /// last five minutes take precedence while the API is flooded. Only a keyed hash is stored, and
    /// the proof still runs for every request.
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

/// Function that adds members to an event in a response.
pub type EventView = fn(&AuditEvent, &mut Map<String, Value>);
