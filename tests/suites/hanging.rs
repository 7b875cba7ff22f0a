//! Suites end within 5 minutes whatever hangs, name the call that does not answer, and print the
//! outcome of each check when it ends.

use std::future::{pending, ready};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::events::SigningStore;
use portunus::key::{KeyDigest, KeyId, KeyRecord, SigningState, TenantId};
use portunus::limit::{
    Decision, LimitRequest, LimiterError, LocalLimiter, RateLimiter, WindowState,
};
use portunus::store::{
    BusError, Invalidation, InvalidationBus, InvalidationListener, KeyLookup, KeyStore, ListQuery,
    LocalBus, MemoryStore, OwnerRef, Page, StoreError, StoredKey, Usage, UsageByHour, UsageDelta,
    UsageStore, WriteBatch,
};
use portunus_conformance::{self as conformance, BusNodes, DirectoryFacts, Violation, Violations};
use tokio::time::{Instant, sleep};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// The fault of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Hangs,
    Panics,
    IsSlow,
}

/// A subject some or all of whose calls do not answer.
#[derive(Debug, Clone)]
struct Faulty<T> {
    right: T,
    how: How,
    /// All of them by default.
    call: Option<&'static str>,
}

impl<T> Faulty<T> {
    async fn before(&self, call: &str) {
        if self.call.is_some_and(|odd| odd != call) {
            return;
        }
        match self.how {
            How::Hangs => pending().await,
            How::Panics => panic!("{call} of key{}", call.len()),
            How::IsSlow => sleep(Duration::from_secs(14)).await,
        }
    }
}

#[async_trait]
impl KeyLookup for Faulty<MemoryStore> {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.before("find").await;
        self.right.find(digests).await
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        assert!(
            self.how != How::Panics || self.call != Some("find_now"),
            "find_now of key1"
        );
        (self.how != How::Hangs).then(|| self.right.find_now(digests))?
    }
}

#[async_trait]
impl KeyStore for Faulty<MemoryStore> {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.before("get").await;
        self.right.get(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.before("list").await;
        self.right.list(query).await
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.before("primaries").await;
        self.right.primaries(owners, at).await
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.before("primary").await;
        self.right.primary(owner, at).await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.before("apply").await;
        self.right.apply(batch).await
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl UsageStore for Faulty<MemoryStore> {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        self.before("record_usage").await;
        self.right.record_usage(batch).await
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        self.before("usage_of").await;
        self.right.usage_of(ids).await
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        self.before("usage_by_hour").await;
        self.right.usage_by_hour(id, from, to).await
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.before("forget_usage_before").await;
        self.right.forget_usage_before(before).await
    }
}

#[async_trait]
impl SigningStore for Faulty<MemoryStore> {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.before("signing_state").await;
        self.right.signing_state(id).await
    }
}

#[async_trait]
impl RateLimiter for Faulty<LocalLimiter> {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.before("acquire").await;
        self.right.acquire(request).await
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        self.before("peek").await;
        self.right.peek(request).await
    }
}

#[async_trait]
impl Directory for Faulty<()> {
    async fn resolve(
        &self,
        _: &TenantId,
        _: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        self.before("resolve").await;
        Ok(None)
    }
}

#[async_trait]
impl InvalidationBus for Faulty<LocalBus> {
    fn subscribe(&self, listener: std::sync::Weak<dyn InvalidationListener>) {
        self.right.subscribe(listener);
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        self.before("publish").await;
        self.right.publish(what).await
    }

    fn is_lossless(&self) -> bool {
        self.right.is_lossless()
    }
}

/// The suite's result for a faulty store, and its duration by the runtime's clock.
async fn tried(how: How, call: Option<&'static str>) -> (Violations, Duration) {
    let began = Instant::now();
    let make = || {
        ready(Faulty {
            right: MemoryStore::new(),
            how,
            call,
        })
    };
    let violations = conformance::key_store(make).await;
    (violations.unwrap_err(), began.elapsed())
}

const CALLS: [&str; 10] = [
    "find",
    "get",
    "list",
    "primaries",
    "primary",
    "apply",
    "record_usage",
    "usage_of",
    "usage_by_hour",
    "forget_usage_before",
];

#[tokio::test(start_paused = true)]
async fn a_store_whose_calls_all_hang_is_reported_within_5_minutes() {
    let (violations, took) = tried(How::Hangs, None).await;
    assert!(took < FIVE_MINUTES, "{took:?}");
    let causes: Vec<_> = violations.iter().map(Violation::seen).collect();
    assert_eq!(causes, ["`apply` did not answer within 15 seconds"]);
    let whys: Vec<_> = violations.not_judged().map(|(_, why)| why).collect();
    assert_eq!(whys.len() + causes.len(), violations.checks());
}

#[tokio::test(start_paused = true)]
async fn each_hanging_call_is_the_only_cause_and_affects_only_checks_that_make_it() {
    for call in CALLS.into_iter().chain(["signing_state"]) {
        let (violations, took) = tried(How::Hangs, Some(call)).await;
        assert!(took < FIVE_MINUTES, "{call}: {took:?}");
        let causes: Vec<_> = violations.iter().map(Violation::seen).collect();
        assert_eq!(
            causes,
            [format!("`{call}` did not answer within 15 seconds")],
            "{violations}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_panicking_call_is_the_only_cause() {
    for call in CALLS.into_iter().chain(["signing_state", "find_now"]) {
        let (violations, _) = tried(How::Panics, Some(call)).await;
        let causes: Vec<_> = violations.iter().map(Violation::seen).collect();
        let number = if call == "find_now" { 1 } else { call.len() };
        assert_eq!(
            causes,
            [format!("`{call}` panicked: {call} of key{number}")],
            "{violations}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_too_slow_for_a_check_is_reported_within_5_minutes() {
    for call in CALLS.into_iter().map(Some).chain([None]) {
        let (violations, took) = tried(How::IsSlow, call).await;
        assert!(took < FIVE_MINUTES, "{call:?}: {took:?}");
        for violation in violations.iter() {
            assert_eq!(violation.seen(), "it did not end within 30 seconds");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_created_is_one_cause() {
    let began = Instant::now();
    let found = conformance::key_store(pending::<MemoryStore>).await;
    assert!(began.elapsed() < FIVE_MINUTES);
    let violations = found.unwrap_err();
    let causes: Vec<_> = violations.iter().map(Violation::seen).collect();
    assert_eq!(causes, ["no fresh key store was created within 60 seconds"]);
    for (_, why) in violations.not_judged() {
        assert_eq!(why, "not run: no fresh key store was created");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_limiters_directories_and_buses_are_reported_within_5_minutes() {
    let began = Instant::now();
    let odd = |call| Faulty {
        right: LocalLimiter::default(),
        how: How::Hangs,
        call,
    };
    let limiter = conformance::rate_limiter(|_| ready(odd(None))).await;
    let real = conformance::rate_limiter_in_real_time(|| ready(odd(None))).await;
    assert!(began.elapsed() < FIVE_MINUTES);
    let unreadable = conformance::rate_limiter(|clock| {
        let right = LocalLimiter::builder().clock(clock).build();
        let call = Some("peek");
        ready(Faulty { right, ..odd(call) })
    });
    let unreadable = unreadable.await;
    let [tenant, other] = ["acme", "other"].map(|name| name.parse().unwrap());
    let [user, another] = ["ann", "olaf"].map(|name| name.parse().unwrap());
    let directory = Faulty {
        right: (),
        how: How::Hangs,
        call: None,
    };
    let facts = DirectoryFacts::new(tenant, user, other, another);
    let directory = conformance::directory(directory, facts).await;
    let bus = conformance::invalidation_bus(|| {
        let bus = Faulty {
            right: LocalBus::new(),
            how: How::Hangs,
            call: None,
        };
        ready(BusNodes::new(bus.clone(), bus))
    })
    .await;
    assert!(began.elapsed() < 2 * FIVE_MINUTES);
    for (found, expected) in [
        (limiter, "`acquire` did not answer within 15 seconds"),
        (real, "`acquire` did not answer within 15 seconds"),
        (unreadable, "`peek` did not answer within 15 seconds"),
        (directory, "`resolve` did not answer within 15 seconds"),
        (bus, "`publish` did not answer within 30 seconds"),
    ] {
        let violations = found.unwrap_err();
        let causes: Vec<_> = violations.iter().map(Violation::seen).collect();
        assert_eq!(causes, [expected], "{violations}");
    }
}

/// The test of a store that passes, as a host runs it with `--nocapture`.
#[test]
fn each_check_is_printed_with_its_result_when_it_ends() {
    let test = "stores_and_limiters::the_in_memory_store_passes";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    let kept = printed.matches("\n[key store] ok, ").count() + 1;
    let first = printed.lines().next().unwrap_or_default();
    let sentence = ": a key is found by its exact digest and by no similar one";
    assert!(
        first.starts_with("[key store] ok, ") && first.ends_with(sentence),
        "{printed}"
    );
    let last = printed.lines().last().unwrap_or_default();
    assert!(
        last.starts_with(&format!("[key store] {kept} checks in ")),
        "{last}"
    );
    assert!(last.ends_with(": 0 failed, 0 not judged"), "{last}");
}
