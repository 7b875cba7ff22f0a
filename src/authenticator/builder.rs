//! How an authenticator is made of the groups that describe a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Anonymous, Authenticator, Inner, Limiting};
use crate::audit::AuditTrail;
use crate::clock::Clock;
use crate::config::{Actors, BuildError, Credentials, Limits, Policy, Responses};
use crate::credential::{Accepted, Scheme};
use crate::limit::{FailureLimits, LocalLimiter};
use crate::respond::{Challenges, Responder};
use crate::store::{KeyLookup, KeyStore};
use crate::usage::UsageRecorder;

/// What an authenticator is made of.
pub(crate) struct AuthenticatorParts {
    pub(crate) credentials: Credentials,
    pub(crate) store: Arc<dyn KeyLookup>,
    /// Where digests under older schemes are replaced.
    pub(crate) rehash_in: Option<Arc<dyn KeyStore>>,
    pub(crate) limits: Limits,
    pub(crate) actors: Actors,
    pub(crate) policy: Policy,
    pub(crate) responses: Responses,
    pub(crate) audit: Option<AuditTrail>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// The authenticator of a service.
    ///
    /// # Errors
    /// Where no key can be presented, or limits do nothing.
    pub(crate) fn new(parts: AuthenticatorParts) -> Result<Self, BuildError> {
        static TAGS: AtomicU64 = AtomicU64::new(0);
        let AuthenticatorParts {
            credentials,
            store,
            rehash_in,
            limits,
            actors,
            policy,
            responses,
            audit,
            clock,
        } = parts;
        let accepted = accepted(&credentials)?;
        let challenges = Challenges::new(&responses.realm, &accepted);
        let responder = Responder::new(responses.renderer, challenges, responses.limit_fields);
        if limits.contradict() {
            return Err(BuildError::UnusedLimits);
        }
        let failures = limits.failures.clone().transpose()?;
        let tenant_quotas = limits.per_tenant.clone().transpose()?;
        let quotas = limits.per_key.clone().transpose()?;
        let limiting = quotas.is_some().then(|| limiting(&limits, &clock));
        let anonymous = match credentials.optional {
            true => Anonymous::WithoutKey,
            false => Anonymous::Never,
        };
        Ok(Self {
            anonymous,
            inner: Arc::new(Inner {
                accepted,
                hasher: credentials.hasher,
                store,
                rehash_in,
                scope_model: policy.scope_model,
                environment: policy.serve_only,
                unscoped: policy.unscoped,
                failures: failures.map(|quotas| FailureLimits::new(quotas, &clock)),
                clock,
                usage: UsageRecorder::default(),
                transport: policy.transport,
                client_ip: policy.client_ip,
                limits: limiting,
                quotas: quotas.unwrap_or_default(),
                tenant_quotas,
                cost_of: limits.cost_of,
                bucket_of: limits.bucket_of,
                owner_standing: actors.standing,
                directory: actors.directory,
                user_ids: actors.user_ids,
                verifier: credentials.verifier,
                audit,
                responder: Arc::new(responder),
                tag: TAGS.fetch_add(1, Ordering::Relaxed),
                next_rehash: AtomicU64::new(0),
            }),
        })
    }
}

/// The ways to present a key, each with at least one format or a verifier of tokens.
fn accepted(credentials: &Credentials) -> Result<Vec<Accepted>, BuildError> {
    let mut accepted = credentials.accepted.clone();
    let takes_tokens =
        |way: &Accepted| way.scheme == Scheme::Bearer && credentials.verifier.is_some();
    if credentials.verifier.is_some() && !accepted.iter().any(takes_tokens) {
        accepted.push(Accepted {
            scheme: Scheme::Bearer,
            formats: Vec::new(),
        });
    }
    let does_nothing = |way: &Accepted| way.formats.is_empty() && !takes_tokens(way);
    if accepted.is_empty() || accepted.iter().any(does_nothing) {
        return Err(BuildError::NoFormat);
    }
    for way in &accepted {
        if let Scheme::Header(name) = &way.scheme
            && !may_carry_a_key(name)
        {
            return Err(BuildError::Header(name.clone()));
        }
    }
    Ok(accepted)
}

/// The limiter, and what counts in its place while it does not answer.
fn limiting(limits: &Limits, clock: &Arc<dyn Clock>) -> Limiting {
    let local = || LocalLimiter::builder().clock(Arc::clone(clock)).build();
    Limiting {
        limiter: limits.limiter.clone().unwrap_or_else(|| Arc::new(local())),
        stand_in: local(),
        on_outage: limits.on_outage.unwrap_or_default(),
        outages: AtomicU64::new(0),
    }
}

/// Whether a name is a field name (RFC 9110 §5.1) without another meaning to the library.
fn may_carry_a_key(name: &str) -> bool {
    const TAKEN: &[&str] = &[
        "authorization",
        "x-user-id",
        "x-on-behalf-of",
        "x-on-behalf-email",
        "x-forwarded-for",
        "forwarded",
        "x-request-id",
        "cookie",
        "host",
    ];
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(tchar) && !TAKEN.contains(&name)
}
