//! Verification of tokens that the library did not issue: the hook for a host's OAuth server.
//!
//! The host decides how a token is verified: introspection (RFC 7662), a JWT signature (RFC 7519),
//! a session. The library does the rest: it checks the format first, counts failures, distinguishes
//! outages from refusals, and applies all further steps, from the expiry to the limits.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::key::{Access, Environment, KeyId, KeyKind, KeyRecord, Owner, PlanName, WorkspaceId};
use crate::network::AllowList;
use crate::pointer::to_the_pointee;
use crate::quota::Quotas;
use crate::scope::Scope;

/// Verifies Bearer tokens that are not keys of the store. It is also implemented for `Arc` and
/// `Box` of a verifier.
#[async_trait]
pub trait TokenVerifier: fmt::Debug + Send + Sync + 'static {
    /// Returns whether a string (a `b64token` of RFC 6750, at most 4096 bytes) has the format of
    /// these tokens, for example a prefix or two dots. It must be cheap: strings that do not are
    /// refused without further work.
    fn recognizes(&self, token: &str) -> bool;

    /// Verifies a token. Returns `None` if it is not valid, for any reason.
    ///
    /// The result is reused for at most two seconds, counted from the call, and never past the
    /// token's expiry; so a revoked token can work for up to two seconds longer, or on this node
    /// until [`Portunus::forget`](crate::Portunus::forget) is called. Clients that
    /// presented too many unknown keys and tokens are [refused](crate::limit::LookupBudget) without
    /// a call.
    ///
    /// # Errors
    /// Returns an error if the token cannot be verified now: the request is refused with 503
    /// `VERIFIER_UNAVAILABLE`, never with 401.
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError>;
}

/// The facts about a verified token. It acts for its owner, like an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedToken {
    /// The id that is used like a key's id, in audit events and limits. Tokens with the same id
    /// share their quotas, so the id of a grant or client is a better choice than one per token.
    pub id: KeyId,
    /// The owner that the token acts for.
    pub owner: Owner,
    /// The environment that the token belongs to.
    pub environment: Environment,
    /// The granted scopes; none by default.
    pub scopes: Vec<Scope>,
    /// The first instant at which the token no longer works.
    pub expires_at: Option<SystemTime>,
    /// The access level; full access by default.
    pub access: Access,
    /// The workspaces that the token is restricted to; all workspaces of the tenant by default.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The owner's plan.
    pub plan: Option<PlanName>,
    /// The addresses that the token can be used from; any by default.
    pub allowed_ips: Option<AllowList>,
    /// The token's quotas; those of the authenticator by default.
    pub quotas: Option<Quotas>,
}

impl VerifiedToken {
    /// Creates a token that grants no scopes.
    #[must_use]
    pub fn new(id: KeyId, owner: Owner, environment: Environment) -> Self {
        Self {
            id,
            owner,
            environment,
            scopes: Vec::new(),
            expires_at: None,
            access: Access::default(),
            workspaces: None,
            plan: None,
            allowed_ips: None,
            quotas: None,
        }
    }

    /// Sets the granted scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// Sets the expiry.
    #[must_use]
    pub fn until(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Converts the token into the key record that the steps of the path work on.
    pub(crate) fn into_record(self, now: SystemTime) -> Arc<KeyRecord> {
        let mut record = KeyRecord::new(
            self.id,
            "token",
            KeyKind::AccessToken,
            self.environment,
            self.owner,
            now,
        );
        record.scopes = self.scopes;
        record.expires_at = self.expires_at;
        record.access = self.access;
        record.workspaces = self.workspaces;
        record.plan = self.plan;
        record.allowed_ips = self.allowed_ips;
        record.quotas = self.quotas;
        Arc::new(record)
    }
}

/// Error returned when a token verifier does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the token verifier did not answer")]
pub struct VerifierError(#[source] Box<dyn Error + Send + Sync>);

impl VerifierError {
    /// Creates an error from its cause. The cause may be logged, so it must not contain the token.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

to_the_pointee! {
    TokenVerifier {
        async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError>;
        fn recognizes(&self, token: &str) -> bool;
    }
}
