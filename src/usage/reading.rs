//! Counts of uses as the store has them, and those that are not written yet.

use super::UsageRecorder;
use crate::key::KeyId;
use crate::store::UsageDelta;

impl UsageRecorder {
    /// Like [`reading`](Self::reading), but collects first, so that little is left to be taken at once.
    pub(crate) async fn begin_reading(&self) -> Reading<'_> {
        self.collect().await;
        self.reading()
    }

    /// Begins to read the store's counts of some keys, to which the unwritten counts are added.
    pub(super) fn reading(&self) -> Reading<'_> {
        Reading {
            usage: self,
            flushes: self.shared.unwritten.lock().flushes,
            attempts: 0,
        }
    }
}

/// A read of the store's counts together with the unwritten ones.
pub(crate) struct Reading<'a> {
    usage: &'a UsageRecorder,
    /// How many flushes had ended before the store was queried.
    flushes: u64,
    attempts: u32,
}

impl Reading<'_> {
    /// How often the store is queried at most. It is queried again if a flush has ended in the
    /// meantime, because that flush's counts might be seen twice or not at all.
    pub(super) const ATTEMPTS: u32 = 4;

    /// Returns the uses of these keys that the store had not received when it was queried, or
    /// `None` if it must be queried again. While the store is accepting a batch, its uses may be
    /// seen twice.
    pub(crate) fn unwritten<'k>(
        &mut self,
        ids: impl IntoIterator<Item = &'k KeyId>,
    ) -> Option<Vec<Option<UsageDelta>>> {
        let unwritten = self.usage.unwritten();
        self.attempts += 1;
        if unwritten.flushes != self.flushes && self.attempts < Self::ATTEMPTS {
            self.flushes = unwritten.flushes;
            return None;
        }
        Some(ids.into_iter().map(|id| unwritten.of(id)).collect())
    }
}
