//! The list: filters, views, pages.

use std::time::Duration;

use portunus::key::{DigestScheme, KeyDigest, KeyId};
use portunus::store::{Change, KeyStore, WriteBatch};

use crate::fixture::{Fixture, id_in};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_list_is_paged_by_its_links_and_keeps_its_filters() {
    let fixture = Fixture::new();
    for number in 0..120 {
        fixture.issue(&format!("server {number:03}")).await;
    }
    fixture.issue("other").await;
    let browser = fixture.browser();
    let mut page = browser
        .get("/keys?query=SERVER&status=active")
        .await
        .expect(200);
    let mut seen = Vec::new();
    loop {
        assert!(!page.text().contains("other"));
        let names = page.body.split("server ").skip(1);
        seen.extend(names.map(|rest| rest[..3].to_owned()));
        if !page.has(">Older</a>") {
            break;
        }
        page = browser.open(&page, &page.link("Older")).await.expect(200);
        assert!(page.has(">Newest</a>"));
    }
    let expected: Vec<_> = (0..120)
        .rev()
        .map(|number| format!("{number:03}"))
        .collect();
    assert_eq!(seen, expected, "newest first, each once");
}

#[tokio::test]
async fn a_search_in_a_long_list_is_read_in_parts_and_finds_every_key_once() {
    const COUNT: u64 = 9_000;
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("hay").await;
    let model = fixture.record(&id).await;
    let mut batch = WriteBatch::new();
    for number in 0..COUNT {
        let mut record = Box::new(model.clone());
        record.id = KeyId::new(&format!("key_{number}")).unwrap();
        record.family = (&record.id).into();
        record.created_at -= Duration::from_secs(number + 1);
        if [3_500, COUNT - 1].contains(&number) {
            record.name = format!("needle {number:04}").into();
        }
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let digest = KeyDigest::new(DigestScheme::Sha256, digest);
        batch = batch.change(Change::Insert { digest, record });
        if number % 1_000 == 999 {
            let batch = std::mem::take(&mut batch);
            fixture.store.inner().apply(&batch).await.unwrap();
        }
    }
    let browser = fixture.browser();
    let mut page = browser.get("/keys?query=needle").await.expect(200);
    let mut seen = Vec::new();
    // At least 3000 keys are examined for each page.
    for _ in 0..4 {
        let names = page.body.split(">needle ").skip(1);
        seen.extend(names.map(|rest| rest[..4].to_owned()));
        if !page.has(">Older</a>") {
            break;
        }
        page = browser.open(&page, &page.link("Older")).await.expect(200);
    }
    assert_eq!(seen, ["3500", "8999"]);
}

#[tokio::test]
async fn views_show_what_needs_attention() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let (old, _) = fixture.issue("old").await;
    let (rotated, _) = fixture.issue("rotated").await;
    fixture.clock.advance(DAY * 100);
    fixture.issue("new").await;
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "short").enter("expires_at", "7");
    browser.submit(&page, &form).await.expect(200);
    let page = browser.action("rotate", &rotated).await;
    let form = page.form().enter("grace_seconds", "2592000");
    let successor = browser.submit(&page, &form).await.expect(200);
    let successor = id_in(&successor.link("I have stored it"));
    let view = async |text: &str| {
        let list = browser.get("/keys").await;
        browser.open(&list, &list.link(text)).await.expect(200)
    };
    let ids = |page: &crate::browser::Page| {
        let links = page.body.split("page=key&amp;id=").skip(1);
        links
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let expiring = view("Expiring soon").await;
    assert!(expiring.has("short") && !ids(&expiring).contains(&old));
    let unused = ids(&view("Unused for 90 days").await);
    assert_eq!(unused, [rotated.clone(), old.clone()]);
    let due = ids(&view("Due for rotation").await);
    assert_eq!(due, [old.as_str()], "not the one that has a successor");
    assert!(ids(&view("Rotated but still used").await).is_empty());
    fixture.used(&rotated, 1).await;
    fixture.used(&successor, 1).await;
    assert_eq!(
        ids(&view("Rotated but still used").await),
        [rotated.as_str()]
    );
}

#[tokio::test]
async fn a_wrong_filter_has_an_error_and_shows_no_keys() {
    let fixture = Fixture::new();
    fixture.issue("key").await;
    let browser = fixture.browser();
    for (field, value) in [
        ("owner", "two+words"),
        ("environment", "x%20y"),
        ("plan", "%00"),
    ] {
        let page = browser
            .get(&format!("/keys?{field}={value}"))
            .await
            .expect(422);
        assert!(page.has("notice") || page.error(field).is_some(), "{field}");
        assert!(!page.has("page=key&amp;id="), "{field}");
    }
    browser.get("/keys?cursor=1.x.y%20z").await.expect(422);
}

#[tokio::test]
async fn another_tenant_sees_and_changes_nothing() {
    let fixture = Fixture::new();
    let (id, secret) = fixture.issue("ours").await;
    let theirs = fixture.browser().signed_in("outsider-1");
    assert!(!theirs.get("/keys").await.expect(200).has("ours"));
    let unknown = "key_0000000000000000000000";
    for page in [
        "key", "edit", "rotate", "primary", "disable", "enable", "revoke", "delete",
    ] {
        let (known, nobodys) = (
            theirs.action(page, &id).await,
            theirs.action(page, unknown).await,
        );
        assert_eq!(known.status, 404, "{page}");
        let without_nonce = |body: &str| {
            let parts = body.split("nonce=\"");
            parts
                .map(|part| part.split_once('"').unwrap_or((part, part)).1.to_owned())
                .collect::<String>()
        };
        assert_eq!(without_nonce(&known.body), without_nonce(&nobodys.body));
    }
    // The form of the outsider's own key, sent to ours.
    let page = theirs.get("/keys?page=issue").await;
    let issued = theirs
        .submit(&page, &page.form().enter("name", "theirs"))
        .await;
    let own = id_in(&issued.link("I have stored it"));
    let page = theirs.action("revoke", &own).await;
    let mut form = page.form().enter("confirm", &secret[secret.len() - 4..]);
    form.action = form.action.replace(&own, &id);
    theirs.post(&page, &form).await.expect(404);
    assert!(fixture.works(&secret).await);
}
