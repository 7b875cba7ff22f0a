//! The compiled entry of a key that was found, and its authority.

use std::sync::Arc;

use super::Inner;
use crate::actor::{Intersection, User};
use crate::entry::{CompiledSettings, Entry, KeyEntry, KeyFacts};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Delegation, KeyRecord};
use crate::limit::PlanLimits;
use crate::scope;
use crate::scope::{Scope, ScopeSet};
use crate::store::StoredKey;

impl Inner {
    /// Returns the entry of a stored key, which is compiled once.
    /// The key is returned with an error.
    #[inline]
    pub(super) fn entry_of(
        &self,
        stored: Arc<StoredKey>,
    ) -> Result<Entry, (AuthError, Arc<StoredKey>)> {
        let compile = |stored: &StoredKey| self.compile(stored.record());
        StoredKey::compiled(stored, &self.common, compile)
    }

    /// Returns whether a string outside the credentials looks like a key and must not be logged.
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
        // Fail closed: it is unknown what a grant that cannot be parsed was meant to allow.
        scopes.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))
    }

    pub(super) fn compile(&self, record: &Arc<KeyRecord>) -> Result<KeyEntry, AuthError> {
        let unreadable = |error| AuthError::unavailable(ErrorCode::StoreUnavailable, error);
        let scopes = self.scopes_of(record)?;
        let delegated = match &record.delegation {
            Delegation::Only(scopes) => Some(self.scope_model.compile(scopes).map_err(unreadable)?),
            Delegation::Off | Delegation::On => None,
        };
        let compile = |scopes, delegated| CompiledSettings {
            facts: KeyFacts::new(record, self.environment.as_ref()),
            scopes,
            delegated,
            plan: self.plan_of(record),
            common: Arc::clone(&self.common),
        };
        let settings = self.compiled.of(record, scopes, delegated, compile);
        let purse = self.credits.as_ref().map(|credits| credits.purse(record));
        Ok(KeyEntry::new(
            record,
            settings,
            purse,
            self.limits.table.slots,
        ))
    }

    /// Returns the limits of a key: those of its own plan, or the tenant's plan decides if there is
    /// a directory to ask.
    fn plan_of(&self, record: &KeyRecord) -> Option<Arc<PlanLimits>> {
        let table = &self.limits.table;
        let own = record.quotas.as_ref();
        let with_own = |limits: &Arc<PlanLimits>| match own {
            Some(own) => Arc::new(limits.with_own(own)),
            None => Arc::clone(limits),
        };
        match &record.plan {
            Some(name) if table.has_plans() => table.plan(name).map(with_own),
            None if table.has_plans() && self.directory.is_some() => None,
            _ => Some(with_own(&table.base)),
        }
    }

    /// Returns the authority of a key that acts for a user: the intersection of the key's scopes,
    /// those that its delegation permits, and the user's.
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
}
