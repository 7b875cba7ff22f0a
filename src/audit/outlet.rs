//! What one sink has yet to take: its own backlog, in order and bounded, so that no sink waits for
//! another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{AuditError, AuditEvent, AuditSink};

/// No sink is given more events than this at once.
const BATCH: usize = 512;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    /// Acts of management have room of their own, also where requests have little.
    pub(super) fn of_acts(self) -> Self {
        Self {
            events: self.events.max(1024),
            bytes: self.bytes.max(1 << 20),
        }
    }

    pub(super) fn have_room(self, events: usize, bytes: usize) -> bool {
        events <= self.events && bytes <= self.bytes
    }
}

/// An event that some sink has not taken yet.
pub(super) struct Kept {
    event: AuditEvent,
    bytes: usize,
    /// Whether it is an act of management, which is given up after all requests.
    act: bool,
    /// Whether some sink will never get it: it counts as one that was dropped, however many they
    /// are.
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

    /// Notes that some sink will never get it; whether it is the first one.
    pub(super) fn is_given_up(&self) -> bool {
        !self.given_up.swap(true, Ordering::Relaxed)
    }
}

/// A sink, and what it has not taken yet.
pub(super) struct Outlet {
    sink: Arc<dyn AuditSink>,
    /// Held while writing, so that events stay in their order.
    turn: async_lock::Mutex<()>,
    backlog: Mutex<Backlog>,
    written: AtomicU64,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Arc<Kept>>,
    requests: Load,
    acts: Load,
    /// How many of the first ones the sink is being given.
    in_flight: usize,
    /// How many events were given up because this sink took none.
    given_up: u64,
    /// How many missing events it was told of.
    told: u64,
    /// What it is being told of, and up to how many: the same again until it has taken it.
    telling: Option<(u64, AuditEvent)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    events: usize,
    bytes: usize,
}

impl Load {
    fn fits(self, bounds: Bounds) -> bool {
        bounds.have_room(self.events, self.bytes)
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

    fn leaves(&mut self, kept: &Kept) {
        let load = self.load(kept);
        load.events -= 1;
        load.bytes -= kept.bytes;
    }

    /// Gives up the oldest requests beyond the bounds, and the oldest acts beyond theirs; never what
    /// the sink is being given.
    fn bound(&mut self, bounds: Bounds) -> Vec<Arc<Kept>> {
        let mut given_up = Vec::new();
        if self.requests.fits(bounds) && self.acts.fits(bounds.of_acts()) {
            return given_up;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (place, kept) in waiting.into_iter().enumerate() {
            let of_its_kind = if kept.act { bounds.of_acts() } else { bounds };
            let goes = place >= self.in_flight && !self.load(&kept).fits(of_its_kind);
            if goes {
                self.leaves(&kept);
                self.given_up += 1;
                given_up.push(kept);
            } else {
                self.waiting.push_back(kept);
            }
        }
        given_up
    }
}

/// What a sink is being given is no longer in flight, however that ends.
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
            turn: async_lock::Mutex::new(()),
            backlog: Mutex::default(),
            written: AtomicU64::new(0),
        }
    }

    pub(super) fn sink(&self) -> &dyn AuditSink {
        &*self.sink
    }

    /// How many events it has not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.backlog.lock().waiting.len()
    }

    /// How many events it has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until nobody else writes to it.
    pub(super) async fn turn(&self) -> async_lock::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Adds events to the backlog; returns those that are given up for it.
    pub(super) fn add(&self, events: &[Arc<Kept>], bounds: Bounds) -> Vec<Arc<Kept>> {
        let mut backlog = self.backlog.lock();
        events.iter().for_each(|kept| backlog.add(kept));
        backlog.bound(bounds)
    }

    /// Writes what waits now, in batches. The caller holds the turn.
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
            taken.iter().for_each(|kept| backlog.leaves(kept));
            self.written
                .fetch_add(taken.len() as u64, Ordering::Relaxed);
            left = left.saturating_sub(taken.len());
        }
        Ok(())
    }

    /// Tells how many events are missing here, so many of which no sink got, where that was not told
    /// yet. The caller holds the turn.
    pub(super) async fn tell_missing(
        &self,
        everywhere: u64,
        event_of: impl FnOnce(u64, u64) -> AuditEvent,
    ) -> Result<(), AuditError> {
        let (missing, event) = {
            let mut backlog = self.backlog.lock();
            let (missing, told) = (everywhere + backlog.given_up, backlog.told);
            if backlog.telling.is_none() && missing > told {
                backlog.telling = Some((missing, event_of(missing, missing - told)));
            }
            match &backlog.telling {
                Some(telling) => telling.clone(),
                None => return Ok(()),
            }
        };
        self.sink.record(&[event]).await?;
        let mut backlog = self.backlog.lock();
        (backlog.told, backlog.telling) = (missing, None);
        Ok(())
    }
}
