//! Operations on many keys: counted first, confirmed by their number, started once.

use std::time::Duration;

use portunus::audit::{Action, AuditOutcome};

use crate::browser::{Browser, Page};
use crate::fixture::{Fixture, id_in};

/// Chooses the action on the page of a selection, and returns the page with the number of keys.
async fn counted(browser: &Browser, address: &str, fields: &[(&str, &str)]) -> Page {
    let page = browser.get(address).await.expect(200);
    let form = fields
        .iter()
        .fold(page.form(), |form, (name, value)| form.enter(name, value));
    browser.post(&page, &form).await
}

/// Runs the service's jobs until the operation has ended; returns its page.
async fn ended(fixture: &Fixture, browser: &Browser, mut page: Page) -> Page {
    for _ in 0..100 {
        if page.has("has ended") {
            return page;
        }
        fixture.clock.advance(Duration::from_secs(1));
        fixture.keys.maintain().await;
        page = browser.open(&page, &page.link("Refresh")).await.expect(200);
    }
    panic!("the operation does not end: {}", page.body);
}

/// Returns the number of operations that were started.
async fn started(fixture: &Fixture) -> usize {
    let events = fixture.events().await;
    let is_start = |event: &&portunus::audit::AuditEvent| {
        event.action == Action::KeyBulk && event.outcome == AuditOutcome::Ok
    };
    events.iter().filter(is_start).count()
}

#[tokio::test]
async fn the_keys_of_a_filter_are_counted_confirmed_and_changed_once() {
    let fixture = Fixture::new();
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(fixture.issue(&format!("server {number}")).await.0);
    }
    let (other, _) = fixture.issue("other").await;
    let browser = fixture.browser();
    let list = browser.get("/keys?query=server&status=active").await;
    let link = list.link("Change all that match");
    let address = crate::browser::resolve(&list.address, &link);
    let first = browser.get(&address).await.expect(200);
    assert!(first.text().contains("server") && first.text().contains("Active"));
    let page = counted(&browser, &address, &[("action", "disable")]).await;
    let page = page.expect(200);
    assert!(
        page.text().contains("Keys that match now: 3"),
        "{}",
        page.body
    );
    assert_eq!(started(&fixture).await, 0, "only counted");
    for wrong in ["", "4", "three"] {
        let form = page.form().enter("confirm", wrong);
        let refused = browser.post(&page, &form).await.expect(422);
        assert!(refused.error("confirm").is_some(), "{wrong}");
    }
    assert!(fixture.record(&ids[0]).await.enabled);
    let form = page.form().enter("confirm", " 3 ");
    let operation = browser.submit(&page, &form).await.expect(200);
    assert!(operation.text().contains("being counted"));
    let operation = ended(&fixture, &browser, operation).await;
    for id in &ids {
        assert!(!fixture.record(id).await.enabled);
    }
    assert!(fixture.record(&other).await.enabled);
    // A reload, after which the filter selects none of them; on another node, too.
    for browser in [&browser, &fixture.browser()] {
        let again = browser.submit(&page, &form).await.expect(200);
        assert_eq!(again.address, operation.address);
    }
    assert_eq!(started(&fixture).await, 1);
}

#[tokio::test]
async fn chosen_keys_are_revoked_with_a_reason_and_those_of_others_are_not() {
    let fixture = Fixture::new();
    let (one, secret) = fixture.issue("one").await;
    let (two, _) = fixture.issue("two").await;
    fixture.issue("three").await;
    let theirs = fixture.browser().signed_in("outsider-1");
    let page = theirs.get("/keys?page=issue").await;
    let page = theirs
        .post(&page, &page.form().enter("name", "theirs"))
        .await;
    let foreign = id_in(&page.link("I have stored it"));
    let browser = fixture.browser();
    let list = browser.get("/keys").await;
    for id in [&one, &two] {
        assert!(list.has(&format!("type=\"checkbox\" name=\"key\" value=\"{id}\"")));
        assert!(
            list.has(&format!("aria-labelledby=\"choose k-{id}\""))
                && list.has(&format!("id=\"k-{id}\""))
        );
    }
    let address = format!("/keys?page=bulk&key={one}&key={foreign}&key={two}");
    let first = browser.get(&address).await.expect(200);
    assert!(first.has(">one<") && first.has(">two<") && !first.has("theirs"));
    let fields = [("action", "revoke"), ("reason", "<script>leaked</script>")];
    let page = counted(&browser, &address, &fields).await.expect(200);
    assert!(page.text().contains("Keys that match now: 2"));
    assert!(page.has("&lt;script&gt;leaked") && !page.has("<script>leaked"));
    let form = page.form().enter("confirm", "2");
    let operation = browser.submit(&page, &form).await.expect(200);
    let operation = ended(&fixture, &browser, operation).await;
    assert!(operation.has(&foreign) && operation.has("no key has this id"));
    let revoked = fixture.record(&one).await.revoked.clone().unwrap();
    assert_eq!(revoked.reason.as_deref(), Some("<script>leaked</script>"));
    assert!(!fixture.works(&secret).await);
    assert!(fixture.record(&foreign).await.revoked.is_none());
    // Nobody of another tenant learns of the operation.
    theirs.get(&operation.address).await.expect(404);
    theirs.get("/keys?page=operation&id=x").await.expect(404);
}

#[tokio::test]
async fn a_selection_that_could_mean_too_much_is_refused() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    for (query, status) in [
        ("", 200),
        ("&query=", 200),
        ("&query=%20", 200),
        ("&all=", 200),
        ("&family=x", 200),
        ("&all=no", 422),
        ("&all=yes&query=x", 422),
        (&*format!("&all=yes&key={id}"), 422),
        (&*format!("&key={id}&status=active"), 422),
        ("&key=", 422),
        ("&key=two%20words", 422),
        ("&status=gone", 422),
        ("&owner=two+words", 422),
        ("&view=rotated-in-use", 422),
        ("&view=rotation-due", 422),
        ("&view=nothing", 422),
        ("&view=all", 422),
    ] {
        let address = format!("/keys?page=bulk{query}");
        let page = browser.get(&address).await.expect(status);
        assert!(!page.has("<form method=\"post\""), "{query}");
        assert_eq!(page.has("No keys are chosen"), status == 200, "{query}");
    }
    // The second step, with the selection left out or replaced by hand.
    let page = counted(
        &browser,
        "/keys?page=bulk&query=key",
        &[("action", "revoke")],
    )
    .await;
    let form = page.expect(200).form().enter("confirm", "1");
    let page = browser.get("/keys?page=bulk&query=key").await;
    browser
        .post(&page, &form.clone().enter("query", ""))
        .await
        .expect(422);
    browser
        .post(&page, &form.clone().enter("all", "yes"))
        .await
        .expect(422);
    for action in ["", "delete"] {
        let refused = browser
            .post(&page, &form.clone().enter("action", action))
            .await;
        assert!(refused.expect(422).error("action").is_some());
    }
    // A reason that is hidden in the second step is corrected in the first one.
    let fields = [("action", "revoke"), ("reason", "a\u{202e}b")];
    let second = counted(&browser, "/keys?page=bulk&query=key", &fields).await;
    let form = second.expect(200).form().enter("confirm", "1");
    let refused = browser.post(&page, &form).await.expect(422);
    assert!(refused.error("reason").is_some(), "{}", refused.body);
    let mut many = page.form().enter("query", "").enter("action", "revoke");
    many.fields
        .extend((0..1001).map(|number| ("key".to_owned(), format!("key_{number}"))));
    browser.post(&page, &many).await.expect(422);
    assert_eq!(started(&fixture).await, 0);
    assert!(fixture.record(&id).await.revoked.is_none());
}

#[tokio::test]
async fn a_number_that_is_out_of_date_starts_nothing() {
    let fixture = Fixture::new();
    fixture.issue("one").await;
    let browser = fixture.browser();
    let page = counted(&browser, "/keys?page=bulk&all=yes", &[("action", "revoke")]).await;
    let form = page.expect(200).form().enter("confirm", "1");
    let (second, _) = fixture.issue("two").await;
    let page = browser.get("/keys?page=bulk&all=yes").await;
    let refused = browser.post(&page, &form).await.expect(422);
    assert!(refused.error("confirm").unwrap().contains("has changed"));
    assert!(refused.text().contains("Keys that match now: 2"));
    let form = refused.form().enter("confirm", "2");
    let operation = browser.submit(&refused, &form).await.expect(200);
    ended(&fixture, &browser, operation).await;
    assert!(fixture.record(&second).await.revoked.is_some());
}

#[tokio::test]
async fn without_the_token_or_the_store_nothing_starts_and_nothing_entered_is_lost() {
    let fixture = Fixture::new();
    fixture.issue("one").await;
    let browser = fixture.browser();
    let fields = [("action", "revoke"), ("reason", "leaked")];
    let page = counted(&browser, "/keys?page=bulk&query=one", &fields).await;
    let form = page.form().enter("confirm", "1");
    let refused = browser
        .post(&page, &form.clone().enter("token", ""))
        .await
        .expect(403);
    let again = refused.form();
    for (name, value) in [("query", "one"), ("reason", "leaked"), ("confirm", "1")] {
        assert_eq!(again.value(name), value);
    }
    fixture.store.fail_all();
    let refused = browser.post(&page, &form).await.expect(503);
    fixture.store.recover();
    assert_eq!(refused.form().value("reason"), "leaked");
    assert_eq!(started(&fixture).await, 0);
    let operation = browser.submit(&page, &form).await.expect(200);
    ended(&fixture, &browser, operation).await;
    assert_eq!(started(&fixture).await, 1);
}

#[tokio::test]
async fn a_user_of_the_portal_changes_its_own_keys_only() {
    let fixture = Fixture::new();
    let (tenants, _) = fixture.issue("of the tenant").await;
    let portal = fixture.portal();
    let page = portal.get("/keys?page=issue").await;
    let page = portal.post(&page, &page.form().enter("name", "mine")).await;
    let mine = id_in(&page.link("I have stored it"));
    let page = counted(&portal, "/keys?page=bulk&all=yes", &[("action", "disable")]).await;
    assert!(
        page.text().contains("Keys that match now: 1"),
        "{}",
        page.body
    );
    let form = page.form().enter("confirm", "1");
    let operation = portal.submit(&page, &form).await.expect(200);
    let operation = ended(&fixture, &portal, operation).await;
    assert!(!fixture.record(&mine).await.enabled && fixture.record(&tenants).await.enabled);
    portal
        .clone()
        .signed_in("owner-1")
        .get(&operation.address)
        .await
        .expect(404);
    let member = fixture.browser().signed_in("member-1");
    member.get("/keys?page=bulk&all=yes").await.expect(403);
}
