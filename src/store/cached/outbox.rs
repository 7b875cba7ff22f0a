//! What other nodes have yet to be told.
//!
//! A change that the bus could not be told of waits here, bounded by number and size: where more
//! waits, it is that everything has changed, which loses nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Shared;
use crate::store::{BusError, Invalidation, InvalidationBus};

/// No more than this waits to be told; beyond, it is that everything has changed.
const MOST_UNTOLD: usize = 1000;
/// The same in bytes.
const MOST_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    told: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// Each with a number of its own.
    all: VecDeque<(u64, Invalidation)>,
    bytes: usize,
}

fn bytes_of(what: &Invalidation) -> usize {
    let ids: usize = what.keys.iter().map(|id| id.as_str().len() + 32).sum();
    size_of::<Invalidation>() + ids + what.known.len() * 8
}

impl Outbox {
    /// How many changes the bus could not be told yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().all.len()
    }

    /// How many changes the bus was told so far.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Keeps in mind what the bus is to be told.
    pub(super) fn is_to_be_told(&self, what: Invalidation) {
        let bus = self.bus.as_ref();
        if bus.is_none_or(InvalidationBus::store_publishes) || what.is_empty() {
            return;
        }
        let mut waiting = self.outbox.waiting.lock();
        waiting.bytes += bytes_of(&what);
        waiting.all.push_back((self.number(), what));
        if waiting.all.len() > MOST_UNTOLD || waiting.bytes > MOST_BYTES {
            let everything = Invalidation::everything();
            waiting.bytes = bytes_of(&everything);
            waiting.all = VecDeque::from([(self.number(), everything)]);
        }
    }

    /// Tells the bus of all that it has not been told yet.
    pub(super) async fn publish(&self) -> Result<(), BusError> {
        self.settle_doubts();
        let Some(bus) = &self.bus else { return Ok(()) };
        loop {
            let Some((number, next)) = self.outbox.waiting.lock().all.front().cloned() else {
                return Ok(());
            };
            bus.publish(&next).await?;
            self.outbox.told.fetch_add(1, Ordering::Relaxed);
            // Somebody else may have told the same meanwhile; telling twice harms nobody.
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
}
