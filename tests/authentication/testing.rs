//! The feature `testing`: a principal built by hand equals the one from the authenticator, and
//! ready-made keys work at once.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portunus::actor::ActorMode;
use portunus::actor::User;
use portunus::audit::{Action, AuditOutcome};
use portunus::config::Responses;
use portunus::key::{Access, Alphabet, KeyFormat, KeyKind, Owner};
use portunus::policy::{PlanOrder, WorkspaceOf};
use portunus::request::TlsVersion;
use portunus::testing::{ManualClock, RecordedAudit, TestKeys, TestPrincipal, TestRequest};
use portunus::{ErrorCode, KeyPrincipal, Principal, RequestHead, Requirement, scope};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

async fn admitted(keys: &TestKeys, key: &str) -> KeyPrincipal {
    let request = TestRequest::get("/documents").bearer(key).peer("192.0.2.7");
    keys.builder()
        .build()
        .unwrap()
        .authenticator()
        .authenticate(&request)
        .await
        .unwrap()
        .principal
        .unwrap()
}

#[tokio::test]
async fn a_principal_made_by_hand_is_the_one_that_a_key_brings() {
    let keys = TestKeys::new();
    let plans = PlanOrder::new(["free", "standard"]).unwrap();
    let requirements = [
        Requirement::none(),
        Requirement::scope(scope!("document:read")),
        Requirement::scope(scope!("document:write")),
        Requirement::user(),
        Requirement::writing(),
        Requirement::organization(),
        Requirement::workspace(WorkspaceOf::path_after("workspaces")),
        plans.at_least("standard").unwrap(),
    ];
    let requests = [
        TestRequest::get("/workspaces/ws1"),
        TestRequest::post("/workspaces/ws1"),
        TestRequest::get("/workspaces/ws2"),
        TestRequest::new("DELETE", "/documents"),
    ];
    let scopes = ["document:read"];
    let mut differing = 0;
    for kind in [KeyKind::App, KeyKind::User] {
        for access in [Access::FullAccess, Access::ReadOnly] {
            for workspaces in [None, Some(vec!["ws1".parse().unwrap()])] {
                for plan in [
                    None,
                    Some("free".parse().unwrap()),
                    Some("standard".parse().unwrap()),
                ] {
                    let key = keys.issue_with("acme", scopes, |new| {
                        (new.kind, new.access) = (kind, access);
                        (new.workspaces, new.plan) = (workspaces.clone(), plan.clone());
                        if kind == KeyKind::User {
                            new.owner = Owner::user("acme".parse().unwrap(), "u1".parse().unwrap());
                        }
                    });
                    let brought = admitted(&keys, &key).await;
                    let made = match kind {
                        KeyKind::User => TestPrincipal::user("acme", "u1"),
                        _ => TestPrincipal::app("acme"),
                    };
                    let made = made.scopes(scopes).client_ip(HERE).with(|record| {
                        (record.access, record.workspaces, record.plan) =
                            (access, workspaces.clone(), plan.clone());
                    });
                    let made = made.build();
                    assert_eq!(
                        (made.mode(), made.owner()),
                        (brought.mode(), brought.owner())
                    );
                    assert_eq!(made.client_ip(), brought.client_ip());
                    assert_eq!(made.actor(), brought.actor());
                    for requirement in &requirements {
                        for request in &requests {
                            let code = |who: &KeyPrincipal| {
                                requirement
                                    .check(who, Some(request))
                                    .err()
                                    .map(|refusal| refusal.code())
                            };
                            assert_eq!(
                                code(&made),
                                code(&brought),
                                "{requirement} on {request:?}: {made:?}"
                            );
                            differing += usize::from(code(&made).is_some());
                        }
                    }
                }
            }
        }
    }
    assert!(differing > 100, "only {differing} refusals were compared");
}

#[test]
fn a_principal_built_by_hand_acts_for_a_user_with_the_intersection() {
    let user =
        User::new("u2".parse().unwrap(), "acme".parse().unwrap()).with_email("u2@example.com");
    let limited = user.with_scopes([scope!("document:read"), scope!("template:read")]);
    let delegated = |user: User| {
        let principal = TestPrincipal::app("acme")
            .scopes(["document:*"])
            .acting_for(ActorMode::Delegated, user);
        principal.build()
    };
    let caller = delegated(limited.clone());
    assert_eq!(
        (caller.mode(), caller.actor().user_email),
        (ActorMode::Delegated, Some("u2@example.com"))
    );
    let may = |caller: &KeyPrincipal, name: &str| {
        caller
            .require(&Requirement::scope(portunus::Scope::new(name).unwrap()))
            .is_ok()
    };
    assert_eq!(
        ["document:read", "document:write", "template:read"].map(|name| may(&caller, name)),
        [true, false, false]
    );
    let anything = delegated(User::new("u2".parse().unwrap(), "acme".parse().unwrap()));
    assert!(may(&anything, "document:write"));
}

#[test]
fn a_refusal_is_worded_as_the_services_own() {
    let keys = TestKeys::new()
        .builder()
        .responses(Responses::new().realm("acme documents"))
        .build()
        .unwrap();
    let caller = TestPrincipal::app("acme")
        .dialect_of(keys.authenticator())
        .build();
    let refusal = caller.require(&scope!("document:read").into()).unwrap_err();
    let answer = caller
        .responder()
        .answer(&refusal, &TestRequest::get("/documents"));
    let challenges: Vec<_> = answer
        .fields
        .iter()
        .filter(|(name, _)| *name == "www-authenticate")
        .collect();
    assert!(
        challenges
            .iter()
            .any(|(_, value)| value.contains("realm=\"acme documents\"")),
        "{challenges:?}"
    );
}

#[tokio::test]
async fn keys_are_ready_at_once_and_end_by_the_clock_or_by_hand() {
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 40)
        .build()
        .unwrap();
    let keys = TestKeys::of(format);
    let key = keys.issue_with("acme", [], |new| {
        new.expires_at = Some(keys.in_the(Duration::from_secs(60)));
    });
    assert!(key.starts_with("acme_") && key.len() == 45, "{key}");
    let service = keys.builder().build().unwrap();
    let authenticator = service.authenticator();
    let code = async |request: TestRequest| {
        authenticator
            .authenticate(&request)
            .await
            .err()
            .map(|error| error.code())
    };
    assert_eq!(code(TestRequest::get("/").bearer(&key)).await, None);
    assert_eq!(code(TestRequest::get("/").basic(&key)).await, None);
    assert_eq!(
        code(TestRequest::get("/").bearer(&key).bearer(&key)).await,
        Some(ErrorCode::InvalidRequest)
    );
    assert_eq!(
        code(TestRequest::get("/")).await,
        Some(ErrorCode::MissingKey)
    );
    keys.clock().advance(Duration::from_secs(60));
    assert_eq!(
        code(TestRequest::get("/").bearer(&key)).await,
        Some(ErrorCode::KeyExpired)
    );
    let other = keys.clone().issue("acme", ["document:read"]);
    assert_ne!(keys.id_of(&other), keys.id_of(&key));
    keys.revoke(&other);
    assert_eq!(
        code(TestRequest::get("/").bearer(&other)).await,
        Some(ErrorCode::KeyRevoked)
    );
}

#[tokio::test]
async fn every_event_is_recorded_in_any_number() {
    let (keys, clock) = (TestKeys::new(), ManualClock::new());
    let audit = RecordedAudit::new();
    let service = keys.builder().audit(audit.trail()).build().unwrap();
    let authenticator = service.authenticator();
    for _ in 0..1_000 {
        let request = TestRequest::get("/documents").peer("192.0.2.7");
        let refusal = authenticator.authenticate(&request).await.unwrap_err();
        authenticator
            .request_audit(&request)
            .unwrap()
            .answered(refusal.status(), Some(&refusal));
    }
    service
        .manager()
        .revoke(&"nobody".parse().unwrap(), None)
        .await
        .unwrap_err();
    let events = audit.events().await;
    assert_eq!(events.len(), 1_001);
    let missing = AuditOutcome::Refused(ErrorCode::MissingKey);
    assert!(
        events[..1_000]
            .iter()
            .all(|event| event.outcome == missing && event.client_ip == Some(HERE))
    );
    assert_eq!(events[1_000].action, Action::KeyRevoke);
    assert_eq!(events[0].at, portunus::Clock::now(&clock));
}

#[test]
fn a_request_built_by_hand_has_the_given_values() {
    let request = TestRequest::new("PUT", "/a")
        .field("X-User-Id", "one")
        .field("x-user-id", b"\xff")
        .field("Via", "x");
    let mut seen = Vec::new();
    let head: &dyn RequestHead = &request;
    head.visit(portunus::request::FieldName::UserId, &mut |value| {
        seen.push(value.to_vec());
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(seen, [b"one".to_vec(), vec![0xff]]);
    assert_eq!(
        (head.method(), head.path(), head.peer_ip(), head.tls()),
        ("PUT", "/a", None, None)
    );
    let encrypted = request.tls(TlsVersion::V1_3).peer("192.0.2.7");
    assert_eq!(
        (RequestHead::tls(&encrypted), encrypted.peer_ip()),
        (Some(TlsVersion::V1_3), Some(HERE))
    );
}

#[test]
#[should_panic(expected = "1 to 128")]
fn invalid_values_in_a_test_panic_immediately() {
    let _ = TestPrincipal::app("");
}
