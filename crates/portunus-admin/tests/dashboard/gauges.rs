//! The limits and the credits of a key as gauges.

use std::time::Duration;

use async_trait::async_trait;
use portunus::Limits;
use portunus::audit::Action;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, Credits, LedgerEntry, MemoryCreditStore,
    NewGrant, Period, StoredCredits,
};
use portunus::key::TenantId;
use portunus::limit::LimitPolicy;
use portunus::manage::own_keys;
use portunus::quota::Quota;
use portunus_test_support::Setup;

use crate::browser::Page;
use crate::fixture::{Fixture, id_in};

fn with_credits(credits: Credits) -> impl FnOnce(Setup) -> portunus::Portunus {
    let limits = Limits::default().policy(LimitPolicy::per_tenant([Quota::per_hour(5000)]));
    |setup| {
        let builder = setup.limits(limits).builder();
        builder.credits(credits).build().unwrap()
    }
}

/// Returns the attributes of each gauge, whose label must be on the page.
fn meters(page: &Page) -> Vec<String> {
    let meters = page.body.split("<meter ").skip(1);
    let meters: Vec<_> = meters
        .map(|rest| rest.split('>').next().unwrap().to_owned())
        .collect();
    for meter in &meters {
        let label = meter.split("aria-labelledby=\"").nth(1).unwrap();
        let label = label.split('"').next().unwrap();
        assert!(page.has(&format!("<p id=\"{label}\">")), "{meter}");
    }
    meters
}

#[tokio::test]
async fn a_gauge_shows_about_how_much_of_a_limit_is_used_and_counts_nothing() {
    let fixture = Fixture::with(|setup| {
        let limits = Limits::default().policy(LimitPolicy::per_tenant([Quota::per_hour(5000)]));
        setup.limits(limits).keys()
    });
    let (id, secret) = fixture.issue("key").await;
    let browser = fixture.browser();
    // The clock starts with an hour, and went a second on.
    fixture.used(&id, 400).await;
    fixture.clock.advance(Duration::from_secs(5400));
    fixture.used(&id, 100).await;
    for _ in 0..70 {
        browser.key(&id).await.expect(200);
    }
    let page = browser.key(&id).await.expect(200);
    let text = page.text();
    assert!(
        text.contains("About 299 of 1000 requests in the last 3600 seconds (hour)"),
        "{text}"
    );
    assert_eq!(
        meters(&page),
        [
            "min=\"0\" max=\"1000\" high=\"800\" optimum=\"0\" value=\"299\" \
          aria-labelledby=\"gauge-1\""
        ]
    );
    assert!(
        text.contains("60 requests in 60 seconds (minute)"),
        "{text}"
    );
    assert!(
        text.contains("5000 requests in 3600 seconds (tenant-hour)"),
        "{text}"
    );
    assert!(!text.contains("credits are left"));
    assert!(
        fixture.works(&secret).await,
        "the pages took no request of the minute"
    );
    // More than the limit: a key whose limit was lowered.
    fixture.used(&id, 9_000_000_000).await;
    let page = browser.key(&id).await;
    assert!(
        meters(&page)[0].contains("value=\"1000\""),
        "{:?}",
        meters(&page)
    );
    assert!(
        page.text().contains("About 9000000300 of 1000"),
        "{}",
        page.text()
    );
}

#[tokio::test]
async fn credits_are_shown_to_those_who_may_read_them() {
    let store = MemoryCreditStore::new();
    let fixture = Fixture::with(with_credits(Credits::per_tenant(store)));
    let (id, _) = fixture.issue("key").await;
    let account = CreditAccount::Tenant(TenantId::new("ours").unwrap());
    let browser = fixture.browser();
    let page = browser.key(&id).await.expect(200);
    assert!(
        page.text()
            .contains("0 of 0 credits are left of the organization"),
        "{}",
        page.text()
    );
    let manager = fixture.keys.manager();
    let monthly = NewGrant::new(500).refilled(Period::monthly());
    manager.grant_credits(&account, monthly).await.unwrap();
    manager
        .grant_credits(&account, NewGrant::new(30))
        .await
        .unwrap();
    let page = browser.key(&id).await.expect(200);
    let text = page.text();
    assert!(
        text.contains("530 of 530 credits are left of the organization"),
        "{text}"
    );
    assert!(text.contains("Refilled 2027-02-"), "{text}");
    assert!(meters(&page)[1].starts_with("min=\"0\" max=\"530\" low=\"106\""));
    // A user of the portal may not read the organization's; that is no event.
    let portal = fixture.portal();
    let page = portal.get("/keys?page=issue").await;
    let issued = portal
        .post(&page, &page.form().enter("name", "mine"))
        .await
        .expect(200);
    let own = id_in(&issued.link("I have stored it"));
    let page = portal.key(&own).await.expect(200);
    assert!(!page.text().contains("credits") && !page.text().contains("530"));
    let events = fixture.events().await;
    assert!(
        events
            .iter()
            .all(|event| event.action != Action::CreditRead),
        "{events:?}"
    );
    fixture
        .browser()
        .signed_in("outsider-1")
        .key(&id)
        .await
        .expect(404);
}

#[tokio::test]
async fn a_user_sees_the_credits_of_its_own() {
    let store = MemoryCreditStore::new();
    let fixture = Fixture::with(with_credits(Credits::per_user(store)));
    let portal = fixture.at("/keys", fixture.admin().operators(own_keys()).dashboard());
    let portal = portal.signed_in("ann-1");
    let page = portal.get("/keys?page=issue").await;
    let issued = portal
        .post(&page, &page.form().enter("name", "mine"))
        .await
        .expect(200);
    let own = id_in(&issued.link("I have stored it"));
    let record = fixture.record(&own).await;
    let account = CreditAccount::User(record.owner.tenant_id, record.owner.user_id.unwrap());
    let manager = fixture.keys.manager();
    manager
        .grant_credits(&account, NewGrant::new(7))
        .await
        .unwrap();
    let text = portal.key(&own).await.expect(200).text();
    assert!(
        text.contains("7 of 7 credits are left of the user"),
        "{text}"
    );
}

/// A store of credits that does not answer.
#[derive(Debug)]
struct Down;

#[async_trait]
impl CreditStore for Down {
    async fn load(&self, _: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        Err(CreditError::unavailable("connection reset"))
    }

    async fn save(&self, _: &CreditAccount, _: &CreditWrite) -> Result<bool, CreditError> {
        Err(CreditError::unavailable("connection reset"))
    }

    async fn ledger(
        &self,
        _: &CreditAccount,
        _: u64,
        _: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        Err(CreditError::unavailable("connection reset"))
    }
}

#[tokio::test]
async fn a_key_is_shown_and_revoked_while_the_credits_are_down() {
    let fixture = Fixture::with(with_credits(Credits::per_key(Down)));
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    let page = browser.key(&id).await.expect(200);
    assert!(
        page.text()
            .contains("The credits cannot be read at the moment")
    );
    assert!(!page.has("connection reset"));
    let page = browser.open(&page, &page.link("Revoke")).await.expect(200);
    let form = page.form().enter("confirm", "key");
    browser.submit(&page, &form).await.expect(200);
}
