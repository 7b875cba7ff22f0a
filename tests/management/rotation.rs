//! Rotating keys: the successor's settings and lifetime, the old key's grace period, one family,
//! one quota, at most two working keys of a family, and keys that cannot be rotated.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::life::{
    DAY, Desk, HOUR, SECOND, acme, ann, change, ending, field, issue, named, refused, with_scopes,
};
use portunus::ErrorCode;
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{
    Access, Delegation, KeyKind, KeyRecord, Metadata, Owner, PlanName, WorkspaceId,
};
use portunus::limit::LocalLimiter;
use portunus::manage::{ManageError, NewKey};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::store::Usage;
use portunus_profiles::Profile;
use portunus_test_support::{APPLY, Call, Head, Point, Setup, scope, tenant, test, user};

/// 9999-12-31T23:59:59.999Z, which every store can represent.
fn latest() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(253_402_300_799_999)
}

#[tokio::test]
async fn a_successor_has_the_same_facts_and_another_secret() {
    let desk = Desk::new();
    let manager = desk.host();
    let mut new = with_scopes(&["document:*", "user.read"]);
    new.owner = ann().with_email("ann@example.com");
    new.description = Some("nightly".into());
    new.environment = Some(test());
    new.access = Access::ReadOnly;
    new.workspaces = Some(vec![WorkspaceId::new("w1").unwrap()]);
    new.plan = Some(PlanName::new("enterprise").unwrap());
    new.delegation = Some(Delegation::Only(vec![scope("user.read")]));
    new.allowed_ips = Some(AllowList::parse(["192.0.2.0/24"]).unwrap());
    new.quotas = Some(Quotas::new([Quota::per_minute(7).unwrap()]).unwrap());
    new.metadata = Metadata::from_json(r#"{"team":"payments"}"#).unwrap();
    let (old_secret, old) = issue(&manager, new).await;
    desk.tick();
    let rotated = manager.rotate(&old.id, Some(HOUR)).await.unwrap();
    let mut expected = (*old).clone();
    expected.id = rotated.record.id.clone();
    expected.masked.clone_from(&rotated.record.masked);
    expected.created_at = desk.now();
    expected.predecessor = Some(old.id.clone());
    assert_eq!(*rotated.record, expected);
    assert_eq!(rotated.record.family, old.family);
    assert_ne!(rotated.record.id, old.id);
    let secret = rotated.key.reveal();
    assert_ne!(secret, old_secret);
    assert!(
        rotated.record.masked.ends_with(&secret[secret.len() - 4..]),
        "{}",
        rotated.record.masked
    );
    assert_eq!(
        rotated.old,
        desk.stored(&old.id).await.unwrap(),
        "the old key is shown as it is stored"
    );
    assert_eq!(
        rotated.record,
        desk.stored(&rotated.record.id).await.unwrap()
    );
    assert_eq!(
        (rotated.old.version, rotated.old.successor.as_ref()),
        (2, Some(&rotated.record.id))
    );
}

#[tokio::test]
async fn the_old_key_works_until_the_instant_at_which_its_grace_ends() {
    let desk = Desk::new();
    let manager = desk.host();
    let (secret, old) = issue(&manager, named("key")).await;
    let rotated = manager.rotate(&old.id, Some(HOUR)).await.unwrap();
    let works_until = rotated.old_works_until();
    let fresh = rotated.key.reveal();
    assert_eq!(rotated.old.expires_at, Some(desk.now() + HOUR));
    assert_eq!(works_until, rotated.old.expires_at);
    desk.clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(
        (desk.refusal(&secret).await, desk.refusal(&fresh).await),
        (None, None)
    );
    desk.clock.advance(Duration::from_nanos(1));
    assert_eq!(
        (desk.refusal(&secret).await, desk.refusal(&fresh).await),
        (Some(ErrorCode::KeyExpired), None)
    );
}

#[tokio::test]
async fn without_a_grace_the_old_key_is_revoked_at_once_and_no_clock_revives_it() {
    for grace in [None, Some(Duration::ZERO), Some(Duration::from_micros(999))] {
        let desk = Desk::new();
        // Between two milliseconds: the stored time is truncated, and the key must not work for the
        // rest of the millisecond.
        desk.clock.advance(Duration::from_nanos(999_999));
        let (secret, old) = issue(&desk.host(), named("key")).await;
        let rotated = desk.host().rotate(&old.id, grace).await.unwrap();
        assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
        let works_until = rotated.old_works_until();
        assert_eq!(desk.refusal(&rotated.key.reveal()).await, None);
        let revoked = rotated.old.revoked.as_ref().unwrap();
        assert_eq!(revoked.reason.as_deref(), Some("rotated"));
        assert_eq!(works_until, Some(revoked.at));
        assert_eq!(desk.stored(&old.id).await, Some(rotated.old.clone()));
        desk.clock.step_to(old.created_at - DAY);
        assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
        let extended = change(|change| change.expires_at = Some(Some(desk.now() + DAY)));
        desk.host()
            .update(&old.id, extended, None)
            .await
            .unwrap_err();
        desk.host().enable(&old.id).await.unwrap_err();
        assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
    }
}

#[tokio::test]
async fn a_key_with_an_end_of_its_own_is_revoked_by_a_rotation_without_a_grace_and_keeps_its_end() {
    let desk = Desk::new();
    let end = desk.now() + HOUR;
    let (secret, old) = issue(&desk.host(), ending("key", end)).await;
    let rotated = desk.host().rotate(&old.id, None).await.unwrap();
    assert_eq!(rotated.old.expires_at, Some(end));
    assert_eq!(rotated.old_works_until(), Some(desk.now()));
    desk.clock.advance(HOUR);
    // Final states are reported first.
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
}

#[tokio::test]
async fn a_grace_never_outlasts_the_keys_own_expiry() {
    let desk = Desk::new();
    let end = desk.now() + HOUR;
    let (secret, old) = issue(&desk.host(), ending("key", end)).await;
    let rotated = desk.host().rotate(&old.id, Some(DAY)).await.unwrap();
    assert_eq!(rotated.old.expires_at, Some(end));
    desk.clock.advance(HOUR);
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyExpired));
}

#[tokio::test]
async fn a_grace_that_no_storage_can_hold_is_refused_and_the_longest_that_it_can_is_not() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), named("key")).await;
    let most = latest().duration_since(desk.now()).unwrap();
    for grace in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        most + Duration::from_millis(1),
    ] {
        assert_eq!(
            field(desk.host().rotate(&old.id, Some(grace)).await),
            "grace_seconds",
            "{grace:?}"
        );
    }
    assert_eq!(
        desk.all().await,
        std::slice::from_ref(&old),
        "nothing was changed"
    );
    let rotated = desk.host().rotate(&old.id, Some(most)).await.unwrap();
    assert_eq!(rotated.old.expires_at, Some(latest()));
}

#[tokio::test]
async fn a_successor_has_the_same_lifetime_starting_again() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), ending("key", desk.now() + 90 * DAY)).await;
    desk.clock.advance(80 * DAY);
    let first = desk.host().rotate(&old.id, None).await.unwrap().record;
    assert_eq!(first.expires_at, Some(desk.now() + 90 * DAY));
    desk.clock.advance(89 * DAY);
    let second = desk.host().rotate(&first.id, None).await.unwrap().record;
    assert_eq!(
        second.expires_at,
        Some(desk.now() + 90 * DAY),
        "a lifetime does not grow by rotation"
    );
    assert_eq!(
        (&second.family, second.predecessor.as_ref()),
        (&old.family, Some(&first.id))
    );
    let (_, endless) = issue(&desk.host(), named("endless")).await;
    assert_eq!(
        desk.host()
            .rotate(&endless.id, Some(HOUR))
            .await
            .unwrap()
            .record
            .expires_at,
        None
    );
}

#[tokio::test]
async fn a_renewed_lifetime_is_limited_to_what_the_store_can_represent() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), ending("until the end of time", latest())).await;
    desk.clock.advance(DAY);
    let rotated = desk
        .host()
        .rotate(&old.id, Some(HOUR))
        .await
        .unwrap()
        .record;
    assert_eq!(rotated.expires_at, Some(latest()));
}

#[tokio::test]
async fn the_latest_time_is_one_and_the_error_for_a_later_one_names_it() {
    let desk = Desk::new();
    let manager = desk.host();
    assert_eq!(SystemTime::UNIX_EPOCH + portunus::key::MAX_TIME, latest());
    let (_, key) = issue(
        &manager,
        ending("key", latest() + Duration::from_micros(999)),
    )
    .await;
    assert_eq!(key.expires_at, Some(latest()), "cut to the millisecond");
    let beyond = latest() + Duration::from_millis(1);
    let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
    let later = change(|change| change.expires_at = Some(Some(beyond)));
    let too_early = change(|change| change.not_before = Some(Some(before)));
    for refused in [
        manager.issue(ending("key", beyond)).await.unwrap_err(),
        manager.update(&key.id, later, None).await.unwrap_err(),
        manager.update(&key.id, too_early, None).await.unwrap_err(),
        manager
            .rotate(&key.id, Some(Duration::MAX))
            .await
            .unwrap_err(),
    ] {
        let text = refused.to_string();
        assert!(text.contains("9999-12-31T23:59:59.999Z"), "{text}");
    }
    let again = change(|change| change.expires_at = Some(Some(latest())));
    let kept = manager.update(&key.id, again, None).await.unwrap();
    assert_eq!(kept.record.version, 1, "nothing was changed");
}

#[tokio::test]
async fn an_expiry_that_no_storage_can_hold_is_refused_or_harmless_but_never_a_panic() {
    let desk = Desk::new();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs());
    let Ok(issued) = desk.host().issue(ending("key", end)).await else {
        return;
    };
    desk.tick();
    let manager = desk.host();
    let id = issued.record.id.clone();
    let rotated =
        tokio::spawn(async move { manager.rotate(&id, Some(HOUR)).await.map(drop) }).await;
    assert!(rotated.is_ok(), "rotating panicked");
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_successor_that_is_dead_at_once() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), named("key")).await;
    desk.clock.step_to(old.created_at - HOUR);
    let shorter = change(|change| change.expires_at = Some(Some(old.created_at - HOUR / 2)));
    desk.host().update(&old.id, shorter, None).await.unwrap();
    let rotated = desk.host().rotate(&old.id, None).await.unwrap();
    assert_eq!(desk.refusal(&rotated.key.reveal()).await, None);
}

#[tokio::test]
async fn a_key_is_rotated_once() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), named("key")).await;
    let rotated = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    assert_eq!(
        refused(desk.host().rotate(&old.id, Some(HOUR)).await),
        ErrorCode::Conflict
    );
    desk.clock.advance(HOUR);
    assert_eq!(
        refused(desk.host().rotate(&old.id, None).await),
        ErrorCode::Conflict,
        "nor once it has ended"
    );
    assert_eq!(desk.all().await.len(), 2);
    desk.host()
        .rotate(&rotated.record.id, Some(HOUR))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_that_has_ended_cannot_be_rotated() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, revoked) = issue(&manager, named("revoked")).await;
    manager.revoke(&revoked.id, None).await.unwrap();
    let (_, expired) = issue(&manager, ending("expired", desk.now() + HOUR)).await;
    let (_, deleted) = issue(&manager, ending("deleted", desk.now() + HOUR)).await;
    desk.clock.advance(HOUR);
    manager.delete(&deleted.id).await.unwrap();
    for (id, code) in [
        (&revoked.id, ErrorCode::Conflict),
        (&expired.id, ErrorCode::Conflict),
        (&deleted.id, ErrorCode::NotFound),
    ] {
        assert_eq!(refused(manager.rotate(id, Some(HOUR)).await), code);
        let event = desk.last_event().await;
        assert_eq!(
            (event.action, event.outcome, event.key_id.as_ref()),
            (Action::KeyRotate, AuditOutcome::Refused(code), Some(id))
        );
    }
}

#[tokio::test]
async fn a_disabled_key_has_a_disabled_successor() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), named("key")).await;
    desk.host().disable(&old.id).await.unwrap();
    let rotated = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    assert!(
        !rotated.record.enabled,
        "rotation gives nothing that the key did not have"
    );
    assert_eq!(
        desk.refusal(&rotated.key.reveal()).await,
        Some(ErrorCode::KeyDisabled)
    );
}

#[tokio::test]
async fn the_successor_of_a_key_whose_time_has_not_come_waits_as_well() {
    let desk = Desk::new();
    let start = desk.now() + DAY;
    let mut new = ending("key", start + DAY);
    new.not_before = Some(start);
    let (_, old) = issue(&desk.host(), new).await;
    desk.tick();
    let rotated = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    assert_eq!(rotated.record.not_before, Some(start));
    assert!(rotated.record.expires_at.unwrap() > start);
    assert_eq!(rotated.old.expires_at, Some(desk.now() + HOUR));
    let secret = rotated.key.reveal();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyDisabled));
    desk.clock.advance(DAY);
    assert_eq!(desk.refusal(&secret).await, None);
    let renamed = change(|change| change.name = Some("renamed".into()));
    desk.host().update(&old.id, renamed, None).await.unwrap();
}

#[tokio::test]
async fn a_rotated_keys_end_comes_nearer_only() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    for later in [None, Some(desk.now() + HOUR + SECOND)] {
        let longer = change(|change| change.expires_at = Some(later));
        assert_eq!(
            field(desk.host().update(&old.id, longer, None).await),
            "expires_at"
        );
    }
    let sooner = change(|change| change.expires_at = Some(Some(desk.now() + SECOND)));
    desk.host().update(&old.id, sooner, None).await.unwrap();
    let back = change(|change| change.expires_at = Some(Some(desk.now() + HOUR)));
    assert_eq!(
        field(desk.host().update(&old.id, back, None).await),
        "expires_at"
    );
    desk.tick();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyExpired));
    let revived = change(|change| change.expires_at = Some(Some(desk.now() + HOUR)));
    assert_eq!(
        field(desk.host().update(&old.id, revived, None).await),
        "expires_at"
    );
}

#[tokio::test]
async fn an_extension_that_was_read_before_a_rotation_does_not_outlive_the_grace() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), ending("key", desk.now() + HOUR)).await;
    let (manager, id) = (desk.host(), old.id.clone());
    desk.store.once(APPLY, async move {
        manager.rotate(&id, Some(SECOND)).await.unwrap();
    });
    let longer = change(|change| change.expires_at = Some(None));
    assert_eq!(
        field(desk.host().update(&old.id, longer, None).await),
        "expires_at"
    );
    desk.tick();
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyExpired));
}

#[tokio::test]
async fn a_revocation_during_the_grace_ends_that_key_alone() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    let rotated = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    let fresh = rotated.key.reveal();
    desk.host().revoke(&old.id, Some("leaked")).await.unwrap();
    assert_eq!(
        (desk.refusal(&secret).await, desk.refusal(&fresh).await),
        (Some(ErrorCode::KeyRevoked), None)
    );
    desk.host()
        .revoke(&rotated.record.id, Some("leaked too"))
        .await
        .unwrap();
    assert_eq!(desk.refusal(&fresh).await, Some(ErrorCode::KeyRevoked));
}

#[tokio::test]
async fn predecessor_and_successor_can_each_be_deleted() {
    for delete_successor in [false, true] {
        let desk = Desk::new();
        let manager = desk.host();
        issue(&manager, NewKey::new("the primary one", acme())).await;
        let (secret, old) = issue(&manager, named("key")).await;
        let rotated = manager.rotate(&old.id, Some(HOUR)).await.unwrap();
        let fresh = rotated.key.reveal();
        manager
            .delete(if delete_successor {
                &rotated.record.id
            } else {
                &old.id
            })
            .await
            .unwrap();
        let refusals = (desk.refusal(&secret).await, desk.refusal(&fresh).await);
        let gone = Some(ErrorCode::InvalidKey);
        assert_eq!(
            refusals,
            if delete_successor {
                (None, gone)
            } else {
                (gone, None)
            }
        );
        assert_eq!(desk.all().await.len(), 2);
    }
}

#[tokio::test]
async fn a_key_at_the_limit_can_be_rotated_with_and_without_a_grace_period() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| {
        rules.active_keys = Some(2);
        rules.active_keys_per_owner = Some(2);
    });
    let (_, one) = issue(&manager, named("one")).await;
    let (_, two) = issue(&manager, named("two")).await;
    manager.rotate(&one.id, Some(HOUR)).await.unwrap();
    let two = manager.rotate(&two.id, None).await.unwrap().record;
    assert_eq!(
        refused(manager.issue(named("three")).await),
        ErrorCode::QuotaExceeded
    );
    // No number of rotations makes more than two working keys of one.
    let mut newest = two;
    for _ in 0..5 {
        desk.tick();
        newest = manager.rotate(&newest.id, Some(HOUR)).await.unwrap().record;
    }
    let all = desk.all().await;
    let working = |record: &&Arc<KeyRecord>| record.counts_as_active(desk.now());
    assert_eq!(all.iter().filter(working).count(), 4, "two of each family");
}

#[tokio::test]
async fn rotating_the_successor_ends_the_old_key_within_its_grace_period() {
    for grace in [None, Some(HOUR)] {
        let desk = Desk::new();
        let manager = desk.host();
        let (first, one) = issue(&manager, named("key")).await;
        let rotated = manager.rotate(&one.id, Some(DAY)).await.unwrap();
        let (second, two) = (rotated.key.reveal(), rotated.record);
        assert_eq!(desk.primary(&acme()).await, Some(one.id.clone()));
        let again = manager.rotate(&two.id, grace).await.unwrap();
        assert_eq!(desk.refusal(&first).await, Some(ErrorCode::KeyRevoked));
        let revoked = desk.stored(&one.id).await.unwrap().revoked.clone().unwrap();
        assert_eq!(revoked.reason.as_deref(), Some("rotated"));
        let expected = grace.map_or(Some(ErrorCode::KeyRevoked), |_| None);
        assert_eq!(desk.refusal(&second).await, expected);
        assert_eq!(desk.refusal(&again.key.reveal()).await, None);
        // The old key was primary until it ended.
        assert!(again.primary);
        assert_eq!(desk.primary(&acme()).await, Some(again.record.id.clone()));
        let detail = desk.last_event().await.detail.unwrap();
        assert!(
            detail.contains(&format!("{} is revoked", one.id)),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_family_gets_no_third_working_key_by_way_of_an_expired_successor() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, one) = issue(&manager, named("key")).await;
    let two = manager.rotate(&one.id, Some(DAY)).await.unwrap().record;
    let end = change(|change| change.expires_at = Some(Some(desk.now() + SECOND)));
    manager.update(&two.id, end, None).await.unwrap();
    desk.tick();
    // The successor has expired, so the old key can be rotated again …
    manager.rotate(&one.id, Some(HOUR)).await.unwrap();
    // … and the expired one cannot be extended any more.
    let extend = change(|change| change.expires_at = Some(None));
    assert_eq!(
        refused(manager.update(&two.id, extend, None).await),
        ErrorCode::Conflict
    );
}

#[tokio::test]
async fn access_tokens_are_not_rotated() {
    let desk = Desk::new();
    let manager = Setup::of(desk.store.clone(), Profile::DropboxSign)
        .clock(desk.clock.clone())
        .manager();
    let mut new = NewKey::new("token", Owner::user(tenant("acme"), user("ann")))
        .with_scopes([scope("account_access")]);
    new.kind = KeyKind::AccessToken;
    let token = manager.issue(new).await.unwrap();
    assert_eq!(token.record.expires_at, Some(desk.now() + HOUR));
    assert_eq!(field(manager.rotate(&token.record.id, None).await), "kind");
    assert_eq!(
        manager.get(&token.record.id).await.unwrap().rotation_due,
        None,
        "so its rotation is never due"
    );
}

#[tokio::test]
async fn dropbox_sign_keys_stay_active_after_rotation_without_a_grace_period() {
    let desk = Desk::new();
    let manager = Setup::of(desk.store.clone(), Profile::DropboxSign)
        .clock(desk.clock.clone())
        .manager();
    let (_, old) = issue(&manager, named("key")).await;
    for grace in [Duration::ZERO, HOUR] {
        assert_eq!(
            field(manager.rotate(&old.id, Some(grace)).await),
            "grace_seconds"
        );
    }
    let rotated = manager.rotate(&old.id, None).await.unwrap();
    assert_eq!(
        (
            rotated.old.expires_at,
            rotated.record.expires_at,
            rotated.primary
        ),
        (None, None, false)
    );
    assert_eq!(desk.primary(&acme()).await, Some(old.id.clone()));
    desk.clock.advance(365 * DAY);
    assert!(
        desk.stored(&old.id)
            .await
            .unwrap()
            .counts_as_active(desk.now())
    );
    manager.rotate(&rotated.record.id, None).await.unwrap();
    issue(&manager, named("the fourth")).await;
    assert_eq!(
        refused(manager.issue(named("the fifth")).await),
        ErrorCode::QuotaExceeded
    );
}

#[tokio::test]
async fn a_rotation_is_due_when_the_profile_says_and_enforced_by_nothing() {
    let periods = [
        (Profile::AllSign, Some(90)),
        (Profile::IuSign, Some(90)),
        (Profile::DropboxSign, Some(365)),
        (Profile::Yousign, None),
    ];
    for (profile, days) in periods {
        let desk = Desk::new();
        let manager = Setup::of(desk.store.clone(), profile)
            .clock(desk.clock.clone())
            .manager();
        let (_, key) = issue(&manager, named("key")).await;
        let due = days.map(|days| key.created_at + days * DAY);
        assert_eq!(
            manager.get(&key.id).await.unwrap().rotation_due,
            due,
            "{profile}"
        );
        desk.clock.advance(1000 * DAY);
        assert_eq!(
            manager.get(&key.id).await.unwrap().rotation_due,
            due,
            "{profile}"
        );
        assert!(
            desk.stored(&key.id)
                .await
                .unwrap()
                .counts_as_active(desk.now()),
            "{profile}"
        );
        let rotated = manager.rotate(&key.id, None).await.unwrap().record;
        assert_eq!(
            manager.get(&key.id).await.unwrap().rotation_due,
            None,
            "{profile}: it has been"
        );
        let due = days.map(|days| rotated.created_at + days * DAY);
        assert_eq!(
            manager.get(&rotated.id).await.unwrap().rotation_due,
            due,
            "{profile}"
        );
    }
}

#[tokio::test]
async fn no_rotation_is_due_for_a_key_that_has_ended() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.rotate_every = Some(DAY));
    let (_, revoked) = issue(&manager, named("revoked")).await;
    let (_, expired) = issue(&manager, ending("expired", desk.now() + HOUR)).await;
    manager.revoke(&revoked.id, None).await.unwrap();
    assert_eq!(manager.get(&revoked.id).await.unwrap().rotation_due, None);
    desk.clock.advance(HOUR);
    assert_eq!(manager.get(&expired.id).await.unwrap().rotation_due, None);
}

#[tokio::test]
async fn a_family_has_one_quota_of_requests() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    let limited = Setup::on(desk.store.clone())
        .bearer([portunus_test_support::format()])
        .clock(desk.clock.clone())
        .limiter(LocalLimiter::builder().clock(desk.clock.clone()).build())
        .quotas(Quotas::new([Quota::per_minute(4).unwrap()]).unwrap())
        .build()
        .unwrap();
    let ask = async |secret: &str| {
        limited
            .authenticate(&Head::bearer(secret))
            .await
            .err()
            .map(|error| error.code())
    };
    assert_eq!((ask(&secret).await, ask(&secret).await), (None, None));
    let first = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    let second = desk
        .host()
        .rotate(&first.record.id, Some(HOUR))
        .await
        .unwrap()
        .key
        .reveal();
    let first = first.key.reveal();
    assert_eq!((ask(&first).await, ask(&second).await), (None, None));
    for secret in [&first, &second] {
        assert_eq!(ask(secret).await, Some(ErrorCode::RateLimited));
    }
    assert_eq!(ask(&secret).await, Some(ErrorCode::KeyRevoked));
}

#[tokio::test]
async fn use_of_the_old_key_is_seen_during_its_grace_and_after_it() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    let successor = desk
        .host()
        .rotate(&old.id, Some(HOUR))
        .await
        .unwrap()
        .record;
    let authenticator = Setup::on(desk.store.clone())
        .bearer([portunus_test_support::format()])
        .clock(desk.clock.clone())
        .audit(desk.trail.clone())
        .build()
        .unwrap();
    desk.clock.advance(HOUR / 2);
    let during = desk.now();
    let head = Head::bearer(&secret).from("192.0.2.7");
    let mut request_audit = authenticator.request_audit(&head).unwrap();
    request_audit.admitted(
        &authenticator
            .authenticate(&head)
            .await
            .unwrap()
            .principal
            .unwrap(),
    );
    request_audit.answered(200, None);
    authenticator.usage().flush(&desk.store).await.unwrap();
    let listed: Usage = portunus_test_support::used(&desk.store, &old.id).await;
    assert_eq!((listed.last_used_at, listed.count), (Some(during), 1));
    let event = desk.last_event().await;
    let rotated = format!("rotated; its successor is {}", successor.id);
    assert_eq!(
        (event.outcome, event.key_id.as_ref()),
        (AuditOutcome::Ok, Some(&old.id))
    );
    assert_eq!(event.detail.as_deref(), Some(&*rotated));

    desk.clock.advance(HOUR);
    let request_audit = authenticator.request_audit(&head).unwrap();
    let error = authenticator.authenticate(&head).await.unwrap_err();
    request_audit.answered(401, Some(&error));
    let event = desk.last_event().await;
    assert_eq!(event.outcome, AuditOutcome::Refused(ErrorCode::KeyExpired));
    assert_eq!(
        (event.key_id.as_ref(), event.detail.as_deref()),
        (Some(&old.id), Some(&*rotated))
    );
    assert_eq!(event.tenant_id, Some(tenant("acme")));
}

#[tokio::test]
async fn a_rotation_is_one_event_with_both_keys_and_no_secret() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    let rotated = desk.host().rotate(&old.id, Some(HOUR)).await.unwrap();
    let events = desk.events().await;
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[1].action, events[1].key_id.as_ref()),
        (Action::KeyRotate, Some(&old.id))
    );
    assert!(
        events[1]
            .detail
            .as_ref()
            .unwrap()
            .contains(rotated.record.id.as_str())
    );
    let (shown, fresh) = (format!("{events:?} {rotated:?}"), rotated.key.reveal());
    assert!(!shown.contains(&secret[13..40]) && !shown.contains(&fresh[13..40]));
}

#[tokio::test]
async fn an_outage_after_a_rotation_was_stored_does_not_lose_the_only_secret_that_works() {
    let desk = Desk::new();
    let (_, old) = issue(&desk.host(), named("key")).await;
    // The old key ends in the same step, so a caller who receives no secret is locked out.
    desk.store.fail(Point::Before(Call::Primary));
    let rotated = desk.host().rotate(&old.id, None).await;
    desk.store.recover();
    let changed = desk.all().await.len() == 2;
    assert_eq!(
        rotated.is_ok(),
        changed,
        "done: {changed}, answered: {rotated:?}"
    );
}

#[tokio::test]
async fn a_rotation_that_was_not_stored_changes_nothing() {
    let desk = Desk::new();
    let (secret, old) = issue(&desk.host(), named("key")).await;
    desk.store.fail(APPLY);
    let refused = desk.host().rotate(&old.id, None).await;
    assert!(matches!(refused, Err(ManageError::Store(_))), "{refused:?}");
    assert_eq!(
        (desk.all().await, desk.refusal(&secret).await),
        (vec![old], None)
    );
    let event = desk.last_event().await;
    assert_eq!(
        event.outcome,
        AuditOutcome::Refused(ErrorCode::StoreUnavailable)
    );
    assert!(!event.detail.unwrap().contains("db.internal"));
}
