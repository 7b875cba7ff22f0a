//! The check of a key: the answers of `POST /verify`, and the secret in no page.

use portunus::audit::AuditOutcome;
use portunus::quota::{Quota, Quotas};

use crate::browser::{Browser, Page};
use crate::fixture::Fixture;

const EXPLAIN: &str = "/keys?page=explain";

/// Checks a secret; returns the page, which never contains the secret.
async fn check(browser: &Browser, secret: &str, fields: &[(&str, &str)]) -> Page {
    let page = browser.get(EXPLAIN).await.expect(200);
    let mut form = page.form().enter("key", secret);
    for (name, value) in fields {
        form = form.enter(name, value);
    }
    assert_eq!(form.action, "?page=explain");
    let answer = browser.post(&page, &form).await;
    assert!(!answer.has(secret), "the secret is shown");
    let again = answer.form();
    assert_eq!(again.value("key"), "");
    for (name, value) in fields.iter().filter(|(name, _)| *name != "method") {
        assert_eq!(again.value(name), *value, "what else was entered stays");
    }
    answer
}

/// Issues a read-only key for one scope and one network.
async fn issue(fixture: &Fixture) -> (String, String) {
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "narrow & co");
    let form = form
        .enter("scopes", "document:read")
        .enter("access", "read-only");
    let form = form.enter("allowed_ips", "203.0.113.0/24");
    let issued = browser.submit(&page, &form).await.expect(200);
    let id = crate::fixture::id_in(&issued.link("I have stored it"));
    (id, issued.secret().unwrap())
}

#[tokio::test]
async fn a_refusal_is_explained_with_its_stable_code() {
    let fixture = Fixture::new();
    let (id, secret) = issue(&fixture).await;
    let browser = fixture.browser();
    let list = browser.get("/keys").await;
    let page = browser
        .open(&list, &list.link("Check a key"))
        .await
        .expect(200);
    assert!(page.has("name=\"key\" type=\"password\" autocomplete=\"off\" required"));
    let near = ("ip", "203.0.113.7");
    for (fields, code) in [
        (vec![near], None),
        (
            vec![near, ("method", "GET"), ("require", "document:read")],
            None,
        ),
        (vec![], Some("IP_NOT_ALLOWED")),
        (vec![("ip", "198.51.100.1")], Some("IP_NOT_ALLOWED")),
        (vec![near, ("method", "POST")], Some("READ_ONLY_KEY")),
        (
            vec![near, ("require", "document:read\nuser:read")],
            Some("INSUFFICIENT_SCOPE"),
        ),
        // Keys of the whole organization reach every workspace.
        (vec![near, ("workspace", "ws1")], None),
    ] {
        let page = check(&browser, &secret, &fields).await.expect(200);
        let says = |text| page.text().contains(text);
        assert_eq!(
            says("would be allowed"),
            code.is_none(),
            "{fields:?}: {}",
            page.body
        );
        assert_eq!(says("would be refused"), code.is_some(), "{fields:?}");
        assert_eq!(
            page.body.matches("Code: <code>").count(),
            usize::from(code.is_some())
        );
        assert!(code.is_none_or(says), "{fields:?}: {}", page.body);
        assert!(page.has(&format!("id={id}")) && page.has("narrow &amp; co"));
    }
    let page = check(&browser, &secret, &[("ip", "198.51.100.1")]).await;
    assert!(
        page.text()
            .contains("198.51.100.1 is not on the allow-list")
    );
    // Not a use of the key.
    assert!(browser.key(&id).await.has("Never used"));
}

#[tokio::test]
async fn of_a_key_that_is_not_active_or_not_ones_own_no_reason_is_given() {
    let fixture = Fixture::new();
    let (ours, secret) = fixture.issue("concealed").await;
    let browser = fixture.browser();
    check(&browser, &secret, &[])
        .await
        .expect(200)
        .link("concealed");
    let answer = async |browser: &Browser, secret: &str| {
        let page = check(browser, secret, &[]).await.expect(200);
        assert!(!page.has("concealed") && !page.has(&ours) && !page.has("Code:"));
        page.text()
    };
    let theirs = fixture.browser().signed_in("outsider-1");
    let (_, nobodys) = Fixture::new().issue("elsewhere").await;
    let unknown = answer(&theirs, &nobodys).await;
    assert!(unknown.contains("This key is not active."), "{unknown}");
    assert_eq!(answer(&theirs, "acme_live_wrong").await, unknown);
    assert_eq!(answer(&theirs, &secret).await, unknown);
    let portal = fixture.portal();
    assert_eq!(answer(&portal, &secret).await, unknown);
    let page = browser.action("disable", &ours).await;
    browser.submit(&page, &page.form()).await.expect(200);
    assert_eq!(answer(&browser, &secret).await, unknown);
}

#[tokio::test]
async fn a_user_checks_its_own_key() {
    let fixture = Fixture::new();
    let portal = fixture.portal();
    let page = portal.get("/keys?page=issue").await;
    let issued = portal
        .submit(&page, &page.form().enter("name", "mine"))
        .await
        .expect(200);
    let page = check(&portal, &issued.secret().unwrap(), &[])
        .await
        .expect(200);
    assert!(page.text().contains("would be allowed"), "{}", page.body);
}

#[tokio::test]
async fn wrong_values_have_errors_beside_their_fields() {
    let fixture = Fixture::new();
    let (_, secret) = fixture.issue("key").await;
    let browser = fixture.browser();
    let scopes = "document:read\n".repeat(257);
    for (field, value) in [
        ("ip", "203.0.113.0/24"),
        ("ip", "<script>"),
        ("method", "GET /"),
        ("method", &"x".repeat(65)),
        ("workspace", "two words"),
        ("require", "\"<b>\""),
        ("require", &scopes),
    ] {
        let page = check(&browser, &secret, &[(field, value)])
            .await
            .expect(422);
        assert!(
            page.error(field).is_some(),
            "{field}={value}: {}",
            page.body
        );
        assert!(!page.has("<script>") && !page.has("<b>"));
        assert!(!page.text().contains("would be"), "{field}");
    }
    let page = browser.get(EXPLAIN).await;
    let page = browser
        .post(&page, &page.form().enter("ip", "x"))
        .await
        .expect(422);
    assert!(
        page.error("key").is_some() && page.error("ip").is_some(),
        "all at once"
    );
}

#[tokio::test]
async fn unknown_secrets_are_limited_and_no_event_contains_one() {
    let fixture = Fixture::new();
    let (_, secret) = fixture.issue("key").await;
    let two = Quotas::new([Quota::per_minute(2).unwrap()]).unwrap();
    let admin = fixture.admin().failed_verifications(Some(two));
    let browser = fixture.at("/keys", admin.dashboard());
    for _ in 0..2 {
        check(&browser, "acme_live_no_such_key", &[])
            .await
            .expect(200);
    }
    let page = check(&browser, "acme_live_no_such_key", &[])
        .await
        .expect(429);
    assert!(!page.has("not active"), "{}", page.body);
    check(&browser, &secret, &[]).await.expect(200);
    let events = fixture.events().await;
    let checks: Vec<_> = events
        .iter()
        .filter(|event| event.action.as_str() == "key.verify")
        .collect();
    assert!(checks.iter().any(|event| event.outcome == AuditOutcome::Ok));
    assert!(
        checks
            .iter()
            .any(|event| event.outcome.as_str() == "TOO_MANY_FAILURES")
    );
    let all = format!("{events:?}");
    assert!(!all.contains(&secret) && !all.contains("no_such_key"));
}

#[tokio::test]
async fn a_secret_in_the_address_or_without_the_token_is_not_checked() {
    let fixture = Fixture::new();
    let (_, secret) = fixture.issue("key").await;
    let browser = fixture.browser();
    let page = browser
        .get(&format!("{EXPLAIN}&key={secret}"))
        .await
        .expect(200);
    assert!(!page.has(&secret) && !page.text().contains("would be"));
    let form = page.form().enter("key", &secret).enter("token", "");
    let page = browser.post(&page, &form).await.expect(403);
    assert!(!page.has(&secret) && !page.text().contains("would be"));
}
