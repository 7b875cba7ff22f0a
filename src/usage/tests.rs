#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::ptr;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;

use super::listed::COUNTED_AT_ONCE;
use super::*;
use crate::clock::millis;
use crate::key::{KeyId, KeyKind, KeyRecord, Owner};
use crate::scope::{ScopeModel, WildcardModel};

impl UsageRecorder {
    /// All that is not written yet.
    fn counted(&self) -> Vec<UsageDelta> {
        self.unwritten().after(None, usize::MAX)
    }
}

fn ids(count: usize) -> Vec<KeyId> {
    (0..count).map(|_| KeyId::generate().unwrap()).collect()
}

fn entry(id: &KeyId) -> Entry {
    let owner = Owner::tenant("acme".parse().unwrap());
    let (kind, live) = (KeyKind::App, "live".parse().unwrap());
    let record = KeyRecord::new(id.clone(), "n", kind, live, owner, SystemTime::UNIX_EPOCH);
    let scopes = WildcardModel.compile(&[]).unwrap();
    Entry::bare(record, scopes, Arc::default())
}

fn use_once(usage: &UsageRecorder, id: &KeyId) {
    usage.count(&entry(id), 0, None);
}

#[test]
fn a_flush_in_the_middle_of_a_count_knows_when_the_key_was_used() {
    let usage = UsageRecorder::default();
    let id = KeyId::generate().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let (threads, uses) = (2, 20_000);
    let entry = entry(&id);
    std::thread::scope(|scope| {
        let count = || (0..uses).for_each(|_| usage.count(&entry, millis(now), None));
        let counting: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        let mut counted = 0;
        while counted < threads * uses {
            let over = counting.iter().all(ScopedJoinHandle::is_finished);
            for delta in usage.counted() {
                assert_eq!(delta.last_used_at, now);
                counted += delta.count;
                usage.written(&[delta]);
            }
            assert!(counted == threads * uses || !over, "{counted}");
        }
    });
    assert_eq!((usage.pending(), usage.flushed()), (0, threads * uses));
}

#[test]
fn requests_jobs_and_flushes_at_once_lose_no_use_and_count_none_twice() {
    // So few that requests take uses, too.
    let usage = with_most(8, 1024);
    let (threads, keys) = (3, 5120);
    let entries: Vec<_> = ids(keys).iter().map(entry).collect();
    let uses = (threads * keys) as u64;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let (runtime, done) = (runtime.unwrap(), AtomicU64::new(0));
    let mut counted = 0;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                entries.iter().for_each(|entry| usage.count(entry, 1, None));
                done.fetch_add(1, Ordering::Release);
            });
        }
        while done.load(Ordering::Acquire) < threads as u64 {
            runtime.block_on(usage.collect());
            let part = usage.counted();
            counted += part.iter().map(|delta| delta.count).sum::<u64>();
            usage.written(&part);
        }
    });
    assert_eq!(counted + usage.pending(), uses);
    assert_eq!((usage.flushed(), usage.lost()), (counted, 0));
    assert_eq!(usage.shared.listed.total(), 0);
}

#[test]
fn a_flush_that_ends_during_a_read_causes_another_read() {
    let usage = UsageRecorder::default();
    let id = KeyId::generate().unwrap();
    use_once(&usage, &id);
    let mut reading = usage.reading();
    usage.written(&[]);
    assert_eq!(reading.unwritten([&id]), None);
    assert_eq!(
        reading.unwritten([&id]).unwrap()[0].as_ref().unwrap().count,
        1
    );
    // The read ends even if this happens every time.
    let mut reading = usage.reading();
    let attempts = (1..).find(|_| {
        usage.written(&[]);
        reading.unwritten([&id]).is_some()
    });
    assert_eq!(attempts, Some(reading::Reading::ATTEMPTS));
}

#[test]
fn a_flush_writes_keys_in_the_order_of_their_ids() {
    let usage = UsageRecorder::default();
    ids(100).iter().for_each(|id| use_once(&usage, id));
    let counted = usage.counted();
    assert_eq!(counted.len(), 100);
    assert!(counted.is_sorted_by_key(|delta| &delta.id));
}

#[test]
fn uses_beyond_the_capacity_are_lost_and_counted() {
    let usage = UsageRecorder::default();
    usage.unwritten().most_keys = 2;
    let ids = ids(3);
    // The last key has no capacity, while another use of a known key needs none.
    for id in ids.iter().chain(&ids[..1]) {
        use_once(&usage, id);
    }
    assert_eq!((usage.pending(), usage.lost()), (3, 1));
    usage.written(&usage.counted());
    // There is capacity again.
    use_once(&usage, &ids[2]);
    assert_eq!((usage.pending(), usage.lost(), usage.flushed()), (1, 1, 3));
}

#[test]
fn an_entry_is_listed_once_and_again_after_its_uses_were_taken() {
    let usage = UsageRecorder::default();
    let id = KeyId::generate().unwrap();
    let (one, other) = (entry(&id), entry(&id));
    let listed = || usage.shared.listed.own().len();
    for _ in 0..3 {
        usage.count(&one, 2, Some(IpAddr::from([192, 0, 2, 1])));
    }
    assert_eq!(listed(), 1);
    usage.count(&other, 1, None);
    assert_eq!(listed(), 2);
    // Of the entries of one key, the latest time counts; a known address stays.
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let counted = usage.counted();
    let ip = Some(IpAddr::from([192, 0, 2, 1]));
    assert_eq!(counted, [UsageDelta::new(id.clone(), 4, at(2), ip)]);
    assert_eq!(listed(), 0);
    // What is counted while the store accepts a batch is not subtracted with it.
    usage.count(&one, 5, None);
    usage.written(&counted);
    assert_eq!((listed(), usage.pending()), (1, 1));
    assert_eq!(usage.counted(), [UsageDelta::new(id, 1, at(5), ip)]);
    assert_eq!(usage.flushed(), 4);
}

fn with_lists(lists: usize) -> UsageRecorder {
    with_most(lists, 4096 * lists)
}

fn with_most(lists: usize, most: usize) -> UsageRecorder {
    let listed = Listed::new(lists, most);
    let shared = Shared {
        listed,
        ..Shared::default()
    };
    UsageRecorder {
        shared: Arc::new(shared),
    }
}

#[test]
fn of_entries_that_two_threads_used_the_later_use_counts() {
    let usage = with_lists(2);
    let id = KeyId::generate().unwrap();
    let address = |time: u64| Some(IpAddr::from([192, 0, 2, u8::try_from(time).unwrap()]));
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    // The first pass takes both, the second one after the other, as jobs that were interrupted do.
    for (times, together) in [([1, 2], true), ([2, 1], true), ([2, 1], false)] {
        for (list, time) in usage.shared.listed.each().zip(times) {
            let entry = entry(&id);
            entry.usage.count(time, address(time));
            usage.shared.listed.push_to(list, entry);
            assert!(together || usage.pending() > 0);
        }
        let counted = usage.counted();
        let expected = UsageDelta::new(id.clone(), 2, at(2), address(2));
        assert_eq!(counted, [expected]);
        usage.written(&counted);
    }
}

#[test]
fn the_jobs_take_from_all_lists_and_let_other_tasks_run() {
    let usage = with_lists(3);
    for (number, id) in ids(600).iter().enumerate() {
        let entry = entry(id);
        entry.usage.count(1, None);
        let listed = &usage.shared.listed;
        listed.push_to(listed.each().nth(number / 200).unwrap(), entry);
    }
    let mut collecting = pin!(usage.collect());
    let turns = (0..).find(|_| (&mut collecting).now_or_never().is_some());
    assert_eq!(turns, Some(600 / TAKEN_BY_JOBS));
    assert!(usage.shared.listed.each().all(|list| list.len() == 0));
    assert_eq!(usage.pending(), 600);
}

#[test]
fn the_jobs_free_the_memory_that_a_burst_needed() {
    let usage = with_most(32, 4096);
    let (list, most) = (usage.shared.listed.own(), usage.shared.listed.most_in_one());
    // While a flush takes long, requests take nothing.
    let flush = usage.shared.unwritten.lock();
    ids(3 * 4096).iter().for_each(|id| use_once(&usage, id));
    drop(flush);
    assert!(list.capacity() >= 3 * 4096);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(usage.collect());
    assert!((most..2 * most).contains(&list.capacity()));
}

#[test]
fn no_request_takes_the_uses_of_many_entries() {
    let usage = with_most(1, 4096);
    let taken = || usage.shared.unwritten.lock().by_id.len();
    let (most, mut before) = (4096, 0);
    for (turn, id) in ids(2 * most).iter().enumerate() {
        if turn == 9 {
            // A flush that takes long: nothing is taken meanwhile.
            let flush = usage.shared.unwritten.lock();
            ids(2 * most).iter().for_each(|id| use_once(&usage, id));
            drop(flush);
        }
        use_once(&usage, id);
        let now = taken();
        assert!(now - before <= TAKEN_BY_REQUEST, "{now} after {before}");
        before = now;
    }
    // The list is as short again as it may be.
    assert!(usage.shared.listed.own().len() <= most + COUNTED_AT_ONCE);
    assert_eq!(usage.pending(), 4 * most as u64);
}

#[test]
fn requests_take_nothing_while_all_lists_together_are_short() {
    let usage = with_most(4, 8192);
    let listed = &usage.shared.listed;
    let (own, most) = (listed.own(), listed.most_in_one());
    let other = listed.each().find(|list| !ptr::eq(*list, own)).unwrap();
    assert_eq!(most, 2048);
    let taken = || usage.shared.unwritten.lock().by_id.len();
    // This thread may have all there are.
    ids(8192).iter().for_each(|id| use_once(&usage, id));
    assert_eq!((own.len(), taken()), (8192, 0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(usage.collect_many());
    assert_eq!((own.len(), taken()), (8192, 0));
    // Another thread has its share in any case, while this one takes what is too much.
    ids(most).iter().for_each(|id| {
        let entry = entry(id);
        entry.usage.count(1, None);
        assert!(!listed.push_to(other, entry));
    });
    ids(1000).iter().for_each(|id| use_once(&usage, id));
    let both = own.len() + other.len();
    assert!((8192..8192 + COUNTED_AT_ONCE).contains(&both), "{both}");
    assert_eq!((other.len(), taken()), (most, 8192 + 1000 + most - both));
    // If the jobs come in time, they take everything.
    ids(COUNTED_AT_ONCE).iter().for_each(|id| {
        listed.push_to(other, entry(id));
    });
    assert!(listed.are_long());
    runtime.block_on(usage.collect_many());
    assert_eq!((own.len() + other.len(), taken()), (0, 8192 + 1000 + most));
    // What is taken is no longer in the total.
    ids(8192 + COUNTED_AT_ONCE - 1)
        .iter()
        .for_each(|id| use_once(&usage, id));
    assert!(!listed.are_long());
    assert_eq!(own.len(), 8192 + COUNTED_AT_ONCE - 1);
}

#[test]
fn the_jobs_take_what_is_listed_and_let_other_tasks_run() {
    let usage = UsageRecorder::default();
    let ids = ids(3 * TAKEN_BY_JOBS + 1);
    ids.iter().for_each(|id| use_once(&usage, id));
    let listed = || usage.shared.listed.own().len();
    let mut collecting = pin!(usage.collect());
    let mut lengths = vec![listed()];
    while (&mut collecting).now_or_never().is_none() {
        lengths.push(listed());
        // A use meanwhile is left to the next call.
        use_once(&usage, &ids[0]);
    }
    let (part, all) = (TAKEN_BY_JOBS, ids.len());
    assert_eq!(lengths, [all, all - part, all - 2 * part + 1, 3]);
    assert_eq!(usage.shared.unwritten.lock().by_id.len(), all);
    assert_eq!(usage.pending(), all as u64 + 3);
}

#[test]
fn entries_that_were_evicted_do_not_stay_in_memory() {
    let usage = with_most(1, 4096);
    let first = entry(&KeyId::generate().unwrap());
    let known = Arc::downgrade(&first.policies());
    usage.count(&first, 0, None);
    drop(first);
    let most = 4096 + COUNTED_AT_ONCE;
    let count = most + 100;
    for id in ids(count - 1) {
        assert!(usage.shared.listed.own().len() <= most);
        use_once(&usage, &id);
    }
    assert_eq!(known.strong_count(), 0);
    assert_eq!(usage.pending(), count as u64);
}
