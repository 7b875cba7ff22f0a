//! The most recent events in memory, for demos, tests and inspection.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::lock::Mutex;
use async_trait::async_trait;

use super::{AuditError, AuditEvent, AuditReader, AuditSink, EventId, EventPage, EventQuery};

/// Keeps the most recent events. Clones share them.
#[derive(Clone)]
pub struct MemoryAudit {
    kept: Arc<Mutex<Kept>>,
    capacity: usize,
}

#[derive(Default)]
struct Kept {
    /// The events with their positions: how many were kept before them.
    events: VecDeque<(u64, AuditEvent)>,
    ids: HashSet<EventId>,
    next_place: u64,
}

impl MemoryAudit {
    /// Creates a log that keeps this many events, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            kept: Arc::default(),
            capacity: capacity.max(1),
        }
    }

    /// Returns all kept events, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<AuditEvent> {
        let kept = self.kept.lock();
        kept.events.iter().map(|(_, event)| event.clone()).collect()
    }
}

#[async_trait]
impl AuditSink for MemoryAudit {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        let mut kept = self.kept.lock();
        for event in events {
            if !kept.ids.insert(event.id) {
                continue;
            }
            if kept.events.len() == self.capacity
                && let Some((_, oldest)) = kept.events.pop_front()
            {
                kept.ids.remove(&oldest.id);
            }
            let place = kept.next_place;
            kept.next_place += 1;
            kept.events.push_back((place, event.clone()));
        }
        Ok(())
    }

    async fn forget_before(&self, at: SystemTime) -> Result<u64, AuditError> {
        let mut kept = self.kept.lock();
        let Kept { events, ids, .. } = &mut *kept;
        let before = events.len();
        events.retain(|(_, event)| event.at >= at || !ids.remove(&event.id));
        Ok((before - events.len()) as u64)
    }
}

#[async_trait]
impl AuditReader for MemoryAudit {
    async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError> {
        let kept = self.kept.lock();
        let limit = query.limit.clamp(1, 500);
        let before = query.before.unwrap_or(u64::MAX);
        let end = kept.events.partition_point(|(place, _)| *place < before);
        let within = kept.events.iter().take(end);
        // The position of the last event returned or examined: the list continues with events that
        // were kept before it.
        let (mut items, mut last) = (Vec::new(), None);
        for (scanned, (place, event)) in within.rev().enumerate() {
            let selected = query.selects(event);
            if scanned == EventQuery::MOST_SCANNED || (selected && items.len() == limit) {
                return Ok(EventPage::new(items, last));
            }
            if selected {
                items.push(event.clone());
            }
            if selected || scanned + 1 == EventQuery::MOST_SCANNED {
                last = Some(*place);
            }
        }
        Ok(EventPage::new(items, None))
    }
}

impl fmt::Debug for MemoryAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemoryAudit({} of {})",
            self.kept.lock().events.len(),
            self.capacity
        )
    }
}
