//! What the jobs do, lose and report, whatever hangs, fails or goes away.

#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::*;
use crate::audit::{
    Action, AuditError, AuditEvent, AuditOutcome, AuditSink, AuditTrailBuilder, MemoryAudit,
};
use crate::config::{Credentials, Limits};
use crate::key::{
    Alphabet, DigestScheme, KeyDigest, KeyFormat, KeyHasher, KeyId, KeyRecord, Owner,
};
use crate::limit::{Decision, LimitRequest, LimiterError, RateLimiter};
use crate::manage::{ImportedDigest, NewImport, NewKey};
use crate::service::Portunus;
use crate::store::{
    BusError, Change, Invalidation, InvalidationBus, InvalidationListener, KeyStore, MemoryStore,
    WriteBatch,
};
use crate::testing::{Call, FaultyStore, ManualClock, Point, TestRequest};

const RECORD: Point = Point::Before(Call::RecordUsage);

/// A sink and a bus that hang, fail or are slow when they are told to.
#[derive(Debug, Clone, Default)]
struct Remote(Arc<State>);

#[derive(Debug, Default)]
struct State {
    hangs: AtomicBool,
    fails: AtomicBool,
    calls: AtomicU64,
    under_way: AtomicU64,
    most_at_once: AtomicU64,
    events: Mutex<Vec<AuditEvent>>,
    heard: Mutex<Vec<Invalidation>>,
}

impl Remote {
    fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::SeqCst);
    }
    fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }
    fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }
    /// The numbers of the events that it has, in its order.
    fn events(&self) -> Vec<u64> {
        let events = self.0.events.lock();
        let noted = events
            .iter()
            .filter(|event| event.action != Action::EventsLost);
        noted.map(|event| event.count.unwrap()).collect()
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
        self.0.events.lock().extend_from_slice(events);
        yield_once().await;
        Ok(())
    }
}

#[async_trait]
impl InvalidationBus for Remote {
    fn subscribe(&self, _: std::sync::Weak<dyn InvalidationListener>) {}
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        self.call().await.map_err(BusError::unavailable)?;
        self.0.heard.lock().push(what.clone());
        Ok(())
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        let done = std::mem::replace(&mut yielded, true);
        context.waker().wake_by_ref();
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

struct Desk {
    jobs: Jobs,
    clock: ManualClock,
    store: FaultyStore,
    trail: AuditTrail,
    key: KeyId,
}

impl Desk {
    fn new(sinks: &[&Remote]) -> Self {
        Self::with(sinks, |trail| trail, |_| {})
    }

    fn with(
        sinks: &[&Remote],
        set: impl FnOnce(AuditTrailBuilder) -> AuditTrailBuilder,
        also: impl FnOnce(&mut Parts),
    ) -> Self {
        let (clock, store) = (ManualClock::new(), FaultyStore::new());
        let trail = AuditTrail::builder().clock(clock.clone());
        let trail = sinks
            .iter()
            .fold(trail, |trail, sink| trail.sink((*sink).clone()));
        let trail = set(trail).build();
        let record = record(&clock);
        let key = record.id.clone();
        let insert = Change::Insert {
            digest: KeyDigest::new(DigestScheme::Sha256, [1; 32]),
            record: Box::new(record),
        };
        let batch = WriteBatch::new().change(insert);
        futures_util::FutureExt::now_or_never(store.apply(&batch))
            .unwrap()
            .unwrap();
        let mut parts = Parts {
            counts: store.usage(),
            usage: UsageRecorder::default(),
            cache: None,
            trail: Some(trail.clone()),
            authenticator: None,
            retention: Retention::default(),
            clock: Arc::new(clock.clone()),
        };
        also(&mut parts);
        let jobs = Jobs::new(parts);
        Self {
            jobs,
            clock,
            store,
            trail,
            key,
        }
    }

    fn note(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let mut event = self.trail.event(Action::KeyIssue, AuditOutcome::Ok);
            event.count = Some(number);
            self.trail.note_act(event);
        }
    }

    fn count(&self, uses: u64) {
        let cell = self.jobs.parts.usage.cell(&self.key);
        (0..uses).for_each(|_| cell.count(self.clock.now(), None));
    }

    async fn used(&self) -> u64 {
        let counts = self.store.inner().usage().unwrap();
        let usage = counts.usage_of(std::slice::from_ref(&self.key)).await;
        usage.unwrap()[0].count
    }

    /// The next second's call.
    async fn next(&self) -> Maintenance {
        self.clock.advance(Duration::from_secs(1));
        self.jobs.maintain().await
    }
}

fn record(clock: &ManualClock) -> KeyRecord {
    let owner = Owner::tenant("tenant".parse().unwrap());
    KeyRecord::new(
        KeyId::generate().unwrap(),
        "key",
        crate::key::KeyKind::App,
        "live".parse().unwrap(),
        owner,
        clock.now(),
    )
}

fn names(maintenance: &Maintenance) -> Vec<&str> {
    let names = maintenance.failures.iter();
    names.map(|(name, _)| name.as_str()).collect()
}

// ---- one call ----

#[tokio::test]
async fn one_call_writes_usage_and_events_and_says_how_much() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]);
    desk.note(0..3);
    desk.count(2);
    let done = desk.jobs.maintain().await;
    assert_eq!((done.uses_written, done.events_written), (2, 3));
    assert_eq!((done.uses_waiting, done.events_waiting), (0, 0));
    assert_eq!(names(&done), [""; 0]);
    assert_eq!((desk.used().await, sink.events()), (2, vec![0, 1, 2]));
    let nothing = desk.next().await;
    assert_eq!((nothing.uses_written, nothing.events_written), (0, 0));
}

#[tokio::test]
async fn a_call_does_only_what_is_due() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]);
    desk.jobs.maintain().await;
    desk.count(1);
    desk.note([1]);
    // The time of day says nothing about what is due.
    desk.clock
        .step_to(desk.clock.now() + Duration::from_secs(60));
    let done = desk.jobs.maintain().await;
    assert_eq!((done.uses_written, done.events_written), (0, 0));
    assert_eq!((done.uses_waiting, done.events_waiting), (1, 1));
    desk.clock.advance(Duration::from_millis(200));
    assert_eq!(desk.jobs.maintain().await.events_written, 1);
    desk.clock.advance(Duration::from_millis(300));
    assert_eq!(desk.jobs.maintain().await.uses_written, 1);
}

#[tokio::test]
async fn a_flush_that_somebody_asked_for_is_done_by_the_next_call() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]);
    desk.jobs.maintain().await;
    desk.note([1]);
    let asked = tokio::spawn(desk.trail.request_flush());
    assert_eq!(desk.jobs.maintain().await.events_written, 1);
    asked.await.unwrap();
}

#[tokio::test]
async fn what_is_old_is_deleted_once_an_hour() {
    let day = Duration::from_secs(24 * 60 * 60);
    let log = MemoryAudit::new(100);
    let also = |trail: AuditTrailBuilder| trail.sink(log.clone());
    let desk = Desk::with(&[], also, |parts| parts.retention.usage = Some(day));
    desk.count(1);
    desk.note([1]);
    desk.next().await;
    desk.clock.advance(day * 2);
    desk.count(1);
    desk.note([2]);
    let done = desk.next().await;
    assert_eq!((done.hours_deleted, done.events_deleted), (1, 0));
    desk.clock.advance(day * 89);
    let done = desk.next().await;
    assert_eq!((done.hours_deleted, done.events_deleted), (1, 1));
    assert_eq!(log.all().len(), 1);
    // Within the hour nobody asks again.
    desk.store.fail(Point::Before(Call::ForgetUsageBefore));
    assert_eq!(names(&desk.next().await), [""; 0]);
    desk.clock.advance(Duration::from_secs(3600));
    assert_eq!(names(&desk.next().await), ["delete old usage"]);
}

#[tokio::test]
async fn what_has_no_retention_is_kept_for_good() {
    let sink = Remote::default();
    let desk = Desk::with(
        &[&sink],
        |trail| trail,
        |parts| {
            parts.retention = Retention {
                usage: None,
                events: None,
            };
        },
    );
    desk.count(1);
    desk.next().await;
    desk.clock.advance(Duration::from_secs(1_000_000_000));
    assert_eq!(desk.next().await.hours_deleted, 0);
}

#[derive(Debug, Clone, Default)]
struct Swept(Arc<AtomicU64>);

#[async_trait]
impl RateLimiter for Swept {
    async fn acquire(&self, _: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        Ok(Decision::admitted())
    }
    fn sweep(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_service_runs_the_jobs_of_all_its_parts() {
    let (sink, limiter, clock) = (MemoryAudit::new(100), Swept::default(), ManualClock::new());
    let format = KeyFormat::builder("test_")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let trail = AuditTrail::builder()
        .sink(sink.clone())
        .clock(clock.clone());
    let (store, newer) = (MemoryStore::new(), KeyHasher::sha256());
    let keys = |credentials: Credentials| {
        Portunus::builder(credentials)
            .store(store.clone())
            .limits(Limits::default().limiter(limiter.clone()))
            .clock(clock.clone())
    };
    let old = newer.clone().accept_sha512().unwrap();
    let credentials = || Credentials::from(format.clone()).hasher(old.clone());
    let keys = keys(credentials()).audit(trail.build()).build().unwrap();
    // A key whose digest comes from elsewhere, under an older scheme.
    let secret = format.generate(None, None).unwrap().reveal();
    let digest = <sha2::Sha512 as sha2::Digest>::digest(secret.as_bytes());
    let digest = ImportedDigest::new("sha512", &digest).unwrap();
    let new = NewKey::new("first", Owner::tenant("tenant".parse().unwrap()));
    let import = NewImport::new(digest, new);
    let id = keys
        .manager()
        .import(import)
        .await
        .unwrap()
        .record
        .id
        .clone();
    let request = TestRequest::get("/").bearer(&secret);
    keys.authenticator().authenticate(&request).await.unwrap();
    let done = keys.maintain().await;
    assert_eq!(
        (done.uses_written, done.rehashes_written),
        (1, 1),
        "{done:?}"
    );
    assert_eq!(done.events_written, 1, "{done:?}");
    assert_eq!(keys.manager().get(&id).await.unwrap().usage.count, 1);
    for _ in 0..60 {
        clock.advance(Duration::from_secs(1));
        keys.maintain().await;
    }
    assert_eq!(limiter.0.load(Ordering::SeqCst), 3, "twice a minute");
}

// ---- what hangs or fails ----

#[tokio::test]
async fn a_sink_that_hangs_and_a_store_that_hangs_stop_nothing_else() {
    let (good, bad) = (Remote::default(), Remote::default());
    for sinks in [[&good, &bad], [&bad, &good]] {
        let desk = Desk::new(&sinks);
        bad.hang(true);
        desk.store.hold(RECORD);
        desk.note(0..2);
        desk.count(1);
        let began = std::time::Instant::now();
        let done = desk.next().await;
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(done.events_written, 2);
        assert_eq!(done.uses_waiting, 1);
        assert_eq!(done.events_waiting, 2, "one sink has them to come");
        let mut failed = names(&done);
        failed.sort_unstable();
        let sink = if std::ptr::eq(sinks[0], &raw const bad) {
            1
        } else {
            2
        };
        let of_sink = format!("write the events of audit sink {sink}");
        assert_eq!(failed, [of_sink.as_str(), "write usage"]);
        bad.hang(false);
        desk.store.release(RECORD);
        let done = desk.next().await;
        assert_eq!((done.uses_written, done.events_waiting), (1, 0));
        assert_eq!((bad.events(), good.events()), (vec![0, 1], vec![0, 1]));
        bad.0.events.lock().clear();
        good.0.events.lock().clear();
    }
}

#[tokio::test]
async fn what_becomes_due_while_another_job_hangs_is_done_meanwhile() {
    let (good, bad) = (Remote::default(), Remote::default());
    let desk = Arc::new(Desk::new(&[&bad, &good]));
    bad.hang(true);
    desk.note([1]);
    let call = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { desk.jobs.maintain().await }
    });
    until(|| good.events() == [1]).await;
    desk.note([2]);
    desk.clock.advance(Duration::from_millis(200));
    until(|| good.events() == [1, 2]).await;
    // And what somebody asks for, at once.
    desk.note([3]);
    let asked = tokio::spawn(desk.trail.request_flush());
    until(|| good.events() == [1, 2, 3]).await;
    assert!(!call.is_finished(), "the other one hangs");
    assert_eq!(names(&call.await.unwrap()).len(), 1);
    asked.await.unwrap();
}

/// Waits until this holds, ten seconds at most.
async fn until(holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < end, "it does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_job_that_fails_says_why_and_is_tried_again() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]);
    sink.fail(true);
    desk.store.fail(RECORD);
    desk.note([1]);
    desk.count(1);
    let done = desk.next().await;
    let why: Vec<_> = done
        .failures
        .iter()
        .map(|(_, why)| why.to_string())
        .collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(
        why.contains(&"the audit log gave no answer".to_owned()),
        "{why:?}"
    );
    sink.fail(false);
    desk.store.recover();
    let done = desk.next().await;
    assert_eq!((done.uses_written, done.events_written), (1, 1));
    assert_eq!(names(&done), [""; 0]);
}

#[tokio::test]
async fn what_a_hanging_sink_leaves_waiting_is_bounded_and_told() {
    let sink = Remote::default();
    let desk = Desk::with(&[&sink], |trail| trail.capacity(10), |_| {});
    sink.hang(true);
    let mut lost = 0;
    // More acts than may wait: 1024 of them, and those that are being given.
    for round in 0..40 {
        desk.note(round * 100..round * 100 + 100);
        let call = desk.next();
        lost += poll_often(call).map_or(0, |done| done.events_lost);
    }
    assert!(
        desk.trail.pending() <= 1024 + 512,
        "{}",
        desk.trail.pending()
    );
    sink.hang(false);
    let done = desk.next().await;
    lost += done.events_lost;
    assert_eq!(done.events_waiting, 0);
    let kept = u64::try_from(sink.events().len()).unwrap();
    assert!(lost > 2000, "{lost}");
    assert_eq!(kept + lost, 4000);
    let last = sink.0.events.lock().last().cloned().unwrap();
    assert_eq!((last.action, last.count), (Action::EventsLost, Some(lost)));
}

// ---- calls that are dropped, and calls at once ----

/// Polls a call some times, then drops it; what it came to, if it ended.
fn poll_often<T>(call: impl Future<Output = T>) -> Option<T> {
    poll(call, 50)
}

fn poll<T>(call: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut call: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(call);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match call.as_mut().poll(&mut context) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    })
}

#[tokio::test]
async fn a_call_that_is_dropped_at_any_await_loses_nothing() {
    for times in 0.. {
        let (sink, bus) = (Remote::default(), Remote::default());
        let (clock, part) = (ManualClock::new(), FaultyStore::new());
        let cache = CachedStore::builder(part.clone()).bus(bus.clone());
        let cache = cache.clock(clock.clone()).build();
        bus.fail(true);
        let _ = cache
            .apply(&WriteBatch::new().change(Change::Delete(record(&clock).id)))
            .await;
        bus.fail(false);
        let desk = Desk::with(&[&sink], |trail| trail, |parts| parts.cache = Some(cache));
        desk.store.answer_late(3);
        desk.note(0..3);
        desk.count(4);
        let asked = desk.trail.request_flush();
        let ended = poll(desk.jobs.maintain(), times);
        let told = ended.as_ref().map_or(0, |done| done.uses_written);
        let done = desk.next().await;
        assert_eq!(names(&done), [""; 0], "after {times}");
        assert_eq!((done.uses_waiting, done.events_waiting), (0, 0));
        assert!(desk.used().await >= 4, "after {times}");
        assert!(
            told + done.uses_written >= 4,
            "the work of a dropped call is told"
        );
        let mut kept = sink.events();
        kept.dedup();
        // Given again after it was broken off: sinks know them by their ids.
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept, [0, 1, 2], "after {times}");
        asked.await;
        if ended.is_some() {
            assert!(times > 3, "there are awaits to be dropped at");
            return;
        }
    }
}

#[tokio::test]
async fn no_job_runs_twice_at_once_and_no_call_waits_for_another() {
    let sink = Remote::default();
    let desk = Arc::new(Desk::new(&[&sink]));
    sink.hang(true);
    desk.note([1]);
    let first = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { desk.jobs.maintain().await }
    });
    until(|| sink.calls() == 1).await;
    desk.count(1);
    for _ in 0..3 {
        desk.clock.advance(Duration::from_secs(1));
        let second = desk.jobs.maintain();
        let second = tokio::time::timeout(Duration::from_secs(2), second);
        assert_eq!(names(&second.await.unwrap()), [""; 0]);
    }
    assert_eq!((desk.used().await, sink.calls()), (1, 1));
    assert_eq!(first.await.unwrap().failures.len(), 1);
    sink.hang(false);
    let all = (0..8).map(|_| desk.next());
    join_all(all).await;
    assert_eq!(sink.0.most_at_once.load(Ordering::SeqCst), 1);
    assert_eq!(sink.events(), [1]);
}

// ---- telling other nodes ----

#[tokio::test]
async fn what_the_bus_could_not_be_told_is_told_by_the_next_call() {
    let (clock, bus) = (ManualClock::new(), Remote::default());
    let cache = CachedStore::builder(FaultyStore::new()).bus(bus.clone());
    let cache = cache.clock(clock.clone()).build();
    let part = cache.clone();
    let desk = Desk::with(&[], |trail| trail, |parts| parts.cache = Some(part));
    bus.fail(true);
    let insert = Change::Insert {
        digest: KeyDigest::new(DigestScheme::Sha256, [2; 32]),
        record: Box::new(record(&clock)),
    };
    cache
        .apply(&WriteBatch::new().change(insert))
        .await
        .unwrap_err();
    let done = desk.next().await;
    assert_eq!(names(&done), ["tell other nodes of changes"]);
    assert_eq!((done.changes_published, done.changes_waiting), (0, 1));
    bus.fail(false);
    let done = desk.next().await;
    assert_eq!((done.changes_published, done.changes_waiting), (1, 0));
    assert_eq!(bus.0.heard.lock().len(), 1);
}

// ---- run ----

#[cfg(feature = "tokio")]
mod run {
    use super::*;

    fn start(
        desk: &Arc<Desk>,
    ) -> (
        tokio::sync::oneshot::Sender<()>,
        tokio::task::JoinHandle<Maintenance>,
    ) {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let desk = Arc::clone(desk);
        let run = async move { desk.jobs.run(async move { drop(stopped.await) }).await };
        (stop, tokio::spawn(run))
    }

    #[tokio::test]
    async fn it_writes_when_it_is_due_and_at_once_when_it_is_asked() {
        let sink = Remote::default();
        let desk = Arc::new(Desk::new(&[&sink]));
        let (stop, run) = start(&desk);
        desk.note([1]);
        until(|| sink.events() == [1]).await;
        desk.note([2]);
        // Nothing is due while the clock stands still, but somebody asks.
        desk.trail.request_flush().await;
        assert_eq!(sink.events(), [1, 2]);
        desk.note([3]);
        desk.clock.advance(Duration::from_secs(1));
        until(|| sink.events() == [1, 2, 3]).await;
        drop(stop);
        assert_eq!(run.await.unwrap().events_written, 3);
    }

    #[tokio::test]
    async fn it_ends_with_all_that_waits_due_or_not() {
        let sink = Remote::default();
        let desk = Arc::new(Desk::new(&[&sink]));
        let (stop, run) = start(&desk);
        desk.note([1]);
        until(|| sink.events() == [1]).await;
        desk.note(2..1000);
        desk.count(7);
        drop(stop);
        let done = run.await.unwrap();
        assert_eq!((done.uses_written, done.events_written), (7, 999));
        assert_eq!((done.uses_waiting, done.events_waiting), (0, 0));
        assert_eq!(desk.used().await, 7);
    }

    #[tokio::test]
    async fn what_cannot_be_written_at_the_end_is_told_as_lost_within_the_limit() {
        let (good, bad) = (Remote::default(), Remote::default());
        let desk = Arc::new(Desk::new(&[&bad, &good]));
        bad.hang(true);
        desk.store.hold(RECORD);
        let (stop, run) = start(&desk);
        desk.note(0..5);
        desk.count(3);
        drop(stop);
        let done = tokio::time::timeout(LAST_ROUND + LIMIT, run)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((done.uses_waiting, done.events_waiting), (3, 5));
        assert_eq!(good.events(), [0, 1, 2, 3, 4]);
        assert_eq!(names(&done).len(), 2, "{done:?}");
    }
}

// ---- nobody runs them ----

#[cfg(feature = "tracing")]
mod forgotten {
    use super::*;

    /// Counts lines of level ERROR that name the call.
    #[derive(Clone, Default)]
    struct Errors(Arc<AtomicU64>);

    struct Names(bool);

    impl tracing::field::Visit for Names {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
            let text = format!("{value:?}");
            self.0 |= text.contains("Portunus::run") && text.contains("Portunus::maintain");
        }
    }

    impl tracing::Subscriber for Errors {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut names = Names(false);
            event.record(&mut names);
            self.0.fetch_add(u64::from(names.0), Ordering::SeqCst);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// How many lines there are after uses at these seconds, where jobs are run at one of them.
    fn lines(uses: &[u64], run_at: Option<u64>) -> u64 {
        let errors = Errors::default();
        let _guard = tracing::subscriber::set_default(errors.clone());
        let desk = Desk::new(&[]);
        // Long before anybody calls.
        desk.clock.advance(Duration::from_secs(1000));
        for second in 0..60 {
            (run_at == Some(second)).then(|| poll_often(desk.jobs.maintain()));
            if uses.contains(&second) {
                desk.count(1);
            }
            desk.clock.advance(Duration::from_secs(1));
        }
        errors.0.load(Ordering::SeqCst)
    }

    #[test]
    fn jobs_that_nobody_runs_for_ten_seconds_after_the_first_use_are_told_once() {
        assert_eq!(lines(&[5, 14], None), 0);
        assert_eq!(lines(&[5, 15], None), 1);
        assert_eq!(lines(&[5, 14, 16, 30, 50], None), 1);
        assert_eq!(lines(&[5, 30], Some(2)), 0);
        assert_eq!(lines(&[5, 30], Some(20)), 0);
        assert_eq!(lines(&[5, 15, 30], Some(20)), 1);
    }

    #[test]
    fn an_authenticator_without_a_service_has_no_jobs_that_could_be_forgotten() {
        let errors = Errors::default();
        let _guard = tracing::subscriber::set_default(errors.clone());
        let usage = UsageRecorder::default();
        let cell = usage.cell(&KeyId::generate().unwrap());
        (0..1000).for_each(|second| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            cell.count(now, None);
        });
        assert_eq!(errors.0.load(Ordering::SeqCst), 0);
    }
}
