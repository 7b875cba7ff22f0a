//! Headers that name a user to act for: refused where they are not allowed, never ignored.
//!
//! The demo's directory contains the users of two tenants; AllSign's application keys act for those
//! of their own tenant.

use crate::common::{Call, MEMBER, MEMBER_EMAIL, NOBODY, OUTSIDER, Server, USER, assert_refused};
use serde_json::json;

const FORBIDDEN: &str = r#"{"detail": "The API key is not allowed to act for this user"}"#;
const FIELDS: [&str; 3] = ["X-User-Id", "X-On-Behalf-Of", "X-On-Behalf-Email"];

fn user_key() -> serde_json::Value {
    json!({ "kind": "user", "scopes": ["*"], "owner": { "user_id": USER, "user_email": "user@example.com" } })
}

#[test]
fn a_user_key_cannot_act_for_another_user() {
    let server = Server::of("allsign");
    let user = server.issue(user_key());
    for (name, value) in [
        ("X-User-Id", MEMBER),
        ("X-User-Id", NOBODY),
        ("X-User-Id", OUTSIDER),
        ("X-On-Behalf-Of", MEMBER),
        ("X-On-Behalf-Of", USER),
        ("X-On-Behalf-Of", MEMBER_EMAIL),
        ("X-On-Behalf-Of", "nobody@example.com"),
        ("X-On-Behalf-Email", MEMBER_EMAIL),
        ("X-On-Behalf-Email", "user@example.com"),
        ("X-On-Behalf-Email", "outsider@example.com"),
        ("x-user-id", MEMBER),
    ] {
        let answer = server.send(
            &Call::get("/v2/documents")
                .bearer(&user.key)
                .field(name, value),
        );
        assert_refused(&answer, 403, "application/json", FORBIDDEN, &[]);
    }
}

#[test]
fn the_refusal_does_not_reveal_whether_a_user_exists() {
    let server = Server::of("allsign");
    let app = server.issue_scoped(&["*"]);
    for name in FIELDS {
        let ask = |value: &str| {
            server
                .send(&Call::get("/whoami").bearer(&app.key).field(name, value))
                .timeless()
        };
        let (foreign, unknown) = match name {
            "X-On-Behalf-Email" => ("outsider@example.com", "nobody@example.com"),
            _ => (OUTSIDER, NOBODY),
        };
        assert_refused(&ask(foreign), 403, "application/json", FORBIDDEN, &[]);
        assert_eq!(ask(foreign), ask(unknown), "{name}");
    }
}

#[test]
fn a_refused_actor_leaves_nothing_behind() {
    let server = Server::of("allsign");
    let app = server.issue_scoped(&["*"]);
    let call = Call::post("/v2/documents")
        .bearer(&app.key)
        .field("X-User-Id", NOBODY);
    assert_eq!(
        server.send(&call.json(&json!({ "title": "t" }))).status,
        403
    );
    assert_eq!(
        server.get("/v2/documents", &app.key).text(),
        r#"{"documents":[]}"#
    );
}

#[test]
fn a_user_key_may_name_its_own_user() {
    let server = Server::of("allsign");
    let user = server.issue(user_key());
    let plain = server.get("/whoami", &user.key).timeless();
    assert_eq!(
        plain.json()["actor"],
        json!({ "user_id": USER, "user_email": "user@example.com" })
    );
    for id in [USER.to_owned(), USER.to_uppercase()] {
        let answer = server.send(
            &Call::get("/whoami")
                .bearer(&user.key)
                .field("X-User-Id", id),
        );
        assert_eq!(answer.timeless(), plain);
    }
}

#[test]
fn an_unclear_wish_is_400() {
    let server = Server::of("allsign");
    let app = server.issue_scoped(&["*"]);
    let user = server.issue(user_key());
    let names_nobody = |name: &str| {
        format!(
            r#"{{"detail": "The header {} does not name a user"}}"#,
            name.to_lowercase()
        )
    };
    let repeated = |name: &str| {
        format!(
            r#"{{"detail": "The header {} is repeated"}}"#,
            name.to_lowercase()
        )
    };
    let beside = |name: &str| {
        format!(
            r#"{{"detail": "The header {} cannot be combined with another header that names a user"}}"#,
            name.to_lowercase()
        )
    };
    let challenge = [r#"Bearer realm="allsign", error="invalid_request""#];
    for key in [&app.key, &user.key] {
        let call = || Call::get("/v2/documents").bearer(key);
        let refused = |call: &Call, body: &str| {
            assert_refused(
                &server.send(call),
                400,
                "application/json",
                body,
                &challenge,
            );
        };
        for name in FIELDS {
            refused(&call().field(name, ""), &names_nobody(name));
            refused(&call().field(name, "   "), &names_nobody(name));
            refused(&call().field(name, b"\xff"), &names_nobody(name));
            refused(&call().field(name, "a".repeat(321)), &names_nobody(name));
            refused(&call().field(name, USER).field(name, USER), &repeated(name));
            refused(
                &call().field(name, USER).field(&name.to_lowercase(), ""),
                &repeated(name),
            );
        }
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            let both = call()
                .field(FIELDS[second], MEMBER)
                .field(FIELDS[first], USER);
            refused(&both, &beside(FIELDS[second]));
        }
    }
}

#[test]
fn without_a_key_nothing_is_revealed_about_actors() {
    let server = Server::of("allsign");
    for call in [
        Call::get("/whoami").field("X-User-Id", USER),
        Call::get("/whoami")
            .field("X-User-Id", "")
            .field("X-User-Id", ""),
        Call::get("/whoami")
            .field("X-On-Behalf-Of", MEMBER_EMAIL)
            .field("X-User-Id", USER),
    ] {
        let answer = server.send(&call);
        assert_eq!(
            answer.timeless(),
            server.send(&Call::get("/whoami")).timeless()
        );
    }
    let unknown = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";
    let plain = server.get("/whoami", unknown).timeless();
    assert_eq!(plain.status, 401);
    for value in [USER, NOBODY, ""] {
        let call = Call::get("/whoami")
            .bearer(unknown)
            .field("X-User-Id", value);
        assert_eq!(server.send(&call).timeless(), plain);
    }
}

#[test]
fn similar_header_names_have_no_effect() {
    let server = Server::of("allsign");
    let app = server.issue_scoped(&["*"]);
    let plain = server.get("/whoami", &app.key).timeless();
    for name in [
        "X_User_Id",
        "X-User_Id",
        "XUserId",
        "X-User-ID-",
        "X-On_Behalf_Of",
        "X_On_Behalf_Email",
        "X-Portunus-Principal",
        "X-Key-Id",
        "X-Tenant-Id",
        "X-Scopes",
        "X-Environment",
        "Forwarded-User",
    ] {
        for value in [MEMBER, "tenant_xyz789", "*"] {
            let answer = server.send(&Call::get("/whoami").bearer(&app.key).field(name, value));
            assert_eq!(answer.timeless(), plain, "{name}: {value}");
        }
    }
}

#[test]
fn other_profiles_refuse_to_act_for_others_too() {
    for profile in ["insigner", "yousign", "iusign", "dropbox-sign"] {
        let server = Server::of(profile);
        let issued = server.issue(json!({}));
        for name in FIELDS {
            let ask = |value: &str| {
                server.send(&server.with_key(Call::get("/whoami").field(name, value), &issued.key))
            };
            let member = if name == "X-On-Behalf-Email" {
                MEMBER_EMAIL
            } else {
                MEMBER
            };
            assert_eq!(ask(member).status, 403, "{profile} {name}");
            assert_eq!(ask("").status, 400, "{profile} {name}");
        }
    }
}
