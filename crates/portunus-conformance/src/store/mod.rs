//! The suite for a [`KeyStore`]: every promise of the trait, each checked on a fresh store.

mod batches;
mod bulk;
mod concurrency;
mod driven;
mod filters;
mod lookup;
mod lookups;
mod model;
mod outbox;
mod paging;
mod primaries;
mod quotas;
mod round_trip;
mod signing;
mod tools;
mod usage;
mod walk;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::report::{Checking, Violations};
use super::runner::{Calls, Check, Suite, Watched};
pub use lookups::key_lookup;
use portunus::store::KeyStore;
use tools::Store;

/// Checks a [`KeyStore`] against all promises of the trait.
///
/// `make` returns an empty store each time: a fresh database, schema or table. It is called once
/// for each of about a hundred checks, which run one after the other; concurrent operations of a
/// check run in separate tasks. Usage, signing states, bulk operations and recorded changes are
/// checked if the store supports them ([`usage`](KeyStore::usage), [`signing`](KeyStore::signing),
/// [`bulk_operation`](KeyStore::bulk_operation), [`record_changes`](KeyStore::record_changes)). The
/// outcome of each check is printed, and the suite ends within 5 minutes, as described for
/// [the crate](crate).
///
/// ```
/// # async fn run() {
/// use portunus::store::MemoryStore;
///
/// // In the place of `MemoryStore::new()`: create a database of a new name, connect, migrate.
/// portunus_conformance::key_store(|| async { MemoryStore::new() }).await.unwrap();
/// # }
/// # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(run());
/// ```
///
/// The store's own tests must cover what cannot be checked from outside: that a row that cannot be
/// read is an error, and is named in a list only to its own tenant and the host; that a page
/// examines at most [`ListQuery::MOST_SCANNED`](portunus::store::ListQuery::MOST_SCANNED) records;
/// that reads go where writes are acknowledged; and that acknowledged writes survive a crash.
///
/// # Errors
/// Returns every check that failed, with what was observed.
pub async fn key_store<S, F, Fut>(make: F) -> Result<(), Violations>
where
    S: KeyStore,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    let mut suite = Suite::new("key store");
    let [has_usage, has_signing, has_bulk] = [false; 3].map(AtomicBool::new).map(Arc::new);
    let mut fresh = |calls: Calls| {
        let (making, usage, signing) = (make(), Arc::clone(&has_usage), Arc::clone(&has_signing));
        let bulk = Arc::clone(&has_bulk);
        async move {
            let store = making.await;
            usage.store(store.usage().is_some(), Ordering::Relaxed);
            signing.store(store.signing().is_some(), Ordering::Relaxed);
            let kept = store.bulk_operation(&tools::id("none")).await;
            bulk.store(kept.is_ok(), Ordering::Relaxed);
            Arc::new(Watched::new(store, calls)) as Store
        }
    };
    for group in groups() {
        suite.run(group, &mut fresh).await;
    }
    // A store without signing states makes no promises about them.
    if has_signing.load(Ordering::Relaxed) {
        suite.run(signing::CHECKS, &mut fresh).await;
    }
    if has_bulk.load(Ordering::Relaxed) {
        suite.run(bulk::CHECKS, &mut fresh).await;
    }
    if has_usage.load(Ordering::Relaxed) {
        suite.run(usage::CHECKS, &mut fresh).await;
    }
    let records = Arc::new(AtomicBool::new(false));
    let mut recording = |calls: Calls| {
        let (making, records) = (make(), Arc::clone(&records));
        async move {
            let store = making.await;
            records.store(store.record_changes(), Ordering::Relaxed);
            Arc::new(Watched::new(store, calls)) as Store
        }
    };
    suite.run(outbox::FIRST, &mut recording).await;
    if records.load(Ordering::Relaxed) {
        suite.run(outbox::CHECKS, &mut fresh).await;
    }
    suite.run(driven::CHECKS, &mut fresh).await;
    if has_usage.load(Ordering::Relaxed) {
        suite.run(driven::USAGE, &mut fresh).await;
    }
    for seed in 1..=walk::WALKS {
        let sentence =
            format!("random batches have the same effect as on a slow model, from seed {seed}");
        let walk = |store| Box::pin(walk::walk(store, seed)) as Checking;
        suite.walk(sentence, &mut fresh, walk).await;
    }
    suite.finish()
}

/// Checks a [`UsageStore`](portunus::store::UsageStore) against all promises of the trait.
///
/// `make` returns an empty store of keys each time, whose [`usage`](KeyStore::usage) is checked:
/// counts belong to keys, and are deleted with them. [`key_store`] includes the same checks for a
/// store that supports usage.
///
/// # Errors
/// Returns every root cause of failed checks, with what was observed.
pub async fn usage_store<S, F, Fut>(make: F) -> Result<(), Violations>
where
    S: KeyStore,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    beside_keys("usage store", usage::CHECKS, make).await
}

/// Checks a [`SigningStore`](portunus::events::SigningStore) against all promises of the trait.
///
/// `make` returns an empty store of keys each time, whose [`signing`](KeyStore::signing) is
/// checked: it reads what [`Change::SetSigning`](portunus::store::Change::SetSigning) writes.
/// [`key_store`] includes the same checks for a store that supports signing.
///
/// # Errors
/// Returns every root cause of failed checks, with what was observed.
pub async fn signing_store<S, F, Fut>(make: F) -> Result<(), Violations>
where
    S: KeyStore,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    beside_keys("signing store", signing::CHECKS, make).await
}

async fn beside_keys<S, F, Fut>(
    subject: &'static str,
    checks: &'static [Check<Store>],
    make: F,
) -> Result<(), Violations>
where
    S: KeyStore,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    let mut suite = Suite::new(subject);
    let mut fresh = |calls: Calls| {
        let making = make();
        async move { Arc::new(Watched::new(making.await, calls)) as Store }
    };
    suite.run(checks, &mut fresh).await;
    suite.finish()
}

/// The checks of keys themselves, in order: each group after those that it depends on.
fn groups() -> [&'static [Check<Store>]; 11] {
    [
        lookup::FIRST,
        batches::FIRST,
        lookup::CHECKS,
        batches::CHECKS,
        primaries::FIRST,
        quotas::CHECKS,
        concurrency::CHECKS,
        primaries::CHECKS,
        round_trip::CHECKS,
        paging::CHECKS,
        filters::CHECKS,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_depend_on_earlier_ones_and_have_unique_names() {
        let beside = [
            signing::CHECKS,
            bulk::CHECKS,
            usage::CHECKS,
            outbox::FIRST,
            outbox::CHECKS,
            driven::CHECKS,
            driven::USAGE,
        ];
        crate::runner::assert_grounds(&[&groups()[..], &beside].concat());
    }
}
