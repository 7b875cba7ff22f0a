//! One call of the jobs: what it does, loses and reports if something hangs, fails or is dropped.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use portunus::audit::{AuditTrail, AuditTrailBuilder, MemoryAudit};
use portunus::config::{Credentials, Limits};
use portunus::key::{KeyHasher, KeyKind, Owner};
use portunus::limit::{Decision, LimitRequest, LimiterError, RateLimiter};
use portunus::manage::{ImportedDigest, NewImport, NewKey};
use portunus::store::{KeyStore, MemoryStore};
use portunus::testing::{Call, ManualClock, Point};
use portunus::{Clock, Portunus, PortunusBuilder};
use portunus_test_support::{Head, format, live};
use sha2::{Digest, Sha512};

use crate::desk::{Desk, RECORD, Remote, names, poll, until};

// ---- one call ----

#[tokio::test]
async fn one_call_writes_usage_and_events_and_says_how_much() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]).await;
    desk.note(0..3);
    desk.count(2).await;
    let done = desk.keys.maintain().await;
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
    let desk = Desk::new(&[&sink]).await;
    desk.keys.maintain().await;
    desk.count(1).await;
    desk.note([1]);
    // The wall clock does not determine what is due.
    desk.clock
        .step_to(desk.clock.now() + Duration::from_secs(60));
    let done = desk.keys.maintain().await;
    assert_eq!((done.uses_written, done.events_written), (0, 0));
    assert_eq!((done.uses_waiting, done.events_waiting), (1, 1));
    desk.clock.advance(Duration::from_millis(200));
    assert_eq!(desk.keys.maintain().await.events_written, 1);
    desk.clock.advance(Duration::from_millis(300));
    assert_eq!(desk.keys.maintain().await.uses_written, 1);
}

#[tokio::test]
async fn uses_are_written_as_seldom_as_the_host_sets() {
    for (asked, every) in [(60, 60_000), (0, 500), (86_400, 600_000)] {
        let asked = Duration::from_secs(asked);
        let seldom = |keys: PortunusBuilder| keys.count_uses_every(asked);
        let desk = Desk::with(&[], |trail| trail, seldom).await;
        desk.keys.maintain().await;
        desk.count(1).await;
        desk.clock.advance(Duration::from_millis(every - 1));
        assert_eq!(desk.keys.maintain().await.uses_written, 0, "{asked:?}");
        desk.clock.advance(Duration::from_millis(1));
        assert_eq!(desk.keys.maintain().await.uses_written, 1, "{asked:?}");
        desk.count(1).await;
        desk.keys.run(async {}).await;
        assert_eq!(desk.used().await, 2, "a clean stop writes the rest");
    }
}

#[tokio::test]
async fn a_store_that_is_slow_at_writing_uses_rests_twenty_times_as_long() {
    // How long a write takes, and how long after its end the next one begins, in milliseconds.
    for (asked, takes, rests) in [
        (500, 25, 500),
        (500, 26, 520),
        (500, 100, 2000),
        (500, 1000, 5000),
        (7000, 1000, 7000),
        (500, 3000, 5000),
    ] {
        let millis = Duration::from_millis;
        let every = |keys: PortunusBuilder| keys.count_uses_every(millis(asked));
        let desk = Desk::with(&[], |trail| trail, every).await;
        let clock = desk.clock.clone();
        let slow = async move { clock.advance(millis(takes)) };
        desk.store.once(RECORD, slow);
        desk.count(1).await;
        assert_eq!(desk.keys.maintain().await.uses_written, 1);
        desk.count(1).await;
        desk.clock.advance(millis(rests - 1));
        assert_eq!(
            desk.keys.maintain().await.uses_written,
            0,
            "{asked} {takes}"
        );
        desk.clock.advance(millis(1));
        assert_eq!(
            desk.keys.maintain().await.uses_written,
            1,
            "{asked} {takes}"
        );
    }
}

#[tokio::test]
async fn a_write_of_many_uses_pauses_and_then_goes_on_with_the_others() {
    let seldom = |keys: PortunusBuilder| keys.count_uses_every(Duration::from_secs(300));
    let desk = Desk::with(&[], |trail| trail, seldom).await;
    let (heads, keys) = desk.many_keys(2_500).await;
    let next_takes = |millis| {
        let clock = desk.clock.clone();
        let slow = async move { clock.advance(Duration::from_millis(millis)) };
        desk.store.once(RECORD, slow);
    };
    let after = async |millis| {
        desk.clock.advance(Duration::from_millis(millis));
        let done = desk.keys.maintain().await;
        assert_eq!(names(&done), [""; 0]);
        done.uses_written
    };
    // The store gets a thousand keys at a time.
    let (first, second) = (&keys[..1000], &keys[1000..2000]);
    desk.use_all(&heads).await;
    next_takes(2_500);
    assert_eq!((after(0).await, desk.used_of(first).await), (1000, 1000));
    assert_eq!(after(4_999).await, 0);
    // Those that are used again do not push the others back.
    desk.use_all(&heads[..1000]).await;
    next_takes(2_500);
    assert_eq!((after(1).await, desk.used_of(second).await), (1000, 1000));
    // They are written with the next pass, and only after this one does the host's interval begin.
    next_takes(2_499);
    assert_eq!((after(5_000).await, desk.used_of(&keys).await), (500, 2500));
    assert_eq!((after(299_999).await, after(1).await), (0, 1000));
    assert_eq!(desk.used_of(first).await, 2000);
}

#[tokio::test]
async fn a_batch_that_the_store_refuses_keeps_no_others_back() {
    let seldom = |keys: PortunusBuilder| keys.count_uses_every(Duration::from_secs(300));
    let desk = Desk::with(&[], |trail| trail, seldom).await;
    let (heads, keys) = desk.many_keys(1_500).await;
    desk.use_all(&heads).await;
    let after = async |millis| {
        desk.clock.advance(Duration::from_millis(millis));
        let done = desk.keys.maintain().await;
        let failed = names(&done).contains(&"write usage");
        assert_eq!(names(&done).len(), usize::from(failed));
        (done.uses_written, failed)
    };
    let next_takes = |millis, fails| {
        let (clock, store) = (desk.clock.clone(), desk.store.clone());
        let step = async move {
            clock.advance(Duration::from_millis(millis));
            match fails {
                true => store.fail(RECORD),
                false => store.recover(),
            }
        };
        desk.store.once(RECORD, step);
    };
    // The others are written by the same write, which is reported as failed.
    next_takes(0, true);
    next_takes(50, false);
    assert_eq!(
        (after(0).await, desk.used_of(&keys[1000..]).await),
        ((500, true), 500)
    );
    // After the pause, those of the refused batch are tried again.
    assert_eq!(after(999).await, (0, false));
    assert_eq!(
        (after(1).await, desk.used_of(&keys).await),
        ((1000, false), 1500)
    );
    // Now everything is written, and the host's interval begins.
    desk.count(1).await;
    assert_eq!(after(299_999).await, (0, false));
    assert_eq!(after(1).await, (1, false));
}

#[tokio::test]
async fn a_store_that_refuses_two_batches_in_a_row_gets_no_more_of_them() {
    let desk = Desk::new(&[]).await;
    let (heads, _) = desk.many_keys(4_500).await;
    desk.use_all(&heads).await;
    let recover = || {
        let store = desk.store.clone();
        desk.store.once(RECORD, async move { store.recover() });
    };
    let nothing = || desk.store.once(RECORD, async {});
    desk.store.fail(RECORD);
    // The third call would succeed.
    nothing();
    nothing();
    recover();
    let done = desk.keys.maintain().await;
    assert_eq!((done.uses_written, names(&done)), (0, vec!["write usage"]));
    // It goes on behind them, and ends with them.
    let done = desk.next().await;
    assert_eq!((done.uses_written, names(&done)), (4_500, vec![]));
}

#[tokio::test]
async fn a_write_that_is_dropped_is_followed_by_the_keys_behind_it() {
    let desk = Desk::new(&[]).await;
    let (heads, keys) = desk.many_keys(1_500).await;
    desk.use_all(&heads).await;
    desk.store.hold(RECORD);
    assert!(poll(desk.keys.maintain(), 9).is_none());
    assert_eq!(desk.store.in_flight(), 0);
    desk.store.release(RECORD);
    // So slow that the write ends after the first batch that it gives.
    let clock = desk.clock.clone();
    let slow = async move { clock.advance(Duration::from_secs(3)) };
    desk.store.once(RECORD, slow);
    assert_eq!(desk.next().await.uses_written, 500);
    let counts = desk.store.inner().usage().unwrap();
    let usage = counts.usage_of(&keys).await.unwrap();
    let written: Vec<_> = usage.iter().map(|usage| usage.count).collect();
    assert_eq!(written[..1000], [0; 1000]);
    assert_eq!(written[1000..], [1; 500]);
    desk.clock.advance(Duration::from_secs(5));
    assert_eq!(desk.keys.maintain().await.uses_written, 1000);
}

#[tokio::test]
async fn a_flush_by_the_host_writes_all_although_the_jobs_are_in_the_middle() {
    let desk = Desk::new(&[]).await;
    let (heads, _) = desk.many_keys(1_500).await;
    desk.use_all(&heads).await;
    let clock = desk.clock.clone();
    let slow = async move { clock.advance(Duration::from_secs(3)) };
    desk.store.once(RECORD, slow);
    assert_eq!(desk.keys.maintain().await.uses_written, 1000);
    desk.use_all(&heads).await;
    let (usage, counts) = (
        desk.keys.authenticator().usage(),
        desk.store.usage().unwrap(),
    );
    usage.flush(&*counts).await.unwrap();
    assert_eq!(usage.pending(), 0);
    desk.use_all(&heads).await;
    // A batch that is refused keeps no others back, and is not the first one of the next flush.
    desk.store.fail(RECORD);
    let store = desk.store.clone();
    desk.store.once(RECORD, async {});
    desk.store.once(RECORD, async move { store.recover() });
    usage.flush(&*counts).await.unwrap_err();
    assert_eq!(usage.pending(), 1000);
    usage.flush(&*counts).await.unwrap();
    assert_eq!(usage.pending(), 0);
    // In the middle, too: what is before it is written by the next pass, and the batch itself, if it is
    // accepted then.
    desk.use_all(&heads).await;
    let clock = desk.clock.clone();
    let slow = async move { clock.advance(Duration::from_secs(3)) };
    desk.store.once(RECORD, slow);
    desk.clock.advance(Duration::from_secs(5));
    assert_eq!(desk.keys.maintain().await.uses_waiting, 500);
    desk.use_all(&heads).await;
    desk.store.fail(RECORD);
    let store = desk.store.clone();
    desk.store.once(RECORD, async {});
    desk.store.once(RECORD, async move { store.recover() });
    usage.flush(&*counts).await.unwrap();
    assert_eq!(usage.pending(), 0);
}

#[tokio::test]
async fn a_store_that_refuses_uses_slowly_or_hangs_has_the_same_pause() {
    // How long the store takes, and how long after that it is tried again; without an answer, the job's
    // time limit is five seconds.
    for (takes, hangs, rests) in [(10, false, 500), (200, false, 4000), (5000, true, 5000)] {
        let millis = Duration::from_millis;
        let desk = Desk::new(&[]).await;
        let clock = desk.clock.clone();
        let slow = async move {
            clock.advance(millis(takes));
            if hangs {
                pending::<()>().await;
            }
        };
        desk.store.once(RECORD, slow);
        desk.store.fail(RECORD);
        desk.count(1).await;
        assert_eq!(names(&desk.keys.maintain().await), ["write usage"]);
        desk.store.recover();
        desk.clock.advance(millis(rests - 1));
        assert_eq!(desk.keys.maintain().await.uses_written, 0, "{takes}");
        desk.clock.advance(millis(1));
        assert_eq!(desk.keys.maintain().await.uses_written, 1, "{takes}");
    }
}

#[tokio::test]
async fn a_requested_flush_is_done_by_the_next_call() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]).await;
    desk.keys.maintain().await;
    desk.note([1]);
    let asked = tokio::spawn(desk.trail.request_flush());
    assert_eq!(desk.keys.maintain().await.events_written, 1);
    asked.await.unwrap();
}

#[tokio::test]
async fn old_data_is_deleted_once_an_hour() {
    let day = Duration::from_secs(24 * 60 * 60);
    let log = MemoryAudit::new(100);
    let also = |trail: AuditTrailBuilder| trail.sink(log.clone());
    let kept = |keys: PortunusBuilder| keys.retention(Some(day), Some(90 * day));
    let desk = Desk::with(&[], also, kept).await;
    desk.count(1).await;
    desk.note([1]);
    desk.next().await;
    desk.clock.advance(day * 2);
    desk.count(1).await;
    desk.note([2]);
    let done = desk.next().await;
    assert_eq!((done.hours_deleted, done.events_deleted), (1, 0));
    desk.clock.advance(day * 89);
    let done = desk.next().await;
    assert_eq!((done.hours_deleted, done.events_deleted), (1, 1));
    assert_eq!(log.all().len(), 1);
    // Within the hour the store is not queried again.
    desk.store.fail(Point::Before(Call::ForgetUsageBefore));
    assert_eq!(names(&desk.next().await), [""; 0]);
    desk.clock.advance(Duration::from_secs(3600));
    assert_eq!(names(&desk.next().await), ["delete old usage"]);
}

#[tokio::test]
async fn without_a_retention_period_data_is_kept_forever() {
    let log = MemoryAudit::new(100);
    let also = |trail: AuditTrailBuilder| trail.sink(log.clone());
    let desk = Desk::with(&[], also, |keys| keys.retention(None, None)).await;
    desk.count(1).await;
    desk.note([1]);
    desk.next().await;
    desk.clock.advance(Duration::from_secs(1_000_000_000));
    let done = desk.next().await;
    assert_eq!((done.hours_deleted, done.events_deleted), (0, 0));
    assert_eq!(log.all().len(), 1);
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
    let trail = AuditTrail::builder().sink(sink.clone());
    let (store, newer) = (MemoryStore::new(), KeyHasher::sha256());
    let keys = |credentials: Credentials| {
        Portunus::builder(credentials)
            .store(store.clone())
            .limits(Limits::default().limiter(limiter.clone()))
            .clock(clock.clone())
    };
    let old = newer.clone().accept_sha512().unwrap();
    let credentials = || Credentials::from(format()).hasher(old.clone());
    let keys = keys(credentials()).audit(trail.build()).build().unwrap();
    // An imported key with a digest under an older scheme.
    let secret = format()
        .generate(Some(&live()), Some(KeyKind::App))
        .unwrap()
        .reveal();
    let digest = Sha512::digest(secret.as_bytes());
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
    let request = Head::bearer(&secret);
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
    assert_eq!(limiter.0.load(Ordering::SeqCst), 4, "three times a minute");
}

// ---- jobs that hang or fail ----

#[tokio::test]
async fn a_sink_that_hangs_and_a_store_that_hangs_stop_nothing_else() {
    let (good, bad) = (Remote::default(), Remote::default());
    for sinks in [[&good, &bad], [&bad, &good]] {
        let desk = Desk::new(&sinks).await;
        bad.hang(true);
        desk.store.hold(RECORD);
        desk.note(0..2);
        desk.count(1).await;
        let began = Instant::now();
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
        bad.clear();
        good.clear();
    }
}

#[tokio::test]
async fn a_job_that_becomes_due_while_another_hangs_is_still_done() {
    let (good, bad) = (Remote::default(), Remote::default());
    let desk = Arc::new(Desk::new(&[&bad, &good]).await);
    bad.hang(true);
    desk.note([1]);
    let call = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { desk.keys.maintain().await }
    });
    until(|| good.events() == [1]).await;
    desk.note([2]);
    desk.clock.advance(Duration::from_millis(200));
    until(|| good.events() == [1, 2]).await;
    // And a requested flush, at once.
    desk.note([3]);
    let asked = tokio::spawn(desk.trail.request_flush());
    until(|| good.events() == [1, 2, 3]).await;
    assert!(!call.is_finished(), "the other one hangs");
    assert_eq!(names(&call.await.unwrap()).len(), 1);
    bad.hang(false);
    desk.next().await;
    asked.await.unwrap();
    assert_eq!(bad.events(), [1, 2, 3]);
}

#[tokio::test]
async fn a_job_that_fails_says_why_and_is_tried_again() {
    let sink = Remote::default();
    let desk = Desk::new(&[&sink]).await;
    sink.fail(true);
    desk.store.fail(RECORD);
    desk.note([1]);
    desk.count(1).await;
    let done = desk.next().await;
    let why: Vec<_> = done
        .failures
        .iter()
        .map(|(_, why)| why.to_string())
        .collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(
        why.contains(&"the audit log is unavailable".to_owned()),
        "{why:?}"
    );
    sink.fail(false);
    desk.store.recover();
    let done = desk.next().await;
    assert_eq!((done.uses_written, done.events_written), (1, 1));
    assert_eq!(names(&done), [""; 0]);
}

#[tokio::test]
async fn pending_events_of_a_hanging_sink_are_bounded_and_losses_reported() {
    let sink = Remote::default();
    let desk = Desk::with(&[&sink], |trail| trail.capacity(50), |keys| keys).await;
    sink.hang(true);
    let mut lost = 0;
    for round in 0..40 {
        desk.note(round * 100..round * 100 + 100);
        lost += poll(desk.next(), 50).map_or(0, |done| done.events_lost);
        assert!(desk.trail.pending() <= 150, "{}", desk.trail.pending());
    }
    sink.hang(false);
    let done = desk.next().await;
    lost += done.events_lost;
    assert_eq!(done.events_waiting, 0);
    let kept = u64::try_from(sink.events().len()).unwrap();
    assert!(lost > 3000 && kept > 40, "{lost}");
    assert_eq!((kept + lost, sink.missing()), (4000, lost));
}

// ---- dropped calls and concurrent calls ----

#[tokio::test]
async fn a_call_that_is_dropped_at_any_await_loses_nothing() {
    for times in 0.. {
        let sink = Remote::default();
        let desk = Desk::new(&[&sink]).await;
        desk.bus.fail(true);
        desk.issue().await;
        desk.bus.fail(false);
        desk.store.answer_late(3);
        desk.note(0..3);
        desk.count(4).await;
        let asked = desk.trail.request_flush();
        let ended = poll(desk.keys.maintain(), times);
        let told = ended.as_ref().map_or(0, |done| done.uses_written);
        let done = desk.next().await;
        assert_eq!(names(&done), [""; 0], "after {times}");
        assert_eq!((done.uses_waiting, done.events_waiting), (0, 0));
        assert_eq!((done.changes_waiting, desk.bus.heard() > 0), (0, true));
        assert!(desk.used().await >= 4, "after {times}");
        assert!(
            told + done.uses_written >= 4,
            "the work of a dropped call is reported"
        );
        // Delivered again after it was interrupted: sinks recognize events by their ids.
        let mut kept = sink.events();
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
    let desk = Arc::new(Desk::new(&[&sink]).await);
    sink.hang(true);
    desk.note([1]);
    let first = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { desk.keys.maintain().await }
    });
    until(|| sink.calls() == 1).await;
    desk.count(1).await;
    for _ in 0..3 {
        desk.clock.advance(Duration::from_secs(1));
        let second = desk.keys.maintain();
        let second = tokio::time::timeout(Duration::from_secs(2), second);
        assert_eq!(names(&second.await.unwrap()), [""; 0]);
    }
    assert_eq!((desk.used().await, sink.calls()), (1, 1));
    assert_eq!(first.await.unwrap().failures.len(), 1);
    sink.hang(false);
    let all = (0..8).map(|_| desk.next());
    join_all(all).await;
    assert_eq!(sink.most_at_once(), 1);
    assert_eq!(sink.events(), [1]);
}

// ---- publishing changes to other nodes ----

#[tokio::test]
async fn changes_that_could_not_be_published_are_published_by_the_next_call() {
    let desk = Desk::new(&[]).await;
    desk.bus.fail(true);
    desk.issue().await;
    let done = desk.next().await;
    assert_eq!(names(&done), ["publish key changes"]);
    assert_eq!((done.changes_published, done.changes_waiting), (0, 1));
    desk.bus.fail(false);
    let done = desk.next().await;
    assert_eq!((done.changes_published, done.changes_waiting), (1, 0));
    assert_eq!(desk.bus.heard(), 1);
}
