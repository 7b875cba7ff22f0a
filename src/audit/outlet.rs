//! A sink's own backlog, ordered and bounded, so that no sink waits for another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::lock::Mutex;

use super::{AuditError, AuditEvent, AuditSink};

/// The maximum number of events per call of a sink.
const BATCH: usize = 512;

/// Bounds of the events that may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    /// Management operations have their own bounds, even if those of requests are small.
    pub(super) fn of_acts(self) -> Self {
        Self {
            events: self.events.max(1024),
            bytes: self.bytes.max(1 << 20),
        }
    }

    pub(super) fn allow(self, events: usize, bytes: usize) -> bool {
        events <= self.events && bytes <= self.bytes
    }
}

/// An event that at least one sink has not written yet.
pub(super) struct Kept {
    event: AuditEvent,
    bytes: usize,
    /// Whether this is a management operation. Requests are dropped before those.
    act: bool,
    /// Whether some sink will never get the event. It counts as one dropped event, regardless of
    /// the number of sinks.
    given_up: AtomicBool,
}

impl Kept {
    pub(super) fn request(event: AuditEvent) -> Self {
        Self {
            bytes: event.bytes(),
            event,
            act: false,
            given_up: AtomicBool::new(false),
        }
    }

    pub(super) fn act(event: AuditEvent) -> Self {
        Self {
            act: true,
            ..Self::request(event)
        }
    }

    /// Marks the event as lost to some sink; returns whether this is the first one.
    pub(super) fn mark_lost(&self) -> bool {
        !self.given_up.swap(true, Ordering::Relaxed)
    }
}

/// A sink and its backlog.
pub(super) struct Outlet {
    sink: Arc<dyn AuditSink>,
    /// Held while writing, so that events stay in order.
    turn: futures_util::lock::Mutex<()>,
    backlog: Mutex<Backlog>,
    written: AtomicU64,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Arc<Kept>>,
    requests: Load,
    acts: Load,
    /// How many of the first events are currently being written.
    in_flight: usize,
    /// How many events were dropped because this sink did not accept any.
    given_up: u64,
    /// How many missing events have been reported to this sink.
    reported: u64,
    /// The report being written, and the total that it covers; repeated unchanged until the sink
    /// has accepted it.
    report: Option<(u64, AuditEvent)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    events: usize,
    bytes: usize,
}

impl Load {
    fn fits(self, bounds: Bounds) -> bool {
        bounds.allow(self.events, self.bytes)
    }
}

impl Backlog {
    fn load(&mut self, kept: &Kept) -> &mut Load {
        match kept.act {
            true => &mut self.acts,
            false => &mut self.requests,
        }
    }

    fn add(&mut self, kept: &Arc<Kept>) {
        let load = self.load(kept);
        load.events += 1;
        load.bytes += kept.bytes;
        self.waiting.push_back(Arc::clone(kept));
    }

    fn remove(&mut self, kept: &Kept) {
        let load = self.load(kept);
        load.events -= 1;
        load.bytes -= kept.bytes;
    }

    /// Drops the oldest requests and the oldest operations beyond their bounds, but never events
    /// that are being written.
    fn bound(&mut self, bounds: Bounds) -> Vec<Arc<Kept>> {
        let mut given_up = Vec::new();
        if self.requests.fits(bounds) && self.acts.fits(bounds.of_acts()) {
            return given_up;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (place, kept) in waiting.into_iter().enumerate() {
            let own_bounds = if kept.act { bounds.of_acts() } else { bounds };
            let is_dropped = place >= self.in_flight && !self.load(&kept).fits(own_bounds);
            if is_dropped {
                self.remove(&kept);
                self.given_up += 1;
                given_up.push(kept);
            } else {
                self.waiting.push_back(kept);
            }
        }
        given_up
    }
}

/// Resets the number of events being written, however the call ends.
struct InFlight<'a>(&'a Mutex<Backlog>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight = 0;
    }
}

impl Outlet {
    pub(super) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self {
            sink,
            turn: futures_util::lock::Mutex::new(()),
            backlog: Mutex::default(),
            written: AtomicU64::new(0),
        }
    }

    pub(super) fn sink(&self) -> &dyn AuditSink {
        &*self.sink
    }

    /// Returns how many events are waiting.
    pub(super) fn waiting(&self) -> usize {
        self.backlog.lock().waiting.len()
    }

    /// Returns how many events have been written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until no other task writes to the sink.
    pub(super) async fn turn(&self) -> futures_util::lock::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Adds events to the backlog; returns those that were dropped in exchange.
    pub(super) fn add(&self, events: &[Arc<Kept>], bounds: Bounds) -> Vec<Arc<Kept>> {
        let mut backlog = self.backlog.lock();
        events.iter().for_each(|kept| backlog.add(kept));
        backlog.bound(bounds)
    }

    /// Writes the waiting events in batches. The caller must hold the turn.
    pub(super) async fn write(&self) -> Result<(), AuditError> {
        let mut left = self.waiting();
        while left > 0 {
            let batch: Vec<AuditEvent> = {
                let mut backlog = self.backlog.lock();
                let batch = backlog.waiting.iter().take(BATCH.min(left));
                let batch: Vec<_> = batch.map(|kept| kept.event.clone()).collect();
                backlog.in_flight = batch.len();
                batch
            };
            if batch.is_empty() {
                return Ok(());
            }
            let in_flight = InFlight(&self.backlog);
            self.sink.record(&batch).await?;
            drop(in_flight);
            let mut backlog = self.backlog.lock();
            let taken: Vec<_> = backlog.waiting.drain(..batch.len()).collect();
            taken.iter().for_each(|kept| backlog.remove(kept));
            self.written
                .fetch_add(taken.len() as u64, Ordering::Relaxed);
            left = left.saturating_sub(taken.len());
        }
        Ok(())
    }

    /// Reports how many events are missing in this sink, of which `everywhere` are missing in all
    /// sinks, unless that was already reported. The caller must hold the turn.
    pub(super) async fn report_missing(
        &self,
        everywhere: u64,
        event_of: impl FnOnce(u64, u64) -> AuditEvent,
    ) -> Result<(), AuditError> {
        let (missing, event) = {
            let mut backlog = self.backlog.lock();
            let (missing, reported) = (everywhere + backlog.given_up, backlog.reported);
            if backlog.report.is_none() && missing > reported {
                backlog.report = Some((missing, event_of(missing, missing - reported)));
            }
            match &backlog.report {
                Some(report) => report.clone(),
                None => return Ok(()),
            }
        };
        self.sink.record(&[event]).await?;
        let mut backlog = self.backlog.lock();
        (backlog.reported, backlog.report) = (missing, None);
        Ok(())
    }
}
