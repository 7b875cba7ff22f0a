//! The rule that decides which key a secret belongs to.
//!
//! A secret has a digest under each accepted scheme, and each of them may be stored: the key may
//! have been imported again under an old scheme, by its own tenant or by another one that knew the
//! digest. Only the newest may count. Otherwise, a tenant that knows an old digest of a foreign key
//! could take over that key's requests, or revoke it.

use std::sync::Arc;

use super::StoredKey;
use crate::key::{KeyDigest, KeyId, TenantId};

/// A store's entry for a digest.
#[derive(Debug, Clone)]
pub enum Match {
    /// The current digest of a key.
    Key(Arc<StoredKey>),
    /// A former digest of this key, of this tenant; the key now has another digest.
    Former(KeyId, TenantId),
    /// A current or former digest of a deleted key of this tenant. `None` if the store does not
    /// know the tenant; the entry then counts for every tenant.
    Deleted(Option<TenantId>),
}

impl StoredKey {
    /// Returns the key that a secret belongs to, given the store's entries for its digests, newest
    /// scheme first. A [`KeyLookup::find`](super::KeyLookup::find) must apply this rule:
    /// - The first digest that belongs to a key, or ever did if its key was deleted, decides,
    ///   regardless of the other digests. If its key was deleted, there is no key.
    /// - Within the tenant of that key, a secret that was revoked stays revoked: if another of the
    ///   digests belonged to a deleted key of this tenant, there is no key; if one belongs to a
    ///   revoked key of this tenant, the result is that key. Keys of other tenants do not count.
    /// - A deleted key counts under every digest that it ever had ([`Match::Deleted`]), including
    ///   those that were replaced before it was deleted.
    /// - The keys whose change could alter the result are named in [`others`](Self::others).
    pub fn of_one_secret(
        digests: &[KeyDigest],
        matched: impl Fn(&KeyDigest) -> Option<Match>,
    ) -> Option<Arc<Self>> {
        let (mut found, mut others) = (None::<Arc<Self>>, Vec::new());
        for matched in digests.iter().filter_map(matched) {
            let Some(key) = &found else {
                match matched {
                    Match::Key(key) => found = Some(key),
                    // If that key were deleted, its digest would decide, whatever its tenant.
                    Match::Former(id, _) => others.push(id),
                    Match::Deleted(_) => return None,
                }
                continue;
            };
            let record = key.record();
            let is_here = |tenant: &TenantId| *tenant == record.owner.tenant_id;
            match matched {
                Match::Deleted(of) if of.as_ref().is_none_or(is_here) => return None,
                Match::Former(id, of) if is_here(&of) && id != record.id => others.push(id),
                Match::Key(other)
                    if is_here(&other.record().owner.tenant_id)
                        && other.record().id != record.id =>
                {
                    if other.record().revoked.is_some() && record.revoked.is_none() {
                        others.push(record.id.clone());
                        found = Some(other);
                    } else {
                        others.push(other.record().id.clone());
                    }
                }
                Match::Key(_) | Match::Former(..) | Match::Deleted(_) => {}
            }
        }
        let key = found?;
        others.retain(|id| *id != key.record().id);
        Some(if others.is_empty() {
            key
        } else {
            Arc::new(Self::beside(&key, others))
        })
    }
}
