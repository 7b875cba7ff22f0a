//! Noting acts of management, however they end.
//!
//! An event names what the manager itself knows: an id that no key has, and texts that look like a
//! key, may be a secret that was written in the wrong place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{KeyManager, MAX_TEXT_LENGTH, ManageError, ManagedKey};
use crate::audit::{Action, AuditEvent, AuditOutcome, Party, shortened};
use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyId, KeyRecord};
use crate::store::StoreError;

/// The longest name of an operator that the audit shows, in bytes.
const LONGEST_NAME: usize = 320;

impl KeyManager {
    /// Watches an act of management, so that it is noted however it ends: also where whoever asked
    /// goes away meanwhile.
    pub(super) fn watch(&self, action: Action) -> Watch<'_> {
        Watch {
            manager: self,
            action,
            asked: None,
            about: None,
            noted: false,
            unpublished: None,
        }
    }

    /// The key that somebody is about to read or to do this to, before it is known what exactly: as
    /// [`get`](Self::get), but that it is refused is noted as a refusal of the act.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_for(&self, action: Action, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(action);
        let found = match watch.find(id).await {
            Ok(record) => self.shown(record).await,
            Err(error) => Err(error),
        };
        match &found {
            Ok(_) => watch.forget(),
            Err(error) => watch.note_end(Err(error), || None),
        }
        found
    }

    /// Notes an act that somebody else refused before the manager was asked: the host, by rules of
    /// its own.
    pub fn refused(&self, action: Action, about: Option<&KeyRecord>, why: &AuthError) {
        let mut watch = self.watch(action);
        watch.asked = about.map(|record| record.id.clone());
        watch.about = about.map(|record| Arc::new(record.clone()));
        watch.refused(why.code(), without_values(why));
    }

    /// Whether anything was noted since this manager is in its operator's hands
    /// ([`by`](Self::by)): whoever answers a call notes it otherwise.
    #[must_use]
    pub fn has_noted(&self) -> bool {
        self.noted.load(Ordering::Relaxed)
    }

    /// Notes a call of the operator's that came to no act: one that was refused before the manager
    /// was asked, or given up. `fill` adds what is known of the request, and nothing of what it
    /// presents. Such calls are noted as often as failures of one source are
    /// ([`AuditTrailBuilder::failures_per_source`](crate::audit::AuditTrailBuilder::failures_per_source)).
    pub fn note_call(
        &self,
        action: Action,
        outcome: AuditOutcome,
        fill: impl FnOnce(&mut AuditEvent),
    ) {
        self.noted.store(true, Ordering::Relaxed);
        let Some(trail) = self.audit() else {
            return;
        };
        let operator = self.operator();
        let mut event = trail.event(action, outcome);
        self.sign(&mut event);
        event.tenant_id = operator.tenant().cloned();
        fill(&mut event);
        let tenant = operator.tenant().map_or("", |tenant| tenant.as_str());
        // No id of a key has a space in it.
        let source = format!("{tenant} {}", shortened(&operator.name, LONGEST_NAME));
        trail.note_refusal(Some(&source), event);
    }

    /// Notes a call that nobody is proven to make, as an act of nobody's on no tenant: only
    /// operators who are confined to none see it. `fill` and how often such calls are noted are as
    /// for [`note_call`](Self::note_call); the source is the client's address.
    pub fn note_unproven(&self, outcome: AuditOutcome, fill: impl FnOnce(&mut AuditEvent)) {
        if let Some(trail) = self.audit() {
            let mut event = trail.event(Action::Manage, outcome);
            fill(&mut event);
            trail.note_refusal(None, event);
        }
    }

    /// Names the operator in an event, and the request that it makes.
    fn sign(&self, event: &mut AuditEvent) {
        let operator = self.operator();
        event.actor = Some(Party::operator(shortened(&operator.name, LONGEST_NAME)));
        event.client_ip = operator.client_ip;
        event.request_id.clone_from(&operator.request_id);
    }

    /// Whether the operator may manage anything at all, to be asked before anything else is read.
    /// That it may not is noted.
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

    /// What a person wrote, for an event: not if it may have a secret in it.
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

/// Why the host refused: the field, without what stood in it.
fn without_values(why: &AuthError) -> &str {
    match why.code() {
        ErrorCode::InvalidBody | ErrorCode::InvalidRequest => {
            why.detail().split(':').next().unwrap_or_default()
        }
        _ => why.detail(),
    }
}

/// Watches one act of management.
pub(super) struct Watch<'a> {
    manager: &'a KeyManager,
    action: Action,
    /// Which key was asked for.
    asked: Option<KeyId>,
    /// The key that it is about, once that is known: there already, or to be made.
    about: Option<Arc<KeyRecord>>,
    noted: bool,
    unpublished: Option<StoreError>,
}

impl Watch<'_> {
    /// The act was done, and narrows a key; where other nodes could not be told of it, why.
    pub(super) fn narrowed(&mut self, unpublished: Option<StoreError>) {
        self.unpublished = unpublished;
    }

    /// The key that the act is about, as far as the operator may know of it.
    pub(super) async fn find(&mut self, id: &KeyId) -> Result<Arc<KeyRecord>, ManageError> {
        self.asked = Some(id.clone());
        let record = self.manager.find(id).await?;
        self.about = Some(Arc::clone(&record));
        Ok(record)
    }

    /// What the act is, where that is known only now.
    pub(super) fn is(&mut self, action: Action) {
        self.action = action;
    }

    /// The act is to make a key.
    pub(super) fn makes(&mut self, record: &KeyRecord) {
        self.about = Some(Arc::new(record.clone()));
    }

    /// Notes how the act ended. What is returned is to be returned to whoever asked for it, although
    /// it was done.
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
                    name(event, record);
                    event.name_scopes(&record.scopes);
                    event.detail = detail();
                });
            }
            // Their texts name what was asked for.
            Err(ManageError::NotFound(_)) => {
                self.refused(ErrorCode::NotFound, "there is no such key");
            }
            Err(ManageError::Refused(why)) => self.refused(why.code(), without_values(why)),
            Err(ManageError::Invalid { field, .. }) => self.refused(ErrorCode::InvalidBody, field),
            Err(error) => self.refused(error.code(), &error.to_string()),
        }
    }

    fn refused(mut self, code: ErrorCode, why: &str) {
        let why = self.manager.harmless(why);
        self.note(AuditOutcome::Refused(code), |event| {
            event.detail = Some(why);
        });
    }

    /// There was nothing to do, and nothing to tell.
    pub(super) fn forget(mut self) {
        self.noted = true;
    }

    fn note(&mut self, outcome: AuditOutcome, fill: impl FnOnce(&mut AuditEvent)) {
        self.noted = true;
        self.manager.noted.store(true, Ordering::Relaxed);
        let Some(trail) = self.manager.audit().cloned() else {
            return;
        };
        let operator = self.manager.operator();
        let mut event = trail.event(self.action, outcome);
        self.manager.sign(&mut event);
        if let Some(record) = &self.about {
            name(&mut event, record);
        }
        // One that is to be made has no id that anybody knows; and what no key is known by may be a
        // secret.
        event.key_id = self
            .asked
            .take()
            .filter(|id| self.about.is_some() || id.is_of_the_librarys_shape());
        fill(&mut event);
        // An operator's acts stand in its own tenant, whatever it asked for.
        event.tenant_id = operator.tenant().cloned().or(event.tenant_id);
        trail.note_act(event);
    }
}

/// Which key an event is about, and who may see it.
fn name(event: &mut AuditEvent, record: &KeyRecord) {
    event.key_id = Some(record.id.clone());
    event.tenant_id = Some(record.owner.tenant_id.clone());
    event.environment = Some(record.environment.clone());
    event.name_workspaces(record.workspaces.as_deref());
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // Who gives up reading has done nothing.
        if !self.noted && self.action != Action::KeyRead {
            self.note(AuditOutcome::Abandoned, |_| {});
        }
    }
}
