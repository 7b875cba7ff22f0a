//! Issuing a key: the secret is shown once, wrong values have an error beside their field.

use crate::fixture::{Fixture, id_in};

#[tokio::test]
async fn a_key_is_issued_shown_once_and_works() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let list = browser.get("/keys").await.expect(200);
    let page = browser.open(&list, &list.link("New key")).await.expect(200);
    let form = page
        .form()
        .enter("name", "Production server")
        .enter("environment", "test")
        .enter("scopes", "document:read")
        .enter("expires_at", "90")
        .enter("requests_per_minute", "5");
    let issued = browser.post(&page, &form).await.expect(200);
    let secret = issued.secret().expect("the secret");
    assert!(secret.starts_with("acme_test_"), "{secret}");
    assert!(fixture.works(&secret).await);
    assert_eq!(issued.body.matches(&secret).count(), 1);
    assert_eq!(issued.headers["cache-control"], "no-store");
    assert!(
        issued.text().contains(&secret[secret.len() - 4..]),
        "the last four"
    );
    let detail = browser
        .open(&issued, &issued.link("I have stored it"))
        .await
        .expect(200);
    let id = id_in(&detail.address);
    let record = fixture.record(&id).await;
    assert_eq!(record.scopes.len(), 1);
    assert_eq!(record.quotas.as_ref().unwrap().as_slice()[0].limit(), 5);
    let lifetime = record
        .expires_at
        .unwrap()
        .duration_since(record.created_at)
        .unwrap();
    assert_eq!(lifetime.as_secs(), 90 * 86_400);
    for page in [&detail, &browser.get("/keys").await] {
        assert!(!page.has(&secret), "{}", page.address);
        assert!(page.has("Production server") && page.has(&record.masked));
    }
}

#[tokio::test]
async fn reloading_the_page_with_the_secret_issues_nothing() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "once");
    let issued = browser.post(&page, &form).await.expect(200);
    let secret = issued.secret().unwrap();
    // Another node, and a session that was renewed: its form token is another one.
    let other = fixture.browser().signed_in("owner-2");
    let token = other
        .get("/keys?page=issue")
        .await
        .form()
        .value("token")
        .to_owned();
    assert_ne!(token, form.value("token"));
    for (browser, form) in [
        (&browser, form.clone()),
        (&other, form.enter("token", &token)),
    ] {
        let again = browser.submit(&page, &form).await.expect(200);
        assert!(again.has("already created"), "{}", again.body);
        assert!(again.secret().is_none() && !again.has(&secret));
    }
    let list = browser.get("/keys").await;
    assert_eq!(list.body.matches("page=key&amp;id=").count(), 1);
}

#[tokio::test]
async fn a_form_that_was_used_with_other_values_is_shown_again_with_a_new_token() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "first");
    browser.post(&page, &form).await.expect(200);
    let changed = form.enter("name", "second");
    let refused = browser.post(&page, &changed).await.expect(422);
    assert!(refused.has("already sent with other values"));
    let again = refused.form();
    assert_eq!(again.value("name"), "second");
    let issued = browser.post(&refused, &again).await.expect(200);
    assert!(issued.secret().is_some());
}

#[tokio::test]
async fn every_wrong_value_has_an_error_beside_its_field_and_all_values_are_kept() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let wrong = [
        ("name", "\u{202e}name"),
        ("description", "a\u{1}b"),
        ("environment", "no where"),
        ("kind", "robot"),
        ("owner.user_id", "two words"),
        ("owner.user_email", "ann\u{7}@example"),
        ("scopes", "Not A Scope!"),
        ("workspaces", "a\u{2603}b"),
        ("allowed_ips", "010.0.0.0/8"),
        ("expires_on", "2031-02-30"),
    ];
    let form = wrong
        .iter()
        .fold(page.form(), |form, (name, value)| form.enter(name, value));
    let form = form.enter("requests_per_minute", "many");
    let refused = browser.post(&page, &form).await.expect(422);
    let fields = wrong
        .iter()
        .map(|(name, _)| *name)
        .chain(["rate_limit_config"]);
    for name in fields {
        assert!(refused.error(name).is_some(), "{name}: {}", refused.body);
        assert!(
            refused.has(&format!("href=\"#f-{}\"", name.replace('.', "-"))),
            "{name}"
        );
    }
    let kept = refused.form();
    for (name, value) in wrong {
        // A choice and a box contain only what they offer.
        if !["environment", "kind", "scopes"].contains(&name) {
            assert_eq!(kept.value(name), value);
        }
    }
    assert_eq!(kept.value("requests_per_minute"), "many");
    assert!(
        !browser.get("/keys").await.has("page=key&amp;"),
        "nothing was issued"
    );
    // Corrected one after the other, the form is accepted with the same token.
    let right = wrong
        .iter()
        .fold(kept, |form, (name, _)| form.enter(name, ""));
    let right = right
        .enter("name", "right")
        .enter("requests_per_minute", "");
    browser.post(&refused, &right).await.expect(200);
}

#[tokio::test]
async fn refusals_of_the_policy_are_beside_their_fields() {
    let fixture = Fixture::new();
    let browser = fixture.browser().signed_in("admin-1");
    let page = browser.get("/keys?page=issue").await.expect(200);
    assert!(
        page.has("document:read") && !page.has("document:write"),
        "only its own scopes"
    );
    let form = page.form().enter("name", "x");
    let cases = [
        ("scopes", "document:write"),
        ("owner.user_id", "nobody"),
        ("workspaces", "ws2"),
    ];
    for (field, value) in cases {
        let refused = browser
            .post(&page, &form.clone().enter(field, value))
            .await
            .expect(403);
        assert!(refused.error(field).is_some(), "{field}: {}", refused.body);
    }
}

#[tokio::test]
async fn a_store_that_is_down_loses_nothing_that_was_entered() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page
        .form()
        .enter("name", "kept")
        .enter("description", "\nsecond line");
    fixture.store.fail_all();
    let refused = browser.post(&page, &form).await.expect(503);
    assert!(refused.has("STORE_UNAVAILABLE"));
    fixture.store.recover();
    let again = refused.form();
    assert_eq!(again.value("description"), "\nsecond line");
    assert_eq!(again.value("once"), form.value("once"), "the same request");
    browser.post(&refused, &again).await.expect(200);
}

#[tokio::test]
async fn a_user_of_the_portal_issues_keys_for_itself_only() {
    let fixture = Fixture::new();
    let (tenants, _) = fixture.issue("of the tenant").await;
    let portal = fixture.portal();
    let page = portal.get("/keys?page=issue").await.expect(200);
    assert!(!page.has("owner.user_id") && !page.has("document:write"));
    // Added by hand.
    let form = page
        .form()
        .enter("name", "mine")
        .enter("owner.user_id", "owner");
    let issued = portal.post(&page, &form).await.expect(200);
    let id = id_in(&issued.link("I have stored it"));
    let record = fixture.record(&id).await;
    assert_eq!(record.owner.user_id.unwrap().as_str(), "ann");
    let list = portal.get("/keys").await;
    assert!(list.has("mine") && !list.has("of the tenant"));
    for page in ["key", "edit", "rotate", "revoke"] {
        portal.action(page, &tenants).await.expect(404);
    }
}
