//! Single flight: concurrent lookups of the same digests share one query.
//!
//! A waiter gets the answer itself, not through the cache, so joining must be as strict as a cache
//! hit. A lookup that is in flight may be joined only if nothing has been invalidated since it
//! began (equal epochs) and it is younger than the age limit. A change that was acknowledged before
//! the waiter's call would have raised the epoch, so the shared answer contains it. Otherwise a new
//! lookup begins and replaces the other one in the map; the older one still serves the waiters that
//! joined it earlier.
//!
//! The map does not keep a lookup alive: one without waiters is dropped, together with any
//! resources of the store that it holds.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use crate::lock::Mutex;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

use super::answers::Mark;
use crate::key::KeyDigest;
use crate::store::{StoreError, StoredKey};

type Answer = Result<Option<Arc<StoredKey>>, Arc<StoreError>>;
type LookupFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;
type SharedLookup = Shared<LookupFuture>;
type InFlightMap = Mutex<HashMap<Box<[KeyDigest]>, Entry>>;

#[derive(Default)]
pub(super) struct SingleFlight {
    in_flight: Arc<InFlightMap>,
}

struct Entry {
    mark: Mark,
    flight: WeakShared<LookupFuture>,
}

/// Removes a lookup from the map when it has finished, panicked or been dropped.
struct InFlight {
    map: Arc<InFlightMap>,
    digests: Box<[KeyDigest]>,
    mark: Mark,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut map = self.map.lock();
        // Only its own entry: a newer lookup may have replaced it.
        if map
            .get(&self.digests)
            .is_some_and(|entry| entry.mark.number == self.mark.number)
        {
            map.remove(&self.digests);
        }
    }
}

impl SingleFlight {
    /// Joins the lookup of these digests if `may_join` accepts its mark, or else begins one. Checks
    /// the cache again first, under the lock: a lookup that has just finished stores its answer
    /// before it leaves the map.
    pub(super) fn join<F>(
        &self,
        digests: &[KeyDigest],
        mark: Mark,
        may_join: impl FnOnce(Mark) -> bool,
        cached: impl FnOnce() -> Option<Option<Arc<StoredKey>>>,
        begin: impl FnOnce() -> F,
    ) -> Joined
    where
        F: Future<Output = Result<Option<Arc<StoredKey>>, StoreError>> + Send + 'static,
    {
        let known;
        let joined = {
            let mut map = self.in_flight.lock();
            if let Some(cached) = cached() {
                return Joined::Cached(cached);
            }
            // Dropped after the lock is released: if this is the last reference, dropping it takes
            // the lock.
            known = map
                .get(digests)
                .and_then(|entry| Some((entry.mark, entry.flight.upgrade()?)));
            match &known {
                Some((began, flight)) if may_join(*began) => flight.clone(),
                _ => {
                    let guard = InFlight {
                        map: Arc::clone(&self.in_flight),
                        digests: digests.into(),
                        mark,
                    };
                    let lookup = AssertUnwindSafe(begin()).catch_unwind();
                    let future: LookupFuture = Box::pin(async move {
                        let _guard = guard;
                        match lookup.await {
                            Ok(answer) => answer.map_err(Arc::new),
                            Err(_) => Err(Arc::new(StoreError::unavailable(
                                "the store panicked during a lookup",
                            ))),
                        }
                    });
                    let flight = future.shared();
                    if let Some(weak) = flight.downgrade() {
                        map.insert(digests.into(), Entry { mark, flight: weak });
                    }
                    flight
                }
            }
        };
        drop(known);
        Joined::Waiting(joined)
    }
}

/// The result of joining.
pub(super) enum Joined {
    Cached(Option<Arc<StoredKey>>),
    Waiting(SharedLookup),
}
