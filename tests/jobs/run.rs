//! The jobs as a task: until the shutdown signal, and the final run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use portunus::audit::{AuditError, AuditEvent, AuditSink, MemoryAudit};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::store::{Cache, MemoryStore, StoredKey};
use portunus::{Maintenance, Portunus, PortunusBuilder};
use portunus_test_support::{Head, format, tenant};

use crate::desk::{Desk, RECORD, Remote, names, until};

fn start(
    desk: &Arc<Desk>,
) -> (
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<Maintenance>,
) {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let desk = Arc::clone(desk);
    let run = async move { desk.keys.run(async move { drop(stopped.await) }).await };
    (stop, tokio::spawn(run))
}

#[tokio::test]
async fn it_writes_when_it_is_due_and_at_once_when_it_is_asked() {
    let sink = Remote::default();
    let desk = Arc::new(Desk::new(&[&sink]).await);
    let (stop, run) = start(&desk);
    desk.note([1]);
    until(|| sink.events() == [1]).await;
    desk.note([2]);
    // Nothing is due while the clock does not advance, but a flush is requested.
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
    let desk = Arc::new(Desk::new(&[&sink]).await);
    let (stop, run) = start(&desk);
    desk.note([1]);
    until(|| sink.events() == [1]).await;
    desk.note(2..1000);
    desk.count(7).await;
    drop(stop);
    let done = run.await.unwrap();
    assert_eq!((done.uses_written, done.events_written), (7, 999));
    assert_eq!((done.uses_waiting, done.events_waiting), (0, 0));
    assert_eq!(desk.used().await, 7);
}

#[tokio::test]
async fn events_that_cannot_be_written_at_the_end_are_reported_as_lost_within_the_limit() {
    let (good, bad) = (Remote::default(), Remote::default());
    let desk = Arc::new(Desk::new(&[&bad, &good]).await);
    bad.hang(true);
    desk.store.hold(RECORD);
    let (stop, run) = start(&desk);
    desk.note(0..5);
    desk.count(3).await;
    drop(stop);
    let done = tokio::time::timeout(Duration::from_secs(20), run)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((done.uses_waiting, done.events_waiting), (3, 5));
    assert_eq!(good.events(), [0, 1, 2, 3, 4]);
    assert_eq!(names(&done).len(), 2, "{done:?}");
}

/// A sink that waits on the runtime's own timer, like those of databases.
#[derive(Debug)]
struct ByTimer(MemoryAudit);

#[async_trait]
impl AuditSink for ByTimer {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.record(events).await
    }
}

#[tokio::test]
async fn the_final_run_lets_the_runtime_make_progress() {
    let log = MemoryAudit::new(10);
    let (quick, slow) = (Remote::default(), ByTimer(log.clone()));
    let desk = Desk::with(&[&quick], |trail| trail.sink(slow), |keys| keys).await;
    let desk = Arc::new(desk);
    let (stop, run) = start(&desk);
    desk.note([1, 2, 3]);
    drop(stop);
    let done = run.await.unwrap();
    assert_eq!(done.events_waiting, 0, "{done:?}");
    assert!(done.failures.is_empty(), "{done:?}");
    assert_eq!(log.all().len(), 3);
}

#[tokio::test]
async fn uses_that_take_several_writes_are_written_at_the_end_although_a_sink_fails() {
    for stopped in ["before a write", "during a write", "between two writes"] {
        let bad = Remote::default();
        let desk = Arc::new(Desk::new(&[&bad]).await);
        let (stop, run) = start(&desk);
        desk.note([0]);
        until(|| bad.events() == [0]).await;
        let (heads, ids) = desk.many_keys(2_500).await;
        desk.use_all(&heads).await;
        let next_is_slow = || {
            let clock = desk.clock.clone();
            let slow = async move { clock.advance(Duration::from_secs(3)) };
            desk.store.once(RECORD, slow);
        };
        let written = || desk.used_of(&ids);
        let mut uses = 2_500;
        match stopped {
            "during a write" => {
                desk.store.hold(RECORD);
                desk.clock.advance(Duration::from_millis(500));
                until(|| desk.store.in_flight() > 0).await;
            }
            "between two writes" => {
                next_is_slow();
                desk.clock.advance(Duration::from_millis(500));
                until(|| written().now_or_never() >= Some(1000)).await;
                // Also those that are written already.
                desk.use_all(&heads).await;
                uses += 2_500;
            }
            _ => {}
        }
        (0..3).for_each(|_| next_is_slow());
        bad.fail(true);
        desk.note([1]);
        let calls = bad.calls();
        drop(stop);
        // The last round has begun.
        until(|| bad.calls() > calls).await;
        desk.store.release(RECORD);
        let done = run.await.unwrap();
        assert_eq!((done.uses_waiting, written().await), (0, uses), "{stopped}");
        assert_eq!(names(&done), ["write the events of audit sink 1"]);
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_at_the_end_keeps_no_others_back() {
    let sink = Remote::default();
    let desk = Arc::new(Desk::new(&[&sink]).await);
    let (stop, run) = start(&desk);
    desk.note([0]);
    until(|| sink.events() == [0]).await;
    let (heads, ids) = desk.many_keys(2_500).await;
    desk.use_all(&heads).await;
    desk.store.fail(RECORD);
    let store = desk.store.clone();
    desk.store.once(RECORD, async {});
    desk.store.once(RECORD, async move { store.recover() });
    drop(stop);
    let done = run.await.unwrap();
    assert_eq!(
        (done.uses_waiting, names(&done)),
        (1000, vec!["write usage"])
    );
    assert_eq!(desk.used_of(&ids[1000..]).await, 1500);
}

#[tokio::test]
async fn a_service_that_only_looks_keys_up_counts_no_uses_and_stops_at_once() {
    let store = MemoryStore::new();
    let issuer = Portunus::builder(format()).store(store.clone());
    let issuer = issuer.build().unwrap();
    let new = NewKey::new("a key", Owner::tenant(tenant("acme")));
    let issued = issuer.manager().issue(new).await.unwrap();
    let keys = Portunus::builder(format()).lookup(store.clone());
    let keys = keys.build().unwrap();
    let head = Head::bearer(&issued.key.reveal());
    keys.authenticator().authenticate(&head).await.unwrap();
    assert_eq!(keys.authenticator().usage().pending(), 0);
    let begun = Instant::now();
    let done = keys.run(async {}).await;
    assert_eq!((done.uses_waiting, names(&done)), (0, vec![]));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_used_key_that_the_cache_has_dropped_is_released_before_its_uses_are_written() {
    let seldom = |keys: PortunusBuilder| {
        let keys = keys.count_uses_every(Duration::from_secs(600));
        keys.cache(Cache::none())
    };
    let sink = Remote::default();
    let desk = Arc::new(Desk::with(&[&sink], |trail| trail, seldom).await);
    let (stop, run) = start(&desk);
    // The first round, in which everything is due.
    desk.note([1]);
    until(|| sink.events() == [1]).await;
    let digest = desk.digest();
    let found = desk.store.inner().find(&[digest]).await.unwrap().unwrap();
    let record = Arc::clone(found.record());
    // As from a database: nothing else has it.
    let stored = Arc::new(StoredKey::new(digest, record));
    desk.store.always_find(Arc::clone(&stored));
    let before = Arc::strong_count(&stored);
    desk.count(1).await;
    assert_eq!(Arc::strong_count(&stored), before + 1);
    desk.clock.advance(Duration::from_secs(5));
    until(|| Arc::strong_count(&stored) == before).await;
    assert_eq!(desk.used().await, 0);
    drop(stop);
    assert_eq!(run.await.unwrap().uses_written, 1);
}
