//! Actors: the owner, an application for a user, or on behalf of a user; and the resulting
//! authority.
//!
//! The tests' directory knows a few users, counts queries, and answers at once, late, wrongly or
//! not at all.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portunus::actor::ActorMode;
use portunus::actor::{
    CachedDirectory, Directory, DirectoryError, OwnerStanding, Standing, User, UserIds, UserRef,
};
use portunus::adapter::tower::AuthLayer;
use portunus::authenticator::{Attempt, Authenticated};
use portunus::key::{
    Access, Delegation, KeyKind, KeyRecord, Owner, Revocation, TenantId, WorkspaceId,
};
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::scope::{ScopeModel, WildcardModel};
use portunus::testing::ManualClock;
use portunus::{
    AuthError, Authenticator, Clock, ErrorCode, KeyPrincipal, Principal, Requirement, Scope,
    ScopeSet,
};
use portunus_test_support::{Fixture, Head, Setup, live, scope, stranger, tenant, test, user};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};

const ANN: &str = "550e8400-e29b-41d4-a716-446655440000";
const FIELDS: [&str; 3] = ["X-User-Id", "X-On-Behalf-Of", "X-On-Behalf-Email"];

// ---- tools ----

/// A directory of a few users. Clones share it.
#[derive(Debug, Clone)]
struct People(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    users: Mutex<Vec<User>>,
    asked: Mutex<Vec<(TenantId, UserRef)>>,
    late: AtomicBool,
    fails: AtomicBool,
    lies: AtomicBool,
}

impl People {
    /// Ann and the suspended Sue of the tenant acme; Otto of the tenant other; and Cora, a
    /// collaborator of all tenants.
    fn new() -> Self {
        let of = |id: &str, name: &str, tenant_name: &str| {
            User::new(user(id), tenant(tenant_name)).with_email(format!("{name}@example.com"))
        };
        let mut sue = of("sue", "sue", "acme");
        sue.suspended = true;
        let users = vec![
            of(ANN, "Ann", "acme"),
            sue,
            of("otto", "otto", "other"),
            of("cora", "cora", "other").collaborating(),
        ];
        Self(Arc::new(Inner {
            users: Mutex::new(users),
            asked: Mutex::default(),
            late: AtomicBool::default(),
            fails: AtomicBool::default(),
            lies: AtomicBool::default(),
        }))
    }

    fn late(self, late: bool) -> Self {
        self.0.late.store(late, Ordering::SeqCst);
        self
    }
    fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }
    /// Makes the directory return users of other tenants as if keys could act for them.
    fn lie(&self) {
        self.0.lies.store(true, Ordering::SeqCst);
    }
    fn change(&self, id: &str, change: impl FnOnce(&mut User)) {
        change(
            self.0
                .users
                .lock()
                .unwrap()
                .iter_mut()
                .find(|known| known.id == user(id))
                .unwrap(),
        );
    }
    fn set(&self, someone: &User, there: bool) {
        let mut users = self.0.users.lock().unwrap();
        users.retain(|known| known.id != someone.id);
        users.extend(there.then(|| someone.clone()));
    }
    /// Returns the queries since the last call.
    fn asked(&self) -> Vec<(TenantId, UserRef)> {
        std::mem::take(&mut self.0.asked.lock().unwrap())
    }

    fn answer(
        &self,
        tenant: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        self.0
            .asked
            .lock()
            .unwrap()
            .push((tenant.clone(), named.clone()));
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(DirectoryError::unavailable("ldap.internal does not answer"));
        }
        let users = self.0.users.lock().unwrap();
        let found = users.iter().find(|known| match named {
            UserRef::Id(id) => known.id == *id,
            UserRef::Email(email) => known
                .email
                .as_ref()
                .is_some_and(|own| own.to_ascii_lowercase() == *email),
            _ => panic!("an unknown way to name a user: {named:?}"),
        });
        let told = |found: &&User| {
            found.tenant_id == *tenant || found.collaborates || self.0.lies.load(Ordering::SeqCst)
        };
        Ok(found.filter(told).cloned().map(Arc::new))
    }
}

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        tokio::task::yield_now().await;
        self.answer(tenant, user)
    }
    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        (!self.0.late.load(Ordering::SeqCst)).then(|| self.answer(tenant, user))
    }
}

fn id(text: &str) -> UserRef {
    UserRef::Id(user(text))
}

fn email(text: &str) -> UserRef {
    UserRef::Email(text.into())
}

/// The platform's key, of the tenant acme, whose owner has a user name.
fn platform(scopes: &[&str], delegation: Delegation) -> NewKey {
    let owner = Owner::user(tenant("acme"), user("platform")).with_email("platform@app.com");
    let mut new = NewKey::new("platform", owner).with_scopes(scopes.iter().map(|text| scope(text)));
    new.delegation = Some(delegation);
    new
}

/// A fixture with a directory, and the platform's key, which may act for users.
struct Platform {
    fixture: Fixture,
    people: People,
    key: String,
    record: Arc<KeyRecord>,
}

async fn with_platform(scopes: &[&str], delegation: Delegation) -> Platform {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue_new(platform(scopes, delegation)).await;
    Platform {
        fixture,
        people: People::new(),
        key,
        record,
    }
}

/// Issues a key for another owner than the platform, and changes its record.
async fn with_owner(owner: Owner, kind: KeyKind, scopes: &[&str]) -> Platform {
    let fixture = Fixture::new();
    let mut new = platform(scopes, Delegation::Off);
    new.owner = owner;
    let (key, record) = fixture.issue_new(new).await;
    fixture
        .change(&record.id, |record| record.kind = kind)
        .await;
    Platform {
        fixture,
        people: People::new(),
        key,
        record,
    }
}

impl Platform {
    fn builder(&self) -> Setup {
        self.fixture.bearer().directory(self.people.clone())
    }
    fn head(&self, name: &str, value: impl AsRef<[u8]>) -> Head {
        Head::bearer(&self.key).with(name, value)
    }
}

async fn admit(authenticator: &Authenticator, head: &Head) -> Authenticated {
    authenticator
        .authenticate(head)
        .await
        .unwrap_or_else(|error| panic!("{error}: {head:?}"))
}

async fn principal(authenticator: &Authenticator, head: &Head) -> KeyPrincipal {
    admit(authenticator, head).await.principal.unwrap()
}

async fn refused(authenticator: &Authenticator, head: &Head) -> AuthError {
    match authenticator.authenticate(head).await {
        Err(error) => error,
        Ok(_) => panic!("admitted: {head:?}"),
    }
}

async fn code(authenticator: &Authenticator, head: &Head) -> ErrorCode {
    refused(authenticator, head).await.code()
}

/// Everything that a caller sees of an error.
fn seen(authenticator: &Authenticator, error: &AuthError) -> String {
    let answer = authenticator.responder().answer(error, &Head::new());
    format!(
        "{} {:?} {}",
        answer.status,
        answer.fields,
        String::from_utf8_lossy(&answer.body)
    )
}

// ---- intersections ----

#[tokio::test]
async fn access_and_workspaces_are_those_that_both_the_key_and_the_user_have() {
    let some = |names: &[&str]| -> Option<Vec<WorkspaceId>> {
        Some(
            names
                .iter()
                .map(|name| WorkspaceId::new(name).unwrap())
                .collect(),
        )
    };
    let (full, reads) = (Access::FullAccess, Access::ReadOnly);
    for (of_key, of_user, of_both) in [
        ((full, None), (full, None), (full, None)),
        ((full, None), (reads, some(&["a"])), (reads, some(&["a"]))),
        ((reads, some(&["a"])), (full, None), (reads, some(&["a"]))),
        (
            (full, some(&["a", "b"])),
            (full, some(&["c", "b"])),
            (full, some(&["b"])),
        ),
        (
            (full, some(&["a"])),
            (full, some(&["b"])),
            (full, some(&[])),
        ),
        ((full, None), (full, some(&[])), (full, some(&[]))),
    ] {
        for late in [false, true] {
            let at = with_platform(&["document:*"], Delegation::On).await;
            at.people.clone().late(late);
            at.fixture
                .change(&at.record.id, |record| {
                    (record.access, record.workspaces) = of_key.clone();
                })
                .await;
            at.people
                .change(ANN, |ann| (ann.access, ann.workspaces) = of_user.clone());
            let authenticator = at.builder().build().unwrap();
            for field in ["X-User-Id", "X-On-Behalf-Of"] {
                let acting = principal(&authenticator, &at.head(field, ANN)).await;
                let of_both = (of_both.0, of_both.1.as_deref());
                assert_eq!((acting.access(), acting.workspaces()), of_both);
                for id in ["a", "b", "c"] {
                    let reached = of_both
                        .1
                        .is_none_or(|all| all.iter().any(|w| w.as_str() == id));
                    assert_eq!(acting.reaches(id), reached);
                }
            }
            // As itself, the key has its own scopes.
            let own = principal(&authenticator, &Head::bearer(&at.key)).await;
            let of_key = (of_key.0, of_key.1.as_deref());
            assert_eq!((own.access(), own.workspaces()), of_key);
        }
    }
}

// ---- modes ----

#[tokio::test]
async fn an_application_that_names_no_user_acts_as_itself() {
    let at = with_platform(&["document:read"], Delegation::On).await;
    let admission = admit(&at.builder().build().unwrap(), &Head::bearer(&at.key)).await;
    let own = admission.principal.unwrap();
    assert_eq!(
        (own.mode(), own.actor().mode),
        (ActorMode::App, ActorMode::App)
    );
    assert_eq!(own.actor().user_id, Some(&user("platform")));
    assert_eq!(own.actor().user_email, Some("platform@app.com"));
    assert_eq!(own.acting_for(), None);
    assert_eq!(
        (own.scopes().names(), admission.canonical_user),
        (vec!["document:read".to_owned()], None)
    );
    assert_eq!(at.people.asked(), []);
}

#[tokio::test]
async fn each_field_names_a_user_in_its_way() {
    for (name, value, asked, mode, canonical) in [
        ("X-User-Id", ANN, id(ANN), ActorMode::AppUser, false),
        ("x-user-id", ANN, id(ANN), ActorMode::AppUser, false),
        ("X-User-Id", " cora ", id("cora"), ActorMode::AppUser, false),
        ("X-On-Behalf-Of", ANN, id(ANN), ActorMode::Delegated, false),
        (
            "X-On-Behalf-Of",
            "cora",
            id("cora"),
            ActorMode::Delegated,
            false,
        ),
        (
            "X-On-Behalf-Of",
            "ann@example.com",
            email("ann@example.com"),
            ActorMode::Delegated,
            false,
        ),
        (
            "X-On-Behalf-Of",
            "ANN@Example.COM",
            email("ann@example.com"),
            ActorMode::Delegated,
            false,
        ),
        (
            "X-On-Behalf-Email",
            "ann@example.com",
            email("ann@example.com"),
            ActorMode::AppUser,
            true,
        ),
        (
            "X-ON-BEHALF-EMAIL",
            "aNN@example.com",
            email("ann@example.com"),
            ActorMode::AppUser,
            true,
        ),
    ] {
        for late in [false, true] {
            let at = with_platform(&["document:*"], Delegation::On).await;
            at.people.clone().late(late);
            let authenticator = at.builder().build().unwrap();
            let head = at.head(name, value);
            let attempt = authenticator.attempt(&head);
            assert_eq!(
                matches!(attempt, Attempt::Pending(_)),
                late,
                "{name}: it waits where it must, and only there"
            );
            let admission = attempt.outcome().await.unwrap();
            assert_eq!(
                at.people.asked(),
                [(tenant("acme"), asked.clone())],
                "{name}: {value}"
            );
            let acting = admission.principal.unwrap();
            let who = if value.trim() == "cora" {
                ("cora", "cora@example.com")
            } else {
                (ANN, "Ann@example.com")
            };
            let actor = acting.actor();
            assert_eq!((acting.mode(), actor.mode), (mode, mode), "{name}: {value}");
            assert_eq!(
                (actor.user_id, actor.user_email),
                (Some(&user(who.0)), Some(who.1))
            );
            assert_eq!(
                acting.acting_for().map(|user| user.id.as_str()),
                Some(who.0)
            );
            assert_eq!(
                admission.canonical_user,
                canonical.then(|| user(who.0)),
                "{name}: {value}"
            );
            // The key's owner stays the initiator.
            assert_eq!(acting.owner(), &at.record.owner);
            assert_eq!(acting.key_id(), &at.record.id);
            assert_eq!(acting.scopes().names(), ["document:*"]);
        }
    }
}

#[test]
fn modes_have_stable_names() {
    for (mode, name) in [
        (ActorMode::User, "user"),
        (ActorMode::App, "app"),
        (ActorMode::AppUser, "app_user"),
        (ActorMode::Delegated, "delegated"),
    ] {
        assert_eq!((mode.as_str(), mode.to_string().as_str()), (name, name));
        assert_eq!(serde_json::to_value(mode).unwrap(), name);
    }
}

#[tokio::test]
async fn the_response_contains_the_id_of_a_user_named_by_email() {
    for late in [false, true] {
        let at = with_platform(&[], Delegation::On).await;
        at.people.clone().late(late);
        let inner = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let service = AuthLayer::new(at.builder().build().unwrap()).layer(inner);
        for (name, value, told) in [
            ("x-on-behalf-email", "ann@example.com", vec![ANN]),
            ("x-on-behalf-of", "ann@example.com", vec![]),
            ("x-user-id", ANN, vec![]),
            ("x-on-behalf-email", "nobody@example.com", vec![]),
            ("x-on-behalf-email", "otto@example.com", vec![]),
        ] {
            let request = Request::builder()
                .header("authorization", format!("Bearer {}", at.key))
                .header(name, value);
            let response = service
                .clone()
                .call(request.body(()).unwrap())
                .await
                .unwrap();
            let fields: Vec<_> = response.headers().get_all("x-user-id").iter().collect();
            assert_eq!(fields, told, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn delegation_is_a_fact_of_the_principal_alone_and_changes_no_key() {
    let at = with_platform(&["*"], Delegation::Only(vec![scope("document:read")])).await;
    let authenticator = at.builder().build().unwrap();
    let as_ann = principal(&authenticator, &at.head("X-On-Behalf-Of", ANN)).await;
    assert_eq!(as_ann.scopes().names(), ["document:read"]);
    let itself = principal(&authenticator, &Head::bearer(&at.key)).await;
    assert_eq!(
        (itself.mode(), itself.scopes().names()),
        (ActorMode::App, vec!["*".to_owned()])
    );
    assert_eq!(as_ann.record(), itself.record());
}

// ---- whom a key may act for ----

#[tokio::test]
async fn unknown_foreign_and_suspended_users_are_refused_identically_after_the_same_work() {
    for late in [false, true] {
        let at = with_platform(&["*"], Delegation::On).await;
        at.people.clone().late(late);
        let authenticator = at.builder().build().unwrap();
        let mut answers = Vec::new();
        for (name, suffix) in [
            ("X-User-Id", ""),
            ("X-On-Behalf-Of", ""),
            ("X-On-Behalf-Of", "@example.com"),
            ("X-On-Behalf-Email", "@example.com"),
        ] {
            for who in ["nobody", "otto", "sue"] {
                let error = refused(&authenticator, &at.head(name, format!("{who}{suffix}"))).await;
                assert_eq!(
                    (error.code(), error.status()),
                    (ErrorCode::UnknownActor, 403),
                    "{name}: {who}"
                );
                assert!(error.source().is_none());
                let asked = at.people.asked();
                assert_eq!(
                    (asked.len(), &asked[0].0),
                    (1, &tenant("acme")),
                    "{name}: {who}"
                );
                answers.push(seen(&authenticator, &error));
            }
        }
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:#?}"
        );
    }
}

#[tokio::test]
async fn a_foreign_user_returned_by_the_directory_is_refused() {
    for late in [false, true] {
        let at = with_platform(&["*"], Delegation::On).await;
        at.people.clone().late(late).lie();
        let authenticator = at.builder().build().unwrap();
        let unknown = seen(
            &authenticator,
            &refused(&authenticator, &at.head("X-User-Id", "nobody")).await,
        );
        for (name, value) in [
            ("X-User-Id", "otto"),
            ("X-On-Behalf-Of", "otto"),
            ("X-On-Behalf-Email", "otto@example.com"),
        ] {
            let error = refused(&authenticator, &at.head(name, value)).await;
            assert_eq!(seen(&authenticator, &error), unknown, "{name}");
        }
    }
}

#[tokio::test]
async fn a_key_can_act_for_a_collaborator_of_another_tenant() {
    let at = with_platform(&["document:*"], Delegation::On).await;
    at.people.change("cora", |cora| {
        cora.scopes = Some(vec![scope("document:read"), scope("signature:read")]);
    });
    let authenticator = at.builder().build().unwrap();
    let acting = principal(&authenticator, &at.head("X-User-Id", "cora")).await;
    assert_eq!(acting.actor().user_id, Some(&user("cora")));
    assert_eq!(acting.acting_for().unwrap().tenant_id, tenant("other"));
    assert_eq!(
        acting.owner().tenant_id,
        tenant("acme"),
        "the wall is still the key's own tenant"
    );
    assert_eq!(acting.scopes().names(), ["document:read"]);
    at.people.change("cora", |cora| cora.suspended = true);
    assert_eq!(
        code(&authenticator, &at.head("X-User-Id", "cora")).await,
        ErrorCode::UnknownActor
    );
}

#[tokio::test]
async fn a_change_of_a_user_holds_for_the_next_request() {
    let at = with_platform(&["*"], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let head = at.head("X-User-Id", ANN);
    let can = |acting: KeyPrincipal| acting.require(&scope("document:write").into()).is_ok();
    assert!(can(principal(&authenticator, &head).await));
    at.people
        .change(ANN, |ann| ann.scopes = Some(vec![scope("document:read")]));
    assert!(!can(principal(&authenticator, &head).await));
    at.people.change(ANN, |ann| ann.suspended = true);
    assert_eq!(code(&authenticator, &head).await, ErrorCode::UnknownActor);
    at.people
        .change(ANN, |ann| (ann.suspended, ann.scopes) = (false, None));
    assert!(can(principal(&authenticator, &head).await));
}

#[tokio::test]
async fn a_directory_that_gives_no_answer_is_503_and_neither_a_refusal_nor_a_pass() {
    for late in [false, true] {
        let at = with_platform(&["*"], Delegation::On).await;
        at.people.clone().late(late).fail(true);
        let authenticator = at.builder().build().unwrap();
        for (name, value) in [
            ("X-User-Id", ANN),
            ("X-On-Behalf-Of", "nobody"),
            ("X-On-Behalf-Email", "otto@example.com"),
        ] {
            let error = refused(&authenticator, &at.head(name, value)).await;
            assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::DirectoryUnavailable, 503),
                "{name}"
            );
            assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
            let told = seen(&authenticator, &error);
            assert!(
                !told.contains("ldap") && told.contains("retry-after"),
                "{told}"
            );
            assert!(
                error
                    .source()
                    .unwrap()
                    .source()
                    .unwrap()
                    .to_string()
                    .contains("ldap.internal"),
                "for logs"
            );
        }
        // An application that acts as itself needs no directory.
        assert_eq!(
            principal(&authenticator, &Head::bearer(&at.key))
                .await
                .mode(),
            ActorMode::App
        );
        at.people.fail(false);
        assert_eq!(
            principal(&authenticator, &at.head("X-User-Id", ANN))
                .await
                .mode(),
            ActorMode::AppUser
        );
    }
}

#[tokio::test]
async fn a_key_without_the_permission_cannot_act_for_users_and_queries_no_directory() {
    let at = with_platform(&["*"], Delegation::Off).await;
    let authenticator = at.builder().build().unwrap();
    let on = at
        .fixture
        .issue_new(platform(&["*"], Delegation::On))
        .await
        .0;
    let unknown = refused(
        &authenticator,
        &Head::bearer(&on).with("X-User-Id", "nobody"),
    )
    .await;
    at.people.asked();
    for (name, value) in [
        ("X-User-Id", ANN),
        ("X-User-Id", "platform"),
        ("X-User-Id", "nobody"),
        ("X-On-Behalf-Of", ANN),
        ("X-On-Behalf-Of", "ann@example.com"),
        ("X-On-Behalf-Email", "ann@example.com"),
    ] {
        let error = refused(&authenticator, &at.head(name, value)).await;
        assert_eq!(
            seen(&authenticator, &error),
            seen(&authenticator, &unknown),
            "{name}: {value}"
        );
    }
    assert_eq!(at.people.asked(), []);
}

#[tokio::test]
async fn without_a_directory_naming_a_user_is_refused_and_not_ignored() {
    let at = with_platform(&["*"], Delegation::On).await;
    let authenticator = at.fixture.bearer().build().unwrap();
    for name in FIELDS {
        let value = if name == "X-On-Behalf-Email" {
            "ann@example.com"
        } else {
            ANN
        };
        assert_eq!(
            code(&authenticator, &at.head(name, value)).await,
            ErrorCode::UnknownActor,
            "{name}"
        );
    }
    assert_eq!(
        principal(&authenticator, &Head::bearer(&at.key))
            .await
            .mode(),
        ActorMode::App
    );
}

#[tokio::test]
async fn user_keys_and_access_tokens_act_only_for_their_own_user() {
    for kind in [KeyKind::User, KeyKind::AccessToken] {
        let ann = Owner::user(tenant("acme"), user(ANN)).with_email("ann@example.com");
        let at = with_owner(ann, kind, &["*"]).await;
        // Even if the record of such a key permits delegation.
        at.fixture
            .change(&at.record.id, |record| record.delegation = Delegation::On)
            .await;
        let authenticator = at.builder().build().unwrap();
        for (name, value) in [
            ("X-User-Id", "cora"),
            ("X-User-Id", "sue"),
            ("X-User-Id", "nobody"),
            ("X-User-Id", "ann@example.com"),
            ("X-On-Behalf-Of", "cora"),
            ("X-On-Behalf-Of", "ann@example.com"),
            ("X-On-Behalf-Of", ANN),
            ("X-On-Behalf-Email", "cora@example.com"),
            ("X-On-Behalf-Email", "ann@example.com"),
        ] {
            let error = refused(&authenticator, &at.head(name, value)).await;
            assert_eq!(
                error.code(),
                ErrorCode::UnknownActor,
                "{kind} {name}: {value}"
            );
        }
        for own in [ANN.to_owned(), format!(" {ANN}")] {
            let admission = admit(&authenticator, &at.head("X-User-Id", &own)).await;
            let own = admission.principal.unwrap();
            assert_eq!(
                (own.mode(), own.acting_for()),
                (ActorMode::User, None),
                "{kind}"
            );
            assert_eq!(own.actor().user_id, Some(&user(ANN)));
            assert_eq!(
                (own.scopes().names(), admission.canonical_user),
                (vec!["*".to_owned()], None)
            );
        }
        assert_eq!(at.people.asked(), []);
    }
}

#[tokio::test]
async fn a_uuid_that_is_stored_in_upper_case_is_the_same_user() {
    let at = with_owner(
        Owner::user(tenant("acme"), user(&ANN.to_uppercase())),
        KeyKind::User,
        &[],
    )
    .await;
    let authenticator = at.builder().user_ids(UserIds::Uuid).build().unwrap();
    for value in [ANN.to_owned(), ANN.to_uppercase()] {
        assert_eq!(
            principal(&authenticator, &at.head("X-User-Id", &value))
                .await
                .mode(),
            ActorMode::User
        );
    }
}

#[tokio::test]
async fn unless_ids_are_uuids_each_spelling_of_one_is_another_user() {
    let at = with_platform(&["*"], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let upper = ANN.to_uppercase();
    for name in ["X-User-Id", "X-On-Behalf-Of"] {
        assert_eq!(
            code(&authenticator, &at.head(name, &upper)).await,
            ErrorCode::UnknownActor
        );
        assert_eq!(at.people.asked(), [(tenant("acme"), id(&upper))], "{name}");
    }
    let at = with_owner(Owner::user(tenant("acme"), user(ANN)), KeyKind::User, &[]).await;
    let authenticator = at.builder().build().unwrap();
    assert_eq!(
        code(&authenticator, &at.head("X-User-Id", &upper)).await,
        ErrorCode::UnknownActor,
        "and not the key's own"
    );
}

#[tokio::test]
async fn uuids_of_actors_are_normalized_whatever_the_directory_returns() {
    let at = with_platform(&["*"], Delegation::On).await;
    at.people
        .change("cora", |cora| cora.id = user(&ANN.to_uppercase()));
    for (ids, expected) in [
        (UserIds::Uuid, ANN.to_owned()),
        (UserIds::Any, ANN.to_uppercase()),
    ] {
        for late in [false, true] {
            at.people.clone().late(late);
            let authenticator = at.builder().user_ids(ids).build().unwrap();
            for name in ["X-On-Behalf-Of", "X-On-Behalf-Email"] {
                let head = at.head(name, "cora@example.com");
                let admission = admit(&authenticator, &head).await;
                let told = admission.canonical_user.clone();
                let acting = admission.principal.unwrap();
                assert_eq!(acting.actor().user_id, Some(&user(&expected)), "{ids:?}");
                let told = told.map_or(expected.clone(), |id| id.to_string());
                assert_eq!(told, expected, "{ids:?} {name}");
            }
        }
    }
}

#[tokio::test]
async fn an_id_that_is_not_a_uuid_is_compared_byte_for_byte() {
    let at = with_owner(Owner::user(tenant("acme"), user("bob")), KeyKind::User, &[]).await;
    let authenticator = at.builder().build().unwrap();
    assert_eq!(
        principal(&authenticator, &at.head("X-User-Id", "bob"))
            .await
            .mode(),
        ActorMode::User
    );
    for other in ["BOB", "Bob"] {
        assert_eq!(
            code(&authenticator, &at.head("X-User-Id", other)).await,
            ErrorCode::UnknownActor,
            "{other}"
        );
    }
}

// ---- authority ----

#[tokio::test]
async fn authority_is_the_intersection_of_key_delegation_and_user() {
    type Texts = &'static [&'static str];
    let table: &[(Texts, Option<Texts>, Option<Texts>, Texts)] = &[
        // key, delegation's maximum, the user's own, expected result
        (&["document:read"], None, None, &["document:read"]),
        (&["*"], None, None, &["*"]),
        (&[], None, None, &[]),
        (&["*"], Some(&[]), None, &[]),
        (&["*"], None, Some(&[]), &[]),
        (&["*"], Some(&["*"]), Some(&["*"]), &["*"]),
        (
            &["document:read"],
            Some(&["*"]),
            Some(&["*"]),
            &["document:read"],
        ),
        (&["*"], Some(&["document:*"]), None, &["document:*"]),
        (
            &["*"],
            Some(&["document:*"]),
            Some(&["document:read", "signature:read"]),
            &["document:read"],
        ),
        (
            &["document:*"],
            None,
            Some(&["document:read", "document:write"]),
            &["document:read", "document:write"],
        ),
        (
            &["document:read", "signature:*"],
            Some(&["document:*", "signature:read"]),
            None,
            &["document:read", "signature:read"],
        ),
        (&["document:read"], Some(&["document:write"]), None, &[]),
        (
            &["document:read"],
            Some(&["signature:read"]),
            Some(&["*"]),
            &[],
        ),
        (&["document:*"], Some(&["document.*"]), None, &[]),
        (&["document:*"], None, Some(&["document"]), &[]),
        (&["a:b:*"], Some(&["a:*"]), Some(&["a:b:c"]), &["a:b:c"]),
    ];
    for &(of_key, of_delegation, of_user, expected) in table {
        let texts = |texts: Texts| texts.iter().map(|text| scope(text)).collect::<Vec<_>>();
        let delegation = of_delegation.map_or(Delegation::On, |only| Delegation::Only(texts(only)));
        let at = with_platform(of_key, delegation).await;
        at.people.change(ANN, |ann| ann.scopes = of_user.map(texts));
        let authenticator = at.builder().build().unwrap();
        for name in ["X-User-Id", "X-On-Behalf-Of"] {
            let acting = principal(&authenticator, &at.head(name, ANN)).await;
            let row = (of_key, of_delegation, of_user);
            assert_eq!(acting.scopes().names(), expected, "{row:?}");
            for granted in expected {
                assert!(
                    acting.require(&scope(granted).into()).is_ok(),
                    "{granted}: {row:?}"
                );
            }
            for wanted in [
                "*",
                "document:*",
                "document:read",
                "document:write",
                "document:delete",
                "signature:read",
                "document.read",
                "document",
                "a:b:d",
            ] {
                let covered = expected
                    .iter()
                    .any(|granted| scope(granted).covers(&scope(wanted)));
                assert_eq!(
                    acting.require(&scope(wanted).into()).is_ok(),
                    covered,
                    "{wanted}: {row:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_lists_only_the_effective_scopes() {
    let at = with_platform(&["document:*", "signature:read"], Delegation::On).await;
    at.people.change(ANN, |ann| {
        ann.scopes = Some(vec![scope("document:read"), scope("billing:read")]);
    });
    let acting = principal(&at.builder().build().unwrap(), &at.head("X-User-Id", ANN)).await;
    let error = acting.require(&scope("document:write").into()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InsufficientScope);
    assert_eq!(error.missing_scope().unwrap().granted, ["document:read"]);
}

const POOL: &[&str] = &[
    "*", "a:*", "a:b", "a:b:*", "a:b:c", "a:d", "a", "a.*", "a.b", "z",
];

fn scopes() -> impl Strategy<Value = Vec<Scope>> {
    subsequence(POOL, 0..=4).prop_map(|texts| texts.into_iter().map(scope).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn authority_is_never_wider_than_any_of_its_parts(
        of_key in scopes(),
        of_delegation in proptest::option::of(scopes()),
        of_user in proptest::option::of(scopes()),
        name in select(&FIELDS[..2]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let delegation = of_delegation.clone().map_or(Delegation::On, Delegation::Only);
            let fixture = Fixture::new();
            let mut new = platform(&[], delegation);
            new.scopes.clone_from(&of_key);
            let (key, _) = fixture.issue_new(new).await;
            let people = People::new();
            people.change(ANN, |ann| ann.scopes.clone_from(&of_user));
            let authenticator = fixture.bearer().directory(people).build().unwrap();
            let acting = principal(&authenticator, &Head::bearer(&key).with(name, ANN)).await;
            let grants = |set: &Vec<Scope>, wanted: &Scope| set.iter().any(|grant| grant.covers(wanted));
            let told: Vec<_> = acting.scopes().names().iter().map(|text| scope(text)).collect();
            let others = ["a:e", "a:b:d", "a:b:c:d", "a.c", "y"];
            for wanted in POOL.iter().chain(&others).map(|text| scope(text)) {
                let by_all = grants(&of_key, &wanted)
                    && of_delegation.as_ref().is_none_or(|only| grants(only, &wanted))
                    && of_user.as_ref().is_none_or(|own| grants(own, &wanted));
                assert_eq!(acting.scopes().grants(&wanted), by_all, "{wanted}");
                assert_eq!(acting.require(&wanted.clone().into()).is_ok(), by_all, "{wanted}");
                assert_eq!(
                    grants(&told, &wanted),
                    by_all,
                    "{wanted}: the reported scopes are those that are granted: {told:?}"
                );
                assert_eq!(acting.scopes().granted_by(&wanted).is_some(), by_all, "{wanted}");
            }
        });
    }
}

#[tokio::test]
async fn scopes_of_a_user_that_mean_nothing_are_an_outage_and_not_nothing_or_everything() {
    /// A model that does not know one of the scopes.
    #[derive(Debug)]
    struct Picky;
    impl ScopeModel for Picky {
        fn compile(
            &self,
            names: &[Scope],
        ) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
            match names.iter().any(|name| name.as_str() == "strange") {
                true => Err(Scope::new("").unwrap_err()),
                false => WildcardModel.compile(names),
            }
        }
    }
    let at = with_platform(&["*"], Delegation::On).await;
    at.people.change(ANN, |ann| {
        ann.scopes = Some(vec![scope("document:read"), scope("strange")]);
    });
    let authenticator = at.builder().scope_model(Picky).build().unwrap();
    assert_eq!(
        code(&authenticator, &at.head("X-User-Id", ANN)).await,
        ErrorCode::DirectoryUnavailable
    );
    at.people
        .change(ANN, |ann| ann.scopes = Some(vec![scope("document:read")]));
    assert_eq!(
        principal(&authenticator, &at.head("X-User-Id", ANN))
            .await
            .scopes()
            .names(),
        ["document:read"]
    );
}

// ---- how users are named ----

#[tokio::test]
async fn where_ids_are_uuids_nothing_else_is_one() {
    let at = with_platform(&[], Delegation::On).await;
    let authenticator = at.builder().user_ids(UserIds::Uuid).build().unwrap();
    for value in [
        "cora",
        "ann@example.com",
        "550e8400e29b41d4a716446655440000",
        "{550e8400-e29b-41d4-a716-446655440000}",
        "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-44665544000",
        "550e8400-e29b-41d4-a716-4466554400000",
        "550e8400-e29b-41d4-a716-44665544000g",
        "550e8400-e29b-41d4a-716-446655440000",
        "550e8400_e29b_41d4_a716_446655440000",
        "------------------------------------",
    ] {
        let error = refused(&authenticator, &at.head("X-User-Id", value)).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::InvalidRequest, 400),
            "{value}"
        );
        assert!(!error.detail().contains(value), "{}", error.detail());
    }
    assert_eq!(at.people.asked(), []);
    for value in [
        ANN.to_owned(),
        ANN.to_uppercase(),
        "550E8400-e29b-41D4-a716-446655440000".to_owned(),
    ] {
        principal(&authenticator, &at.head("X-User-Id", value)).await;
        assert_eq!(at.people.asked(), [(tenant("acme"), id(ANN))]);
    }
    for value in [ANN.to_owned(), ANN.to_uppercase()] {
        at.people.asked();
        principal(&authenticator, &at.head("X-On-Behalf-Of", &value)).await;
        assert_eq!(at.people.asked(), [(tenant("acme"), id(ANN))]);
    }
    // Only this header requires UUIDs: in on-behalf headers, customers use any id.
    principal(&authenticator, &at.head("X-On-Behalf-Of", "cora")).await;
    principal(
        &authenticator,
        &at.head("X-On-Behalf-Of", "ann@example.com"),
    )
    .await;
}

#[tokio::test]
async fn names_are_compared_without_regard_to_ascii_case_and_not_normalized_further() {
    let at = with_platform(&[], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let long = format!("{}@example.com", "L".repeat(308));
    for (value, seen) in [
        ("ANN@EXAMPLE.COM", "ann@example.com"),
        ("A.n.N@example.com", "a.n.n@example.com"),
        ("ann+Tag@example.com", "ann+tag@example.com"),
        ("ann@googlemail.com", "ann@googlemail.com"),
        ("ann@example.com.", "ann@example.com."),
        ("\"@\"@example.com", "\"@\"@example.com"),
        ("xn--MNCHEN-3ya@example.com", "xn--mnchen-3ya@example.com"),
        (&long, &long.to_ascii_lowercase()),
    ] {
        for name in ["X-On-Behalf-Of", "X-On-Behalf-Email"] {
            let _ = authenticator.authenticate(&at.head(name, value)).await;
            assert_eq!(
                at.people.asked(),
                [(tenant("acme"), email(seen))],
                "{name}: {value}"
            );
        }
    }
    // Ids that are not UUIDs are opaque, and returned unchanged.
    for value in [
        "Cora",
        "CORA",
        "a/b",
        "ANN@example.com",
        "550E8400-e29b-41d4-a716-44665544000G",
    ] {
        let _ = authenticator
            .authenticate(&at.head("X-User-Id", value))
            .await;
        assert_eq!(at.people.asked(), [(tenant("acme"), id(value))], "{value}");
    }
}

#[tokio::test]
async fn an_unclear_wish_is_400_and_reaches_no_directory() {
    for delegation in [Delegation::On, Delegation::Off] {
        let at = with_platform(&["*"], delegation).await;
        let authenticator = at.builder().build().unwrap();
        let unclear = async |head: &Head, why: &str| {
            let error = refused(&authenticator, head).await;
            assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::InvalidRequest, 400),
                "{head:?}"
            );
            assert!(error.detail().contains(why), "{}: {head:?}", error.detail());
        };
        for name in FIELDS {
            for value in [
                "",
                " ",
                "\t",
                "two users",
                "ann\u{e9}@example.com",
                "a\u{7f}@b",
                &"a".repeat(321),
            ] {
                unclear(&at.head(name, value), &name.to_lowercase()).await;
            }
            unclear(
                &at.head(name, b"ann@\xffexample.com"),
                "does not name a user",
            )
            .await;
            unclear(&at.head(name, b"ann\0@example.com"), "does not name a user").await;
            unclear(&at.head(name, ANN).with(name, ANN), "is repeated").await;
            unclear(
                &at.head(name, ANN).with(&name.to_uppercase(), ""),
                "is repeated",
            )
            .await;
            for other in FIELDS.iter().filter(|other| **other != name) {
                let both = at
                    .head(name, "ann@example.com")
                    .with(other, "ann@example.com");
                unclear(&both, "cannot be combined").await;
            }
        }
        unclear(
            &at.head("X-User-Id", "a".repeat(129)),
            "is not a valid user id",
        )
        .await;
        unclear(
            &at.head("X-On-Behalf-Of", "a".repeat(129)),
            "does not name a user",
        )
        .await;
        for value in [ANN, "ann", "@example.com", "ann@", "@"] {
            unclear(
                &at.head("X-On-Behalf-Email", value),
                "is not a valid e-mail address",
            )
            .await;
        }
        assert_eq!(at.people.asked(), []);
    }
}

#[tokio::test]
async fn a_wish_is_not_answered_before_the_key_is() {
    let at = with_platform(&[], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let stranger = stranger();
    for (name, value) in [
        ("X-User-Id", ""),
        ("X-User-Id", ANN),
        ("X-On-Behalf-Email", "nowhere"),
    ] {
        let without = refused(&authenticator, &Head::new().with(name, value)).await;
        assert_eq!(without.code(), ErrorCode::MissingKey);
        let wrong = refused(&authenticator, &Head::bearer(&stranger).with(name, value)).await;
        assert_eq!(wrong.code(), ErrorCode::InvalidKey);
    }
    at.fixture
        .change(&at.record.id, |record| record.enabled = false)
        .await;
    assert_eq!(
        code(&authenticator, &at.head("X-User-Id", "")).await,
        ErrorCode::KeyDisabled
    );
    assert_eq!(at.people.asked(), []);
}

// ---- limits ----

#[tokio::test]
async fn the_limit_is_counted_before_the_directory_is_queried_and_reported_on_every_response() {
    for late in [false, true] {
        let at = with_platform(&[], Delegation::On).await;
        at.people.clone().late(late);
        let quotas = Quotas::new([Quota::per_minute(5).unwrap()]).unwrap();
        let limiter = LocalLimiter::builder()
            .clock(at.fixture.clock.clone())
            .build();
        let authenticator = at
            .builder()
            .limiter(limiter)
            .quotas(quotas)
            .build()
            .unwrap();
        let left = |error: &AuthError| error.limits().unwrap().remaining().unwrap();
        let field = |error: &AuthError| {
            let answer = authenticator.responder().answer(error, &Head::new());
            answer
                .fields
                .iter()
                .find(|(name, _)| *name == "ratelimit")
                .map(|(_, value)| value.to_string())
        };
        let unknown = refused(&authenticator, &at.head("X-User-Id", "nobody")).await;
        assert_eq!(
            (unknown.code(), left(&unknown)),
            (ErrorCode::UnknownActor, 4)
        );
        assert!(
            field(&unknown).unwrap().starts_with(r#""minute";r=4;t="#),
            "{:?}",
            field(&unknown)
        );
        let unclear = refused(&authenticator, &at.head("X-User-Id", "")).await;
        assert_eq!(
            (unclear.code(), left(&unclear)),
            (ErrorCode::InvalidRequest, 3)
        );
        at.people.fail(true);
        let outage = refused(&authenticator, &at.head("X-User-Id", ANN)).await;
        assert_eq!(
            (outage.code(), left(&outage)),
            (ErrorCode::DirectoryUnavailable, 2)
        );
        assert_eq!(outage.retry_after(), Some(Duration::from_secs(1)));
        at.people.fail(false);
        let admission = admit(&authenticator, &at.head("X-User-Id", ANN)).await;
        assert_eq!(admission.limits().unwrap().remaining().unwrap(), 1);
        // An application that acts for users uses the key's own quota, not one per user.
        admit(&authenticator, &at.head("X-On-Behalf-Of", "cora")).await;
        assert_eq!(at.people.asked().len(), 4);
        for head in [
            at.head("X-User-Id", ANN),
            at.head("X-User-Id", "nobody"),
            at.head("X-User-Id", ""),
        ] {
            let limited = refused(&authenticator, &head).await;
            assert_eq!(
                (limited.code(), left(&limited)),
                (ErrorCode::RateLimited, 0)
            );
        }
        assert_eq!(at.people.asked(), [], "nobody is asked for who is limited");
    }
}

#[tokio::test]
async fn a_refused_delegation_also_has_rate_limit_fields() {
    let at = with_platform(&[], Delegation::Off).await;
    let limiter = LocalLimiter::builder()
        .clock(at.fixture.clock.clone())
        .build();
    let authenticator = at.builder().limiter(limiter).build().unwrap();
    let error = refused(&authenticator, &at.head("X-User-Id", ANN)).await;
    assert_eq!(error.code(), ErrorCode::UnknownActor);
    assert_eq!(error.limits().unwrap().remaining().unwrap(), 59);
}

// ---- the caching directory ----

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

fn remembering(
    people: &People,
    clock: &ManualClock,
    capacity: usize,
    time_to_live: Duration,
) -> CachedDirectory<People> {
    CachedDirectory::new(people.clone().late(true), capacity, time_to_live)
        .with_clock(clock.clone())
}

async fn found(directory: &impl Directory, who: &UserRef) -> bool {
    let acme = tenant("acme");
    // As the authenticator does: synchronously if possible.
    match directory.resolve_now(&acme, who) {
        Some(answer) => answer.unwrap().is_some(),
        None => directory.resolve(&acme, who).await.unwrap().is_some(),
    }
}

#[tokio::test]
async fn both_kinds_of_answers_are_remembered_until_their_time_is_over() {
    for (asked_for, kept) in [
        (Duration::from_secs(10), Duration::from_secs(10)),
        (MINUTE, MINUTE),
        // A minute is the maximum, even if more is requested.
        (Duration::from_secs(3600), MINUTE),
        (Duration::MAX, MINUTE),
    ] {
        let (people, clock) = (People::new(), ManualClock::new());
        let directory = remembering(&people, &clock, 100, asked_for);
        for (who, there) in [
            (id(ANN), true),
            (email("ann@example.com"), true),
            (id("nobody"), false),
            (id("otto"), false),
        ] {
            assert_eq!(found(&directory, &who).await, there);
            assert_eq!(people.asked(), [(tenant("acme"), who.clone())]);
            clock.advance(kept - MOMENT);
            assert_eq!(found(&directory, &who).await, there);
            assert_eq!(people.asked(), [], "{who:?} is remembered");
            clock.advance(MOMENT);
            assert_eq!(found(&directory, &who).await, there);
            assert_eq!(people.asked().len(), 1, "{who:?} is asked for anew");
        }
    }
}

#[tokio::test]
async fn a_change_of_a_tenant_forgets_its_users_and_what_it_asked_for() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, MINUTE);
    // Of the tenant acme itself, and a collaborator of another one.
    for who in [id(ANN), id("cora")] {
        assert!(found(&directory, &who).await);
    }
    assert_eq!(people.asked().len(), 2);
    for (changed, asks) in [("third", [0, 0]), ("other", [0, 1]), ("acme", [1, 1])] {
        directory.tenant_changed(&tenant(changed));
        for (who, asks) in [id(ANN), id("cora")].iter().zip(asks) {
            assert!(found(&directory, who).await);
            assert_eq!(people.asked().len(), asks, "{changed} {who:?}");
        }
    }
}

#[tokio::test]
async fn a_time_to_live_of_nothing_remembers_nothing() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, Duration::ZERO);
    for _ in 0..3 {
        found(&directory, &id(ANN)).await;
        found(&directory, &id("nobody")).await;
    }
    assert_eq!(people.asked().len(), 6);
}

#[tokio::test]
async fn a_step_of_the_time_of_day_makes_nothing_last_longer() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, MINUTE);
    found(&directory, &id(ANN)).await;
    clock.step_to(clock.now() - Duration::from_secs(3600));
    clock.advance(MINUTE);
    found(&directory, &id(ANN)).await;
    assert_eq!(people.asked().len(), 2);
}

#[tokio::test]
async fn answers_are_kept_apart_by_tenant_and_by_the_way_of_naming() {
    let (people, clock) = (People::new(), ManualClock::new());
    people
        .0
        .users
        .lock()
        .unwrap()
        .push(User::new(user("otto@example.com"), tenant("acme")));
    let directory = remembering(&people, &clock, 100, MINUTE);
    let ask = async |of: &str, who: UserRef| {
        directory
            .resolve(&tenant(of), &who)
            .await
            .unwrap()
            .map(|user| user.tenant_id.clone())
    };
    for _ in 0..2 {
        assert_eq!(ask("acme", email("otto@example.com")).await, None);
        assert_eq!(
            ask("acme", id("otto@example.com")).await,
            Some(tenant("acme"))
        );
        assert_eq!(
            ask("other", email("otto@example.com")).await,
            Some(tenant("other"))
        );
        assert_eq!(ask("other", id("otto@example.com")).await, None);
    }
    assert_eq!(people.asked().len(), 4, "each was asked for once");
}

#[tokio::test]
async fn the_directory_cache_is_bounded() {
    let (people, clock) = (People::new(), ManualClock::new());
    people
        .0
        .users
        .lock()
        .unwrap()
        .extend((0..1000).map(|at| User::new(user(&format!("user{at}")), tenant("acme"))));
    let directory = remembering(&people, &clock, 32, MINUTE);
    for prefix in ["user", "nobody"] {
        let all: Vec<_> = (0..1000).map(|at| id(&format!("{prefix}{at}"))).collect();
        for who in &all {
            found(&directory, who).await;
        }
        assert_eq!(people.asked().len(), 1000);
        let acme = tenant("acme");
        let remembered = all
            .iter()
            .filter(|who| directory.resolve_now(&acme, who).is_some())
            .count();
        // The cache's shards make its bound approximate.
        assert!(
            (1..=64).contains(&remembered),
            "{remembered} are remembered"
        );
    }
}

#[tokio::test]
async fn queries_for_unknown_users_evict_no_known_user() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 16, MINUTE);
    found(&directory, &id(ANN)).await;
    for at in 0..5000 {
        found(&directory, &id(&format!("nobody{at}"))).await;
    }
    people.asked();
    assert!(found(&directory, &id(ANN)).await);
    assert_eq!(people.asked(), []);
}

#[tokio::test]
async fn an_outage_is_not_remembered() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, MINUTE);
    people.fail(true);
    for _ in 0..2 {
        assert!(directory.resolve(&tenant("acme"), &id(ANN)).await.is_err());
    }
    assert_eq!(people.asked().len(), 2);
    people.fail(false);
    assert!(found(&directory, &id(ANN)).await);
    people.fail(true);
    assert!(
        found(&directory, &id(ANN)).await,
        "what is remembered bridges an outage"
    );
    clock.advance(MINUTE);
    assert!(
        directory.resolve(&tenant("acme"), &id(ANN)).await.is_err(),
        "but never beyond its time"
    );
}

#[tokio::test]
async fn a_newer_answer_replaces_an_older_one_of_the_other_kind() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, MINUTE);
    let dora = User::new(user("dora"), tenant("acme"));
    for there in [false, true, false, true] {
        people.set(&dora, there);
        clock.advance(MINUTE);
        for _ in 0..3 {
            assert_eq!(found(&directory, &id("dora")).await, there);
        }
        assert_eq!(people.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_cleared_entry_is_queried_again() {
    let (people, clock) = (People::new(), ManualClock::new());
    let directory = remembering(&people, &clock, 100, MINUTE);
    found(&directory, &id(ANN)).await;
    found(&directory, &id("nobody")).await;
    people.change(ANN, |ann| ann.id = user("nobody"));
    directory.clear();
    assert!(!found(&directory, &id(ANN)).await);
    assert!(found(&directory, &id("nobody")).await);
    assert_eq!(people.asked().len(), 4);
}

/// A directory whose answers are computed at once and delivered on demand.
#[derive(Debug, Clone)]
struct Held {
    people: People,
    asked: Arc<Semaphore>,
    deliver: Arc<Semaphore>,
}

impl Held {
    fn new(people: People) -> Self {
        Self {
            people,
            asked: Arc::new(Semaphore::new(0)),
            deliver: Arc::new(Semaphore::new(0)),
        }
    }
}

#[async_trait]
impl Directory for Held {
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let answer = self.people.answer(tenant, user);
        self.asked.add_permits(1);
        self.deliver.acquire().await.unwrap().forget();
        answer
    }
}

#[tokio::test]
async fn the_age_of_an_answer_counts_from_the_query() {
    let (held, clock) = (Held::new(People::new()), ManualClock::new());
    let directory =
        Arc::new(CachedDirectory::new(held.clone(), 100, MINUTE).with_clock(clock.clone()));
    let asking = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move { found(&directory, &id(ANN)).await }
    });
    held.asked.acquire().await.unwrap().forget();
    clock.advance(MINUTE - MOMENT);
    held.deliver.add_permits(1);
    assert!(asking.await.unwrap());
    assert!(
        directory.resolve_now(&tenant("acme"), &id(ANN)).is_some(),
        "for a moment yet"
    );
    clock.advance(MOMENT);
    assert!(directory.resolve_now(&tenant("acme"), &id(ANN)).is_none());
}

#[tokio::test]
async fn an_answer_that_was_on_its_way_when_all_was_cleared_is_not_remembered() {
    let (held, clock) = (Held::new(People::new()), ManualClock::new());
    let directory = Arc::new(CachedDirectory::new(held.clone(), 100, MINUTE).with_clock(clock));
    for who in [id(ANN), id("nobody")] {
        let asking = tokio::spawn({
            let (directory, who) = (Arc::clone(&directory), who.clone());
            async move { found(&directory, &who).await }
        });
        held.asked.acquire().await.unwrap().forget();
        // The user changes, and the host reports it, while the older answer is still in flight.
        directory.clear();
        held.deliver.add_permits(1);
        asking.await.unwrap();
        assert!(
            directory.resolve_now(&tenant("acme"), &who).is_none(),
            "{who:?}: whatever changed is seen next"
        );
    }
}

#[tokio::test]
async fn a_remembered_user_is_acted_for_without_waiting() {
    let at = with_platform(&["*"], Delegation::On).await;
    let directory = Arc::new(remembering(&at.people, &at.fixture.clock, 100, MINUTE));
    let authenticator = at
        .fixture
        .bearer()
        .directory(Arc::clone(&directory))
        .build()
        .unwrap();
    for (value, admitted) in [
        (ANN, true),
        ("nobody", false),
        ("sue", false),
        ("otto", false),
    ] {
        let head = at.head("X-User-Id", value);
        let first = authenticator.attempt(&head);
        assert!(matches!(first, Attempt::Pending(_)), "{value}");
        let first = first.outcome().await;
        let Attempt::Ready(second) = authenticator.attempt(&head) else {
            panic!("{value} must be asked for again")
        };
        assert_eq!(
            (first.is_ok(), second.is_ok()),
            (admitted, admitted),
            "{value}"
        );
        if let (Err(first), Err(second)) = (first, second) {
            assert_eq!(seen(&authenticator, &first), seen(&authenticator, &second));
        }
    }
    at.people.change(ANN, |ann| ann.suspended = true);
    directory.clear();
    assert_eq!(
        code(&authenticator, &at.head("X-User-Id", ANN)).await,
        ErrorCode::UnknownActor
    );
}

#[tokio::test]
async fn arcs_and_boxes_of_a_directory_are_as_good_as_it_is() {
    for late in [false, true] {
        let at = with_platform(&[], Delegation::On).await;
        let people = at.people.clone().late(late);
        let boxed: Box<dyn Directory> = Box::new(Arc::new(people) as Arc<dyn Directory>);
        let authenticator = at.fixture.bearer().directory(boxed).build().unwrap();
        let head = at.head("X-User-Id", ANN);
        let attempt = authenticator.attempt(&head);
        assert_eq!(matches!(attempt, Attempt::Pending(_)), late);
        assert!(attempt.outcome().await.is_ok());
        assert_eq!(at.people.asked().len(), 1);
    }
}

// ---- the owner's standing ----

/// The standing of owners, and for whom it was queried. Clones share it.
#[derive(Debug, Clone)]
struct Owners(Arc<Stand>);

#[derive(Debug)]
struct Stand {
    /// `None` is an outage.
    now: Mutex<Option<Standing>>,
    asked: Mutex<Vec<Owner>>,
    late: bool,
}

impl Owners {
    fn stand(standing: Standing, late: bool) -> Self {
        Self(Arc::new(Stand {
            now: Mutex::new(Some(standing)),
            asked: Mutex::default(),
            late,
        }))
    }
    fn now(&self, standing: Option<Standing>) {
        *self.0.now.lock().unwrap() = standing;
    }
    fn asked(&self) -> Vec<Owner> {
        std::mem::take(&mut self.0.asked.lock().unwrap())
    }
    fn answer(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        self.0.asked.lock().unwrap().push(owner.clone());
        self.0
            .now
            .lock()
            .unwrap()
            .ok_or_else(|| DirectoryError::unavailable("hr.internal does not answer"))
    }
}

#[async_trait]
impl OwnerStanding for Owners {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        tokio::task::yield_now().await;
        self.answer(owner)
    }
    fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>> {
        (!self.0.late).then(|| self.answer(owner))
    }
}

#[tokio::test]
async fn the_owners_standing_is_checked_on_every_request() {
    for late in [false, true] {
        let at = with_platform(&["*"], Delegation::On).await;
        let owners = Owners::stand(Standing::Good, late);
        let authenticator = at.builder().owner_standing(owners.clone()).build().unwrap();
        let head = Head::bearer(&at.key);
        for (standing, refusal) in [
            (Some(Standing::Good), None),
            (
                Some(Standing::Suspended),
                Some((ErrorCode::OwnerSuspended, 403)),
            ),
            (Some(Standing::Good), None),
            (
                Some(Standing::RoleLost),
                Some((ErrorCode::OwnerSuspended, 403)),
            ),
            (None, Some((ErrorCode::DirectoryUnavailable, 503))),
            (Some(Standing::Good), None),
        ] {
            owners.now(standing);
            let attempt = authenticator.attempt(&head);
            assert_eq!(matches!(attempt, Attempt::Pending(_)), late);
            let outcome = attempt.outcome().await;
            assert_eq!(
                outcome
                    .as_ref()
                    .err()
                    .map(|error| (error.code(), error.status())),
                refusal,
                "{standing:?}"
            );
            assert_eq!(
                owners.asked(),
                std::slice::from_ref(&at.record.owner),
                "{standing:?}"
            );
            if let Err(error) = outcome {
                assert!(!seen(&authenticator, &error).contains("hr.internal"));
                assert_eq!(error.retry_after().is_some(), standing.is_none());
            }
        }
    }
}

#[tokio::test]
async fn suspended_and_role_lost_have_one_code_and_words_of_their_own() {
    let at = with_platform(&[], Delegation::On).await;
    let owners = Owners::stand(Standing::Suspended, false);
    let authenticator = at.builder().owner_standing(owners.clone()).build().unwrap();
    let suspended = refused(&authenticator, &Head::bearer(&at.key)).await;
    owners.now(Some(Standing::RoleLost));
    let role_lost = refused(&authenticator, &Head::bearer(&at.key)).await;
    assert_eq!(
        (suspended.code(), role_lost.code()),
        (ErrorCode::OwnerSuspended, ErrorCode::OwnerSuspended)
    );
    assert!(suspended.detail().contains("suspended"), "{suspended}");
    assert!(
        role_lost.detail().contains("role") && !role_lost.detail().contains("suspended"),
        "{role_lost}"
    );
}

#[tokio::test]
async fn the_owners_standing_is_reported_only_with_an_otherwise_valid_key() {
    let at = with_platform(&[], Delegation::On).await;
    let owners = Owners::stand(Standing::Suspended, false);
    let authenticator = at.builder().owner_standing(owners.clone()).build().unwrap();
    let heads = [
        Head::new(),
        Head::bearer("nonsense"),
        Head::bearer(&stranger()),
    ];
    for (head, expected) in heads.iter().zip([
        ErrorCode::MissingKey,
        ErrorCode::InvalidFormat,
        ErrorCode::InvalidKey,
    ]) {
        assert_eq!(code(&authenticator, head).await, expected);
    }
    at.fixture
        .change(&at.record.id, |record| record.enabled = false)
        .await;
    assert_eq!(
        code(&authenticator, &Head::bearer(&at.key)).await,
        ErrorCode::KeyDisabled
    );
    let now = at.fixture.clock.now();
    at.fixture
        .change(&at.record.id, |record| {
            record.revoked = Some(Revocation::new(now, None));
        })
        .await;
    assert_eq!(
        code(&authenticator, &Head::bearer(&at.key)).await,
        ErrorCode::KeyRevoked
    );
    assert_eq!(owners.asked(), []);
}

#[tokio::test]
async fn a_refusal_for_the_owner_is_not_counted_and_queries_no_directory() {
    for late in [false, true] {
        let at = with_platform(&[], Delegation::On).await;
        let owners = Owners::stand(Standing::Suspended, late);
        let quotas = Quotas::new([Quota::per_minute(1).unwrap()]).unwrap();
        let limiter = LocalLimiter::builder()
            .clock(at.fixture.clock.clone())
            .build();
        let authenticator = at
            .builder()
            .owner_standing(owners.clone())
            .limiter(limiter)
            .quotas(quotas)
            .build()
            .unwrap();
        for _ in 0..3 {
            let error = refused(&authenticator, &at.head("X-User-Id", ANN)).await;
            assert_eq!(error.code(), ErrorCode::OwnerSuspended);
            assert!(error.limits().is_none());
        }
        assert_eq!(at.people.asked(), []);
        owners.now(Some(Standing::Good));
        admit(&authenticator, &at.head("X-User-Id", ANN)).await;
        assert_eq!(
            code(&authenticator, &at.head("X-User-Id", ANN)).await,
            ErrorCode::RateLimited
        );
    }
}

#[tokio::test]
async fn the_owners_standing_comes_before_the_environment() {
    let at = with_platform(&[], Delegation::On).await;
    let owners = Owners::stand(Standing::Suspended, false);
    let authenticator = at
        .builder()
        .environment(test())
        .owner_standing(owners.clone())
        .build()
        .unwrap();
    assert_eq!(at.record.environment, live());
    assert_eq!(
        code(&authenticator, &Head::bearer(&at.key)).await,
        ErrorCode::OwnerSuspended
    );
    owners.now(Some(Standing::Good));
    assert_eq!(
        code(&authenticator, &Head::bearer(&at.key)).await,
        ErrorCode::WrongEnvironment
    );
}

#[tokio::test]
async fn everything_may_have_to_be_awaited_in_one_attempt() {
    let at = with_platform(
        &["document:*"],
        Delegation::Only(vec![scope("document:read")]),
    )
    .await;
    at.fixture.store.answer_late(1);
    at.people.clone().late(true);
    let owners = Owners::stand(Standing::Good, true);
    let authenticator = at
        .builder()
        .owner_standing(Box::new(Arc::new(owners.clone())))
        .build()
        .unwrap();
    let acting =
        tokio::spawn(authenticator.authenticate(&at.head("X-On-Behalf-Of", "ann@example.com")));
    let acting = acting.await.unwrap().unwrap().principal.unwrap();
    assert_eq!(
        (acting.mode(), acting.scopes().names()),
        (ActorMode::Delegated, vec!["document:read".to_owned()])
    );
    assert_eq!(
        (
            at.fixture.store.finds(),
            owners.asked().len(),
            at.people.asked().len()
        ),
        (1, 1, 1)
    );
}

// ---- routes that need a user ----

#[tokio::test]
async fn a_route_that_needs_a_user_accepts_every_mode_except_app() {
    let at = with_platform(&[], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let as_user = async |head: Head| {
        principal(&authenticator, &head)
            .await
            .require(&Requirement::user())
    };
    for (name, value) in [
        ("X-User-Id", ANN),
        ("X-On-Behalf-Of", ANN),
        ("X-On-Behalf-Email", "ann@example.com"),
    ] {
        assert!(as_user(at.head(name, value)).await.is_ok(), "{name}");
    }
    let error = as_user(Head::bearer(&at.key)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.status()),
        (ErrorCode::ActorRequired, 400),
        "regardless of the owner of an application's key"
    );
    at.fixture
        .change(&at.record.id, |record| record.kind = KeyKind::User)
        .await;
    assert!(as_user(Head::bearer(&at.key)).await.is_ok());
}

#[tokio::test]
async fn whose_key_cannot_act_is_not_counted_as_used() {
    let at = with_platform(&[], Delegation::On).await;
    let authenticator = at.builder().build().unwrap();
    let used = async || {
        authenticator
            .usage()
            .flush(&at.fixture.store)
            .await
            .unwrap();
        at.fixture
            .manager()
            .get(&at.record.id)
            .await
            .unwrap()
            .usage
            .count
    };
    refused(&authenticator, &at.head("X-User-Id", "nobody")).await;
    refused(&authenticator, &at.head("X-User-Id", "")).await;
    assert_eq!(used().await, 0);
    admit(&authenticator, &at.head("X-User-Id", ANN)).await;
    assert_eq!(used().await, 1);
}
