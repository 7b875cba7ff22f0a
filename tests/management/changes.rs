//! Changing, disabling, revoking and deleting keys: valid changes, unchanged fields, and concurrent
//! changes between reading and writing.

use std::time::SystemTime;

use crate::life::{
    DAY, Desk, HOUR, SECOND, acme, ann, change, ending, field, issue, named, refused, with_scopes,
};
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{Access, Delegation, KeyId, KeyKind, Metadata, WorkspaceId};
use portunus::manage::{KeyChange, ManageError, NewKey};
use portunus::scope::{Scope, Vocabulary};
use portunus::{ErrorCode, Principal};
use portunus_test_support::{APPLY, Call, Head, Point, scope, user};

fn rename(name: &str) -> KeyChange {
    change(|change| change.name = Some(name.to_owned()))
}

fn expiring(end: Option<SystemTime>) -> KeyChange {
    change(|change| change.expires_at = Some(end))
}

#[tokio::test]
async fn a_change_sets_the_named_fields_and_increments_the_version() {
    let desk = Desk::new();
    let (_, before) = issue(&desk.host(), with_scopes(&["document:read"])).await;
    let asked = change(|change| {
        change.name = Some("renamed".into());
        change.description = Some(Some("why".into()));
        change.scopes = Some(vec![
            scope("document:write"),
            scope("a"),
            scope("document:write"),
        ]);
        change.access = Some(Access::ReadOnly);
        change.workspaces = Some(Some(vec![WorkspaceId::new("w1").unwrap()]));
        change.metadata = Some(Metadata::from_json(r#"{"a":1}"#).unwrap());
        change.not_before = Some(Some(desk.now() + SECOND));
        change.expires_at = Some(Some(desk.now() + HOUR));
    });
    let after = desk
        .host()
        .update(&before.id, asked, Some(1))
        .await
        .unwrap()
        .record;
    let mut expected = (*before).clone();
    expected.version = 2;
    expected.name = "renamed".into();
    expected.description = Some("why".into());
    expected.scopes = vec![scope("document:write"), scope("a")];
    expected.access = Access::ReadOnly;
    expected.workspaces = Some(vec![WorkspaceId::new("w1").unwrap()]);
    expected.metadata = Metadata::from_json(r#"{"a":1}"#).unwrap();
    expected.not_before = Some(desk.now() + SECOND);
    expected.expires_at = Some(desk.now() + HOUR);
    assert_eq!(*after, expected);
    assert_eq!(desk.stored(&before.id).await.unwrap(), after);
    let event = desk.last_event().await;
    assert_eq!(event.action, Action::KeyUpdate);
    let fields = "name, description, scopes, access, workspaces, metadata, not_before, expires_at";
    assert_eq!(event.detail.as_deref(), Some(fields));
}

#[tokio::test]
async fn an_update_without_changes_keeps_the_version() {
    let desk = Desk::new();
    let (_, record) = issue(&desk.host(), with_scopes(&["a"])).await;
    for nothing in [
        KeyChange::new(),
        rename("key"),
        change(|change| change.scopes = Some(vec![scope("a"), scope("a")])),
        change(|change| change.enabled = Some(true)),
        expiring(None),
    ] {
        assert_eq!(
            desk.host()
                .update(&record.id, nothing, Some(1))
                .await
                .unwrap()
                .record
                .version,
            1
        );
    }
}

#[tokio::test]
async fn a_change_for_another_version_is_refused_with_the_one_that_is_stored() {
    let desk = Desk::new();
    let (_, record) = issue(&desk.host(), named("key")).await;
    for wrong in [0, 2, u64::MAX] {
        let refused = desk
            .host()
            .update(&record.id, rename("x"), Some(wrong))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, ManageError::Changed { expected, stored: 1 } if expected == wrong),
            "{refused}"
        );
        assert_eq!(refused.code(), ErrorCode::PreconditionFailed);
    }
    let (manager, id) = (desk.host(), record.id.clone());
    desk.store.once(APPLY, async move {
        manager.update(&id, rename("first"), None).await.unwrap();
    });
    let refused = desk
        .host()
        .update(&record.id, rename("second"), Some(1))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ManageError::Changed {
                expected: 1,
                stored: 2
            }
        ),
        "{refused}"
    );
    assert_eq!(desk.stored(&record.id).await.unwrap().name, "first");
}

#[tokio::test]
async fn a_change_without_a_version_takes_nothing_of_another_one_back() {
    let desk = Desk::new();
    let (_, record) = issue(&desk.host(), named("key")).await;
    let (manager, id) = (desk.host(), record.id.clone());
    desk.store.once(APPLY, async move {
        manager.disable(&id).await.unwrap();
        manager
            .update(
                &id,
                change(|change| change.access = Some(Access::ReadOnly)),
                None,
            )
            .await
            .unwrap();
    });
    let after = desk
        .host()
        .update(&record.id, rename("renamed"), None)
        .await
        .unwrap()
        .record;
    assert_eq!(
        (
            after.name.as_str(),
            after.enabled,
            after.access,
            after.version
        ),
        ("renamed", false, Access::ReadOnly, 4)
    );
}

#[tokio::test]
async fn a_revocation_between_reading_and_writing_is_not_undone() {
    let desk = Desk::new();
    let (secret, record) = issue(&desk.host(), named("key")).await;
    let (manager, id) = (desk.host(), record.id.clone());
    desk.store.once(APPLY, async move {
        manager.revoke(&id, Some("leaked")).await.unwrap();
    });
    assert_eq!(
        refused(desk.host().update(&record.id, rename("x"), None).await),
        ErrorCode::Conflict
    );
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
}

#[tokio::test]
async fn an_invalid_value_is_refused_with_its_field_and_changes_nothing() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, record) = issue(&manager, ending("key", desk.now() + DAY)).await;
    let mut user_key = NewKey::new("user key", ann());
    user_key.kind = KeyKind::User;
    let (_, user_key) = issue(&manager, user_key).await;
    let many: Vec<Scope> = (0..257)
        .map(|number| scope(&format!("s{number}")))
        .collect();
    let (now, id) = (desk.now(), &record.id);
    let cases: Vec<(&str, &KeyId, KeyChange)> = vec![
        ("name", id, rename(" ")),
        ("name", id, rename(&"x".repeat(1001))),
        ("name", id, rename("a\0")),
        (
            "description",
            id,
            change(|change| change.description = Some(Some("x".repeat(1001)))),
        ),
        (
            "scopes",
            id,
            change(|change| change.scopes = Some(many.clone())),
        ),
        (
            "workspaces",
            id,
            change(|change| change.workspaces = Some(Some(Vec::new()))),
        ),
        ("expires_at", id, expiring(Some(now - SECOND))),
        ("expires_at", id, expiring(Some(SystemTime::UNIX_EPOCH))),
        (
            "not_before",
            id,
            change(|change| change.not_before = Some(Some(now + DAY))),
        ),
        (
            "not_before",
            id,
            change(|change| change.not_before = Some(Some(now + 2 * DAY))),
        ),
        (
            "delegation",
            &user_key.id,
            change(|change| change.delegation = Some(Delegation::On)),
        ),
        (
            "delegation",
            &user_key.id,
            change(|change| change.delegation = Some(Delegation::Only(Vec::new()))),
        ),
    ];
    for (expected, id, wrong) in cases {
        assert_eq!(
            field(manager.update(id, wrong.clone(), None).await),
            expected,
            "{wrong:?}"
        );
        assert_eq!(
            desk.last_event().await.outcome,
            AuditOutcome::Refused(ErrorCode::InvalidBody)
        );
    }
    assert_eq!(desk.stored(&record.id).await.unwrap(), record);
}

#[tokio::test]
async fn a_name_is_one_line() {
    let desk = Desk::new();
    for name in ["two\nlines", "a\n\nb", "a\u{2028}b"] {
        assert_eq!(
            field(desk.host().issue(named(name)).await),
            "name",
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn scopes_are_held_to_the_vocabulary_when_issued_and_when_changed() {
    let desk = Desk::new();
    let known: Vocabulary = [scope("document:read"), scope("document:write")]
        .into_iter()
        .collect();
    let manager = desk.builder().vocabulary(known).manager();
    let (_, record) = issue(&manager, with_scopes(&["document:*", "*"])).await;
    for unknown in ["documents:read", "document", "user:*", "document.read"] {
        assert_eq!(
            field(manager.issue(with_scopes(&[unknown])).await),
            "scopes",
            "{unknown}"
        );
        let wrong =
            change(|change| change.scopes = Some(vec![scope("document:read"), scope(unknown)]));
        assert_eq!(
            field(manager.update(&record.id, wrong, None).await),
            "scopes",
            "{unknown}"
        );
    }
    assert_eq!(desk.all().await, [record]);
}

#[tokio::test]
async fn delegated_scopes_are_held_to_the_vocabulary_and_to_a_bound_as_well() {
    let desk = Desk::new();
    let known: Vocabulary = [scope("document:read")].into_iter().collect();
    let manager = desk.builder().vocabulary(known).manager();
    let (_, record) = issue(&manager, with_scopes(&["document:read"])).await;
    let many = (0..10_000)
        .map(|number| scope(&format!("s{number}")))
        .collect();
    for wrong in [vec![scope("documents:read")], many] {
        let mut new = with_scopes(&["document:read"]);
        new.delegation = Some(Delegation::Only(wrong.clone()));
        assert_eq!(field(manager.issue(new).await), "delegation");
        let wrong = change(|change| change.delegation = Some(Delegation::Only(wrong.clone())));
        assert_eq!(
            field(manager.update(&record.id, wrong, None).await),
            "delegation"
        );
    }
}

#[tokio::test]
async fn a_narrowing_holds_for_the_next_request() {
    let desk = Desk::new();
    let (secret, record) = issue(&desk.host(), with_scopes(&["document:*"])).await;
    let authenticator = desk.authenticator();
    let may_write = async || {
        let principal = authenticator
            .authenticate(&Head::bearer(&secret))
            .await
            .unwrap()
            .principal
            .unwrap();
        principal.require(&scope("document:write").into()).is_ok()
    };
    assert!(may_write().await);
    desk.host()
        .update(
            &record.id,
            change(|change| change.scopes = Some(vec![scope("document:read")])),
            None,
        )
        .await
        .unwrap();
    assert!(!may_write().await);
    desk.host().disable(&record.id).await.unwrap();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyDisabled));
    assert_eq!(desk.last_event().await.action, Action::KeyDisable);
    desk.host().enable(&record.id).await.unwrap();
    assert_eq!(
        (desk.last_event().await.action, desk.refusal(&secret).await),
        (Action::KeyEnable, None)
    );
    desk.host()
        .update(&record.id, expiring(Some(desk.now())), None)
        .await
        .unwrap();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyExpired));
}

#[tokio::test]
async fn a_revoked_key_stays_revoked_with_its_first_reason() {
    let desk = Desk::new();
    let manager = desk.host();
    let (secret, record) = issue(&manager, named("key")).await;
    let first = manager
        .revoke(&record.id, Some("leaked"))
        .await
        .unwrap()
        .record;
    desk.clock.advance(HOUR);
    let again = manager
        .revoke(&record.id, Some("another reason"))
        .await
        .unwrap()
        .record;
    assert_eq!((&first, first.version), (&again, 2));
    for act in [
        change(|change| change.enabled = Some(true)),
        expiring(Some(desk.now() + DAY)),
        rename("x"),
        KeyChange::new(),
    ] {
        assert_eq!(
            refused(manager.update(&record.id, act, None).await),
            ErrorCode::Conflict
        );
    }
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
    assert_eq!(
        desk.stored(&record.id)
            .await
            .unwrap()
            .revoked
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("leaked")
    );
}

#[tokio::test]
async fn a_deleted_key_is_gone_for_every_act() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, _) = issue(&manager, named("the primary one")).await;
    let (secret, record) = issue(&manager, named("key")).await;
    manager.delete(&record.id).await.unwrap();
    let id = &record.id;
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::InvalidKey));
    assert_eq!(refused(manager.get(id).await), ErrorCode::NotFound);
    assert_eq!(
        refused(manager.update(id, rename("x"), None).await),
        ErrorCode::NotFound
    );
    assert_eq!(refused(manager.enable(id).await), ErrorCode::NotFound);
    assert_eq!(refused(manager.revoke(id, None).await), ErrorCode::NotFound);
    assert_eq!(refused(manager.rotate(id, None).await), ErrorCode::NotFound);
    assert_eq!(refused(manager.make_primary(id).await), ErrorCode::NotFound);
    assert_eq!(refused(manager.delete(id).await), ErrorCode::NotFound);
    assert_eq!(
        refused(
            manager
                .usage_by_hour(id, desk.now() - DAY, desk.now())
                .await
        ),
        ErrorCode::NotFound
    );
    assert_eq!(desk.all().await.len(), 1);
}

#[tokio::test]
async fn a_key_that_comes_back_counts_again() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(2));
    let (_, brief) = issue(&manager, ending("brief", desk.now() + HOUR)).await;
    issue(&manager, named("one")).await;
    desk.clock.advance(HOUR);
    let (_, two) = issue(&manager, named("two")).await;
    let refusal = manager.update(&brief.id, expiring(None), None).await;
    assert!(
        matches!(
            refusal,
            Err(ManageError::QuotaExceeded {
                active: 3,
                limit: 2
            })
        ),
        "{refusal:?}"
    );
    manager
        .update(&brief.id, rename("still expired"), None)
        .await
        .unwrap();
    manager.revoke(&two.id, None).await.unwrap();
    manager
        .update(&brief.id, expiring(None), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_extension_that_comes_too_late_does_not_break_the_quota() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(1));
    let (_, brief) = issue(&manager, ending("brief", desk.now() + HOUR)).await;
    desk.clock.advance(HOUR - SECOND);
    // Read a second before the key expires; by the time of the write, the key has expired and
    // another one has taken its quota.
    let (clock, other) = (desk.clock.clone(), manager.clone());
    desk.store.once(APPLY, async move {
        clock.advance(SECOND);
        other.issue(named("in its place")).await.unwrap();
    });
    let extended = manager.update(&brief.id, expiring(None), None).await;
    let active = desk
        .all()
        .await
        .iter()
        .filter(|record| record.counts_as_active(desk.now()))
        .count();
    assert_eq!(active, 1, "{extended:?}");
}

#[tokio::test]
async fn disabled_keys_count_and_a_lowered_quota_takes_nothing_away() {
    let desk = Desk::new();
    let two = desk.manager(|rules| rules.active_keys = Some(2));
    let (_, one) = issue(&two, named("one")).await;
    issue(&two, named("two")).await;
    two.disable(&one.id).await.unwrap();
    assert_eq!(
        refused(two.issue(named("three")).await),
        ErrorCode::QuotaExceeded
    );
    let lowered = desk.manager(|rules| rules.active_keys = Some(1));
    lowered.enable(&one.id).await.unwrap();
    lowered
        .update(&one.id, rename("renamed"), None)
        .await
        .unwrap();
    lowered
        .update(&one.id, expiring(Some(desk.now() + HOUR)), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_act_that_was_done_is_not_answered_as_if_it_was_not() {
    // After the change is stored, the record is deleted before it is read again.
    let desk = Desk::new();
    issue(&desk.host(), named("the primary one")).await;
    let (_, record) = issue(&desk.host(), named("key")).await;
    let (manager, id) = (desk.host(), record.id.clone());
    desk.store.once(Point::After(Call::Apply), async move {
        manager.delete(&id).await.unwrap();
    });
    let revoked = desk.host().revoke(&record.id, Some("leaked")).await;
    let event = desk
        .events()
        .await
        .into_iter()
        .find(|event| event.action == Action::KeyRevoke)
        .unwrap();
    assert_eq!(
        (revoked.err().map(|error| error.code()), event.outcome),
        (None, AuditOutcome::Ok)
    );
}

#[tokio::test]
async fn an_outage_of_the_reading_after_a_revocation_does_not_say_that_it_was_refused() {
    let desk = Desk::new();
    let (secret, record) = issue(&desk.host(), named("key")).await;
    desk.store.fail(Point::Before(Call::Primary));
    let revoked = desk.host().revoke(&record.id, Some("leaked")).await;
    desk.store.recover();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
    assert_eq!(
        (
            revoked.err().map(|error| error.code()),
            desk.last_event().await.outcome
        ),
        (None, AuditOutcome::Ok)
    );
}

#[tokio::test]
async fn an_act_whose_caller_disconnects_is_still_recorded() {
    let desk = Desk::new();
    let (secret, record) = issue(&desk.host(), named("key")).await;
    let before = desk.events().await.len();
    desk.store
        .once(Point::After(Call::Apply), std::future::pending());
    let manager = desk.host();
    let mut revoking = Box::pin(manager.revoke(&record.id, Some("leaked")));
    tokio::select! {
        biased;
        _ = &mut revoking => panic!("it waits for ever"),
        () = tokio::task::yield_now() => {}
    }
    drop(revoking);
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
    let events = desk.events().await;
    assert_eq!(
        events.len(),
        before + 1,
        "the key was revoked, and the audit does not say by whom"
    );
}

#[tokio::test]
async fn each_outage_before_writing_changes_nothing_and_is_reported_as_an_outage() {
    for point in [Point::Before(Call::Get), APPLY] {
        let desk = Desk::new();
        let (secret, record) = issue(&desk.host(), named("key")).await;
        desk.store.fail(point);
        let (manager, id) = (desk.host(), &record.id);
        assert_eq!(
            refused(manager.update(id, rename("x"), None).await),
            ErrorCode::StoreUnavailable
        );
        assert_eq!(
            refused(manager.revoke(id, None).await),
            ErrorCode::StoreUnavailable
        );
        assert_eq!(
            refused(manager.delete(id).await),
            ErrorCode::StoreUnavailable
        );
        assert_eq!(
            refused(manager.make_primary(id).await),
            ErrorCode::StoreUnavailable
        );
        assert_eq!(
            refused(manager.rotate(id, None).await),
            ErrorCode::StoreUnavailable
        );
        desk.store.recover();
        assert_eq!(
            (desk.stored(id).await.unwrap(), desk.refusal(&secret).await),
            (record.clone(), None)
        );
        let events = desk.events().await;
        let outage = |event: &&portunus::audit::AuditEvent| {
            event.outcome == AuditOutcome::Refused(ErrorCode::StoreUnavailable)
        };
        assert_eq!(events.iter().filter(outage).count(), 5);
    }
}

#[tokio::test]
async fn a_revocation_whose_answer_was_lost_can_be_made_again() {
    let desk = Desk::new();
    let (_, record) = issue(&desk.host(), named("key")).await;
    desk.store.fail(Point::After(Call::Apply));
    assert_eq!(
        refused(desk.host().revoke(&record.id, Some("leaked")).await),
        ErrorCode::StoreUnavailable
    );
    desk.store.recover();
    let revoked = desk
        .host()
        .revoke(&record.id, Some("leaked"))
        .await
        .unwrap()
        .record;
    assert_eq!(revoked.version, 2);
}

#[tokio::test]
async fn the_owner_of_a_key_never_changes() {
    let desk = Desk::new();
    let (_, record) = issue(
        &desk.host(),
        NewKey::new("key", ann().with_email("ann@example.com")),
    )
    .await;
    desk.host()
        .update(&record.id, rename("x"), None)
        .await
        .unwrap();
    let rotated = desk.host().rotate(&record.id, Some(HOUR)).await.unwrap();
    desk.host().make_primary(&rotated.record.id).await.unwrap();
    assert_eq!(
        (&rotated.record.owner, &rotated.old.owner),
        (&record.owner, &record.owner)
    );
    assert_eq!(record.owner.user_id, Some(user("ann")));
    assert_ne!(record.owner, acme());
}
