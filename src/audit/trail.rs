//! From requests to sinks: a bounded queue that nobody waits for, and a flush that writes it out in
//! order.
//!
//! A request notes its event by one push into a lock-free queue. Acts of management are few and
//! always kept. Where the queue is full, or one source fails again and again, events are left out,
//! counted, and the next flush says how many.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use rand::TryRng;

use super::requests::FlushRequests;
use super::witness::Noted;
use super::{Action, AuditError, AuditEvent, AuditOutcome, AuditSink, EventId, RequestId};
use crate::clock::{Clock, SystemClock};
use crate::limit::FailureLimits;
use crate::quota::{Quota, Quotas};
use crate::telemetry;

/// No sink is given more events than this at once.
const BATCH: usize = 512;

/// Takes events without waiting, and brings them to the sinks. Cloning shares the queue.
#[derive(Clone)]
pub struct AuditTrail {
    shared: Arc<Shared>,
}

struct Shared {
    queue: ArrayQueue<Waiting>,
    /// Acts of management for which the queue had no place.
    overflow: Mutex<Vec<AuditEvent>>,
    sinks: Vec<Arc<dyn AuditSink>>,
    /// What each sink has not taken yet. Held while writing, so that events stay in their order.
    unwritten: async_lock::Mutex<Vec<Unwritten>>,
    successes: bool,
    throttle: Option<Throttle>,
    clock: Arc<dyn Clock>,
    ids: Ids,
    requests: Arc<FlushRequests>,
    /// Events for which the queue had no place, and those that some sink took none of for too long.
    dropped: AtomicU64,
    given_up: AtomicU64,
    throttled: AtomicU64,
}

/// What one sink has not taken yet, and what it will never get.
#[derive(Default)]
struct Unwritten {
    waiting: VecDeque<Arc<Kept>>,
    /// How many events were given up because this sink took none.
    given_up: u64,
    /// How many missing events it was told of.
    told: u64,
}

struct Kept {
    event: AuditEvent,
    /// Whether it is an act of management, which is never given up.
    act: bool,
    /// Whether some sink will never get it: it counts as one that was dropped, however many they
    /// are.
    given_up: AtomicBool,
}

/// Failures by source: keys and clients apart, so that a flood of clients hides no key.
struct Throttle {
    keys: FailureLimits,
    clients: FailureLimits,
}

enum Waiting {
    Request(Box<Noted>),
    /// A call of management that came to no act.
    Refusal(Box<AuditEvent>),
    Act(Box<AuditEvent>),
}

/// Ids that no other process makes: 64 random bits, and a count.
struct Ids {
    process: u64,
    count: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        let mut bytes = [0; 8];
        // Uniqueness, not secrecy: where the system has no randomness, keys cannot be issued
        // either, and this must not keep a service from starting.
        let random = rand::rngs::SysRng.try_fill_bytes(&mut bytes).is_ok();
        let clock = || {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_nanos()
        };
        let process = if random {
            u64::from_le_bytes(bytes)
        } else {
            u64::try_from(clock()).unwrap_or_default()
        };
        Self {
            process,
            count: AtomicU64::new(1),
        }
    }

    fn next(&self) -> u128 {
        u128::from(self.process) << 64 | u128::from(self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Describes an [`AuditTrail`].
#[must_use = "a builder does nothing until build()"]
pub struct AuditTrailBuilder {
    sinks: Vec<Arc<dyn AuditSink>>,
    capacity: usize,
    successes: bool,
    failures: Option<Quotas>,
    clock: Arc<dyn Clock>,
}

impl AuditTrail {
    /// A trail to these sinks: each gets every event.
    #[must_use]
    pub fn new<S: AuditSink>(sinks: impl IntoIterator<Item = S>) -> Self {
        sinks
            .into_iter()
            .fold(Self::builder(), AuditTrailBuilder::sink)
            .build()
    }

    /// Describes a trail.
    pub fn builder() -> AuditTrailBuilder {
        AuditTrailBuilder {
            sinks: Vec::new(),
            capacity: 16_384,
            successes: true,
            failures: Quota::per_minute(100)
                .and_then(|quota| Quotas::new([quota]))
                .ok(),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Writes what was noted so far, and waits until it is written: also what another flush has
    /// begun. Call it on an interval, whenever it is [asked for](Self::flush_requested), and before
    /// the process ends. Dropping the future loses no event.
    ///
    /// # Errors
    /// The first sink's that could not keep its events; they are given to it again with the next
    /// flush, up to the trail's capacity. The other sinks have theirs.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let mut unwritten = self.shared.unwritten.lock().await;
        let begun = self.shared.requests.begin();
        self.shared.take(&mut unwritten);
        let mut failed = None;
        for (sink, unwritten) in self.shared.sinks.iter().zip(unwritten.iter_mut()) {
            if let Err(error) = self.shared.write(&**sink, unwritten).await {
                failed.get_or_insert(error);
                self.shared.bound(unwritten);
            }
        }
        self.shared.requests.end(begun);
        failed.map_or(Ok(()), Err)
    }

    /// Asks whoever flushes this trail to do it now, and waits until such a flush has ended, well
    /// or not; at once where nothing waits to be written. It has been asked for when this returns.
    /// Dropping the future ends the waiting and nothing else.
    ///
    /// It waits for as long as a sink takes: set a limit.
    pub fn request_flush(&self) -> impl Future<Output = ()> + Send + use<> {
        let asked =
            (!self.shared.all_is_written()).then(|| Arc::clone(&self.shared.requests).ask());
        async move {
            if let Some(asked) = asked {
                asked.await;
            }
        }
    }

    /// Waits until somebody [asks](Self::request_flush) for a flush: for the task that flushes on an
    /// interval, beside its timer.
    pub async fn flush_requested(&self) {
        self.shared.requests.asked().await;
    }

    /// How many events were lost because the queue was full or a sink took none for too long.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped_by_the_queue() + self.shared.given_up.load(Ordering::Relaxed)
    }

    /// How many events some sink has not taken yet, once a flush that runs has ended: after the last
    /// flush, before the process ends, those that are lost.
    pub async fn pending(&self) -> usize {
        let unwritten = self.shared.unwritten.lock().await;
        let kept = unwritten.iter().map(|sink| sink.waiting.len()).max();
        kept.unwrap_or(0) + self.shared.queue.len() + self.shared.overflow.lock().len()
    }

    /// How many failures were left out because their source had failed too often.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::Relaxed)
    }

    /// An event of now, to be filled in and noted.
    pub(crate) fn event(&self, action: Action, outcome: AuditOutcome) -> AuditEvent {
        AuditEvent::new(
            self.next_id(),
            to_the_millisecond(self.shared.clock.now()),
            action,
            outcome,
        )
    }

    /// Keeps an act of management, whatever else waits.
    pub(crate) fn note_act(&self, event: AuditEvent) {
        if let Err(Waiting::Act(event)) = self.shared.queue.push(Waiting::Act(Box::new(event))) {
            self.shared.overflow.lock().push(*event);
        }
    }

    /// Keeps a call of management that came to no act, unless there is no place for it or its source
    /// failed too often: the operator of this name, else the client.
    pub(crate) fn note_refusal(&self, operator: Option<&str>, event: AuditEvent) {
        if self.keeps_failure(operator, event.client_ip) {
            self.push(Waiting::Refusal(Box::new(event)));
        }
    }

    pub(super) fn note(&self, noted: Box<Noted>) {
        self.push(Waiting::Request(noted));
    }

    fn push(&self, waiting: Waiting) {
        if self.shared.queue.push(waiting).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            telemetry::audit_left_out("queue_full", 1);
        }
    }

    /// Whether a failure of this source is to be kept: of the key or the operator where one is
    /// known, else of the client.
    pub(super) fn keeps_failure(&self, known: Option<&str>, client: Option<IpAddr>) -> bool {
        let Some(throttle) = &self.shared.throttle else {
            return true;
        };
        let over = match known {
            Some(name) => throttle.keys.count_name(name),
            None => throttle.clients.count(client),
        };
        if over.is_some() {
            self.shared.throttled.fetch_add(1, Ordering::Relaxed);
            telemetry::audit_left_out("throttled", 1);
        }
        over.is_none()
    }

    pub(super) fn keeps_successes(&self) -> bool {
        self.shared.successes
    }

    pub(super) fn now(&self) -> SystemTime {
        to_the_millisecond(self.shared.clock.now())
    }

    pub(super) fn next_id(&self) -> EventId {
        EventId::new(self.shared.ids.next())
    }

    pub(crate) fn make_request_id(&self) -> Option<RequestId> {
        RequestId::new(&self.next_id().to_string())
    }
}

/// As every sink can keep it.
fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Shared {
    /// Whether the sinks have taken everything that was noted before this call.
    fn all_is_written(&self) -> bool {
        // Whoever holds it moves events from the queue to the sinks.
        let Some(unwritten) = self.unwritten.try_lock() else {
            return false;
        };
        self.queue.is_empty()
            && self.overflow.lock().is_empty()
            && unwritten
                .iter()
                .all(|unwritten| unwritten.waiting.is_empty())
    }

    /// Moves what waits in the queue to what each sink has yet to take.
    fn take(&self, unwritten: &mut [Unwritten]) {
        let mut fresh = Vec::new();
        let kept = |event, act| {
            Arc::new(Kept {
                event,
                act,
                given_up: AtomicBool::new(false),
            })
        };
        // Not until it is empty: whoever flushes must not work for ever for those who fill it.
        for _ in 0..self.queue.capacity() {
            match self.queue.pop() {
                Some(Waiting::Request(noted)) => fresh.push(kept(noted.into_event(), false)),
                Some(Waiting::Refusal(event)) => fresh.push(kept(*event, false)),
                Some(Waiting::Act(event)) => fresh.push(kept(*event, true)),
                None => break,
            }
        }
        fresh.extend(
            self.overflow
                .lock()
                .drain(..)
                .map(|event| kept(event, true)),
        );
        unwritten
            .iter_mut()
            .for_each(|unwritten| unwritten.waiting.extend(fresh.iter().cloned()));
    }

    /// Writes to one sink what it has not taken yet, and how much is missing, where it was not
    /// told.
    async fn write(
        &self,
        sink: &dyn AuditSink,
        unwritten: &mut Unwritten,
    ) -> Result<(), AuditError> {
        while !unwritten.waiting.is_empty() {
            let batch: Vec<_> = unwritten
                .waiting
                .iter()
                .take(BATCH)
                .map(|kept| kept.event.clone())
                .collect();
            sink.record(&batch).await?;
            unwritten.waiting.drain(..batch.len());
        }
        // What other sinks were not given is not missing here.
        let (full, throttled) = (
            self.dropped_by_the_queue(),
            self.throttled.load(Ordering::Relaxed),
        );
        let missing = full + throttled + unwritten.given_up;
        if missing > unwritten.told {
            let (id, at) = (
                EventId::new(self.ids.next()),
                to_the_millisecond(self.clock.now()),
            );
            let mut event = AuditEvent::new(id, at, Action::EventsLost, AuditOutcome::Ok);
            event.count = Some(missing - unwritten.told);
            let dropped = full + unwritten.given_up;
            event.detail = Some(format!(
                "since the start: {dropped} dropped, {throttled} throttled"
            ));
            sink.record(&[event]).await?;
            unwritten.told = missing;
        }
        Ok(())
    }

    /// Gives up the oldest requests that a failing sink has not taken, down to the capacity; never
    /// an act of management.
    fn bound(&self, unwritten: &mut Unwritten) {
        let mut excess = unwritten
            .waiting
            .len()
            .saturating_sub(self.queue.capacity());
        unwritten.waiting.retain(|kept| {
            let goes = excess > 0 && !kept.act;
            if goes {
                excess -= 1;
                unwritten.given_up += 1;
                telemetry::audit_left_out("sink_failed", 1);
                if !kept.given_up.swap(true, Ordering::Relaxed) {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
            !goes
        });
    }

    fn dropped_by_the_queue(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTrail")
            .field("sinks", &self.shared.sinks)
            .field("waiting", &self.shared.queue.len())
            .finish_non_exhaustive()
    }
}

impl AuditTrailBuilder {
    /// One more sink: it gets every event, and its failures keep no other sink from its own.
    pub fn sink(mut self, sink: impl AuditSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// How many events may wait for a flush, at least one; 16 384 unless set.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.max(1);
        self
    }

    /// Whether requests that were let through are noted; they are unless set.
    pub fn successes(mut self, noted: bool) -> Self {
        self.successes = noted;
        self
    }

    /// How many failures of one source (a key or an operator, else a client's address, IPv6 by /64)
    /// are noted; 100
    /// a minute unless set, `None` for all.
    pub fn failures_per_source(mut self, quotas: Option<Quotas>) -> Self {
        self.failures = quotas;
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The trail.
    #[must_use]
    pub fn build(self) -> AuditTrail {
        let limits = |quotas: &Quotas| FailureLimits::new(quotas.clone(), &self.clock);
        AuditTrail {
            shared: Arc::new(Shared {
                queue: ArrayQueue::new(self.capacity),
                overflow: Mutex::default(),
                unwritten: async_lock::Mutex::new(
                    self.sinks.iter().map(|_| Unwritten::default()).collect(),
                ),
                sinks: self.sinks,
                successes: self.successes,
                throttle: self.failures.map(|quotas| Throttle {
                    keys: limits(&quotas),
                    clients: limits(&quotas),
                }),
                clock: self.clock,
                ids: Ids::new(),
                requests: Arc::default(),
                dropped: AtomicU64::new(0),
                given_up: AtomicU64::new(0),
                throttled: AtomicU64::new(0),
            }),
        }
    }
}

impl fmt::Debug for AuditTrailBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTrailBuilder")
            .field("sinks", &self.sinks)
            .finish_non_exhaustive()
    }
}
