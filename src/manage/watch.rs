//! Noting acts of management, however they end.

use super::{KeyManager, MAX_TEXT_LENGTH, ManageError};
use crate::audit::{Action, AuditOutcome, Party, shortened};
use crate::key::{KeyId, KeyRecord};

/// The longest name of an operator that the audit shows, in bytes.
const LONGEST_NAME: usize = 320;

impl KeyManager {
    /// Watches an act of management, so that it is noted however it ends: also where whoever asked goes away meanwhile.
    pub(super) fn watch<'a>(&'a self, action: Action, key: Option<&'a KeyId>) -> Watch<'a> {
        Watch { manager: self, action, key, noted: false }
    }

    /// Notes an act of management, done or not.
    fn note(
        &self,
        action: Action,
        done: Result<&KeyRecord, Option<&ManageError>>,
        key: Option<&KeyId>,
        detail: impl FnOnce() -> Option<String>,
    ) {
        let Some(trail) = &self.inner.audit else { return };
        let outcome = match done {
            Ok(_) => AuditOutcome::Ok,
            Err(Some(error)) => AuditOutcome::Refused(error.code()),
            Err(None) => AuditOutcome::Abandoned,
        };
        let mut event = trail.event(action, outcome);
        event.key_id = done.ok().map(|record| &record.id).or(key).cloned();
        event.tenant_id = match done {
            Ok(record) => Some(record.owner.tenant_id.clone()),
            Err(_) => self.operator.tenant().cloned(),
        };
        event.environment = done.ok().map(|record| record.environment.clone());
        event.workspaces = done.ok().and_then(|record| record.workspaces.clone());
        event.scopes =
            done.map_or_else(|_| Vec::new(), |record| record.scopes.iter().map(ToString::to_string).collect());
        event.actor = Some(Party::operator(shortened(&self.operator.name, LONGEST_NAME)));
        event.client_ip = self.operator.client_ip;
        event.request_id.clone_from(&self.operator.request_id);
        event.detail = match done {
            Ok(_) => detail(),
            Err(error) => error.map(ToString::to_string),
        };
        event.detail = event.detail.map(|detail| shortened(&detail, 4 * MAX_TEXT_LENGTH));
        trail.note_act(event);
    }
}

/// Watches one act of management.
pub(super) struct Watch<'a> {
    manager: &'a KeyManager,
    action: Action,
    key: Option<&'a KeyId>,
    noted: bool,
}

impl Watch<'_> {
    pub(super) fn ended(mut self, done: Result<&KeyRecord, &ManageError>, detail: impl FnOnce() -> Option<String>) {
        self.noted = true;
        self.manager.note(self.action, done.map_err(Some), self.key, detail);
    }

    /// There was nothing to do, and nothing to tell.
    pub(super) fn forget(mut self) {
        self.noted = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.noted {
            self.manager.note(self.action, Err(None), self.key, || None);
        }
    }
}
