//! What is known of a key once it is found: its compiled entry, the authority it has, and its
//! digest kept current.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Attempt, Facts, Inner, PendingAttempt};
use crate::actor::{Intersection, User};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Delegation, KeyDigest, KeyRecord};
use crate::limit::LimiterSlot;
use crate::principal::KeyEntry;
use crate::scope;
use crate::scope::{Scope, ScopeSet};
use crate::store::{Change, Rejected, StoreError, StoredKey, WriteBatch};

const REHASH_PAUSE: Duration = Duration::from_secs(60);

impl Inner {
    /// The entry of the key that was found, after the constant-time comparison that also a miss
    /// goes through.
    pub(super) fn identify(
        &self,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
        facts: &Facts,
    ) -> Result<(Arc<StoredKey>, Arc<KeyEntry>), AuthError> {
        let Some(stored) = matching(found, digests)? else {
            return Err(self.unknown(facts));
        };
        let entry = self.entry_of(&stored)?;
        Ok((stored, entry))
    }

    /// What this authenticator knows of a stored key, compiled once.
    fn entry_of(&self, stored: &StoredKey) -> Result<Arc<KeyEntry>, AuthError> {
        let entry = stored
            .compiled()
            .get_or_try_make(self.tag, || self.compile(stored.record()));
        entry.map_err(|error| error.presenting(stored.record(), None))
    }

    /// Steps 2 to 4 for a text that nobody presented: whoever asks has not failed, and nothing is
    /// written.
    pub(super) async fn known(&self, key: &str) -> Result<Option<Arc<KeyEntry>>, AuthError> {
        let mut formats = self.accepted.iter().flat_map(|way| &way.formats);
        if !formats.any(|format| format.parse(key).is_ok()) {
            return Ok(None);
        }
        let digests = self.hasher.candidates(key, self.hasher.digest(key));
        let found = match self.store.find_now(digests.as_slice()) {
            Some(found) => found,
            None => self.store.find(digests.as_slice()).await,
        };
        let stored = matching(found, digests.as_slice())?;
        stored.map(|stored| self.entry_of(&stored)).transpose()
    }

    /// A well-formed key that no store knows: counted against the client, never against any key.
    pub(super) fn unknown(&self, facts: &Facts) -> AuthError {
        match self
            .failures
            .as_ref()
            .and_then(|failures| failures.count(facts.client_ip))
        {
            Some(wait) => AuthError::too_many_failures(wait),
            None => AuthError::new(ErrorCode::InvalidKey),
        }
    }

    /// Whether a text that is none of the credentials must be taken for a key all the same, and
    /// kept out of every log.
    pub(super) fn gives_away(&self, text: &str) -> bool {
        self.accepted
            .iter()
            .flat_map(|way| &way.formats)
            .any(|format| format.gives_away(text))
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
            quotas: record.quotas.as_ref().unwrap_or(&self.quotas).apart(),
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

    pub(super) fn is_stale(&self, stored: &StoredKey) -> bool {
        self.rehash_in.is_some()
            && stored.digest().scheme() != self.hasher.scheme()
            && self.clock.monotonic()
                >= Duration::from_millis(self.next_rehash.load(Ordering::Relaxed))
    }

    /// Stores the key under the current scheme, once; the attempt comes to the same whatever comes
    /// of that.
    pub(super) fn rehash(
        self: &Arc<Self>,
        stored: Arc<StoredKey>,
        to: KeyDigest,
        attempt: Attempt,
    ) -> Attempt {
        let this = Arc::clone(self);
        let Some(store) = this.rehash_in.clone() else {
            return attempt;
        };
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let change = Change::Rehash {
                id: stored.record().id.clone(),
                from: *stored.digest(),
                to,
            };
            match store.apply(&WriteBatch::new().change(change)).await {
                Ok(()) => {}
                // Another request, or another node, was quicker.
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Missing(_))) => {}
                // A store that cannot write for now, or will not take the digest back, must not
                // slow every request down.
                Err(_) => {
                    let later = this.clock.monotonic() + REHASH_PAUSE;
                    let later = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
                    this.next_rehash.store(later, Ordering::Relaxed);
                }
            }
            attempt.outcome().await
        })))
    }
}

/// The key that was found, after the constant-time comparison that also a miss goes through.
fn matching(
    found: Result<Option<Arc<StoredKey>>, StoreError>,
    digests: &[KeyDigest],
) -> Result<Option<Arc<StoredKey>>, AuthError> {
    let found =
        found.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?;
    let stored = found
        .as_ref()
        .map(|stored| stored.digest())
        .or(digests.first());
    let matches = digests
        .iter()
        .fold(false, |any, digest| any | (Some(digest) == stored));
    Ok(found.filter(|_| matches))
}
