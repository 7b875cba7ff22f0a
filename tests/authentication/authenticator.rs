//! The authentication path, called directly: valid and invalid credentials, the refusal for each,
//! and the work it may cause.

use portunus::store::KeyLookup;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use portunus::actor::ActorMode;
use portunus::authenticator::{Attempt, Authenticated, PendingAttempt};
use portunus::key::{
    Alphabet, Checksum, DigestScheme, Environment, KeyFormat, KeyHasher, KeyKind, KeyRecord, Owner,
    Pepper, Revocation,
};
use portunus::manage::NewKey;
use portunus::scope::{Scope, ScopeModel, ScopeRequirement, ScopeSet, WildcardModel};
use portunus::store::{Change, KeyStore, StoredKey, WriteBatch};
use portunus::{
    AuthError, Authenticator, BuildError, Clock, ErrorCode, KeyPrincipal, Principal, Requirement,
};
use portunus_test_support::{
    APPLY, Behind, Call, FIND, Fixture, Head, Point, Setup, base64, corrupt, format, live, scope,
    stranger, tenant, test, used, user, with_last_character_wrong,
};

async fn accepted(authenticator: &Authenticator, head: &Head) -> KeyPrincipal {
    authenticator
        .authenticate(head)
        .await
        .unwrap()
        .principal
        .expect("somebody")
}

async fn refused(authenticator: &Authenticator, head: &Head) -> AuthError {
    authenticator
        .authenticate(head)
        .await
        .expect_err("a refusal")
}

async fn code(authenticator: &Authenticator, head: &Head) -> ErrorCode {
    refused(authenticator, head).await.code()
}

/// Everything that a caller can learn from a refusal.
fn answer(authenticator: &Authenticator, error: &AuthError, head: &Head) -> String {
    format!("{:?}", authenticator.responder().answer(error, head))
}

fn pepper(version: u32) -> Pepper {
    Pepper::new(version, &[u8::try_from(version).unwrap(); 32]).unwrap()
}

// ---- Bearer ----

#[tokio::test]
async fn a_real_key_is_accepted_with_its_facts() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&["document:read"]).await;
    let principal = accepted(
        &fixture.bearer().build().unwrap(),
        &Head::bearer(&key).from("192.0.2.1"),
    )
    .await;
    assert_eq!(principal.record(), &*record);
    assert_eq!(
        (principal.key_id(), principal.owner()),
        (&record.id, &record.owner)
    );
    assert_eq!(
        (principal.environment(), principal.mode()),
        (&live(), ActorMode::App)
    );
    assert_eq!(principal.client_ip(), Some(IpAddr::from([192, 0, 2, 1])));
    assert!(principal.require(&scope("document:read").into()).is_ok());
    let refusal = principal
        .require(&scope("document:write").into())
        .unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::InsufficientScope);
    assert_eq!(refusal.missing_scope().unwrap().granted, ["document:read"]);
}

#[tokio::test]
async fn the_scheme_may_be_written_in_any_case_and_followed_by_many_spaces() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    for value in [
        format!("Bearer {key}"),
        format!("bearer {key}"),
        format!("bEaReR  {key}"),
        format!("BEARER      {key}"),
        format!("  Bearer {key}  "),
        format!("Bearer {key}\t"),
    ] {
        accepted(&authenticator, &Head::authorization(&value)).await;
    }
}

#[tokio::test]
async fn credentials_of_other_schemes_count_as_a_missing_key() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let mut heads = vec![Head::new()];
    for value in [
        "".to_owned(),
        "   ".to_owned(),
        key.clone(),
        format!("Token {key}"),
        format!("Digest username=\"{key}\""),
        format!("ApiKey {key}"),
        format!("Bearer:{key}"),
        format!("Bearer{key}"),
        format!("Bearers {key}"),
        format!("Basic {}", base64(format!("{key}:").as_bytes())),
        format!("\u{ff22}earer {key}"),
    ] {
        heads.push(Head::authorization(&value));
    }
    for head in heads {
        assert_eq!(
            code(&authenticator, &head).await,
            ErrorCode::MissingKey,
            "{head:?}"
        );
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_bearer_value_that_is_not_a_token_is_a_bad_request() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let mut values: Vec<Vec<u8>> = [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer      ".to_owned(),
        "Bearer =".to_owned(),
        "Bearer a, Bearer b".to_owned(),
        format!("Bearer {key}, Bearer {key}"),
        format!("Bearer {key},{key}"),
        format!("Bearer {key} {key}"),
        format!("Bearer \"{key}\""),
        format!("Bearer a={key}"),
        format!("Bearer {key};"),
        format!("Bearer {key}\0"),
        format!("Bearer \0{key}"),
        format!("Bearer {key}\u{e9}"),
        format!("Bearer {key}\r\nX-Admin: 1"),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    values.push([b"Bearer ".as_slice(), key.as_bytes(), &[0xff]].concat());
    values.push(b"Bearer \x80\x81".to_vec());
    for value in values {
        let head = Head::authorization(&value);
        let error = refused(&authenticator, &head).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::InvalidRequest, 400),
            "{value:?}"
        );
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_token_of_another_shape_is_a_wrong_format_and_reaches_no_store() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    for wrong in [
        "a".to_owned(),
        "a==".to_owned(),
        key.to_uppercase(),
        key[1..].to_owned(),
        format!("{key}="),
        format!("{key}0"),
    ] {
        let error = refused(&authenticator, &Head::bearer(&wrong)).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::InvalidFormat, 401),
            "{wrong}"
        );
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_repeated_field_is_a_bad_request_even_where_both_say_the_same() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().basic([format()]).build().unwrap();
    let bearer = format!("Bearer {key}");
    for second in [
        bearer.clone(),
        "Bearer x".into(),
        "Token x".into(),
        "".into(),
        format!("Basic {}", base64(b"x:")),
    ] {
        let one = Head::authorization(&bearer).with("Authorization", &second);
        let other = Head::authorization(&second).with("AUTHORIZATION", &bearer);
        for head in [one, other] {
            assert_eq!(
                code(&authenticator, &head).await,
                ErrorCode::InvalidRequest,
                "{head:?}"
            );
        }
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_huge_token_is_refused_without_a_lookup() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture
        .bearer()
        .basic([format()])
        .header("X-API-Key", [format()])
        .build()
        .unwrap();
    for size in [257, 4096, 8 << 10, 1 << 20] {
        let long = format!("{key}{}", "a".repeat(size));
        let pair = base64(format!("{long}:").as_bytes());
        for head in [
            Head::bearer(&long),
            Head::authorization(format!("Basic {pair}")),
            Head::new().with("x-api-key", &long),
            Head::authorization(format!("{}Bearer {key}", " ".repeat(size + 4096))),
        ] {
            assert_eq!(refused(&authenticator, &head).await.status(), 401, "{size}");
        }
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_key_elsewhere_than_in_its_field_is_never_read() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let elsewhere = Head::new()
        .at(&format!("/documents?api_key={key}&access_token={key}"))
        .with("x-api-key", &key)
        .with("proxy-authorization", format!("Bearer {key}"))
        .with("cookie", format!("access_token={key}"))
        .with("x-forwarded-authorization", format!("Bearer {key}"));
    assert_eq!(
        code(&authenticator, &elsewhere).await,
        ErrorCode::MissingKey
    );
    assert_eq!(fixture.store.finds(), 0);
}

// ---- Basic ----

#[tokio::test]
async fn malformed_basic_credentials_are_a_wrong_format() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bare().basic([format()]).build().unwrap();
    let pair = |text: String| Head::basic(text.as_bytes());
    let whole = base64(format!("{key}:").as_bytes());
    for (what, head) in [
        ("no colon", pair(key.clone())),
        ("nothing", pair(String::new())),
        ("a colon alone", pair(":".into())),
        ("a password", pair(format!("{key}:secret"))),
        ("a blank as password", pair(format!("{key}: "))),
        ("the key as password", pair(format!(":{key}"))),
        ("a second colon", pair(format!("{key}::"))),
        ("a line break", pair(format!("{key}\n:"))),
        ("a line break as password", pair(format!("{key}:\r\n"))),
        ("NUL", pair(format!("{key}\0:"))),
        ("DEL", pair(format!("\u{7f}{key}:"))),
        (
            "not UTF-8",
            Head::basic(&[key.as_bytes(), b"\xff:"].concat()),
        ),
        ("another script", pair(format!("{key}\u{e9}:"))),
        ("no value", Head::authorization("Basic")),
        ("blanks", Head::authorization("Basic    ")),
        ("no base64", Head::authorization("Basic !!!!")),
        (
            "a key that is not encoded",
            Head::authorization(format!("Basic {key}:")),
        ),
        (
            "padding in the middle",
            Head::authorization(format!("Basic ===={whole}")),
        ),
        (
            "a character too many",
            Head::authorization(format!("Basic {}A", whole.trim_end_matches('='))),
        ),
        ("URL-safe base64", Head::authorization("Basic _-_-_-_-")),
        (
            "two values",
            Head::authorization(format!("Basic {whole}, Basic {whole}")),
        ),
        ("bytes over 0x7F", Head::authorization(b"Basic \xff\xfe")),
    ] {
        let error = refused(&authenticator, &head).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::InvalidFormat, 401),
            "{what}"
        );
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn each_scheme_takes_its_own_formats_only() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let token = KeyFormat::builder("")
        .random(Alphabet::URL_SAFE, 43)
        .build()
        .unwrap();
    let authenticator = fixture
        .bare()
        .basic([format()])
        .bearer([token])
        .build()
        .unwrap();
    accepted(&authenticator, &Head::basic(format!("{key}:").as_bytes())).await;
    assert_eq!(
        code(&authenticator, &Head::bearer(&key)).await,
        ErrorCode::InvalidFormat
    );
    assert_eq!(fixture.store.finds(), 1);
}

// ---- a custom header ----

#[tokio::test]
async fn a_header_of_the_hosts_own_carries_a_key_where_the_host_says_so() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture
        .bearer()
        .header("X-API-Key", [format()])
        .build()
        .unwrap();
    accepted(&authenticator, &Head::new().with("x-api-key", &key)).await;
    accepted(
        &authenticator,
        &Head::new().with("X-API-KEY", format!(" {key} ")),
    )
    .await;
    accepted(&authenticator, &Head::bearer(&key)).await;
    assert_eq!(
        code(&authenticator, &Head::new()).await,
        ErrorCode::MissingKey
    );
    assert_eq!(
        code(&authenticator, &Head::new().with("x-api-key", "")).await,
        ErrorCode::InvalidFormat
    );
    assert_eq!(
        code(
            &authenticator,
            &Head::new().with("x-api-key", format!("Bearer {key}"))
        )
        .await,
        ErrorCode::InvalidFormat
    );
}

#[tokio::test]
async fn two_ways_at_once_or_one_twice_are_a_bad_request() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture
        .bearer()
        .header("X-API-Key", [format()])
        .header("X-Other-Key", [format()])
        .build()
        .unwrap();
    for head in [
        Head::bearer(&key).with("x-api-key", &key),
        Head::bearer(&key).with("x-api-key", ""),
        Head::bearer("garbage").with("x-api-key", &key),
        Head::new().with("x-api-key", &key).with("x-api-key", &key),
        Head::new()
            .with("x-api-key", &key)
            .with("x-other-key", &key),
    ] {
        assert_eq!(
            code(&authenticator, &head).await,
            ErrorCode::InvalidRequest,
            "{head:?}"
        );
    }
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn fields_that_mean_something_else_cannot_carry_a_key() {
    let fixture = Fixture::new();
    for name in [
        "Authorization",
        "X-User-Id",
        "x-forwarded-for",
        "Forwarded",
        "Cookie",
        "Host",
        "X-Request-Id",
        "",
        "a b",
        "a:b",
        "x\u{e9}",
    ] {
        let built = fixture.bare().header(name, [format()]).build();
        assert!(matches!(built, Err(BuildError::Header(_))), "{name:?}");
    }
}

#[tokio::test]
async fn an_authenticator_without_a_format_cannot_be_built() {
    let fixture = Fixture::new();
    assert_eq!(fixture.bare().build().unwrap_err(), BuildError::NoFormat);
    assert_eq!(
        fixture.bare().bearer([]).build().unwrap_err(),
        BuildError::NoFormat
    );
    assert_eq!(
        fixture.bearer().basic([]).build().unwrap_err(),
        BuildError::NoFormat
    );
}

// ---- nothing is revealed without the secret ----

#[tokio::test]
async fn a_wrong_checksum_is_an_invalid_key_and_reaches_no_store() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().basic([format()]).build().unwrap();
    let typo = with_last_character_wrong(&key);
    assert_eq!(
        code(&authenticator, &Head::bearer(&typo)).await,
        ErrorCode::InvalidKey
    );
    assert_eq!(
        code(&authenticator, &Head::basic(format!("{typo}:").as_bytes())).await,
        ErrorCode::InvalidKey
    );
    assert_eq!(fixture.store.finds(), 0);
}

#[tokio::test]
async fn a_wrong_last_character_is_answered_like_an_unknown_key() {
    // A format without a checksum, so that the lookup decides.
    let fixture = Fixture::new();
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let manager = Setup::on(fixture.store.clone())
        .bearer([format.clone()])
        .manager();
    let real = manager
        .issue(NewKey::new("key", Owner::tenant(tenant("acme"))))
        .await
        .unwrap()
        .key
        .reveal();
    let authenticator = fixture.bare().bearer([format.clone()]).build().unwrap();
    accepted(&authenticator, &Head::bearer(&real)).await;
    let mut answers = Vec::new();
    for wrong in [
        with_last_character_wrong(&real),
        format.generate(None, None).unwrap().reveal(),
    ] {
        let before = fixture.store.finds();
        let head = Head::bearer(&wrong);
        let error = refused(&authenticator, &head).await;
        assert_eq!(error.code(), ErrorCode::InvalidKey);
        assert_eq!(fixture.store.finds(), before + 1, "the same work");
        answers.push(answer(&authenticator, &error, &head));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_deleted_key_is_answered_like_an_unknown_key() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    accepted(&authenticator, &Head::bearer(&key)).await;
    fixture
        .store
        .apply(&WriteBatch::new().change(Change::Delete(record.id.clone())))
        .await
        .unwrap();
    let (deleted, unknown) = (Head::bearer(&key), Head::bearer(&stranger()));
    let (one, other) = (
        refused(&authenticator, &deleted).await,
        refused(&authenticator, &unknown).await,
    );
    assert_eq!(
        answer(&authenticator, &one, &deleted),
        answer(&authenticator, &other, &unknown)
    );
}

#[tokio::test]
async fn a_store_that_returns_another_key_than_presented_admits_no_one() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&["*"]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let digest = fixture.hasher.digest(&key);
    let mut nearly = digest.to_bytes();
    nearly[31] ^= 1;
    for wrong in [
        portunus::key::KeyDigest::new(DigestScheme::Sha256, nearly),
        portunus::key::KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, digest.to_bytes()),
        fixture.hasher.digest(&stranger()),
    ] {
        fixture
            .store
            .always_find(Arc::new(StoredKey::new(wrong, Arc::clone(&record))));
        assert_eq!(
            code(&authenticator, &Head::bearer(&key)).await,
            ErrorCode::InvalidKey
        );
    }
    fixture
        .store
        .always_find(Arc::new(StoredKey::new(digest, record)));
    accepted(&authenticator, &Head::bearer(&key)).await;
}

#[tokio::test]
async fn no_error_and_no_response_repeats_the_credentials() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    fixture
        .change(&record.id, |record| record.enabled = false)
        .await;
    let authenticator = fixture
        .bearer()
        .basic([format()])
        .header("x-api-key", [format()])
        .build()
        .unwrap();
    let canary = &key[13..30];
    let typo = with_last_character_wrong(&key);
    for head in [
        Head::bearer(&key),
        Head::bearer(&typo),
        Head::bearer(&format!("{key}!")),
        Head::bearer(&key[1..]),
        Head::basic(format!("{key}:{key}").as_bytes()),
        Head::basic(key.as_bytes()),
        Head::new().with("x-api-key", &key),
        Head::bearer(&key).with("x-api-key", &key),
        Head::bearer(&key).with("x-user-id", &key),
        Head::bearer(&key).at(&format!("/{key}")),
    ] {
        let error = refused(&authenticator, &head).await;
        let all = format!(
            "{error} {error:?} {}",
            answer(&authenticator, &error, &head)
        );
        assert!(
            !all.contains(canary) && !all.contains(&base64(key.as_bytes())[..40]),
            "{all}"
        );
    }
}

#[tokio::test]
async fn no_debug_output_of_the_parts_shows_a_secret() {
    let mut fixture = Fixture::new();
    fixture.hasher =
        KeyHasher::hmac_sha256(Pepper::new(1, b"a pepper that nobody may ever see").unwrap());
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let principal = accepted(&authenticator, &Head::bearer(&key)).await;
    let stored = fixture
        .store
        .find(&[fixture.hasher.digest(&key)])
        .await
        .unwrap();
    let attempt = authenticator.attempt(&Head::bearer(&key));
    let all = format!(
        "{authenticator:?} {principal:?} {stored:?} {attempt:?} {:?} {:?}",
        fixture.manager(),
        fixture.store
    );
    assert!(
        !all.contains(&key[13..30]) && !all.contains("nobody may ever see"),
        "{all}"
    );
    let digest: Vec<String> = fixture.hasher.digest(&key).to_bytes()[..4]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(!all.contains(&digest.join(", ")), "not the digest either");
}

// ---- standing ----

#[tokio::test]
async fn a_revoked_key_is_refused_on_the_next_request() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let head = Head::bearer(&key);
    accepted(&authenticator, &head).await;
    fixture
        .manager()
        .revoke(&record.id, Some("lost"))
        .await
        .unwrap();
    assert_eq!(code(&authenticator, &head).await, ErrorCode::KeyRevoked);
}

#[tokio::test]
async fn a_disabled_key_is_refused_on_the_next_request_and_works_once_it_is_enabled_again() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let head = Head::bearer(&key);
    accepted(&authenticator, &head).await;
    fixture
        .change(&record.id, |record| record.enabled = false)
        .await;
    assert_eq!(code(&authenticator, &head).await, ErrorCode::KeyDisabled);
    fixture
        .change(&record.id, |record| record.enabled = true)
        .await;
    accepted(&authenticator, &head).await;
}

#[tokio::test]
async fn a_narrowed_scope_holds_for_the_next_request() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&["document:*"]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let write = Requirement::scope(scope("document:write"));
    assert!(
        accepted(&authenticator, &Head::bearer(&key))
            .await
            .require(&write)
            .is_ok()
    );
    fixture
        .change(&record.id, |record| {
            record.scopes = vec![scope("document:read")];
        })
        .await;
    assert!(
        accepted(&authenticator, &Head::bearer(&key))
            .await
            .require(&write)
            .is_err()
    );
}

#[tokio::test]
async fn a_key_works_until_the_instant_before_its_expiry() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("short", Owner::tenant(tenant("acme")));
    new.expires_at = Some(fixture.clock.now() + Duration::from_secs(60));
    let (key, _) = fixture.issue_new(new).await;
    let authenticator = fixture.bearer().build().unwrap();
    fixture.clock.advance(Duration::new(59, 999_999_999));
    accepted(&authenticator, &Head::bearer(&key)).await;
    fixture.clock.advance(Duration::from_nanos(1));
    assert_eq!(
        code(&authenticator, &Head::bearer(&key)).await,
        ErrorCode::KeyExpired
    );
    fixture.clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(
        code(&authenticator, &Head::bearer(&key)).await,
        ErrorCode::KeyExpired
    );
}

#[tokio::test]
async fn a_recent_time_neither_extends_a_key_nor_delays_it() {
    let fixture = Fixture::new();
    let (start, end) = [60, 120]
        .map(|seconds| fixture.clock.now() + Duration::from_secs(seconds))
        .into();
    let mut new = NewKey::new("short", Owner::tenant(tenant("acme")));
    (new.not_before, new.expires_at) = (Some(start), Some(end));
    let (key, _) = fixture.issue_new(new).await;
    let behind = Behind(fixture.clock.clone());
    let authenticator = fixture.bearer().clock(behind).build().unwrap();
    let head = Head::bearer(&key);
    let tick = Duration::from_nanos(1);
    fixture.clock.step_to(start - tick);
    assert_eq!(code(&authenticator, &head).await, ErrorCode::KeyDisabled);
    fixture.clock.step_to(end);
    assert_eq!(code(&authenticator, &head).await, ErrorCode::KeyExpired);
    for admitted in [start, start + Duration::from_secs(30), end - tick] {
        fixture.clock.step_to(admitted);
        accepted(&authenticator, &head).await;
    }
}

#[tokio::test]
async fn a_key_works_from_the_instant_of_its_start() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("later", Owner::tenant(tenant("acme")));
    new.not_before = Some(fixture.clock.now() + Duration::from_secs(60));
    let (key, _) = fixture.issue_new(new).await;
    let authenticator = fixture.bearer().build().unwrap();
    fixture.clock.advance(Duration::new(59, 999_999_999));
    assert_eq!(
        refused(&authenticator, &Head::bearer(&key)).await.status(),
        401
    );
    fixture.clock.advance(Duration::from_nanos(1));
    accepted(&authenticator, &Head::bearer(&key)).await;
}

#[tokio::test]
async fn a_key_revoked_in_the_future_is_revoked_now() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let later = fixture.clock.now() + Duration::from_secs(3600);
    fixture
        .change(&record.id, |record| {
            record.revoked = Some(Revocation::new(later, None));
        })
        .await;
    assert_eq!(
        code(&fixture.bearer().build().unwrap(), &Head::bearer(&key)).await,
        ErrorCode::KeyRevoked
    );
}

// ---- environment ----

#[tokio::test]
async fn a_key_of_another_environment_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("test key", Owner::tenant(tenant("acme")));
    new.environment = Some(test());
    let (key, _) = fixture.issue_new(new).await;
    let bound = fixture.bearer().environment(live()).build().unwrap();
    assert_eq!(
        code(&bound, &Head::bearer(&key)).await,
        ErrorCode::WrongEnvironment
    );
    accepted(
        &fixture.bearer().environment(test()).build().unwrap(),
        &Head::bearer(&key),
    )
    .await;
}

#[tokio::test]
async fn an_unknown_key_of_another_environment_is_an_unknown_key() {
    let fixture = Fixture::new();
    let bound = fixture.bearer().environment(live()).build().unwrap();
    let unknown = |env: Environment| {
        format()
            .generate(Some(&env), Some(KeyKind::App))
            .unwrap()
            .reveal()
    };
    let (here, there) = (
        Head::bearer(&unknown(live())),
        Head::bearer(&unknown(test())),
    );
    let (one, other) = (refused(&bound, &here).await, refused(&bound, &there).await);
    assert_eq!(other.code(), ErrorCode::InvalidKey);
    assert_eq!(answer(&bound, &one, &here), answer(&bound, &other, &there));
}

#[tokio::test]
async fn a_revoked_key_of_another_environment_is_a_revoked_key() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("test key", Owner::tenant(tenant("acme")));
    new.environment = Some(test());
    let (key, record) = fixture.issue_new(new).await;
    fixture.manager().revoke(&record.id, None).await.unwrap();
    let bound = fixture.bearer().environment(live()).build().unwrap();
    assert_eq!(
        code(&bound, &Head::bearer(&key)).await,
        ErrorCode::KeyRevoked
    );
}

// ---- fail closed ----

#[tokio::test]
async fn a_store_that_gives_no_answer_is_503_and_never_401_and_recovers() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let authenticator = fixture.bearer().optional().build().unwrap();
        if late {
            fixture.store.answer_late(1);
        }
        for key in [key.clone(), stranger()] {
            fixture.store.fail(FIND);
            let error = refused(&authenticator, &Head::bearer(&key)).await;
            assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::StoreUnavailable, 503)
            );
            assert!(error.retry_after().is_some());
            let mut source: &dyn Error = &error;
            while let Some(next) = source.source() {
                source = next;
            }
            assert_eq!(
                source.to_string(),
                "connection refused by db.internal",
                "the cause is kept for logs"
            );
            let head = Head::bearer(&key);
            assert!(
                !answer(&authenticator, &error, &head).contains("db.internal"),
                "and kept from callers"
            );
            fixture.store.fail_with(FIND, corrupt);
            let error = refused(&authenticator, &head).await;
            assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::StoreUnavailable, 503)
            );
            assert!(!answer(&authenticator, &error, &head).contains("expires_at"));
        }
        fixture.store.recover();
        accepted(&authenticator, &Head::bearer(&key)).await;
    }
}

// ---- waiting ----

#[test]
fn a_pending_attempt_may_be_sent_to_another_thread_and_outlives_the_request() {
    fn is<T: Send + 'static>() {}
    is::<PendingAttempt>();
    is::<KeyPrincipal>();
    is::<AuthError>();
}

#[tokio::test]
async fn a_store_that_must_be_awaited_decides_the_same() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    fixture.store.answer_late(1);
    let authenticator = fixture.bearer().build().unwrap();
    let Attempt::Pending(pending) = authenticator.attempt(&Head::bearer(&key)) else {
        panic!("it must be awaited")
    };
    assert_eq!(
        tokio::spawn(pending)
            .await
            .unwrap()
            .unwrap()
            .principal
            .unwrap()
            .key_id(),
        &record.id
    );
    assert_eq!(
        code(&authenticator, &Head::bearer(&stranger())).await,
        ErrorCode::InvalidKey
    );
    fixture.manager().revoke(&record.id, None).await.unwrap();
    assert_eq!(
        code(&authenticator, &Head::bearer(&key)).await,
        ErrorCode::KeyRevoked
    );
}

#[tokio::test]
async fn garbage_is_refused_without_waiting() {
    let fixture = Fixture::new();
    fixture.store.answer_late(1);
    let authenticator = fixture.bearer().build().unwrap();
    for head in [
        Head::new(),
        Head::bearer("garbage"),
        Head::bearer(""),
        Head::bearer(&with_last_character_wrong(&stranger())),
    ] {
        assert!(
            matches!(authenticator.attempt(&head), Attempt::Ready(Err(_))),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn an_attempt_that_is_dropped_counts_nothing() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    fixture.store.answer_late(1);
    let authenticator = fixture.bearer().build().unwrap();
    drop(authenticator.attempt(&Head::bearer(&key)));
    authenticator.usage().flush(&fixture.store).await.unwrap();
    assert_eq!(used(&fixture.store, &record.id).await.count, 0);
}

// ---- optional authentication ----

#[tokio::test]
async fn with_optional_authentication_absent_credentials_pass_as_anonymous() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().optional().build().unwrap();
    for head in [
        Head::new(),
        Head::authorization("Token x"),
        Head::authorization(""),
    ] {
        assert!(
            authenticator
                .authenticate(&head)
                .await
                .unwrap()
                .principal
                .is_none(),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn with_optional_authentication_another_scheme_passes_unless_it_contains_a_key() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    fixture.manager().revoke(&record.id, None).await.unwrap();
    let unknown = stranger();
    let bearer = || fixture.bearer().optional().build().unwrap();
    let header = || {
        fixture
            .bare()
            .header("x-api-key", [format()])
            .optional()
            .build()
            .unwrap()
    };
    let basic = || fixture.bare().basic([format()]).optional().build().unwrap();
    let outcome = async |authenticator: Authenticator, value: String| {
        let outcome = authenticator
            .authenticate(&Head::authorization(value))
            .await;
        outcome
            .map(|admission| admission.principal.is_none())
            .map_err(|error| error.code())
    };
    for key in [&key, &unknown, &with_last_character_wrong(&key)] {
        let pair = |text: String| format!("Basic {}", base64(text.as_bytes()));
        for value in [
            key.clone(),
            format!("Token {key}"),
            format!("tOKEN \t {key} "),
            format!("Token\t{key}"),
            format!("Token token=\"{key}\", nonce=\"def\""),
            format!("Token token={key}"),
            format!("Digest username=\"{key}\", realm=\"api\""),
            format!("Token x,{key}"),
            format!("Token {key}, {key}"),
            format!("Token ä{key}"),
        ] {
            for authenticator in [bearer(), header(), basic()] {
                assert_eq!(
                    outcome(authenticator, value.clone()).await,
                    Err(ErrorCode::MissingKey),
                    "{value}"
                );
            }
        }
        for value in [
            pair(format!("{key}:")),
            pair(key.clone()),
            pair(format!("{key}:password")),
            pair(format!("user:{key}")),
            pair(format!("{key}:")).replace("Basic ", "bASIC   "),
            pair(format!("{key}:")).trim_end_matches('=').to_owned(),
        ] {
            for authenticator in [bearer(), header()] {
                assert_eq!(
                    outcome(authenticator, value.clone()).await,
                    Err(ErrorCode::MissingKey),
                    "{value}"
                );
            }
        }
        for authenticator in [header(), basic()] {
            let value = format!("Bearer {key}");
            assert_eq!(
                outcome(authenticator, value).await,
                Err(ErrorCode::MissingKey)
            );
        }
    }
    for value in [
        "Token x".to_owned(),
        format!("Token {}", &key[..key.len() - 1]),
        format!("Token {key}x"),
        format!("Basic {}", base64(b"user:password")),
        "Basic !".to_owned(),
        "Basic".to_owned(),
        "Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gJDAi".to_owned(),
    ] {
        assert_eq!(outcome(bearer(), value.clone()).await, Ok(true), "{value}");
    }
}

#[tokio::test]
async fn with_an_optional_key_only_requests_without_credentials_pass_as_anonymous() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    // Everything that the authenticator itself admits.
    let lenient = fixture.bearer().optional().build().unwrap();
    for optional in [authenticator.optional_key(), lenient.optional_key()] {
        let outcome = async |head: Head| {
            let outcome = optional.authenticate(&head).await;
            outcome
                .map(|admission| admission.principal.is_some())
                .map_err(|error| error.code())
        };
        assert_eq!(outcome(Head::new()).await, Ok(false));
        assert_eq!(outcome(Head::bearer(&key)).await, Ok(true));
        for (head, code) in [
            (Head::authorization("Token x"), ErrorCode::MissingKey),
            (Head::authorization(""), ErrorCode::MissingKey),
            (Head::basic(b"user:password"), ErrorCode::MissingKey),
            (Head::bearer(&stranger()), ErrorCode::InvalidKey),
            (Head::bearer("garbage"), ErrorCode::InvalidFormat),
            (
                Head::bearer(&key).with("authorization", "Token x"),
                ErrorCode::InvalidRequest,
            ),
        ] {
            assert_eq!(outcome(head.clone()).await, Err(code), "{head:?}");
        }
    }
    assert!(
        authenticator.authenticate(&Head::new()).await.is_err(),
        "the other one stays as it is"
    );
}

#[tokio::test]
async fn where_authentication_is_optional_failing_credentials_never_pass() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let (other, _) = fixture.issue(&[]).await;
    fixture.manager().revoke(&record.id, None).await.unwrap();
    let authenticator = fixture
        .bearer()
        .basic([format()])
        .header("x-api-key", [format()])
        .optional()
        .build()
        .unwrap();
    for head in [
        Head::bearer(""),
        Head::authorization("Bearer"),
        Head::bearer("garbage"),
        Head::bearer("a, Bearer b"),
        Head::bearer(&stranger()),
        Head::bearer(&key),
        Head::bearer(&with_last_character_wrong(&other)),
        Head::authorization("Basic !"),
        Head::basic(b":"),
        Head::new().with("x-api-key", ""),
        Head::authorization("Token x").with("authorization", "Token y"),
        Head::authorization("Token x").with("authorization", format!("Bearer {other}")),
        Head::bearer(&other).with("x-user-id", "somebody"),
    ] {
        assert!(authenticator.authenticate(&head).await.is_err(), "{head:?}");
    }
}

// ---- acting for users ----

async fn app_and_user(fixture: &Fixture) -> (String, String) {
    let app = fixture
        .issue_new(NewKey::new("app", Owner::tenant(tenant("acme"))))
        .await
        .0;
    let mut new = NewKey::new(
        "user",
        Owner::user(tenant("acme"), user("u-1")).with_email("u1@example.com"),
    );
    new.kind = KeyKind::User;
    (app, fixture.issue_new(new).await.0)
}

#[tokio::test]
async fn without_a_directory_no_key_acts_for_another_user() {
    let fixture = Fixture::new();
    let (app, of_user) = app_and_user(&fixture).await;
    let authenticator = fixture.bearer().build().unwrap();
    for (key, field, value) in [
        (&app, "x-user-id", "u-1"),
        (&app, "x-on-behalf-of", "u-1"),
        (&app, "x-on-behalf-email", "u1@example.com"),
        (&of_user, "x-user-id", "u-2"),
        (&of_user, "x-on-behalf-of", "u-1"),
        (&of_user, "x-on-behalf-email", "u1@example.com"),
    ] {
        let error = refused(&authenticator, &Head::bearer(key).with(field, value)).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::UnknownActor, 403),
            "{field}: {value}"
        );
    }
}

#[tokio::test]
async fn a_user_key_may_name_its_own_user() {
    let fixture = Fixture::new();
    let (_, of_user) = app_and_user(&fixture).await;
    let head = Head::bearer(&of_user).with("x-user-id", "u-1");
    let principal = accepted(&fixture.bearer().build().unwrap(), &head).await;
    let actor = principal.actor();
    assert_eq!(
        (actor.mode, actor.user_id, actor.user_email),
        (ActorMode::User, Some(&user("u-1")), Some("u1@example.com"))
    );
}

#[tokio::test]
async fn ambiguous_actor_headers_are_a_bad_request() {
    let fixture = Fixture::new();
    let (app, of_user) = app_and_user(&fixture).await;
    let authenticator = fixture.bearer().build().unwrap();
    for key in [&app, &of_user] {
        for (what, head) in [
            (
                "repeated",
                Head::bearer(key)
                    .with("x-user-id", "u-1")
                    .with("x-user-id", "u-1"),
            ),
            (
                "two kinds",
                Head::bearer(key)
                    .with("x-user-id", "u-1")
                    .with("x-on-behalf-of", "u-1"),
            ),
            (
                "two other kinds",
                Head::bearer(key)
                    .with("x-on-behalf-of", "u-1")
                    .with("x-on-behalf-email", "u1@example.com"),
            ),
            ("empty", Head::bearer(key).with("x-user-id", "")),
            ("blank", Head::bearer(key).with("x-on-behalf-of", "  \t")),
            (
                "empty beside another",
                Head::bearer(key)
                    .with("x-user-id", "u-1")
                    .with("x-on-behalf-email", ""),
            ),
            ("not UTF-8", Head::bearer(key).with("x-user-id", b"u\xff")),
            (
                "very long",
                Head::bearer(key).with("x-on-behalf-email", "a".repeat(321)),
            ),
        ] {
            assert_eq!(
                code(&authenticator, &head).await,
                ErrorCode::InvalidRequest,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn without_a_real_key_nothing_is_revealed_about_actors() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().build().unwrap();
    let key = stranger();
    for head in [
        Head::bearer(&key),
        Head::bearer(&key).with("x-user-id", "u-1"),
        Head::bearer(&key)
            .with("x-user-id", "")
            .with("x-on-behalf-of", "u-1"),
    ] {
        assert_eq!(code(&authenticator, &head).await, ErrorCode::InvalidKey);
    }
}

#[tokio::test]
async fn fields_that_look_like_the_librarys_own_change_nothing() {
    let fixture = Fixture::new();
    let (app, _) = app_and_user(&fixture).await;
    let head = Head::bearer(&app)
        .with("X_User_Id", "u-1")
        .with("X-User-Id-", "u-1")
        .with("x_on_behalf_of", "u-1");
    let principal = accepted(&fixture.bearer().build().unwrap(), &head).await;
    assert_eq!(
        (principal.mode(), principal.actor().user_id),
        (ActorMode::App, None)
    );
}

// ---- peppers ----

#[tokio::test]
async fn a_key_is_stored_under_the_current_scheme_at_its_next_use() {
    let mut fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let plain = fixture.hasher.digest(&key);
    for (hasher, scheme) in [
        (
            KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap(),
            DigestScheme::HmacSha256 { pepper: 1 },
        ),
        (
            KeyHasher::hmac_sha256(pepper(2))
                .accept_pepper(pepper(1))
                .unwrap(),
            DigestScheme::HmacSha256 { pepper: 2 },
        ),
    ] {
        fixture.hasher = hasher;
        let authenticator = fixture.bearer().build().unwrap();
        assert_eq!(
            accepted(&authenticator, &Head::bearer(&key)).await.key_id(),
            &record.id
        );
        assert_eq!(authenticator.write_rehashes().await, 1);
        let stored = fixture
            .store
            .find(&[fixture.hasher.digest(&key)])
            .await
            .unwrap()
            .expect("under the new digest");
        assert_eq!(
            (stored.digest().scheme(), &stored.record().id),
            (scheme, &record.id)
        );
        assert!(
            fixture.store.find(&[plain]).await.unwrap().is_none(),
            "no longer under the first"
        );
        accepted(&authenticator, &Head::bearer(&key)).await;
    }
    assert_eq!(
        fixture
            .store
            .get(&record.id)
            .await
            .unwrap()
            .unwrap()
            .version,
        1
    );
}

#[tokio::test]
async fn once_a_key_is_rehashed_nothing_more_is_written() {
    let mut fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    let before = fixture.store.writes();
    for _ in 0..10 {
        accepted(&authenticator, &Head::bearer(&key)).await;
        authenticator.write_rehashes().await;
    }
    assert_eq!(fixture.store.writes(), before + 1);
    assert!(
        matches!(
            authenticator.attempt(&Head::bearer(&key)),
            Attempt::Ready(Ok(Authenticated {
                principal: Some(_),
                ..
            }))
        ),
        "and nothing is awaited"
    );
}

#[tokio::test]
async fn keys_under_an_unaccepted_pepper_do_not_work() {
    let mut fixture = Fixture::new();
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1));
    let (key, _) = fixture.issue(&[]).await;
    fixture.hasher = KeyHasher::hmac_sha256(pepper(2)).accept_sha256().unwrap();
    assert_eq!(
        code(&fixture.bearer().build().unwrap(), &Head::bearer(&key)).await,
        ErrorCode::InvalidKey
    );
}

#[tokio::test]
async fn a_key_that_is_refused_is_not_rehashed() {
    let mut fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    fixture.manager().revoke(&record.id, None).await.unwrap();
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    assert_eq!(
        code(&authenticator, &Head::bearer(&key)).await,
        ErrorCode::KeyRevoked
    );
    assert_eq!(authenticator.pending_rehashes(), 0);
}

#[tokio::test]
async fn a_rehash_that_cannot_be_written_lets_the_request_pass_and_is_tried_again_after_a_minute() {
    let mut fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    fixture.store.fail(APPLY);
    let before = fixture.store.writes();
    for _ in 0..5 {
        accepted(&authenticator, &Head::bearer(&key)).await;
        assert_eq!(authenticator.write_rehashes().await, 0);
    }
    assert_eq!(
        fixture.store.writes(),
        before + 1,
        "a store that cannot write is not asked again and again"
    );
    fixture.store.recover();
    assert_eq!(authenticator.write_rehashes().await, 0);
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(authenticator.write_rehashes().await, 1);
    assert_eq!(fixture.store.writes(), before + 2);
    assert!(
        fixture
            .store
            .find(&[fixture.hasher.digest(&key)])
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn rolling_a_pepper_back_does_not_write_on_every_request() {
    // An instance with pepper 2 used the key and was then rolled back.
    let mut fixture = Fixture::new();
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1));
    let (key, _) = fixture.issue(&[]).await;
    fixture.hasher = KeyHasher::hmac_sha256(pepper(2))
        .accept_pepper(pepper(1))
        .unwrap();
    let with_two = fixture.bearer().build().unwrap();
    accepted(&with_two, &Head::bearer(&key)).await;
    assert_eq!(with_two.write_rehashes().await, 1);
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1))
        .accept_pepper(pepper(2))
        .unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    let before = fixture.store.writes();
    for _ in 0..10 {
        accepted(&authenticator, &Head::bearer(&key)).await;
        authenticator.write_rehashes().await;
    }
    assert!(
        fixture.store.writes() <= before + 1,
        "{} writes for ten requests",
        fixture.store.writes() - before
    );
}

#[tokio::test]
async fn a_writer_that_hangs_holds_up_no_request() {
    let mut fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    fixture.store.hold(APPLY);
    accepted(&authenticator, &Head::bearer(&key)).await;
    let mut writing = std::pin::pin!(authenticator.write_rehashes());
    assert!(writing.as_mut().now_or_never().is_none(), "it hangs");
    for _ in 0..1000 {
        let attempt = authenticator.attempt(&Head::bearer(&key));
        assert!(matches!(attempt, Attempt::Ready(Ok(_))), "{attempt:?}");
    }
    assert_eq!(authenticator.pending_rehashes(), 1, "one per key");
    fixture.store.release(APPLY);
    assert_eq!((writing.await, authenticator.pending_rehashes()), (1, 0));
}

#[tokio::test]
async fn a_write_of_rehashes_that_is_dropped_loses_none() {
    let mut fixture = Fixture::new();
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(fixture.issue(&[]).await.0);
    }
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    for key in &keys {
        accepted(&authenticator, &Head::bearer(key)).await;
    }
    for point in [APPLY, Point::After(Call::Apply)] {
        fixture.store.hold(point);
        assert!(authenticator.write_rehashes().now_or_never().is_none());
        fixture.store.release(point);
        assert_eq!(authenticator.pending_rehashes(), 3, "{point:?}");
    }
    authenticator.write_rehashes().await;
    assert_eq!(authenticator.pending_rehashes(), 0);
    for key in &keys {
        let stored = fixture.store.find(&[fixture.hasher.digest(key)]).await;
        assert!(stored.unwrap().is_some());
    }
}

#[tokio::test]
async fn at_most_a_thousand_keys_are_tracked() {
    let mut fixture = Fixture::new();
    let mut keys = Vec::new();
    for _ in 0..1_010 {
        keys.push(fixture.issue(&[]).await.0);
    }
    fixture.hasher = KeyHasher::hmac_sha256(pepper(1)).accept_sha256().unwrap();
    let authenticator = fixture.bearer().build().unwrap();
    for round in [1_000, 10, 0] {
        for key in &keys {
            accepted(&authenticator, &Head::bearer(key)).await;
        }
        assert_eq!(authenticator.pending_rehashes(), round);
        assert_eq!(authenticator.write_rehashes().await, round);
    }
}

// ---- two authenticators on one store ----

/// A model that grants nothing, whatever is stored.
#[derive(Debug)]
struct NothingModel;

impl ScopeModel for NothingModel {
    fn compile(&self, _: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        WildcardModel.compile(&[])
    }
}

/// A model that rejects every name.
#[derive(Debug)]
struct UnreadableModel;

impl ScopeModel for UnreadableModel {
    fn compile(&self, _: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        Err(Scope::new("not a scope").unwrap_err())
    }
}

#[tokio::test]
async fn authenticators_on_one_store_never_take_each_others_idea_of_a_key() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["document:read"]).await;
    let head = Head::bearer(&key);
    let read = Requirement::scope(scope("document:read"));
    // More of them than are cached, in a mixed order.
    let all: Vec<(bool, Authenticator)> = (0..12)
        .map(|number| match number % 2 {
            0 => (true, fixture.bearer().build().unwrap()),
            _ => (
                false,
                fixture.bearer().scope_model(NothingModel).build().unwrap(),
            ),
        })
        .collect();
    for _ in 0..3 {
        for (may, authenticator) in all.iter().chain(all.iter().rev()) {
            assert_eq!(
                accepted(authenticator, &head).await.require(&read).is_ok(),
                *may
            );
        }
    }
}

#[tokio::test]
async fn keys_of_a_kind_without_scopes_may_do_everything_for_that_authenticator_only() {
    let fixture = Fixture::new();
    let (app, of_user) = app_and_user(&fixture).await;
    let unscoped = fixture
        .bearer()
        .grant_everything_to([KeyKind::App])
        .build()
        .unwrap();
    let scoped = fixture.bearer().build().unwrap();
    let anything = Requirement::all_of([scope("document:delete"), scope("*")]);
    assert!(
        accepted(&unscoped, &Head::bearer(&app))
            .await
            .require(&anything)
            .is_ok()
    );
    assert!(
        accepted(&unscoped, &Head::bearer(&of_user))
            .await
            .require(&anything)
            .is_err()
    );
    assert!(
        accepted(&scoped, &Head::bearer(&app))
            .await
            .require(&anything)
            .is_err()
    );
}

#[tokio::test]
async fn an_environment_or_a_format_of_one_authenticator_binds_no_other() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let (live_only, test_only) = (
        fixture.bearer().environment(live()).build().unwrap(),
        fixture.bearer().environment(test()).build().unwrap(),
    );
    for _ in 0..2 {
        accepted(&live_only, &Head::bearer(&key)).await;
        assert_eq!(
            code(&test_only, &Head::bearer(&key)).await,
            ErrorCode::WrongEnvironment
        );
    }
}

#[tokio::test]
async fn a_grant_that_cannot_be_understood_refuses_the_key() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["document:read"]).await;
    let authenticator = fixture
        .bearer()
        .scope_model(UnreadableModel)
        .build()
        .unwrap();
    for _ in 0..2 {
        let error = refused(&authenticator, &Head::bearer(&key)).await;
        assert_eq!(error.status(), 503);
    }
    accepted(&fixture.bearer().build().unwrap(), &Head::bearer(&key)).await;
}

// ---- usage ----

#[tokio::test]
async fn accepted_requests_are_counted_and_refused_ones_are_not() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let start = fixture.clock.now();
    accepted(&authenticator, &Head::bearer(&key).from("192.0.2.1")).await;
    fixture.clock.advance(Duration::from_secs(5));
    accepted(&authenticator, &Head::bearer(&key).from("192.0.2.2")).await;
    fixture.clock.advance(Duration::from_secs(5));
    refused(
        &authenticator,
        &Head::bearer(&key).with("x-user-id", "").from("192.0.2.3"),
    )
    .await;
    refused(
        &authenticator,
        &Head::bearer(&with_last_character_wrong(&key)),
    )
    .await;
    authenticator.usage().flush(&fixture.store).await.unwrap();
    let usage = used(&fixture.store, &record.id).await;
    assert_eq!(
        (usage.count, usage.last_used_at),
        (2, Some(start + Duration::from_secs(5)))
    );
    assert_eq!(usage.last_ip, Some(IpAddr::from([192, 0, 2, 2])));
}

#[tokio::test]
async fn a_clock_that_was_ahead_is_believed_until_the_next_use_only() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let start = fixture.clock.now();
    fixture.clock.step_to(start + Duration::from_secs(3600));
    accepted(&authenticator, &Head::bearer(&key)).await;
    fixture.clock.step_to(start + Duration::from_secs(1));
    accepted(&authenticator, &Head::bearer(&key)).await;
    authenticator.usage().flush(&fixture.store).await.unwrap();
    let usage = used(&fixture.store, &record.id).await;
    assert_eq!(
        (usage.count, usage.last_used_at),
        (2, Some(start + Duration::from_secs(1)))
    );
}

#[tokio::test]
async fn flushed_usage_is_not_counted_again() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    for flushed in 1..=4_u64 {
        accepted(&authenticator, &Head::bearer(&key)).await;
        authenticator.usage().flush(&fixture.store).await.unwrap();
        authenticator.usage().flush(&fixture.store).await.unwrap();
        assert_eq!(used(&fixture.store, &record.id).await.count, flushed);
    }
}

#[tokio::test]
async fn counts_that_the_store_did_not_take_go_with_the_next_flush() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    fixture.store.fail(Point::Before(Call::RecordUsage));
    for _ in 0..3 {
        accepted(&authenticator, &Head::bearer(&key).from("192.0.2.1")).await;
        authenticator
            .usage()
            .flush(&fixture.store)
            .await
            .unwrap_err();
    }
    fixture.store.recover();
    authenticator.usage().flush(&fixture.store).await.unwrap();
    let usage = used(&fixture.store, &record.id).await;
    assert_eq!(
        (usage.count, usage.last_used_at),
        (3, Some(fixture.clock.now()))
    );
    assert_eq!(usage.last_ip, Some(IpAddr::from([192, 0, 2, 1])));
}

#[tokio::test]
async fn counts_survive_a_change_of_the_record_between_uses() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    accepted(&authenticator, &Head::bearer(&key)).await;
    fixture
        .change(&record.id, |record| record.name = "renamed".into())
        .await;
    accepted(&authenticator, &Head::bearer(&key)).await;
    authenticator.usage().flush(&fixture.store).await.unwrap();
    fixture
        .change(&record.id, |record| record.name = "again".into())
        .await;
    accepted(&authenticator, &Head::bearer(&key)).await;
    authenticator.usage().flush(&fixture.store).await.unwrap();
    assert_eq!(used(&fixture.store, &record.id).await.count, 3);
}

#[tokio::test]
async fn an_authenticator_for_optional_keys_counts_in_the_same_place() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let one = fixture.bearer().build().unwrap();
    let other = one.optional_key();
    accepted(&one, &Head::bearer(&key)).await;
    accepted(&other, &Head::bearer(&key)).await;
    one.usage().flush(&fixture.store).await.unwrap();
    assert_eq!(used(&fixture.store, &record.id).await.count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_use_is_lost_or_counted_twice_while_flushes_run() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (authenticator, key) = (authenticator.clone(), key.clone());
        tasks.spawn(async move {
            for _ in 0..500 {
                let attempt = authenticator.attempt(&Head::bearer(&key).from("192.0.2.1"));
                assert!(matches!(
                    attempt,
                    Attempt::Ready(Ok(Authenticated {
                        principal: Some(_),
                        ..
                    }))
                ));
                tokio::task::yield_now().await;
            }
        });
    }
    let (flushing, store) = (authenticator.clone(), fixture.store.clone());
    tasks.spawn(async move {
        for round in 0..200 {
            if round % 3 == 0 {
                store.fail(Point::Before(Call::RecordUsage));
            } else {
                store.recover();
            }
            let _ = flushing.usage().flush(&store).await;
            tokio::task::yield_now().await;
        }
        store.recover();
    });
    tasks.join_all().await;
    authenticator.usage().flush(&fixture.store).await.unwrap();
    assert_eq!(used(&fixture.store, &record.id).await.count, 2000);
}

// ---- responses ----

fn lines(authenticator: &Authenticator, error: &AuthError, name: &str) -> Vec<String> {
    let answer = authenticator.responder().answer(error, &Head::new());
    answer
        .fields
        .iter()
        .filter(|(field, _)| *field == name)
        .map(|(_, value)| value.to_string())
        .collect()
}

#[tokio::test]
async fn every_refusal_is_marked_not_to_be_stored_and_every_401_carries_a_challenge() {
    let fixture = Fixture::new();
    let authenticators = [
        fixture.bearer().build().unwrap(),
        fixture.bare().basic([format()]).build().unwrap(),
        fixture
            .bare()
            .header("x-api-key", [format()])
            .build()
            .unwrap(),
    ];
    for authenticator in &authenticators {
        for &code in ErrorCode::ALL {
            let error = AuthError::new(code);
            assert_eq!(
                lines(authenticator, &error, "cache-control"),
                ["no-store"],
                "{code}"
            );
            if code.status() == 401 {
                assert_eq!(
                    lines(authenticator, &error, "www-authenticate").len(),
                    1,
                    "{code}"
                );
            }
        }
    }
}

#[test]
fn challenges_have_one_line_per_scheme_with_realm_and_error() {
    let fixture = Fixture::new();
    let authenticator = fixture
        .bearer()
        .basic([format()])
        .header("X-API-Key", [format()])
        .realm("acme")
        .build()
        .unwrap();
    let challenge = |error: &AuthError| lines(&authenticator, error, "www-authenticate");
    let others = [
        r#"Basic realm="acme", charset="UTF-8""#,
        r#"ApiKey realm="acme", header="x-api-key""#,
    ];
    for (code, bearer) in [
        (ErrorCode::MissingKey, r#"Bearer realm="acme""#),
        (
            ErrorCode::InvalidRequest,
            r#"Bearer realm="acme", error="invalid_request""#,
        ),
        (
            ErrorCode::InvalidFormat,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            ErrorCode::InvalidKey,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            ErrorCode::KeyRevoked,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            ErrorCode::KeyExpired,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            ErrorCode::KeyDisabled,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            ErrorCode::WrongEnvironment,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
    ] {
        assert_eq!(
            challenge(&AuthError::new(code)),
            [bearer, others[0], others[1]],
            "{code}"
        );
    }
    for code in [
        ErrorCode::UnknownActor,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::RateLimited,
        ErrorCode::StoreUnavailable,
    ] {
        assert!(challenge(&AuthError::new(code)).is_empty(), "{code}");
    }
}

#[test]
fn a_refusal_for_a_missing_scope_names_the_first_alternative() {
    let fixture = Fixture::new();
    let authenticator = fixture
        .bearer()
        .basic([format()])
        .realm("acme")
        .build()
        .unwrap();
    let granted = WildcardModel.compile(&[]).unwrap();
    for (requirement, scopes) in [
        (ScopeRequirement::scope(scope("a:write")), "a:write"),
        (
            ScopeRequirement::any_of([scope("a:write"), scope("a:*")]),
            "a:write",
        ),
        (
            ScopeRequirement::all_of([scope("a:write"), scope("b:read")]),
            "a:write b:read",
        ),
    ] {
        let error = AuthError::insufficient_scope(&requirement, &*granted);
        let expected =
            format!(r#"Bearer realm="acme", error="insufficient_scope", scope="{scopes}""#);
        assert_eq!(
            lines(&authenticator, &error, "www-authenticate"),
            [expected]
        );
    }
}

#[test]
fn a_realm_cannot_break_out_of_its_quotes() {
    let fixture = Fixture::new();
    let authenticator = fixture
        .bearer()
        .realm("a\", error=\"x\\\r\nSet-Cookie: a=b\u{e9}")
        .build()
        .unwrap();
    let line = lines(
        &authenticator,
        &AuthError::new(ErrorCode::MissingKey),
        "www-authenticate",
    )
    .concat();
    assert_eq!(line, r#"Bearer realm="a, error=xSet-Cookie: a=b""#);
}

#[test]
fn a_retry_is_never_invited_too_early() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().build().unwrap();
    let error = AuthError::unavailable(ErrorCode::StoreUnavailable, "down");
    let seconds: u64 = lines(&authenticator, &error, "retry-after")
        .concat()
        .parse()
        .unwrap();
    assert!(Duration::from_secs(seconds) >= error.retry_after().unwrap());
}

#[test]
fn codes_are_stable_and_distinct_and_problems_repeat_the_status() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().build().unwrap();
    let mut seen = std::collections::HashSet::new();
    for &code in ErrorCode::ALL {
        assert!(seen.insert(code.as_str()), "{code}");
        assert!(
            code.as_str()
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b == b'_'),
            "{code}"
        );
        let answer = authenticator.responder().answer(
            &AuthError::with_detail(code, "a \"quoted\"\n detail"),
            &Head::new(),
        );
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.fields[0].1, "application/problem+json");
        assert_eq!(
            (body["status"].as_u64(), body["code"].as_str()),
            (Some(u64::from(answer.status)), Some(code.as_str()))
        );
        assert_eq!(body["detail"], "a \"quoted\"\n detail");
        let usual: serde_json::Value = serde_json::from_slice(
            &authenticator
                .responder()
                .answer(&AuthError::new(code), &Head::new())
                .body,
        )
        .unwrap();
        assert_eq!(body["title"], usual["title"], "{code}");
        assert_ne!(body["title"], "Error", "{code}");
    }
}

#[test]
fn of_two_formats_with_and_without_checksum_either_may_match() {
    // Both accept the prefix; a key with a wrong checksum for one may be well-formed for the other.
    let fixture = Fixture::new();
    let strict = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 30)
        .checksum(Checksum::Crc32Base62)
        .build()
        .unwrap();
    let loose = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 36)
        .build()
        .unwrap();
    let authenticator = fixture
        .bare()
        .bearer([strict.clone(), loose])
        .build()
        .unwrap();
    let typo = with_last_character_wrong(&strict.generate(None, None).unwrap().reveal());
    let Attempt::Ready(Err(error)) = authenticator.attempt(&Head::bearer(&typo)) else {
        panic!("nobody has it")
    };
    assert_eq!(
        (error.code(), fixture.store.finds()),
        (ErrorCode::InvalidKey, 1)
    );
}

/// A record as a store might return it, for values that the manager refuses.
#[tokio::test]
async fn a_stored_key_is_judged_by_its_record_and_not_by_its_text() {
    // A key whose text contains live and whose record contains test: imported incorrectly, or
    // tampered with.
    let fixture = Fixture::new();
    let key = stranger();
    let record = KeyRecord::new(
        portunus::key::KeyId::generate().unwrap(),
        "imported",
        KeyKind::App,
        test(),
        Owner::tenant(tenant("acme")),
        fixture.clock.now(),
    );
    let change = Change::Insert {
        digest: fixture.hasher.digest(&key),
        record: Box::new(record),
    };
    fixture
        .store
        .apply(&WriteBatch::new().change(change))
        .await
        .unwrap();
    let bound = fixture.bearer().environment(live()).build().unwrap();
    assert_eq!(
        code(&bound, &Head::bearer(&key)).await,
        ErrorCode::WrongEnvironment
    );
}

#[tokio::test]
async fn a_key_that_expires_while_its_store_is_asked_is_refused() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let end = fixture.clock.now() + Duration::from_secs(60);
    fixture
        .change(&record.id, |record| record.expires_at = Some(end))
        .await;
    fixture.store.answer_late(1);
    let authenticator = fixture.bearer().build().unwrap();
    let attempt = authenticator.attempt(&Head::bearer(&key));
    assert!(matches!(attempt, Attempt::Pending(_)));
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(
        attempt.outcome().await.unwrap_err().code(),
        ErrorCode::KeyExpired
    );
}
