//! What is read of a request's head, once: all that the steps after it need.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::requested::RequestedActor;
use super::{Anonymous, Inner};
use crate::credential::{self, Accepted, Credential, Scheme};
use crate::error::AuthError;
use crate::key::{Candidates, KeyDigest};
use crate::quota::Quotas;
use crate::request::RequestHead;
use crate::verifier::TokenVerifier;

/// What is known of a request once its head is gone.
pub(super) struct Facts {
    pub(super) purpose: Purpose,
    pub(super) client_ip: Option<IpAddr>,
    /// Whether the connection is as secure as demanded.
    pub(super) secure: bool,
    pub(super) requested: Result<RequestedActor, AuthError>,
    /// The digests of the key; none, where the text has not the shape of one.
    pub(super) digests: Candidates,
    /// The text, where it may be a token of the verifier's.
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) cost: u64,
    pub(super) bucket: Option<(String, Quotas)>,
}

/// What the steps are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To let a request pass.
    Request,
    /// To tell what a request would get: it takes no quota, is no use of the key and no failure.
    Verification,
}

impl Facts {
    /// What is known before anything is read.
    pub(super) fn new(purpose: Purpose, client_ip: Option<IpAddr>) -> Self {
        Self {
            purpose,
            client_ip,
            secure: true,
            requested: Ok(RequestedActor::Owner),
            digests: Candidates::NONE,
            token: None,
            cost: 1,
            bucket: None,
        }
    }

    pub(super) fn digests(&self) -> &[KeyDigest] {
        self.digests.as_slice()
    }
}

impl Inner {
    /// Reads the rest, once it is known that there is a key or a token.
    pub(super) fn read(&self, head: &dyn RequestHead, facts: &mut Facts) {
        if let Some(transport) = &self.transport {
            facts.secure = transport.is_met_by(head);
        }
        facts.requested = RequestedActor::read(head, self.user_ids);
        if let Some(cost_of) = &self.limits.cost_of {
            facts.cost = cost_of(head);
        }
        if let Some(bucket_of) = &self.limits.bucket_of {
            facts.bucket = bucket_of(head);
        }
    }

    /// Whether a request without accepted credentials passes as nobody.
    pub(super) fn is_anonymous(&self, credential: &Credential<'_>, anonymous: Anonymous) -> bool {
        match credential {
            Credential::Absent => anonymous != Anonymous::Never,
            Credential::Foreign(value) => {
                anonymous == Anonymous::WithoutKey && !self.holds_a_key(value)
            }
            Credential::Presented(..) => false,
        }
    }

    /// Whether somebody who holds a key, or a token of the verifier's, sent it in a way that is not
    /// accepted.
    fn holds_a_key(&self, value: &[u8]) -> bool {
        let words = value.split(|byte| b" \t,;=\"".contains(byte));
        let mut tokens = words.filter_map(credential::token68);
        let recognized =
            |verifier: &Arc<dyn TokenVerifier>| tokens.any(|token| verifier.recognizes(token));
        credential::holds_a_key(value, &self.accepted) || self.verifier().is_some_and(recognized)
    }

    /// A Bearer token of the verifier's, by its shape.
    pub(super) fn external_token(&self, way: &Accepted, value: &[u8]) -> Option<Zeroizing<String>> {
        let verifier = self.verifier().filter(|_| way.scheme == Scheme::Bearer)?;
        let text = credential::token68(value)?;
        verifier
            .recognizes(text)
            .then(|| Zeroizing::new(text.to_owned()))
    }

    /// Under all accepted schemes, at each use: the same secret may have been ended under an older
    /// one a moment ago.
    pub(super) fn digest(&self, key: &str, facts: &mut Facts) {
        self.hasher.candidates(key, &mut facts.digests);
    }
}
