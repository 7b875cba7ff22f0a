//! A service whose sinks, store and bus hang, fail or are slow on demand.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portunus::audit::{Action, AuditError, AuditEvent, AuditSink, AuditTrail, AuditTrailBuilder};
use portunus::config::Limits;
use portunus::key::{KeyDigest, KeyHasher, KeyId, Owner};
use portunus::manage::NewKey;
use portunus::store::{
    BusError, Cache, Invalidation, InvalidationBus, InvalidationListener, KeyStore,
};
use portunus::testing::{Call, FaultyStore, ManualClock, Point};
use portunus::{AuthError, ErrorCode, Maintenance, Portunus, PortunusBuilder};
use portunus_test_support::{Head, format, tenant};

pub(crate) const RECORD: Point = Point::Before(Call::RecordUsage);

/// A sink and a bus.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remote(pub(crate) Arc<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    hangs: AtomicBool,
    fails: AtomicBool,
    calls: AtomicU64,
    under_way: AtomicU64,
    most_at_once: AtomicU64,
    events: Mutex<Vec<AuditEvent>>,
    heard: AtomicU64,
}

impl Remote {
    pub(crate) fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::SeqCst);
    }
    pub(crate) fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }
    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }
    pub(crate) fn most_at_once(&self) -> u64 {
        self.0.most_at_once.load(Ordering::SeqCst)
    }
    /// Returns how many changes were published to it.
    pub(crate) fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::SeqCst)
    }
    /// Returns the numbers of the requests whose events it received, in order.
    pub(crate) fn events(&self) -> Vec<u64> {
        let events = self.0.events.lock().unwrap();
        let routes = events.iter().filter_map(|event| event.route.as_ref());
        routes.map(|route| route.parse().unwrap()).collect()
    }
    /// Returns how many events were reported to it as missing.
    pub(crate) fn missing(&self) -> u64 {
        let events = self.0.events.lock().unwrap();
        let lost = events
            .iter()
            .filter(|event| event.action == Action::EventsLost);
        lost.filter_map(|event| event.count).sum()
    }
    /// Returns all events that it received.
    pub(crate) fn all(&self) -> Vec<AuditEvent> {
        self.0.events.lock().unwrap().clone()
    }
    pub(crate) fn clear(&self) {
        self.0.events.lock().unwrap().clear();
    }
    async fn call(&self) -> Result<(), &'static str> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let at_once = self.0.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let _under_way = UnderWay(&self.0.under_way);
        yield_once().await;
        if self.0.hangs.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        match self.0.fails.load(Ordering::SeqCst) {
            true => Err("it is down"),
            false => Ok(()),
        }
    }
}

struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl AuditSink for Remote {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        self.call().await.map_err(AuditError::unavailable)?;
        self.0.events.lock().unwrap().extend_from_slice(events);
        yield_once().await;
        Ok(())
    }
}

#[async_trait]
impl InvalidationBus for Remote {
    fn subscribe(&self, _: Weak<dyn InvalidationListener>) {}
    async fn publish(&self, _: &Invalidation) -> Result<(), BusError> {
        self.call().await.map_err(BusError::unavailable)?;
        self.0.heard.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        let done = std::mem::replace(&mut yielded, true);
        context.waker().wake_by_ref();
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A service with one key.
pub(crate) struct Desk {
    pub(crate) keys: Portunus,
    pub(crate) clock: ManualClock,
    pub(crate) store: FaultyStore,
    pub(crate) bus: Remote,
    pub(crate) trail: AuditTrail,
    secret: String,
    key: KeyId,
}

impl Desk {
    pub(crate) async fn new(sinks: &[&Remote]) -> Self {
        Self::with(sinks, |trail| trail, |keys| keys).await
    }

    pub(crate) async fn with(
        sinks: &[&Remote],
        set: impl FnOnce(AuditTrailBuilder) -> AuditTrailBuilder,
        also: impl FnOnce(PortunusBuilder) -> PortunusBuilder,
    ) -> Self {
        let (clock, store, bus) = (ManualClock::new(), FaultyStore::new(), Remote::default());
        store.answer_late(1);
        let trail = AuditTrail::builder();
        let trail = sinks
            .iter()
            .fold(trail, |trail, sink| trail.sink((*sink).clone()));
        let trail = set(trail).failures_per_source(None).build();
        let issuer = Portunus::builder(format()).store(store.clone());
        let issuer = issuer.clock(clock.clone()).build().unwrap();
        let new = NewKey::new("a key", Owner::tenant(tenant("acme")));
        let issued = issuer.manager().issue(new).await.unwrap();
        let keys = Portunus::builder(format())
            .store(store.clone())
            .limits(Limits::none())
            .cache(Cache::new().bus(bus.clone()))
            .audit(trail.clone())
            .clock(clock.clone());
        Self {
            keys: also(keys).build().unwrap(),
            clock,
            store,
            bus,
            trail,
            secret: issued.key.reveal(),
            key: issued.record.id.clone(),
        }
    }

    /// Records one refused request for each of these.
    pub(crate) fn note(&self, numbers: impl IntoIterator<Item = u64>) {
        let missing = AuthError::new(ErrorCode::MissingKey);
        for number in numbers {
            let head = Head::new().at(&number.to_string());
            let request_audit = self
                .keys
                .authenticator()
                .begin(&head)
                .request_audit
                .unwrap();
            request_audit.answered(401, Some(&missing));
        }
    }

    /// Uses the key this many times.
    pub(crate) async fn count(&self, uses: u64) {
        for _ in 0..uses {
            let head = Head::bearer(&self.secret);
            let used = self.keys.authenticator().authenticate(&head).await;
            used.unwrap();
        }
    }

    /// Issues further keys: their requests, and their ids, both in the order of the ids.
    pub(crate) async fn many_keys(&self, count: usize) -> (Vec<Head>, Vec<KeyId>) {
        let mut keys = Vec::new();
        for _ in 0..count {
            let new = NewKey::new("another key", Owner::tenant(tenant("acme")));
            let issued = self.keys.manager().issue(new).await.unwrap();
            keys.push((Head::bearer(&issued.key.reveal()), issued.record.id.clone()));
        }
        keys.sort_by(|(_, one), (_, other)| one.cmp(other));
        keys.into_iter().unzip()
    }

    /// Uses each of these keys once.
    pub(crate) async fn use_all(&self, heads: &[Head]) {
        for head in heads {
            let used = self.keys.authenticator().authenticate(head).await;
            used.unwrap();
        }
    }

    /// Returns how many uses of these keys are stored.
    pub(crate) async fn used_of(&self, keys: &[KeyId]) -> u64 {
        let counts = self.store.inner().usage().unwrap();
        let usage = counts.usage_of(keys).await.unwrap();
        usage.iter().map(|usage| usage.count).sum()
    }

    /// The digest of the key.
    pub(crate) fn digest(&self) -> KeyDigest {
        KeyHasher::sha256().digest(&self.secret)
    }

    /// Returns how many uses are stored.
    pub(crate) async fn used(&self) -> u64 {
        let counts = self.store.inner().usage().unwrap();
        let usage = counts.usage_of(std::slice::from_ref(&self.key)).await;
        usage.unwrap()[0].count
    }

    /// Makes a change that must be published to other nodes.
    pub(crate) async fn issue(&self) {
        let new = NewKey::new("another key", Owner::tenant(tenant("acme")));
        self.keys.manager().issue(new).await.unwrap();
    }

    /// Calls the jobs one second later.
    pub(crate) async fn next(&self) -> Maintenance {
        self.clock.advance(Duration::from_secs(1));
        self.keys.maintain().await
    }
}

/// Returns the jobs that failed.
pub(crate) fn names(maintenance: &Maintenance) -> Vec<&str> {
    let names = maintenance.failures.iter();
    names.map(|(name, _)| name.as_str()).collect()
}

/// Polls a future this many times, then drops it; returns its output if it completed.
pub(crate) fn poll<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    })
}

/// Waits until the condition holds, for at most ten seconds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "it does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
