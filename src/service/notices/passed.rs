//! Events that were passed to the audit trail and that its sinks may not have yet.

use crate::audit::{AuditError, AuditEvent, AuditTrail};
use crate::lock::Mutex;

/// What events that are with the trail are about, and how many the trail had dropped before.
#[derive(Debug)]
pub(in crate::service) struct Passed<T>(Mutex<Option<(u64, Vec<T>)>>);

impl<T> Default for Passed<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Passed<T> {
    /// Passes events to the trail. Those passed before must have been confirmed.
    pub(super) fn pass(&self, trail: &AuditTrail, events: impl Iterator<Item = (T, AuditEvent)>) {
        let (about, events): (Vec<_>, Vec<_>) = events.unzip();
        if about.is_empty() {
            return;
        }
        *self.0.lock() = Some((trail.dropped(), about));
        events.into_iter().for_each(|event| trail.note_act(event));
    }

    /// Waits until the sinks have the events, and returns what they are about. Until then, they are
    /// not passed a second time: the trail passes them to a sink that failed again.
    ///
    /// # Errors
    /// Returns the error of a sink, or that the trail has dropped events: these may be among them.
    pub(super) async fn confirmed(&self, trail: &AuditTrail) -> Result<Vec<T>, AuditError> {
        if self.0.lock().is_none() {
            return Ok(Vec::new());
        }
        trail.flush().await?;
        match self.0.lock().take() {
            Some((dropped, _)) if dropped != trail.dropped() => {
                Err(AuditError::unavailable("events were dropped"))
            }
            Some((_, about)) => Ok(about),
            None => Ok(Vec::new()),
        }
    }
}
