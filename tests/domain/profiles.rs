//! The five profiles: their key formats, what they accept, and their responses, byte for byte.

use portunus::key::{Environment, KeyFormat, KeyKind, Owner};
use portunus::manage::{KeyManager, ManageError, NewKey};
use portunus::policy::Requirement;
use portunus::scope::{Scope, ScopeModel, ScopeRequirement, WildcardModel};
use portunus::{AuthError, Authenticator, Clock, ErrorCode, Principal};
use portunus_profiles::Profile;
use portunus_test_support::{Fixture, Head, Setup, scope, tenant, user};

/// Everything that a profile can generate: each environment and kind of its formats.
fn all_keys(profile: Profile) -> Vec<(KeyFormat, Environment, KeyKind)> {
    let formats = [Some(profile.key_format()), profile.access_token_format()];
    let mut all = Vec::new();
    for format in formats.into_iter().flatten() {
        for environment in profile.environments() {
            for kind in [KeyKind::App, KeyKind::User] {
                if format.allows_kind(kind) {
                    all.push((format.clone(), environment.clone(), kind));
                }
            }
        }
    }
    all
}

#[test]
fn every_generated_key_parses_fits_one_block_and_cannot_be_guessed() {
    for &profile in Profile::ALL {
        for (format, environment, kind) in all_keys(profile) {
            let key = format
                .generate(Some(&environment), Some(kind))
                .unwrap()
                .reveal();
            assert!(format.parse(&key).is_ok(), "{profile}");
            // SHA-256 pads to 64 bytes with at least nine bytes of its own.
            assert!(key.len() <= 55, "{profile}: {} bytes", key.len());
            assert!(format.bits() >= 190.0, "{profile}: {} bits", format.bits());
        }
    }
}

#[test]
fn keys_look_as_documented() {
    let made = |profile: Profile, environment: &str, kind| {
        let environment = Environment::new(environment).unwrap();
        profile
            .key_format()
            .generate(Some(&environment), Some(kind))
            .unwrap()
            .reveal()
    };
    for (environment, kind, start) in [
        ("live", KeyKind::App, "allsign_live_sk_"),
        ("test", KeyKind::App, "allsign_test_sk_"),
        ("live", KeyKind::User, "allsign_live_user_sk_"),
        ("test", KeyKind::User, "allsign_test_user_sk_"),
    ] {
        let key = made(Profile::AllSign, environment, kind);
        let random = key.strip_prefix(start).unwrap();
        assert!(
            random.len() == 32 && random.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{key}"
        );
    }
    let key = made(Profile::InSigner, "production", KeyKind::App);
    assert!(key.starts_with("isk_") && key.len() == 48, "{key}");
    let key = made(Profile::DropboxSign, "production", KeyKind::App);
    assert!(
        key.len() == 48 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        "{key}"
    );
}

#[test]
fn a_profile_is_found_by_its_name_and_by_no_other() {
    for &profile in Profile::ALL {
        assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
    }
    for wrong in ["", "AllSign", "dropbox_sign", "dropbox", "allsign "] {
        assert!(wrong.parse::<Profile>().is_err(), "{wrong:?}");
    }
}

#[test]
fn allsign_accepts_random_parts_of_16_to_64_characters() {
    let format = Profile::AllSign.key_format();
    for length in [15, 16, 32, 64, 65] {
        let key = format!("allsign_live_sk_{}", "a".repeat(length));
        assert_eq!(
            format.parse(&key).is_ok(),
            (16..=64).contains(&length),
            "{length}"
        );
    }
}

fn manager(profile: Profile, fixture: &Fixture) -> KeyManager {
    Setup::of(fixture.store.clone(), profile)
        .clock(fixture.clock.clone())
        .manager()
}

fn authenticator(profile: Profile, fixture: &Fixture) -> Authenticator {
    // IUSign's requirement for TLS 1.3 has its own tests.
    Setup::of(fixture.store.clone(), profile)
        .clock(fixture.clock.clone())
        .transport(None)
        .build()
        .unwrap()
}

fn app_key() -> NewKey {
    NewKey::new("key", Owner::tenant(tenant("acme")))
}

fn access_token() -> NewKey {
    let mut new = NewKey::new("token", Owner::user(tenant("acme"), user("u1")));
    new.kind = KeyKind::AccessToken;
    new
}

#[tokio::test]
async fn every_profile_issues_keys_that_it_accepts() {
    for &profile in Profile::ALL {
        for environment in profile.environments() {
            let fixture = Fixture::new();
            let mut new = app_key();
            new.environment = Some(environment.clone());
            let issued = manager(profile, &fixture).issue(new).await.unwrap();
            let key = issued.key.reveal();
            let head = match profile {
                Profile::DropboxSign => Head::basic(format!("{key}:").as_bytes()),
                _ => Head::bearer(&key),
            };
            let principal = authenticator(profile, &fixture)
                .authenticate(&head)
                .await
                .unwrap()
                .principal
                .unwrap();
            assert_eq!(
                (principal.key_id(), principal.environment()),
                (&issued.record.id, &environment),
                "{profile}"
            );
        }
    }
}

#[tokio::test]
async fn an_environment_of_another_api_cannot_be_issued_for() {
    for &profile in Profile::ALL {
        let mut new = app_key();
        new.environment = Some(Environment::new("elsewhere").unwrap());
        let error = manager(profile, &Fixture::new())
            .issue(new)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                ManageError::Invalid {
                    field: "environment",
                    ..
                }
            ),
            "{profile}: {error}"
        );
    }
}

#[tokio::test]
async fn a_misspelt_scope_cannot_be_granted() {
    for (profile, known, unknown) in [
        (Profile::AllSign, "document:write", "document:wirte"),
        (Profile::AllSign, "document:*", "documents:*"),
        (Profile::InSigner, "documents.read", "documents:read"),
        (Profile::InSigner, "bulk_sends.*", "bulk_send.*"),
        (Profile::AllSign, "*", "Document:Write"),
    ] {
        let manager = manager(profile, &Fixture::new());
        manager
            .issue(app_key().with_scopes([scope(known)]))
            .await
            .unwrap();
        let error = manager
            .issue(app_key().with_scopes([scope(known), scope(unknown)]))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                ManageError::Invalid {
                    field: "scopes",
                    ..
                }
            ),
            "{unknown}: {error}"
        );
    }
}

// ---- Dropbox Sign's two kinds of credentials ----

#[tokio::test]
async fn dropbox_sign_takes_api_keys_by_basic_and_access_tokens_by_bearer_and_never_the_other_way_round()
 {
    let fixture = Fixture::new();
    let manager = manager(Profile::DropboxSign, &fixture);
    let key = manager.issue(app_key()).await.unwrap().key.reveal();
    let token = manager
        .issue(access_token().with_scopes([scope("account_access")]))
        .await
        .unwrap()
        .key
        .reveal();
    let authenticator = authenticator(Profile::DropboxSign, &fixture);
    let basic = |text: &str| Head::basic(format!("{text}:").as_bytes());
    let everything = Requirement::all_of([scope("account_access"), scope("template_access")]);
    let by_key = authenticator
        .authenticate(&basic(&key))
        .await
        .unwrap()
        .principal
        .unwrap();
    assert!(
        by_key.require(&everything).is_ok(),
        "API keys carry no scopes and may do everything"
    );
    let by_token = authenticator
        .authenticate(&Head::bearer(&token))
        .await
        .unwrap()
        .principal
        .unwrap();
    assert!(by_token.require(&scope("account_access").into()).is_ok());
    assert!(
        by_token.require(&everything).is_err(),
        "access tokens may do what their scopes say"
    );
    for head in [Head::bearer(&key), basic(&token)] {
        assert_eq!(
            authenticator
                .authenticate(&head)
                .await
                .unwrap_err()
                .status(),
            401
        );
    }
}

#[tokio::test]
async fn dropbox_sign_issues_four_keys_and_any_number_of_access_tokens() {
    let fixture = Fixture::new();
    let manager = manager(Profile::DropboxSign, &fixture);
    for _ in 0..4 {
        manager.issue(access_token()).await.unwrap();
        manager.issue(app_key()).await.unwrap();
    }
    let error = manager.issue(app_key()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ManageError::QuotaExceeded {
                active: 5,
                limit: 4
            }
        ),
        "{error}"
    );
    manager.issue(access_token()).await.unwrap();
}

#[tokio::test]
async fn dropbox_sign_keys_neither_expire_nor_carry_scopes_and_access_tokens_live_an_hour() {
    let fixture = Fixture::new();
    let manager = manager(Profile::DropboxSign, &fixture);
    let mut expiring = app_key();
    expiring.expires_at = Some(fixture.clock.now() + std::time::Duration::from_secs(60));
    for (new, field) in [
        (expiring, "expires_at"),
        (app_key().with_scopes([scope("account_access")]), "scopes"),
    ] {
        let error = manager.issue(new).await.unwrap_err();
        assert!(
            matches!(error, ManageError::Invalid { field: f, .. } if f == field),
            "{error}"
        );
    }
    let token = manager.issue(access_token()).await.unwrap();
    assert_eq!(
        token.record.expires_at,
        Some(fixture.clock.now() + std::time::Duration::from_secs(3600))
    );
    let head = Head::bearer(&token.key.reveal());
    fixture.clock.advance(std::time::Duration::from_secs(3600));
    let error = authenticator(Profile::DropboxSign, &fixture)
        .authenticate(&head)
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::KeyExpired);
}

#[tokio::test]
async fn an_access_token_needs_an_api_that_has_them_and_a_user() {
    for profile in [
        Profile::AllSign,
        Profile::InSigner,
        Profile::Yousign,
        Profile::IuSign,
    ] {
        let error = manager(profile, &Fixture::new())
            .issue(access_token())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ManageError::Invalid { field: "kind", .. }),
            "{profile}: {error}"
        );
    }
    let mut nobodys = access_token();
    nobodys.owner = Owner::tenant(tenant("acme"));
    let error = manager(Profile::DropboxSign, &Fixture::new())
        .issue(nobodys)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ManageError::Invalid {
                field: "owner.user_id",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn yousign_issues_two_hundred_active_keys_over_all_environments() {
    let fixture = Fixture::new();
    let manager = manager(Profile::Yousign, &fixture);
    let environments = Profile::Yousign.environments();
    let new = |number: usize| {
        let mut new = app_key();
        new.environment = Some(environments[number % 2].clone());
        new
    };
    let mut first = None;
    for number in 0..200 {
        let issued = manager.issue(new(number)).await.unwrap();
        first.get_or_insert(issued.record.id.clone());
    }
    assert!(matches!(
        manager.issue(new(0)).await,
        Err(ManageError::QuotaExceeded { limit: 200, .. })
    ));
    manager.revoke(&first.unwrap(), None).await.unwrap();
    manager.issue(new(1)).await.unwrap();
}

// ---- error formats ----

fn body(profile: Profile, error: &AuthError) -> (String, String) {
    let authenticator = Setup::of(Fixture::new().store, profile).build().unwrap();
    let answer = authenticator.responder().answer(error, &Head::new());
    (
        answer.fields[0].1.to_string(),
        String::from_utf8(answer.body.to_vec()).unwrap(),
    )
}

fn missing(requirement: impl Into<ScopeRequirement>, granted: &[&str]) -> AuthError {
    let granted: Vec<Scope> = granted.iter().map(|text| scope(text)).collect();
    AuthError::insufficient_scope(
        &requirement.into(),
        &*WildcardModel.compile(&granted).unwrap(),
    )
}

#[test]
fn allsign_speaks_as_documented() {
    let any = ScopeRequirement::any_of([scope("document:write"), scope("document:*")]);
    for (error, expected) in [
        (
            AuthError::new(ErrorCode::MissingKey),
            r#"{"detail": "Missing Authorization header. Use: Authorization: Bearer allsign_live_sk_xxx"}"#,
        ),
        (
            AuthError::new(ErrorCode::InvalidFormat),
            r#"{"detail": "Invalid API key format. Expected: allsign_{env}_{type}_{random}"}"#,
        ),
        (
            AuthError::new(ErrorCode::InvalidKey),
            r#"{"detail": "Invalid or expired API key"}"#,
        ),
        (
            AuthError::new(ErrorCode::KeyRevoked),
            r#"{"detail": "Invalid or expired API key"}"#,
        ),
        (
            AuthError::new(ErrorCode::KeyExpired),
            r#"{"detail": "Invalid or expired API key"}"#,
        ),
        (
            AuthError::new(ErrorCode::WrongEnvironment),
            r#"{"detail": "Invalid or expired API key"}"#,
        ),
        (
            AuthError::new(ErrorCode::NotFound),
            r#"{"detail": "Not Found"}"#,
        ),
        (
            missing(scope("document:write"), &["document:read", "signature:*"]),
            concat!(
                r#"{"detail": "Insufficient permissions. Required: document:write or document:*. "#,
                r#"Your scopes: document:read, signature:*"}"#
            ),
        ),
        (
            missing(any, &["document:read"]),
            concat!(
                r#"{"detail": "Insufficient permissions. Requires ANY of these scopes: "#,
                r#"document:write, document:*. Your scopes: document:read"}"#
            ),
        ),
        (
            missing(scope("document:*"), &["document:read"]),
            r#"{"detail": "Insufficient permissions. Required: document:*. Your scopes: document:read"}"#,
        ),
    ] {
        assert_eq!(
            body(Profile::AllSign, &error),
            ("application/json".into(), expected.into())
        );
    }
}

#[test]
fn insigner_speaks_problem_documents_with_the_code_as_last_member() {
    for (error, expected) in [
        (
            AuthError::new(ErrorCode::InvalidKey),
            concat!(
                r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "title": "Unauthorized", "#,
                r#""status": 401, "detail": "Invalid or missing API key", "code": "INVALID_KEY"}"#
            ),
        ),
        (
            AuthError::new(ErrorCode::MissingKey),
            concat!(
                r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "title": "Unauthorized", "#,
                r#""status": 401, "detail": "Invalid or missing API key", "code": "MISSING_KEY"}"#
            ),
        ),
        (
            AuthError::with_detail(ErrorCode::Forbidden, "no \"way\""),
            concat!(
                r#"{ "type": "https://docs.insigner.com/errors/forbidden", "title": "Forbidden", "#,
                r#""status": 403, "detail": "no \"way\"", "code": "FORBIDDEN"}"#
            ),
        ),
        (
            AuthError::with_detail(ErrorCode::RateLimited, "slowly"),
            concat!(
                r#"{ "type": "https://docs.insigner.com/errors/too-many-requests", "#,
                r#""title": "Too Many Requests", "#,
                r#""status": 429, "detail": "slowly", "code": "RATE_LIMITED"}"#
            ),
        ),
    ] {
        assert_eq!(
            body(Profile::InSigner, &error),
            ("application/problem+json".into(), expected.into())
        );
    }
}

#[test]
fn dropbox_sign_speaks_as_documented() {
    for (error, expected) in [
        (
            AuthError::new(ErrorCode::InvalidKey),
            r#"{"error":{"error_msg":"Unauthorized api key","error_name":"unauthorized"}}"#,
        ),
        (
            AuthError::new(ErrorCode::KeyRevoked),
            r#"{"error":{"error_msg":"Unauthorized api key","error_name":"unauthorized"}}"#,
        ),
        (
            AuthError::with_detail(ErrorCode::Forbidden, "no"),
            r#"{"error":{"error_msg":"no","error_name":"forbidden"}}"#,
        ),
        (
            AuthError::with_detail(ErrorCode::RateLimited, "slowly"),
            r#"{"error":{"error_msg":"slowly","error_name":"exceeded_rate"}}"#,
        ),
        (
            AuthError::with_detail(ErrorCode::QuotaExceeded, "4"),
            r#"{"error":{"error_msg":"4","error_name":"conflict"}}"#,
        ),
        (
            AuthError::with_detail(ErrorCode::StoreUnavailable, "a\"b"),
            r#"{"error":{"error_msg":"a\"b","error_name":"unavailable"}}"#,
        ),
    ] {
        assert_eq!(
            body(Profile::DropboxSign, &error),
            ("application/json".into(), expected.into())
        );
    }
}

#[test]
fn every_dialect_gives_valid_json_for_every_code_and_repeats_no_status_wrongly() {
    for &profile in Profile::ALL {
        for &code in ErrorCode::ALL {
            let error = AuthError::with_detail(code, "quotes \" and \\ and \n and \u{1F511}");
            let (media, text) = body(profile, &error);
            let json: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|why| panic!("{profile} {code}: {why}: {text}"));
            if media == "application/problem+json" {
                assert_eq!(json["status"], code.status(), "{profile} {code}");
                assert_eq!(json["code"], code.as_str(), "{profile} {code}");
            }
        }
    }
}

#[test]
fn the_realm_and_the_schemes_of_challenges_are_the_profiles() {
    for (profile, expected) in [
        (Profile::AllSign, vec![r#"Bearer realm="allsign""#]),
        (Profile::InSigner, vec![r#"Bearer realm="insigner""#]),
        (Profile::Yousign, vec![r#"Bearer realm="yousign""#]),
        (Profile::IuSign, vec![r#"Bearer realm="iusign""#]),
        (
            Profile::DropboxSign,
            vec![
                r#"Basic realm="dropbox-sign", charset="UTF-8""#,
                r#"Bearer realm="dropbox-sign""#,
            ],
        ),
    ] {
        let authenticator = Setup::of(Fixture::new().store, profile).build().unwrap();
        let answer = authenticator
            .responder()
            .answer(&AuthError::new(ErrorCode::MissingKey), &Head::new());
        let lines: Vec<_> = answer
            .fields
            .iter()
            .filter(|(name, _)| *name == "www-authenticate")
            .map(|(_, line)| &**line)
            .collect();
        assert_eq!(lines, expected, "{profile}");
    }
}
