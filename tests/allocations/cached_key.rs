//! The memory of a key in a cache: as read from a database, and compiled by its first request.

use std::hint::black_box;
use std::sync::Arc;

use allocation_counter::measure;
use portunus::authenticator::Attempt;
use portunus::key::{KeyHasher, KeyId, KeyKind, KeyRecord, Owner};
use portunus::network::AllowList;
use portunus::store::{Cache, KeyStore, MemoryStore, StoredKey};
use portunus::testing::FaultyStore;
use portunus::{Limits, Portunus};
use portunus_test_support::{Head, format, live, scope, tenant};

const KEYS: u16 = 500;

/// The stored form of a record with three scopes and three networks.
fn stored(number: u16) -> String {
    let text = |kind: &str| format!("{kind}_{number:022}");
    let mut record = KeyRecord::new(
        text("key").parse::<KeyId>().unwrap(),
        format!("Server {number}"),
        KeyKind::App,
        live(),
        Owner::tenant(tenant(&text("org"))),
        std::time::UNIX_EPOCH,
    );
    record.masked = format!("acme_live_…{number:04}").into();
    record.scopes = ["documents.read", "documents.write", "webhooks.*"]
        .map(scope)
        .to_vec();
    let networks = ["198.51.100.0/24", "203.0.113.7", "2001:db8::/32"];
    record.allowed_ips = Some(AllowList::parse(networks).unwrap());
    record.to_json().unwrap()
}

#[test]
fn a_cached_key_takes_little_memory() {
    let key = format()
        .generate(Some(&live()), Some(KeyKind::App))
        .unwrap()
        .reveal();
    let digest = KeyHasher::sha256().digest(&key);
    let found = FaultyStore::new();
    let keys = Portunus::builder(format())
        .store(found.clone())
        .cache(Cache::none())
        .limits(Limits::none())
        .build()
        .unwrap();
    let authenticator = keys.authenticator();
    let head = Head::bearer(&key).from("198.51.100.7");
    let read = |json: &String| {
        let record = KeyRecord::from_json(json).unwrap();
        let stored = Arc::new(StoredKey::new(digest, record));
        found.always_find(Arc::clone(&stored));
        assert!(matches!(
            black_box(authenticator.attempt(&head)),
            Attempt::Ready(Ok(_))
        ));
        stored
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let texts: Vec<String> = (0..2 * KEYS).map(stored).collect();
    let (first, others) = texts.split_at(KEYS.into());
    let mut kept = Vec::with_capacity(texts.len());
    // The memory of what lists keys with unwritten uses is bounded, and kept for the next ones.
    kept.extend(first.iter().map(read));
    let written = || {
        let counts = MemoryStore::new().usage().unwrap();
        let usage = authenticator.usage();
        assert_eq!(usage.pending(), u64::from(KEYS));
        runtime.block_on(usage.flush(&*counts)).unwrap();
    };
    written();
    let held = measure(|| {
        kept.extend(others.iter().map(read));
        written();
    });
    let each = held.bytes_current / i64::from(KEYS);
    let allocations = held.count_current / i64::from(KEYS);
    println!("a cached key: {each} bytes in {allocations} allocations");
    assert!(each <= 450, "{each}");
    assert!(allocations <= 2, "{allocations}");
}
