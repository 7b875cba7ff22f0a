//! Every management act is one audit event: actor, action, key, client address, and whether it
//! succeeded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::audit::{
    Action, AuditError, AuditEvent, AuditOutcome, AuditReader, AuditSink, AuditTrail, EventQuery,
    MemoryAudit, RequestId,
};
use portunus::key::{KeyId, Owner};
use portunus::manage::{
    ImportedDigest, IssueRules, KeyChange, KeyManager, NewImport, NewKey, Operator, Role,
};
use portunus::store::{KeyStore, ListQuery};
use portunus::{AuthError, Clock, ErrorCode};
use portunus_test_support::{
    APPLY, Call, Fixture, Head, Point, Setup, format, live, scope, tenant, user,
};

struct Desk {
    fixture: Fixture,
    trail: AuditTrail,
    log: MemoryAudit,
}

fn desk(capacity: usize) -> Desk {
    let (fixture, log) = (Fixture::new(), MemoryAudit::new(1000));
    let trail = AuditTrail::builder()
        .sink(log.clone())
        .capacity(capacity)
        .build();
    Desk {
        fixture,
        trail,
        log,
    }
}

impl Desk {
    fn manager(&self) -> KeyManager {
        let builder = Setup::on(self.fixture.store.clone())
            .bearer([format()])
            .environments([live()])
            .clock(self.fixture.clock.clone());
        let mut rules = IssueRules::default();
        rules.active_keys = Some(3);
        builder.audit(self.trail.clone()).rules(rules).manager()
    }
    async fn events(&self) -> Vec<AuditEvent> {
        self.trail.flush().await.unwrap();
        self.log.all()
    }
    /// Returns the last event, and asserts that it is the only new one.
    async fn last(&self, before: usize) -> AuditEvent {
        let events = self.events().await;
        assert_eq!(events.len(), before + 1, "{events:?}");
        events.last().unwrap().clone()
    }
    /// Fills the queue.
    fn flood(&self, count: u32) {
        let authenticator = self
            .fixture
            .bearer()
            .audit(self.trail.clone())
            .build()
            .unwrap();
        for _ in 0..count {
            let request_audit = authenticator.request_audit(&Head::new()).unwrap();
            request_audit.answered(401, Some(&AuthError::new(ErrorCode::MissingKey)));
        }
    }
}

fn new_key() -> NewKey {
    NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")])
}

fn alice() -> Operator {
    let alice = Operator::new(user("alice"), tenant("acme"), Role::Owner);
    alice
        .with_authority([scope("*")])
        .from_ip("203.0.113.9".parse().ok())
        .on_request(RequestId::new("req-1"))
}

fn mallory() -> Operator {
    Operator::new(user("mallory"), tenant("other"), Role::Owner)
}

fn import(digit: &str) -> NewImport {
    NewImport::new(
        ImportedDigest::from_hex("sha256", &digit.repeat(64)).unwrap(),
        new_key(),
    )
}

#[tokio::test]
async fn every_act_that_is_done_is_one_event() {
    let desk = desk(100);
    let manager = desk.manager().by(alice());
    let id = manager.issue(new_key()).await.unwrap().record.id.clone();
    let check = async |action: Action, id: &KeyId, detail: Option<String>, before: usize| {
        let event = desk.last(before).await;
        assert_eq!((event.action, event.outcome), (action, AuditOutcome::Ok));
        assert_eq!(
            (event.key_id.as_ref(), event.tenant_id),
            (Some(id), Some(tenant("acme"))),
            "{action}"
        );
        assert_eq!(
            (event.environment, event.scopes),
            (Some(live()), vec!["a".to_owned()]),
            "{action}"
        );
        assert!(
            event.actor.unwrap().is("alice")
                && event.client_ip.is_some()
                && event.request_id.is_some()
        );
        assert_eq!(
            (event.detail, event.at),
            (detail, desk.fixture.clock.now()),
            "{action}"
        );
    };
    check(Action::KeyIssue, &id, None, 0).await;
    let mut change = KeyChange::new();
    (change.name, change.description) = (Some("better".into()), Some(None));
    manager.update(&id, change, None).await.unwrap();
    check(Action::KeyUpdate, &id, Some("name, description".into()), 1).await;
    manager.disable(&id).await.unwrap();
    check(Action::KeyDisable, &id, Some("enabled".into()), 2).await;
    manager.enable(&id).await.unwrap();
    check(Action::KeyEnable, &id, Some("enabled".into()), 3).await;
    let rotated = manager
        .rotate(&id, Some(Duration::from_secs(60)))
        .await
        .unwrap();
    check(
        Action::KeyRotate,
        &id,
        Some(format!("its successor is {}", rotated.record.id)),
        4,
    )
    .await;
    manager.make_primary(&rotated.record.id).await.unwrap();
    check(Action::KeyMakePrimary, &rotated.record.id, None, 5).await;
    manager.revoke(&id, Some("leaked\nin a log")).await.unwrap();
    check(Action::KeyRevoke, &id, Some("leaked\nin a log".into()), 6).await;
    manager.delete(&id).await.unwrap();
    check(Action::KeyDelete, &id, None, 7).await;
    let imported = manager.import(import("a")).await.unwrap().record.id.clone();
    check(Action::KeyImport, &imported, None, 8).await;
    manager.get(&imported).await.unwrap();
    manager
        .list(ListQuery::new(desk.fixture.clock.now()))
        .await
        .unwrap();
    assert_eq!(desk.events().await.len(), 9, "looking is not noted");
}

#[tokio::test]
async fn every_act_that_is_refused_is_one_event_of_the_operators_tenant() {
    let desk = desk(100);
    let id = desk
        .fixture
        .manager()
        .issue(new_key())
        .await
        .unwrap()
        .record
        .id
        .clone();
    let (member, other) = (
        Operator::new(user("mia"), tenant("acme"), Role::Member),
        mallory(),
    );
    let mut expected = Vec::new();
    for (operator, place, code) in [(member, "acme", "FORBIDDEN"), (other, "other", "NOT_FOUND")] {
        let manager = desk.manager().by(operator.clone());
        let makes = "FORBIDDEN";
        manager.issue(new_key()).await.unwrap_err();
        expected.push((Action::KeyIssue, makes, None));
        manager.import(import("b")).await.map(drop).unwrap_err();
        expected.push((Action::KeyImport, makes, None));
        manager
            .update(&id, KeyChange::new(), None)
            .await
            .unwrap_err();
        manager.enable(&id).await.unwrap_err();
        manager.disable(&id).await.unwrap_err();
        manager.revoke(&id, None).await.unwrap_err();
        manager.rotate(&id, None).await.map(drop).unwrap_err();
        manager.make_primary(&id).await.unwrap_err();
        manager.delete(&id).await.unwrap_err();
        use Action::{
            KeyDelete, KeyDisable, KeyEnable, KeyMakePrimary, KeyRevoke, KeyRotate, KeyUpdate,
        };
        for action in [
            KeyUpdate,
            KeyEnable,
            KeyDisable,
            KeyRevoke,
            KeyRotate,
            KeyMakePrimary,
            KeyDelete,
        ] {
            expected.push((action, code, Some(id.clone())));
        }
        let events = desk.events().await;
        let of_operator: Vec<_> = events
            .iter()
            .filter(|event| event.involves(operator.name()))
            .collect();
        let told: Vec<_> = of_operator
            .iter()
            .map(|e| (e.action, e.outcome.as_str(), e.key_id.clone()))
            .collect();
        assert_eq!(told, expected);
        for event in of_operator {
            assert_eq!(event.tenant_id, Some(tenant(place)));
            assert!(
                event.detail.is_some() && event.scopes.is_empty(),
                "{event:?}"
            );
        }
        expected.clear();
    }
    let mut query = EventQuery::new();
    query.tenant = Some(tenant("acme"));
    let page = desk.log.events(&query).await.unwrap();
    assert!(
        page.items.iter().all(|event| !event.involves("mallory")),
        "an event stands in its operator's tenant"
    );
}

#[tokio::test]
async fn acts_that_the_state_forbids_are_recorded_with_their_codes() {
    let desk = desk(100);
    let manager = desk.manager().by(alice());
    let id = manager.issue(new_key()).await.unwrap().record.id.clone();
    manager.import(import("a")).await.unwrap();
    manager.import(import("a")).await.map(drop).unwrap_err();
    manager
        .update(&id, KeyChange::new(), Some(99))
        .await
        .unwrap_err();
    manager
        .issue(NewKey::new("", Owner::tenant(tenant("acme"))))
        .await
        .unwrap_err();
    manager.issue(new_key()).await.unwrap();
    manager.issue(new_key()).await.unwrap_err();
    desk.fixture.store.fail(APPLY);
    manager.revoke(&id, None).await.unwrap_err();
    let events = desk.events().await;
    let told: Vec<_> = events.iter().map(|event| event.outcome.as_str()).collect();
    let codes = [
        "OK",
        "OK",
        "CONFLICT",
        "PRECONDITION_FAILED",
        "INVALID_BODY",
        "OK",
        "QUOTA_EXCEEDED",
    ];
    assert_eq!(told, [&codes[..], &["STORE_UNAVAILABLE"]].concat());
}

#[tokio::test]
async fn acts_are_recorded_even_if_the_queue_is_full() {
    let desk = desk(1);
    let manager = desk.manager();
    desk.flood(10);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(Some(
            manager.issue(new_key()).await.unwrap().record.id.clone(),
        ));
    }
    for id in ids.clone() {
        ids.push(id.clone());
        manager.disable(id.as_ref().unwrap()).await.unwrap();
    }
    desk.flood(10);
    let events = desk.events().await;
    let acts: Vec<_> = events
        .iter()
        .filter(|event| event.key_id.is_some())
        .map(|event| event.key_id.clone())
        .collect();
    assert_eq!(acts, ids, "all of them, in their order");
    assert_eq!(
        (desk.trail.dropped(), events.last().unwrap().count),
        (19, Some(19))
    );
}

/// A sink that accepts nothing until it is opened.
#[derive(Debug, Default, Clone)]
struct Closed(Arc<AtomicBool>, Arc<Mutex<Vec<AuditEvent>>>);

#[async_trait]
impl AuditSink for Closed {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        if !self.0.load(Ordering::SeqCst) {
            return Err(AuditError::unavailable("the disk is full"));
        }
        self.1.lock().unwrap().extend(events.iter().cloned());
        Ok(())
    }
}

#[tokio::test]
async fn acts_are_kept_while_a_sink_fails() {
    let mut desk = desk(5);
    let sink = Closed::default();
    desk.trail = AuditTrail::builder()
        .sink(sink.clone())
        .capacity(5)
        .failures_per_source(None)
        .build();
    let id = desk
        .manager()
        .issue(new_key())
        .await
        .unwrap()
        .record
        .id
        .clone();
    for _ in 0..5 {
        desk.flood(5);
        desk.trail.flush().await.unwrap_err();
    }
    sink.0.store(true, Ordering::SeqCst);
    desk.trail.flush().await.unwrap();
    let kept = sink.1.lock().unwrap();
    assert!(
        kept.iter().any(|event| event.key_id.as_ref() == Some(&id)),
        "requests may be lost, acts never: {kept:?}"
    );
}

#[tokio::test]
async fn an_act_whose_operator_disconnects_is_recorded() {
    let desk = desk(100);
    desk.fixture.store.hold(Point::Before(Call::Primary));
    let manager = desk.manager().by(alice());
    let new = new_key();
    // The client of a management API disconnects: its server drops the future.
    let issue = tokio::spawn(async move { manager.issue(new).await.map(drop) });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    issue.abort();
    issue.await.unwrap_err();
    let keys = desk
        .fixture
        .store
        .list(&ListQuery::new(SystemTime::UNIX_EPOCH))
        .await
        .unwrap()
        .items;
    assert_eq!(keys.len(), 1, "the key was made");
    let events = desk.events().await;
    assert!(
        events.iter().any(|event| event.action == Action::KeyIssue),
        "and nobody knows who made it"
    );
}

#[tokio::test]
async fn an_act_that_was_done_before_the_store_failed_names_its_key() {
    let desk = desk(100);
    desk.fixture.store.fail(Point::Before(Call::Primary));
    let manager = desk.manager().by(alice());
    let issued = manager.issue(new_key()).await;
    let keys = desk
        .fixture
        .store
        .list(&ListQuery::new(SystemTime::UNIX_EPOCH))
        .await
        .unwrap()
        .items;
    let Some(made) = keys.first() else { return };
    let event = desk.last(0).await;
    assert_eq!(
        event.key_id.as_ref(),
        Some(&made.id),
        "a key was made, and the caller was told {issued:?}"
    );
}

#[tokio::test]
async fn an_event_of_an_act_carries_no_secret_and_no_digest() {
    let desk = desk(100);
    let manager = desk.manager().by(alice());
    let issued = manager.issue(new_key()).await.unwrap();
    let rotated = manager.rotate(&issued.record.id, None).await.unwrap();
    manager.import(import("c")).await.unwrap();
    let digits = |bytes: [u8; 32]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut canaries = vec!["c".repeat(64)];
    for key in [issued.key, rotated.key] {
        let key = key.reveal();
        canaries.extend([
            portunus_test_support::base64(key.as_bytes()),
            digits(desk.fixture.hasher.digest(&key).to_bytes()),
            key,
        ]);
    }
    let shown = format!(
        "{:?} {}",
        desk.events().await,
        serde_json::to_string(&desk.events().await).unwrap()
    );
    for canary in canaries {
        assert!(!shown.contains(&canary));
    }
}

#[tokio::test]
async fn a_refusal_by_the_host_records_the_key_and_nothing_from_the_request() {
    let desk = desk(100);
    let manager = desk.manager().by(alice());
    let record = desk
        .fixture
        .manager()
        .issue(new_key())
        .await
        .unwrap()
        .record;
    let secret = portunus_test_support::stranger();
    let forbidden = AuthError::with_detail(ErrorCode::Forbidden, "Only the owner may set a plan");
    let about_a_key = AuthError::with_detail(ErrorCode::Forbidden, format!("{secret} is no plan"));
    let invalid = AuthError::with_detail(ErrorCode::InvalidBody, format!("plan: {secret} is none"));
    for (number, (action, about, why, detail)) in [
        (
            Action::KeyUpdate,
            Some(&*record),
            &forbidden,
            "Only the owner may set a plan",
        ),
        (
            Action::KeyUpdate,
            Some(&*record),
            &about_a_key,
            "[redacted]",
        ),
        (Action::KeyUpdate, Some(&*record), &invalid, "plan"),
        (
            Action::KeyIssue,
            None,
            &forbidden,
            "Only the owner may set a plan",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        manager.refused(action, about, why);
        let event = desk.last(number).await;
        assert_eq!(
            (event.action, event.outcome),
            (action, AuditOutcome::Refused(why.code()))
        );
        assert_eq!(event.key_id, about.map(|record| record.id.clone()));
        assert_eq!(
            event.environment,
            about.map(|record| record.environment.clone())
        );
        assert_eq!(event.tenant_id, Some(tenant("acme")));
        assert_eq!(event.detail.as_deref(), Some(detail));
    }
}

#[tokio::test]
async fn an_unknown_id_is_recorded_only_if_it_cannot_be_a_secret() {
    let desk = desk(100);
    let manager = desk.manager().by(alice());
    let secret = KeyId::new(&portunus_test_support::stranger()).unwrap();
    manager.make_primary(&secret).await.unwrap_err();
    let event = desk.last(0).await;
    assert_eq!(
        (event.key_id, event.detail.as_deref()),
        (None, Some("key not found"))
    );
    let harmless = KeyId::generate().unwrap();
    manager.make_primary(&harmless).await.unwrap_err();
    assert_eq!(desk.last(1).await.key_id, Some(harmless));
}
