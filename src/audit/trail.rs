//! The audit trail: a bounded queue that never blocks, and a flush that writes it out in order.
//!
//! A request records its event by one push into a lock-free queue. Management operations are few
//! and take precedence over requests. If the queue is full, by number or by size, or if one source
//! is refused repeatedly, events are omitted and counted, and the next flush records their number.
//! Each sink has its own [backlog](Outlet): a sink that hangs or fails does not stop the others.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::lock::Mutex;
use futures_util::future::join_all;

use super::event::to_the_millisecond;
use super::ids::Ids;
use super::outlet::{Bounds, Kept, Outlet};
use super::queue::Queue;
use super::request_audit::PendingEvent;
use super::requests::FlushRequests;
use super::throttle::Throttle;
use super::{Action, AuditError, AuditEvent, AuditOutcome, AuditSink, EventId, RequestId};
use crate::clock::{Clock, SystemClock, within};
use crate::quota::{Quota, Quotas};
use crate::telemetry;

/// Accepts events without waiting and passes them to the sinks. Clones share the queue.
#[derive(Clone)]
pub struct AuditTrail {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue<Waiting>,
    /// The size of the queued events, in bytes.
    queued_bytes: AtomicUsize,
    bounds: Bounds,
    /// Management operations that did not fit into the queue.
    overflow: Mutex<Overflow>,
    outlets: Box<[Outlet]>,
    /// Held while events are moved from the queue to the sinks, so that they stay in order.
    taking: Mutex<()>,
    successes: bool,
    failures: Option<Quotas>,
    timed: OnceLock<Timed>,
    ids: Ids,
    requests: Arc<FlushRequests>,
    /// Events that did not fit into the queue. `given_up` counts those that some sink failed to
    /// accept for too long.
    dropped: AtomicU64,
    given_up: AtomicU64,
    throttled: AtomicU64,
}

/// The parts that depend on the clock: the service's, or the system's for a trail without a
/// service.
struct Timed {
    clock: Arc<dyn Clock>,
    throttle: Option<Throttle>,
}

#[derive(Default)]
struct Overflow {
    acts: VecDeque<AuditEvent>,
    bytes: usize,
}

/// Requests are in the queue itself: memory that one thread allocates and another one frees costs
/// more than the copy.
enum Waiting {
    Request(PendingEvent),
    /// A management call that did not result in an operation.
    Refusal(Box<AuditEvent>),
    Act(Box<AuditEvent>),
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Request(pending) => pending.bytes(),
            Self::Refusal(event) | Self::Act(event) => event.bytes(),
        }
    }
}

/// Builder for [`AuditTrail`].
#[must_use = "a builder does nothing until build()"]
pub struct AuditTrailBuilder {
    sinks: Vec<Arc<dyn AuditSink>>,
    bounds: Bounds,
    successes: bool,
    failures: Option<Quotas>,
}

impl AuditTrail {
    /// Creates a trail that writes every event to each of these sinks.
    #[must_use]
    pub fn new<S: AuditSink>(sinks: impl IntoIterator<Item = S>) -> Self {
        sinks
            .into_iter()
            .fold(Self::builder(), AuditTrailBuilder::sink)
            .build()
    }

    /// Returns a builder.
    pub fn builder() -> AuditTrailBuilder {
        AuditTrailBuilder {
            sinks: Vec::new(),
            bounds: Bounds {
                events: 16_384,
                bytes: 64 << 20,
            },
            successes: true,
            failures: Quota::per_minute(100)
                .and_then(|quota| Quotas::new([quota]))
                .ok(),
        }
    }

    /// Sets the clock, unless another service has already set its own.
    pub(crate) fn keep_time(&self, clock: &Arc<dyn Clock>) {
        self.shared
            .timed
            .get_or_init(|| self.shared.by(Arc::clone(clock)));
    }

    /// Writes all events recorded so far to all sinks concurrently, and waits until each sink has
    /// accepted them, including those of a flush that is already running. This takes as long as the
    /// slowest sink. Dropping the future loses no event.
    ///
    /// # Errors
    /// Returns the error of the first sink that failed. Its events are passed to it again by the
    /// next flush, up to the trail's bounds. The other sinks have theirs.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let sinks = (0..self.sinks()).map(|sink| self.shared.flush(sink));
        join_all(sinks).await.into_iter().collect()
    }

    /// Returns the number of sinks.
    pub(crate) fn sinks(&self) -> usize {
        self.shared.outlets.len()
    }

    /// Writes all events recorded so far to one sink, within a time limit.
    ///
    /// # Errors
    /// Returns the sink's error, or `None` if the time was up.
    pub(crate) async fn flush_sink(
        &self,
        sink: usize,
        limit: Duration,
    ) -> Result<(), Option<AuditError>> {
        let begun = self.shared.requests.begin();
        let flushed = within(limit, self.shared.flush(sink)).await;
        // A flush that was abandoned has also ended: its requesters need not wait longer.
        self.shared.requests.end(sink, begun);
        flushed.ok_or(None)?.map_err(Some)
    }

    /// Deletes a sink's events from before an instant, and returns their number.
    pub(crate) async fn forget_before(
        &self,
        sink: usize,
        at: SystemTime,
    ) -> Result<u64, AuditError> {
        self.shared.outlets[sink].sink().forget_before(at).await
    }

    /// Returns whether there is a flush request that this sink has not completed.
    pub(crate) fn is_flush_wanted(&self, sink: usize) -> bool {
        self.shared.requests.is_wanted(sink)
    }

    /// Returns how many flushes have been requested so far.
    pub(crate) fn flushes_requested(&self) -> u64 {
        self.shared.requests.begin()
    }

    /// Waits until more flushes than this have been requested.
    pub(crate) async fn flush_requested_since(&self, requests: u64) {
        self.shared.requests.requested_since(requests).await;
    }

    /// Requests a flush from the task that flushes this trail, and waits until the flush has ended,
    /// whether or not it succeeded. Completes immediately if no event is waiting. The request is
    /// made before this method returns; dropping the future only ends the wait, which takes as long
    /// as the sinks do: use a timeout.
    pub fn request_flush(&self) -> impl Future<Output = ()> + Send + use<> {
        let request =
            (!self.shared.all_is_written()).then(|| Arc::clone(&self.shared.requests).request());
        async move {
            if let Some(request) = request {
                request.await;
            }
        }
    }

    /// Waits for a [request](Self::request_flush). For the task that flushes on an interval.
    pub async fn flush_requested(&self) {
        self.shared.requests.requested().await;
    }

    /// Returns how many events were lost because the queue was full or a sink failed for too long.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped_by_the_queue() + self.shared.given_up.load(Ordering::Relaxed)
    }

    /// Returns how many events some sink has not accepted yet: those lost if the process exits.
    #[must_use]
    pub fn pending(&self) -> usize {
        let _taking = self.shared.taking.lock();
        let kept = self.shared.outlets.iter().map(Outlet::waiting).max();
        kept.unwrap_or(0) + self.shared.queue.len() + self.shared.overflow.lock().acts.len()
    }

    /// Returns how many events have been written so far, to the sink that has accepted the most.
    pub(crate) fn written(&self) -> u64 {
        let written = self.shared.outlets.iter().map(Outlet::written);
        written.max().unwrap_or(0)
    }

    /// Returns how many refusals were omitted because their source was refused too often.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::Relaxed)
    }

    /// Creates an event with the current time, to be filled in and recorded.
    pub(crate) fn event(&self, action: Action, outcome: AuditOutcome) -> AuditEvent {
        let now = to_the_millisecond(self.shared.timed().clock.now());
        AuditEvent::new(EventId::new(self.next_id()), now, action, outcome)
    }

    /// Records a management operation. It takes precedence over all waiting requests.
    pub(crate) fn note_act(&self, event: AuditEvent) {
        if self.sinks() == 0 {
            return;
        }
        if let Some(Waiting::Act(event)) = self.shared.push(Waiting::Act(Box::new(event))) {
            let mut overflow = self.shared.overflow.lock();
            let bytes = event.bytes();
            let bounds = self.shared.bounds.of_acts();
            if bounds.allow(overflow.acts.len() + 1, overflow.bytes + bytes) {
                overflow.bytes += bytes;
                overflow.acts.push_back(*event);
            } else {
                self.shared.count_dropped();
            }
        }
    }

    /// Records a management call that was refused or failed without an operation, unless the queue
    /// is full or its source failed too often: the operator if known, or else the client.
    pub(crate) fn note_refusal(&self, operator: Option<&str>, event: AuditEvent) {
        if self.sinks() > 0 && self.keeps_refusal(operator, event.client_ip) {
            self.push(Waiting::Refusal(Box::new(event)));
        }
    }

    pub(super) fn note(&self, pending: PendingEvent) {
        if self.sinks() > 0 {
            self.push(Waiting::Request(pending));
        }
    }

    fn push(&self, waiting: Waiting) {
        if self.shared.push(waiting).is_some() {
            self.shared.count_dropped();
        }
    }

    /// Returns whether to record a refusal of this source: the key or operator if known, or else
    /// the client.
    pub(super) fn keeps_refusal(&self, known: Option<&str>, client: Option<IpAddr>) -> bool {
        let throttle = self.shared.timed().throttle.as_ref();
        let kept = throttle.is_none_or(|throttle| throttle.admits(known, client));
        if !kept {
            self.shared.throttled.fetch_add(1, Ordering::Relaxed);
            telemetry::audit_left_out("throttled", 1);
        }
        kept
    }

    pub(super) fn keeps_successes(&self) -> bool {
        self.shared.successes
    }

    /// Returns the time of a request, which is not truncated yet.
    pub(super) fn recently(&self) -> SystemTime {
        self.shared.timed().clock.recently()
    }

    /// Returns a number for an event or a request.
    pub(super) fn next_id(&self) -> u128 {
        self.shared.ids.next()
    }

    pub(crate) fn make_request_id(&self) -> RequestId {
        RequestId::of_number(self.next_id())
    }
}

impl Shared {
    /// Returns whether the sinks have accepted everything that was recorded before this call.
    fn all_is_written(&self) -> bool {
        // This waits for a thread that is moving events from the queue to the sinks.
        let _taking = self.taking.lock();
        self.queue.is_empty()
            && self.overflow.lock().acts.is_empty()
            && self.outlets.iter().all(|outlet| outlet.waiting() == 0)
    }

    /// Adds an event to the queue, or returns it if it does not fit.
    fn push(&self, event: Waiting) -> Option<Waiting> {
        let bytes = event.bytes();
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let left = match before + bytes <= self.bounds.bytes {
            true => self.queue.push(event).err(),
            false => Some(event),
        };
        if left.is_some() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        left
    }

    fn pop(&self) -> Option<Waiting> {
        let event = self.queue.pop()?;
        self.queued_bytes
            .fetch_sub(event.bytes(), Ordering::Relaxed);
        Some(event)
    }

    fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        telemetry::audit_left_out("queue_full", 1);
    }

    /// Moves the queued events to the backlogs of the sinks.
    fn take(&self) {
        let _taking = self.taking.lock();
        let mut fresh = Vec::new();
        // Bounded, so that a flush does not run forever while events keep arriving.
        for _ in 0..self.queue.capacity() {
            match self.pop() {
                Some(Waiting::Request(pending)) => fresh.push(Kept::request(pending.into_event())),
                Some(Waiting::Refusal(event)) => fresh.push(Kept::request(*event)),
                Some(Waiting::Act(event)) => fresh.push(Kept::act(*event)),
                None => break,
            }
        }
        let overflow = std::mem::take(&mut *self.overflow.lock());
        fresh.extend(overflow.acts.into_iter().map(Kept::act));
        let fresh: Vec<_> = fresh.into_iter().map(Arc::new).collect();
        for outlet in &self.outlets {
            for given_up in outlet.add(&fresh, self.bounds) {
                telemetry::audit_left_out("sink_failed", 1);
                if given_up.mark_lost() {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Writes a sink's backlog, and a report of the events that it is missing.
    async fn flush(&self, sink: usize) -> Result<(), AuditError> {
        let outlet = &self.outlets[sink];
        let turn = outlet.turn().await;
        let begun = self.requests.begin();
        self.take();
        let written = self.write(outlet).await;
        drop(turn);
        self.requests.end(sink, begun);
        written
    }

    async fn write(&self, outlet: &Outlet) -> Result<(), AuditError> {
        outlet.write().await?;
        // Events that only other sinks did not get are not missing here.
        let full = self.dropped_by_the_queue();
        let throttled = self.throttled.load(Ordering::Relaxed);
        let report = |missing: u64, unreported: u64| {
            let (id, at) = (
                EventId::new(self.ids.next()),
                to_the_millisecond(self.timed().clock.now()),
            );
            let mut event = AuditEvent::new(id, at, Action::EventsLost, AuditOutcome::Ok);
            event.count = Some(unreported);
            let dropped = missing - throttled;
            event.detail = Some(format!(
                "since the start: {dropped} dropped, {throttled} throttled"
            ));
            event
        };
        outlet.report_missing(full + throttled, report).await
    }

    fn timed(&self) -> &Timed {
        let system = || self.by(Arc::new(SystemClock::default()));
        self.timed.get_or_init(system)
    }

    fn by(&self, clock: Arc<dyn Clock>) -> Timed {
        let throttle = self.failures.clone();
        Timed {
            throttle: throttle.map(|quotas| Throttle::new(quotas, &clock)),
            clock,
        }
    }

    fn dropped_by_the_queue(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks = self.shared.outlets.iter().map(Outlet::sink);
        f.debug_struct("AuditTrail")
            .field("sinks", &sinks.collect::<Vec<_>>())
            .field("waiting", &self.shared.queue.len())
            .finish_non_exhaustive()
    }
}

impl AuditTrailBuilder {
    /// Adds a sink. It gets every event, and its failures do not affect other sinks.
    pub fn sink(mut self, sink: impl AuditSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Sets how many events may wait for a flush, at least one. Defaults to 16 384. As many
    /// management operations, and at least 1024, may wait in addition. The queue takes 256 bytes for
    /// each event, up to the limit of [`bytes`](Self::bytes), when the trail is built.
    pub fn capacity(mut self, events: usize) -> Self {
        self.bounds.events = events.max(1);
        self
    }

    /// Sets the maximum size, in bytes, of the events that wait for a flush, and of those that wait
    /// for one sink. Defaults to 64 MiB each. The same limit, at least 1 MiB, applies separately
    /// to management operations. An event takes less than 12 KiB.
    pub fn bytes(mut self, most: usize) -> Self {
        self.bounds.bytes = most;
        self
    }

    /// Sets whether admitted requests are recorded. Defaults to `true`.
    pub fn successes(mut self, recorded: bool) -> Self {
        self.successes = recorded;
        self
    }

    /// Sets how many refusals of one source are recorded: of a key or an operator, or else of a
    /// client address (IPv6 by /64). Defaults to 100 per minute; `None` records all. Admitted
    /// requests are never omitted.
    pub fn failures_per_source(mut self, quotas: Option<Quotas>) -> Self {
        self.failures = quotas;
        self
    }

    /// Builds the trail.
    #[must_use]
    pub fn build(self) -> AuditTrail {
        let sinks = self.sinks.len();
        // More than that would not fit by size.
        let most = (self.bounds.bytes / size_of::<Waiting>()).max(1);
        AuditTrail {
            shared: Arc::new(Shared {
                queue: Queue::new(self.bounds.events.min(most)),
                queued_bytes: AtomicUsize::new(0),
                bounds: self.bounds,
                overflow: Mutex::default(),
                outlets: self.sinks.into_iter().map(Outlet::new).collect(),
                taking: Mutex::default(),
                successes: self.successes,
                failures: self.failures,
                timed: OnceLock::new(),
                ids: Ids::new(),
                requests: Arc::new(FlushRequests::of(sinks)),
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
