//! The cache in front of a store, as a host sees it: which requests cause a lookup, what is cached,
//! for how long and how much of it, and that answers always agree with the store's.

use portunus::store::KeyLookup;
use std::sync::Arc;
use std::time::Duration;

use portunus::authenticator::Attempt;
use portunus::key::{DigestScheme, KeyDigest, KeyHasher, KeyId, KeyKind, KeyRecord, Owner, Pepper};
use portunus::limit::LocalLimiter;
use portunus::manage::{ImportedDigest, KeyChange, KeyManager, NewImport, NewKey};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::store::{
    Cache, CachedStore, Change, KeyStore, ListQuery, LocalBus, StoredKey, WriteBatch,
};
use portunus::{Authenticator, Clock, ErrorCode, Principal};
use portunus_test_support::{
    FIND, FaultyStore, Fixture, Head, Setup, corrupt, format, live, scope, stranger, tenant, used,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A fixture whose store must be awaited, with a cache in front of it.
struct Cached {
    fixture: Fixture,
    cache: CachedStore,
}

impl Cached {
    fn new() -> Self {
        Self::with(Fixture::new(), |cache| cache.bus(LocalBus::new()))
    }

    fn with(fixture: Fixture, set: impl FnOnce(Cache) -> Cache) -> Self {
        fixture.store.answer_late(1);
        let cache = set(Cache::new()).around(fixture.store.clone(), fixture.clock.clone());
        Self { fixture, cache }
    }

    fn manager(&self) -> KeyManager {
        let manager = Setup::on(self.cache.clone())
            .bearer([format()])
            .environments([live()]);
        manager
            .hasher(self.fixture.hasher.clone())
            .clock(self.fixture.clock.clone())
            .manager()
    }

    fn authenticator(&self) -> Setup {
        let builder = Setup::on(self.cache.clone()).hasher(self.fixture.hasher.clone());
        builder.clock(self.fixture.clock.clone()).bearer([format()])
    }

    async fn issue(&self, scopes: &[&str]) -> (String, Arc<KeyRecord>) {
        let issued = self
            .manager()
            .issue(new_key().with_scopes(scopes.iter().map(|text| scope(text))))
            .await
            .unwrap();
        (issued.key.reveal(), issued.record)
    }

    fn finds(&self) -> usize {
        self.fixture.store.finds()
    }

    /// Returns how many keys and how many unknown digests are cached.
    fn sizes(&self) -> (usize, usize) {
        let shown = format!("{:?}", self.cache);
        let number = |name: &str| {
            let rest = shown.rsplit(name).next().unwrap();
            rest.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap()
        };
        (number(" known: "), number(" unknown: "))
    }
}

fn new_key() -> NewKey {
    NewKey::new("key", Owner::tenant(tenant("acme")))
}

/// Returns the refusal of a key, or nothing if it passes.
async fn refusal(authenticator: &Authenticator, key: &str) -> Option<ErrorCode> {
    authenticator
        .authenticate(&Head::bearer(key).from("192.0.2.1"))
        .await
        .err()
        .map(|error| error.code())
}

fn digest(scheme: DigestScheme, number: u64) -> KeyDigest {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    KeyDigest::new(scheme, bytes)
}

fn insert(digest: KeyDigest, id: &str) -> WriteBatch {
    let at = std::time::SystemTime::UNIX_EPOCH;
    let owner = Owner::tenant(tenant("acme"));
    let record = KeyRecord::new(
        KeyId::new(id).unwrap(),
        "a key",
        KeyKind::App,
        live(),
        owner,
        at,
    );
    WriteBatch::new().change(Change::Insert {
        digest,
        record: Box::new(record),
    })
}

fn id_of(found: Option<Arc<StoredKey>>) -> Option<String> {
    found.map(|stored| stored.record().id.to_string())
}

// ---- the number of lookups ----

#[tokio::test]
async fn a_key_in_use_and_an_unknown_one_cost_one_lookup_each() {
    let cached = Cached::new();
    let (key, _) = cached.issue(&[]).await;
    let authenticator = cached.authenticator().build().unwrap();
    let unknown = stranger();
    for _ in 0..10 {
        assert_eq!(refusal(&authenticator, &key).await, None);
        assert_eq!(
            refusal(&authenticator, &unknown).await,
            Some(ErrorCode::InvalidKey)
        );
    }
    assert_eq!((cached.finds(), cached.sizes()), (2, (1, 1)));
}

#[tokio::test]
async fn a_hit_is_answered_at_once_and_allocates_nothing() {
    let pepper =
        |version: u32| Pepper::new(version, &[u8::try_from(version).unwrap(); 32]).unwrap();
    let peppered = KeyHasher::hmac_sha256(pepper(2))
        .accept_pepper(pepper(1))
        .unwrap()
        .accept_sha256()
        .unwrap();
    for hasher in [KeyHasher::sha256(), peppered] {
        let cached = Cached::with(
            Fixture {
                hasher,
                ..Fixture::new()
            },
            |cache| cache.bus(LocalBus::new()),
        );
        let (key, _) = cached.issue(&[]).await;
        let authenticator = cached.authenticator().failure_quotas(None).build().unwrap();
        let unknown = stranger();
        for (key, passes) in [(&key, true), (&unknown, false)] {
            let head = Head::bearer(key);
            assert_eq!(authenticator.authenticate(&head).await.is_ok(), passes);
            let ask = || match authenticator.attempt(&head) {
                Attempt::Ready(outcome) => assert_eq!(outcome.is_ok(), passes),
                Attempt::Pending(_) => panic!("it is remembered"),
            };
            ask();
            assert_eq!(
                allocation_counter::measure(|| (0..100).for_each(|_| ask())).count_total,
                0,
                "{passes}"
            );
        }
    }
}

// ---- the effect of a change ----

#[tokio::test]
async fn every_change_holds_for_the_next_request() {
    let cached = Cached::new();
    let (key, record) = cached.issue(&["document:read"]).await;
    let authenticator = cached
        .authenticator()
        .limiter(LocalLimiter::builder().build())
        .build()
        .unwrap();
    let manager = cached.manager();
    let now = cached.fixture.clock.now();
    let change = |set: &dyn Fn(&mut KeyChange)| {
        let mut change = KeyChange::new();
        set(&mut change);
        change
    };
    let elsewhere = AllowList::parse(["198.51.100.0/24"]).unwrap();
    let one = Quotas::new([Quota::per_minute(1).unwrap()]).unwrap();
    let changes = [
        (
            change(&|change| change.enabled = Some(false)),
            Some(ErrorCode::KeyDisabled),
        ),
        (change(&|change| change.enabled = Some(true)), None),
        (
            change(&|change| change.allowed_ips = Some(Some(elsewhere.clone()))),
            Some(ErrorCode::IpNotAllowed),
        ),
        (change(&|change| change.allowed_ips = Some(None)), None),
        (
            change(&|change| change.quotas = Some(Some(one.clone()))),
            Some(ErrorCode::RateLimited),
        ),
        (change(&|change| change.quotas = Some(None)), None),
        (
            change(&|change| change.expires_at = Some(Some(now))),
            Some(ErrorCode::KeyExpired),
        ),
        (change(&|change| change.expires_at = Some(None)), None),
    ];
    for (change, expected) in changes {
        refusal(&authenticator, &key).await;
        manager
            .update(&record.id, change.clone(), None)
            .await
            .unwrap();
        assert_eq!(refusal(&authenticator, &key).await, expected, "{change:?}");
    }
    let scopes = change(&|change| change.scopes = Some(vec![scope("document:write")]));
    manager.update(&record.id, scopes, None).await.unwrap();
    let principal = authenticator
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap()
        .principal
        .unwrap();
    assert!(principal.require(&scope("document:write").into()).is_ok());
    assert!(principal.require(&scope("document:read").into()).is_err());
    manager.revoke(&record.id, None).await.unwrap();
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::KeyRevoked)
    );
    manager.delete(&record.id).await.unwrap();
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::InvalidKey)
    );
}

#[tokio::test]
async fn a_key_that_was_unknown_works_as_soon_as_it_is_imported() {
    let cached = Cached::new();
    let authenticator = cached.authenticator().build().unwrap();
    let key = stranger();
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::InvalidKey)
    );
    let digest =
        ImportedDigest::new("sha256", &cached.fixture.hasher.digest(&key).to_bytes()).unwrap();
    cached
        .manager()
        .import(NewImport::new(digest, new_key()))
        .await
        .unwrap();
    assert_eq!(refusal(&authenticator, &key).await, None);
}

#[tokio::test]
async fn a_remembered_key_begins_and_ends_on_time() {
    let cached = Cached::new();
    let mut new = new_key();
    new.not_before = Some(cached.fixture.clock.now() + Duration::from_secs(10));
    new.expires_at = Some(cached.fixture.clock.now() + Duration::from_secs(20));
    let key = cached.manager().issue(new).await.unwrap().key.reveal();
    let authenticator = cached.authenticator().build().unwrap();
    assert!(refusal(&authenticator, &key).await.is_some());
    cached.fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(refusal(&authenticator, &key).await, None);
    cached
        .fixture
        .clock
        .advance(Duration::from_secs(10) - MILLISECOND);
    assert_eq!(refusal(&authenticator, &key).await, None);
    cached.fixture.clock.advance(MILLISECOND);
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::KeyExpired)
    );
    assert_eq!(cached.finds(), 1);
}

#[tokio::test]
async fn an_outage_is_a_503_that_is_not_remembered_and_no_matter_for_remembered_keys() {
    let cached = Cached::new();
    let ((key, _), (other, _)) = (cached.issue(&[]).await, cached.issue(&[]).await);
    let authenticator = cached.authenticator().build().unwrap();
    assert_eq!(refusal(&authenticator, &key).await, None);
    for fail in [
        |store: &FaultyStore| store.fail(FIND),
        |store: &FaultyStore| store.fail_with(FIND, corrupt),
    ] {
        fail(&cached.fixture.store);
        assert_eq!(refusal(&authenticator, &key).await, None);
        for key in [&other, &stranger()] {
            assert_eq!(
                refusal(&authenticator, key).await,
                Some(ErrorCode::StoreUnavailable)
            );
        }
    }
    cached.fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::StoreUnavailable),
        "no answer outlives its time"
    );
    cached.fixture.store.recover();
    assert_eq!(
        (
            refusal(&authenticator, &key).await,
            refusal(&authenticator, &other).await
        ),
        (None, None)
    );
}

#[tokio::test]
async fn a_remembered_key_is_never_refused_for_its_neighbours() {
    let cached = Cached::new();
    let ((key, _), (other, _)) = (cached.issue(&[]).await, cached.issue(&[]).await);
    let three = Quotas::new([Quota::per_minute(3).unwrap()]).unwrap();
    let authenticator = cached
        .authenticator()
        .failure_quotas(Some(three))
        .build()
        .unwrap();
    assert_eq!(refusal(&authenticator, &key).await, None);
    let unknown = stranger();
    for _ in 0..3 {
        assert_eq!(
            refusal(&authenticator, &unknown).await,
            Some(ErrorCode::InvalidKey),
            "remembered, and counted"
        );
    }
    let before = cached.finds();
    assert_eq!(
        refusal(&authenticator, &unknown).await,
        Some(ErrorCode::TooManyFailures)
    );
    assert_eq!(
        refusal(&authenticator, &other).await,
        None,
        "one of four lookups a second"
    );
    assert_eq!(refusal(&authenticator, &key).await, None);
    assert_eq!(cached.finds(), before + 1);
}

#[tokio::test]
async fn neither_forgetting_nor_changing_a_key_gives_it_a_second_quota_or_loses_its_usage() {
    let cached = Cached::with(Fixture::new(), |cache| {
        cache.bus(LocalBus::new()).capacity(1)
    });
    let (key, record) = cached.issue(&[]).await;
    let three = Quotas::new([Quota::per_minute(3).unwrap()]).unwrap();
    let limiter = LocalLimiter::builder()
        .clock(cached.fixture.clock.clone())
        .build();
    let authenticator = cached
        .authenticator()
        .limiter(limiter)
        .quotas(three)
        .build()
        .unwrap();
    let forget: [&dyn Fn(&Cached); 2] = [&|cached| cached.cache.clear(), &|_| ()];
    for how in forget {
        assert_eq!(refusal(&authenticator, &key).await, None);
        how(&cached);
    }
    let mut change = KeyChange::new();
    change.name = Some("another name".into());
    cached
        .manager()
        .update(&record.id, change, None)
        .await
        .unwrap();
    assert_eq!(refusal(&authenticator, &key).await, None);
    for _ in 0..50 {
        let (other, _) = cached.issue(&[]).await;
        refusal(&authenticator, &other).await;
    }
    assert_eq!(
        refusal(&authenticator, &key).await,
        Some(ErrorCode::RateLimited)
    );
    authenticator
        .usage()
        .flush(&*cached.cache.usage().unwrap())
        .await
        .unwrap();
    assert_eq!(
        used(&*cached.cache.usage().unwrap(), &record.id)
            .await
            .count,
        3
    );
}

// ---- capacity and age ----

#[tokio::test]
async fn a_flood_of_unknown_keys_evicts_no_real_one_and_memory_is_bounded() {
    let cached = Cached::with(Fixture::new(), |cache| {
        cache
            .bus(LocalBus::new())
            .capacity(200)
            .unknown_capacity(50)
    });
    let real = |number: u64| digest(DigestScheme::Sha256, number);
    for number in 0..100 {
        cached
            .cache
            .apply(&insert(real(number), &format!("key_{number}")))
            .await
            .unwrap();
    }
    for number in 0..100 {
        cached.cache.find(&[real(number)]).await.unwrap();
    }
    let remembered = (0..100)
        .filter(|number| cached.cache.find_now(&[real(*number)]).is_some())
        .count();
    for number in 1000..101_000 {
        assert!(cached.cache.find(&[real(number)]).await.unwrap().is_none());
    }
    assert_eq!(
        (0..100)
            .filter(|number| cached.cache.find_now(&[real(*number)]).is_some())
            .count(),
        remembered
    );
    assert!(remembered >= 95, "{remembered} of 100 in a room for 200");
    assert!(cached.sizes().1 <= 50, "{:?}", cached.sizes());
    for number in 200..2000 {
        cached
            .cache
            .apply(&insert(real(number), &format!("key_{number}")))
            .await
            .unwrap();
        assert!(cached.cache.find(&[real(number)]).await.unwrap().is_some());
    }
    assert!(cached.sizes().0 <= 200, "{:?}", cached.sizes());
}

#[tokio::test]
async fn a_cache_of_capacity_zero_caches_nothing_and_does_not_panic() {
    let cached = Cached::with(Fixture::new(), |cache| {
        cache.bus(LocalBus::new()).capacity(0).unknown_capacity(0)
    });
    let (key, _) = cached.issue(&[]).await;
    let authenticator = cached.authenticator().build().unwrap();
    for _ in 0..3 {
        assert_eq!(refusal(&authenticator, &key).await, None);
        assert_eq!(
            refusal(&authenticator, &stranger()).await,
            Some(ErrorCode::InvalidKey)
        );
    }
    assert_eq!(cached.sizes(), (0, 0));
}

#[tokio::test]
async fn a_time_to_live_shorter_than_the_bound_on_staleness_is_kept() {
    for time_to_live in [Duration::ZERO, Duration::from_secs(1)] {
        let set = |cache: Cache| cache.bus(LocalBus::new()).time_to_live(time_to_live);
        let cached = Cached::with(Fixture::new(), set);
        let (known, unknown) = (
            digest(DigestScheme::Sha256, 1),
            digest(DigestScheme::Sha256, 2),
        );
        cached.cache.apply(&insert(known, "key_1")).await.unwrap();
        for digest in [known, unknown] {
            cached.cache.find(&[digest]).await.unwrap();
        }
        cached.fixture.clock.advance(time_to_live);
        for digest in [known, unknown] {
            assert!(
                cached.cache.find_now(&[digest]).is_none(),
                "after {time_to_live:?}"
            );
        }
    }
}

#[tokio::test]
async fn steps_of_the_time_of_day_change_nothing() {
    let cached = Cached::new();
    let (key, _) = cached.issue(&[]).await;
    let authenticator = cached.authenticator().build().unwrap();
    assert_eq!(refusal(&authenticator, &key).await, None);
    let now = cached.fixture.clock.now();
    for step in [
        now + Duration::from_secs(86_400),
        now - Duration::from_secs(86_400),
    ] {
        cached.fixture.clock.step_to(step);
        assert_eq!(refusal(&authenticator, &key).await, None);
    }
    assert_eq!(cached.finds(), 1);
}

// ---- whole digests, in order ----

#[tokio::test]
async fn digests_that_differ_in_their_last_bit_or_only_in_their_scheme_are_different_keys() {
    let cached = Cached::new();
    let bytes = |last: u8| std::array::from_fn(|place| if place == 31 { last } else { 9 });
    let hmac = |pepper: u32| DigestScheme::HmacSha256 { pepper };
    let schemes = [DigestScheme::Sha256, DigestScheme::Sha512, hmac(1), hmac(2)];
    let all: Vec<_> = schemes
        .iter()
        .flat_map(|s| [0, 1].map(|last| KeyDigest::new(*s, bytes(last))))
        .collect();
    for digest in &all {
        assert!(cached.cache.find(&[*digest]).await.unwrap().is_none());
    }
    for (number, digest) in all.iter().enumerate().step_by(2) {
        cached
            .cache
            .apply(&insert(*digest, &format!("key_{number}")))
            .await
            .unwrap();
    }
    for _ in 0..2 {
        for (number, digest) in all.iter().enumerate() {
            let expected = (number % 2 == 0).then(|| format!("key_{number}"));
            assert_eq!(
                id_of(cached.cache.find(&[*digest]).await.unwrap()),
                expected
            );
        }
    }
}

#[tokio::test]
async fn misses_before_a_hit_are_cached_with_their_scheme() {
    let cached = Cached::new();
    // One pepper under two versions: the same bytes, but a different digest.
    let versions = [1, 2].map(|pepper| digest(DigestScheme::HmacSha256 { pepper }, 1));
    let older = digest(DigestScheme::Sha256, 2);
    cached
        .cache
        .apply(&insert(versions[1], "first"))
        .await
        .unwrap();
    cached.cache.apply(&insert(older, "second")).await.unwrap();
    assert_eq!(
        id_of(cached.cache.find(&[versions[0], older]).await.unwrap()).as_deref(),
        Some("second")
    );
    assert_eq!(
        id_of(cached.cache.find(&[versions[1], older]).await.unwrap()).as_deref(),
        Some("first")
    );
}

#[tokio::test]
async fn any_list_of_digests_is_answered_like_the_store_after_any_history() {
    let cached = Cached::new();
    let all: Vec<_> = (0..4)
        .map(|number| digest(DigestScheme::Sha256, number))
        .collect();
    for number in [1, 3] {
        cached
            .cache
            .apply(&insert(all[number], &format!("key_{number}")))
            .await
            .unwrap();
    }
    // All lists of up to three of the four, in every order.
    let mut lists: Vec<Vec<KeyDigest>> = vec![Vec::new()];
    for place in 0..85 {
        let Some(list) = lists.get(place).filter(|list| list.len() < 3).cloned() else {
            break;
        };
        lists.extend(
            all.iter()
                .map(|digest| [list.as_slice(), &[*digest]].concat()),
        );
    }
    for first in &lists {
        for second in &lists {
            cached.cache.clear();
            for list in [first, second, first] {
                let (expected, found) = (
                    cached.fixture.store.find(list).await,
                    cached.cache.find(list).await,
                );
                assert_eq!(
                    id_of(found.unwrap()),
                    id_of(expected.unwrap()),
                    "{first:?} and {second:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_was_revoked_under_the_current_scheme_is_not_let_in_by_an_older_digest_of_it() {
    let hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap())
        .accept_sha256()
        .unwrap();
    let cached = Cached::with(
        Fixture {
            hasher,
            ..Fixture::new()
        },
        |cache| cache.bus(LocalBus::new()),
    );
    let (key, record) = cached.issue(&[]).await;
    let old = KeyHasher::sha256();
    let digest = ImportedDigest::new("sha256", &old.digest(&key).to_bytes()).unwrap();
    cached
        .manager()
        .import(NewImport::new(digest, new_key()))
        .await
        .unwrap();
    let both = cached.authenticator().build().unwrap();
    // Another authenticator on the same cache accepts only the older scheme.
    let only_old = cached.authenticator().hasher(old).build().unwrap();
    for _ in 0..2 {
        assert_eq!(
            (refusal(&only_old, &key).await, refusal(&both, &key).await),
            (None, None)
        );
        cached.cache.clear();
        assert_eq!(
            (refusal(&both, &key).await, refusal(&only_old, &key).await),
            (None, None)
        );
    }
    cached.manager().revoke(&record.id, None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(refusal(&only_old, &key).await, None);
        assert_eq!(refusal(&both, &key).await, Some(ErrorCode::KeyRevoked));
    }
}

#[tokio::test]
async fn a_key_under_an_older_scheme_is_stored_anew_once_and_then_remembered() {
    let cached = Cached::with(Fixture::new(), |cache| cache.bus(LocalBus::new()));
    let (key, record) = cached.issue(&[]).await;
    let newer = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap())
        .accept_sha256()
        .unwrap();
    let before = cached.authenticator().build().unwrap();
    let after = cached
        .authenticator()
        .hasher(newer.clone())
        .build()
        .unwrap();
    assert_eq!(refusal(&before, &key).await, None);
    for _ in 0..5 {
        assert_eq!(refusal(&after, &key).await, None);
        after.write_rehashes().await;
    }
    assert_eq!((cached.finds(), cached.fixture.store.writes()), (3, 2));
    let stored = cached
        .cache
        .find(&[newer.digest(&key)])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (stored.digest().scheme(), &stored.record().id),
        (newer.scheme(), &record.id)
    );
    assert_eq!(
        refusal(&before, &key).await,
        Some(ErrorCode::InvalidKey),
        "as the bare store would answer"
    );
}

#[tokio::test]
async fn all_else_is_the_stores_and_nothing_shows_a_digest() {
    let cached = Cached::new();
    let (key, record) = cached.issue(&[]).await;
    let now = cached.fixture.clock.now();
    assert_eq!(
        *cached.cache.get(&record.id).await.unwrap().unwrap(),
        *record
    );
    assert_eq!(
        cached
            .cache
            .list(&ListQuery::new(now))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert!(cached.manager().get(&record.id).await.unwrap().primary);
    assert_eq!(
        cached
            .manager()
            .verify(&key)
            .await
            .unwrap()
            .unwrap()
            .record
            .id,
        record.id
    );
    let shown = format!("{:?} {:?}", cached.cache, Cache::new());
    let hex: String = cached
        .fixture
        .hasher
        .digest(&key)
        .to_bytes()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(!shown.contains(&key) && !shown.contains(&hex), "{shown}");
}

#[tokio::test]
async fn large_keys_reduce_the_number_of_cached_ones() {
    let cached = Cached::with(Fixture::new(), |cache| cache.bytes(1 << 20));
    let authenticator = cached.authenticator().build().unwrap();
    let large: Vec<_> = (0..200)
        .map(|number| format!("scope{number:0>100}"))
        .collect();
    let large: Vec<_> = large.iter().map(String::as_str).collect();
    for _ in 0..60 {
        let (key, _) = cached.issue(&large).await;
        assert_eq!(refusal(&authenticator, &key).await, None);
    }
    let (known, _) = cached.sizes();
    assert!((1..40).contains(&known), "{known} keys of 50 KB in 1 MiB");
    for _ in 0..100 {
        let (key, _) = cached.issue(&[]).await;
        assert_eq!(refusal(&authenticator, &key).await, None);
    }
    assert!(cached.sizes().0 > 50, "{:?}", cached.sizes());
}
