//! From requests to sinks: a bounded queue that nobody waits for, and a flush that writes it out in
//! order.
//!
//! A request notes its event by one push into a lock-free queue. Acts of management are few and
//! kept before all requests. Where the queue is full, by number or by size, or one source is refused
//! again and again, events are left out, counted, and the next flush says how many. Each sink has a
//! [backlog](Outlet) of its own: one that hangs or fails stops no other.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crossbeam_queue::ArrayQueue;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::ids::Ids;
use super::outlet::{Bounds, Kept, Outlet};
use super::request_audit::PendingEvent;
use super::requests::FlushRequests;
use super::throttle::Throttle;
use super::{Action, AuditError, AuditEvent, AuditOutcome, AuditSink, EventId, RequestId};
use crate::clock::{Clock, SystemClock, within};
use crate::quota::{Quota, Quotas};
use crate::telemetry;

/// Takes events without waiting, and brings them to the sinks. Cloning shares the queue.
#[derive(Clone)]
pub struct AuditTrail {
    shared: Arc<Shared>,
}

struct Shared {
    queue: ArrayQueue<Waiting>,
    /// How many bytes the events of the queue will take.
    queued_bytes: AtomicUsize,
    bounds: Bounds,
    /// Acts of management for which the queue had no place.
    overflow: Mutex<Overflow>,
    outlets: Box<[Outlet]>,
    /// Held while events are moved from the queue to the sinks, so that they stay in their order.
    taking: Mutex<()>,
    successes: bool,
    failures: Option<Quotas>,
    timed: OnceLock<Timed>,
    ids: Ids,
    requests: Arc<FlushRequests>,
    /// Events for which the queue had no place, and those that some sink took none of for too long.
    dropped: AtomicU64,
    given_up: AtomicU64,
    throttled: AtomicU64,
}

/// What depends on the clock: the service's, or the system's for a trail without a service.
struct Timed {
    clock: Arc<dyn Clock>,
    throttle: Option<Throttle>,
}

#[derive(Default)]
struct Overflow {
    acts: VecDeque<AuditEvent>,
    bytes: usize,
}

enum Waiting {
    Request(Box<PendingEvent>),
    /// A call of management that came to no act.
    Refusal(Box<AuditEvent>),
    Act(Box<AuditEvent>),
}

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Self::Request(noted) => noted.bytes(),
            Self::Refusal(event) | Self::Act(event) => event.bytes(),
        }
    }
}

/// Describes an [`AuditTrail`].
#[must_use = "a builder does nothing until build()"]
pub struct AuditTrailBuilder {
    sinks: Vec<Arc<dyn AuditSink>>,
    bounds: Bounds,
    successes: bool,
    failures: Option<Quotas>,
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

    /// Takes the time from a service's clock, unless another service gave its own before.
    pub(crate) fn keep_time(&self, clock: &Arc<dyn Clock>) {
        self.shared
            .timed
            .get_or_init(|| self.shared.by(Arc::clone(clock)));
    }

    /// Writes what was noted so far to all sinks at once, and waits until each has taken it: also
    /// what another flush has begun. It waits for as long as the slowest sink takes. Dropping the
    /// future loses no event.
    ///
    /// # Errors
    /// The first sink's that could not keep its events; they are given to it again with the next
    /// flush, up to the trail's bounds. The other sinks have theirs.
    pub async fn flush(&self) -> Result<(), AuditError> {
        let sinks = (0..self.sinks()).map(|sink| self.shared.flush(sink));
        join_all(sinks).await.into_iter().collect()
    }

    /// How many sinks there are.
    pub(crate) fn sinks(&self) -> usize {
        self.shared.outlets.len()
    }

    /// Writes what was noted so far to one sink, and gives it this long.
    ///
    /// # Errors
    /// The sink's; `None` where the time was over.
    pub(crate) async fn flush_sink(
        &self,
        sink: usize,
        limit: Duration,
    ) -> Result<(), Option<AuditError>> {
        let begun = self.shared.requests.begin();
        let flushed = within(limit, self.shared.flush(sink)).await;
        // Also one that was given up has ended: whoever asked for it need not wait longer.
        self.shared.requests.end(sink, begun);
        flushed.ok_or(None)?.map_err(Some)
    }

    /// Has a sink forget its events of before an instant; returns how many.
    pub(crate) async fn forget_before(
        &self,
        sink: usize,
        at: SystemTime,
    ) -> Result<u64, AuditError> {
        self.shared.outlets[sink].sink().forget_before(at).await
    }

    /// Whether a flush was asked for that this sink has not ended.
    pub(crate) fn is_flush_wanted(&self, sink: usize) -> bool {
        self.shared.requests.is_wanted(sink)
    }

    /// How many flushes were asked for so far.
    pub(crate) fn flushes_requested(&self) -> u64 {
        self.shared.requests.begin()
    }

    /// Waits until more flushes were asked for than so many.
    pub(crate) async fn flush_requested_since(&self, requests: u64) {
        self.shared.requests.asked_since(requests).await;
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

    /// How many events some sink has not taken yet: after the last flush, before the process ends,
    /// those that are lost.
    #[must_use]
    pub fn pending(&self) -> usize {
        let _taking = self.shared.taking.lock();
        let kept = self.shared.outlets.iter().map(Outlet::waiting).max();
        kept.unwrap_or(0) + self.shared.queue.len() + self.shared.overflow.lock().acts.len()
    }

    /// How many events were written so far: to the sink that has taken the most.
    pub(crate) fn written(&self) -> u64 {
        let written = self.shared.outlets.iter().map(Outlet::written);
        written.max().unwrap_or(0)
    }

    /// How many refusals were left out because their source had been refused too often.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::Relaxed)
    }

    /// An event of now, to be filled in and noted.
    pub(crate) fn event(&self, action: Action, outcome: AuditOutcome) -> AuditEvent {
        AuditEvent::new(self.next_id(), self.now(), action, outcome)
    }

    /// Keeps an act of management, before all requests that wait.
    pub(crate) fn note_act(&self, event: AuditEvent) {
        if self.sinks() == 0 {
            return;
        }
        if let Err(Waiting::Act(event)) = self.shared.push(Waiting::Act(Box::new(event))) {
            let mut overflow = self.shared.overflow.lock();
            let bytes = event.bytes();
            let bounds = self.shared.bounds.of_acts();
            if bounds.have_room(overflow.acts.len() + 1, overflow.bytes + bytes) {
                overflow.bytes += bytes;
                overflow.acts.push_back(*event);
            } else {
                self.shared.drops_one();
            }
        }
    }

    /// Keeps a call of management that came to no act, unless there is no place for it or its source
    /// failed too often: the operator of this name, else the client.
    pub(crate) fn note_refusal(&self, operator: Option<&str>, event: AuditEvent) {
        if self.sinks() > 0 && self.keeps_refusal(operator, event.client_ip) {
            self.push(Waiting::Refusal(Box::new(event)));
        }
    }

    pub(super) fn note(&self, noted: Box<PendingEvent>) {
        if self.sinks() > 0 {
            self.push(Waiting::Request(noted));
        }
    }

    fn push(&self, waiting: Waiting) {
        if self.shared.push(waiting).is_err() {
            self.shared.drops_one();
        }
    }

    /// Whether a refusal of this source is to be kept: of the key or the operator where one is
    /// known, else of the client.
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

    pub(super) fn now(&self) -> SystemTime {
        to_the_millisecond(self.shared.timed().clock.now())
    }

    pub(super) fn next_id(&self) -> EventId {
        self.shared.ids.next()
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
        let _taking = self.taking.lock();
        self.queue.is_empty()
            && self.overflow.lock().acts.is_empty()
            && self.outlets.iter().all(|outlet| outlet.waiting() == 0)
    }

    /// Puts an event into the queue, or gives it back where there is no room for it.
    fn push(&self, event: Waiting) -> Result<(), Waiting> {
        let bytes = event.bytes();
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let pushed = match before + bytes <= self.bounds.bytes {
            true => self.queue.push(event),
            false => Err(event),
        };
        if pushed.is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        pushed
    }

    fn pop(&self) -> Option<Waiting> {
        let event = self.queue.pop()?;
        self.queued_bytes
            .fetch_sub(event.bytes(), Ordering::Relaxed);
        Some(event)
    }

    fn drops_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        telemetry::audit_left_out("queue_full", 1);
    }

    /// Moves what waits in the queue to what each sink has yet to take.
    fn take(&self) {
        let _taking = self.taking.lock();
        let mut fresh = Vec::new();
        // Not until it is empty: whoever flushes must not work for ever for those who fill it.
        for _ in 0..self.queue.capacity() {
            match self.pop() {
                Some(Waiting::Request(noted)) => fresh.push(Kept::request(noted.into_event())),
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
                if given_up.is_given_up() {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Writes to one sink what it has not taken yet, and how much is missing there.
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
        // What other sinks were not given is not missing here.
        let full = self.dropped_by_the_queue();
        let throttled = self.throttled.load(Ordering::Relaxed);
        let of_lost = |missing: u64, untold: u64| {
            let (id, at) = (
                self.ids.next(),
                to_the_millisecond(self.timed().clock.now()),
            );
            let mut event = AuditEvent::new(id, at, Action::EventsLost, AuditOutcome::Ok);
            event.count = Some(untold);
            let dropped = missing - throttled;
            event.detail = Some(format!(
                "since the start: {dropped} dropped, {throttled} throttled"
            ));
            event
        };
        outlet.tell_missing(full + throttled, of_lost).await
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
    /// One more sink: it gets every event, and its failures keep no other sink from its own.
    pub fn sink(mut self, sink: impl AuditSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// How many events may wait for a flush, at least one; 16 384 unless set. Acts of management
    /// have room for as many besides, and for 1024 at least.
    pub fn capacity(mut self, events: usize) -> Self {
        self.bounds.events = events.max(1);
        self
    }

    /// How many bytes the events may take that wait for a flush, and those that wait for one sink;
    /// 64 MiB each unless set, and as many for acts of management. An event takes less than 12 KiB.
    pub fn bytes(mut self, most: usize) -> Self {
        self.bounds.bytes = most;
        self
    }

    /// Whether requests that were let through are noted; they are unless set.
    pub fn successes(mut self, noted: bool) -> Self {
        self.successes = noted;
        self
    }

    /// How many refusals of one source (a key or an operator, else a client's address, IPv6 by /64)
    /// are noted; 100 a minute unless set, `None` for all. What was let through is never left out.
    pub fn failures_per_source(mut self, quotas: Option<Quotas>) -> Self {
        self.failures = quotas;
        self
    }

    /// The trail.
    #[must_use]
    pub fn build(self) -> AuditTrail {
        let sinks = self.sinks.len();
        AuditTrail {
            shared: Arc::new(Shared {
                queue: ArrayQueue::new(self.bounds.events),
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
