//! Delivery to sinks: every event once and in order, whatever fails, blocks or is dropped; and the
//! events that are kept in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portunus::Authenticator;
use portunus::audit::{
    AuditError, AuditEvent, AuditReader, AuditSink, AuditTrail, EventQuery, MemoryAudit,
};
use portunus_test_support::{Fixture, Head};
use tokio::sync::Semaphore;

/// A sink that fails or blocks on demand, and keeps what it receives.
#[derive(Debug, Clone)]
struct Moody {
    kept: Arc<Mutex<Vec<AuditEvent>>>,
    fails: Arc<AtomicBool>,
    /// As many calls may continue as there are permits.
    gate: Arc<Semaphore>,
    largest: Arc<Mutex<usize>>,
}

impl Moody {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self {
            kept: Arc::default(),
            fails: Arc::default(),
            gate,
            largest: Arc::default(),
        }
    }
    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
    fn kept(&self) -> Vec<AuditEvent> {
        self.kept.lock().unwrap().clone()
    }
    fn routes(&self) -> Vec<u32> {
        self.kept()
            .iter()
            .filter_map(|event| event.route.as_ref()?.parse().ok())
            .collect()
    }
    /// How many events the trail reported as missing.
    fn told_missing(&self) -> u64 {
        self.kept().iter().filter_map(|event| event.count).sum()
    }
}

#[async_trait]
impl AuditSink for Moody {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        self.gate.acquire().await.unwrap().forget();
        let mut largest = self.largest.lock().unwrap();
        *largest = events.len().max(*largest);
        if self.fails.load(Ordering::SeqCst) {
            return Err(AuditError::unavailable("the disk is full"));
        }
        self.kept.lock().unwrap().extend(events.iter().cloned());
        Ok(())
    }
}

struct Desk {
    trail: AuditTrail,
    authenticator: Authenticator,
}

fn desk(sinks: &[&Moody], capacity: usize) -> Desk {
    let fixture = Fixture::new();
    let builder = AuditTrail::builder()
        .capacity(capacity)
        .failures_per_source(None);
    let trail = sinks
        .iter()
        .fold(builder, |builder, sink| builder.sink((*sink).clone()))
        .build();
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    Desk {
        trail,
        authenticator,
    }
}

impl Desk {
    /// Records one event for each of these.
    fn note(&self, routes: impl IntoIterator<Item = u32>) {
        for route in routes {
            let request_audit = self
                .authenticator
                .request_audit(&Head::new().at(&route.to_string()))
                .unwrap();
            request_audit.answered(
                401,
                Some(&portunus::AuthError::new(portunus::ErrorCode::MissingKey)),
            );
        }
    }
}

// ---- requests ----

#[tokio::test]
async fn events_come_in_order_and_in_batches_that_a_sink_can_take() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 5000);
    desk.note(0..3000);
    desk.trail.flush().await.unwrap();
    assert_eq!(sink.routes(), (0..3000).collect::<Vec<_>>());
    assert!(*sink.largest.lock().unwrap() <= 1000);
    desk.trail.flush().await.unwrap();
    assert_eq!(sink.kept().len(), 3000);
}

#[tokio::test]
async fn a_sink_that_fails_keeps_no_other_from_its_events_and_gets_its_own_later() {
    let (good, bad) = (Moody::new(), Moody::new());
    for sinks in [[&good, &bad], [&bad, &good]] {
        let desk = desk(&sinks, 100);
        bad.fail(true);
        for round in 0..3 {
            desk.note(round * 10..round * 10 + 10);
            let begun = (round as usize + 1) * 10;
            assert_eq!(desk.trail.pending(), begun);
            desk.trail.flush().await.unwrap_err();
            assert_eq!(desk.trail.pending(), begun);
            assert_eq!(good.routes(), (0..round * 10 + 10).collect::<Vec<_>>());
        }
        assert_eq!(bad.kept(), []);
        bad.fail(false);
        desk.trail.flush().await.unwrap();
        assert_eq!(desk.trail.pending(), 0);
        assert_eq!(bad.kept(), good.kept());
        assert_eq!((bad.kept().len(), desk.trail.dropped()), (30, 0));
        good.kept.lock().unwrap().clear();
        bad.kept.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn pending_events_of_a_failing_sink_are_bounded_and_losses_reported() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 10);
    sink.fail(true);
    for round in 0..5 {
        desk.note(round * 10..round * 10 + 10);
        desk.trail.flush().await.unwrap_err();
    }
    sink.fail(false);
    desk.trail.flush().await.unwrap();
    assert!(sink.kept().len() <= 12, "{}", sink.kept().len());
    let kept = sink.routes().len() as u64;
    assert!(kept > 0 && sink.routes().is_sorted());
    assert_eq!(
        (kept + desk.trail.dropped(), kept + sink.told_missing()),
        (50, 50),
        "every missing event is reported"
    );
}

#[tokio::test]
async fn flushing_again_does_not_drop_pending_events_of_a_failing_sink() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 5);
    sink.fail(true);
    desk.note(0..6);
    for _ in 0..20 {
        desk.trail.flush().await.unwrap_err();
    }
    sink.fail(false);
    desk.trail.flush().await.unwrap();
    assert_eq!(
        (sink.routes(), desk.trail.dropped()),
        ((0..5).collect::<Vec<_>>(), 1),
        "{:?}",
        sink.kept()
    );
    assert_eq!(sink.told_missing(), 1);
}

#[tokio::test]
async fn no_loss_is_reported_to_a_sink_that_received_everything() {
    let (good, bad) = (Moody::new(), Moody::new());
    let desk = desk(&[&good, &bad], 5);
    bad.fail(true);
    for round in 0..4 {
        desk.note(round * 5..round * 5 + 5);
        desk.trail.flush().await.unwrap_err();
    }
    assert_eq!(good.routes().len(), 20);
    assert_eq!(
        good.told_missing(),
        0,
        "`count` is how many events are missing here"
    );
}

#[tokio::test]
async fn an_event_that_two_sinks_lose_is_one_lost_event() {
    let (one, other) = (Moody::new(), Moody::new());
    let desk = desk(&[&one, &other], 5);
    for sink in [&one, &other] {
        sink.fail(true);
    }
    desk.note(0..5);
    desk.trail.flush().await.unwrap_err();
    desk.note(5..8);
    desk.trail.flush().await.unwrap_err();
    assert_eq!(desk.trail.dropped(), 3);
}

#[tokio::test]
async fn two_flushes_keep_the_order_and_wait_for_each_other() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    desk.note(0..10);
    sink.gate.forget_permits(usize::MAX);
    let first = tokio::spawn({
        let trail = desk.trail.clone();
        async move { trail.flush().await }
    });
    tokio::task::yield_now().await;
    desk.note(10..20);
    let second = tokio::spawn({
        let trail = desk.trail.clone();
        async move { trail.flush().await }
    });
    tokio::task::yield_now().await;
    assert!(!first.is_finished() && !second.is_finished() && sink.kept().is_empty());
    sink.gate.add_permits(1);
    first.await.unwrap().unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!((sink.routes().len(), second.is_finished()), (10, false));
    sink.gate.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!(sink.routes(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_flush_without_events_of_its_own_waits_for_one_in_progress() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    desk.note(0..1);
    sink.gate.forget_permits(usize::MAX);
    let spawn = |trail: AuditTrail| tokio::spawn(async move { trail.flush().await });
    let first = spawn(desk.trail.clone());
    tokio::task::yield_now().await;
    let second = spawn(desk.trail.clone());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished(), "nothing is written yet");
    sink.gate.add_permits(2);
    second.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(sink.routes(), [0]);
}

#[tokio::test]
async fn a_flush_that_is_cancelled_loses_nothing() {
    let (sink, other) = (Moody::new(), Moody::new());
    let desk = desk(&[&sink, &other], 2000);
    desk.note(0..1500);
    sink.gate.forget_permits(usize::MAX);
    sink.gate.add_permits(1);
    for _ in 0..3 {
        let trail = desk.trail.clone();
        let flush = tokio::spawn(async move { trail.flush().await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        flush.abort();
        flush.await.unwrap_err();
    }
    assert_eq!(sink.routes().len(), 512, "one batch was taken");
    desk.note(1500..1600);
    sink.gate.add_permits(1000);
    desk.trail.flush().await.unwrap();
    assert_eq!(sink.routes(), (0..1600).collect::<Vec<_>>());
    assert_eq!(other.routes(), (0..1600).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_threads_note_while_others_flush_and_nothing_is_lost_or_doubled() {
    let sink = Moody::new();
    let desk = Arc::new(desk(&[&sink], 100_000));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let desk = Arc::clone(&desk);
            scope.spawn(move || desk.note(thread * 10_000..thread * 10_000 + 2000));
        }
        let desk = Arc::clone(&desk);
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            for _ in 0..50 {
                runtime.block_on(desk.trail.flush()).unwrap();
            }
        });
    });
    desk.trail.flush().await.unwrap();
    let mut routes = sink.routes();
    for thread in 0..4 {
        let of_thread: Vec<_> = routes
            .iter()
            .copied()
            .filter(|route| route / 10_000 == thread)
            .collect();
        assert!(of_thread.is_sorted(), "each thread's own are in order");
    }
    routes.sort_unstable();
    routes.dedup();
    assert_eq!((routes.len(), sink.kept().len()), (8000, 8000));
    let mut ids: Vec<_> = sink.kept().iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8000);
}

#[tokio::test]
async fn old_events_are_evicted_and_later_pages_show_the_rest_once() {
    let (log, events) = filled(100, 20).await;
    let mut query = EventQuery::new();
    query.limit = 5;
    let first = log.events(&query).await.unwrap();
    // By the time in the event, wherever it is in the list.
    let at = events[0].at + Duration::from_secs(1);
    let mut fresh = filled(100, 3).await.1;
    fresh.iter_mut().for_each(|event| event.at = at);
    log.record(&fresh).await.unwrap();
    assert_eq!(log.forget_before(events[0].at).await.unwrap(), 0);
    assert_eq!(log.forget_before(at).await.unwrap(), 20);
    assert_eq!(log.all(), fresh);
    query.before = first.next;
    assert_eq!(log.events(&query).await.unwrap().items, []);
    // An event that was evicted and is delivered again is kept again.
    log.record(&events[..1]).await.unwrap();
    assert_eq!(log.all().len(), 4);
}

#[tokio::test]
async fn events_that_wait_are_bounded_by_their_size_too() {
    let sink = Moody::new();
    let trail = AuditTrail::builder()
        .sink(sink.clone())
        .bytes(20_000)
        .failures_per_source(None)
        .build();
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    let desk = Desk {
        trail,
        authenticator,
    };
    desk.note(0..1000);
    let waiting = desk.trail.pending() as u64;
    assert!((5..50).contains(&waiting), "{waiting}");
    assert_eq!(desk.trail.dropped(), 1000 - waiting);
    sink.fail(true);
    for _ in 0..5 {
        desk.trail.flush().await.unwrap_err();
        desk.note(0..1000);
    }
    assert!(desk.trail.pending() < 100, "{}", desk.trail.pending());
    sink.fail(false);
    desk.trail.flush().await.unwrap();
    let kept = sink.routes().len() as u64;
    assert_eq!(kept + sink.told_missing(), 6000);
}

#[tokio::test]
async fn a_sink_that_hangs_keeps_no_other_from_its_events() {
    let (good, bad) = (Moody::new(), Moody::new());
    for sinks in [[&good, &bad], [&bad, &good]] {
        let desk = desk(&sinks, 100);
        bad.gate.forget_permits(usize::MAX);
        desk.note(0..10);
        let trail = desk.trail.clone();
        let flush = tokio::spawn(async move { trail.flush().await });
        settle().await;
        assert_eq!(good.routes(), (0..10).collect::<Vec<_>>());
        assert!(!flush.is_finished());
        assert_eq!(desk.trail.pending(), 10);
        bad.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        flush.await.unwrap().unwrap();
        assert_eq!(bad.routes(), good.routes());
        good.kept.lock().unwrap().clear();
        bad.kept.lock().unwrap().clear();
    }
}

// ---- requesting a flush ----

/// More polls than any task of these tests needs.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// A task that only flushes on request.
fn flush_when_asked(trail: &AuditTrail) {
    let trail = trail.clone();
    tokio::spawn(async move {
        loop {
            trail.flush_requested().await;
            let _ = trail.flush().await;
        }
    });
}

#[tokio::test]
async fn requesting_a_flush_waits_until_earlier_events_are_written() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    flush_when_asked(&desk.trail);
    for round in 1..=3 {
        desk.note([round]);
        settle().await;
        assert_eq!(sink.routes().len() as u32, round - 1, "nobody has asked");
        desk.trail.request_flush().await;
        assert_eq!(sink.routes().last(), Some(&round));
    }
    // Nothing is pending: no waiting, and no task is needed.
    let idle = AuditTrail::new([sink.clone()]);
    idle.request_flush().await;
}

#[tokio::test]
async fn a_flush_that_began_before_it_was_asked_for_is_not_enough() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    flush_when_asked(&desk.trail);
    sink.gate.forget_permits(usize::MAX);
    desk.note([1]);
    let first = tokio::spawn(desk.trail.request_flush());
    settle().await;
    desk.note([2]);
    let second = tokio::spawn(desk.trail.request_flush());
    sink.gate.add_permits(1);
    first.await.unwrap();
    settle().await;
    assert!(!second.is_finished() && sink.routes() == [1]);
    sink.gate.add_permits(1);
    second.await.unwrap();
    assert_eq!(sink.routes(), [1, 2]);
}

#[tokio::test]
async fn a_dropped_flush_request_affects_no_other() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    flush_when_asked(&desk.trail);
    sink.gate.forget_permits(usize::MAX);
    desk.note([1]);
    for _ in 0..10 {
        let asked = tokio::spawn(desk.trail.request_flush());
        settle().await;
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
    }
    // Dropped before it was first polled: the flush was requested anyway.
    desk.note([2]);
    drop(desk.trail.request_flush());
    sink.gate.add_permits(100);
    settle().await;
    assert_eq!(sink.routes(), [1, 2]);
}

#[tokio::test]
async fn a_flush_that_fails_has_ended_as_well() {
    let sink = Moody::new();
    let desk = desk(&[&sink], 100);
    flush_when_asked(&desk.trail);
    sink.fail(true);
    desk.note([1]);
    desk.trail.request_flush().await;
    assert!(sink.routes().is_empty());
    sink.fail(false);
    desk.trail.request_flush().await;
    assert_eq!(sink.routes(), [1]);
}

// ---- in memory ----

async fn filled(capacity: usize, count: u32) -> (MemoryAudit, Vec<AuditEvent>) {
    let sink = Moody::new();
    let desk = desk(&[&sink], 10_000);
    desk.note(0..count);
    desk.trail.flush().await.unwrap();
    let log = MemoryAudit::new(capacity);
    log.record(&sink.kept()).await.unwrap();
    (log, sink.kept())
}

#[tokio::test]
async fn pages_show_each_event_once_the_last_kept_first() {
    let (log, mut events) = filled(100, 95).await;
    events.reverse();
    for limit in [1, 7, 50, 95, 96, 500] {
        let (mut query, mut seen, mut pages) = (EventQuery::new(), Vec::new(), 0);
        query.limit = limit;
        loop {
            let page = log.events(&query).await.unwrap();
            assert!(page.items.len() <= limit && !page.items.is_empty());
            seen.extend(page.items);
            pages += 1;
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(
            (pages, &seen),
            (95_usize.div_ceil(limit), &events),
            "limit {limit}"
        );
    }
    for limit in [0, usize::MAX] {
        let mut query = EventQuery::new();
        query.limit = limit;
        assert_eq!(
            log.events(&query).await.unwrap().items.len(),
            limit.clamp(1, 95)
        );
    }
}

#[tokio::test]
async fn evictions_and_additions_between_two_pages_cause_no_duplicates() {
    let (log, events) = filled(20, 20).await;
    let mut query = EventQuery::new();
    query.limit = 5;
    let first = log.events(&query).await.unwrap();
    query.before = first.next;
    let (_, fresh) = filled(20, 12).await;
    log.record(&fresh).await.unwrap();
    let second = log.events(&query).await.unwrap();
    assert_eq!(
        second.items,
        [&events[14], &events[13], &events[12]].map(Clone::clone),
        "those that are left"
    );
    assert_eq!(second.next, None);
    log.record(&filled(20, 20).await.1).await.unwrap();
    assert_eq!(log.events(&query).await.unwrap().items, []);
    for before in [0, 1, u64::MAX] {
        query.before = Some(before);
        log.events(&query).await.unwrap();
    }
}

#[tokio::test]
async fn an_event_that_is_given_twice_is_kept_once() {
    let (log, events) = filled(100, 5).await;
    log.record(&events[3..]).await.unwrap();
    assert_eq!(
        log.all().len(),
        5,
        "AuditSink: one that is kept already (by its id) is not kept twice"
    );
}

#[tokio::test]
async fn a_memory_sink_of_capacity_zero_keeps_one_event() {
    let (log, events) = filled(0, 3).await;
    assert_eq!(log.all(), events[2..]);
}
