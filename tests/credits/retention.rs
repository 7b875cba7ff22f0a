//! Old entries of ledgers are deleted, and balances stay explained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portunus::credit::{
    CreditAccount, CreditAccounts, CreditError, CreditId, CreditStore, CreditWrite, Credits,
    LedgerEntry, NewGrant, Period, StoredCredits,
};
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{Clock, Limits, Portunus};
use portunus_test_support::credits::FaultyCredits;
use portunus_test_support::format;

use crate::accounts::{DAY, account};

const MINUTE: Duration = Duration::from_secs(60);

struct Fixture {
    store: FaultyCredits,
    accounts: CreditAccounts,
    clock: ManualClock,
}

impl Fixture {
    fn new() -> Self {
        let (store, clock) = (FaultyCredits::default(), ManualClock::new());
        let accounts = CreditAccounts::new(store.clone());
        Self {
            accounts: accounts.with_clock(Arc::new(clock.clone())),
            store,
            clock,
        }
    }

    /// Uses units by reservations of which a part comes back.
    async fn spend(&self, times: usize) {
        for _ in 0..times {
            let reserved = self.accounts.reserve(&account(), 3, MINUTE).await.unwrap();
            reserved.settle(2).await.unwrap();
        }
    }

    /// A used account: a grant that rolls over, one that is refilled, one that was never touched, and
    /// ones that ended.
    async fn used(&self) {
        let grant = async |grant: NewGrant| {
            self.accounts.grant(&account(), grant).await.unwrap();
        };
        let id = |text: &str| text.parse::<CreditId>().unwrap();
        let weekly = || NewGrant::new(400).refilled(Period::weekly());
        grant(weekly().with_id(id("weekly"))).await;
        grant(
            weekly()
                .rolling_over()
                .with_id(id("rolls"))
                .with_priority(1),
        )
        .await;
        grant(NewGrant::new(7).with_id(id("kept")).with_priority(9)).await;
        grant(NewGrant::new(9).with_id(id("gift")).with_priority(9)).await;
        self.spend(130).await;
        self.accounts.void(&account(), &id("gift")).await.unwrap();
        self.clock.advance(7 * DAY);
        self.spend(270).await;
        self.clock.advance(7 * DAY);
        self.spend(10).await;
    }

    async fn ledger(&self) -> Vec<LedgerEntry> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let page = self.accounts.ledger(&account(), after, 1000).await.unwrap();
            let Some(last) = page.last() else { return all };
            after = last.number;
            all.extend(page);
        }
    }

    /// Asserts that what is left of each grant is what was carried forward and the later changes, and
    /// that no later entry is missing.
    async fn assert_explained(&self) {
        let balance = self.accounts.balance(&account()).await.unwrap();
        let mut sums = BTreeMap::<CreditId, i64>::new();
        let mut next = balance.forgotten + 1;
        for entry in self.ledger().await {
            if entry.number > balance.forgotten {
                assert_eq!(entry.number, next);
                next += 1;
                *sums.entry(entry.grant).or_default() += entry.change;
            }
        }
        assert_eq!(balance.grants.len(), 3);
        for grant in balance.grants {
            let sum = grant.carried_forward + sums.remove(&grant.id).unwrap_or(0);
            assert_eq!(sum, i64::try_from(grant.left).unwrap(), "{}", grant.id);
        }
    }
}

#[tokio::test]
async fn old_entries_are_deleted_and_what_is_left_stays_explained() {
    let fixture = Fixture::new();
    fixture.used().await;
    let (before, all) = (
        fixture.accounts.balance(&account()).await.unwrap(),
        fixture.ledger().await,
    );
    assert_eq!(before.forgotten, 0);
    let at = fixture.clock.now() - 7 * DAY;
    let is_old = |entry: &&LedgerEntry| {
        Duration::from_millis(entry.at_ms) < at.duration_since(std::time::UNIX_EPOCH).unwrap()
    };
    let old = all.iter().filter(is_old).count();
    assert!(old > 260 && all.len() - old > 540, "{old} of {}", all.len());
    let deleted = fixture
        .accounts
        .forget_entries_before(&account(), at)
        .await
        .unwrap();
    assert_eq!(deleted, old as u64);
    assert_eq!(fixture.ledger().await, all[old..], "none was changed");
    fixture.assert_explained().await;
    let after = fixture.accounts.balance(&account()).await.unwrap();
    assert_eq!(
        (after.available, after.forgotten),
        (before.available, old as u64)
    );
    // Nothing is left to do, and use goes on.
    assert_eq!(
        fixture
            .accounts
            .forget_entries_before(&account(), at)
            .await
            .unwrap(),
        0
    );
    fixture.spend(3).await;
    fixture.assert_explained().await;
    let end = fixture.clock.now() + DAY;
    fixture
        .accounts
        .forget_entries_before(&account(), end)
        .await
        .unwrap();
    assert_eq!(fixture.ledger().await, []);
    fixture.assert_explained().await;
}

#[tokio::test]
async fn a_deletion_that_is_interrupted_at_any_call_leaves_nothing_unexplained() {
    let mut interrupted = 0;
    for calls in 0.. {
        let fixture = Fixture::new();
        fixture.used().await;
        let end = fixture.clock.now() + DAY;
        fixture.store.fail_after(calls);
        let done = fixture
            .accounts
            .forget_entries_before(&account(), end)
            .await;
        fixture.store.fails(false);
        fixture.assert_explained().await;
        if done.is_ok() {
            break;
        }
        // Another node goes on, and meanwhile the account is used.
        fixture.spend(1).await;
        fixture
            .accounts
            .forget_entries_before(&account(), end)
            .await
            .unwrap();
        assert_eq!(fixture.ledger().await, []);
        fixture.assert_explained().await;
        interrupted += 1;
    }
    assert!(interrupted >= 8, "{interrupted}");
}

#[tokio::test]
async fn two_nodes_that_delete_at_once_add_nothing_twice() {
    let fixture = Fixture::new();
    fixture.used().await;
    let (end, of) = (fixture.clock.now() + DAY, account());
    let forget = || fixture.accounts.forget_entries_before(&of, end);
    let (one, other) = tokio::join!(forget(), forget());
    assert!(one.unwrap() + other.unwrap() > 800);
    fixture.assert_explained().await;
}

/// The periodic job of a service that keeps entries for 30 days.
fn node(fixture: &Fixture, credits: impl FnOnce(Credits) -> Credits) -> Portunus {
    Portunus::builder(format())
        .store(MemoryStore::new())
        .limits(Limits::none())
        .clock(fixture.clock.clone())
        .credits(credits(Credits::per_tenant(fixture.store.clone())))
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_periodic_job_deletes_entries_only_if_the_host_sets_an_age() {
    let fixture = Fixture::new();
    fixture.used().await;
    fixture.clock.advance(40 * DAY);
    let all = fixture.ledger().await.len();
    let keeps = node(&fixture, |credits| credits);
    let deletes = node(&fixture, |credits| credits.keep_entries(45 * DAY));
    for (node, is_deleted) in [(&keeps, false), (&deletes, true)] {
        let failures = node.maintain().await.failures;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(fixture.ledger().await.len() < all, is_deleted);
    }
    fixture.assert_explained().await;
    // The job looks again after an hour.
    fixture.clock.advance(50 * DAY);
    let failures = deletes.maintain().await.failures;
    assert!(failures.is_empty(), "{failures:?}");
    let kept = fixture.clock.now() - 45 * DAY;
    let kept = kept.duration_since(std::time::UNIX_EPOCH).unwrap();
    // The weeks since are entered when an account is changed.
    let left = fixture.ledger().await;
    assert!(left.len() < 10, "{left:?}");
    assert!(
        left.iter()
            .all(|entry| Duration::from_millis(entry.at_ms) >= kept)
    );
    fixture.assert_explained().await;
}

/// A store that was written before these methods existed.
#[derive(Debug)]
struct Earlier(FaultyCredits);

#[async_trait::async_trait]
impl CreditStore for Earlier {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        self.0.load(account).await
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        self.0.save(account, write).await
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        self.0.ledger(account, after, most).await
    }
}

#[tokio::test]
async fn a_store_that_keeps_all_entries_works_and_says_so_if_an_age_is_set() {
    let fixture = Fixture::new();
    fixture.used().await;
    let node = |kept: Option<Duration>| {
        let credits = Credits::per_tenant(Earlier(fixture.store.clone()));
        let credits = match kept {
            Some(age) => credits.keep_entries(age),
            None => credits,
        };
        node(&fixture, |_| credits)
    };
    assert!(node(None).maintain().await.failures.is_empty());
    let failures = node(Some(DAY)).maintain().await.failures;
    let (job, why) = failures.first().unwrap();
    assert_eq!(job, "look through the accounts of credits");
    assert_eq!(
        why.to_string(),
        "the credit store does not list its accounts"
    );
}
