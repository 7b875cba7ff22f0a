//! Which keys the caches on one SQLite file discard, and when they discard everything.

use portunus::clock::SystemClock;
use portunus::store::KeyLookup;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::recording_listener::RecordingListener;
use crate::common::{
    Home, SqliteHome, at, batch, digest, get, id, insert, never, peppered, record, rehash,
    rejected, secrets,
};
use portunus::key::{KeyDigest, KeyHasher, Revocation};
use portunus::store::{Cache, CachedStore, Change, Invalidation, KeyStore, WriteBatch};
use portunus_sqlx::SqliteStore;
use portunus_test_support::wait::until_async;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};

/// The digest of a key, as random as a real one.
fn of(number: u32) -> KeyDigest {
    KeyHasher::sha256().digest(&number.to_string())
}

/// Keys `a`, `b` and `c` with the digests 1, 2 and 3.
async fn three_keys(home: &SqliteHome) -> SqliteStore {
    let store = home.open().await;
    let keys = (1..)
        .zip(["a", "b", "c"])
        .map(|(number, name)| insert(of(number), record(name)));
    store.apply(&batch(keys)).await.unwrap();
    store
}

fn remembers(cache: &CachedStore, digest: KeyDigest) -> bool {
    cache.find_now(&[digest]).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_another_store_evicts_only_its_own_key() {
    let home = SqliteHome::new();
    let (here, there) = (three_keys(&home).await, home.open().await);
    let watch = here.watch();
    let cache = Cache::new()
        .bus(watch.clone())
        .around(here, SystemClock::default());
    let listener = RecordingListener::awake_on(&watch).await;
    let mut revoked = get(&there, "a").await;
    revoked.revoked = Some(Revocation::new(at(2_000), None));
    let writes = [
        (of(1), WriteBatch::new().update(revoked)),
        // An entry under the old digest is not wrong, but must not be reloaded again and again.
        (of(2), batch([rehash("b", of(2), peppered(2))])),
        (of(3), batch([Change::Delete(id("c"))])),
        (of(4), batch([insert(of(4), record("d"))])),
    ];
    for (changed, write) in writes {
        for known in 1..=5 {
            cache.find(&[of(known)]).await.unwrap();
        }
        until_async("it is all remembered", || {
            (1..=5).all(|known| remembers(&cache, of(known)))
        })
        .await;
        there.apply(&write).await.unwrap();
        listener.wait_for_proof().await;
        let forgotten: Vec<_> = (1..=5)
            .map(of)
            .filter(|known| !remembers(&cache, *known))
            .collect();
        assert!(forgotten.contains(&changed), "{write:?}");
        // Two of some thousand may share a slot.
        assert!(forgotten.len() <= 2, "{forgotten:?}");
    }
    assert!(listener.changes().iter().all(|what| !what.everything));
}

#[tokio::test]
async fn changes_to_any_key_of_a_secret_reach_every_cache_on_a_file() {
    let home = SqliteHome::new();
    let (here, there) = (home.open().await, home.open().await);
    let nodes = [here, there].map(|store| {
        let watch = store.watch();
        (store, watch)
    });
    secrets::changes_to_any_key_of_a_secret_reach_every_cache(nodes).await;
}

#[tokio::test]
async fn a_version_that_only_counts_makes_caches_forget_everything() {
    let home = SqliteHome::new();
    let store = three_keys(&home).await;
    let watch = store.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    for raised in [1, 3, 5_000] {
        let sql = format!("UPDATE portunus_changes SET counter = counter + {raised}");
        home.execute(sql).await;
        listener.wait_for_proof().await;
        assert_eq!(listener.changes(), [Invalidation::everything()], "{raised}");
        listener.clear();
        // What this version writes next is recorded again.
        let revised = WriteBatch::new().update(get(&store, "b").await);
        store.apply(&revised).await.unwrap();
        listener.wait_for_proof().await;
        assert_eq!(listener.changes(), [Invalidation::of(&revised)]);
        listener.clear();
    }
    // A counted change between two recorded ones, and a counter that decreases.
    home.execute(
        "UPDATE portunus_changes SET counter = counter - 1; \
         DELETE FROM portunus_recent_changes WHERE counter % 2 = 0"
            .into(),
    )
    .await;
    listener.wait_for_proof().await;
    assert_eq!(listener.changes(), [Invalidation::everything()]);
}

#[tokio::test]
async fn a_rolled_back_change_is_neither_published_nor_recorded() {
    let home = SqliteHome::new();
    let store = three_keys(&home).await;
    let watch = store.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    for _ in 0..3 {
        rejected(&store, batch([Change::Delete(id("a"))]).require(never())).await;
    }
    let revised = WriteBatch::new().update(get(&store, "c").await);
    store.apply(&revised).await.unwrap();
    listener.wait_for_proof().await;
    assert_eq!(listener.changes(), [Invalidation::of(&revised)]);
}

/// A store that writes without waiting for the disk.
async fn hasty(home: &SqliteHome) -> SqliteStore {
    let options = SqliteConnectOptions::new()
        .filename(home.path())
        .synchronous(SqliteSynchronous::Off);
    let pool = SqlitePoolOptions::new().max_connections(1);
    SqliteStore::new(pool.connect_with(options).await.unwrap())
}

#[tokio::test]
async fn more_writes_than_the_file_remembers_make_caches_forget_everything() {
    let home = SqliteHome::new();
    let store = three_keys(&home).await;
    let watch = store.watch();
    for (writes, is_everything) in [(1_000, false), (1_024, false), (1_025, true), (3, false)] {
        let listener = RecordingListener::awake_on(&watch).await;
        let home = home.clone();
        // The watch is a task of this thread, which cannot poll meanwhile.
        let written = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let write = async {
                let store = hasty(&home).await;
                for _ in 0..writes {
                    let again = WriteBatch::new().update(get(&store, "a").await);
                    store.apply(&again).await.unwrap();
                }
            };
            let mut runtime = runtime;
            runtime.enable_all().build().unwrap().block_on(write);
        });
        written.join().unwrap();
        listener.wait_for_proof().await;
        let changes = listener.changes();
        let reported: usize = changes.iter().map(|what| what.keys.len()).sum();
        let everything = changes.iter().any(|what| what.everything);
        let expected = if is_everything { 0 } else { writes };
        assert_eq!(
            (everything, reported),
            (is_everything, expected),
            "{writes}"
        );
    }
    let rows = home
        .text("SELECT CAST(COUNT(*) AS TEXT) FROM portunus_recent_changes")
        .await;
    assert_eq!(rows, "1024");
}

#[tokio::test]
async fn a_batch_of_very_many_keys_makes_caches_forget_everything() {
    let home = SqliteHome::new();
    let store = three_keys(&home).await;
    let watch = store.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    let many =
        (0..2_000).map(|number| insert(digest(10_000 + number), record(&format!("many{number}"))));
    store.apply(&batch(many)).await.unwrap();
    listener.wait_for_proof().await;
    assert_eq!(listener.changes(), [Invalidation::everything()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_concurrent_writes_are_each_published_by_key() {
    const KEYS: u32 = 120;
    let home = SqliteHome::new();
    let stores = [home.open().await, home.open().await];
    let names: Vec<_> = (0..KEYS).map(|number| format!("key{number}")).collect();
    let inserts = (100_u32..)
        .zip(&names)
        .map(|(number, name)| insert(digest(number), record(name)));
    stores[0].apply(&batch(inserts)).await.unwrap();
    let watch = stores[0].watch();
    let listener = RecordingListener::awake_on(&watch).await;
    let names = Arc::new(names);
    let writers = (0..4).map(|writer| {
        let (names, store) = (Arc::clone(&names), stores[writer % 2].clone());
        tokio::spawn(async move {
            for name in names.iter().skip(writer).step_by(4) {
                let revised = WriteBatch::new().update(get(&store, name).await);
                store.apply(&revised).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    listener.wait_for_proof().await;
    let changes = listener.changes();
    assert!(changes.iter().all(|what| !what.everything));
    let reported: BTreeSet<_> = changes.into_iter().flat_map(|what| what.keys).collect();
    assert_eq!(reported, names.iter().map(|name| id(name)).collect());
}
