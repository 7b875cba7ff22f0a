//! From requests to sinks: a bounded queue that nobody waits for, and a flush that writes it out in order.
//!
//! A request notes its event by one push into a lock-free queue. Acts of management are few and always kept. Where the
//! queue is full, or one source fails again and again, events are left out, counted, and the next flush says how many.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use rand::TryRng;

use super::witness::Noted;
use super::{Action, AuditError, AuditEvent, AuditOutcome, AuditSink, EventId, RequestId};
use crate::clock::{Clock, SystemClock};
use crate::key::KeyId;
use crate::limit::{BucketId, LimitBucket, LimitRequest, LocalLimiter, Quota, Quotas, client_name};
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
    unwritten: async_lock::Mutex<Vec<VecDeque<AuditEvent>>>,
    successes: bool,
    throttle: Option<(LocalLimiter, Quotas)>,
    clock: Arc<dyn Clock>,
    ids: Ids,
    dropped: AtomicU64,
    throttled: AtomicU64,
    /// How much of both has been told by an event.
    told: AtomicU64,
}

enum Waiting {
    Request(Box<Noted>),
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
        // Uniqueness, not secrecy: where the system has no randomness, keys cannot be issued either, and this must not
        // keep a service from starting.
        let random = rand::rngs::SysRng.try_fill_bytes(&mut bytes).is_ok();
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let process = if random { u64::from_le_bytes(bytes) } else { u64::try_from(clock()).unwrap_or_default() };
        Self { process, count: AtomicU64::new(1) }
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
        sinks.into_iter().fold(Self::builder(), AuditTrailBuilder::sink).build()
    }

    /// Describes a trail.
    pub fn builder() -> AuditTrailBuilder {
        AuditTrailBuilder {
            sinks: Vec::new(),
            capacity: 16_384,
            successes: true,
            failures: Quota::per_minute(100).and_then(|quota| Quotas::new([quota])).ok(),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Writes what was noted so far, and waits until it is written: also what another flush has begun. Call it on an
    /// interval, before reading, and before the process ends.
    ///
    /// # Errors
    /// The first sink's that could not keep its events; they are given to it again with the next flush, up to the
    /// trail's capacity. The other sinks have theirs.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let mut unwritten = self.shared.unwritten.lock().await;
        self.shared.take(&mut unwritten);
        let mut failed = None;
        for (sink, waiting) in self.shared.sinks.iter().zip(unwritten.iter_mut()) {
            while !waiting.is_empty() {
                let batch = waiting.make_contiguous();
                let count = batch.len().min(BATCH);
                match sink.record(&batch[..count]).await {
                    Ok(()) => drop(waiting.drain(..count)),
                    Err(error) => {
                        failed.get_or_insert(error);
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// How many events were lost because the queue was full or a sink took none for too long.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many failures were left out because their source had failed too often.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::Relaxed)
    }

    /// An event of now, to be filled in and noted.
    pub(crate) fn event(&self, action: Action, outcome: AuditOutcome) -> AuditEvent {
        AuditEvent::new(self.next_id(), to_the_millisecond(self.shared.clock.now()), action, outcome)
    }

    /// Keeps an act of management, whatever else waits.
    pub(crate) fn note_act(&self, event: AuditEvent) {
        if let Err(Waiting::Act(event)) = self.shared.queue.push(Waiting::Act(Box::new(event))) {
            self.shared.overflow.lock().push(*event);
        }
    }

    pub(super) fn note(&self, noted: Box<Noted>) {
        if self.shared.queue.push(Waiting::Request(noted)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            telemetry::audit_left_out("queue_full", 1);
        }
    }

    /// Whether a failure of this source is to be kept: of the key where one was presented, else of the client.
    pub(super) fn keeps_failure(&self, key: Option<&KeyId>, client: Option<IpAddr>) -> bool {
        let Some((limiter, quotas)) = &self.shared.throttle else { return true };
        let source = key.map_or_else(|| client_name(client), |key| format!("key {key}"));
        let bucket = LimitBucket::new(BucketId::Custom(&source), quotas);
        let kept = limiter.decide(&LimitRequest::new(&[bucket], 1)).is_ok_and(|decision| decision.is_admitted());
        if !kept {
            self.shared.throttled.fetch_add(1, Ordering::Relaxed);
            telemetry::audit_left_out("throttled", 1);
        }
        kept
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

    pub(super) fn make_request_id(&self) -> Option<RequestId> {
        RequestId::new(&self.next_id().to_string())
    }
}

/// As every sink can keep it.
fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Shared {
    /// Moves what waits in the queue to what each sink has yet to take.
    fn take(&self, unwritten: &mut [VecDeque<AuditEvent>]) {
        let mut fresh = Vec::new();
        // Not until it is empty: whoever flushes must not work for ever for those who fill it.
        for _ in 0..self.queue.capacity() {
            match self.queue.pop() {
                Some(Waiting::Request(noted)) => fresh.push(noted.into_event()),
                Some(Waiting::Act(event)) => fresh.push(*event),
                None => break,
            }
        }
        fresh.append(&mut self.overflow.lock());
        for waiting in unwritten.iter_mut() {
            waiting.extend(fresh.iter().cloned());
            let most = self.queue.capacity();
            let excess = waiting.len().saturating_sub(most);
            waiting.drain(..excess);
            self.dropped.fetch_add(excess as u64, Ordering::Relaxed);
            telemetry::audit_left_out("sink_failed", excess as u64);
        }
        if let Some(lost) = self.lost() {
            unwritten.iter_mut().for_each(|waiting| waiting.push_back(lost.clone()));
        }
    }

    /// What to say about events that are missing, where it has not been said.
    fn lost(&self) -> Option<AuditEvent> {
        let (dropped, throttled) = (self.dropped.load(Ordering::Relaxed), self.throttled.load(Ordering::Relaxed));
        let untold = (dropped + throttled).saturating_sub(self.told.swap(dropped + throttled, Ordering::Relaxed));
        (untold > 0).then(|| {
            let (id, at) = (EventId::new(self.ids.next()), to_the_millisecond(self.clock.now()));
            let mut event = AuditEvent::new(id, at, Action::EventsLost, AuditOutcome::Ok);
            event.count = Some(untold);
            event.detail = Some(format!("since the start: {dropped} dropped, {throttled} throttled"));
            event
        })
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

    /// How many failures of one source (a key, else a client's address, IPv6 by /64) are noted; 100 a minute unless set,
    /// `None` for all.
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
        let limiter = || LocalLimiter::builder().most_buckets(50_000).clock(Arc::clone(&self.clock)).build();
        AuditTrail {
            shared: Arc::new(Shared {
                queue: ArrayQueue::new(self.capacity),
                overflow: Mutex::default(),
                unwritten: async_lock::Mutex::new(vec![VecDeque::new(); self.sinks.len()]),
                sinks: self.sinks,
                successes: self.successes,
                throttle: self.failures.map(|quotas| (limiter(), quotas)),
                clock: self.clock,
                ids: Ids::new(),
                dropped: AtomicU64::new(0),
                throttled: AtomicU64::new(0),
                told: AtomicU64::new(0),
            }),
        }
    }
}

impl fmt::Debug for AuditTrailBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTrailBuilder").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}
