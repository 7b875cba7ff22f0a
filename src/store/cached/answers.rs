//! Cached answers, and the checks that decide whether one may still be used.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;

use super::Shared;
use super::epochs::Place;
use crate::clock::RECENTLY;
use crate::key::{KeyDigest, KeyId};
use crate::store::{Invalidation, StoredKey};

/// A key, with the mark of its lookup.
#[derive(Clone)]
pub(super) struct Known {
    stored: Arc<StoredKey>,
    mark: Mark,
    /// Where its id is among the epochs, so that a hit neither hashes nor reads the id.
    place: Place,
    queried: Queried,
}

/// A digest without a key, with the mark of its lookup.
#[derive(Clone)]
pub(super) struct Unknown {
    mark: Mark,
    /// The lookup may have found nothing only because one of them belongs to a deleted key.
    queried: Queried,
}

/// All digests of a lookup, in their order, unless the answer is cached under the only one.
type Queried = Option<Arc<[KeyDigest]>>;

/// Bounds the keys by number and by size: each weighs at least its share of the bytes.
#[derive(Clone)]
pub(super) struct BySize {
    pub(super) least: u64,
}

impl Weighter<KeyDigest, Known> for BySize {
    fn weight(&self, _: &KeyDigest, known: &Known) -> u64 {
        let stored = known.stored.record().bytes() + size_of_val(known.stored.others());
        let bytes = size_of::<Known>() + size_of::<StoredKey>() + stored;
        let queried = known.queried.as_deref().map_or(0, size_of_val);
        ((bytes + queried) as u64).max(self.least)
    }
}

impl Known {
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }
}

impl Unknown {
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }
}

/// When a lookup began, and the epoch at that time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) number: u64,
    pub(super) epoch: u64,
    pub(super) began: Duration,
}

impl Shared {
    /// Returns whether an answer with this mark is young enough to be used.
    pub(super) fn is_fresh(&self, mark: Mark, now: Duration) -> bool {
        let most = if self.is_healthy(now) {
            self.time_to_live
        } else {
            self.staleness.min(self.time_to_live)
        };
        now.saturating_sub(mark.began) < most
    }

    /// Like [`is_fresh`](Self::is_fresh), at the present time, if `recent` was the time at most
    /// [`RECENTLY`] ago. What is fresh at a later time is fresh now, so the exact time is read only
    /// near the age limit.
    fn is_still_fresh(&self, mark: Mark, recent: Duration) -> bool {
        self.is_fresh(mark, recent.saturating_add(RECENTLY))
            || self.is_fresh(mark, self.clock.monotonic())
    }

    /// Returns whether the key cached under `digests[place]` is still the answer for all of
    /// `digests`.
    fn is_current(
        &self,
        known: &Known,
        digests: &[KeyDigest],
        place: usize,
        recent: Duration,
    ) -> bool {
        let Known {
            stored,
            mark,
            place: of_key,
            queried,
        } = known;
        // The key's own digest needs no check: every write that takes it from the key also
        // invalidates the key's id.
        let others_unchanged = |queried: &[KeyDigest]| {
            let mut others = queried.iter().enumerate().filter(|(at, _)| *at != place);
            others.all(|(_, other)| self.digest_unchanged(other, *mark))
        };
        let same_lookup = match queried {
            None => digests.len() == 1,
            Some(queried) => **queried == *digests && others_unchanged(queried),
        };
        let unchanged = |id: &KeyId| self.epochs.key_unchanged_since(id, mark.epoch);
        same_lookup
            && self.is_still_fresh(*mark, recent)
            && self.epochs.unchanged_since(*of_key, mark.epoch)
            && stored.others().iter().all(unchanged)
    }

    /// Returns whether a digest has neither gained nor lost a key since the mark.
    fn digest_unchanged(&self, digest: &KeyDigest, mark: Mark) -> bool {
        let fingerprint = Invalidation::fingerprint(digest);
        self.epochs.digest_unchanged_since(fingerprint, mark.epoch)
    }

    /// Returns the cached answer for these digests: the key of their secret, or `Some(None)` if the
    /// lookup is known to find none.
    ///
    /// A key is used only for exactly the digests of its lookup: a further digest might belong to a
    /// deleted key, which ends the secret. Misses are cached per digest and can be combined: each
    /// is valid only while its digest has gained no key, and a digest whose key was deleted never
    /// gets another one. A miss of a lookup with several digests may depend on such a deleted key.
    /// It is therefore used only if this lookup has all of those digests in the same order, and none of
    /// them has changed: a miss of one of them alone may be newer.
    pub(super) fn cached_answer(&self, digests: &[KeyDigest]) -> Option<Option<Arc<StoredKey>>> {
        let recent = self.clock.monotonic_recently();
        let mut all_unknown = !digests.is_empty();
        for (place, digest) in digests.iter().enumerate() {
            if let Some(known) = self.known.get(digest)
                && self.is_current(&known, digests, place, recent)
            {
                return Some(Some(known.stored));
            }
            let is_valid = |Unknown { mark, queried }: Unknown| {
                let unchanged = |digest: &KeyDigest| self.digest_unchanged(digest, mark);
                self.is_still_fresh(mark, recent)
                    && unchanged(digest)
                    && queried.is_none_or(|queried| {
                        is_subsequence(&queried, digests) && queried.iter().all(unchanged)
                    })
            };
            all_unknown = all_unknown && self.unknown.get(digest).is_some_and(is_valid);
        }
        all_unknown.then_some(None)
    }

    /// Stores the answer of a lookup under the mark of that lookup, unless a write in doubt may
    /// affect it. Epochs are not checked here: an answer that an invalidation overtook has an old
    /// mark and is never used, whenever it is stored.
    pub(super) fn store_answer(
        &self,
        queried: &Arc<[KeyDigest]>,
        mark: Mark,
        answer: Option<&Arc<StoredKey>>,
    ) {
        if !self.may_be_cached(queried, answer) {
            return;
        }
        let beside = |digest| (**queried != [digest]).then(|| Arc::clone(queried));
        match answer {
            Some(stored) => {
                // A slower lookup does not replace a newer answer. Two threads may still interleave
                // here; the older answer then only costs a miss, as its mark is checked on every
                // use.
                if self
                    .known
                    .get(stored.digest())
                    .is_some_and(|known| known.mark.number > mark.number)
                {
                    return;
                }
                let known = Known {
                    stored: Arc::clone(stored),
                    mark,
                    place: self.epochs.place_of_key(&stored.record().id),
                    queried: beside(*stored.digest()),
                };
                self.known.insert(*stored.digest(), known);
            }
            None => {
                for digest in queried.iter() {
                    // The digest no longer has a key, unless a newer lookup found one.
                    let older = |known: &Known| known.mark.number < mark.number;
                    self.known.remove_if(digest, older);
                    let queried = beside(*digest);
                    self.unknown.insert(*digest, Unknown { mark, queried });
                }
            }
        }
    }

    pub(super) fn mark(&self) -> Mark {
        // The epoch comes before the lookup and before the time: an invalidation in between makes
        // the mark too old, never too new.
        let epoch = self.epochs.now();
        Mark {
            number: self.number(),
            epoch,
            began: self.clock.monotonic(),
        }
    }
}

/// Returns whether `some` is a subsequence of `all`.
fn is_subsequence(some: &[KeyDigest], all: &[KeyDigest]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}
