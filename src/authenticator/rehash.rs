//! Keys that are stored under an older scheme, to be stored under the current one.
//!
//! A request only notes the key: no request waits for a write. What is noted is one entry per key,
//! bounded, and written by [`Authenticator::write_rehashes`](super::Authenticator::write_rehashes).
//! Nothing is lost where an entry is left out: the next use of the key notes it again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Inner;
use super::facts::{Facts, Purpose};
use crate::key::{KeyDigest, KeyId};
use crate::store::{Change, KeyStore, Rejected, StoreError, StoredKey, WriteBatch};

/// After a write that failed, none is tried for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// No more keys are noted at once.
const MOST_NOTED: usize = 1000;

#[derive(Default)]
pub(super) struct Rehashes {
    noted: Mutex<BTreeMap<KeyId, Rehash>>,
    /// Not before this many milliseconds of monotonic time.
    next: AtomicU64,
    /// How many were written so far.
    written: AtomicU64,
}

#[derive(Clone, Copy)]
struct Rehash {
    from: KeyDigest,
    to: KeyDigest,
    /// Until then it is not tried, nor noted again: the store would not have it.
    refused_until: Option<Duration>,
}

impl Rehash {
    fn is_same(&self, other: &Self) -> bool {
        (self.from, self.to) == (other.from, other.to)
    }
}

impl Rehashes {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn pending(&self) -> usize {
        self.noted.lock().len()
    }

    /// The first that is noted after a key's.
    fn after(&self, id: Option<&KeyId>) -> Option<(KeyId, Rehash)> {
        let after = id.map_or(Bound::Unbounded, Bound::Excluded);
        let noted = self.noted.lock();
        let (id, rehash) = noted.range::<KeyId, _>((after, Bound::Unbounded)).next()?;
        Some((id.clone(), *rehash))
    }

    /// Forgets one, unless another one of the same key has taken its place.
    fn done(&self, id: &KeyId, rehash: &Rehash) {
        let mut noted = self.noted.lock();
        if noted.get(id).is_some_and(|noted| noted.is_same(rehash)) {
            noted.remove(id);
        }
    }

    fn refused(&self, id: &KeyId, rehash: &Rehash, until: Duration) {
        let mut noted = self.noted.lock();
        if let Some(noted) = noted.get_mut(id).filter(|noted| noted.is_same(rehash)) {
            noted.refused_until = Some(until);
        }
    }
}

impl Inner {
    /// Notes a key that works and is not stored under the current scheme.
    pub(super) fn note_rehash(&self, facts: &Facts, stored: Option<&Arc<StoredKey>>) {
        let (Some(stored), Some(&to)) = (stored, facts.digests().first()) else {
            return;
        };
        let from = *stored.digest();
        if from.scheme() == to.scheme()
            || facts.purpose != Purpose::Request
            || self.rehash_in.is_none()
        {
            return;
        }
        let rehash = Rehash {
            from,
            to,
            refused_until: None,
        };
        let id = &stored.record().id;
        let mut noted = self.rehashes.noted.lock();
        let has_room = noted.len() < MOST_NOTED;
        match noted.get_mut(id) {
            Some(known) if known.is_same(&rehash) => {}
            Some(known) => *known = rehash,
            None if has_room => {
                noted.insert(id.clone(), rehash);
            }
            None => {}
        }
    }

    /// Writes what is noted, one key after the other, unless a write has failed a moment ago.
    /// Returns how many keys it has written, and the failure that ended it. Dropping it loses
    /// nothing: what may have been written is written again, which harms nobody.
    pub(super) async fn write_rehashes(&self) -> (usize, Result<(), StoreError>) {
        let (queue, mut written) = (&self.rehashes, 0);
        let Some(store) = &self.rehash_in else {
            return (0, Ok(()));
        };
        let mut next = queue.after(None);
        while let Some((id, rehash)) = next {
            let now = self.clock.monotonic();
            if now < Duration::from_millis(queue.next.load(Ordering::Relaxed)) {
                break;
            }
            match rehash.refused_until {
                None => match self.write_rehash(store, &id, &rehash).await {
                    Ok(()) => {
                        queue.written.fetch_add(1, Ordering::Relaxed);
                        written += 1;
                    }
                    Err(error) => {
                        let later = now.saturating_add(PAUSE).as_millis();
                        let later = u64::try_from(later).unwrap_or(u64::MAX);
                        queue.next.store(later, Ordering::Relaxed);
                        return (written, Err(error));
                    }
                },
                Some(until) if now < until => {}
                Some(_) => queue.done(&id, &rehash),
            }
            next = queue.after(Some(&id));
        }
        (written, Ok(()))
    }

    /// Writes one, or finds that there is nothing to write.
    ///
    /// # Errors
    /// Where the store gave no answer.
    async fn write_rehash(
        &self,
        store: &Arc<dyn KeyStore>,
        id: &KeyId,
        rehash: &Rehash,
    ) -> Result<(), StoreError> {
        let Rehash { from, to, .. } = *rehash;
        let change = Change::Rehash {
            id: id.clone(),
            from,
            to,
        };
        match store.apply(&WriteBatch::new().change(change)).await {
            Ok(()) => self.rehashes.done(id, rehash),
            Err(error) => match error.as_rejected() {
                // Another node was quicker, or the key is gone.
                Some(Rejected::Missing(_)) => self.rehashes.done(id, rehash),
                // It will not take the digest back.
                Some(_) => {
                    let until = self.clock.monotonic().saturating_add(PAUSE);
                    self.rehashes.refused(id, rehash, until);
                }
                None => return Err(error),
            },
        }
        Ok(())
    }
}
