//! The result of authenticating a request: decided at once, or a future that owns its data.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::audit::RequestAudit;
use crate::error::{AuthError, ErrorCode};
use crate::key::UserId;
use crate::limit::LimitReport;
use crate::principal::{AnonymousCount, KeyPrincipal};

/// The result of authenticating a request.
pub(crate) type Outcome = Result<Authenticated, AuthError>;

/// A request that passed authentication.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Authenticated {
    /// The caller; `None` for an anonymous request, where authentication is optional.
    pub principal: Option<KeyPrincipal>,
    /// The state of the limits of an anonymous request, if it was counted.
    pub(crate) anonymous: Option<Arc<AnonymousCount>>,
    /// The id of the user that the request named by e-mail. It is sent in the response, so that
    /// callers can switch to it.
    pub canonical_user: Option<UserId>,
}

impl Authenticated {
    /// Returns the caller.
    ///
    /// # Errors
    /// Returns `MISSING_KEY` for an anonymous request.
    pub fn into_principal(self) -> Result<KeyPrincipal, AuthError> {
        self.principal
            .ok_or_else(|| AuthError::new(ErrorCode::MissingKey))
    }

    /// Returns the limits that apply to the request with their state, if it was counted.
    #[must_use]
    pub fn limits(&self) -> Option<LimitReport> {
        match &self.principal {
            Some(principal) => principal.limits(),
            None => self.anonymous.as_ref().map(|count| count.report()),
        }
    }

    pub(super) fn anonymous(anonymous: Option<Arc<AnonymousCount>>) -> Self {
        Self {
            principal: None,
            anonymous,
            canonical_user: None,
        }
    }
}

/// A request whose authentication was started by
/// [`Authenticator::begin`](crate::Authenticator::begin).
#[derive(Debug)]
#[must_use = "a dropped request is not authenticated and is recorded as abandoned"]
#[non_exhaustive]
pub struct Begun {
    /// The authentication of the request.
    pub attempt: Attempt,
    /// The recorder of its audit event; `None` if nothing is audited.
    pub request_audit: Option<RequestAudit>,
}

/// An authentication that is decided or pending.
#[derive(Debug)]
#[must_use = "a dropped attempt does not authenticate the request"]
pub enum Attempt {
    /// The result is known.
    Ready(Outcome),
    /// The result must be awaited. The request is no longer needed for it.
    Pending(PendingAttempt),
}

impl Attempt {
    /// Returns the result, awaiting it if necessary.
    ///
    /// # Errors
    /// Returns the error with which the request is refused.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Ready(outcome) => outcome,
            Self::Pending(pending) => pending.await,
        }
    }
}

/// The future of a pending attempt. It owns its data, so the request need not be `Send`.
#[must_use = "futures do nothing unless polled"]
pub struct PendingAttempt(pub(super) Pin<Box<dyn Future<Output = Outcome> + Send>>);

impl Future for PendingAttempt {
    type Output = Outcome;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PendingAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingAttempt")
    }
}
