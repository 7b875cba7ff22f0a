//! The facts that are read from a request's head, once, for all later steps.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::requested::RequestedActor;
use super::{Anonymous, Inner, RouteClasses};
use crate::credential::{self, Accepted, Credential, Scheme};
use crate::error::AuthError;
use crate::key::{Candidates, KeyDigest};
use crate::request::RequestHead;
use crate::verifier::TokenVerifier;

/// The facts about a request that are kept once its head is gone.
pub(super) struct Facts {
    pub(super) purpose: Purpose,
    pub(super) client_ip: Option<IpAddr>,
    /// Whether the request passes as anonymous, once it is counted.
    pub(super) anonymous: bool,
    /// Whether the connection meets the transport requirements.
    pub(super) secure: bool,
    pub(super) requested: Result<RequestedActor, AuthError>,
    /// The candidate digests of the key; none if the value does not have the format of a key.
    pub(super) digests: Candidates,
    /// The value, if it may be a token of the verifier.
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) cost: u64,
    /// The credits that the request costs.
    pub(super) credits: u64,
    /// The number of the request's class; 0 for none.
    pub(super) class: u8,
}

/// The purpose of taking the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To authenticate a request.
    Request,
    /// To report what a request would get: takes no quota, counts neither a use of the key nor a
    /// failure.
    Verification,
}

impl Facts {
    /// Creates the facts before anything is read from the head.
    pub(super) fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            client_ip: None,
            anonymous: false,
            secure: true,
            requested: Ok(RequestedActor::Owner),
            digests: Candidates::new(),
            token: None,
            cost: 1,
            credits: 0,
            class: 0,
        }
    }

    pub(super) fn digests(&self) -> &[KeyDigest] {
        self.digests.as_slice()
    }
}

impl Inner {
    /// Reads the remaining facts, once it is known that the request has a key or a token.
    #[inline(always)] // So that the type of the head is known.
    pub(super) fn read(&self, head: &dyn RequestHead, routes: &RouteClasses, facts: &mut Facts) {
        if let Some(transport) = &self.transport {
            facts.secure = transport.is_met_by(head);
        }
        if RequestedActor::may_be_in(head) {
            facts.requested = RequestedActor::read(head, self.user_ids);
        }
        if let Some(credits) = self
            .credits
            .as_ref()
            .filter(|_| facts.purpose == Purpose::Request)
        {
            let cost = credits.settings.cost.as_ref();
            facts.credits = cost.map_or(1, |cost| cost(head));
        }
        self.read_for_limits(head, routes, facts);
    }

    /// Reads the facts by which a request is counted.
    #[inline(always)] // For the same reason.
    pub(super) fn read_for_limits(
        &self,
        head: &dyn RequestHead,
        routes: &RouteClasses,
        facts: &mut Facts,
    ) {
        if let Some(cost_of) = &self.limits.cost_of {
            facts.cost = cost_of(head);
        }
        facts.class = match routes.class_of(head.method()) {
            0 => self.limits.class_of(head),
            of_route => of_route,
        };
    }

    /// Returns whether a request without accepted credentials passes as anonymous.
    pub(super) fn is_anonymous(&self, credential: &Credential<'_>, anonymous: Anonymous) -> bool {
        match credential {
            Credential::Absent => anonymous != Anonymous::Never,
            Credential::Unsupported(value) => {
                anonymous == Anonymous::WithoutKey && !self.holds_a_key(value)
            }
            Credential::Presented(..) => false,
        }
    }

    /// Returns whether a value with an unsupported scheme contains a key or a token of the
    /// verifier.
    fn holds_a_key(&self, value: &[u8]) -> bool {
        let words = value.split(|byte| b" \t,;=\"".contains(byte));
        let mut tokens = words.filter_map(credential::token68);
        let recognized =
            |verifier: &Arc<dyn TokenVerifier>| tokens.any(|token| verifier.recognizes(token));
        credential::holds_a_key(value, &self.accepted) || self.verifier().is_some_and(recognized)
    }

    /// Returns the Bearer value, if it has the format of the verifier's tokens.
    pub(super) fn external_token(&self, way: &Accepted, value: &[u8]) -> Option<Zeroizing<String>> {
        let verifier = self.verifier().filter(|_| way.scheme == Scheme::Bearer)?;
        let text = credential::token68(value)?;
        verifier
            .recognizes(text)
            .then(|| Zeroizing::new(text.to_owned()))
    }

    /// Computes the digests under all accepted schemes, on each use: the same secret may just have
    /// been revoked under an older scheme.
    pub(super) fn digest(&self, key: &[u8], facts: &mut Facts) {
        self.hasher.candidates(key, &mut facts.digests);
    }
}
