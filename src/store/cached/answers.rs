//! What is remembered of earlier look-ups, and whether it still is what the store would answer.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;

use super::Shared;
use crate::key::{KeyDigest, KeyId};
use crate::store::{Invalidation, StoredKey};

/// A key, and when and at which mark it was looked up.
#[derive(Clone)]
pub(super) struct Known {
    stored: Arc<StoredKey>,
    mark: Mark,
    /// All digests that were asked for together, in their order.
    asked: Arc<[KeyDigest]>,
}

/// A digest under which nothing was found, and when.
#[derive(Clone)]
pub(super) struct Unknown {
    mark: Mark,
    /// All that was asked for together, in its order, where it was more than one: perhaps nothing
    /// was found because one of them was a key's that is deleted.
    asked: Option<Arc<[KeyDigest]>>,
}

/// Bounds keys by number and by size: none counts for less than its share of the bytes.
#[derive(Clone)]
pub(super) struct BySize {
    pub(super) least: u64,
}

impl Weighter<KeyDigest, Known> for BySize {
    fn weight(&self, _: &KeyDigest, known: &Known) -> u64 {
        let stored = known.stored.record().bytes() + size_of_val(known.stored.others());
        let bytes = size_of::<Known>() + size_of::<StoredKey>() + stored;
        (bytes as u64 + size_of_val(&*known.asked) as u64).max(self.least)
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

/// When a look-up began, and how much had been invalidated by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) number: u64,
    pub(super) epoch: u64,
    pub(super) began: Duration,
}

impl Shared {
    /// Whether what was learned then still counts.
    pub(super) fn counts(&self, mark: Mark, now: Duration) -> bool {
        let most = if self.is_healthy(now) {
            self.time_to_live
        } else {
            self.staleness.min(self.time_to_live)
        };
        now.saturating_sub(mark.began) < most
    }

    /// Whether a key that is remembered under the digest at a place of these still is the answer.
    fn holds(&self, known: &Known, digests: &[KeyDigest], place: usize, now: Duration) -> bool {
        let Known {
            stored,
            mark,
            asked,
        } = known;
        let unchanged = |id: &KeyId| self.epochs.holds_key(id, mark.epoch);
        // Its own digest has been known all the time.
        let mut others = digests[..place].iter().chain(&digests[place + 1..]);
        self.counts(*mark, now)
            && **asked == *digests
            && unchanged(&stored.record().id)
            && stored.others().iter().all(unchanged)
            && others.all(|other| self.still(other, *mark))
    }

    /// Whether a digest is still what it was: nobody's, or the same key's.
    fn still(&self, digest: &KeyDigest, mark: Mark) -> bool {
        let fingerprint = Invalidation::fingerprint(digest);
        self.epochs.holds_digest(fingerprint, mark.epoch)
    }

    /// What is remembered of these digests: the key of their secret, or that all of them are
    /// unknown.
    pub(super) fn remembered(&self, digests: &[KeyDigest]) -> Option<Option<Arc<StoredKey>>> {
        let now = self.clock.monotonic();
        let mut all_unknown = !digests.is_empty();
        for (place, digest) in digests.iter().enumerate() {
            if let Some(known) = self.known.get(digest)
                && self.holds(&known, digests, place, now)
            {
                return Some(Some(known.stored));
            }
            let holds = |Unknown { mark, asked }: Unknown| {
                self.counts(mark, now)
                    && self.still(digest, mark)
                    && asked.is_none_or(|asked| are_in_order(&asked, digests))
            };
            all_unknown = all_unknown && self.unknown.get(digest).is_some_and(holds);
        }
        all_unknown.then_some(None)
    }

    pub(super) fn remember(
        &self,
        asked: &Arc<[KeyDigest]>,
        mark: Mark,
        answer: Option<&Arc<StoredKey>>,
    ) {
        if !self.is_certain(asked, answer) {
            return;
        }
        match answer {
            Some(stored) => {
                // One that took longer does not take the place of what was learned since.
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
                    asked: Arc::clone(asked),
                };
                self.known.insert(*stored.digest(), known);
            }
            None => {
                let several = (asked.len() > 1).then(|| Arc::clone(asked));
                for digest in asked.iter() {
                    // No key's any more, unless that was learned since.
                    let older = |known: &Known| known.mark.number < mark.number;
                    self.known.remove_if(digest, older);
                    let asked = several.clone();
                    self.unknown.insert(*digest, Unknown { mark, asked });
                }
            }
        }
    }

    pub(super) fn mark(&self) -> Mark {
        // The epoch first: what is invalidated in between makes the mark older, never newer.
        let epoch = self.epochs.now();
        Mark {
            number: self.number(),
            epoch,
            began: self.clock.monotonic(),
        }
    }
}

/// Whether some digests are among all of these, in the same order.
fn are_in_order(some: &[KeyDigest], all: &[KeyDigest]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}
