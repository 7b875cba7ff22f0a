//! The limits and the credits of a key as gauges.

use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use portunus::Limits;
use portunus::audit::Action;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, Credits, LedgerEntry, MemoryCreditStore,
    NewGrant, Period, StoredCredits,
};
use portunus::key::TenantId;
use portunus::limit::{
    Decision, LimitPolicy, LimitRequest, LimiterError, LocalLimiter, RateLimiter, WindowState,
};
use portunus::manage::own_keys;
use portunus::quota::{Quota, Quotas};
use portunus_test_support::Setup;

use crate::browser::{Browser, Page};
use crate::fixture::{Fixture, id_in};

/// Issues a key on the portal. Returns the page that shows it.
async fn issued_on(portal: &Browser) -> Page {
    let page = portal.get("/keys?page=issue").await;
    let form = page.form().enter("name", "mine");
    portal.post(&page, &form).await.expect(200)
}

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

/// The limits of these tests: of a key, its user, its tenant, an address, all requests, a class.
fn many_limits() -> Limits {
    Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)])
        .policy(LimitPolicy::per_user([Quota::per_minute(90)]))
        .policy(LimitPolicy::per_tenant([Quota::per_hour(5000)]))
        .policy(LimitPolicy::per_address([Quota::per_minute(200)]))
        .policy(LimitPolicy::per_address([Quota::per_minute(7)]).anonymous())
        .policy(LimitPolicy::shared([Quota::per_minute(9000)]))
        .class("exports", [LimitPolicy::per_key([Quota::per_hour(9)])])
        .on("/exports")
}

/// Returns what is read of each gauge: how much is used, and of how much.
fn gauges(page: &Page) -> Vec<(u64, u64)> {
    let number = |meter: &str, name: &str| {
        let (_, after) = meter.split_once(&format!(" {name}=\"")).unwrap();
        after.split('"').next().unwrap().parse().unwrap()
    };
    let meters = meters(page);
    let each = meters.iter();
    each.map(|meter| (number(meter, "value"), number(meter, "max")))
        .collect()
}

#[tokio::test]
async fn each_limit_of_a_key_has_a_gauge_of_what_the_limiter_counted() {
    let fixture = Fixture::with(|setup| setup.limits(many_limits()).keys());
    let (id, secret) = fixture.issue("key").await;
    let browser = fixture.browser();
    let unused = browser.key(&id).await.expect(200);
    assert_eq!(gauges(&unused), [(0, 60), (0, 1000), (0, 5000), (0, 9)]);
    assert!(!unused.text().contains("More are available"));
    for _ in 0..5 {
        assert!(fixture.works(&secret).await);
    }
    // The counts of uses are no part of the gauges.
    fixture.used(&id, 400).await;
    for _ in 0..70 {
        browser.key(&id).await.expect(200);
    }
    let page = browser.key(&id).await.expect(200);
    assert_eq!(gauges(&page), [(5, 60), (5, 1000), (5, 5000), (0, 9)]);
    assert_eq!(
        meters(&page)[0],
        "min=\"0\" max=\"60\" high=\"48\" optimum=\"0\" value=\"5\" aria-labelledby=\"gauge-0\""
    );
    let text = page.text();
    for expected in [
        "5 of 60 requests used in the last 60 seconds (minute), 55 left",
        "5 of 5000 requests used in the last 3600 seconds (tenant-hour), 4995 left",
        "0 of 9 requests used in the last 3600 seconds (exports-hour), 9 left",
        // What others used is not of the key.
        "200 requests in 60 seconds (address-minute)",
        "9000 requests in 60 seconds (shared-minute)",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("anonymous"), "{text}");
    // The clock is a second after 08:00, and units are rounded up.
    assert!(
        text.contains("More are available from 2027-01-15 08:01:0"),
        "{text}"
    );
    // The pages took nothing, and the page follows the limiter.
    for _ in 0..55 {
        assert!(fixture.works(&secret).await);
    }
    assert!(!fixture.works(&secret).await);
    let page = browser.key(&id).await.expect(200);
    assert_eq!(gauges(&page)[..2], [(60, 60), (60, 1000)]);
    fixture.clock.advance(Duration::from_secs(62));
    let page = browser.key(&id).await.expect(200);
    assert_eq!(gauges(&page), [(0, 60), (60, 1000), (60, 5000), (0, 9)]);
}

#[tokio::test]
async fn a_user_sees_the_gauges_of_its_own_key_on_the_portal() {
    let fixture = Fixture::with(|setup| setup.limits(many_limits()).keys());
    let portal = fixture.portal();
    let issued = issued_on(&portal).await;
    let (id, secret) = (id_in(&issued.link("I have stored it")), issued.secret());
    let secret = secret.unwrap();
    for _ in 0..5 {
        assert!(fixture.works(&secret).await);
    }
    let page = portal.key(&id).await.expect(200);
    assert_eq!(
        gauges(&page),
        [(5, 60), (5, 1000), (5, 90), (5, 5000), (0, 9)]
    );
    // Another user's key is not there.
    let other = fixture.portal().signed_in("member-1");
    other.key(&id).await.expect(404);
}

#[tokio::test]
async fn a_lower_plan_is_a_gauge_that_is_full() {
    let fixture = Fixture::with(|setup| setup.limits(many_limits()).keys());
    let (id, secret) = fixture.issue("key").await;
    for _ in 0..5 {
        assert!(fixture.works(&secret).await);
    }
    let own = Quotas::new([Quota::per_minute(3).unwrap(), Quota::per_hour(100).unwrap()]);
    fixture.change(&id, |record| record.quotas = own.ok()).await;
    let page = fixture.browser().key(&id).await.expect(200);
    assert_eq!(gauges(&page)[..2], [(3, 3), (5, 100)]);
    assert!(
        page.text()
            .contains("3 of 3 requests used in the last 60 seconds (minute), 0 left")
    );
}

/// A limiter that counts, and is read in this way.
#[derive(Debug)]
struct Odd(LocalLimiter, &'static str);

#[async_trait]
impl RateLimiter for Odd {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.0.acquire(request).await
    }

    async fn peek(&self, _: &LimitRequest<'_>) -> Result<Option<Vec<WindowState>>, LimiterError> {
        match self.1 {
            "down" => Err(LimiterError::unavailable("connection reset by 10.0.0.7")),
            "panics" => panic!("a mistake of the limiter"),
            "hangs" => pending().await,
            "absurd" => Ok(Some(vec![
                WindowState::new(u64::MAX, Some(Duration::MAX));
                2
            ])),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn a_key_is_shown_and_revoked_whatever_the_limiter_does() {
    for how in ["down", "panics", "hangs", "absurd", "unreadable"] {
        let fixture = Fixture::with(|setup| {
            setup
                .limits(many_limits().limiter(Odd(LocalLimiter::default(), how)))
                .keys()
        });
        let (id, secret) = fixture.issue("key").await;
        assert!(fixture.works(&secret).await);
        let browser = fixture.browser();
        let page = browser.key(&id).await.expect(200);
        let (text, is_absurd) = (page.text(), how == "absurd");
        let expected = "What is used of the limits cannot be read at the moment";
        let cannot = ["down", "panics", "hangs"].contains(&how);
        assert_eq!(text.contains(expected), cannot, "{how}: {text}");
        let limit = "60 requests in 60 seconds (minute)";
        assert_eq!(text.contains(limit), !is_absurd, "{how}: {text}");
        assert_eq!(meters(&page).is_empty(), !is_absurd, "{how}");
        assert!(!page.has("10.0.0.7") && !page.has("mistake"), "{how}");
        let page = browser.open(&page, &page.link("Revoke")).await.expect(200);
        let form = page.form().enter("confirm", "key");
        browser.submit(&page, &form).await.expect(200);
    }
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
    assert!(meters(&page)[3].starts_with("min=\"0\" max=\"530\" low=\"106\""));
    // A user of the portal may not read the organization's; that is no event.
    let portal = fixture.portal();
    let issued = issued_on(&portal).await;
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
    let issued = issued_on(&portal).await;
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
