//! Importing keys by digest, without ever seeing their secret; each digest only once.

use crate::common::manage::{assert_problem, delete, ids, list, make_primary, rotate};
use crate::common::{Answer, Call, Server, hex};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

/// A key of another system, with a unique number.
fn key(number: usize) -> String {
    format!("allsign_live_sk_Imported{number:024}")
}

fn sha256(key: &str) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).to_vec()
}

fn import(server: &Server, digest: &Value) -> Answer {
    let body = json!({ "name": "imported", "scopes": ["document:read"], "digest": digest });
    server.admin("owner", Call::post("/import").json(&body))
}

#[test]
fn a_digest_in_any_usual_notation_is_taken_and_works_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let long = |key: &str| Sha512::digest(key.as_bytes()).to_vec();
        let notations: [&dyn Fn(&str) -> Value; 10] = [
            &|key| json!({ "scheme": "sha256", "hex": hex(sha256(key)) }),
            &|key| json!({ "scheme": "sha256", "hex": hex(sha256(key)).to_uppercase() }),
            &|key| json!({ "scheme": "sha512", "hex": hex(long(key)) }),
            &|key| json!({ "scheme": "sha256", "base64": STANDARD.encode(sha256(key)) }),
            &|key| json!({ "scheme": "sha256", "base64": STANDARD_NO_PAD.encode(sha256(key)) }),
            &|key| json!({ "scheme": "sha256", "base64": URL_SAFE.encode(sha256(key)) }),
            &|key| json!({ "scheme": "sha256", "base64": URL_SAFE_NO_PAD.encode(sha256(key)) }),
            &|key| json!({ "scheme": "sha512", "base64": STANDARD.encode(long(key)) }),
            &|key| json!({ "scheme": "sha512", "base64": URL_SAFE_NO_PAD.encode(long(key)) }),
            &|key| json!({ "scheme": "sha512", "hex": hex(long(key)).to_uppercase() }),
        ];
        for (number, notation) in notations.iter().enumerate() {
            let key = key(number);
            // The unknown key is in the negative cache, from which the import removes it.
            assert_eq!(server.get("/v2/documents", &key).status, 401);
            let answer = import(&server, &notation(&key));
            assert_eq!(answer.status, 201, "{number}: {}", answer.text());
            assert_eq!(answer.fields("cache-control"), ["no-store"]);
            let body = answer.json();
            assert_eq!(
                body.as_object().unwrap().keys().collect::<Vec<_>>(),
                ["record"],
                "no secret is known"
            );
            for _ in 0..2 {
                assert_eq!(
                    server.get("/v2/documents", &key).status,
                    200,
                    "{store}, {number}"
                );
            }
            assert_eq!(server.get("/v2/signatures", &key).status, 403);
            let record = server.record(body["record"]["id"].as_str().unwrap());
            assert_eq!(record["request_count"], 3, "its use is seen");
            assert!(record["last_used_at"].is_string());
            assert_eq!(record["version"], 1, "and is not a change");
        }
        assert_eq!(ids(&list(&server, "owner", "")).len(), notations.len());
    }
}

#[test]
fn an_invalid_digest_is_422() {
    let server = Server::of("allsign");
    let good = hex(sha256(&key(0)));
    let long = hex(Sha512::digest(key(0).as_bytes()));
    for digest in [
        json!({ "scheme": "sha256", "hex": &good[..62] }),
        json!({ "scheme": "sha256", "hex": &good[..63] }),
        json!({ "scheme": "sha256", "hex": format!("{good}00") }),
        json!({ "scheme": "sha256", "hex": "" }),
        json!({ "scheme": "sha256", "hex": format!("0x{}", &good[2..]) }),
        json!({ "scheme": "sha256", "hex": format!(" {}", &good[1..]) }),
        json!({ "scheme": "sha256", "hex": format!("+{}", &good[1..]) }),
        json!({ "scheme": "sha256", "hex": format!("{}\u{ff11}", &good[3..]) }),
        json!({ "scheme": "sha256", "hex": good.replace(&good[..2], "zz") }),
        json!({ "scheme": "sha256", "hex": "a".repeat(1 << 20) }),
        json!({ "scheme": "sha256", "hex": long }),
        json!({ "scheme": "sha512", "hex": good }),
        json!({ "scheme": "sha256", "base64": "" }),
        json!({ "scheme": "sha256", "base64": "!" }),
        json!({ "scheme": "sha256", "base64": STANDARD.encode([0; 31]) }),
        json!({ "scheme": "sha256", "base64": STANDARD.encode([0; 33]) }),
        json!({ "scheme": "sha256", "base64": format!("{}\n", STANDARD.encode([0; 32])) }),
        json!({ "scheme": "sha256", "base64": "A".repeat(1 << 20) }),
        // Extra bits in the last character: two notations of one digest.
        json!({ "scheme": "sha256", "base64": format!("{}B=", "A".repeat(42)) }),
        json!({ "scheme": "sha256", "base64": format!("{}+_{}", "A".repeat(20), "A".repeat(21)) }),
        json!({ "scheme": "sha1", "hex": &good[..40] }),
        json!({ "scheme": "md5", "hex": &good[..32] }),
        json!({ "scheme": "SHA256", "hex": good }),
        json!({ "scheme": "sha-256", "hex": good }),
        json!({ "scheme": "", "hex": good }),
        json!({ "scheme": "plain", "hex": good }),
        json!({ "scheme": "bcrypt", "hex": good }),
        json!({ "scheme": "hmac-sha256:1", "hex": good }),
        json!({ "scheme": "x".repeat(1 << 20), "hex": good }),
        json!({ "scheme": "sha256" }),
        json!({ "hex": good }),
        json!({ "scheme": "sha256", "hex": good, "base64": STANDARD.encode([0; 32]) }),
        json!({ "scheme": "sha256", "hex": good, "salt": "x" }),
        json!({ "scheme": "sha256", "hex": 1 }),
        json!(["sha256", good]),
        json!(good),
        json!(null),
    ] {
        let shown: String = digest.to_string().chars().take(100).collect();
        let answer = import(&server, &digest);
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (422, Some("INVALID_BODY")),
            "{shown}"
        );
        assert!(
            answer.body.len() < 2000,
            "{shown}: {} bytes",
            answer.body.len()
        );
    }
    let missing = server.admin("owner", Call::post("/import").json(&json!({ "name": "n" })));
    assert_problem(&missing, 422, "INVALID_BODY", &[]);
    assert_problem(
        &server.admin("owner", Call::post("/import").body("{")),
        400,
        "INVALID_REQUEST",
        &[],
    );
    assert_eq!(ids(&list(&server, "owner", "")).len(), 0);
}

#[test]
fn a_digest_that_was_ever_known_is_409() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        server.issue(json!({ "name": "primary" }));
        let [active, revoked, deleted] = [0, 1, 2].map(|_| server.issue(json!({})));
        server.revoke(revoked.id());
        assert_eq!(delete(&server, deleted.id()).status, 204);
        let imported = key(0);
        assert_eq!(
            import(
                &server,
                &json!({ "scheme": "sha256", "hex": hex(sha256(&imported)) })
            )
            .status,
            201
        );
        let before = ids(&list(&server, "owner", "")).len();
        for key in [&active.key, &revoked.key, &deleted.key, &imported] {
            for digest in [
                json!({ "scheme": "sha256", "hex": hex(sha256(key)).to_uppercase() }),
                json!({ "scheme": "sha256", "base64": URL_SAFE_NO_PAD.encode(sha256(key)) }),
            ] {
                assert_problem(&import(&server, &digest), 409, "CONFLICT", &[]);
            }
            let body = json!({
                "name": "theirs",
                "digest": { "scheme": "sha256", "hex": hex(sha256(key)) },
            });
            assert_eq!(
                server
                    .admin("outsider", Call::post("/import").json(&body))
                    .status,
                409
            );
        }
        assert_eq!(ids(&list(&server, "owner", "")).len(), before);
        assert_eq!(
            [&revoked.key, &deleted.key].map(|key| server.get("/whoami", key).status),
            [401, 401],
            "{store}"
        );
    }
}

#[test]
fn a_key_that_was_revoked_does_not_come_back_under_another_scheme() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        server.issue(json!({ "name": "primary" }));
        let [revoked, deleted] = [server.issue(json!({})), server.issue(json!({}))];
        server.revoke(revoked.id());
        assert_eq!(delete(&server, deleted.id()).status, 204);
        for (issued, what) in [(&revoked, "revoked"), (&deleted, "deleted")] {
            let digest =
                json!({ "scheme": "sha512", "hex": hex(Sha512::digest(issued.key.as_bytes())) });
            let answer = import(&server, &digest);
            assert!(matches!(answer.status, 201 | 409), "{}", answer.text());
            for _ in 0..2 {
                let status = server.get("/v2/documents", &issued.key).status;
                assert_eq!(status, 401, "{store}: a key that was {what} works again");
            }
        }
    }
}

#[test]
fn of_many_imports_of_one_digest_at_once_one_is_done() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let digest = json!({ "scheme": "sha256", "hex": hex(sha256(&key(0))) });
        let answers = crate::common::at_once(16, |_| import(&server, &digest).status);
        assert_eq!(
            answers.iter().filter(|status| **status == 201).count(),
            1,
            "{answers:?}"
        );
        assert!(
            answers.iter().all(|status| [201, 409].contains(status)),
            "{answers:?}"
        );
        assert_eq!(ids(&list(&server, "owner", "")).len(), 1);
    }
}

#[test]
fn an_imported_key_is_a_key_like_others() {
    let server = Server::of("allsign");
    let body = json!({
        "name": "imported", "description": "d", "kind": "app", "environment": "test",
        "scopes": ["document:read"], "metadata": { "a": 1 }, "allowed_ips": ["127.0.0.1"],
        "expires_at": "2099-01-01T00:00:00.000Z", "last_four": "wxyz",
        "digest": { "scheme": "sha256", "hex": hex(sha256(&key(0))) },
    });
    let answer = server.admin("owner", Call::post("/import").json(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let record = answer.json()["record"].clone();
    for field in [
        "name",
        "description",
        "kind",
        "environment",
        "scopes",
        "metadata",
        "expires_at",
    ] {
        assert_eq!(record[field], body[field], "{field}");
    }
    assert!(
        record["masked"].as_str().unwrap().ends_with("…wxyz"),
        "{}",
        record["masked"]
    );
    assert_eq!(record["status"], "active");
    let id = record["id"].as_str().unwrap();
    let rotated = rotate(&server, id, &json!({}));
    assert_eq!(rotated.status, 201);
    assert_eq!(
        server
            .get("/whoami", rotated.json()["key"].as_str().unwrap())
            .status,
        200
    );
    for (extra, status) in [
        (json!({ "last_four": "12345" }), 422),
        (json!({ "last_four": 1 }), 422),
        (json!({ "last_four": "a\n" }), 422),
        (json!({ "nonsense": 1 }), 422),
        (json!({ "owner": { "tenant_id": "tenant_xyz789" } }), 403),
        (json!({ "scopes": ["other:read"] }), 422),
        (json!({ "key": "allsign_live_sk_x" }), 422),
    ] {
        let mut body =
            json!({ "name": "n", "digest": { "scheme": "sha256", "hex": hex(sha256(&key(1))) } });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        assert_eq!(
            server
                .admin("owner", Call::post("/import").json(&body))
                .status,
            status,
            "{extra}"
        );
    }
    assert_eq!(
        server
            .admin("member", Call::post("/import").json(&body))
            .status,
        403
    );
}

#[test]
fn on_dropbox_sign_an_imported_key_counts_and_is_never_primary() {
    let server = Server::of("dropbox-sign");
    let key = |number: usize| format!("{number:048x}");
    let import = |number: usize| {
        let body = json!({
            "name": "n",
            "digest": { "scheme": "sha256", "hex": hex(sha256(&key(number))) },
        });
        server.admin("owner", Call::post("/import").json(&body))
    };
    let imported: Vec<_> = (0..3)
        .map(|number| import(number).json()["record"].clone())
        .collect();
    let real = server.issue(json!({}));
    assert_problem(&import(3), 409, "QUOTA_EXCEEDED", &[]);
    assert_eq!(real.record["primary"], true);
    for (number, record) in imported.iter().enumerate() {
        assert_eq!(record["primary"], false);
        assert_eq!(server.get("/whoami", &key(number)).status, 200);
        let answer = make_primary(&server, record["id"].as_str().unwrap());
        assert_problem(&answer, 409, "CONFLICT", &[]);
    }
    // Rotation issues a successor with a known secret, which can sign.
    assert_eq!(
        delete(&server, imported[0]["id"].as_str().unwrap()).status,
        204
    );
    let successor =
        rotate(&server, imported[1]["id"].as_str().unwrap(), &json!({})).json()["record"].clone();
    assert_eq!(
        make_primary(&server, successor["id"].as_str().unwrap()).status,
        200
    );
}
