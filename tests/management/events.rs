//! Events signed with the owner's primary key: the published formula, computed from state that can
//! sign but not authenticate, while keys are rotated, revoked and changed concurrently.

use crate::life::{Desk, Dice, HOUR, acme, ann, ending, globex, issue, named, operator, refused};
use hmac::{Hmac, KeyInit, Mac};
use portunus::ErrorCode;
use portunus::events::SigningStore;
use portunus::events::{self, SignedEvent};
use portunus::key::{KeyKind, KeyRecord, Owner, SigningState};
use portunus::manage::{ImportedDigest, KeyManager, ManageError, NewImport, NewKey, Role};
use portunus::store::{KeyStore, WriteBatch};
use portunus_profiles::Profile;
use portunus_test_support::{Call, Point, Setup, scope, tenant, user};
use sha2::Sha256;

const TYPE: &str = "account_confirmed";

/// The formula in an independent implementation.
fn expected(key: &str, time: &str, kind: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(time.as_bytes());
    mac.update(kind.as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn signing(desk: &Desk) -> KeyManager {
    desk.manager(|rules| rules.sign_events = true)
}

fn dropbox(desk: &Desk) -> KeyManager {
    Setup::of(desk.store.clone(), Profile::DropboxSign)
        .clock(desk.clock.clone())
        .manager()
}

fn signed_by(event: &SignedEvent, key: &str) -> bool {
    events::verify(key, &event.event_time, &event.event_type, &event.event_hash)
}

fn also_signed_by(event: &SignedEvent, key: &str) -> bool {
    event
        .other_hashes
        .iter()
        .any(|hash| events::verify(key, &event.event_time, &event.event_type, hash))
}

async fn sign(manager: &KeyManager) -> SignedEvent {
    manager.sign_event(&acme(), TYPE).await.unwrap()
}

#[test]
fn the_published_example_is_signed_as_published() {
    let hash = "4ed18118541769d5314036c414c6908b0d7017688f88dcd4821606e4d36f4b23";
    assert!(events::verify("0123456789abcdef", "1700000000", TYPE, hash));
    assert_eq!(expected("0123456789abcdef", "1700000000", TYPE), hash);
}

#[test]
fn a_signature_is_the_formula_for_thousands_of_random_keys_and_messages() {
    let mut dice = Dice(1);
    let text = |dice: &mut Dice, length: usize| -> String {
        (0..length)
            .map(|_| char::from(b' ' + u8::try_from(dice.below(95)).unwrap()))
            .collect()
    };
    for round in 0..5000 {
        let (key_length, length) = (1 + dice.below(200), dice.below(301));
        let (key, message) = (text(&mut dice, key_length), text(&mut dice, length));
        let (time, kind) = message.split_at(dice.below(length + 1));
        let mut hash = expected(&key, time, kind);
        assert!(events::verify(&key, time, kind, &hash), "round {round}");
        let at = dice.below(64);
        let altered = if hash.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        };
        hash.replace_range(at..=at, altered);
        assert!(
            !events::verify(&key, time, kind, &hash),
            "round {round}, digit {at}"
        );
    }
}

#[test]
fn all_borders_of_padding_agree_with_the_formula() {
    // Keys around the block size of 64 bytes, and messages around the 55 and 56 bytes that share a
    // block with their length.
    for key_length in [1, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 200] {
        let key = "k".repeat(key_length);
        for length in 0..=300 {
            let message = "m".repeat(length);
            assert!(
                events::verify(&key, "", &message, &expected(&key, "", &message)),
                "{key_length}, {length}"
            );
        }
    }
}

#[test]
fn a_hash_of_another_length_another_case_or_other_characters_is_refused() {
    let hash = expected("key", "1", TYPE);
    for wrong in [
        "",
        &hash[..63],
        &format!("{hash}0"),
        &hash.to_uppercase(),
        &format!(" {hash}"),
        "é",
        &"\0".repeat(64),
    ] {
        assert!(!events::verify("key", "1", TYPE, wrong), "{wrong:?}");
    }
    for (key, time, kind) in [
        ("kex", "1", TYPE),
        ("key", "2", TYPE),
        ("key", "1", "account_confirmes"),
        ("", "1", TYPE),
    ] {
        assert!(!events::verify(key, time, kind, &hash));
    }
}

#[tokio::test]
async fn an_event_is_signed_with_the_primary_key_at_the_time_of_the_clock() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let (first, one) = issue(&manager, named("one")).await;
    let (second, two) = issue(&manager, named("two")).await;
    let event = sign(&manager).await;
    assert_eq!(
        (event.event_time.as_str(), event.event_type.as_str()),
        ("1800000000", TYPE)
    );
    assert_eq!(event.event_hash, expected(&first, "1800000000", TYPE));
    assert!(event.other_hashes.is_empty() && !signed_by(&event, &second));
    manager.make_primary(&two.id).await.unwrap();
    assert!(signed_by(&sign(&manager).await, &second));
    manager.revoke(&two.id, None).await.unwrap();
    assert!(signed_by(&sign(&manager).await, &first));
    manager.revoke(&one.id, None).await.unwrap();
    assert_eq!(
        refused(manager.sign_event(&acme(), TYPE).await),
        ErrorCode::Conflict
    );
}

#[tokio::test]
async fn each_owner_has_its_own_signature() {
    let desk = Desk::new();
    let manager = signing(&desk);
    for owner in [acme(), ann(), globex()] {
        let (secret, _) = issue(&manager, NewKey::new("key", owner.clone())).await;
        assert!(signed_by(
            &manager.sign_event(&owner, TYPE).await.unwrap(),
            &secret
        ));
    }
    let nobody = Owner::user(tenant("acme"), user("nobody"));
    assert_eq!(
        refused(manager.sign_event(&nobody, TYPE).await),
        ErrorCode::Conflict
    );
}

#[tokio::test]
async fn the_border_between_time_and_type_cannot_be_moved() {
    let desk = Desk::new();
    let manager = signing(&desk);
    issue(&manager, named("key")).await;
    let long = "x".repeat(201);
    for wrong in [
        "",
        "0account",
        "9",
        " account",
        "account confirmed",
        "a\0",
        "a\n",
        "konto_bestätigt",
        &long,
    ] {
        let refused = manager.sign_event(&acme(), wrong).await;
        assert!(
            matches!(
                refused,
                Err(ManageError::Invalid {
                    field: "event_type",
                    ..
                })
            ),
            "{wrong:?}"
        );
    }
    for right in [
        "a",
        "account_confirmed",
        "signature_request.sent:2",
        &"x".repeat(200),
    ] {
        manager.sign_event(&acme(), right).await.unwrap();
    }
}

#[tokio::test]
async fn while_the_primary_key_is_rotated_events_carry_both_signatures() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let (old, record) = issue(&manager, named("key")).await;
    desk.tick();
    let rotated = manager.rotate(&record.id, Some(HOUR)).await.unwrap();
    let fresh = rotated.key.reveal();
    let event = sign(&manager).await;
    assert!(
        signed_by(&event, &old) && also_signed_by(&event, &fresh) && event.other_hashes.len() == 1
    );
    manager.make_primary(&rotated.record.id).await.unwrap();
    let event = sign(&manager).await;
    assert!(
        signed_by(&event, &fresh) && also_signed_by(&event, &old) && event.other_hashes.len() == 1
    );
    desk.clock.advance(HOUR);
    let event = sign(&manager).await;
    assert!(
        signed_by(&event, &fresh) && event.other_hashes.is_empty(),
        "the old key has ended"
    );
}

#[tokio::test]
async fn a_neighbour_that_was_revoked_or_deleted_signs_no_more() {
    for delete in [false, true] {
        let desk = Desk::new();
        let manager = dropbox(&desk);
        let (old, record) = issue(&manager, named("key")).await;
        let rotated = manager.rotate(&record.id, None).await.unwrap();
        assert_eq!(sign(&manager).await.other_hashes.len(), 1);
        match delete {
            true => manager.delete(&rotated.record.id).await.unwrap(),
            false => drop(manager.revoke(&rotated.record.id, None).await.unwrap()),
        }
        let event = sign(&manager).await;
        assert!(signed_by(&event, &old) && event.other_hashes.is_empty());
    }
}

/// Its restrictions are unknown to this version, so it is not used for anything.
#[tokio::test]
async fn a_key_of_a_newer_version_signs_nothing() {
    let desk = Desk::new();
    let manager = dropbox(&desk);
    let (old, record) = issue(&manager, named("key")).await;
    let rotated = manager.rotate(&record.id, None).await.unwrap();
    assert_eq!(sign(&manager).await.other_hashes.len(), 1);
    for (id, is_primary) in [(&rotated.record.id, false), (&record.id, true)] {
        let mut listed = desk.store.get(id).await.unwrap().unwrap().to_json();
        let json = listed.as_mut().unwrap();
        json.insert_str(1, r#""understands":7,"#);
        let newer = KeyRecord::from_json(json).unwrap();
        desk.store
            .apply(&WriteBatch::new().update(newer))
            .await
            .unwrap();
        if is_primary {
            let error = manager.sign_event(&acme(), TYPE).await.unwrap_err();
            assert!(matches!(error, ManageError::Newer { needs: 7 }), "{error}");
        } else {
            let event = sign(&manager).await;
            assert!(signed_by(&event, &old) && event.other_hashes.is_empty());
        }
    }
}

#[tokio::test]
async fn only_keys_that_can_sign_have_a_state_to_sign_with() {
    let desk = Desk::new();
    let manager = dropbox(&desk);
    let (secret, app) = issue(&manager, named("app")).await;
    let stored = desk.store.signing_state(&app.id).await.unwrap().unwrap();
    assert_eq!(
        stored.sign(b"1account").to_vec(),
        hex_bytes(&expected(&secret, "1", "account"))
    );
    let mut token = NewKey::new("token", ann()).with_scopes([scope("account_access")]);
    token.kind = KeyKind::AccessToken;
    let token = manager.issue(token).await.unwrap();
    assert!(!desk.signs(&token.record.id).await);
    assert_eq!(
        refused(manager.make_primary(&token.record.id).await),
        ErrorCode::Conflict
    );
    let digest = ImportedDigest::from_hex("sha256", &"ab".repeat(32)).unwrap();
    let imported = manager
        .import(NewImport::new(digest, named("imported")))
        .await
        .unwrap();
    assert!(!desk.signs(&imported.record.id).await && !imported.record.may_be_primary);
    let successor = manager
        .rotate(&imported.record.id, None)
        .await
        .unwrap()
        .record;
    assert!(desk.signs(&successor.id).await && successor.may_be_primary);
    manager.revoke(&successor.id, None).await.unwrap();
    assert!(!desk.signs(&successor.id).await);
    manager.revoke(&app.id, None).await.unwrap();
    manager.delete(&app.id).await.unwrap();
    assert!(!desk.signs(&app.id).await);
    let quiet = Desk::new();
    let (_, key) = issue(&quiet.host(), named("key")).await;
    assert!(
        !quiet.signs(&key.id).await,
        "an API that signs nothing keeps nothing to sign with"
    );
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[tokio::test]
async fn an_imported_key_never_becomes_primary_where_events_are_signed() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let digest = |byte: u8| ImportedDigest::new("sha256", &[byte; 32]).unwrap();
    let imported = manager
        .import(NewImport::new(digest(1), named("imported")))
        .await
        .unwrap();
    assert!(!imported.primary);
    assert_eq!(
        (
            desk.primary(&acme()).await,
            refused(manager.sign_event(&acme(), TYPE).await)
        ),
        (None, ErrorCode::Conflict)
    );
    assert_eq!(
        refused(manager.make_primary(&imported.record.id).await),
        ErrorCode::Conflict
    );
    let issued = manager.issue(named("issued")).await.unwrap();
    assert!(issued.primary);
    desk.tick();
    manager
        .import(NewImport::new(digest(2), named("imported later")))
        .await
        .unwrap();
    manager.revoke(&issued.record.id, None).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, None);
    manager.enable(&imported.record.id).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, None);
}

#[tokio::test]
async fn a_state_cannot_authenticate_and_shows_nothing() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let (secret, record) = issue(&manager, named("key")).await;
    let state = desk.store.signing_state(&record.id).await.unwrap().unwrap();
    assert!(
        !state
            .as_bytes()
            .windows(8)
            .any(|part| secret.as_bytes().windows(8).any(|other| other == part))
    );
    let digest = desk.hasher.digest(&secret).to_bytes();
    assert!(
        !state.as_bytes().windows(32).any(|part| part == digest),
        "nor is the stored digest within it"
    );
    assert_eq!(format!("{state:?}"), "SigningState([redacted])");
    let shown = format!(
        "{manager:?} {:?} {:?}",
        manager.get(&record.id).await.unwrap(),
        sign(&manager).await
    );
    assert!(!shown.contains(&secret[13..40]));
    assert_eq!(SigningState::from_bytes(state.as_bytes()).unwrap(), state);
    let mut other = *state.as_bytes();
    other[0] = 2;
    assert!(
        SigningState::from_bytes(&other).is_err()
            && SigningState::from_bytes(&other[..64]).is_err()
    );
}

#[tokio::test]
async fn an_operator_of_another_tenant_learns_nothing_by_asking_for_signatures() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let (_, key) = issue(&manager, named("key")).await;
    let stranger = manager.by(operator("eve", "globex", Role::Owner));
    let known = stranger.sign_event(&acme(), TYPE).await.unwrap_err();
    let unknown = stranger
        .sign_event(&Owner::tenant(tenant("nobody")), TYPE)
        .await
        .unwrap_err();
    assert!(
        !known.to_string().contains(key.id.as_str()),
        "another tenant's key is named: {known}"
    );
    assert_eq!(
        (known.code(), known.to_string()),
        (unknown.code(), unknown.to_string())
    );
}

#[tokio::test]
async fn members_sign_nothing() {
    let desk = Desk::new();
    issue(&signing(&desk), named("key")).await;
    let member = signing(&desk).by(operator("mia", "acme", Role::Member));
    assert_eq!(
        refused(member.sign_event(&acme(), TYPE).await),
        ErrorCode::Forbidden
    );
}

#[tokio::test]
async fn an_event_is_signed_though_the_primary_key_ends_meanwhile() {
    for (point, delete) in [
        (Point::Before(Call::Get), false),
        (Point::Before(Call::Get), true),
        (Point::Before(Call::SigningState), false),
        (Point::Before(Call::SigningState), true),
    ] {
        let desk = Desk::new();
        let (_, one) = issue(&signing(&desk), named("one")).await;
        let (second, _) = issue(&signing(&desk), named("two")).await;
        let manager = signing(&desk);
        desk.store.once(point, async move {
            manager.revoke(&one.id, None).await.unwrap();
            if delete {
                manager.delete(&one.id).await.unwrap();
            }
        });
        let event = signing(&desk).sign_event(&acme(), TYPE).await;
        assert!(
            event.as_ref().is_ok_and(|event| signed_by(event, &second)),
            "at {point:?}, {delete}: {event:?}"
        );
    }
}

#[tokio::test]
async fn at_every_moment_of_a_long_rotation_some_signature_is_by_a_key_that_works() {
    let desk = Desk::new();
    let manager = signing(&desk);
    let mut secrets = Vec::new();
    let (secret, record) = issue(&manager, ending("key", desk.now() + 10 * HOUR)).await;
    secrets.push(secret);
    let (mut last, mut dice) = (record, Dice(7));
    for _ in 0..200 {
        desk.clock.advance(HOUR / 4);
        if dice.below(6) == 0 {
            let rotated = manager.rotate(&last.id, Some(HOUR)).await.unwrap();
            secrets.push(rotated.key.reveal());
            last = rotated.record;
        }
        let Ok(event) = manager.sign_event(&acme(), TYPE).await else {
            break;
        };
        let mut works = Vec::new();
        for secret in &secrets {
            if desk.refusal(secret).await.is_none() {
                works.push(secret);
            }
        }
        assert!(works.iter().any(|secret| signed_by(&event, secret)));
        for hash in &event.other_hashes {
            let by = |secret: &&&String| events::verify(secret, &event.event_time, TYPE, hash);
            assert_eq!(
                works.iter().filter(by).count(),
                1,
                "each by one key that works"
            );
        }
    }
}
