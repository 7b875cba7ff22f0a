//! Issuing keys: valid requests, refusals with the name of the field, and the stored record.

use std::time::{Duration, SystemTime};

use portunus::Clock;
use portunus::config::Policy;
use portunus::key::{
    Access, Alphabet, Environment, FormatError, KeyFormat, KeyKind, KeyStatus, Metadata, Owner,
};
use portunus::limit::{LimitPolicy, LocalLimiter, OnOutage, Plan};
use portunus::manage::{KeyManager, ManageError, Management, NewKey};
use portunus::quota::Quota;
use portunus::store::{KeyStore, ListQuery};
use portunus::{BuildError, Limits};
use portunus_test_support::{APPLY, Fixture, Setup, format, live, scope, tenant, test, user};

fn new_key() -> NewKey {
    NewKey::new("key", Owner::tenant(tenant("acme")))
}

fn user_key() -> NewKey {
    let mut new = NewKey::new("key", Owner::user(tenant("acme"), user("u1")));
    new.kind = KeyKind::User;
    new
}

async fn field(manager: &KeyManager, new: NewKey) -> &'static str {
    match manager.issue(new).await {
        Err(ManageError::Invalid { field, .. }) => field,
        other => panic!("expected to be refused for a field: {other:?}"),
    }
}

#[tokio::test]
async fn the_stored_record_matches_the_request() {
    let fixture = Fixture::new();
    let mut new = user_key().with_scopes([scope("document:*"), scope("a")]);
    new.owner = new.owner.with_email("u1@example.com");
    new.description = Some("for the nightly run\non the build server".into());
    new.environment = Some(test());
    new.access = Access::ReadOnly;
    new.metadata = Metadata::from_json(r#"{"team":"payments"}"#).unwrap();
    new.not_before = Some(fixture.clock.now() + Duration::from_secs(10));
    new.expires_at = Some(fixture.clock.now() + Duration::from_secs(20));
    let asked = new.clone();
    let issued = fixture.manager().issue(new).await.unwrap();
    let record = issued.record;
    assert_eq!(
        (&*record.name, &record.description, record.kind),
        (&*asked.name, &asked.description, asked.kind)
    );
    assert_eq!(
        (&record.environment, &record.owner, &record.scopes),
        (&test(), &asked.owner, &asked.scopes)
    );
    assert_eq!(
        (record.access, &record.metadata),
        (asked.access, &asked.metadata)
    );
    assert_eq!(
        (record.not_before, record.expires_at),
        (asked.not_before, asked.expires_at)
    );
    assert_eq!(
        (record.created_at, record.version, record.enabled),
        (fixture.clock.now(), 1, true)
    );
    assert_eq!(
        (record.family.as_str(), record.status(fixture.clock.now())),
        (record.id.as_str(), KeyStatus::NotYetValid)
    );
    let key = issued.key.reveal();
    assert!(key.starts_with("acme_test_user_sk_"));
    assert_eq!(
        record.masked.as_str(),
        format!("acme_test_user_sk_…{}", &key[key.len() - 4..])
    );
    assert_eq!(
        *fixture.store.get(&record.id).await.unwrap().unwrap(),
        *record
    );
}

#[tokio::test]
async fn only_name_and_owner_are_needed() {
    let fixture = Fixture::new();
    let issued = fixture.manager().issue(new_key()).await.unwrap();
    let record = issued.record;
    assert_eq!(
        (record.kind, &record.environment, record.access),
        (KeyKind::App, &live(), Access::FullAccess)
    );
    assert!(record.scopes.is_empty() && record.expires_at.is_none() && record.revoked.is_none());
}

#[tokio::test]
async fn invalid_values_are_refused_with_the_name_of_the_field() {
    let fixture = Fixture::new();
    let now = fixture.clock.now();
    let manager = fixture.manager();
    type Change = fn(&mut NewKey, SystemTime);
    let cases: Vec<(&str, &str, Change)> = vec![
        ("an empty name", "name", |new, _| new.name = String::new()),
        ("a blank name", "name", |new, _| new.name = " \n ".into()),
        ("a name of 1001 characters", "name", |new, _| {
            new.name = "é".repeat(1001);
        }),
        ("a name of a megabyte", "name", |new, _| {
            new.name = "x".repeat(1 << 20);
        }),
        ("a name with NUL", "name", |new, _| new.name = "a\0b".into()),
        ("a name with an escape", "name", |new, _| {
            new.name = "a\u{1b}[2Jb".into();
        }),
        (
            "a description of 1001 characters",
            "description",
            |new, _| new.description = Some("x".repeat(1001)),
        ),
        ("a description with a bell", "description", |new, _| {
            new.description = Some("\u{7}".into());
        }),
        ("an e-mail with a line end", "owner.user_email", |new, _| {
            new.owner.user_email = Some("a\r@b".into());
        }),
        ("a user key of no user", "owner.user_id", |new, _| {
            new.kind = KeyKind::User;
        }),
        ("a kind without a format", "kind", |new, _| {
            new.kind = KeyKind::AccessToken;
            new.owner.user_id = Some(user("u1"));
        }),
        ("an unknown environment", "environment", |new, _| {
            new.environment = Some(Environment::new("staging").unwrap());
        }),
        ("an expiry now", "expires_at", |new, now| {
            new.expires_at = Some(now);
        }),
        ("an expiry in the past", "expires_at", |new, _| {
            new.expires_at = Some(SystemTime::UNIX_EPOCH);
        }),
        ("a start at its end", "not_before", |new, now| {
            new.not_before = Some(now + Duration::from_secs(60));
            new.expires_at = Some(now + Duration::from_secs(60));
        }),
    ];
    for (what, expected, change) in cases {
        let mut new = new_key();
        change(&mut new, now);
        assert_eq!(field(&manager, new).await, expected, "{what}");
    }
    assert!(
        fixture
            .store
            .list(&ListQuery::new(now))
            .await
            .unwrap()
            .items
            .is_empty(),
        "nothing was kept"
    );
}

#[tokio::test]
async fn names_of_1_and_of_1000_characters_are_names() {
    for name in ["x".to_owned(), "é".repeat(1000), "Größe 🔑".to_owned()] {
        let mut new = new_key();
        new.name.clone_from(&name);
        assert_eq!(
            Fixture::new()
                .manager()
                .issue(new)
                .await
                .unwrap()
                .record
                .name,
            name
        );
    }
}

#[tokio::test]
async fn a_manager_cannot_be_built_for_an_environment_that_its_format_cannot_write() {
    let built = Setup::on(Fixture::new().store)
        .bearer([format()])
        .environments([Environment::new("staging").unwrap()])
        .build();
    assert_eq!(
        built.unwrap_err(),
        BuildError::Format(FormatError::Environment("staging".into()))
    );
}

#[tokio::test]
async fn a_description_that_contradicts_itself_does_not_build() {
    let setup = || Setup::on(Fixture::new().store).bearer([format()]);
    let refused = |built: Result<portunus::Portunus, BuildError>| built.err();
    let nowhere = portunus::Portunus::builder(format()).build();
    assert_eq!(refused(nowhere), Some(BuildError::NoStore));

    let staging = Environment::new("staging").unwrap();
    let elsewhere = setup()
        .builder()
        .policy(Policy::new().serve_only(staging))
        .management(Management::new().environments([live()]))
        .build();
    assert_eq!(
        refused(elsewhere),
        Some(BuildError::Environment("staging".into()))
    );

    // A quota without effect is refused when it is set, not when a flood arrives.
    let of_tenants = [Quota::per_minute(5)];
    for limits in [
        Limits::none().policy(LimitPolicy::per_tenant(of_tenants)),
        Limits::none().class("reports", []),
        Limits::none().plan(Plan::new("free", [])),
        Limits::none().cost(|_| 2),
        Limits::none().on_outage(OnOutage::Closed),
        Limits::none().limiter(LocalLimiter::default()),
    ] {
        let built = setup().builder().limits(limits).build();
        assert_eq!(refused(built), Some(BuildError::UnusedLimits));
    }
    let no_units = Limits::per_key([Quota::per_minute(60), Quota::per_hour(0)]);
    let built = setup().builder().limits(no_units).build();
    assert!(matches!(refused(built), Some(BuildError::Quota(_))));
    let no_quota = setup().builder().limits(Limits::per_key([])).build();
    assert!(matches!(refused(no_quota), Some(BuildError::Quota(_))));
}

#[tokio::test]
async fn unless_said_keys_are_issued_for_the_environments_that_their_format_writes() {
    let issue = async |setup: Setup, environment: Option<Environment>| {
        let mut new = new_key();
        new.environment = environment;
        let issued = setup.manager().issue(new).await;
        issued
            .map(|issued| issued.record.environment.to_string())
            .ok()
    };
    let setup = || Setup::on(Fixture::new().store).bearer([format()]);
    assert_eq!(issue(setup(), None).await.as_deref(), Some("live"));
    assert_eq!(issue(setup(), Some(test())).await.as_deref(), Some("test"));
    let bound = || setup().environment(test());
    assert_eq!(issue(bound(), None).await.as_deref(), Some("test"));
    // A format without environments.
    let any = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let setup = || Setup::on(Fixture::new().store).bearer([any.clone().build().unwrap()]);
    assert_eq!(issue(setup(), None).await.as_deref(), Some("production"));
    assert_eq!(issue(setup(), Some(live())).await, None);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_issues_nothing() {
    let fixture = Fixture::new();
    fixture.store.fail(APPLY);
    assert!(matches!(
        fixture.manager().issue(new_key()).await,
        Err(ManageError::Store(_))
    ));
}

#[tokio::test]
async fn a_reason_for_a_revocation_is_bounded_and_kept() {
    let fixture = Fixture::new();
    let (_, record) = fixture.issue(&[]).await;
    let manager = fixture.manager();
    for wrong in ["x".repeat(1001), "a\0".into()] {
        let refused = manager.revoke(&record.id, Some(&wrong)).await;
        assert!(
            matches!(
                refused,
                Err(ManageError::Invalid {
                    field: "reason",
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    assert!(
        manager
            .get(&record.id)
            .await
            .unwrap()
            .record
            .revoked
            .is_none()
    );
    let revoked = manager
        .revoke(&record.id, Some("lost"))
        .await
        .unwrap()
        .record
        .revoked
        .clone()
        .unwrap();
    assert_eq!(
        (revoked.at, revoked.reason.as_deref()),
        (fixture.clock.now(), Some("lost"))
    );
}

#[tokio::test]
async fn the_debug_output_of_an_issued_key_is_redacted() {
    let issued = Fixture::new().manager().issue(new_key()).await.unwrap();
    let shown = format!("{issued:?}");
    let key = issued.key.reveal();
    assert!(!shown.contains(&key[13..key.len() - 4]), "{shown}");
}
