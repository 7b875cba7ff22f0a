//! The form that changes a key: what it sends, what it refuses, and what it never loses.

use std::time::{Duration, SystemTime};

use portunus::Limits;
use portunus::key::{Access, KeyRecord, Metadata, PlanName, WorkspaceId};
use portunus::limit::{LimitPolicy, Plan};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::{Clock, Scope};

use crate::browser::{Browser, Page, PageForm};
use crate::fixture::Fixture;

/// A service with 60 requests a minute and 1000 an hour for each key, and a larger plan.
fn limited() -> Fixture {
    let larger = LimitPolicy::per_key([Quota::per_minute(600), Quota::per_hour(10_000)]);
    Fixture::with(|setup| {
        let limits = Limits::default().plan(Plan::new("large", [larger]));
        setup.limits(limits).keys()
    })
}

fn scopes(names: &[&str]) -> Vec<Scope> {
    names.iter().map(|name| Scope::new(name).unwrap()).collect()
}

fn workspaces(names: &[&str]) -> Option<Vec<WorkspaceId>> {
    let ids = names.iter().map(|name| WorkspaceId::new(name).unwrap());
    Some(ids.collect())
}

fn quotas(minute: u64, hour: u64) -> Quotas {
    Quotas::new([
        Quota::per_minute(minute).unwrap(),
        Quota::per_hour(hour).unwrap(),
    ])
    .unwrap()
}

/// Ticks these boxes of a group and no others.
fn tick(mut form: PageForm, name: &str, values: &[&str]) -> PageForm {
    form.fields.retain(|(known, _)| known != name);
    let ticked = values
        .iter()
        .map(|value| (name.to_owned(), (*value).to_owned()));
    form.fields.extend(ticked);
    form
}

/// Returns what was changed last, as the audit has it.
async fn changed(fixture: &Fixture) -> String {
    let events = fixture.events().await;
    let last = events
        .iter()
        .rev()
        .find(|event| event.action.as_str() == "key.update");
    last.unwrap().detail.as_ref().unwrap().clone()
}

async fn refused(browser: &Browser, page: &Page, form: &PageForm, field: &str) -> Page {
    let page = browser.post(page, form).await.expect(403);
    assert!(page.error(field).is_some(), "{field}: {}", page.body);
    page
}

#[tokio::test]
async fn everything_that_the_api_changes_is_changed_at_once() {
    let fixture = limited();
    let (id, _) = fixture.issue("before").await;
    let browser = fixture.browser();
    let page = browser.action("edit", &id).await.expect(200);
    let form = tick(page.form(), "scopes", &["document:read", "user:read"])
        .enter("name", "after")
        .enter("description", "two\r\nlines")
        .enter("access", "read-only")
        .enter("workspaces", "ws1\r\nws2")
        .enter("allowed_ips", "203.0.113.0/24, 2001:db8::1")
        .enter("requests_per_minute", "7")
        .enter("not_before", "2031-01-15T08:30")
        .enter("expires_on", "2032-02-29")
        .enter("metadata", "{\"team\": {\"name\": \"Zoë\", \"n\": 1}}");
    let shown = browser.submit(&page, &form).await.expect(200);
    assert!(shown.has("The changes are saved"), "{}", shown.body);
    let record = fixture.record(&id).await;
    assert_eq!(record.name, "after");
    assert_eq!(record.description.as_deref(), Some("two\nlines"));
    assert_eq!(record.access, Access::ReadOnly);
    assert_eq!(record.scopes, scopes(&["document:read", "user:read"]));
    assert_eq!(record.workspaces, workspaces(&["ws1", "ws2"]));
    let allowed = AllowList::parse(["203.0.113.0/24", "2001:db8::1"]).unwrap();
    assert_eq!(record.allowed_ips, Some(allowed));
    assert_eq!(
        record.quotas,
        Some(quotas(7, 1000)),
        "the hour is the default's"
    );
    let seconds = |at: Option<SystemTime>| {
        let since = at.unwrap().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    assert_eq!(seconds(record.not_before), 1_926_232_200);
    assert_eq!(seconds(record.expires_at), 1_961_711_999);
    assert_eq!(
        record.metadata.as_json(),
        r#"{"team":{"name":"Zoë","n":1}}"#
    );
    assert_eq!(
        changed(&fixture).await,
        "name, description, scopes, access, workspaces, allowed_ips, quotas, metadata, not_before, \
         expires_at"
    );
    // And back, by emptying each field.
    let page = browser.action("edit", &id).await.expect(200);
    let mut form = tick(page.form(), "scopes", &[]).enter("expires_at", "never");
    for (name, _) in page.form().fields {
        let emptied = [
            "description",
            "workspaces",
            "allowed_ips",
            "not_before",
            "metadata",
        ];
        if emptied.contains(&&*name) || name.starts_with("requests_per_") {
            form = form.enter(&name, "");
        }
    }
    browser.submit(&page, &form).await.expect(200);
    let record = fixture.record(&id).await;
    assert_eq!((&record.description, &record.workspaces), (&None, &None));
    assert_eq!((record.not_before, record.expires_at), (None, None));
    assert_eq!((&record.allowed_ips, &record.quotas), (&None, &None));
    assert!(record.scopes.is_empty() && record.metadata == Metadata::default());
}

/// A key as an earlier version or another operator may have stored it.
async fn peculiar(fixture: &Fixture) -> String {
    let (id, _) = fixture.issue("key").await;
    let change = |record: &mut KeyRecord| {
        record.name = " two\r\nlines \u{202e}".into();
        record.description = Some("\n\r\n a\rb\u{0}".to_owned());
        record.scopes = scopes(&["user:read", "long:gone", "document:*"]);
        record.workspaces = workspaces(&["ws9", "ws1"]);
        record.plan = Some(PlanName::new("large").unwrap());
        record.quotas = Some(quotas(90_000, 90_000));
        record.allowed_ips = Some(AllowList::parse(["::1", "10.0.0.0/8"]).unwrap());
        let metadata = r#"{"z":[1.0,{"a":"</textarea>"}],"b":18446744073709551615}"#;
        record.metadata = Metadata::from_json(metadata).unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        record.not_before = Some(start);
        record.expires_at = Some(start + Duration::from_secs(400_000_000));
    };
    fixture.change(&id, change).await;
    id
}

#[tokio::test]
async fn a_form_that_is_sent_as_it_was_shown_changes_nothing() {
    let fixture = limited();
    let id = peculiar(&fixture).await;
    let before = fixture.record(&id).await;
    for session in ["owner-1", "host-1"] {
        let browser = fixture.browser().signed_in(session);
        let page = browser.action("edit", &id).await.expect(200);
        browser.submit(&page, &page.form()).await.expect(200);
        assert_eq!(fixture.record(&id).await, before, "{session}");
    }
    // As browsers send these texts, which are not the same bytes.
    let browser = fixture.browser();
    let page = browser.action("edit", &id).await;
    let form = page.form().enter("name", " twolines \u{202e}");
    let form = form.enter("description", "\n\r\n a\r\nb\u{fffd}");
    browser.submit(&page, &form).await.expect(200);
    assert_eq!(fixture.record(&id).await, before);
    // Without the fields that a page of before had not: nothing is taken for emptied.
    let page = browser.action("edit", &id).await;
    let mut form = page.form();
    let kept = ["token", "version", "name"];
    form.fields.retain(|(name, _)| kept.contains(&&**name));
    browser
        .submit(&page, &form.enter("name", "renamed"))
        .await
        .expect(200);
    let after = fixture.record(&id).await;
    let mut expected = before.clone();
    (expected.name, expected.version) = ("renamed".into(), after.version);
    assert_eq!(after, expected);
    assert_eq!(changed(&fixture).await, "name");
}

#[tokio::test]
async fn every_wrong_value_has_its_error_beside_its_field_and_stays_entered() {
    let fixture = limited();
    let (id, _) = fixture.issue("before").await;
    let before = fixture.record(&id).await;
    let browser = fixture.browser();
    let page = browser.action("edit", &id).await;
    let wrong = [
        ("name", "\u{202e}name"),
        ("description", "a\u{1}b"),
        ("scopes", "document:destroy"),
        ("access", "everything"),
        ("workspaces", "a\u{2603}b"),
        ("plan", "no plan"),
        ("allowed_ips", "010.0.0.0/8"),
        ("not_before", "2031-02-30T10:00"),
        ("expires_on", "2001-01-01"),
        ("metadata", "{\"a\": 1, \"a\": 2}<script>"),
    ];
    let enter = |form: PageForm| {
        let form = form.enter("requests_per_minute", "1.5");
        wrong
            .iter()
            .fold(form, |form, (name, value)| form.enter(name, value))
    };
    let refused = browser.post(&page, &enter(page.form())).await.expect(422);
    let names = wrong.iter().map(|(name, _)| *name);
    for name in names.chain(["rate_limit_config"]) {
        // Without plans to choose from there is no control; the error is above the form.
        assert!(
            name == "plan" || refused.error(name).is_some(),
            "{name}: {}",
            refused.body
        );
        assert!(refused.has(&format!("href=\"#f-{name}\"")), "{name}");
    }
    assert!(!refused.has("<script>"));
    let kept = refused.form();
    for (name, value) in wrong {
        // A choice and a box contain only what they offer.
        if !["scopes", "access", "plan"].contains(&name) {
            assert_eq!(kept.value(name), value);
        }
    }
    assert_eq!(kept.value("requests_per_minute"), "1.5");
    for (name, value) in [
        ("expires_at", "8"),
        ("expires_at", "date"),
        ("requests_per_hour", "0"),
        ("requests_per_hour", "18446744073709551616"),
        ("not_before", "+31-01-01T00:00"),
        ("metadata", "[]"),
        ("allowed_ips", "0.0.0.0/-1"),
    ] {
        let form = page.form().enter("name", "after").enter(name, value);
        browser.post(&page, &form).await.expect(422);
    }
    // One that only the manager knows.
    let form = page.form().enter("not_before", "2040-01-01T00:00");
    let form = form.enter("expires_on", "2039-01-01");
    let refused = browser.post(&page, &form).await.expect(422);
    assert!(refused.error("not_before").unwrap().contains("before"));
    assert_eq!(fixture.record(&id).await, before);
}

#[tokio::test]
async fn an_operator_who_may_not_set_a_value_can_change_the_others() {
    let fixture = limited();
    let (id, _) = fixture.issue("wide").await;
    let wide = |record: &mut KeyRecord| {
        record.scopes = scopes(&["document:read", "document:write"]);
        record.workspaces = workspaces(&["ws1"]);
        record.plan = Some(PlanName::new("large").unwrap());
        record.quotas = Some(quotas(500, 5000));
    };
    fixture.change(&id, wide).await;
    let browser = fixture.browser().signed_in("admin-1");
    let page = browser.action("edit", &id).await.expect(200);
    browser
        .submit(&page, &page.form().enter("name", "renamed"))
        .await
        .expect(200);
    assert_eq!(changed(&fixture).await, "name");
    let before = fixture.record(&id).await;
    assert_eq!(before.scopes, scopes(&["document:read", "document:write"]));
    let page = browser.action("edit", &id).await.expect(200);
    let form = page.form().enter("description", "kept");
    for (field, name, values) in [
        ("scopes", "scopes", &["document:read", "user:read"][..]),
        ("workspaces", "workspaces", &["ws1", "ws2"]),
        ("plan", "plan", &["enterprise"]),
        ("rate_limit_config", "requests_per_minute", &["601"]),
    ] {
        let form = tick(form.clone(), name, values);
        let refused = match field {
            // Not declared, which is said first.
            "plan" => browser.post(&page, &form).await,
            _ => refused(&browser, &page, &form, field).await,
        };
        assert_ne!(refused.status, 303);
        assert_eq!(refused.form().value("description"), "kept", "{field}");
    }
    assert_eq!(fixture.record(&id).await, before, "nothing was done");
    // It may narrow all of them, and give the plan back.
    let form = tick(form, "scopes", &["document:write"]);
    let form = form.enter("plan", "").enter("requests_per_minute", "5");
    browser.submit(&page, &form).await.expect(200);
    let after = fixture.record(&id).await;
    assert_eq!(
        (&after.scopes, &after.plan),
        (&scopes(&["document:write"]), &None)
    );
    assert_eq!(after.quotas, Some(quotas(5, 5000)));
}

#[tokio::test]
async fn a_user_of_the_portal_changes_its_own_keys_only_and_within_its_own_permissions() {
    let fixture = limited();
    let (tenants, _) = fixture.issue("of the tenant").await;
    let portal = fixture.portal();
    let page = portal.get("/keys?page=issue").await;
    let form = tick(
        page.form().enter("name", "mine"),
        "scopes",
        &["document:read"],
    );
    let issued = portal.post(&page, &form).await.expect(200);
    let id = crate::fixture::id_in(&issued.link("I have stored it"));
    let before = fixture.record(&id).await;
    let page = portal.action("edit", &id).await.expect(200);
    assert!(!page.has("document:write") && !page.has("name=\"plan\""));
    for (field, name, values) in [
        ("scopes", "scopes", &["document:read", "document:write"][..]),
        ("plan", "plan", &["large"]),
        ("rate_limit_config", "requests_per_hour", &["1001"]),
    ] {
        let form = tick(page.form(), name, values);
        let refused = portal.post(&page, &form).await.expect(403);
        let anchor = format!("href=\"#f-{field}\"");
        assert!(refused.has(&anchor), "{field}: {}", refused.body);
    }
    // No field of this form: not read at all.
    let form = page
        .form()
        .enter("owner.user_id", "owner")
        .enter("kind", "app")
        .enter("environment", "test")
        .enter("enabled", "false")
        .enter("delegation", "on");
    portal.submit(&page, &form).await.expect(200);
    assert_eq!(fixture.record(&id).await, before);
    // Another owner's key, and one of nobody: the same answer, and nothing is done.
    let mut form = page.form().enter("name", "stolen");
    form.action = form.action.replace(&id, &tenants);
    portal.post(&page, &form).await.expect(404);
    assert_eq!(fixture.record(&tenants).await.name, "of the tenant");
    let form = page
        .form()
        .enter("name", "renamed")
        .enter("requests_per_minute", "5");
    portal.submit(&page, &form).await.expect(200);
    let after = fixture.record(&id).await;
    assert_eq!(
        (&*after.name, &after.quotas),
        ("renamed", &Some(quotas(5, 1000)))
    );
    // Wider than the user by somebody else: renamed, but not extended.
    let widen = |record: &mut KeyRecord| record.scopes = scopes(&["document:write"]);
    fixture.change(&id, widen).await;
    let page = portal.action("edit", &id).await;
    portal
        .submit(&page, &page.form().enter("name", "again"))
        .await
        .expect(200);
    let page = portal.action("edit", &id).await;
    let lived = page.form().enter("allowed_ips", "::/0");
    portal.submit(&page, &lived).await.expect(200);
    let page = portal.action("edit", &id).await;
    let freed = page.form().enter("allowed_ips", "");
    refused(&portal, &page, &freed, "scopes").await;
}

#[tokio::test]
async fn an_operator_of_another_tenant_cannot_change_a_key() {
    let fixture = limited();
    let (id, _) = fixture.issue("ours").await;
    let before = fixture.record(&id).await;
    let theirs = fixture.browser().signed_in("outsider-1");
    let page = theirs.get("/keys?page=issue").await;
    let issued = theirs
        .submit(&page, &page.form().enter("name", "theirs"))
        .await;
    let own = crate::fixture::id_in(&issued.link("I have stored it"));
    let page = theirs.action("edit", &own).await.expect(200);
    for version in ["1", "2", "", "x"] {
        let form = page.form().enter("version", version);
        let mut form = form.enter("name", "stolen").enter("scopes", "nonsense!");
        form.action = form.action.replace(&own, &id);
        let refused = theirs.post(&page, &form).await.expect(404);
        assert!(!refused.has("ours"));
    }
    assert_eq!(fixture.record(&id).await, before);
}

#[tokio::test]
async fn a_stale_form_does_nothing_and_loses_nothing_that_was_entered() {
    let fixture = limited();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    let stale = browser.action("edit", &id).await;
    let other = browser.action("edit", &id).await;
    let form = tick(other.form(), "scopes", &["document:read"]).enter("name", "of the other");
    let form = form.enter("allowed_ips", "10.0.0.0/8");
    browser.submit(&other, &form).await.expect(200);
    let before = fixture.record(&id).await;
    let form = tick(stale.form(), "scopes", &["user:read"]).enter("description", "mine");
    let form = form.enter("metadata", "{\"a\":1}");
    for version in ["1", "3", "0", "", "x", "99999999999999999999"] {
        let form = form.clone().enter("version", version);
        let page = browser.post(&stale, &form).await.expect(412);
        assert!(page.has("has changed since"), "{}", page.body);
        assert!(page.has("of the other"), "what the other operator saved");
        assert_eq!(fixture.record(&id).await, before, "{version}");
        let again = page.form();
        assert_eq!(again.value("description"), "mine");
        assert_eq!(again.value("scopes"), "user:read");
        assert_eq!(again.value("metadata"), "{\"a\":1}");
        assert_eq!(again.value("version"), "2");
    }
    // Wrong values do not hide that the page is stale.
    let wrong = form.clone().enter("metadata", "{").enter("name", "");
    assert!(
        browser
            .post(&stale, &wrong)
            .await
            .expect(412)
            .has("has changed since")
    );
    let page = browser.post(&stale, &form).await;
    browser.submit(&page, &page.form()).await.expect(200);
    let after = fixture.record(&id).await;
    assert_eq!(after.scopes, scopes(&["user:read"]));
    assert_eq!(
        after.name, "key",
        "as it was entered on the page that was sent again"
    );
}

#[tokio::test]
async fn a_revoked_key_is_not_changed() {
    let fixture = limited();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    let page = browser.action("revoke", &id).await;
    browser
        .submit(&page, &page.form().enter("confirm", "key"))
        .await
        .expect(200);
    let page = browser.action("edit", &id).await.expect(200);
    let refused = browser
        .post(&page, &page.form().enter("name", "x"))
        .await
        .expect(409);
    assert!(refused.has("CONFLICT"));
    assert_eq!(fixture.record(&id).await.name, "key");
}

#[tokio::test]
async fn a_new_key_has_a_start_and_metadata() {
    let fixture = limited();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await.expect(200);
    let start = fixture.clock.now() + Duration::from_secs(86_400);
    let day = &portunus_admin::time_text(start)[..16];
    let form = page.form().enter("name", "later").enter("not_before", day);
    let issued = browser
        .post(&page, &form.enter("metadata", "{\"team\":\"a\"}"))
        .await
        .expect(200);
    let secret = issued.secret().unwrap();
    let id = crate::fixture::id_in(&issued.link("I have stored it"));
    assert_eq!(
        fixture.record(&id).await.metadata.as_json(),
        r#"{"team":"a"}"#
    );
    assert!(!fixture.works(&secret).await);
    fixture.clock.advance(Duration::from_secs(86_400));
    assert!(fixture.works(&secret).await);
    for (name, value) in [("not_before", "tomorrow"), ("metadata", "{\"a\":1e999}")] {
        let page = browser.get("/keys?page=issue").await;
        let form = page.form().enter("name", "x").enter(name, value);
        let refused = browser.post(&page, &form).await.expect(422);
        assert!(refused.error(name).is_some(), "{name}");
        assert_eq!(refused.form().value(name), value);
    }
}

#[tokio::test]
async fn a_key_with_as_much_as_a_key_can_have_is_renamed() {
    let fixture = limited();
    let (id, _) = fixture.issue("key").await;
    let nested = (0..100).fold("1".to_owned(), |inner, _| format!("[{inner}]"));
    let members = (0..70).map(|number| format!("\"{number}\":{nested}"));
    let metadata = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    let fill = |record: &mut KeyRecord| {
        let number = |number: u32| format!("{number:_>128}");
        let ids = (0..1000).map(|at| WorkspaceId::new(&number(at)).unwrap());
        record.workspaces = Some(ids.collect());
        let names = (0..256).map(|at| Scope::new(&format!("long-gone-{at:0>100}:read")).unwrap());
        record.scopes = names.collect();
        let networks = (0..1000).map(|at| format!("2001:db8:aaaa:bbbb:cccc:dddd:eeee:{at:x}/128"));
        record.allowed_ips = Some(AllowList::parse(networks).unwrap());
        record.description = Some("\u{5d0}".repeat(1000));
        record.metadata = Metadata::from_json(&metadata).unwrap();
    };
    fixture.change(&id, fill).await;
    let before = fixture.record(&id).await;
    let browser = fixture.browser();
    let page = browser.action("edit", &id).await.expect(200);
    browser
        .submit(&page, &page.form().enter("name", "renamed"))
        .await
        .expect(200);
    let after = fixture.record(&id).await;
    assert_eq!(
        (&*after.name, after.version),
        ("renamed", before.version + 1)
    );
    assert_eq!(changed(&fixture).await, "name");
}
