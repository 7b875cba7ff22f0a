//! Rehashing: keys stored under an older scheme are stored under the current one after use.
//!
//! A request only queues the key, so it never waits for a write. The queue is bounded, with one
//! entry per key, and is written by
//! [`Authenticator::write_rehashes`](super::Authenticator::write_rehashes). Nothing is lost if a
//! key is not queued: its next use queues it again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lock::Mutex;

use super::Inner;
use super::facts::{Facts, Purpose};
use crate::key::{KeyDigest, KeyId};
use crate::store::{Change, KeyStore, Rejected, StoreError, StoredKey, WriteBatch};

/// The time without further attempts after a failed write.
const PAUSE: Duration = Duration::from_secs(60);

/// The maximum number of queued keys.
const MOST_QUEUED: usize = 1000;

#[derive(Default)]
pub(super) struct Rehashes {
    queued: Mutex<BTreeMap<KeyId, Rehash>>,
    /// The earliest time of the next write, in milliseconds of monotonic time.
    next: AtomicU64,
    /// The number of keys written so far.
    written: AtomicU64,
}

#[derive(Clone, Copy)]
struct Rehash {
    from: KeyDigest,
    to: KeyDigest,
    /// The time until which the key is neither written nor queued again, because the store rejected
    /// the change.
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
        self.queued.lock().len()
    }

    /// Returns the first queued entry after the given key.
    fn after(&self, id: Option<&KeyId>) -> Option<(KeyId, Rehash)> {
        let after = id.map_or(Bound::Unbounded, Bound::Excluded);
        let queued = self.queued.lock();
        let (id, rehash) = queued.range::<KeyId, _>((after, Bound::Unbounded)).next()?;
        Some((id.clone(), *rehash))
    }

    /// Removes an entry, unless the key has been queued with other digests since.
    fn done(&self, id: &KeyId, rehash: &Rehash) {
        let mut queued = self.queued.lock();
        if queued.get(id).is_some_and(|queued| queued.is_same(rehash)) {
            queued.remove(id);
        }
    }

    fn refused(&self, id: &KeyId, rehash: &Rehash, until: Duration) {
        let mut queued = self.queued.lock();
        if let Some(queued) = queued.get_mut(id).filter(|queued| queued.is_same(rehash)) {
            queued.refused_until = Some(until);
        }
    }
}

impl Inner {
    /// Queues a key that is valid but not stored under the current scheme.
    pub(super) fn queue_rehash(&self, facts: &Facts, stored: &StoredKey) {
        // A token has the digest of the current scheme.
        let Some(&to) = facts.digests().first() else {
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
        let mut queued = self.rehashes.queued.lock();
        let has_capacity = queued.len() < MOST_QUEUED;
        match queued.get_mut(id) {
            Some(known) if known.is_same(&rehash) => {}
            Some(known) => *known = rehash,
            None if has_capacity => {
                queued.insert(id.clone(), rehash);
            }
            None => {}
        }
    }

    /// Writes the queued keys one after the other, unless a write failed within the last minute.
    /// Returns the number of keys written, and the error that ended the run, if any. Dropping the
    /// future loses nothing: a write of unknown result is repeated, which is harmless.
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

    /// Writes one key, unless there is nothing left to write.
    ///
    /// # Errors
    /// Returns an error if the store did not answer.
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
                // Another node was faster, or the key was deleted.
                Some(Rejected::Missing(_)) => self.rehashes.done(id, rehash),
                // The store rejects the change, for example because the digest was used before.
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
