//! Test doubles for external services, both available and unavailable.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use portunus::audit::{AuditError, AuditEvent, AuditSink};
use portunus::key::{Owner, TenantId};
use portunus::limit::{Decision, LimitRequest, LimiterError, LocalLimiter};
use portunus::verifier::{VerifiedToken, VerifierError};
use portunus::{RateLimiter, TokenVerifier};

use portunus_test_support::{live, tenant, user};

/// A directory that knows `u1` and is unavailable for `down`; all owners are in good standing.
#[derive(Debug)]
pub(crate) struct People;

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        match named {
            UserRef::Id(id) if id.as_str() == "u1" => {
                Ok(Some(Arc::new(User::new(id.clone(), tenant.clone()))))
            }
            UserRef::Id(id) if id.as_str() == "down" => {
                Err(DirectoryError::unavailable("ldap: no route to host"))
            }
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl OwnerStanding for People {
    async fn standing(&self, _: &Owner) -> Result<Standing, DirectoryError> {
        Ok(Standing::Good)
    }
}

/// A token verifier that accepts `eyJ.good` and is unavailable for `eyJ.down`.
#[derive(Debug)]
pub(crate) struct Issuer;

#[async_trait]
impl TokenVerifier for Issuer {
    fn recognizes(&self, token: &str) -> bool {
        token.starts_with("eyJ.")
    }
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError> {
        let owner = Owner::user(tenant("acme"), user("u1"));
        match token {
            "eyJ.good" => Ok(Some(VerifiedToken::new(
                "grant".parse().unwrap(),
                owner,
                live(),
            ))),
            "eyJ.down" => Err(VerifierError::unavailable("connection refused")),
            _ => Ok(None),
        }
    }
}

/// A limiter that is unavailable.
#[derive(Debug)]
pub(crate) struct Down;

#[async_trait]
impl RateLimiter for Down {
    async fn acquire(&self, _: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        Err(LimiterError::Unavailable(
            "redis: connection refused".into(),
        ))
    }
}

/// A limiter that is unavailable at times.
#[derive(Debug)]
pub(crate) struct Flapping {
    pub(crate) down: Arc<AtomicBool>,
    pub(crate) local: LocalLimiter,
}

#[async_trait]
impl RateLimiter for Flapping {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        match self.down.load(Ordering::SeqCst) {
            true => Down.acquire(request).await,
            false => self.local.acquire(request).await,
        }
    }
}

/// A sink that is full.
#[derive(Debug)]
pub(crate) struct Full;

#[async_trait]
impl AuditSink for Full {
    async fn record(&self, _: &[AuditEvent]) -> Result<(), AuditError> {
        Err(AuditError::unavailable("the disk is full"))
    }
}
