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
