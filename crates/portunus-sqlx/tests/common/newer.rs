//! Records written by a newer version.

use portunus::authenticator::Attempt;
use portunus::key::{Alphabet, KeyFormat, KeyHasher, KeyStatus};
use portunus::manage::{KeyChange, KeyManager, ManageError, NewKey};
use portunus::{Authenticator, ErrorCode};
use portunus_test_support::Head;
use portunus_test_support::Setup;

use super::*;

/// A restriction of a newer version, in a spelling that no writer here would produce.
const UNKNOWN: &str = r#""understands" : 3, "geo":[ "CH",1.0e5 ,31.245270191439438123, 123456789012345678901234567890, {"x":  "\u00f6","x":null}],"#;

/// Turns a stored record into one of a newer version.
async fn from_the_future(home: &impl Home, id: &KeyId) {
    let unknown = UNKNOWN.replace('\'', "''");
    let changed = home
        .execute(format!(
            "UPDATE portunus_keys SET record = \
             replace(replace(record, '{{\"id\"', '{{{unknown}\"id\"'), \
             '\"owner\":{{', '\"owner\":{{\"region\": 1.50,') WHERE id = '{id}'"
        ))
        .await;
    assert_eq!(changed, 1);
}

pub(crate) async fn a_record_of_a_newer_version_is_refused_and_can_only_be_ended(home: &impl Home) {
    let store = home.open().await;
    let format = KeyFormat::builder("acme_")
        .environment("live", live())
        .kind("sk", KeyKind::App)
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let manager = Setup::on(store.clone())
        .bearer([format.clone()])
        .environments([live()])
        .manager();
    let authenticator = Setup::on(store.clone()).bearer([format]).build().unwrap();
    let ask = async |key: &str| {
        let head = Head::bearer(key);
        let outcome = match authenticator.attempt(&head) {
            Attempt::Ready(outcome) => outcome,
            Attempt::Pending(pending) => pending.await,
        };
        outcome
            .map(drop)
            .map_err(|error| (error.code(), error.code().status()))
    };
    for end in ["revoke", "disable", "delete"] {
        let issued = manager
            .issue(NewKey::new("future", Owner::tenant(tenant("acme"))))
            .await
            .unwrap();
        let (id, key) = (issued.record.id.clone(), issued.key.reveal());
        ask(&key).await.unwrap();
        from_the_future(home, &id).await;

        // It exists, and is never used.
        assert_eq!(ask(&key).await, Err((ErrorCode::StoreUnavailable, 503)));
        let listed = manager.get(&id).await.unwrap();
        assert_eq!(listed.record.status(manager.now()), KeyStatus::Unreadable);
        assert_eq!(listed.record.needs(), Some(3));
        let page = manager.list(ListQuery::new(manager.now())).await.unwrap();
        assert!(page.items.iter().any(|key| key.record.id == id));
        let mut only = ListQuery::new(manager.now());
        only.status = Some(KeyStatus::Unreadable);
        assert_eq!(manager.list(only.clone()).await.unwrap().items.len(), 1);
        only.status = Some(KeyStatus::Active);
        assert_eq!(manager.list(only).await.unwrap().items.len(), 0);

        // A change that might weaken it is rejected, with the version number.
        let mut rename = KeyChange::default();
        rename.name = Some("other".into());
        let mut disable_and_rename = rename.clone();
        disable_and_rename.enabled = Some(false);
        for error in [
            manager
                .update(&id, rename, None)
                .await
                .map(drop)
                .unwrap_err(),
            manager
                .update(&id, disable_and_rename, None)
                .await
                .map(drop)
                .unwrap_err(),
            manager.enable(&id).await.map(drop).unwrap_err(),
            manager.rotate(&id, None).await.map(drop).unwrap_err(),
            manager.make_primary(&id).await.map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(error, ManageError::Newer { needs: 3 }),
                "{error:?}"
            );
            assert_eq!(error.code(), ErrorCode::Conflict);
            assert!(error.to_string().contains("requires format 3"), "{error}");
        }
        // A change that ends it is accepted.
        let expected = match end {
            "revoke" => {
                manager.revoke(&id, Some("leaked")).await.unwrap();
                ErrorCode::KeyRevoked
            }
            "disable" => {
                manager.disable(&id).await.unwrap();
                let error = manager.enable(&id).await.unwrap_err();
                assert!(
                    matches!(error, ManageError::Newer { needs: 3 }),
                    "{error:?}"
                );
                ErrorCode::KeyDisabled
            }
            _ => {
                manager.delete(&id).await.unwrap();
                ErrorCode::InvalidKey
            }
        };
        assert_eq!(ask(&key).await.unwrap_err(), (expected, 401), "{end}");
        if end == "disable" {
            manager.revoke(&id, None).await.unwrap();
            assert_eq!(ask(&key).await.unwrap_err().0, ErrorCode::KeyRevoked);
        }
    }
}

pub(crate) async fn ending_a_record_of_a_newer_version_changes_no_unknown_byte<H: Home>(home: &H) {
    let store = home.open().await;
    let user = UserId::new("7D444840-9DC0-11D1-B245-5FFDCE74FAD2").unwrap();
    let mut mine = record("a");
    mine.owner = Owner::user(tenant("acme"), user);
    store
        .apply(&batch([insert(digest(1), mine)]))
        .await
        .unwrap();
    from_the_future(home, &id("a")).await;
    let before = home.text("SELECT record FROM portunus_keys").await;
    let read = store.get(&id("a")).await.unwrap().unwrap();
    let mut ended = (*read).clone();
    ended.revoked = Some(Revocation::new(at(2_000), Some("leaked".into())));
    ended.enabled = false;
    store.apply(&WriteBatch::new().update(ended)).await.unwrap();
    let after = home.text("SELECT record FROM portunus_keys").await;
    let nothing = r#""revoked":null"#;
    // The order in which the two parts of a time are written depends on features of serde_json.
    let time = r#""at":{"nanos_since_epoch":0,"secs_since_epoch":2000}"#;
    let other = r#""at":{"secs_since_epoch":2000,"nanos_since_epoch":0}"#;
    let after = after.replace(other, time);
    let revoked = format!(r#""revoked":{{{time},"reason":"leaked"}}"#);
    let expected = before
        .replace(nothing, &revoked)
        .replace(r#""enabled":true"#, r#""enabled":false"#)
        .replace(r#""version":1"#, r#""version":2"#)
        .replace(r#""understands" : "#, r#""understands":"#)
        .replace(r#"3, "geo":"#, r#"3,"geo":"#);
    assert!(
        before.contains(nothing) && after.contains("\"region\": 1.50,"),
        "{after}"
    );
    assert_eq!(after, expected);

    // Folding changes the user, and nothing else.
    assert_eq!(H::fold(&store).await.unwrap(), 1);
    let folded = home.text("SELECT record FROM portunus_keys").await;
    let unknown = &UNKNOWN[UNKNOWN.find('[').unwrap()..];
    assert!(folded.contains(unknown.trim_end_matches(',')), "{folded}");
    assert!(
        folded.contains("1.50") && folded.contains("7d444840"),
        "{folded}"
    );
    let read = store.get(&id("a")).await.unwrap().unwrap();
    assert_eq!(read.needs(), Some(3));
    assert_eq!(read.status(at(1)), KeyStatus::Revoked);
}
