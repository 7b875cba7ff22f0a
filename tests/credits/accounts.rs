//! Grants, their order and their end, and reservations, through the public API.

use std::sync::Arc;
use std::time::Duration;

use portunus::Clock;
use portunus::credit::{
    CreditAccount, CreditAccounts, CreditError, CreditId, LedgerKind, MemoryCreditStore, NewGrant,
    Period,
};
use portunus::testing::ManualClock;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn account() -> CreditAccount {
    CreditAccount::Tenant("acme".parse().unwrap())
}

pub(crate) fn accounts() -> (CreditAccounts, ManualClock) {
    let clock = ManualClock::new();
    let accounts = CreditAccounts::new(MemoryCreditStore::new());
    (accounts.with_clock(Arc::new(clock.clone())), clock)
}

fn id(text: &str) -> CreditId {
    text.parse().unwrap()
}

/// Uses this many units.
async fn spend(accounts: &CreditAccounts, units: u64) {
    let taken = accounts.reserve(&account(), units, MINUTE).await.unwrap();
    taken.settle(units).await.unwrap();
}

async fn left(accounts: &CreditAccounts) -> Vec<(String, u64)> {
    let balance = accounts.balance(&account()).await.unwrap();
    let left = balance
        .grants
        .iter()
        .map(|one| (one.id.to_string(), one.left));
    left.collect()
}

fn grants(left: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = left.iter().map(|(id, units)| ((*id).to_owned(), *units));
    owned.collect()
}

#[tokio::test]
async fn grants_are_spent_by_priority_then_by_expiry() {
    let (accounts, clock) = accounts();
    let made = [
        NewGrant::new(10).with_id(id("top-up")).with_priority(9),
        NewGrant::new(10).with_id(id("forever")),
        NewGrant::new(10)
            .with_id(id("late"))
            .expiring_at(clock.now() + 9 * DAY),
        // The 1st is after 17 days, the gift's end after 2.
        NewGrant::new(10)
            .with_id(id("monthly"))
            .refilled(Period::monthly()),
        NewGrant::new(10)
            .with_id(id("gift"))
            .expiring_at(clock.now() + 2 * DAY),
    ];
    for grant in made {
        accounts.grant(&account(), grant).await.unwrap();
    }
    spend(&accounts, 15).await;
    let expected = [
        ("late", 5),
        ("monthly", 10),
        ("forever", 10),
        ("top-up", 10),
    ];
    assert_eq!(left(&accounts).await, grants(&expected));
    spend(&accounts, 26).await;
    assert_eq!(
        left(&accounts).await,
        grants(&[("monthly", 0), ("top-up", 9)])
    );
}

#[tokio::test]
async fn a_refill_never_wipes_a_top_up() {
    let (accounts, clock) = accounts();
    let monthly = NewGrant::new(100)
        .with_id(id("monthly"))
        .refilled(Period::monthly());
    accounts.grant(&account(), monthly).await.unwrap();
    let top_up = NewGrant::new(50).with_id(id("top-up")).with_priority(1);
    accounts.grant(&account(), top_up).await.unwrap();
    spend(&accounts, 110).await;
    for _ in 0..3 {
        clock.advance(31 * DAY);
        let expected = [("monthly", 100), ("top-up", 40)];
        assert_eq!(left(&accounts).await, grants(&expected));
    }
}

#[tokio::test]
async fn unused_units_lapse_or_roll_over_also_when_nobody_looked_for_months() {
    let (accounts, clock) = accounts();
    let lapsing = NewGrant::new(100)
        .with_id(id("lapsing"))
        .refilled(Period::weekly());
    let kept = NewGrant::new(100)
        .with_id(id("kept"))
        .refilled(Period::weekly());
    accounts.grant(&account(), lapsing).await.unwrap();
    accounts
        .grant(&account(), kept.rolling_over())
        .await
        .unwrap();
    clock.advance(10 * 7 * DAY);
    let expected = [("lapsing", 100), ("kept", 1100)];
    assert_eq!(left(&accounts).await, grants(&expected));
}

#[tokio::test]
async fn a_grant_ends_at_the_instant_of_its_expiry() {
    let (accounts, clock) = accounts();
    let grant = NewGrant::new(5).expiring_at(clock.now() + DAY);
    accounts.grant(&account(), grant).await.unwrap();
    clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 5);
    clock.advance(Duration::from_millis(1));
    let refused = accounts.reserve(&account(), 1, MINUTE).await;
    assert!(
        matches!(refused, Err(CreditError::Exhausted)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_clock_that_goes_back_revives_nothing() {
    let (accounts, clock) = accounts();
    let began = clock.now();
    accounts
        .grant(&account(), NewGrant::new(5).expiring_at(began + DAY))
        .await
        .unwrap();
    clock.advance(2 * DAY);
    // Records that the grant has expired.
    accounts.grant(&account(), NewGrant::new(1)).await.unwrap();
    clock.step_to(began);
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 1);
}

#[tokio::test]
async fn a_grant_with_the_id_of_an_earlier_one_is_not_made_again() {
    let (accounts, _) = accounts();
    for _ in 0..2 {
        let grant = NewGrant::new(10).with_id(id("invoice-7"));
        accounts.grant(&account(), grant).await.unwrap();
    }
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 10);
    spend(&accounts, 10).await;
    let repeated = NewGrant::new(10).with_id(id("invoice-7"));
    accounts.grant(&account(), repeated).await.unwrap();
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 0);
}

#[tokio::test]
async fn a_voided_grant_is_gone_and_what_was_reserved_of_it_does_not_come_back() {
    let (accounts, _) = accounts();
    let grant = accounts.grant(&account(), NewGrant::new(10)).await.unwrap();
    let reserved = accounts
        .reserve(&account(), 4, MINUTE)
        .await
        .unwrap()
        .into_id();
    assert_eq!(accounts.void(&account(), &grant).await.unwrap(), 6);
    assert_eq!(accounts.settle(&account(), &reserved, 1).await.unwrap(), 0);
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 0);
    let again = accounts.void(&account(), &grant).await;
    assert!(matches!(again, Err(CreditError::NotFound(_))), "{again:?}");
}

#[tokio::test]
async fn the_first_settlement_of_a_reservation_wins() {
    let (accounts, _) = accounts();
    accounts.grant(&account(), NewGrant::new(10)).await.unwrap();
    let reserved = accounts
        .reserve(&account(), 8, MINUTE)
        .await
        .unwrap()
        .into_id();
    let too_many = accounts.settle(&account(), &reserved, 9).await;
    assert!(
        matches!(too_many, Err(CreditError::Conflict(_))),
        "{too_many:?}"
    );
    assert_eq!(accounts.settle(&account(), &reserved, 3).await.unwrap(), 5);
    for second in [
        accounts.settle(&account(), &reserved, 8).await,
        accounts.settle(&account(), &reserved, 0).await,
    ] {
        assert!(
            matches!(second, Err(CreditError::NotFound(_))),
            "{second:?}"
        );
    }
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 7);
}

#[tokio::test]
async fn a_reservation_that_is_never_settled_is_released_at_its_end() {
    let (accounts, clock) = accounts();
    accounts.grant(&account(), NewGrant::new(10)).await.unwrap();
    let reserved = accounts
        .reserve(&account(), 8, MINUTE)
        .await
        .unwrap()
        .into_id();
    clock.advance(MINUTE - Duration::from_millis(1));
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 2);
    clock.advance(Duration::from_millis(1));
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 10);
    let late = accounts.settle(&account(), &reserved, 8).await;
    assert!(matches!(late, Err(CreditError::NotFound(_))), "{late:?}");
}

#[tokio::test]
async fn a_reservation_of_an_ended_period_gives_nothing_to_the_new_one() {
    let (accounts, clock) = accounts();
    let daily = NewGrant::new(10).refilled(Period::daily());
    accounts.grant(&account(), daily).await.unwrap();
    let reserved = accounts
        .reserve(&account(), 8, 2 * DAY)
        .await
        .unwrap()
        .into_id();
    clock.advance(DAY);
    assert_eq!(accounts.settle(&account(), &reserved, 0).await.unwrap(), 0);
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 10);
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused() {
    let (accounts, clock) = accounts();
    for (grant, why) in [
        (NewGrant::new(0), "units"),
        (NewGrant::new(1 << 53), "units"),
        (NewGrant::new(1).expiring_at(clock.now()), "future"),
        (NewGrant::new(1).rolling_over(), "roll over"),
    ] {
        let refused = accounts.grant(&account(), grant).await.unwrap_err();
        assert!(matches!(refused, CreditError::Invalid(_)), "{refused:?}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let most = (1 << 53) - 1;
    accounts
        .grant(&account(), NewGrant::new(most))
        .await
        .unwrap();
    let over = accounts.grant(&account(), NewGrant::new(1)).await;
    assert!(matches!(over, Err(CreditError::Conflict(_))), "{over:?}");
}

#[tokio::test]
async fn the_ledger_is_read_in_pages_and_says_what_happened() {
    let (accounts, _) = accounts();
    let grant = NewGrant::new(10).with_id(id("gift"));
    accounts.grant(&account(), grant).await.unwrap();
    let reserved = accounts
        .reserve(&account(), 4, MINUTE)
        .await
        .unwrap()
        .into_id();
    accounts.settle(&account(), &reserved, 1).await.unwrap();
    accounts.void(&account(), &id("gift")).await.unwrap();
    let (first, rest) = (
        accounts.ledger(&account(), 0, 1).await.unwrap(),
        accounts.ledger(&account(), 1, 100).await.unwrap(),
    );
    let all: Vec<_> = first.iter().chain(&rest).collect();
    let seen = all
        .iter()
        .map(|entry| (entry.number, entry.kind, entry.change));
    let expected = [
        (1, LedgerKind::Granted, 10),
        (2, LedgerKind::Taken, -4),
        (3, LedgerKind::GivenBack, 3),
        (4, LedgerKind::Voided, -9),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(all[1].taken, Some(reserved));
}

#[tokio::test]
async fn a_grant_with_the_id_of_an_earlier_one_has_its_terms() {
    let (accounts, clock) = accounts();
    let end = clock.now() + DAY;
    let grant = |units| NewGrant::new(units).with_id(id("invoice-7"));
    accounts
        .grant(&account(), grant(10).expiring_at(end))
        .await
        .unwrap();
    for other in [
        grant(11).expiring_at(end),
        grant(10),
        grant(10).expiring_at(end).with_priority(1),
        grant(10).expiring_at(end).refilled(Period::daily()),
    ] {
        let refused = accounts.grant(&account(), other).await;
        assert!(
            matches!(refused, Err(CreditError::Conflict(_))),
            "{refused:?}"
        );
    }
    // Its terms are forgotten when it has ended, and its id is not.
    clock.advance(2 * DAY);
    accounts.grant(&account(), grant(11)).await.unwrap();
    assert_eq!(accounts.balance(&account()).await.unwrap().available, 0);
}

#[test]
fn an_account_is_read_from_its_text_form_only() {
    let (tenant, user) = ("a:b".parse().unwrap(), "c:d/e".parse().unwrap());
    for account in [
        account(),
        CreditAccount::User(tenant, user),
        CreditAccount::Key("key_1".parse().unwrap()),
    ] {
        assert_eq!(account.to_string().parse(), Ok(account));
    }
    for text in [
        "",
        "acme",
        "tenant:",
        "tenant:a b",
        "key:",
        "org:acme",
        "user:4:acme",
        "user:4:acme:",
        "user:5:acme:ann",
        "user:04:acme:ann",
        "user:+4:acme:ann",
        "user:-1:acme:ann",
        "user::acme:ann",
        "user:2:\u{e4}cm:ann",
        "user:1:\u{e4}cm:ann",
    ] {
        assert!(text.parse::<CreditAccount>().is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_period_beyond_the_calendar_is_refused() {
    let (accounts, clock) = accounts();
    let late = clock.now() + DAY * 365 * 100_000;
    let period = Period::monthly().anchored(late);
    let refused = accounts
        .grant(&account(), NewGrant::new(1).refilled(period))
        .await;
    assert!(
        matches!(refused, Err(CreditError::Invalid(_))),
        "{refused:?}"
    );
}
