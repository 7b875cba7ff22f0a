//! What is done to a key, and two operators at once.

use std::time::Duration;

use portunus::key::KeyStatus;

use crate::fixture::{Fixture, id_in};

#[tokio::test]
async fn a_key_is_renamed_and_a_stale_page_loses_nothing() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("first").await;
    let browser = fixture.browser();
    let (one, two) = (
        browser.action("edit", &id).await,
        browser.action("edit", &id).await,
    );
    let saved = one
        .form()
        .enter("name", "of one")
        .enter("description", "a\nb");
    let saved = browser.submit(&one, &saved).await.expect(200);
    assert!(saved.has("The changes are saved") && saved.has("of one"));
    let form = two.form().enter("name", "of two");
    let stale = browser.submit(&two, &form).await.expect(412);
    assert!(stale.has("has changed since"), "{}", stale.body);
    assert!(stale.has("of one"), "what the other operator saved");
    assert_eq!(fixture.record(&id).await.name, "of one");
    let again = stale.form();
    assert_eq!(again.value("name"), "of two", "what this one entered");
    browser.submit(&stale, &again).await.expect(200);
    assert_eq!(fixture.record(&id).await.name, "of two");
}

#[tokio::test]
async fn every_action_of_a_stale_page_is_refused_and_does_nothing() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    for action in ["edit", "rotate", "primary", "disable", "revoke", "delete"] {
        // The first key is primary, which cannot be deleted beside another.
        fixture.issue("other").await;
        let (id, secret) = fixture.issue("subject").await;
        let page = browser.action(action, &id).await.expect(200);
        let rename = browser.action("edit", &id).await;
        browser
            .submit(&rename, &rename.form().enter("name", "renamed"))
            .await
            .expect(200);
        let before = fixture.record(&id).await;
        let form = page.form().enter("confirm", &secret[secret.len() - 4..]);
        let stale = browser.submit(&page, &form).await.expect(412);
        assert!(stale.has("Nothing was done"), "{action}");
        assert_eq!(fixture.record(&id).await, before, "{action}");
        assert!(fixture.works(&secret).await);
        // The page that is shown now has the present version.
        let again = stale.form().enter("name", "again");
        let done = browser.submit(&stale, &again).await;
        assert_eq!(done.status, 200, "{action}: {}", done.body);
    }
}

#[tokio::test]
async fn a_rotation_shows_the_secret_once_and_then_its_progress() {
    let fixture = Fixture::new();
    let (id, old) = fixture.issue("server").await;
    let browser = fixture.browser();
    let page = browser.action("rotate", &id).await.expect(200);
    let form = page.form().enter("grace_seconds", "3600");
    let rotated = browser.post(&page, &form).await.expect(200);
    let new = rotated.secret().unwrap();
    assert!(fixture.works(&old).await && fixture.works(&new).await);
    let again = browser.submit(&page, &form).await.expect(200);
    assert!(again.has("already created") && !again.has(&new));
    let successor = id_in(&rotated.link("I have stored it"));
    // In addition to the requests above.
    fixture.used(&id, 7).await;
    fixture.used(&successor, 3).await;
    for id in [&id, &successor] {
        let page = browser.key(id).await.expect(200);
        let text = page.text();
        assert!(text.contains("Progress of the rotation"), "{text}");
        assert!(
            text.contains("4 requests with the new key, 8 with the old one"),
            "{text}"
        );
    }
    fixture.clock.advance(Duration::from_secs(3601));
    assert!(!fixture.works(&old).await && fixture.works(&new).await);
    let ended = browser.key(&successor).await.text();
    assert!(ended.contains("which has ended"), "{ended}");
}

#[tokio::test]
async fn a_rotation_without_grace_revokes_the_old_key() {
    let fixture = Fixture::new();
    let (id, old) = fixture.issue("server").await;
    let browser = fixture.browser();
    let page = browser.action("rotate", &id).await;
    let rotated = browser
        .post(&page, &page.form().enter("grace_seconds", "0"))
        .await
        .expect(200);
    assert!(rotated.has("The old key is revoked"));
    assert!(!fixture.works(&old).await);
    // A period that the form does not offer.
    let successor = id_in(&rotated.link("I have stored it"));
    let page = browser.action("rotate", &successor).await;
    for grace in ["1", "-1", "99999999999999999999", "x"] {
        let refused = browser
            .post(&page, &page.form().enter("grace_seconds", grace))
            .await;
        assert!(refused.expect(422).error("grace_seconds").is_some());
    }
}

#[tokio::test]
async fn disabling_enabling_primary_and_revoking_take_effect_at_once() {
    let fixture = Fixture::new();
    fixture.issue("first").await;
    let (id, secret) = fixture.issue("second").await;
    let browser = fixture.browser();
    let act = async |action: &str| {
        let page = browser.action(action, &id).await.expect(200);
        browser.submit(&page, &page.form()).await
    };
    assert!(act("disable").await.expect(200).has("The key is disabled"));
    assert!(!fixture.works(&secret).await);
    assert!(act("enable").await.expect(200).has("The key is enabled"));
    assert!(fixture.works(&secret).await);
    let warned = browser.action("primary", &id).await;
    assert!(warned.has("event_hash"), "the warning");
    assert!(
        act("primary")
            .await
            .expect(200)
            .has("primary key of its owner")
    );
    // Not the key that was meant.
    assert!(act("revoke").await.expect(422).error("confirm").is_some());
    assert!(fixture.works(&secret).await);
    let page = browser.action("revoke", &id).await;
    let form = page
        .form()
        .enter("confirm", "second")
        .enter("reason", "leaked");
    let revoked = browser.submit(&page, &form).await.expect(200);
    assert!(revoked.has("The key is revoked") && revoked.has("leaked"));
    assert!(!fixture.works(&secret).await);
    let now = portunus::Clock::now(&fixture.clock);
    assert_eq!(fixture.record(&id).await.status(now), KeyStatus::Revoked);
}

#[tokio::test]
async fn a_primary_key_beside_another_cannot_be_deleted_and_the_page_says_why() {
    let fixture = Fixture::new();
    let (primary, _) = fixture.issue("first").await;
    let (id, secret) = fixture.issue("second").await;
    let browser = fixture.browser();
    let page = browser.action("delete", &primary).await;
    let refused = browser
        .submit(&page, &page.form().enter("confirm", "first"))
        .await
        .expect(409);
    assert!(refused.has("CONFLICT") && refused.has("another active key"));
    let page = browser.action("delete", &id).await;
    let last = &secret[secret.len() - 4..];
    let list = browser
        .submit(&page, &page.form().enter("confirm", last))
        .await
        .expect(200);
    assert!(list.has("The key is deleted") && !list.has(&id));
    browser.key(&id).await.expect(404);
}

#[tokio::test]
async fn what_the_address_says_was_done_is_not_believed() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    for done in ["disabled", "revoked", "saved", "%3Cscript%3E"] {
        let page = browser
            .get(&format!("/keys?page=key&id={id}&done={done}"))
            .await
            .expect(200);
        assert!(!page.has("notice good"), "{done}");
    }
}
