//! Changes that are waiting to be published.
//!
//! A change that could not be published waits here. The queue is bounded by number and size; if it
//! overflows, it is replaced by one invalidation of everything, which loses nothing.
//!
//! The queue ends with the process. A store may therefore also record each change in the transaction
//! of its write. Every node publishes what any node recorded, and then deletes it. Most changes are
//! published twice, which is harmless.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::Mutex;

use super::Shared;
use crate::store::{BusError, Invalidation, InvalidationBus, KeyStore, StoreError};

/// The maximum number of waiting changes; beyond it, they are replaced by an invalidation of
/// everything.
const MAX_CHANGES: usize = 1000;
/// The same limit in bytes.
const MAX_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    published: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// The changes, each with its own sequence number.
    all: VecDeque<(u64, Invalidation)>,
    bytes: usize,
}

fn bytes_of(what: &Invalidation) -> usize {
    let ids: usize = what.keys.iter().map(|id| id.as_str().len() + 32).sum();
    size_of::<Invalidation>() + ids + what.known.len() * 8
}

impl Outbox {
    /// Returns how many changes are waiting to be published.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().all.len()
    }

    /// Returns how many changes have been published so far.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Queues a change for publishing, unless the store publishes its changes itself.
    pub(super) fn queue_for_publishing(&self, what: Invalidation) {
        let bus = self.bus.as_ref();
        if bus.is_none_or(InvalidationBus::store_publishes) || what.is_empty() {
            return;
        }
        let mut waiting = self.outbox.waiting.lock();
        waiting.bytes += bytes_of(&what);
        waiting.all.push_back((self.number(), what));
        if waiting.all.len() > MAX_CHANGES || waiting.bytes > MAX_BYTES {
            let everything = Invalidation::everything();
            waiting.bytes = bytes_of(&everything);
            waiting.all = VecDeque::from([(self.number(), everything)]);
        }
    }

    /// Publishes all waiting changes.
    pub(super) async fn publish(&self) -> Result<(), BusError> {
        self.repeat_invalidations();
        let Some(bus) = &self.bus else { return Ok(()) };
        loop {
            let Some((number, next)) = self.outbox.waiting.lock().all.front().cloned() else {
                return Ok(());
            };
            bus.publish(&next).await?;
            self.outbox.published.fetch_add(1, Ordering::Relaxed);
            // A change leaves the queue only after it has been published. Another task may have
            // published the same one meanwhile; publishing it twice is harmless.
            let mut waiting = self.outbox.waiting.lock();
            if waiting
                .all
                .front()
                .is_some_and(|(first, _)| *first == number)
            {
                waiting.all.pop_front();
                waiting.bytes = waiting.bytes.saturating_sub(bytes_of(&next));
            }
        }
    }

    /// Publishes the changes that the store has recorded, and deletes them there.
    pub(super) async fn publish_recorded(&self) -> Result<(), StoreError> {
        let Some(bus) = self.bus.as_ref().filter(|_| self.store_records) else {
            return Ok(());
        };
        loop {
            let (mut numbers, mut all) = (Vec::new(), Invalidation::default());
            for (number, mut what) in self.store.recorded_changes().await? {
                numbers.push(number);
                all.keys.append(&mut what.keys);
                all.known.append(&mut what.known);
                all.tenants.append(&mut what.tenants);
                all.everything |= what.everything;
            }
            if numbers.is_empty() {
                return Ok(());
            }
            let published = bus.publish(&all).await;
            published.map_err(StoreError::unavailable)?;
            self.store.forget_changes(&numbers).await?;
        }
    }
}
