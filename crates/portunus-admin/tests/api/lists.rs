//! Lists: unreadable rows, and short pages because a store scans only a limited number of rows.

use std::time::Duration;

use portunus::Clock;
use portunus::audit::{Action, AuditEvent, AuditOutcome, EventId};
use portunus::key::{Environment, KeyId, KeyKind, KeyRecord, Owner, PlanName, TenantId};
use portunus::store::ListQuery;
use serde_json::{Value, json};

use crate::fixture::{Ask, Fixture};

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_unreadable_row_is_reported_only_to_operators_who_see_the_whole_list() {
    let fixture = Fixture::new().await;
    let (spoilt, whole) = (fixture.plain().await, fixture.plain().await);
    fixture.clock.advance(Duration::from_secs(1));
    let issue = Ask::new("POST", "/keys").by("outsider");
    let issue = issue.json(&json!({ "name": "theirs" }));
    let theirs = fixture.expect(201, issue).await.json()["record"]["id"].clone();
    let theirs = theirs.as_str().unwrap();
    fixture.spoil(&spoilt);
    let named = json!([format!("row {spoilt}")]);
    let expected = [
        ("owner", vec![whole.as_str()], Some(&named)),
        ("host", vec![theirs, &whole], Some(&named)),
        ("admin", vec![&whole], None),
        ("outsider", vec![theirs], None),
    ];
    for (operator, shown, corrupt) in expected {
        for query in ["limit=50", "query=plain"] {
            let ask = Ask::new("GET", "/keys").by(operator).query(query);
            let answer = fixture.expect(200, ask).await;
            let page = answer.json();
            if query == "limit=50" {
                assert_eq!(ids(&page), shown, "{operator}: {page}");
            }
            assert_eq!(page.get("corrupt"), corrupt, "{operator}, {query}: {page}");
            if corrupt.is_none() {
                let text = String::from_utf8(answer.body).unwrap();
                assert!(!text.contains(&spoilt), "{operator}: {text}");
            }
        }
    }
    // Corrupt rows outside the visible part of the list are not reported.
    let ask = Ask::new("GET", "/keys").query("limit=1");
    let page = fixture.expect(200, ask).await.json();
    assert_eq!((ids(&page), page.get("corrupt")), (vec![&*whole], None));
}

#[tokio::test]
async fn a_page_that_is_empty_because_so_many_rows_do_not_match_has_a_cursor_to_the_rest() {
    let fixture = Fixture::new().await;
    let owner = Owner::tenant(TenantId::new("tenant_ours").unwrap());
    let newest = fixture.clock.now();
    for number in 0..=ListQuery::MOST_SCANNED as u64 {
        let is_last = number == ListQuery::MOST_SCANNED as u64;
        let record = KeyRecord::new(
            KeyId::new(&format!("key_{number}")).unwrap(),
            if is_last { "needle" } else { "hay" },
            KeyKind::App,
            Environment::new("live").unwrap(),
            owner.clone(),
            newest - Duration::from_millis(number),
        );
        fixture.keep(number, record).await;
    }
    let event = |number: u64| {
        let outcome = match number {
            0 => AuditOutcome::Failed,
            _ => AuditOutcome::Ok,
        };
        let id: EventId = format!("{number:032x}").parse().unwrap();
        let mut event = AuditEvent::new(id, newest, Action::KeyRead, outcome);
        event.tenant_id = Some(owner.tenant_id.clone());
        event
    };
    let events: Vec<_> = (0..=ListQuery::MOST_SCANNED as u64).map(event).collect();
    fixture.note_all(&events).await;
    for (path, query) in [("/keys", "query=needle"), ("/events", "outcome=FAILED")] {
        let list = |query: String| Ask::new("GET", path).query(&query);
        let first = fixture.expect(200, list(query.to_owned())).await.json();
        assert_eq!(first["items"], json!([]), "{path}");
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = list(format!("{query}&cursor={cursor}"));
        let rest = fixture.expect(200, rest).await.json();
        let found = rest["items"].as_array().unwrap().len();
        assert_eq!((found, &rest["next_cursor"]), (1, &Value::Null), "{path}");
    }
}

#[tokio::test]
async fn keys_are_filtered_by_owner_plan_family_kind_expiry_and_last_use() {
    let fixture = Fixture::new().await;
    let user = json!({ "name": "a", "kind": "user", "owner": { "user_id": "u1" } });
    let of_user = fixture.key(user).await.0;
    let planned = "key_planned".to_owned();
    fixture.clock.advance(Duration::from_secs(1));
    let owner = Owner::tenant(TenantId::new("tenant_ours").unwrap());
    let (id, live) = (
        KeyId::new(&planned).unwrap(),
        Environment::new("live").unwrap(),
    );
    let mut record = KeyRecord::new(id, "b", KeyKind::App, live, owner, fixture.clock.now());
    record.plan = PlanName::new("gold").ok();
    fixture.keep(1, record).await;
    let soon = portunus_admin::time_text(fixture.clock.now() + Duration::from_secs(600));
    let ending = fixture
        .key(json!({ "name": "c", "expires_at": soon }))
        .await
        .0;
    fixture.used(&planned, 1).await;
    fixture.clock.advance(Duration::from_secs(60));
    let now = portunus_admin::time_text(fixture.clock.now());
    fixture.used(&ending, 1).await;
    let new = fixture.plain().await;
    let later = portunus_admin::time_text(fixture.clock.now() + Duration::from_secs(1));
    let cases = [
        ("owner=u1".to_owned(), vec![&of_user]),
        ("owner=u9".to_owned(), vec![]),
        ("plan=gold".to_owned(), vec![&planned]),
        ("plan=other".to_owned(), vec![]),
        (format!("family={planned}"), vec![&planned]),
        ("kind=user".to_owned(), vec![&of_user]),
        ("kind=user&owner=&plan=".to_owned(), vec![&of_user]),
        (format!("expires_before={soon}"), vec![]),
        (
            "expires_before=2999-01-01T00:00:00Z".to_owned(),
            vec![&ending],
        ),
        (format!("unused_since={now}"), vec![&planned, &of_user]),
        (
            format!("unused_since={later}"),
            vec![&new, &ending, &planned, &of_user],
        ),
        (format!("unused_since={now}&kind=app"), vec![&planned]),
    ];
    for (query, expected) in cases {
        let ask = Ask::new("GET", "/keys").query(&query);
        let page = fixture.expect(200, ask).await.json();
        assert_eq!(ids(&page), expected, "{query}");
        let ask = Ask::new("GET", "/keys").by("outsider").query(&query);
        let page = fixture.expect(200, ask).await.json();
        assert_eq!(ids(&page), Vec::<&str>::new(), "of another tenant: {query}");
    }
}
