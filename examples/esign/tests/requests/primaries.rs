//! Exactly one primary key per owner; deleting and revoking; and events signed with the primary
//! key.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::manage::{
    assert_problem, delete, events, ids, items, list, make_primary, rotate,
};
use crate::common::{Answer, Call, Issued, Server, USER, hex};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Returns the only primary key among these records, if one of them is active.
#[track_caller]
fn primary_of(page: &Value) -> Option<&str> {
    let records = page["items"].as_array().unwrap();
    let primaries: Vec<_> = records
        .iter()
        .filter(|record| record["primary"] == true)
        .collect();
    let active = records.iter().any(|record| record["status"] == "active");
    assert_eq!(primaries.len(), usize::from(active), "{page}");
    primaries
        .first()
        .map(|record| record["id"].as_str().unwrap())
}

fn stores(folder: &tempfile::TempDir) -> [String; 2] {
    [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ]
}

fn status(server: &Server, issued: &Issued) -> u16 {
    server.get("/whoami", &issued.key).status
}

// ---- which one it is ----

#[test]
fn the_first_key_is_the_primary_one_until_another_is_made_it() {
    let server = Server::of("dropbox-sign");
    let [first, second] = [server.issue(json!({})), server.issue(json!({}))];
    assert_eq!(
        (&first.record["primary"], &second.record["primary"]),
        (&json!(true), &json!(false))
    );
    let made = make_primary(&server, second.id());
    assert_eq!(
        (made.status, made.json()["primary"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(primary_of(&list(&server, "owner", "")), Some(second.id()));
    assert_eq!(make_primary(&server, second.id()).status, 200, "again");
    assert_eq!(server.record(first.id())["primary"], false);
    // Another owner's primary key is independent.
    let owner = json!({ "user_id": USER });
    let others = server.issue(json!({ "kind": "user", "owner": owner }));
    assert_eq!(server.record(others.id())["primary"], true);
    assert_eq!(server.record(second.id())["primary"], true);
}

#[test]
fn the_newest_active_key_takes_the_place_of_one_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "dropbox-sign");
        let keys: Vec<_> = (0..4).map(|_| server.issue(json!({}))).collect();
        server.issue(json!({ "kind": "access_token", "owner": { "user_id": USER } }));
        for (ended, next) in [(0, Some(3)), (3, Some(2)), (1, Some(2)), (2, None)] {
            assert_eq!(server.revoke(keys[ended].id()).status, 200);
            for (number, issued) in keys.iter().enumerate() {
                assert_eq!(
                    server.record(issued.id())["primary"],
                    json!(Some(number) == next),
                    "{store}: {ended}, {number}"
                );
            }
        }
        assert_problem(&make_primary(&server, keys[1].id()), 409, "CONFLICT", &[]);
    }
}

#[test]
fn only_an_active_api_key_of_ones_own_becomes_primary() {
    let server = Server::of("dropbox-sign");
    let plain = server.issue(json!({}));
    let token = server.issue(json!({ "kind": "access_token", "owner": { "user_id": USER } }));
    assert_problem(&make_primary(&server, token.id()), 409, "CONFLICT", &[]);
    let unknown = server
        .admin("outsider", Call::post("/keys/key_unknown/primary"))
        .timeless();
    assert_problem(&unknown, 404, "NOT_FOUND", &[]);
    let foreign = server
        .admin(
            "outsider",
            Call::post(&format!("/keys/{}/primary", plain.id())),
        )
        .timeless();
    assert_eq!(foreign, unknown);
    let member = server.admin(
        "member",
        Call::post(&format!("/keys/{}/primary", plain.id())),
    );
    assert_problem(&member, 403, "FORBIDDEN", &[]);
}

#[test]
fn at_every_moment_there_is_exactly_one() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "yousign");
        let keys: Vec<_> = (0..12)
            .map(|number| server.issue(json!({ "name": format!("{number}") })))
            .collect();
        let (go_on, looks) = (AtomicBool::new(true), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while go_on.load(Ordering::Relaxed) {
                    // Events are signed with the primary key: two consecutive events are each
                    // signed with exactly one key.
                    let page = list(&server, "owner", "?limit=500&status=active");
                    let count = page["items"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter(|item| item["primary"] == true)
                        .count();
                    assert!(count <= 1, "{page}");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            crate::common::at_once(8, |thread| {
                for round in 0..6 {
                    let id =
                        |number: usize| keys[(thread * 5 + round * 7 + number) % keys.len()].id();
                    let answers = [
                        make_primary(&server, id(0)),
                        rotate(&server, id(1), &json!({ "grace_seconds": 60 })),
                        if round % 3 == 2 {
                            server.revoke(id(2))
                        } else {
                            delete(&server, id(3))
                        },
                    ];
                    let known = [200, 201, 204, 404, 409];
                    assert!(
                        answers.iter().all(|answer| known.contains(&answer.status)),
                        "{answers:?}"
                    );
                }
            });
            go_on.store(false, Ordering::Relaxed);
        });
        assert!(looks.load(Ordering::Relaxed) > 0);
        assert!(
            primary_of(&list(&server, "owner", "?limit=500")).is_some(),
            "{store}"
        );
    }
}

#[test]
fn of_many_made_primary_at_once_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "dropbox-sign");
        let keys: Vec<_> = (0..4).map(|_| server.issue(json!({}))).collect();
        for _ in 0..5 {
            let answers =
                crate::common::at_once(16, |number| make_primary(&server, keys[number % 4].id()));
            assert!(answers.iter().all(|answer| answer.status == 200));
            assert!(primary_of(&list(&server, "owner", "")).is_some());
        }
        // Made primary or deleted, but never both.
        let current = primary_of(&list(&server, "owner", "")).unwrap().to_owned();
        let other = keys.iter().find(|issued| issued.id() != current).unwrap();
        let answers = crate::common::at_once(8, |number| match number % 2 {
            0 => delete(&server, other.id()).status,
            _ => make_primary(&server, other.id()).status,
        });
        let deleted = answers.contains(&204);
        assert_eq!(
            status(&server, other),
            if deleted { 401 } else { 200 },
            "{answers:?}"
        );
        let page = list(&server, "owner", "");
        assert_eq!(
            primary_of(&page) == Some(other.id()),
            !deleted,
            "{answers:?}"
        );
    }
}

// ---- deleting ----

#[test]
fn a_deleted_key_is_gone_and_its_digest_stays_known() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "allsign");
        let [primary, gone] = [
            server.issue(json!({})),
            server.issue(json!({ "name": "gone" })),
        ];
        assert_eq!(status(&server, &gone), 200);
        assert_problem(&delete(&server, primary.id()), 409, "CONFLICT", &[]);
        let answer = delete(&server, gone.id());
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        let refused = server.get("/whoami", &gone.key);
        assert_eq!(
            (refused.status, refused.text()),
            (401, r#"{"detail": "Invalid or expired API key"}"#.into())
        );
        for query in ["", "?status=revoked", "?query=gone"] {
            assert!(
                !ids(&list(&server, "owner", query)).contains(&gone.id()),
                "{query}"
            );
        }
        let path = format!("/keys/{}", gone.id());
        for call in [
            Call::get(&path),
            Call::new("PATCH", &path).json(&json!({ "name": "n" })),
            Call::new("DELETE", &path),
            Call::get(&format!("{path}/usage")),
            Call::post(&format!("{path}/revoke")),
            Call::post(&format!("{path}/rotate")),
            Call::post(&format!("{path}/primary")),
        ] {
            assert_problem(&server.admin("owner", call), 404, "NOT_FOUND", &[]);
        }
        let hex = hex(Sha256::digest(gone.key.as_bytes()));
        let body = json!({ "name": "again", "digest": { "scheme": "sha256", "hex": hex } });
        for operator in ["owner", "outsider"] {
            let again = server.admin(operator, Call::post("/import").json(&body));
            assert_problem(&again, 409, "CONFLICT", &[]);
        }
        assert_eq!(status(&server, &gone), 401);
        // Its events remain visible.
        let page = events(
            &server,
            "owner",
            &format!("?key_id={}&limit=500", gone.id()),
        );
        assert!(
            items(&page)
                .iter()
                .any(|event| event["action"] == "key.delete" && event["outcome"] == "OK")
        );
        // The last key may be deleted.
        assert_eq!(delete(&server, primary.id()).status, 204);
        assert_eq!(
            (
                ids(&list(&server, "owner", "")).len(),
                status(&server, &primary)
            ),
            (0, 401)
        );
    }
}

#[test]
fn of_two_last_keys_deleted_at_once_the_primary_one_is_last() {
    let server = Server::of("dropbox-sign");
    for _ in 0..10 {
        let keys = [server.issue(json!({})), server.issue(json!({}))];
        let answers = crate::common::at_once(2, |number| delete(&server, keys[number].id()).status);
        assert_eq!(answers[1], 204);
        assert!([204, 409].contains(&answers[0]));
        let left = list(&server, "owner", "");
        if answers[0] == 409 {
            assert_eq!(primary_of(&left), Some(keys[0].id()));
            assert_eq!(delete(&server, keys[0].id()).status, 204);
        }
        assert_eq!(ids(&list(&server, "owner", "")).len(), 0);
    }
}

// ---- signed events ----

fn signed(server: &Server, issued: &Issued, body: &str) -> Answer {
    server.send(
        &server.with_key(
            Call::post("/demo/event")
                .field("Content-Type", "application/json")
                .body(body),
            &issued.key,
        ),
    )
}

fn event(server: &Server, issued: &Issued) -> Value {
    let answer = signed(server, issued, r#"{"event_type":"account_confirmed"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["event"].clone()
}

fn hash(issued: &Issued, event: &Value) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(issued.key.as_bytes()).unwrap();
    mac.update(event["event_time"].as_str().expect("a string").as_bytes());
    mac.update(event["event_type"].as_str().unwrap().as_bytes());
    hex(mac.finalize().into_bytes())
}

#[test]
fn an_event_is_signed_with_the_primary_key() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "dropbox-sign");
        let [first, second] = [server.issue(json!({})), server.issue(json!({}))];
        for asking in [&first, &second] {
            let event = event(&server, asking);
            assert_eq!(event["event_hash"], hash(&first, &event));
            assert_eq!(event["event_type"], "account_confirmed");
            let seconds: i64 = event["event_time"].as_str().unwrap().parse().unwrap();
            assert!((jiff::Timestamp::now().as_second() - seconds).abs() < 20);
            assert_eq!(event.as_object().unwrap().len(), 3, "{event}");
        }
        assert_eq!(make_primary(&server, second.id()).status, 200);
        let event_after = event(&server, &first);
        assert_eq!(event_after["event_hash"], hash(&second, &event_after));
        server.revoke(second.id());
        let event_last = event(&server, &first);
        assert_eq!(
            event_last["event_hash"],
            hash(&first, &event_last),
            "{store}"
        );
    }
}

#[test]
fn while_a_key_is_rotated_there_are_two_hashes() {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(&folder) {
        let server = Server::on(&store, "dropbox-sign");
        let old = server.issue(json!({}));
        let answer = rotate(&server, old.id(), &json!({})).json();
        let new = Issued {
            key: answer["key"].as_str().unwrap().to_owned(),
            record: answer["record"].clone(),
        };
        let both = event(&server, &old);
        assert_eq!(
            (&both["event_hash"], &both["other_hashes"]),
            (&json!(hash(&old, &both)), &json!([hash(&new, &both)]))
        );
        assert_eq!(make_primary(&server, new.id()).status, 200);
        let both = event(&server, &old);
        assert_eq!(
            (&both["event_hash"], &both["other_hashes"]),
            (&json!(hash(&new, &both)), &json!([hash(&old, &both)]))
        );
        assert_eq!(delete(&server, old.id()).status, 204);
        let one = event(&server, &new);
        assert_eq!(
            (&one["event_hash"], &one["other_hashes"]),
            (&json!(hash(&new, &one)), &json!(null)),
            "{store}"
        );
    }
}

#[test]
fn a_type_that_could_be_taken_for_another_event_is_not_signed() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    for kind in [
        "",
        "0",
        "1account",
        "00account_confirmed",
        "a b",
        " a",
        "a\nb",
        "a\u{0}",
        "\u{e4}",
        "\u{661}a",
    ] {
        let answer = signed(&server, &issued, &json!({ "event_type": kind }).to_string());
        assert_eq!(answer.status, 422, "{kind:?}: {}", answer.text());
        assert!(!answer.text().contains("event_hash"));
    }
    let mega = json!({ "event_type": "x".repeat(1 << 20) }).to_string();
    let answer = signed(&server, &issued, &mega);
    assert!(
        matches!(answer.status, 413 | 422) && answer.body.len() < 2000,
        "{}",
        answer.status
    );
    for body in [
        r#"{"event_type":1}"#,
        r#"{"event_type":null}"#,
        r#"{"event_type":["a"]}"#,
        "{}",
        "",
        "[]",
        "x",
        "null",
    ] {
        let answer = signed(&server, &issued, body);
        assert!(
            matches!(answer.status, 400 | 422),
            "{body}: {}",
            answer.status
        );
    }
    assert_eq!(
        signed(&server, &issued, r#"{"event_type":"_2a!~"}"#).status,
        200
    );
    assert_eq!(server.send(&Call::post("/demo/event")).status, 401);
}

#[test]
fn an_owner_without_a_key_that_signs_gets_no_event() {
    let server = Server::of("dropbox-sign");
    let hex = hex(Sha256::digest(
        b"0c0ffee0c0ffee1c0ffee2c0ffee3c0ffee4c0ffee5c0ffe",
    ));
    let body = json!({ "name": "imported", "digest": { "scheme": "sha256", "hex": hex } });
    let imported = server.admin("owner", Call::post("/import").json(&body));
    assert_eq!(imported.status, 201, "{}", imported.text());
    let record = imported.json()["record"].clone();
    assert_eq!(record["primary"], false);
    assert_problem(
        &make_primary(&server, record["id"].as_str().unwrap()),
        409,
        "CONFLICT",
        &[],
    );
    let imported = Issued {
        key: "0c0ffee0c0ffee1c0ffee2c0ffee3c0ffee4c0ffee5c0ffe".into(),
        record,
    };
    assert_eq!(status(&server, &imported), 200);
    assert_eq!(
        signed(&server, &imported, r#"{"event_type":"a"}"#).status,
        409
    );
    let real = server.issue(json!({}));
    assert_eq!(real.record["primary"], true);
    let event = event(&server, &imported);
    assert_eq!(event["event_hash"], hash(&real, &event));
    server.revoke(real.id());
    assert_eq!(server.record(imported.id())["primary"], false);
}
