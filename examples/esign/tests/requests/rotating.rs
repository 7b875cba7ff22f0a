//! Rotation over HTTP: a successor with the same settings, the old key valid for exactly its grace
//! period, and no second quota.

use crate::common::manage::{
    assert_problem, change, delete, events, ids, items, list, make_primary, rotate,
};
use crate::common::{Call, Issued, Server, USER, eventually};
use serde_json::{Value, json};

/// Rotates a key with this body and returns the successor.
#[track_caller]
fn rotated(server: &Server, id: &str, body: &Value) -> Issued {
    let answer = rotate(server, id, body);
    assert_eq!(answer.status, 201, "{body}: {}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    let answer = answer.json();
    Issued {
        key: answer["key"].as_str().unwrap().to_owned(),
        record: answer["record"].clone(),
    }
}

fn status(server: &Server, issued: &Issued) -> u16 {
    server.get("/whoami", &issued.key).status
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn the_successor_has_the_same_facts_and_its_secret_is_shown_once() {
    let server = Server::of("allsign");
    let old = server.issue(json!({
        "name": "billing",
        "description": "for invoices",
        "environment": "test",
        "owner": { "user_id": USER, "user_email": "user@example.com" },
        "scopes": ["document:read", "signature:*"],
        "access": "read-only",
        "workspaces": ["ws1", "ws2"],
        "plan": "enterprise",
        "allowed_ips": ["127.0.0.0/8"],
        "rate_limit_config": { "requests_per_minute": 7, "requests_per_hour": 77 },
        "expires_at": "2099-01-02T03:04:05.678Z",
        "metadata": { "team": "billing" },
    }));
    let new = rotated(&server, old.id(), &json!({ "grace_seconds": 60 }));
    for field in [
        "name",
        "description",
        "kind",
        "environment",
        "owner",
        "scopes",
        "access",
        "workspaces",
        "plan",
        "allowed_ips",
        "rate_limit_config",
        "metadata",
        "key_family",
        "enabled",
    ] {
        assert_eq!(new.record[field], old.record[field], "{field}");
    }
    let before = server.record(old.id());
    assert_eq!(
        (&before["successor"], &new.record["predecessor"]),
        (&json!(new.id()), &json!(old.id()))
    );
    assert_eq!(
        (&before["predecessor"], &new.record["successor"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        (&new.record["version"], &before["version"]),
        (&json!(1), &json!(2))
    );
    assert_ne!(new.key, old.key);
    assert!(new.key.starts_with("allsign_test_sk_"));
    assert_eq!(
        new.record["masked"],
        format!("allsign_test_sk_…{}", &new.key[new.key.len() - 4..])
    );
    assert_eq!(server.record(new.id()), new.record);
    let lifetime = time(&old.record["expires_at"]).duration_since(time(&old.record["created_at"]));
    assert_eq!(
        time(&new.record["expires_at"]).duration_since(time(&new.record["created_at"])),
        lifetime
    );
    let works_until = time(&before["expires_at"]).duration_since(time(&new.record["created_at"]));
    assert_eq!(works_until, jiff::SignedDuration::from_secs(60));
    assert_eq!([status(&server, &old), status(&server, &new)], [200, 200]);
    let shown = format!(
        "{}{}",
        server.admin("owner", Call::get("/keys")).text(),
        events(&server, "owner", "")
    );
    for key in [&old.key, &new.key] {
        assert!(!shown.contains(&key["allsign_test_sk_".len()..key.len() - 4]));
    }
}

#[test]
fn without_a_grace_the_old_key_is_revoked_at_once() {
    let server = Server::of("allsign");
    for body in [
        json!({}),
        json!({ "grace_seconds": 0 }),
        json!({ "grace_seconds": null }),
    ] {
        let old = server.issue(json!({}));
        let new = rotated(&server, old.id(), &body);
        let refused = server.get("/whoami", &old.key);
        assert_eq!(
            (refused.status, refused.text()),
            (401, r#"{"detail": "Invalid or expired API key"}"#.into())
        );
        assert_eq!(status(&server, &new), 200);
        let record = server.record(old.id());
        assert_eq!(
            (&record["status"], &record["revoke_reason"]),
            (&json!("revoked"), &json!("rotated"))
        );
        let seen = events(
            &server,
            "owner",
            &format!("?key_id={}&outcome=KEY_REVOKED", old.id()),
        );
        assert_eq!(items(&seen).len(), 1);
    }
    let old = server.issue(json!({}));
    let answer = server.admin("owner", Call::post(&format!("/keys/{}/rotate", old.id())));
    assert_eq!(
        answer.status, 201,
        "without a body there is no grace period"
    );
    assert_eq!(status(&server, &old), 401);
}

#[test]
fn the_old_key_works_for_exactly_its_grace_and_later_use_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let plenty = json!({ "requests_per_minute": 100_000, "requests_per_hour": 100_000 });
        let old = server.issue(json!({ "rate_limit_config": plenty }));
        let new = rotated(&server, old.id(), &json!({ "grace_seconds": 1 }));
        let end = time(&server.record(old.id())["expires_at"]);
        let mut accepted = 0;
        loop {
            let (before, answer, after) = (now(), status(&server, &old), now());
            if answer == 200 {
                accepted += 1;
                assert!(before < end, "{store}: accepted after its end");
            } else {
                assert!(
                    after >= end,
                    "{store}: refused {:?} before its end",
                    end.duration_since(after)
                );
                break;
            }
        }
        assert!(accepted > 10, "{accepted}");
        let refused = server.get("/whoami", &old.key);
        assert_eq!(
            (refused.status, refused.text()),
            (401, r#"{"detail": "Invalid or expired API key"}"#.into())
        );
        assert_eq!(status(&server, &new), 200);
        let query = format!("?key_id={}&outcome=KEY_EXPIRED&limit=1", old.id());
        // Reading waits for pending writes, but only for a short time.
        let detail = eventually(|| {
            let page = events(&server, "owner", &query);
            let event = items(&page).first()?.clone();
            Some(event["detail"].as_str()?.to_owned())
        });
        let detail = detail.expect("what shows the reuse");
        assert!(detail.contains(new.id()), "{detail}");
    }
}

#[test]
fn a_grace_that_cannot_be_is_422_and_changes_nothing() {
    let server = Server::of("allsign");
    let old = server.issue(json!({}));
    for grace in [
        json!(-1),
        json!("60"),
        json!(1.5),
        json!(true),
        json!([60]),
        json!({}),
        json!(u64::MAX),
        json!(1_u64 << 62),
        json!(253_402_300_800_u64),
        json!(1e30),
        json!("PT1H"),
    ] {
        let answer = rotate(&server, old.id(), &json!({ "grace_seconds": grace }));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    assert_problem(
        &rotate(&server, old.id(), &json!({ "grace": 60 })),
        422,
        "INVALID_BODY",
        &[],
    );
    assert_problem(
        &rotate(&server, old.id(), &json!([])),
        422,
        "INVALID_BODY",
        &[],
    );
    let broken = server.admin(
        "owner",
        Call::post(&format!("/keys/{}/rotate", old.id())).body("{"),
    );
    assert_problem(&broken, 400, "INVALID_REQUEST", &[]);
    assert_eq!(server.record(old.id()), old.record);
    assert_eq!(
        (
            ids(&list(&server, "owner", "")).len(),
            status(&server, &old)
        ),
        (1, 200)
    );
}

#[test]
fn a_grace_never_lasts_past_the_keys_own_end() {
    let server = Server::of("allsign");
    let end = now() + jiff::SignedDuration::from_millis(1500);
    let old = server.issue(json!({ "expires_at": end.to_string() }));
    let own = old.record["expires_at"].clone();
    let new = rotated(&server, old.id(), &json!({ "grace_seconds": 3600 }));
    assert_eq!(server.record(old.id())["expires_at"], own);
    let end = time(&own);
    crate::common::until("its own end", || now() > end);
    assert_eq!(status(&server, &old), 401);
    let _ = new;
}

#[test]
fn rotating_is_done_once() {
    let server = Server::of("allsign");
    let old = server.issue(json!({}));
    let new = rotated(&server, old.id(), &json!({ "grace_seconds": 60 }));
    for body in [json!({}), json!({ "grace_seconds": 60 })] {
        assert_problem(&rotate(&server, old.id(), &body), 409, "CONFLICT", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")).len(), 2);
    let newer = rotated(&server, new.id(), &json!({ "grace_seconds": 60 }));
    assert_eq!(newer.record["key_family"], old.record["key_family"]);
    assert_eq!(
        [&old, &new, &newer].map(|issued| status(&server, issued)),
        [401, 200, 200],
        "two keys of a family work"
    );
}

#[test]
fn a_key_that_no_longer_works_cannot_be_rotated() {
    let server = Server::of("allsign");
    let [revoked, ended, deleted] = [0, 1, 2].map(|_| server.issue(json!({})));
    assert_eq!(delete(&server, deleted.id()).status, 204);
    server.revoke(revoked.id());
    rotated(&server, ended.id(), &json!({}));
    assert_problem(
        &rotate(&server, revoked.id(), &json!({})),
        409,
        "CONFLICT",
        &[],
    );
    assert_problem(
        &rotate(&server, ended.id(), &json!({})),
        409,
        "CONFLICT",
        &[],
    );
    assert_problem(
        &rotate(&server, deleted.id(), &json!({})),
        404,
        "NOT_FOUND",
        &[],
    );
    let foreign = server.admin(
        "outsider",
        Call::post(&format!("/keys/{}/rotate", revoked.id())),
    );
    let unknown = server.admin("outsider", Call::post("/keys/key_unknown/rotate"));
    assert_eq!(foreign.timeless(), unknown.timeless());
}

#[test]
fn of_twenty_rotations_at_once_one_is_done() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        for body in [json!({}), json!({ "grace_seconds": 60 })] {
            let old = server.issue(json!({}));
            let mut answers = crate::common::at_once(20, |_| rotate(&server, old.id(), &body));
            answers.sort_by_key(|answer| answer.status);
            assert_eq!(answers[0].status, 201, "{store}: {}", answers[0].text());
            for answer in &answers[1..] {
                assert_problem(answer, 409, "CONFLICT", &[]);
            }
            let successor = answers[0].json()["record"]["id"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(server.record(old.id())["successor"], successor);
            let page = list(&server, "owner", "?limit=500");
            let family = |item: &&Value| item["key_family"] == old.record["key_family"];
            assert_eq!(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(family)
                    .count(),
                2
            );
            assert_eq!(
                server
                    .get("/whoami", answers[0].json()["key"].as_str().unwrap())
                    .status,
                200
            );
        }
    }
}

#[test]
fn a_family_has_one_quota_of_requests() {
    let server = Server::of("allsign");
    let old = server.issue(json!({ "rate_limit_config": { "requests_per_minute": 10 } }));
    for _ in 0..4 {
        assert_eq!(status(&server, &old), 200);
    }
    let new = rotated(&server, old.id(), &json!({ "grace_seconds": 60 }));
    for _ in 0..3 {
        assert_eq!([status(&server, &new), status(&server, &old)], [200, 200]);
    }
    assert_eq!([status(&server, &new), status(&server, &old)], [429, 429]);
    let newest = rotated(&server, new.id(), &json!({ "grace_seconds": 60 }));
    assert_eq!(status(&server, &newest), 429);
}

#[test]
fn a_rotated_key_does_not_outlive_its_grace_by_a_change() {
    let server = Server::of("allsign");
    let old = server.issue(json!({}));
    rotated(&server, old.id(), &json!({ "grace_seconds": 60 }));
    for end in [json!(null), json!("2099-01-01T00:00:00Z")] {
        let answer = crate::common::manage::patch(&server, old.id(), &json!({ "expires_at": end }));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    change(
        &server,
        old.id(),
        &json!({ "expires_at": (now() + jiff::SignedDuration::from_secs(1)).to_string() }),
    );
    crate::common::until("the nearer end", || status(&server, &old) == 401);
}

#[test]
fn a_disabled_key_has_a_disabled_successor() {
    let server = Server::of("allsign");
    let old = server.issue(json!({}));
    change(&server, old.id(), &json!({ "enabled": false }));
    let new = rotated(&server, old.id(), &json!({ "grace_seconds": 60 }));
    assert_eq!(
        (&new.record["enabled"], &new.record["status"]),
        (&json!(false), &json!("disabled"))
    );
    assert_eq!(
        [status(&server, &old), status(&server, &new)],
        [401, 401],
        "rotating switches nothing on"
    );
}

#[test]
fn dropbox_sign_refuses_a_grace_and_lets_the_old_key_stay() {
    let server = Server::of("dropbox-sign");
    let old = server.issue(json!({}));
    for grace in [0, 1, 60] {
        let answer = rotate(&server, old.id(), &json!({ "grace_seconds": grace }));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    let new = rotated(&server, old.id(), &json!({}));
    assert_eq!([status(&server, &old), status(&server, &new)], [200, 200]);
    let kept = server.record(old.id());
    assert_eq!(
        (&kept["expires_at"], &kept["status"], &kept["primary"]),
        (&json!(null), &json!("active"), &json!(true))
    );
    assert_eq!(new.record["primary"], false, "rotation never moves it");
    assert_eq!(delete(&server, old.id()).status, 409, "the primary key");
    assert_eq!(make_primary(&server, new.id()).status, 200);
    assert_eq!(delete(&server, old.id()).status, 204);
    assert_eq!([status(&server, &old), status(&server, &new)], [401, 200]);
}

#[test]
fn a_successor_counts() {
    let server = Server::of("dropbox-sign");
    let four: Vec<_> = (0..4).map(|_| server.issue(json!({}))).collect();
    assert_problem(
        &rotate(&server, four[0].id(), &json!({})),
        409,
        "QUOTA_EXCEEDED",
        &[],
    );
    assert_eq!(
        server.record(four[0].id()),
        four[0].record,
        "nothing was changed"
    );
    server.revoke(four[1].id());
    let answers = crate::common::at_once(8, |number| {
        rotate(&server, four[number / 4 * 2].id(), &json!({})).status
    });
    assert_eq!(
        answers.iter().filter(|status| **status == 201).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(ids(&list(&server, "owner", "?status=active")).len(), 4);
    let token = server.issue(json!({ "kind": "access_token", "owner": { "user_id": USER } }));
    assert_problem(
        &rotate(&server, token.id(), &json!({})),
        422,
        "INVALID_BODY",
        &[],
    );
}

#[test]
fn rotating_and_revoking_at_once_loses_no_revocation() {
    let server = Server::of("allsign");
    for _ in 0..30 {
        let old = server.issue(json!({}));
        let answers = crate::common::at_once(2, |number| match number {
            0 => server.revoke(old.id()),
            _ => rotate(&server, old.id(), &json!({ "grace_seconds": 60 })),
        });
        assert_eq!(answers[0].status, 200);
        assert!(
            [201, 409].contains(&answers[1].status),
            "{}",
            answers[1].text()
        );
        assert_eq!(
            (
                server.record(old.id())["status"].as_str(),
                status(&server, &old)
            ),
            (Some("revoked"), 401)
        );
        if answers[1].status == 201 {
            assert_eq!(
                server.record(old.id())["successor"],
                answers[1].json()["record"]["id"]
            );
        }
    }
}
