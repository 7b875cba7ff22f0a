//! The primary key: exactly one while its owner has an eligible key, moved only when it ends or on
//! request.

use std::time::Duration;

use crate::life::{DAY, Desk, HOUR, acme, ann, change, ending, globex, ids, issue, named, refused};
use portunus::ErrorCode;
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{KeyKind, Owner};
use portunus::manage::NewKey;
use portunus::store::{KeyStore, ListQuery};
use portunus_test_support::{APPLY, Call, Point, tenant, test, user};

fn of(owner: Owner) -> NewKey {
    NewKey::new("key", owner)
}

#[tokio::test]
async fn the_first_key_of_each_owner_is_its_primary_one() {
    let desk = Desk::new();
    let manager = desk.host();
    for owner in [
        acme(),
        ann(),
        Owner::user(tenant("acme"), user("bob")),
        globex(),
    ] {
        let first = manager.issue(of(owner.clone())).await.unwrap();
        desk.tick();
        let second = manager.issue(of(owner.clone())).await.unwrap();
        assert_eq!((first.primary, second.primary), (true, false), "{owner:?}");
        assert!(manager.overview(&first).await.primary);
        assert!(!manager.overview(&second).await.primary);
        assert!(manager.get(&first.record.id).await.unwrap().primary);
        assert!(!manager.get(&second.record.id).await.unwrap().primary);
    }
    let listed = manager.list(ListQuery::new(desk.now())).await.unwrap();
    assert_eq!(listed.items.iter().filter(|key| key.primary).count(), 4);
}

#[tokio::test]
async fn an_owner_is_the_same_for_every_address_and_environment() {
    let desk = Desk::new();
    let first = desk
        .host()
        .issue(of(ann().with_email("ann@example.com")))
        .await
        .unwrap();
    let mut elsewhere = of(ann());
    elsewhere.environment = Some(test());
    assert!(first.primary && !desk.host().issue(elsewhere).await.unwrap().primary);
}

#[tokio::test]
async fn whichever_is_made_primary_takes_the_place_of_the_one_before() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, one) = issue(&manager, named("one")).await;
    let (_, two) = issue(&manager, named("two")).await;
    let made = manager.make_primary(&two.id).await.unwrap();
    assert!(
        made.primary && made.record == two,
        "being primary is no fact of the record"
    );
    assert_eq!(desk.primary(&acme()).await, Some(two.id.clone()));
    assert!(!manager.get(&one.id).await.unwrap().primary);
    manager.make_primary(&two.id).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(two.id.clone()));
}

#[tokio::test]
async fn revoking_the_primary_key_promotes_the_newest_active_one() {
    let desk = Desk::new();
    let manager = desk.host();
    let mut keys = Vec::new();
    for name in [
        "primary",
        "old",
        "newest that works",
        "expired",
        "revoked",
        "deleted",
    ] {
        let end = (name == "expired").then(|| desk.now() + HOUR);
        let mut new = named(name);
        new.expires_at = end;
        keys.push(issue(&manager, new).await.1);
        desk.tick();
    }
    manager.revoke(&keys[4].id, None).await.unwrap();
    manager.delete(&keys[5].id).await.unwrap();
    desk.clock.advance(HOUR);
    manager.revoke(&keys[0].id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(keys[2].id.clone()));
    manager.revoke(&keys[2].id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(keys[1].id.clone()));
    manager.revoke(&keys[1].id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, None);
    let next = manager.issue(named("a new beginning")).await.unwrap();
    assert!(next.primary);
}

#[tokio::test]
async fn an_expired_primary_key_is_replaced_at_that_instant_and_stays_replaced() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, ending("primary", desk.now() + HOUR)).await;
    desk.tick();
    let (_, heir) = issue(&manager, named("heir")).await;
    desk.clock
        .advance(HOUR - Duration::from_secs(1) - Duration::from_millis(1));
    assert_eq!(desk.primary(&acme()).await, Some(primary.id.clone()));
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(desk.primary(&acme()).await, Some(heir.id.clone()));
    desk.tick();
    let later = manager.issue(named("newer than the heir")).await.unwrap();
    assert!(
        !later.primary,
        "a newer key does not take the place of one that time has promoted"
    );
    let revived = change(|change| change.expires_at = Some(None));
    assert!(
        !manager
            .update(&primary.id, revived, None)
            .await
            .unwrap()
            .primary,
        "nor does one that comes back"
    );
    assert_eq!(desk.primary(&acme()).await, Some(heir.id.clone()));
}

#[tokio::test]
async fn an_update_that_revives_a_key_does_not_take_the_place_of_a_key_that_time_promoted() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, ending("primary", desk.now() + HOUR)).await;
    desk.tick();
    let (_, heir) = issue(&manager, named("heir")).await;
    desk.tick();
    let (_, newest) = issue(&manager, ending("newest", desk.now() + HOUR / 2)).await;
    desk.clock.advance(HOUR);
    assert_eq!(desk.primary(&acme()).await, Some(heir.id.clone()));
    for id in [&newest.id, &primary.id] {
        manager
            .update(id, change(|change| change.expires_at = Some(None)), None)
            .await
            .unwrap();
        assert_eq!(desk.primary(&acme()).await, Some(heir.id.clone()));
    }
}

#[tokio::test]
async fn ending_the_primary_key_by_a_change_promotes_as_well() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, one) = issue(&manager, named("one")).await;
    let (_, two) = issue(&manager, named("two")).await;
    let ended = manager
        .update(
            &one.id,
            change(|change| change.expires_at = Some(Some(desk.now()))),
            None,
        )
        .await
        .unwrap();
    assert!(!ended.primary);
    assert_eq!(desk.primary(&acme()).await, Some(two.id.clone()));
}

#[tokio::test]
async fn rotation_does_not_move_it_while_the_old_key_works() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, named("primary")).await;
    desk.tick();
    let (_, other) = issue(&manager, named("other")).await;
    desk.tick();
    let rotated = manager.rotate(&primary.id, Some(HOUR)).await.unwrap();
    assert!(!rotated.primary);
    manager.rotate(&other.id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(primary.id.clone()));
    desk.tick();
    let (_, newest) = issue(&manager, named("newest")).await;
    desk.clock.advance(HOUR);
    assert_eq!(
        desk.primary(&acme()).await,
        Some(newest.id.clone()),
        "the end of the grace is an expiry like any other"
    );
}

#[tokio::test]
async fn a_primary_key_that_is_rotated_without_a_grace_gives_its_place_to_its_successor() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, named("primary")).await;
    issue(&manager, named("other")).await;
    desk.tick();
    let rotated = manager.rotate(&primary.id, None).await.unwrap();
    assert!(rotated.primary);
    assert_eq!(desk.primary(&acme()).await, Some(rotated.record.id.clone()));
    assert!(rotated.old.revoked.is_some());
    desk.clock.step_to(primary.created_at - HOUR);
    assert_eq!(
        desk.primary(&acme()).await,
        Some(rotated.record.id.clone()),
        "a clock that steps back does not give it back"
    );
}

#[tokio::test]
async fn a_successor_takes_the_place_of_its_primary_key_also_after_the_clock_was_set_back() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, named("primary")).await;
    let (_, other) = issue(&manager, named("other")).await;
    desk.clock.step_to(other.created_at - HOUR);
    let rotated = manager.rotate(&primary.id, None).await.unwrap();
    assert_eq!(
        desk.primary(&acme()).await,
        Some(rotated.record.id.clone()),
        "rotation moves it to no unrelated key"
    );
}

#[tokio::test]
async fn nothing_else_moves_it() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, named("primary")).await;
    desk.tick();
    let (_, other) = issue(&manager, named("other")).await;
    manager.disable(&primary.id).await.unwrap();
    assert_eq!(
        desk.primary(&acme()).await,
        Some(primary.id.clone()),
        "a disabled key counts as active"
    );
    manager
        .update(
            &primary.id,
            change(|change| change.name = Some("renamed".into())),
            None,
        )
        .await
        .unwrap();
    manager.enable(&primary.id).await.unwrap();
    manager.disable(&other.id).await.unwrap();
    manager.enable(&other.id).await.unwrap();
    manager.revoke(&other.id, None).await.unwrap();
    manager.delete(&other.id).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(primary.id.clone()));
}

#[tokio::test]
async fn where_all_keys_are_disabled_there_is_one_still() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, one) = issue(&manager, named("one")).await;
    let (_, two) = issue(&manager, named("two")).await;
    manager.disable(&one.id).await.unwrap();
    manager.disable(&two.id).await.unwrap();
    manager.revoke(&one.id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(two.id.clone()));
    assert!(manager.make_primary(&two.id).await.unwrap().primary);
}

#[tokio::test]
async fn an_inactive_key_cannot_be_made_primary() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, keeps) = issue(&manager, named("primary")).await;
    let (_, revoked) = issue(&manager, named("revoked")).await;
    let (_, expired) = issue(&manager, ending("expired", desk.now() + HOUR)).await;
    let (_, deleted) = issue(&manager, named("deleted")).await;
    manager.revoke(&revoked.id, None).await.unwrap();
    manager.delete(&deleted.id).await.unwrap();
    desk.clock.advance(HOUR);
    for (id, code) in [
        (&revoked.id, ErrorCode::Conflict),
        (&expired.id, ErrorCode::Conflict),
        (&deleted.id, ErrorCode::NotFound),
    ] {
        assert_eq!(refused(manager.make_primary(id).await), code);
        let event = desk.last_event().await;
        assert_eq!(
            (event.action, event.outcome),
            (Action::KeyMakePrimary, AuditOutcome::Refused(code))
        );
    }
    assert_eq!(desk.primary(&acme()).await, Some(keeps.id.clone()));
}

#[tokio::test]
async fn a_key_that_ends_while_it_is_made_primary_leaves_exactly_one() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, keeps) = issue(&manager, named("keeps")).await;
    let (_, brief) = issue(&manager, ending("brief", desk.now() + HOUR)).await;
    let clock = desk.clock.clone();
    desk.store.once(APPLY, async move { clock.advance(HOUR) });
    let _ = manager.make_primary(&brief.id).await;
    assert_eq!(desk.primary(&acme()).await, Some(keeps.id.clone()));
}

#[tokio::test]
async fn a_key_that_is_revoked_while_it_is_made_primary_is_not() {
    let desk = Desk::new();
    let (_, keeps) = issue(&desk.host(), named("keeps")).await;
    let (_, other) = issue(&desk.host(), named("other")).await;
    let (manager, id) = (desk.host(), other.id.clone());
    desk.store.once(APPLY, async move {
        manager.revoke(&id, None).await.unwrap();
    });
    assert_eq!(
        refused(desk.host().make_primary(&other.id).await),
        ErrorCode::Conflict
    );
    assert_eq!(desk.primary(&acme()).await, Some(keeps.id.clone()));
}

#[tokio::test]
async fn a_primary_key_can_be_deleted_only_if_its_owner_has_no_other_active_one() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, primary) = issue(&manager, named("primary")).await;
    let (_, other) = issue(&manager, named("other")).await;
    issue(&manager, of(ann())).await;
    issue(&manager, of(globex())).await;
    manager.disable(&other.id).await.unwrap();
    assert_eq!(
        refused(manager.delete(&primary.id).await),
        ErrorCode::Conflict,
        "a disabled key is an active one"
    );
    let event = desk.last_event().await;
    assert_eq!(
        (event.action, event.outcome),
        (
            Action::KeyDelete,
            AuditOutcome::Refused(ErrorCode::Conflict)
        )
    );
    manager.revoke(&other.id, None).await.unwrap();
    manager.delete(&primary.id).await.unwrap();
    assert_eq!(
        desk.primary(&acme()).await,
        None,
        "other owners' keys are no reason"
    );
    assert_eq!(
        refused(manager.delete(&primary.id).await),
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn a_key_that_becomes_primary_while_it_is_deleted_is_not_deleted() {
    let desk = Desk::new();
    let (_, one) = issue(&desk.host(), named("one")).await;
    let (_, two) = issue(&desk.host(), named("two")).await;
    let (manager, id) = (desk.host(), two.id.clone());
    desk.store.once(APPLY, async move {
        manager.make_primary(&id).await.unwrap();
    });
    assert_eq!(
        refused(desk.host().delete(&two.id).await),
        ErrorCode::Conflict
    );
    assert_eq!(desk.primary(&acme()).await, Some(two.id.clone()));
    desk.host().delete(&one.id).await.unwrap();
}

#[tokio::test]
async fn the_last_key_is_not_deleted_as_primary_while_another_is_issued() {
    let desk = Desk::new();
    let (_, only) = issue(&desk.host(), named("only")).await;
    let manager = desk.host();
    desk.store.once(APPLY, async move {
        manager.issue(named("another")).await.unwrap();
    });
    assert_eq!(
        refused(desk.host().delete(&only.id).await),
        ErrorCode::Conflict
    );
    assert_eq!(desk.primary(&acme()).await, Some(only.id.clone()));
}

#[tokio::test]
async fn deleting_keys_that_have_ended_is_always_possible() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, expires) = issue(&manager, ending("primary", desk.now() + HOUR)).await;
    let (_, other) = issue(&manager, named("other")).await;
    desk.clock.advance(HOUR);
    manager.delete(&expires.id).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(other.id.clone()));
    manager.revoke(&other.id, None).await.unwrap();
    manager.delete(&other.id).await.unwrap();
    assert!(desk.all().await.is_empty());
}

#[tokio::test]
async fn the_flag_in_lists_is_the_owners_at_the_time_of_the_list() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, brief) = issue(&manager, ending("brief", desk.now() + HOUR)).await;
    desk.tick();
    let (_, heir) = issue(&manager, named("heir")).await;
    let primaries = async |at| {
        let page = manager.list(ListQuery::new(at)).await.unwrap();
        ids(&page
            .items
            .into_iter()
            .filter(|key| key.primary)
            .collect::<Vec<_>>())
    };
    assert_eq!(primaries(desk.now()).await, std::slice::from_ref(&brief.id));
    assert_eq!(
        primaries(desk.now() + DAY).await,
        std::slice::from_ref(&heir.id)
    );
    let mut one = ListQuery::new(desk.now());
    one.limit = 1;
    let page = manager.list(one.clone()).await.unwrap();
    assert!(
        !page.items[0].primary,
        "also where the primary one is on another page"
    );
    one.after = page.next;
    assert!(manager.list(one).await.unwrap().items[0].primary);
}

#[tokio::test]
async fn a_user_key_and_an_application_key_of_one_user_share_one_primary() {
    let desk = Desk::new();
    let mut new = of(ann());
    new.kind = KeyKind::User;
    let first = desk.host().issue(new).await.unwrap();
    let second = desk.host().issue(of(ann())).await.unwrap();
    assert!(first.primary && !second.primary);
    desk.host().revoke(&first.record.id, None).await.unwrap();
    assert!(desk.host().get(&second.record.id).await.unwrap().primary);
}

#[tokio::test]
async fn an_outage_of_reads_does_not_lose_the_secret_of_a_key_that_was_issued() {
    let desk = Desk::new();
    desk.store.fail(Point::Before(Call::Primary));
    let issued = desk.host().issue(named("key")).await;
    desk.store.recover();
    let kept = desk.all().await.len();
    assert_eq!(
        usize::from(issued.is_ok()),
        kept,
        "an active key, counted, whose secret nobody has: {issued:?}"
    );
    assert!(desk.store.list(&ListQuery::new(desk.now())).await.is_ok());
}
