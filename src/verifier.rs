//! Tokens that somebody else issued: the hook for a host's OAuth server.
//!
//! Introspection (RFC 7662), a JWT's signature (RFC 7519), a session: how a token is verified is
//! the host's. What the library adds is everything around it: shape first, failures counted,
//! outages told apart from refusals, and all of the rest of the path, from the expiry to the
//! limits.

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

/// Verifies Bearer tokens that are no keys of the store. `Arc` and `Box` of a verifier are
/// verifiers.
#[async_trait]
pub trait TokenVerifier: fmt::Debug + Send + Sync + 'static {
    /// Whether a text (RFC 6750's `b64token`, at most 4096 bytes) has the shape of one of these
    /// tokens: a prefix, two dots. It must be cheap: whatever has not is refused without any work.
    fn recognizes(&self, token: &str) -> bool;

    /// Whose token it is; `None` where it is not valid, for whatever reason.
    ///
    /// An answer is used for two seconds at most, from when it was asked for, and never past the
    /// token's expiry: so long does a token work on after it was revoked. Clients whose tokens and
    /// keys turned out to be nobody's too often are [refused](crate::limit::LookupBudget) before the
    /// verifier is asked.
    ///
    /// # Errors
    /// Where that cannot be told: the request is refused with 503 `VERIFIER_UNAVAILABLE`, never
    /// with 401.
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError>;
}

/// What a verified token says. It acts for its owner, as an access token does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedToken {
    /// What stands in the place of a key's id, in audit and in limits: tokens of one id share their
    /// quotas, so that of a grant or a client is a better choice than that of each token.
    pub id: KeyId,
    /// The user that it acts for.
    pub owner: Owner,
    /// The environment it is for.
    pub environment: Environment,
    /// What it grants; nothing unless set.
    pub scopes: Vec<Scope>,
    /// The first instant at which it no longer works.
    pub expires_at: Option<SystemTime>,
    /// Whether it may write.
    pub access: Access,
    /// The only workspaces it reaches; all of the tenant's unless set.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan that its owner pays for.
    pub plan: Option<PlanName>,
    /// Where it may be used from; anywhere unless set.
    pub allowed_ips: Option<AllowList>,
    /// How often it may be used; as often as the authenticator's default allows unless set.
    pub quotas: Option<Quotas>,
}

impl VerifiedToken {
    /// A token that grants no scopes.
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

    /// The same with these scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// The same until this instant.
    #[must_use]
    pub fn until(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// The record that it stands for.
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

/// The verifier gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("the token verifier gave no answer")]
pub struct VerifierError(#[source] Box<dyn Error + Send + Sync>);

impl VerifierError {
    /// No answer, and why. The cause may be logged: it must not carry the token.
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
