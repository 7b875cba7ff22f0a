//! Which key a secret has.
//!
//! One secret has a digest under each accepted scheme, and each of them may be stored: the key was
//! imported under an old scheme once more, by its own tenant or by another one that knew the
//! digest. Only the newest may count, or whoever knows an old digest of a foreign key could take
//! that key's requests, or end it.

use std::sync::Arc;

use super::StoredKey;
use crate::key::{KeyDigest, TenantId};

/// What a store has under a digest.
#[derive(Debug, Clone)]
pub enum Match {
    /// A key.
    Key(Arc<StoredKey>),
    /// It was a digest of a key that is deleted by now, of this tenant. `None` where the store does
    /// not know of which: then it counts for every tenant.
    Deleted(Option<TenantId>),
}

impl StoredKey {
    /// Which key a secret has, by what a store has under each of its digests, the newest scheme
    /// first. A [`KeyStore::find`](super::KeyStore::find) ends with this rule:
    /// - The first digest that is known decides, whatever is known under the others. If it was a
    ///   deleted key's, there is no key.
    /// - Within the tenant of that key, a secret that was ended stays ended: if another of the
    ///   digests was a deleted key's of this tenant, there is no key; if one is a revoked key's of
    ///   this tenant, it is that key. What other tenants did to their keys does not count.
    pub fn of_one_secret(
        digests: &[KeyDigest],
        matched: impl Fn(&KeyDigest) -> Option<Match>,
    ) -> Option<Arc<Self>> {
        let mut matches = digests.iter().filter_map(matched);
        let Match::Key(mut key) = matches.next()? else {
            return None;
        };
        for other in matches {
            let tenant = &key.record().owner.tenant_id;
            match other {
                Match::Deleted(of) if of.as_ref().is_none_or(|of| of == tenant) => return None,
                Match::Key(other)
                    if other.record().owner.tenant_id == *tenant
                        && other.record().revoked.is_some()
                        && key.record().revoked.is_none() =>
                {
                    key = other;
                }
                Match::Key(_) | Match::Deleted(_) => {}
            }
        }
        Some(key)
    }
}
