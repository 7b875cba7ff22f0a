//! What is known of a key once it is found: its compiled entry and the authority it has.

use std::sync::Arc;

use super::Inner;
use crate::actor::{Intersection, User};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Delegation, KeyRecord};
use crate::limit::LimiterSlot;
use crate::principal::KeyEntry;
use crate::scope;
use crate::scope::{Scope, ScopeSet};
use crate::store::StoredKey;

impl Inner {
    /// What this authenticator knows of a stored key, compiled once.
    pub(super) fn entry_of(&self, stored: &StoredKey) -> Result<Arc<KeyEntry>, AuthError> {
        stored
            .compiled()
            .get_or_try_make(self.tag, || self.compile(stored.record()))
    }

    /// Whether a text that is none of the credentials must be taken for a key all the same, and
    /// kept out of every log.
    pub(super) fn looks_like_key(&self, text: &str) -> bool {
        self.accepted
            .iter()
            .flat_map(|way| &way.formats)
            .any(|format| format.looks_like_key(text))
    }

    pub(super) fn scopes_of(&self, record: &KeyRecord) -> Result<Arc<dyn ScopeSet>, AuthError> {
        const EVERYTHING: &[Scope] = &[scope!("*")];
        let unscoped = self.unscoped.contains(&record.kind);
        let scopes = self
            .scope_model
            .compile(if unscoped { EVERYTHING } else { &record.scopes });
        // A grant that cannot be understood refuses the key: nobody can tell what it was meant to
        // allow.
        scopes.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))
    }

    pub(super) fn compile(&self, record: &Arc<KeyRecord>) -> Result<Arc<KeyEntry>, AuthError> {
        let unreadable = |error| AuthError::unavailable(ErrorCode::StoreUnavailable, error);
        Ok(Arc::new(KeyEntry {
            record: Arc::clone(record),
            scopes: self.scopes_of(record)?,
            delegated: match &record.delegation {
                Delegation::Only(scopes) => {
                    Some(self.scope_model.compile(scopes).map_err(unreadable)?)
                }
                Delegation::Off | Delegation::On => None,
            },
            quotas: record
                .quotas
                .as_ref()
                .unwrap_or(&self.limits.quotas)
                .apart(),
            family_slot: LimiterSlot::new(),
            tenant_slot: LimiterSlot::new(),
            usage: self.usage.cell(&record.id),
            responder: Arc::clone(&self.responder),
        }))
    }

    /// What the key has, what its delegation permits, and what the user has: what all of these
    /// grant.
    pub(super) fn authority(
        &self,
        entry: &KeyEntry,
        user: &User,
    ) -> Result<Arc<dyn ScopeSet>, AuthError> {
        let of_user = user
            .scopes
            .as_ref()
            .map(|scopes| self.scope_model.compile(scopes))
            .transpose();
        let of_user = of_user
            .map_err(|error| AuthError::unavailable(ErrorCode::DirectoryUnavailable, error))?;
        let mut sets = vec![Arc::clone(&entry.scopes)];
        sets.extend(entry.delegated.clone());
        sets.extend(of_user);
        Ok(if sets.len() == 1 {
            sets.remove(0)
        } else {
            Arc::new(Intersection::of(sets))
        })
    }

    /// Step 6: a key of another environment than the one that is served.
    pub(super) fn environment(&self, record: &KeyRecord) -> Result<(), AuthError> {
        match &self.environment {
            Some(bound) if *bound != record.environment => {
                Err(AuthError::new(ErrorCode::WrongEnvironment))
            }
            _ => Ok(()),
        }
    }
}
