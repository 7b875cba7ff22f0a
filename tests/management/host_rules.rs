//! The host's own rules: they see the version that is changed, and are not called for repeated
//! requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{Access, KeyRecord};
use portunus::manage::{
    HostRules, Idempotency, ImportedDigest, KeyChange, KeyManager, ManageError, NewImport, NewKey,
    Operator,
};
use portunus::network::AllowList;
use portunus::{AuthError, ErrorCode};

use crate::life::{Desk, change, issue, named, refused};
use portunus_test_support::APPLY;

/// A key that may write can be used only from listed addresses.
#[derive(Debug, Default)]
struct WritersHaveAddresses {
    asked: AtomicUsize,
}

fn decide(writes: bool, addresses: bool) -> Result<(), AuthError> {
    if writes && !addresses {
        return Err(AuthError::with_detail(
            ErrorCode::InvalidBody,
            "allowed_ips: needed here",
        ));
    }
    Ok(())
}

#[async_trait]
impl HostRules for WritersHaveAddresses {
    async fn issuing(&self, _: &Operator, new: &mut NewKey) -> Result<(), AuthError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        decide(new.access == Access::FullAccess, new.allowed_ips.is_some())
    }

    async fn changing(
        &self,
        _: &Operator,
        before: &KeyRecord,
        change: &mut KeyChange,
    ) -> Result<(), AuthError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let access = change.access.unwrap_or(before.access);
        let addresses = change.allowed_ips.as_ref().or(Some(&before.allowed_ips));
        decide(
            access == Access::FullAccess,
            addresses.is_some_and(Option::is_some),
        )
    }
}

fn from_somewhere() -> Option<AllowList> {
    Some(AllowList::parse(["192.0.2.0/24"]).unwrap())
}

fn writing() -> KeyChange {
    change(|change| change.access = Some(Access::FullAccess))
}

fn from_anywhere() -> KeyChange {
    change(|change| change.allowed_ips = Some(None))
}

#[tokio::test]
async fn rules_see_the_version_that_is_changed() {
    let desk = Desk::new();
    let rules = Arc::new(WritersHaveAddresses::default());
    let manager = desk.builder().host_rules(Arc::clone(&rules)).manager();
    // Each of the two changes is allowed for the first version, but neither is allowed after the
    // other.
    for (first, second) in [(writing(), from_anywhere()), (from_anywhere(), writing())] {
        let mut new = named("key");
        (new.access, new.allowed_ips) = (Access::ReadOnly, from_somewhere());
        let (_, key) = issue(&manager, new).await;
        let (other, id) = (manager.clone(), key.id.clone());
        desk.store.once(APPLY, async move {
            other.update(&id, second, None).await.unwrap();
        });
        let asked = rules.asked.load(Ordering::SeqCst);
        let late = manager.update(&key.id, first, None).await;
        assert_eq!(refused(late), ErrorCode::InvalidBody);
        assert_eq!(rules.asked.load(Ordering::SeqCst), asked + 3);
        let stored = desk.stored(&key.id).await.unwrap();
        assert_eq!(stored.version, 2, "{stored:?}");
        let event = desk.last_event().await;
        assert_eq!(
            (event.action, event.outcome, event.detail.as_deref()),
            (
                Action::KeyUpdate,
                AuditOutcome::Refused(ErrorCode::InvalidBody),
                Some("allowed_ips")
            )
        );
    }
}

#[tokio::test]
async fn concurrent_additions_are_not_lost() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, key) = issue(&manager, named("key")).await;
    let adding = |word: &'static str| {
        move |before: &KeyRecord| {
            let name = format!("{} {word}", before.name);
            Ok(change(|change| change.name = Some(name)))
        }
    };
    let (other, id) = (manager.clone(), key.id.clone());
    desk.store.once(APPLY, async move {
        other.update_with(&id, adding("one"), None).await.unwrap();
    });
    let changed = manager.update_with(&key.id, adding("two"), None).await;
    assert_eq!(changed.unwrap().record.name, "key one two");
    let refusal = |_: &KeyRecord| Err(AuthError::new(ErrorCode::PlanRequired));
    let refusal = manager.update_with(&key.id, refusal, None).await;
    assert!(matches!(refusal, Err(ManageError::Refused(_))));
    assert_eq!(refused(refusal), ErrorCode::PlanRequired);
}

/// Allows this many keys, and refuses all further ones.
#[derive(Debug)]
struct First(AtomicUsize);

#[async_trait]
impl HostRules for First {
    async fn issuing(&self, _: &Operator, _: &mut NewKey) -> Result<(), AuthError> {
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        left.map(drop)
            .map_err(|_| AuthError::new(ErrorCode::Forbidden))
    }
}

#[tokio::test]
async fn a_repeated_request_is_recognized_before_any_rule() {
    let desk = Desk::new();
    let manager = desk
        .builder()
        .host_rules(Box::new(First(AtomicUsize::new(1))))
        .manager();
    let issue_once = async |manager: &KeyManager| {
        let mut new = named("key");
        let request = Idempotency::new("olga", "issue", "1", b"{}").unwrap();
        new.idempotency = Some(request);
        manager.issue(new).await
    };
    let first = issue_once(&manager).await.unwrap();
    let again = issue_once(&manager).await;
    assert!(
        matches!(&again, Err(ManageError::DoneBefore(done)) if done.record == first.record),
        "{again:?}"
    );
    assert_eq!(
        refused(manager.issue(named("another")).await),
        ErrorCode::Forbidden
    );
    let digest = ImportedDigest::new("sha256", &[7; 32]).unwrap();
    let import = NewImport::new(digest, named("imported"));
    assert_eq!(
        refused(manager.import(import.clone()).await),
        ErrorCode::Forbidden
    );
    desk.host().import(import).await.unwrap();
}
