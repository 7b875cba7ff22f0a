//! Which key a secret has.
//!
//! One secret has a digest under each accepted scheme, and each of them may be stored: the key was
//! imported under an old scheme once more, by its own tenant or by another one that knew the
//! digest. Only the newest may count, or whoever knows an old digest of a foreign key could take
//! that key's requests, or end it.

use std::sync::Arc;

use super::StoredKey;
use crate::key::{KeyDigest, KeyId, TenantId};

/// What a store has under a digest.
#[derive(Debug, Clone)]
pub enum Match {
    /// A key.
    Key(Arc<StoredKey>),
    /// It was a digest of this key, of this tenant, which has another one by now.
    Former(KeyId, TenantId),
    /// It was a digest of a key that is deleted by now, of this tenant. `None` where the store does
    /// not know of which: then it counts for every tenant.
    Deleted(Option<TenantId>),
}

impl StoredKey {
    /// Which key a secret has, by what a store has under each of its digests, the newest scheme
    /// first. A [`KeyLookup::find`](super::KeyLookup::find) ends with this rule:
    /// - The first digest that is a key's, or was when its key was deleted, decides, whatever is
    ///   known under the others. In the second case there is no key.
    /// - Within the tenant of that key, a secret that was ended stays ended: if another of the
    ///   digests was a deleted key's of this tenant, there is no key; if one is a revoked key's of
    ///   this tenant, it is that key. What other tenants did to their keys does not count.
    /// - The keys that could make it another one are named ([`others`](Self::others)).
    pub fn of_one_secret(
        digests: &[KeyDigest],
        matched: impl Fn(&KeyDigest) -> Option<Match>,
    ) -> Option<Arc<Self>> {
        let (mut found, mut others) = (None::<Arc<Self>>, Vec::new());
        for matched in digests.iter().filter_map(matched) {
            let Some(key) = &found else {
                match matched {
                    Match::Key(key) => found = Some(key),
                    // Were it deleted, whosever it is, its digest would decide.
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
