//! Self-serve: `/me/login`, and `/me/api`, where an operator manages its own keys with at most its
//! own permissions.

use crate::common::{Answer, Call, MEMBER, OUTSIDER, PLATFORM, Server, USER, eventually};
use serde_json::{Value, json};

/// Signs in with this token, as JSON.
fn log_in(server: &Server, token: &str) -> Answer {
    server.send(&Call::post("/me/login").json(&json!({ "token": token })))
}

/// Returns the `Cookie` of a new session of this operator.
fn session(server: &Server, operator: &str) -> String {
    let answer = log_in(server, &server.operator(operator));
    assert_eq!(answer.status, 204, "{}", answer.text());
    cookie_of(&answer)
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.text()
    );
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert_eq!(answer.fields("www-authenticate").is_empty(), status != 401);
}

fn cookie_of(answer: &Answer) -> String {
    let [set] = answer.fields("set-cookie")[..] else {
        panic!("expected one cookie: {:?}", answer.fields("set-cookie"));
    };
    set.split(';').next().unwrap().to_owned()
}

fn me(server: &Server, cookie: &str, call: Call) -> Answer {
    server.send(&call.under("/me/api").field("Cookie", cookie))
}

fn issue(server: &Server, cookie: &str, body: &Value) -> Answer {
    me(server, cookie, Call::post("/keys").json(body))
}

/// Issues a key, and returns its id and secret.
fn issued(server: &Server, cookie: &str, body: &Value) -> (String, String) {
    let answer = issue(server, cookie, body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&answer["record"]["id"]), text(&answer["key"]))
}

#[test]
fn a_login_begins_a_session_in_a_cookie_of_its_own_site() {
    let server = Server::of("allsign");
    let token = server.operator("member");
    let form = format!("token={token}");
    let as_form = Call::post("/me/login")
        .field("Content-Type", "application/x-www-form-urlencoded")
        .body(form);
    for (answer, status, location) in [
        (log_in(&server, &token), 204, &[][..]),
        (server.send(&as_form), 303, &["/me/keys"][..]),
    ] {
        assert_eq!((answer.status, answer.text().as_str()), (status, ""));
        assert_eq!(answer.fields("location"), location);
        assert_eq!(answer.fields("cache-control"), ["no-store"]);
        let [set] = answer.fields("set-cookie")[..] else {
            panic!("one cookie")
        };
        for attribute in ["; Path=/me;", "; HttpOnly", "; SameSite=Strict"] {
            assert!(set.contains(attribute), "{set}");
        }
        assert!(!set.contains("Secure") && !set.contains(&token), "{set}");
        let list = me(&server, &cookie_of(&answer), Call::get("/keys"));
        assert_eq!(list.json(), json!({ "items": [], "next_cursor": null }));
    }
    let page = server.send(&Call::get("/me/login"));
    assert_eq!(page.status, 200);
    assert!(page.fields("content-type")[0].starts_with("text/html"));
    assert!(page.text().contains("<form method=\"post\""));
}

#[test]
fn what_is_not_a_token_begins_no_session() {
    let server = Server::of("allsign");
    let token = server.operator("member");
    let key = server.issue(json!({})).key;
    let spaced = format!("{token} ");
    for wrong in [
        "",
        "op_wrong",
        "op wrong",
        "a,b",
        "\u{e9}",
        "\n",
        &key,
        &token[1..],
    ] {
        let answer = log_in(&server, wrong);
        assert_problem(&answer, 401, "INVALID_KEY");
        assert!(answer.fields("set-cookie").is_empty(), "{wrong:?}");
        assert!(!answer.text().contains(&key));
    }
    assert_eq!(
        log_in(&server, &spaced).status,
        204,
        "white space at the end is removed"
    );
    // The token in the header is not the one that signs in.
    let other = Call::post("/me/login")
        .bearer(&token)
        .json(&json!({ "token": "op_wrong" }));
    assert_eq!(server.send(&other).status, 401);
    let secret = "op_very_secret_value";
    for (media, body, status) in [
        (
            "application/json",
            format!("{{\"token\":[\"{secret}\"]}}"),
            422,
        ),
        (
            "application/json",
            format!("{{\"token\":\"{token}\",\"token\":\"{token}\"}}"),
            422,
        ),
        (
            "application/json",
            format!("{{\"token\":\"{token}\",\"owner\":1}}"),
            422,
        ),
        ("application/json", secret.to_owned(), 422),
        (
            "application/x-www-form-urlencoded",
            format!("tokens={secret}"),
            422,
        ),
        (
            "application/x-www-form-urlencoded",
            format!("token={token}&token={token}"),
            422,
        ),
        ("text/plain", format!("{{\"token\":\"{token}\"}}"), 415),
        ("multipart/form-data", format!("token={token}"), 415),
        (
            "application/json",
            format!("{{\"token\":\"{}\"}}", "x".repeat(5000)),
            413,
        ),
    ] {
        let call = Call::post("/me/login").field("Content-Type", media);
        let answer = server.send(&call.body(&body));
        assert_eq!(answer.status, status, "{media} {body}: {}", answer.text());
        assert!(answer.fields("set-cookie").is_empty());
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
}

#[test]
fn tokens_cannot_be_guessed_at_the_login() {
    let server = Server::of("allsign");
    let mut last = 0;
    for _ in 0..101 {
        last = log_in(&server, "op_wrong").status;
    }
    assert_eq!(last, 429);
    // The same count as for the management API. A right token still passes.
    let guess = Call::get("/admin/keys").bearer("op_wrong");
    assert_eq!(server.send(&guess).status, 429);
    session(&server, "owner");
}

#[test]
fn a_session_ends_at_the_logout_and_is_needed_for_every_call() {
    let server = Server::of("allsign");
    let (first, second) = (session(&server, "member"), session(&server, "member"));
    assert_ne!(first, second);
    let status = |cookie: &str| me(&server, cookie, Call::get("/keys")).status;
    assert_eq!([status(&first), status(&second)], [200, 200]);
    // Another host of the site may plant a second cookie.
    assert_eq!(status(&format!("{first}; {second}")), 401);
    assert_eq!(status(&format!("other=1; {first}; esign=2")), 200);
    for none in ["", "esign_session=", "esign_session=op", "session=1"] {
        assert_eq!(status(none), 401, "{none}");
    }
    let out = server.send(&Call::post("/me/logout").field("Cookie", &first));
    assert_eq!(out.status, 204);
    let [cleared] = out.fields("set-cookie")[..] else {
        panic!("one cookie")
    };
    assert!(
        cleared.starts_with("esign_session=; Path=/me; Max-Age=0;"),
        "{cleared}"
    );
    assert_eq!([status(&first), status(&second)], [401, 200]);
    assert_eq!(
        server.send(&Call::post("/me/logout")).status,
        204,
        "nothing to end"
    );
    // The token is for the login, and the session is not for the management API.
    let token = server.operator("owner");
    let bearer = Call::get("/me/api/keys").bearer(&token);
    assert_problem(&server.send(&bearer), 401, "MISSING_KEY");
    let owners = session(&server, "owner");
    let admin = Call::get("/admin/keys").field("Cookie", &owners);
    assert_problem(&server.send(&admin), 401, "MISSING_KEY");
}

#[test]
fn each_login_begins_a_new_session_and_ends_the_one_that_it_presents() {
    let server = Server::of("allsign");
    let token = server.operator("member");
    let status = |cookie: &str| me(&server, cookie, Call::get("/keys")).status;
    let log_in_with = |cookie: &str, token: &str| {
        let login = Call::post("/me/login").json(&json!({ "token": token }));
        server.send(&login.field("Cookie", cookie))
    };
    // An id that somebody planted is never the id of a session.
    let planted = "esign_session=0123456789abcdef0123456789abcdef";
    let first = log_in_with(planted, &token);
    assert_eq!(first.status, 204);
    let first = cookie_of(&first);
    assert_ne!(first, planted);
    assert_eq!([status(planted), status(&first)], [401, 200]);
    // A login that fails ends nothing.
    assert_eq!(log_in_with(&first, "op_wrong").status, 401);
    assert_eq!(status(&first), 200);
    // Signed in again, also as another operator: the session is another one, and the old one has ended.
    for operator in ["member", "owner", "member"] {
        let old = cookie_of(&log_in_with("", &token));
        let bystander = session(&server, "member");
        let new = cookie_of(&log_in_with(&old, &server.operator(operator)));
        assert!(new != old && new != bystander, "{operator}");
        assert_eq!(
            [status(&old), status(&new), status(&bystander)],
            [401, 200, 200]
        );
        // The logout ends it on the server, not only in the browser, and again it changes nothing.
        for _ in 0..2 {
            let out = server.send(&Call::post("/me/logout").field("Cookie", &new));
            assert_eq!(out.status, 204, "{operator}");
            assert_eq!([status(&new), status(&bystander)], [401, 200], "{operator}");
        }
    }
}

#[test]
fn many_keys_are_changed_in_one_operation_and_only_the_users_own() {
    let server = Server::of("allsign");
    let cookie = session(&server, "member");
    let own: Vec<_> = (0..3)
        .map(|number| {
            issued(
                &server,
                &cookie,
                &json!({ "name": format!("own {number}") }),
            )
            .0
        })
        .collect();
    let others = server.issue(json!({}));
    let bulk = |body: &Value| me(&server, &cookie, Call::post("/keys/bulk").json(body));
    let all = json!({ "filter": { "all": true }, "action": "revoke", "dry_run": true });
    assert_eq!(bulk(&all).json(), json!({ "count": 3 }));
    let foreign = json!({ "filter": { "owner": USER }, "action": "revoke", "dry_run": true });
    assert_eq!(bulk(&foreign).json(), json!({ "count": 0 }));
    let started = bulk(&json!({ "filter": { "all": true }, "action": "revoke" }));
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let show = || me(&server, &cookie, Call::get(&format!("/keys/bulk/{id}")));
    let ended = eventually(|| show().json()["ended_at"].is_string().then_some(()));
    assert!(ended.is_some(), "{}", show().text());
    assert_eq!([&show().json()["done"], &show().json()["failed"]], [3, 0]);
    for id in &own {
        let key = me(&server, &cookie, Call::get(&format!("/keys/{id}")));
        assert_eq!(key.json()["status"], "revoked");
    }
    assert_eq!(server.get("/whoami", &others.key).status, 200);
    // Another user knows nothing of it.
    let stranger = session(&server, "admin");
    let hidden = me(&server, &stranger, Call::get(&format!("/keys/bulk/{id}")));
    assert_problem(&hidden, 404, "NOT_FOUND");
}

#[test]
fn writes_from_other_sites_are_refused() {
    let server = Server::start(
        "allsign",
        &["--trusted-origin", "https://console.example"],
        &[],
    );
    let cookie = session(&server, "member");
    let token = json!({ "token": server.operator("member") });
    let calls = [
        (
            Call::post("/me/api/keys").json(&json!({ "name": "n" })),
            201,
        ),
        (Call::post("/me/login").json(&token), 204),
        (Call::post("/me/logout"), 204),
    ];
    for (call, passes) in calls {
        let call = call.field("Cookie", &cookie);
        for (name, value) in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Origin", "https://console.example"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let answer = server.send(&call.clone().field(name, value));
            assert_problem(&answer, 403, "CROSS_SITE");
            assert!(answer.fields("set-cookie").is_empty());
        }
        let own = call.field("Sec-Fetch-Site", "same-origin");
        assert_eq!(server.send(&own).status, passes);
    }
    // Pages of other sites cannot read answers either.
    let read = Call::get("/me/login").field("Origin", "https://evil.example");
    assert!(
        server
            .send(&read)
            .fields("access-control-allow-origin")
            .is_empty()
    );
}

#[test]
fn every_operator_has_its_own_keys_and_no_others() {
    let server = Server::of("allsign");
    let sessions = [
        ("owner", USER, "user@example.com"),
        ("admin", PLATFORM, "platform@app.com"),
        ("member", MEMBER, "member@example.com"),
        ("outsider", OUTSIDER, "outsider@example.com"),
    ];
    let reads = json!({ "name": "laptop", "scopes": ["document:read"] });
    let keys: Vec<_> = sessions
        .into_iter()
        .map(|(operator, user, email)| {
            let cookie = session(&server, operator);
            let (id, key) = issued(&server, &cookie, &reads);
            let record = me(&server, &cookie, Call::get(&format!("/keys/{id}"))).json();
            let owner = (&record["owner"]["user_id"], &record["owner"]["user_email"]);
            assert_eq!(owner, (&json!(user), &json!(email)));
            assert_eq!(
                (&record["kind"], &record["primary"]),
                (&json!("user"), &json!(true))
            );
            assert_eq!(server.get("/v2/documents", &key).status, 200, "{operator}");
            (cookie, id, key)
        })
        .collect();
    let tenants = server.issue(json!({ "name": "the tenant's" }));
    let unknown = "key_0000000000000000000000";
    for (cookie, own, _) in &keys {
        let page = me(&server, cookie, Call::get("/keys?limit=500")).json();
        let ids: Vec<_> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| &key["id"])
            .collect();
        assert_eq!(ids, [own.as_str()]);
        let events = me(&server, cookie, Call::get("/events?limit=500")).json();
        let events = events["items"].as_array().unwrap();
        assert_eq!(events.len(), 2, "issued and used: {events:?}");
        assert!(events.iter().all(|event| event["key_id"] == own.as_str()));
        let others = keys.iter().filter(|(_, id, _)| id != own);
        let others = others.map(|(_, id, key)| (id.as_str(), key.as_str()));
        for (id, key) in others.chain([(tenants.id(), tenants.key.as_str())]) {
            for (method, rest) in [
                ("GET", ""),
                ("GET", "/usage"),
                ("PATCH", ""),
                ("POST", "/revoke"),
                ("POST", "/rotate"),
                ("POST", "/primary"),
                ("DELETE", ""),
            ] {
                let call = |id: &str| {
                    let call = Call::new(method, &format!("/keys/{id}{rest}"));
                    let call = if method == "PATCH" {
                        call.json(&json!({}))
                    } else {
                        call
                    };
                    me(&server, cookie, call.field("If-Match", "\"7\"")).timeless()
                };
                let (theirs, nobodys) = (call(id), call(unknown));
                assert_problem(&theirs, 404, "NOT_FOUND");
                assert_eq!(theirs.body, nobodys.body, "{method} {rest}");
            }
            let verify = Call::post("/verify").json(&json!({ "key": key }));
            assert_eq!(
                me(&server, cookie, verify).json(),
                json!({ "active": false })
            );
        }
        let other = if *own == keys[0].1 { PLATFORM } else { USER };
        for query in [format!("owner={other}"), format!("family={unknown}")] {
            let page = me(&server, cookie, Call::get(&format!("/keys?{query}"))).json();
            assert_eq!(page["items"], json!([]));
        }
    }
    for (_, _, key) in &keys {
        assert_eq!(server.get("/v2/documents", key).status, 200, "still works");
    }
}

#[test]
fn nobody_gets_a_key_wider_than_itself() {
    let server = Server::of("allsign");
    let [owner, admin, member] = ["owner", "admin", "member"].map(|name| session(&server, name));
    for (cookie, body) in [
        (&member, json!({ "scopes": ["document:write"] })),
        (&member, json!({ "scopes": ["*"] })),
        (&member, json!({ "kind": "app" })),
        (&owner, json!({ "kind": "app", "scopes": ["*"] })),
        (&owner, json!({ "plan": "enterprise" })),
        (
            &owner,
            json!({ "rate_limit_config": { "requests_per_minute": 61 } }),
        ),
        (&owner, json!({ "owner": { "user_id": PLATFORM } })),
        (&owner, json!({ "owner": { "user_id": OUTSIDER } })),
        (&owner, json!({ "owner": { "tenant_id": "tenant_xyz789" } })),
        (
            &owner,
            json!({ "owner": { "user_email": "platform@app.com" } }),
        ),
        (&admin, json!({ "workspaces": ["ws2"] })),
    ] {
        let mut body = body;
        body["name"] = json!("wide");
        assert_problem(&issue(&server, cookie, &body), 403, "FORBIDDEN");
    }
    // An administrator widens a member's key: its owner cannot renew it.
    let (id, key) = issued(
        &server,
        &member,
        &json!({ "name": "n", "scopes": ["document:read"] }),
    );
    let wider = Call::new("PATCH", &format!("/keys/{id}"));
    let wider = wider.json(&json!({ "scopes": ["document:*"] }));
    assert_eq!(server.admin("owner", wider).status, 200);
    let rotate = || Call::post(&format!("/keys/{id}/rotate"));
    assert_problem(&me(&server, &member, rotate()), 403, "FORBIDDEN");
    let narrower = Call::new("PATCH", &format!("/keys/{id}"));
    let narrower = narrower.json(&json!({ "scopes": ["document:read"] }));
    assert_eq!(me(&server, &member, narrower).status, 200);
    assert_eq!(me(&server, &member, rotate()).status, 201);
    assert_eq!(server.get("/v2/documents", &key).status, 401);
}

#[test]
fn a_suspended_user_manages_nothing() {
    let server = Server::of("allsign");
    let cookie = session(&server, "member");
    let suspend = |suspended: bool| {
        let call = Call::new("PUT", &format!("/demo/users/{MEMBER}"));
        let call = call.bearer(&server.operator("owner"));
        let answer = server.send(&call.json(&json!({ "suspended": suspended })));
        assert_eq!(answer.status, 200);
    };
    suspend(true);
    assert_problem(
        &me(&server, &cookie, Call::get("/keys")),
        403,
        "OWNER_SUSPENDED",
    );
    suspend(false);
    assert_eq!(me(&server, &cookie, Call::get("/keys")).status, 200);
}

#[test]
fn every_profile_has_it() {
    for profile in ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"] {
        let server = Server::of(profile);
        let cookie = session(&server, "owner");
        let (id, key) = issued(&server, &cookie, &json!({ "name": "mine" }));
        let whoami = server.send(&server.with_key(Call::get("/whoami"), &key));
        assert_eq!(
            whoami.json()["key_id"],
            id.as_str(),
            "{profile}: {}",
            whoami.text()
        );
        let document = me(&server, &cookie, Call::get("/openapi.json")).json();
        assert_eq!(document["servers"][0]["url"], "/me/api");
        assert_eq!(
            document["components"]["securitySchemes"]["session"]["in"],
            "cookie"
        );
    }
}
