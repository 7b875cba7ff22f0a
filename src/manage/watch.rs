//! Recording management operations in the audit, however they end.
//!
//! An event contains only what the manager itself knows. Unknown ids and strings that look like a
//! key are omitted, because they may be a secret that was entered in the wrong place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{KeyManager, MAX_TEXT_LENGTH, ManageError, ManagedKey};
use crate::audit::{Action, AuditEvent, AuditOutcome, shortened};
use crate::credit::CreditError;
use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyId, KeyRecord, TenantId};
use crate::store::StoreError;

impl KeyManager {
    /// Watches an operation, so that it is recorded however it ends, including when the caller
    /// drops its future.
    pub(super) fn watch(&self, action: Action) -> Watch<'_> {
        Watch {
            manager: self,
            action,
            asked: None,
            about: None,
            operation: None,
            recorded: false,
            throttled: false,
            unpublished: None,
        }
    }

    /// Returns a key that the operator is about to read or act on, before the exact operation is
    /// known. Like [`get`](Self::get), but a refusal is recorded as a refusal of `action`.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_for(&self, action: Action, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(action);
        let found = match watch.find(id).await {
            Ok(record) => self.view(record).await,
            Err(error) => Err(error),
        };
        match &found {
            Ok(_) => watch.forget(),
            Err(error) => watch.note_end(Err(error), || None),
        }
        found
    }

    /// Records an operation that the host refused by its own rules before calling the manager.
    pub fn refused(&self, action: Action, about: Option<&KeyRecord>, why: &AuthError) {
        let mut watch = self.watch(action);
        watch.asked = about.map(|record| record.id.clone());
        watch.about = about.map(|record| Arc::new(record.clone()));
        watch.refused(why.code(), without_values(why));
    }

    /// Returns whether an event was recorded since [`by`](Self::by) set the operator. If not, the
    /// caller that answers the request records it.
    #[must_use]
    pub fn has_noted(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Records a call of the operator that did not result in an operation: it was refused before
    /// the manager was called, or abandoned. `fill` adds what is known of the request, but not the
    /// credentials that it presents. The number of such events is limited like failures of one
    /// source
    /// ([`AuditTrailBuilder::failures_per_source`](crate::audit::AuditTrailBuilder::failures_per_source)).
    pub fn note_call(
        &self,
        action: Action,
        outcome: AuditOutcome,
        fill: impl FnOnce(&mut AuditEvent),
    ) {
        self.recorded.store(true, Ordering::Relaxed);
        let Some(trail) = self.audit() else {
            return;
        };
        let operator = self.operator();
        let mut event = trail.event(action, outcome);
        self.sign(&mut event);
        event.tenant_id = operator.tenant().cloned();
        fill(&mut event);
        trail.note_refusal(Some(&self.source()), event);
    }

    /// Returns the operator as a source of refusals. Key ids contain no spaces, so this cannot
    /// collide with one.
    fn source(&self) -> String {
        let operator = self.operator();
        let tenant = operator.tenant().map_or("", |tenant| tenant.as_str());
        format!("{tenant} {}", operator.name())
    }

    /// Records a call without an authenticated operator, as an event without an actor and a tenant.
    /// Only operators who are not confined to a tenant see it. `fill` and the limit on such events
    /// are as for [`note_call`](Self::note_call); the source is the client's address.
    pub fn note_unproven(&self, outcome: AuditOutcome, fill: impl FnOnce(&mut AuditEvent)) {
        if let Some(trail) = self.audit() {
            let mut event = trail.event(Action::Manage, outcome);
            fill(&mut event);
            trail.note_refusal(None, event);
        }
    }

    /// Adds the operator and its current request to an event.
    fn sign(&self, event: &mut AuditEvent) {
        let operator = self.operator();
        event.actor = Some(operator.party());
        event.client_ip = operator.client_ip;
        event.request_id.clone_from(&operator.request_id);
    }

    /// Records what a bulk operation did to one key, after its step is stored.
    pub(super) fn note_one_of(
        &self,
        operation: &KeyId,
        action: Action,
        about: &Arc<KeyRecord>,
        done: Result<Option<String>, &ManageError>,
    ) {
        let mut watch = self.watch(action);
        watch.asked = Some(about.id.clone());
        watch.about = Some(Arc::clone(about));
        watch.operation = Some(operation.clone());
        match done {
            Ok(detail) => watch.note_end(Ok(about), || detail),
            Err(error) => watch.note_end(Err(error), || None),
        }
    }

    /// Checks whether the operator can manage keys at all. To be called before the rest of the
    /// request is read. A refusal is recorded.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`].
    pub fn admitted(&self) -> Result<(), ManageError> {
        let admitted = match self.policy() {
            Some(policy) => policy.admits(&self.operator).map_err(ManageError::from),
            None => Ok(()),
        };
        if let Err(error) = &admitted {
            self.watch(Action::Manage).note_end(Err(error), || None);
        }
        admitted
    }

    /// Returns text that a person wrote, for an event; redacted if it may contain a secret.
    pub(super) fn harmless(&self, text: &str) -> String {
        if self
            .inner
            .formats
            .iter()
            .any(|(_, format)| format.looks_like_key(text))
        {
            return "[redacted]".to_owned();
        }
        shortened(text, 4 * MAX_TEXT_LENGTH)
    }
}

/// Returns the reason of a refusal. For invalid fields only the field's name, without its value.
fn without_values(why: &AuthError) -> &str {
    match why.code() {
        ErrorCode::InvalidBody | ErrorCode::InvalidRequest => {
            why.detail().split(':').next().unwrap_or_default()
        }
        _ => why.detail(),
    }
}

/// Watches one management operation.
pub(super) struct Watch<'a> {
    manager: &'a KeyManager,
    action: Action,
    /// The id of the requested key.
    asked: Option<KeyId>,
    /// The existing or new key, once it is known.
    about: Option<Arc<KeyRecord>>,
    /// The bulk operation that this is a part of, or which is started.
    operation: Option<KeyId>,
    recorded: bool,
    /// Whether refusals are recorded like those of calls, only so many a minute.
    throttled: bool,
    unpublished: Option<StoreError>,
}

impl Watch<'_> {
    pub(super) const fn manager(&self) -> &KeyManager {
        self.manager
    }

    /// Limits the number of refusals that are recorded: this operation is one of many in one call.
    pub(super) fn of_many(mut self) -> Self {
        self.throttled = true;
        self
    }

    /// Marks the operation as done and restricting a key. Keeps the error if the change could not
    /// be published to other nodes.
    pub(super) fn narrowed(&mut self, unpublished: Option<StoreError>) {
        self.unpublished = unpublished;
    }

    /// Finds the key of the operation, if it is visible to the operator.
    pub(super) async fn find(&mut self, id: &KeyId) -> Result<Arc<KeyRecord>, ManageError> {
        self.asked = Some(id.clone());
        let record = self.manager.find(id).await?;
        self.about = Some(Arc::clone(&record));
        Ok(record)
    }

    /// Sets the action, if it is known only now.
    pub(super) fn is(&mut self, action: Action) {
        self.action = action;
    }

    /// Sets the key that the operation creates.
    pub(super) fn makes(&mut self, record: &KeyRecord) {
        self.about = Some(Arc::new(record.clone()));
    }

    /// Records the outcome of the operation. The returned error must be returned to the caller,
    /// although the operation was done.
    pub(super) fn ended(
        mut self,
        done: Result<&KeyRecord, &ManageError>,
        detail: impl FnOnce() -> Option<String>,
    ) -> Result<(), ManageError> {
        let unpublished = self.unpublished.take().filter(|_| done.is_ok());
        self.note_end(done, detail);
        unpublished.map_or(Ok(()), |error| Err(ManageError::NotPublished(error)))
    }

    pub(super) fn note_end(
        mut self,
        done: Result<&KeyRecord, &ManageError>,
        detail: impl FnOnce() -> Option<String>,
    ) {
        match done {
            Ok(record) => {
                self.note(AuditOutcome::Ok, |event| {
                    event.name_key(record);
                    event.name_scopes(&record.scopes);
                    event.detail = detail();
                });
            }
            // The texts of these errors contain values of the request.
            Err(ManageError::NotFound(_)) => {
                self.refused(ErrorCode::NotFound, "key not found");
            }
            Err(ManageError::Refused(why)) => self.refused(why.code(), without_values(why)),
            Err(ManageError::Invalid { field, .. }) => self.refused(ErrorCode::InvalidBody, field),
            Err(error) => self.refused(error.code(), &error.to_string()),
        }
    }

    /// Records that a bulk operation was started.
    pub(super) fn started(mut self, operation: &KeyId, detail: String) {
        self.operation = Some(operation.clone());
        self.note(AuditOutcome::Ok, |event| event.detail = Some(detail));
    }

    /// Records the outcome of an operation that is about no key, and the tenant it is about.
    pub(super) fn note_end_without_key(
        mut self,
        tenant: Option<TenantId>,
        done: Result<String, &ManageError>,
    ) {
        let (outcome, detail) = match done {
            Ok(detail) => (AuditOutcome::Ok, detail),
            // The message may quote a value of the request.
            Err(ManageError::Credits(CreditError::Invalid(error))) => {
                let code = ErrorCode::InvalidBody;
                (AuditOutcome::Refused(code), error.what().to_owned())
            }
            Err(error) => (AuditOutcome::Refused(error.code()), error.to_string()),
        };
        let detail = self.manager.harmless(&detail);
        self.note(outcome, |event| {
            (event.tenant_id, event.detail) = (tenant, Some(detail));
        });
    }

    fn refused(mut self, code: ErrorCode, why: &str) {
        let why = self.manager.harmless(why);
        self.note(AuditOutcome::Refused(code), |event| {
            event.detail = Some(why);
        });
    }

    /// Ends the operation without an event.
    pub(super) fn forget(mut self) {
        self.recorded = true;
    }

    fn note(&mut self, outcome: AuditOutcome, fill: impl FnOnce(&mut AuditEvent)) {
        self.recorded = true;
        self.manager.recorded.store(true, Ordering::Relaxed);
        let Some(trail) = self.manager.audit().cloned() else {
            return;
        };
        let operator = self.manager.operator();
        let mut event = trail.event(self.action, outcome);
        self.manager.sign(&mut event);
        if let Some(record) = &self.about {
            event.name_key(record);
        }
        // The id of a new key is not known to anyone yet. An unknown id that the library did not
        // generate may be a secret.
        event.key_id = self
            .asked
            .take()
            .filter(|id| self.about.is_some() || id.is_of_the_librarys_shape());
        event.operation = self.operation.take();
        fill(&mut event);
        // Operations of an operator are recorded in its own tenant, whatever it requested.
        event.tenant_id = operator.tenant().cloned().or(event.tenant_id);
        match &self.manager.joined {
            // It is done only if the host commits.
            Some(joined) if outcome == AuditOutcome::Ok => joined.hold(event),
            _ if self.throttled && outcome != AuditOutcome::Ok => {
                trail.note_refusal(Some(&self.manager.source()), event);
            }
            _ => trail.note_act(event),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // An abandoned read has done nothing.
        if !self.recorded && !matches!(self.action, Action::KeyRead | Action::CreditRead) {
            self.note(AuditOutcome::Abandoned, |_| {});
        }
    }
}
