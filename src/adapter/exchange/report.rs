//! What a response reports: the state of the rate limits, the id of a user who was named by e-mail
//! address, and the request id as header or extension; the metrics and the audit record the
//! response itself.

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

/// The headers added to the response of a request that passed.
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

/// The report of a request that passed, for when its response is known.
pub(in crate::adapter) struct Report {
    fields: ResponseFields,
    /// The key's principal, kept only if telemetry is on.
    key: Option<KeyPrincipal>,
    audit: Option<RequestAudit>,
}

impl Report {
    /// Splits an admission into its principal and its report. The report is `None` if there is
    /// nothing to report.
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

    /// Reports the inner service's response.
    pub(super) fn answered(self, answer: &mut impl Reply) {
        self.fields
            .each(&mut |name, value| answer.set_field(name, value));
        count(answer, self.key.as_ref().map(Principal::key_id));
        end(self.audit, answer);
    }

    /// Reports that the inner service failed without a response. Returns the headers for the
    /// response that its error may become.
    pub(super) fn failed(self) -> ResponseFields {
        if let Some(audit) = self.audit {
            audit.failed();
        }
        self.fields
    }
}

/// Counts a response, once however many layers see it.
pub(super) fn count(answer: &mut impl Reply, key: Option<&KeyId>) {
    if telemetry::ON && !carries::<Counted>(answer) {
        telemetry::answered(Holds::<AuthError>::look(answer).as_deref(), key);
        answer.put(Counted);
    }
}

/// Ends the audit of a request and puts its id into the response's extensions, for outer layers.
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
