//! The audit page: what it shows to whom, filters, pages.

use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditSink, EventId, Party};
use portunus::key::{KeyId, TenantId};
use portunus_admin::Admin;

use crate::browser::{Browser, Page};
use crate::fixture::{Fixture, Sessions};

const EVENTS: &str = "/keys?page=events";

async fn filtered(browser: &Browser, filter: &str) -> Page {
    browser.get(&format!("{EVENTS}&{filter}")).await
}

/// Returns the number of events that a page shows.
fn rows(page: &Page) -> usize {
    page.body.matches("data-label=\"Outcome\"").count()
}

#[tokio::test]
async fn without_a_log_there_is_no_audit_page() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("key").await;
    let without = fixture.at(
        "/keys",
        Admin::new(&fixture.keys, Sessions)
            .cookie("session")
            .dashboard(),
    );
    let nothing = without.get("/keys?page=nothing").await.expect(404);
    assert_eq!(without.get(EVENTS).await.expect(404).text(), nothing.text());
    for page in [
        without.get("/keys").await,
        without.key(&id).await.expect(200),
    ] {
        assert!(!page.has("page=events"), "{}", page.body);
    }
    let with = fixture.browser();
    let list = with.get("/keys").await;
    let page = with.open(&list, &list.link("Audit")).await.expect(200);
    assert!(page.has("aria-current=\"page\">Audit</a>"));
    with.request(with.head("POST", EVENTS), EVENTS, String::new())
        .await
        .expect(404);
}

#[tokio::test]
async fn events_are_filtered_and_lead_to_their_keys() {
    let fixture = Fixture::new();
    let (one, _) = fixture.issue("one").await;
    let (two, _) = fixture.issue("two").await;
    let browser = fixture.browser();
    let page = browser.action("revoke", &two).await;
    browser.post(&page, &page.form()).await.expect(422);
    let page = browser.action("disable", &one).await;
    browser.submit(&page, &page.form()).await.expect(200);

    let page = browser.get(EVENTS).await.expect(200);
    assert_eq!(rows(&page), 4, "{}", page.body);
    let at = |text: &str| page.body.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(
        at("<code>key.disable") < at("<code>key.revoke"),
        "newest first"
    );
    assert!(at("<code>key.revoke") < at("<code>key.issue"));
    assert!(page.has("<code>INVALID_BODY</code>"));
    let reference = page.link(&format!("<code>{one}</code>"));
    assert!(browser.open(&page, &reference).await.expect(200).has("one"));

    for (filter, expected) in [
        (format!("key_id={one}"), 2),
        ("action=key.issue".to_owned(), 2),
        ("action=key.revoke&outcome=INVALID_BODY".to_owned(), 1),
        ("outcome=OK".to_owned(), 3),
        ("actor=owner".to_owned(), 4),
        (format!("actor=owner&key_id={one}&action=key.issue"), 1),
        ("key_id=&actor=&action=&outcome=".to_owned(), 4),
        ("actor=nobody".to_owned(), 0),
        ("action=key.rotate".to_owned(), 0),
    ] {
        let page = filtered(&browser, &filter).await.expect(200);
        assert_eq!(rows(&page), expected, "{filter}: {}", page.body);
        assert_eq!(page.has("No event matches."), expected == 0, "{filter}");
    }
    let page = filtered(&browser, "action=key.issue&actor=owner").await;
    assert!(
        page.has("<option value=\"key.issue\" selected>"),
        "{}",
        page.body
    );
    assert!(page.has("name=\"actor\" type=\"text\" value=\"owner\""));
    let key = browser.key(&one).await;
    let page = browser
        .open(&key, &key.link("All events of this key"))
        .await;
    assert_eq!(rows(&page.expect(200)), 2);
}

#[tokio::test]
async fn a_wrong_filter_has_an_error_beside_its_field_and_shows_no_events() {
    let fixture = Fixture::new();
    fixture.issue("key").await;
    let browser = fixture.browser();
    for (field, value) in [
        ("key_id", "two+words"),
        ("action", "key.%3Cscript%3E"),
        ("outcome", "%00"),
    ] {
        let page = filtered(&browser, &format!("{field}={value}"))
            .await
            .expect(422);
        assert!(page.error(field).is_some(), "{field}: {}", page.body);
        assert!(page.has(&format!("href=\"#f-{field}\"")) && !page.has("<script>"));
        assert_eq!(rows(&page), 0, "{field}");
    }
    let page = filtered(&browser, "key_id=a+b&action=x&outcome=y").await;
    let wrong = ["key_id", "action", "outcome"].map(|field| page.error(field).is_some());
    assert_eq!(wrong, [true; 3], "all at once");
    for cursor in ["x", "-1", "1e3", "9999999999999999999"] {
        let page = filtered(&browser, &format!("cursor={cursor}"))
            .await
            .expect(422);
        assert!(page.has("not a cursor of this list") && rows(&page) == 0);
    }
}

/// Adds an event of a tenant to the log.
async fn note(fixture: &Fixture, number: u32, tenant: &str, change: impl Fn(&mut AuditEvent)) {
    let id: EventId = format!("{number:032x}").parse().unwrap();
    let at = portunus::Clock::now(&fixture.clock);
    let mut event = AuditEvent::new(id, at, Action::Request, AuditOutcome::Ok);
    event.tenant_id = Some(TenantId::new(tenant).unwrap());
    change(&mut event);
    fixture.log.record(&[event]).await.unwrap();
}

#[tokio::test]
async fn a_log_is_paged_by_its_links_and_keeps_its_filters() {
    let fixture = Fixture::new();
    for number in 0..120 {
        let detail = |event: &mut AuditEvent| event.detail = Some(format!("visit {number:03}"));
        note(&fixture, number, "ours", detail).await;
    }
    fixture.issue("key").await;
    let browser = fixture.browser();
    let mut page = filtered(&browser, "action=request&outcome=OK")
        .await
        .expect(200);
    let mut seen = Vec::new();
    loop {
        assert!(!page.has("<code>key.issue</code>"));
        let visits = page.body.split("visit ").skip(1);
        seen.extend(visits.map(|rest| rest[..3].to_owned()));
        if !page.has(">Older</a>") {
            break;
        }
        page = browser.open(&page, &page.link("Older")).await.expect(200);
        assert!(page.link("Newest").contains("action=request&outcome=OK"));
    }
    let expected: Vec<_> = (0..120)
        .rev()
        .map(|number| format!("{number:03}"))
        .collect();
    assert_eq!(seen, expected, "newest first, each once");
}

#[tokio::test]
async fn operators_see_the_events_of_the_keys_that_they_can_list() {
    let fixture = Fixture::new();
    let (ours, _) = fixture.issue("ours").await;
    let theirs = fixture.browser().signed_in("outsider-1");
    for filter in ["", "actor=owner", &format!("key_id={ours}"), "outcome=OK"] {
        let page = filtered(&theirs, filter).await.expect(200);
        assert_eq!(rows(&page), 0, "{filter}");
        assert!(!page.has(&format!("<code>{ours}")), "{filter}");
    }
    // Not even whether a filter is valid.
    let member = fixture.browser().signed_in("member-1");
    filtered(&member, "action=wrong").await.expect(403);
    assert_eq!(
        rows(
            &fixture
                .browser()
                .signed_in("host-1")
                .get(EVENTS)
                .await
                .expect(200)
        ),
        2
    );

    let portal = fixture.portal();
    assert_eq!(rows(&portal.get(EVENTS).await.expect(200)), 0);
    let page = portal.get("/keys?page=issue").await;
    portal
        .submit(&page, &page.form().enter("name", "mine"))
        .await
        .expect(200);
    let page = portal.get(EVENTS).await.expect(200);
    assert_eq!(rows(&page), 1, "{}", page.body);
    assert!(!page.has(&ours));
    let foreign = filtered(&portal, &format!("key_id={ours}"))
        .await
        .expect(200);
    assert_eq!(rows(&foreign), 0);
}

#[tokio::test]
async fn what_others_wrote_into_events_is_text() {
    let fixture = Fixture::new();
    let markup = "</td><script>alert(1)</script>\u{202e}";
    note(&fixture, 1, "ours", |event| {
        event.detail = Some(markup.to_owned());
        event.route = Some(markup.to_owned());
        event.actor = Some(Party::operator(markup));
        event.key_id = Some(KeyId::new("\"><script>").unwrap());
        event.operation = Some(KeyId::new("<script>").unwrap());
        event.count = Some(7);
    })
    .await;
    let browser = fixture.browser();
    for filter in [
        "",
        "actor=%3C/script%3E%22%3E%3Cscript%3E",
        "key_id=%22%3E%3Cscript%3E",
    ] {
        let page = filtered(&browser, filter).await.expect(200);
        assert!(
            !page.has("<script>") && page.body.matches("<script").count() == 1,
            "{filter}"
        );
        assert!(!page.has("\u{202e}"));
    }
    let page = browser.get(EVENTS).await;
    assert!(page.has("U+202E") && page.has("7 times"), "{}", page.body);
}
