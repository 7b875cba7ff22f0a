//! What a response reports: the state of the rate limits, the id of a user who was named by e-mail
//! address, and the request id as header or extension; the metrics and the audit record the
//! response itself.

use std::sync::Arc;

use crate::adapter::carrier::{Holds, Reply};
use crate::audit::RequestAudit;
use crate::authenticator::Authenticated;
use crate::entry::Entry;
use crate::error::AuthError;
use crate::key::UserId;
use crate::limit::FieldValue;
use crate::principal::{AnonymousCount, KeyPrincipal};
use crate::respond::Responder;
use crate::telemetry::{self, PlanLabel};

/// The headers added to the response of a request that passed.
#[derive(Debug)]
pub struct ResponseFields {
    limits: Limited,
    user: Option<UserId>,
}

/// What the limits of a request are reported from when its response is known: a handler may charge
/// more units until then.
#[derive(Debug)]
enum Limited {
    /// A key, and the number of charges when the request was admitted.
    Key(KeyPrincipal, u64),
    Anonymous(Arc<AnonymousCount>, Arc<Responder>),
    /// A key that has spent credits, where no limits are reported.
    Unreported(KeyPrincipal),
    Nothing,
}

impl ResponseFields {
    /// Calls `add` with each name, in lower case, and its value.
    pub(in crate::adapter) fn each(&self, add: &mut dyn FnMut(&'static str, FieldValue<'_>)) {
        match &self.limits {
            Limited::Key(principal, since) => {
                let responder = principal.responder();
                principal.limits_after(*since, |limits| responder.fields_of(limits, add));
            }
            Limited::Anonymous(count, responder) => {
                responder.fields_of(count.report().state(), add);
            }
            Limited::Unreported(_) | Limited::Nothing => {}
        }
        if let Some(user) = &self.user {
            add("x-user-id", FieldValue::Written(user.as_str().as_bytes()));
        }
    }
}

/// The report of a request that was admitted, for when its response is known.
pub(in crate::adapter) struct Report {
    fields: ResponseFields,
    /// The label of the response if this layer counts it.
    counted: Option<PlanLabel>,
    /// The key's entry, kept only if refusals are logged.
    key: Option<Entry>,
    audit: Option<RequestAudit>,
}

impl Report {
    /// Returns the report of an admission; `None` if there is nothing to report.
    #[inline]
    pub(super) fn new(
        admission: &Authenticated,
        audit: Option<RequestAudit>,
        responder: &Arc<Responder>,
        counted: Option<PlanLabel>,
    ) -> Option<Self> {
        let limits = match (&admission.principal, &admission.anonymous) {
            (Some(principal), _) if !responder.reports_limits() && principal.has_spent() => {
                Limited::Unreported(principal.clone())
            }
            _ if !responder.reports_limits() => Limited::Nothing,
            (Some(principal), _) if principal.is_counted() => {
                Limited::Key(principal.clone(), principal.entry().charges())
            }
            (_, Some(count)) => Limited::Anonymous(Arc::clone(count), Arc::clone(responder)),
            _ => Limited::Nothing,
        };
        let user = admission.canonical_user.clone();
        let is_empty = matches!(limits, Limited::Nothing) && user.is_none() && audit.is_none();
        if is_empty && counted.is_none() {
            return None;
        }
        let principal = admission.principal.as_ref();
        let logged = principal.filter(|_| counted.is_some() && telemetry::is_logged());
        Some(Self {
            fields: ResponseFields { limits, user },
            counted,
            key: logged.map(|principal| principal.entry().clone()),
            audit,
        })
    }

    /// Reports the inner service's response, or that of a refusal in its place.
    pub(super) fn answered(&mut self, answer: &mut impl Reply) {
        // A requirement of the route, or the handler, refused the request.
        if let Limited::Key(principal, _) | Limited::Unreported(principal) = &self.fields.limits
            && principal.has_spent()
            && Holds::<AuthError>::look(answer).is_some()
        {
            principal.give_credits_back();
        }
        self.fields.each(&mut |name, value| match value {
            FieldValue::Kept(kept) => answer.set_kept_field(name, kept),
            FieldValue::Written(bytes) => answer.set_field(name, bytes),
        });
        if let Some(plan) = &self.counted {
            let key = self.key.as_ref().map(|entry| &entry.record.id);
            telemetry::answered(Holds::<AuthError>::look(answer).as_deref(), key, plan);
        }
        end(self.audit.take(), answer);
    }

    /// Reports that the inner service failed without a response. Returns the headers for the
    /// response that its error may become.
    pub(super) fn failed(&mut self) -> &ResponseFields {
        if let Some(audit) = self.audit.take() {
            audit.failed();
        }
        &self.fields
    }
}

/// Ends the audit of a request. A refusal also gets the request's id, for outer layers; other
/// responses usually have no extensions yet, and the first one is expensive.
pub(super) fn end(audit: Option<RequestAudit>, answer: &mut impl Reply) {
    let Some(audit) = audit else {
        return;
    };
    let error = Holds::<AuthError>::look(answer);
    let id = error.as_ref().and_then(|_| audit.request_id().cloned());
    audit.answered(answer.status_code(), error.as_deref());
    drop(error);
    if let Some(id) = id {
        answer.put(id);
    }
}
