//! Importing keys from another system: digests in every notation, effective at once, rehashed on
//! first use, and never imported twice.

use crate::life::{
    Desk, HOUR, acme, ann, ending, field, issue, named, operator, refused, with_scopes,
};
use hmac::{Hmac, KeyInit, Mac};
use portunus::ErrorCode;
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{DigestScheme, KeyHasher, KeyKind, Owner, Pepper, WorkspaceId};
use portunus::manage::{
    Denied, ImportedDigest, KeyManager, ManageError, NewImport, NewKey, Operator, Role, own_keys,
};
use portunus::store::KeyLookup;
use portunus::store::ListQuery;
use portunus_profiles::Profile;
use portunus_test_support::{Setup, base64, format, live, scope, stranger, user};
use sha2::{Digest, Sha256, Sha512};

const PEPPER: [u8; 32] = [7; 32];

fn pepper(version: u32, secret: [u8; 32]) -> Pepper {
    Pepper::new(version, &secret).unwrap()
}

/// Keys are stored under pepper 2; imported ones may be under pepper 1, SHA-256 or SHA-512.
fn moving() -> Desk {
    let mut desk = Desk::new();
    let hasher = KeyHasher::hmac_sha256(pepper(2, [8; 32]))
        .accept_pepper(pepper(1, PEPPER))
        .unwrap();
    desk.hasher = hasher.accept_sha256().unwrap().accept_sha512().unwrap();
    desk
}

/// The digest of a key as computed by the other system.
fn digest(scheme: &str, key: &str) -> Vec<u8> {
    match scheme {
        "sha256" => Sha256::digest(key).to_vec(),
        "sha512" => Sha512::digest(key).to_vec(),
        _ => {
            let mut mac = Hmac::<Sha256>::new_from_slice(&PEPPER).unwrap();
            mac.update(key.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SCHEMES: [&str; 3] = ["sha256", "sha512", "hmac-sha256:1"];

async fn scheme_of(desk: &Desk, key: &str) -> Option<DigestScheme> {
    for scheme in ["sha256", "sha512", "hmac-sha256:1"] {
        let imported = digest(scheme, key);
        let stored = match scheme {
            "sha512" => portunus::key::KeyDigest::of_sha512(&imported.try_into().unwrap()),
            _ => {
                portunus::key::KeyDigest::new(scheme.parse().unwrap(), imported.try_into().unwrap())
            }
        };
        if desk.store.find(&[stored]).await.unwrap().is_some() {
            return Some(stored.scheme());
        }
    }
    let current = desk.hasher.digest(key);
    desk.store
        .find(&[current])
        .await
        .unwrap()
        .map(|_| current.scheme())
}

#[tokio::test]
async fn a_key_works_at_once_and_is_made_anew_under_the_current_scheme_at_its_first_use() {
    for scheme in SCHEMES {
        let (desk, key) = (moving(), stranger());
        assert_eq!(desk.refusal(&key).await, Some(ErrorCode::InvalidKey));
        let taken = ImportedDigest::from_hex(scheme, &hex(&digest(scheme, &key))).unwrap();
        let imported = desk
            .host()
            .import(NewImport::new(taken, with_scopes(&["a"])))
            .await
            .unwrap();
        assert!(
            imported.primary && imported.record.may_be_primary,
            "where no events are signed"
        );
        assert_eq!(scheme_of(&desk, &key).await, Some(scheme.parse().unwrap()));
        assert_eq!(desk.refusal(&key).await, None, "{scheme}");
        assert_eq!(
            scheme_of(&desk, &key).await,
            Some(DigestScheme::HmacSha256 { pepper: 2 }),
            "{scheme}"
        );
        assert_eq!(desk.refusal(&key).await, None, "{scheme}");
        let stored = desk.stored(&imported.record.id).await.unwrap();
        assert_eq!(stored, imported.record, "a new digest is no new version");
    }
}

#[tokio::test]
async fn every_notation_of_a_digest_is_the_same_digest() {
    for scheme in SCHEMES {
        let bytes = digest(scheme, "some key with + and / in its digest");
        let expected = ImportedDigest::new(scheme, &bytes).unwrap();
        let standard = base64(&bytes);
        let url_safe = standard.replace('+', "-").replace('/', "_");
        let bare = |text: &str| text.trim_end_matches('=').to_owned();
        for text in [
            standard.clone(),
            url_safe.clone(),
            bare(&standard),
            bare(&url_safe),
        ] {
            assert_eq!(
                ImportedDigest::from_base64(scheme, &text).unwrap(),
                expected,
                "{text}"
            );
        }
        for text in [hex(&bytes), hex(&bytes).to_uppercase()] {
            assert_eq!(
                ImportedDigest::from_hex(scheme, &text).unwrap(),
                expected,
                "{text}"
            );
        }
    }
}

#[test]
fn an_invalid_digest_is_refused_without_quoting_it() {
    let good = hex(&[0xab; 32]);
    let other = "a".repeat(1 << 20);
    for wrong in [
        "",
        &good[1..],
        &good[2..],
        &format!("{good}00"),
        &format!(" {good}"),
        &format!("0x{}", &good[2..]),
        &good.replace("ab", "é"),
        &good.replace("ab", "+1"),
        &good.replace("ab", "zz"),
        &other,
    ] {
        let refused = ImportedDigest::from_hex("sha256", wrong).unwrap_err();
        assert!(
            matches!(
                refused,
                ManageError::Invalid {
                    field: "digest",
                    ..
                }
            ),
            "{wrong:.80}"
        );
        assert!(refused.to_string().len() < 200 && !refused.to_string().contains(&good[2..]));
    }
    let text = base64(&[0xfb; 32]);
    let mixed = text.replacen('+', "-", 1);
    let dirty = format!("{}5=", &text[..42]);
    for wrong in [
        "",
        "!",
        &text[..40],
        &text[1..],
        &format!("{text}AAAA"),
        &format!("{text}\n"),
        &mixed,
        &dirty,
        &other,
    ] {
        assert!(
            ImportedDigest::from_base64("sha256", wrong).is_err(),
            "{wrong:.80}"
        );
    }
    for scheme in [
        "",
        "md5",
        "SHA256",
        "sha-256",
        "sha1",
        "hmac-sha256",
        "hmac-sha256:",
        "hmac-sha256:-1",
        "hmac-sha256:4294967296",
    ] {
        assert!(ImportedDigest::new(scheme, &[1; 32]).is_err(), "{scheme:?}");
    }
    assert!(
        ImportedDigest::new("sha512", &[1; 32]).is_err()
            && ImportedDigest::new("sha256", &[1; 64]).is_err()
    );
    assert!(!format!("{:?}", ImportedDigest::new("sha256", &[0xab; 32]).unwrap()).contains("171"));
}

#[tokio::test]
async fn a_scheme_that_lookups_do_not_use_is_refused() {
    let desk = Desk::new();
    for (scheme, length) in [("sha512", 64), ("hmac-sha256:1", 32)] {
        let taken = ImportedDigest::new(scheme, &vec![1; length]).unwrap();
        assert_eq!(
            field(
                desk.host()
                    .import(NewImport::new(taken, named("key")))
                    .await
            ),
            "digest"
        );
    }
    let taken = ImportedDigest::new("hmac-sha256:3", &[1; 32]).unwrap();
    assert_eq!(
        field(
            moving()
                .host()
                .import(NewImport::new(taken, named("key")))
                .await
        ),
        "digest",
        "an unknown pepper"
    );
    assert_eq!(
        desk.last_event().await.outcome,
        AuditOutcome::Refused(ErrorCode::InvalidBody)
    );
}

#[tokio::test]
async fn a_known_digest_is_refused_in_every_state_of_its_key() {
    for end in [
        "nothing",
        "revoked",
        "deleted",
        "expired",
        "made anew",
        "made anew and deleted",
    ] {
        let (desk, key) = (moving(), stranger());
        let manager = desk.host();
        issue(&manager, named("the primary one")).await;
        let taken = ImportedDigest::new("sha256", &digest("sha256", &key)).unwrap();
        let first = manager
            .import(NewImport::new(taken, ending("key", desk.now() + HOUR)))
            .await
            .unwrap();
        if end.contains("anew") {
            assert_eq!(desk.refusal(&key).await, None);
            assert_eq!(
                scheme_of(&desk, &key).await,
                Some(DigestScheme::HmacSha256 { pepper: 2 })
            );
        }
        match end {
            "revoked" => drop(manager.revoke(&first.record.id, None).await.unwrap()),
            _ if end.contains("deleted") => manager.delete(&first.record.id).await.unwrap(),
            "expired" => desk.clock.advance(HOUR),
            _ => {}
        }
        let before = desk.all().await;
        let again = manager
            .import(NewImport::new(taken, named("again")))
            .await
            .unwrap_err();
        assert!(matches!(again, ManageError::DigestKnown), "{end}: {again}");
        assert_eq!(again.code().status(), 409);
        assert_eq!(desk.all().await, before, "{end}");
        let event = desk.last_event().await;
        assert_eq!(
            (event.action, event.outcome),
            (
                Action::KeyImport,
                AuditOutcome::Refused(ErrorCode::Conflict)
            )
        );
    }
}

#[tokio::test]
async fn the_digest_of_an_issued_key_cannot_be_imported_even_after_it_was_deleted() {
    let desk = Desk::new();
    let (key, record) = issue(&desk.host(), named("key")).await;
    let taken = ImportedDigest::new("sha256", &digest("sha256", &key)).unwrap();
    assert_eq!(
        refused(
            desk.host()
                .import(NewImport::new(taken, with_scopes(&["*"])))
                .await
        ),
        ErrorCode::Conflict
    );
    desk.host().delete(&record.id).await.unwrap();
    assert_eq!(
        refused(
            desk.host()
                .import(NewImport::new(taken, with_scopes(&["*"])))
                .await
        ),
        ErrorCode::Conflict
    );
    assert_eq!(desk.refusal(&key).await, Some(ErrorCode::InvalidKey));
}

#[tokio::test]
async fn an_import_follows_the_rules_of_issuing() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(1));
    let taken = |byte: u8| ImportedDigest::new("sha256", &[byte; 32]).unwrap();
    assert_eq!(
        field(manager.import(NewImport::new(taken(1), named(""))).await),
        "name"
    );
    assert_eq!(
        field(
            manager
                .import(NewImport::new(taken(1), ending("key", desk.now())))
                .await
        ),
        "expires_at"
    );
    let mut of_nobody = named("key");
    of_nobody.kind = KeyKind::User;
    assert_eq!(
        field(manager.import(NewImport::new(taken(1), of_nobody)).await),
        "owner.user_id"
    );
    for last_four in ["12345", "a\0", "\u{1b}[2J"] {
        let mut import = NewImport::new(taken(1), named("key"));
        import.last_four = Some(last_four.into());
        assert_eq!(
            field(manager.import(import).await),
            "last_four",
            "{last_four:?}"
        );
    }
    let mut import = NewImport::new(taken(1), named("key"));
    import.last_four = Some("wxyz".into());
    let imported = manager.import(import).await.unwrap().record;
    assert_eq!(
        (
            imported.masked.as_str(),
            imported.version,
            &imported.environment
        ),
        ("…wxyz", 1, &live())
    );
    assert_eq!(
        refused(manager.import(NewImport::new(taken(2), named("key"))).await),
        ErrorCode::QuotaExceeded
    );
    manager.revoke(&imported.id, None).await.unwrap();
    manager
        .import(NewImport::new(taken(2), named("key")))
        .await
        .expect("a refused import leaves no tombstone");
}

#[tokio::test]
async fn the_display_of_an_imported_key_is_one_line() {
    let desk = Desk::new();
    let mut import = NewImport::new(
        ImportedDigest::new("sha256", &[1; 32]).unwrap(),
        named("key"),
    );
    import.last_four = Some("a\nb".into());
    assert_eq!(field(desk.host().import(import).await), "last_four");
}

#[tokio::test]
async fn imported_keys_of_an_api_that_never_expires_do_not_either() {
    let desk = Desk::new();
    let manager = Setup::of(desk.store.clone(), Profile::DropboxSign)
        .clock(desk.clock.clone())
        .manager();
    let taken = ImportedDigest::new("sha256", &[1; 32]).unwrap();
    assert_eq!(
        field(
            manager
                .import(NewImport::new(taken, ending("key", desk.now() + HOUR)))
                .await
        ),
        "expires_at"
    );
    assert_eq!(
        field(
            manager
                .import(NewImport::new(taken, with_scopes(&["account_access"])))
                .await
        ),
        "scopes"
    );
    let mut token = NewKey::new("token", Owner::user(acme().tenant_id, user("ann")))
        .with_scopes([scope("account_access")]);
    token.kind = KeyKind::AccessToken;
    let token = manager.import(NewImport::new(taken, token)).await.unwrap();
    assert_eq!(token.record.expires_at, Some(desk.now() + HOUR));
    assert!(!token.primary);
}

#[tokio::test]
async fn an_imported_key_can_be_rotated_into_one_that_was_seen() {
    let (desk, key) = (moving(), stranger());
    let taken = ImportedDigest::new("sha512", &digest("sha512", &key)).unwrap();
    let imported = desk
        .host()
        .import(NewImport::new(taken, with_scopes(&["a"])))
        .await
        .unwrap();
    let rotated = desk
        .host()
        .rotate(&imported.record.id, Some(HOUR))
        .await
        .unwrap();
    assert_eq!(rotated.record.scopes, [scope("a")]);
    let fresh = rotated.key.reveal();
    assert!(
        format().parse(&fresh).is_ok()
            && rotated.record.masked.ends_with(&fresh[fresh.len() - 4..])
    );
    assert_eq!(
        (desk.refusal(&key).await, desk.refusal(&fresh).await),
        (None, None)
    );
    desk.clock.advance(HOUR);
    assert_eq!(
        (desk.refusal(&key).await, desk.refusal(&fresh).await),
        (Some(ErrorCode::KeyExpired), None)
    );
}

#[tokio::test]
async fn one_secret_imported_under_two_schemes_is_refused_once_its_first_record_is_revoked() {
    let (desk, key) = (moving(), stranger());
    issue(&desk.host(), named("the primary one")).await;
    let mut records = Vec::new();
    for scheme in ["sha256", "sha512"] {
        let taken = ImportedDigest::new(scheme, &digest(scheme, &key)).unwrap();
        records.push(
            desk.host()
                .import(NewImport::new(taken, named(scheme)))
                .await
                .unwrap()
                .record,
        );
    }
    assert_eq!(desk.refusal(&key).await, None);
    desk.host()
        .revoke(&records[0].id, Some("leaked"))
        .await
        .unwrap();
    assert_eq!(
        desk.refusal(&key).await,
        Some(ErrorCode::KeyRevoked),
        "no older digest opens what was closed"
    );
    assert_eq!(
        desk.host()
            .list(ListQuery::new(desk.now()))
            .await
            .unwrap()
            .items
            .len(),
        3
    );
}

#[tokio::test]
async fn a_secret_that_was_ended_does_not_come_back_under_another_scheme() {
    for (first, second) in [
        ("sha256", "sha512"),
        ("sha512", "sha256"),
        ("sha512", "hmac-sha256:1"),
    ] {
        for used in [true, false] {
            for deleted in [true, false] {
                let (desk, key) = (moving(), stranger());
                issue(&desk.host(), named("the primary one")).await;
                let taken =
                    |scheme| ImportedDigest::from_hex(scheme, &hex(&digest(scheme, &key))).unwrap();
                let id = desk
                    .host()
                    .import(NewImport::new(taken(first), named("first")))
                    .await
                    .unwrap()
                    .record
                    .id
                    .clone();
                if used {
                    assert_eq!(desk.refusal(&key).await, None);
                }
                match deleted {
                    true => desk.host().delete(&id).await.unwrap(),
                    false => drop(desk.host().revoke(&id, None).await.unwrap()),
                }
                desk.host()
                    .import(NewImport::new(taken(second), named("second")))
                    .await
                    .unwrap();
                for _ in 0..2 {
                    let refusal = desk.refusal(&key).await;
                    let expected = if deleted {
                        ErrorCode::InvalidKey
                    } else {
                        ErrorCode::KeyRevoked
                    };
                    assert_eq!(
                        refusal,
                        Some(expected),
                        "{first}, {second}, used {used}, deleted {deleted}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn salted_digests_are_refused_with_the_reason() {
    let bcrypt = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
    let argon2 = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27Wpow+6UKpRzFb";
    for (scheme, text) in [
        ("sha256", bcrypt),
        ("sha256", argon2),
        ("bcrypt", bcrypt),
        ("bcrypt", "00"),
        ("argon2id", argon2),
        ("Argon2", ""),
        (bcrypt, ""),
        ("$2", "é"),
    ] {
        for read in [ImportedDigest::from_hex, ImportedDigest::from_base64] {
            let error = read(scheme, text).unwrap_err();
            let why = "digest: salted digests (bcrypt, argon2) cannot be looked up";
            assert_eq!(error.to_string(), why, "{scheme} {text}");
        }
    }
    for (scheme, text) in [("sha256", "2"), ("sha256", "argon2"), ("sha256", "é$2")] {
        let error = ImportedDigest::from_hex(scheme, text).unwrap_err();
        assert_eq!(error.to_string(), "digest: not hexadecimal");
    }
}

/// The digest of a key under an accepted scheme.
fn taken(scheme: &str, key: &str) -> ImportedDigest {
    ImportedDigest::new(scheme, &digest(scheme, key)).unwrap()
}

/// A new key that reaches one workspace.
fn within(workspace: &str) -> NewKey {
    let mut new = with_scopes(&["a"]);
    new.workspaces = Some(vec![WorkspaceId::new(workspace).unwrap()]);
    new
}

/// An operator of acme, with what its keys may grant.
fn of_acme(name: &str, role: Role) -> Operator {
    operator(name, "acme", role).with_authority([scope("a")])
}

/// Operators who do not see all keys of acme, and a key that each of them may import.
fn confined(host: &KeyManager) -> [(KeyManager, NewKey); 3] {
    let self_serve = |role| {
        let ann = of_acme("ann", role).in_organization();
        host.under(own_keys()).by(ann)
    };
    let mut own = NewKey::new("own", ann()).with_scopes([scope("a")]);
    own.kind = KeyKind::User;
    let admin = of_acme("bob", Role::Admin).in_workspaces([WorkspaceId::new("ws1").unwrap()]);
    [
        (self_serve(Role::Member), own.clone()),
        (self_serve(Role::Owner), own),
        (host.by(admin), within("ws1")),
    ]
}

/// Returns a refusal by the policy.
fn denied<T: std::fmt::Debug>(result: Result<T, ManageError>) -> Denied {
    match result {
        Err(ManageError::Forbidden(denied)) => denied,
        other => panic!("expected a refusal by the policy: {other:?}"),
    }
}

#[tokio::test]
async fn an_operator_who_does_not_see_a_key_cannot_end_it_by_an_older_digest_of_its_secret() {
    let desk = moving();
    let host = desk.host();
    for (manager, new) in confined(&host) {
        // A key that this operator does not see, and one that was imported and is not used yet.
        let (key, record) = issue(&host, within("ws2")).await;
        let imported = stranger();
        let import = NewImport::new(taken("sha512", &imported), within("ws2"));
        host.import(import).await.unwrap();
        assert!(manager.get(&record.id).await.is_err());
        let before = desk.all().await;
        let mut refusals = Vec::new();
        for scheme in SCHEMES {
            for key in [&key, &imported, &stranger()] {
                let import = NewImport::new(taken(scheme, key), new.clone());
                refusals.push(denied(manager.import(import.clone()).await));
                let event = desk.last_event().await;
                assert_eq!(
                    (event.action, event.outcome),
                    (
                        Action::KeyImport,
                        AuditOutcome::Refused(ErrorCode::Forbidden)
                    )
                );
                let outcomes = manager.import_many(vec![import]).await.unwrap();
                refusals.extend(outcomes.into_iter().map(denied));
            }
        }
        assert_eq!(refusals.len(), 18);
        let first = &refusals[0];
        assert!(
            refusals.iter().all(|refusal| refusal == first),
            "whether or not the digest is known: {refusals:?}"
        );
        assert_eq!(first.field, Some("digest"));
        assert!(first.reason.contains("hmac-sha256:2"), "{first}");
        assert_eq!(desk.all().await, before);
        for key in [&key, &imported] {
            assert_eq!(desk.refusal(key).await, None);
        }
    }
}

#[tokio::test]
async fn an_operator_who_does_not_see_all_keys_imports_under_the_current_scheme() {
    let desk = moving();
    let host = desk.host();
    let current = |key: &str| {
        let digest = desk.hasher.digest(key).to_bytes();
        ImportedDigest::new("hmac-sha256:2", &digest).unwrap()
    };
    for (manager, new) in confined(&host) {
        let key = stranger();
        let import = NewImport::new(current(&key), new.clone());
        let imported = manager.import(import).await.unwrap();
        assert_eq!(desk.refusal(&key).await, None);
        manager.revoke(&imported.record.id, None).await.unwrap();
        assert_eq!(desk.refusal(&key).await, Some(ErrorCode::KeyRevoked));
        // Such a digest is known if the key is.
        let (key, _) = issue(&host, within("ws2")).await;
        let import = NewImport::new(current(&key), new);
        assert_eq!(refused(manager.import(import).await), ErrorCode::Conflict);
        assert_eq!(desk.refusal(&key).await, None);
    }
}

#[tokio::test]
async fn an_operator_who_sees_all_keys_of_its_tenant_imports_under_an_older_scheme() {
    let desk = moving();
    let host = desk.host();
    let workspace = || [WorkspaceId::new("ws1").unwrap()];
    for operator in [
        of_acme("olga", Role::Owner),
        of_acme("olga", Role::Owner).in_workspaces(workspace()),
        of_acme("bob", Role::Admin).in_organization(),
    ] {
        let manager = host.by(operator);
        for scheme in SCHEMES {
            let keys = [stranger(), stranger()];
            let [one, other] = keys
                .each_ref()
                .map(|key| NewImport::new(taken(scheme, key), with_scopes(&["a"])));
            manager.import(one).await.unwrap();
            let outcomes = manager.import_many(vec![other]).await.unwrap();
            assert!(matches!(outcomes[0], Ok(Some(_))), "{outcomes:?}");
            for key in &keys {
                assert_eq!(desk.refusal(key).await, None, "{scheme}");
            }
        }
    }
}
