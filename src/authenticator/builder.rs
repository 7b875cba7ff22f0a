//! Construction of an authenticator from the configuration groups of a service.

use std::sync::Arc;

use super::limits::Limiting;
use super::rehash::Rehashes;
use super::tokens::Tokens;
use super::{Anonymous, Authenticator, Budget, Inner, RouteClasses, TenantPlans};
use crate::audit::AuditTrail;
use crate::clock::Clock;
use crate::config::{Actors, BuildError, Credentials, Limits, Policy, Responses};
use crate::credential::{Accepted, Scheme};
use crate::credit::{Credits, Spending};
use crate::entry::{Common, SharedSettings};
use crate::respond::{Challenges, Responder};
use crate::store::{KeyLookup, KeyStore};
use crate::usage::UsageRecorder;

/// The parts of an authenticator.
pub(crate) struct AuthenticatorParts {
    pub(crate) credentials: Credentials,
    pub(crate) store: Arc<dyn KeyLookup>,
    /// Whether uses are counted: something writes them.
    pub(crate) counts_uses: bool,
    /// The store in which digests of older schemes are replaced.
    pub(crate) rehash_in: Option<Arc<dyn KeyStore>>,
    pub(crate) limits: Limits,
    pub(crate) credits: Option<Credits>,
    pub(crate) actors: Actors,
    pub(crate) policy: Policy,
    pub(crate) responses: Responses,
    pub(crate) audit: Option<AuditTrail>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Creates the authenticator of a service.
    ///
    /// # Errors
    /// Returns an error if no key can be presented, or if limits have no effect.
    pub(crate) fn new(parts: AuthenticatorParts) -> Result<Self, BuildError> {
        let AuthenticatorParts {
            counts_uses,
            credentials,
            store,
            rehash_in,
            limits,
            credits,
            actors,
            policy,
            responses,
            audit,
            clock,
        } = parts;
        let accepted = accepted(&credentials)?;
        let challenges = Challenges::new(&responses.realm, &accepted);
        let responder = Responder::new(responses.renderer, challenges, responses.limit_fields);
        let responder = Arc::new(responder);
        let budget = Budget::new(&limits.lookups, Arc::clone(&clock));
        let limits = Arc::new(Limiting::new(limits, &clock)?);
        let common = Common {
            responder: Arc::clone(&responder),
            charger: Arc::clone(&limits) as _,
        };
        let anonymous = match credentials.optional {
            true => Anonymous::WithoutKey,
            false => Anonymous::Never,
        };
        Ok(Self {
            anonymous,
            routes: RouteClasses::default(),
            inner: Arc::new(Inner {
                accepted,
                hasher: credentials.hasher,
                store,
                rehash_in,
                scope_model: policy.scope_model,
                environment: policy.serve_only,
                unscoped: policy.unscoped,
                budget,
                limits,
                credits: credits.map(|credits| Arc::new(Spending::new(credits, &clock))),
                plans: Arc::new(TenantPlans::new(
                    actors.directory.clone(),
                    actors.plan_bound,
                    Arc::clone(&clock),
                )),
                clock,
                usage: UsageRecorder::new(counts_uses),
                transport: policy.transport,
                client_ip: policy.client_ip,
                owner_standing: actors.standing,
                directory: actors.directory,
                user_ids: actors.user_ids,
                tokens: credentials.verifier.map(Tokens::new),
                audit,
                responder,
                common: Arc::new(common),
                compiled: SharedSettings::default(),
                rehashes: Rehashes::default(),
            }),
        })
    }
}

/// Returns the accepted ways to present a key, each with at least one format or a token verifier.
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

/// Returns whether a name is a field name (RFC 9110 §5.1) without another meaning to the library.
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
