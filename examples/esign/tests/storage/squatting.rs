//! Knowing the digest of another tenant's key is not enough to disable that key or to take over its
//! requests.

use crate::common::manage::{delete, list};
use crate::common::{Call, Server};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

fn import(key: &str, scheme: &str) -> Value {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let hex = match scheme {
        "sha256" => hex(&Sha256::digest(key)),
        _ => hex(&Sha512::digest(key)),
    };
    json!({ "name": "squatted", "scopes": ["*"], "digest": { "scheme": scheme, "hex": hex } })
}

#[test]
fn another_tenants_key_imported_under_an_older_scheme_affects_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("keys.db").display());
    for store in ["memory", &file] {
        let server = Server::on(store, "allsign");
        let mine = server.issue(json!({ "scopes": ["document:read"] }));
        let whoami = || {
            let answer = server.get("/whoami", &mine.key);
            (answer.status, answer.json()["key_id"].clone())
        };
        let works = (200, Value::from(mine.id()));
        assert_eq!(whoami(), works);
        for end in ["revoke", "delete"] {
            let body = import(&mine.key, "sha512");
            let answer = server.admin("outsider", Call::post("/import").json(&body));
            assert_eq!(answer.status, if end == "revoke" { 201 } else { 409 });
            assert_eq!(whoami(), works, "{store}: beside a foreign import");
            if end == "delete" {
                continue;
            }
            let theirs = answer.json()["record"]["id"].as_str().unwrap().to_owned();
            let revoke = Call::post(&format!("/keys/{theirs}/revoke"));
            assert_eq!(server.admin("outsider", revoke).status, 200);
            assert_eq!(
                whoami(),
                works,
                "{store}: after the foreign key was revoked"
            );
            let remove = Call::new("DELETE", &format!("/keys/{theirs}"));
            assert_eq!(server.admin("outsider", remove).status, 204);
            assert_eq!(
                whoami(),
                works,
                "{store}: after the foreign key was deleted"
            );
        }
        if store != "memory" {
            // Also after all in-memory state is lost.
            assert_eq!(server.stop().code, Some(0));
            let server = Server::on(store, "allsign");
            assert_eq!(server.get("/whoami", &mine.key).status, 200);
        }
    }
}

#[test]
fn a_known_digest_is_refused_identically_for_any_owner() {
    let server = Server::of("allsign");
    let mine = server.issue(json!({}));
    let theirs = server.issue_as("outsider", json!({}));
    let gone = server.issue_as("outsider", json!({}));
    let remove = Call::new("DELETE", &format!("/keys/{}", gone.id()));
    assert_eq!(server.admin("outsider", remove).status, 204);
    let before = list(&server, "owner", "");
    let answers = [&mine, &theirs, &gone].map(|issued| {
        let body = import(&issued.key, "sha256");
        let answer = server.admin("owner", Call::post("/import").json(&body));
        (answer.status, answer.text())
    });
    assert_eq!(answers[0].0, 409);
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(list(&server, "owner", ""), before);
    let events = server
        .admin("owner", Call::get("/events?outcome=CONFLICT"))
        .json();
    let mut told: Vec<Value> = events["items"].as_array().unwrap().clone();
    assert_eq!(told.len(), 3);
    for event in &mut told {
        for own in ["id", "at", "request_id"] {
            event.as_object_mut().unwrap().remove(own);
        }
    }
    assert!(told.iter().all(|event| *event == told[0]), "{told:?}");
    // The tenant's own key is not affected.
    assert_eq!(delete(&server, mine.id()).status, 204);
}

#[test]
fn a_key_revoked_under_another_digest_by_its_tenant_is_refused_on_the_next_request() {
    let server = Server::on("memory", "allsign");
    for end in ["revoke", "delete"] {
        let mine = server.issue(json!({}));
        assert_eq!(server.get("/whoami", &mine.key).status, 200);
        let body = import(&mine.key, "sha512");
        let again = server.admin("owner", Call::post("/import").json(&body));
        assert_eq!(again.status, 201, "{}", again.text());
        let id = again.json()["record"]["id"].as_str().unwrap().to_owned();
        assert_eq!(server.get("/whoami", &mine.key).status, 200);
        let ended = match end {
            "revoke" => server.revoke(&id).status == 200,
            _ => delete(&server, &id).status == 204,
        };
        assert!(ended);
        assert_eq!(server.get("/whoami", &mine.key).status, 401, "{end}");
        let body = json!({ "key": mine.key });
        let verdict = server.admin("owner", Call::post("/verify").json(&body));
        assert_eq!(verdict.json()["active"], false, "{end}");
    }
}
