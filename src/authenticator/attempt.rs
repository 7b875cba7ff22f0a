//! What an attempt comes to: an admission, a refusal, or a future that owns its data.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::audit::RequestAudit;
use crate::error::{AuthError, ErrorCode};
use crate::key::UserId;
use crate::limit::Decision;
use crate::principal::KeyPrincipal;

/// What came of a request.
pub type Outcome = Result<Authenticated, AuthError>;

/// A request that may pass.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Authenticated {
    /// Who makes it; nobody, where authentication is optional.
    pub principal: Option<KeyPrincipal>,
    /// How the windows stand, where it was counted.
    pub limits: Option<Decision>,
    /// The id of the user whom the request named by e-mail, for the answer to tell: callers should
    /// switch to it.
    pub canonical_user: Option<UserId>,
}

impl Authenticated {
    /// Who makes the request, where it must be somebody.
    ///
    /// # Errors
    /// `MISSING_KEY` for nobody.
    pub fn into_principal(self) -> Result<KeyPrincipal, AuthError> {
        self.principal
            .ok_or_else(|| AuthError::new(ErrorCode::MissingKey))
    }

    pub(super) fn nobody() -> Self {
        Self {
            principal: None,
            limits: None,
            canonical_user: None,
        }
    }
}

/// A request that was begun by [`Authenticator::begin`](crate::Authenticator::begin).
#[derive(Debug)]
#[must_use = "a request that is dropped lets nobody in and is noted as abandoned"]
#[non_exhaustive]
pub struct Begun {
    /// Whether the request may pass.
    pub attempt: Attempt,
    /// Who watches it for the audit; `None` where nothing is audited.
    pub request_audit: Option<RequestAudit>,
}

/// The answer to an attempt.
#[derive(Debug)]
#[must_use = "an attempt that is dropped lets nobody in"]
pub enum Attempt {
    /// It is decided.
    Ready(Outcome),
    /// It must be awaited; the request is no longer needed for it.
    Pending(PendingAttempt),
}

impl Attempt {
    /// What comes of it, waiting where it must.
    ///
    /// # Errors
    /// Whatever refuses the request.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Ready(outcome) => outcome,
            Self::Pending(pending) => pending.await,
        }
    }
}

/// The rest of an attempt. It owns its data, so the request may be kept elsewhere or be no `Send`.
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
