//! What an answer reports, whoever makes it: how the windows stand, the id of the user named by
//! e-mail, and the request's id; and who is told of it, which is the count and the audit.

use std::sync::Arc;

use crate::adapter::carrier::{Counted, Holds, Reply, carries};
use crate::audit::{RequestAudit, RequestId};
use crate::authenticator::Authenticated;
use crate::error::AuthError;
use crate::key::{KeyId, UserId};
use crate::limit::Decision;
use crate::policy::Principal;
use crate::principal::KeyPrincipal;
use crate::respond::Responder;
use crate::telemetry;

/// The fields of an answer to a request that passed.
#[derive(Debug)]
pub struct ResponseFields {
    responder: Arc<Responder>,
    limits: Option<Decision>,
    user: Option<UserId>,
}

impl ResponseFields {
    /// Calls `add` with each name, in lower case, and its value.
    pub(in crate::adapter) fn each(&self, add: &mut dyn FnMut(&'static str, String)) {
        if let Some(limits) = &self.limits {
            self.responder.limit_fields(limits, add);
        }
        if let Some(user) = &self.user {
            add("x-user-id", user.to_string());
        }
    }
}

/// What is reported when a request that passed is answered.
pub(in crate::adapter) struct Report {
    fields: ResponseFields,
    /// Whose request it was, where somebody listens.
    key: Option<KeyPrincipal>,
    audit: Option<RequestAudit>,
}

impl Report {
    /// What is reported of an admission, and who was admitted; no report where there is nothing to
    /// tell.
    pub(super) fn split(
        admission: Authenticated,
        audit: Option<RequestAudit>,
        responder: &Arc<Responder>,
    ) -> (Option<KeyPrincipal>, Option<Box<Self>>) {
        let (limits, user) = (admission.limits, admission.canonical_user);
        let principal = admission.principal;
        if limits.is_none() && user.is_none() && audit.is_none() && !telemetry::ON {
            return (principal, None);
        }
        let responder = Arc::clone(responder);
        let report = Self {
            fields: ResponseFields {
                responder,
                limits,
                user,
            },
            key: principal.as_ref().filter(|_| telemetry::ON).cloned(),
            audit,
        };
        (principal, Some(Box::new(report)))
    }

    /// There is an answer.
    pub(super) fn answered(self, answer: &mut impl Reply) {
        self.fields
            .each(&mut |name, value| answer.set_field(name, value));
        count(answer, self.key.as_ref().map(Principal::key_id));
        end(self.audit, answer);
    }

    /// The service further in failed without an answer. Returns the fields of the answer that its
    /// error may become.
    pub(super) fn failed(self) -> ResponseFields {
        if let Some(audit) = self.audit {
            audit.failed();
        }
        self.fields
    }
}

/// Counts an answer, once.
pub(super) fn count(answer: &mut impl Reply, key: Option<&KeyId>) {
    if telemetry::ON && !carries::<Counted>(answer) {
        telemetry::answered(Holds::<AuthError>::look(answer).as_deref(), key);
        answer.put(Counted);
    }
}

/// Ends the audit of a request, whose id goes along with the answer, for layers further out.
pub(super) fn end(audit: Option<RequestAudit>, answer: &mut impl Reply) {
    let Some(audit) = audit else {
        return;
    };
    let id: Option<RequestId> = audit.request_id().cloned();
    let error = Holds::<AuthError>::look(answer);
    audit.answered(answer.status_code(), error.as_deref());
    drop(error);
    if let Some(id) = id {
        answer.put(id);
    }
}
