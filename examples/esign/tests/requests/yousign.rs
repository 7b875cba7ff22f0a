//! Yousign's table from outside: who may manage which keys, and which resources a key can access:
//! for the organization or for workspaces, with full or read-only access.

use crate::common::manage::{assert_problem, ids, list};
use crate::common::{Answer, Call, Issued, Server};
use serde_json::{Value, json};

/// The resources that belong to workspaces.
const KINDS: [&str; 3] = ["signature_requests", "templates", "electronic_seals"];
const OWN: &str = "ws1";
const OTHER: &str = "ws2";
const UNKNOWN: &str = "ws9";

const READ_ONLY: Expected = Err((403, "READ_ONLY_KEY"));
const ELSEWHERE: Expected = Err((403, "WORKSPACE_FORBIDDEN"));
const NOWHERE: Expected = Err((404, "NOT_FOUND"));

/// A status, or the status and code of a refusal.
type Expected = Result<u16, (u16, &'static str)>;

#[track_caller]
fn assert_as_expected(answer: &Answer, expected: Expected, what: &str) {
    match expected {
        Ok(status) => assert_eq!(answer.status, status, "{what}: {}", answer.text()),
        Err((status, code)) => {
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (status, &json!(code)),
                "{what}"
            );
            assert_problem(answer, status, code, &[]);
        }
    }
}

fn key(server: &Server, mut body: Value) -> Issued {
    body["rate_limit_config"] =
        json!({ "requests_per_minute": 10_000, "requests_per_hour": 10_000 });
    server.issue(body)
}

// ---- keys and resources ----

#[test]
fn a_key_is_limited_by_its_workspaces_and_its_access_level() {
    let server = Server::of("yousign");
    let maker = key(&server, json!({})).key;
    for (name, body, reads, writes) in [
        // the key, and its results in its own workspace, in another one and in an unknown one
        (
            "organization, full-access",
            json!({ "access": "full-access" }),
            [Ok(200), Ok(200), NOWHERE],
            [Ok(200), Ok(200), NOWHERE],
        ),
        (
            "organization, read-only",
            json!({ "access": "read-only" }),
            [Ok(200), Ok(200), NOWHERE],
            [READ_ONLY; 3],
        ),
        (
            "workspace, full-access",
            json!({ "access": "full-access", "workspaces": [OWN] }),
            [Ok(200), ELSEWHERE, ELSEWHERE],
            [Ok(200), ELSEWHERE, ELSEWHERE],
        ),
        (
            "workspace, read-only",
            json!({ "access": "read-only", "workspaces": [OWN] }),
            [Ok(200), ELSEWHERE, ELSEWHERE],
            [READ_ONLY; 3],
        ),
    ] {
        let key = key(&server, body).key;
        for kind in KINDS {
            for (at, workspace) in [OWN, OTHER, UNKNOWN].into_iter().enumerate() {
                let all = format!("/v3/workspaces/{workspace}/{kind}");
                let made = server.send(
                    &Call::post(&all)
                        .bearer(&maker)
                        .json(&json!({ "name": "made" })),
                );
                let id = match workspace {
                    UNKNOWN => "nothing".to_owned(),
                    _ => made.json()["id"].as_str().unwrap().to_owned(),
                };
                let one = format!("{all}/{id}");
                let told_as = |expected: Expected, status: u16| expected.map(|_| status);
                for (method, target, expected) in [
                    ("GET", &all, reads[at]),
                    ("GET", &one, reads[at]),
                    ("POST", &all, told_as(writes[at], 201)),
                    ("PATCH", &one, writes[at]),
                    ("DELETE", &one, told_as(writes[at], 204)),
                ] {
                    let call = Call::new(method, target).bearer(&key);
                    let call = if method == "GET" {
                        call
                    } else {
                        call.json(&json!({ "name": "changed" }))
                    };
                    assert_as_expected(
                        &server.send(&call),
                        expected,
                        &format!("{name}: {method} {target}"),
                    );
                }
                // The refused writes had no effect.
                if workspace != UNKNOWN {
                    let still_there = server.send(&Call::get(&one).bearer(&maker));
                    let expected = if writes[at].is_ok() { 404 } else { 200 };
                    assert_eq!(still_there.status, expected, "{name}: {one}");
                    if expected == 200 {
                        assert_eq!(still_there.json()["name"], "made", "{name}: {one}");
                    }
                }
            }
        }
    }
}

#[test]
fn users_and_workspaces_are_written_by_keys_of_the_organization_only() {
    let server = Server::of("yousign");
    for (name, body, write) in [
        ("organization, full-access", json!({}), Ok(201)),
        (
            "organization, read-only",
            json!({ "access": "read-only" }),
            READ_ONLY,
        ),
        (
            "workspace, full-access",
            json!({ "workspaces": [OWN] }),
            ELSEWHERE,
        ),
        (
            "workspaces, full-access",
            json!({ "workspaces": [OWN, OTHER] }),
            ELSEWHERE,
        ),
        (
            "workspace, read-only",
            json!({ "workspaces": [OWN], "access": "read-only" }),
            READ_ONLY,
        ),
    ] {
        let key = key(&server, body).key;
        for path in ["/v3/users", "/v3/workspaces"] {
            assert_as_expected(
                &server.get(path, &key),
                Ok(200),
                &format!("{name}: GET {path}"),
            );
            let head = server.send(&Call::new("HEAD", path).bearer(&key));
            assert_eq!(
                (head.status, head.body.len()),
                (200, 0),
                "{name}: HEAD {path}"
            );
            let posted = server.send(
                &Call::post(path)
                    .bearer(&key)
                    .json(&json!({ "name": "new" })),
            );
            assert_as_expected(&posted, write, &format!("{name}: POST {path}"));
        }
    }
    let maker = key(&server, json!({})).key;
    for path in ["/v3/users", "/v3/workspaces"] {
        let data = server.get(path, &maker).json();
        let new = data["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|thing| thing["name"] == "new")
            .count();
        assert_eq!(new, 1, "{path}: what was refused did not happen");
    }
}

#[test]
fn a_key_sees_the_workspaces_that_it_reaches() {
    let server = Server::of("yousign");
    let seen = |body: Value| server.get("/v3/workspaces", &key(&server, body).key).json();
    assert_eq!(
        seen(json!({})),
        json!({ "data": [{ "id": "ws1" }, { "id": "ws2" }] })
    );
    assert_eq!(
        seen(json!({ "workspaces": ["ws1"] })),
        json!({ "data": [{ "id": "ws1" }] })
    );
    assert_eq!(
        seen(json!({ "workspaces": ["ws2"] })),
        json!({ "data": [{ "id": "ws2" }] })
    );
    assert_eq!(
        seen(json!({ "workspaces": ["ws2", "ws1"] })),
        json!({ "data": [{ "id": "ws1" }, { "id": "ws2" }] })
    );
}

#[test]
fn workspaces_keep_their_things_apart() {
    let server = Server::of("yousign");
    let maker = key(&server, json!({})).key;
    for kind in KINDS {
        let all = |workspace: &str| format!("/v3/workspaces/{workspace}/{kind}");
        let made = server
            .send(
                &Call::post(&all(OWN))
                    .bearer(&maker)
                    .json(&json!({ "name": "here" })),
            )
            .json();
        let id = made["id"].as_str().unwrap();
        assert_eq!(
            server.get(&all(OTHER), &maker).json(),
            json!({ "data": [] }),
            "{kind}"
        );
        assert_eq!(
            server.get(&format!("{}/{id}", all(OTHER)), &maker).status,
            404,
            "{kind}"
        );
        assert_eq!(
            server.get(&format!("{}/{id}", all(OWN)), &maker).json(),
            made,
            "{kind}"
        );
        assert_eq!(
            server.get(&all(OWN), &maker).json(),
            json!({ "data": [made] }),
            "{kind}"
        );
    }
}

#[test]
fn an_encoded_workspace_is_the_one_that_the_handler_gets() {
    let server = Server::of("yousign");
    let one = key(&server, json!({ "workspaces": [OWN] })).key;
    for kind in KINDS {
        for path in [
            format!("/v3/workspaces/ws%2531/{kind}"),
            format!("/v3/workspaces/%77s2/{kind}"),
            format!("/v3/workspaces/ws1%00/{kind}"),
            format!("/v3/workspaces/ws1%2F/{kind}"),
            format!("/v3/workspaces/ws1%2f..%2fws2/{kind}"),
            format!("/v3/workspaces/ws1;ws2/{kind}"),
            format!("/v3/workspaces/ws1,ws2/{kind}"),
            format!("/v3/workspaces/WS1/{kind}"),
            format!("/v3/workspaces/workspaces/{kind}"),
            format!("/v3/workspaces/*/{kind}"),
            format!("/v3/workspaces/../{kind}"),
        ] {
            for method in ["GET", "POST"] {
                let answer = server.send(&Call::new(method, &path).bearer(&one).body(""));
                assert_as_expected(&answer, ELSEWHERE, &format!("{method} {path}"));
            }
        }
        for path in [
            format!("/v3/%77orkspaces/ws1/{kind}"),
            format!("/v3//workspaces/ws1/{kind}"),
            format!("/v3/workspaces//ws1/{kind}"),
            format!("/v3/workspaces/ws1/../ws2/{kind}"),
            format!("/v3/workspaces/ws1/{kind}/a/b"),
            format!("/v3/Workspaces/ws1/{kind}"),
        ] {
            assert_eq!(server.get(&path, &one).status, 404, "{path}");
        }
        for path in [
            format!("/v3/workspaces/ws1/{kind}?ws=ws2"),
            format!("/v3/workspaces/%77s1/{kind}"),
            format!("/v3/workspaces/w%731/{kind}"),
            format!("/v3/workspaces/ws%31/{kind}"),
            format!("/v3/workspaces/%77%73%31/{kind}"),
        ] {
            assert_eq!(server.get(&path, &one).status, 200, "{path}");
        }
    }
}

#[test]
fn sandbox_and_production_have_data_of_their_own() {
    let server = Server::of("yousign");
    let keys = ["production", "sandbox"]
        .map(|name| (name, key(&server, json!({ "environment": name })).key));
    let paths = [
        "/v3/workspaces/ws1/templates",
        "/v3/workspaces/ws1/signature_requests",
        "/v3/users",
    ];
    for (name, key) in &keys {
        for path in paths {
            let made = server.send(&Call::post(path).bearer(key).json(&json!({ "name": name })));
            assert_eq!(made.status, 201, "{path}");
        }
    }
    for (name, key) in &keys {
        for path in paths {
            let data = server.get(path, key).json();
            let names: Vec<_> = data["data"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|thing| thing["name"].as_str())
                .collect();
            assert_eq!(names, [*name], "{path}");
        }
    }
    let made = server.get(paths[0], &keys[1].1).json();
    let id = made["data"][0]["id"].as_str().unwrap();
    let of = |key: &str| server.get(&format!("{}/{id}", paths[0]), key).status;
    assert_eq!(keys.each_ref().map(|(_, key)| of(key)), [404, 200]);
}

#[test]
fn a_key_of_one_environment_opens_no_server_of_the_other() {
    let server = Server::start("yousign", &["--environment", "production"], &[]);
    let sandbox = key(&server, json!({ "environment": "sandbox" }));
    let challenge = [r#"Bearer realm="yousign", error="invalid_token""#];
    for path in ["/v3/users", "/v3/workspaces/ws1/templates"] {
        assert_problem(
            &server.get(path, &sandbox.key),
            401,
            "WRONG_ENVIRONMENT",
            &challenge,
        );
    }
}

// ---- operators and keys ----

/// The keys of the table: their workspaces, or none for the organization.
fn kinds_of_keys() -> [(&'static str, Value); 4] {
    [
        ("organization", json!(null)),
        ("own workspace", json!([OWN])),
        ("other workspace", json!([OTHER])),
        ("both workspaces", json!([OWN, OTHER])),
    ]
}

fn body(name: &str, workspaces: &Value) -> Value {
    let mut body = json!({ "name": name });
    if !workspaces.is_null() {
        body["workspaces"] = workspaces.clone();
    }
    body
}

#[test]
fn roles_and_workspaces_limit_which_keys_an_operator_can_issue_and_see() {
    const NO: Expected = Err((403, "FORBIDDEN"));
    for (operator, may) in [
        // organization, own, other, both
        ("owner", [true, true, true, true]),
        ("admin", [true, true, false, false]),
        ("member", [false; 4]),
    ] {
        let server = Server::of("yousign");
        // Keys that the owner issued, one of each kind.
        let there = kinds_of_keys().map(|(name, workspaces)| server.issue(body(name, &workspaces)));
        for (((name, workspaces), issued), may) in kinds_of_keys().iter().zip(&there).zip(may) {
            let what = format!("{operator}: {name}");
            let path = format!("/keys/{}", issued.id());
            let shown = server.admin(operator, Call::get(&path));
            assert_as_expected(&shown, if may { Ok(200) } else { NO }, &what);
            let made = server.admin(
                operator,
                Call::post("/keys").json(&body("made", workspaces)),
            );
            assert_as_expected(&made, if may { Ok(201) } else { NO }, &what);
            if may {
                assert_eq!(shown.json()["name"], *name);
                assert_eq!(made.json()["record"]["workspaces"], *workspaces, "{what}");
            }
        }
        let listed = server.admin(operator, Call::get("/keys"));
        if operator == "member" {
            assert_as_expected(&listed, NO, operator);
        } else {
            let page = listed.json();
            let mut names: Vec<_> = page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap())
                .collect();
            names.retain(|name| *name != "made");
            names.sort_unstable();
            let mut expected: Vec<_> = kinds_of_keys()
                .iter()
                .zip(may)
                .filter(|(_, may)| *may)
                .map(|((name, _), _)| *name)
                .collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{operator}");
        }
        for (issued, may) in there.iter().zip(may) {
            let revoked = server.admin(
                operator,
                Call::post(&format!("/keys/{}/revoke", issued.id())),
            );
            assert_as_expected(&revoked, if may { Ok(200) } else { NO }, operator);
            assert_eq!(
                server.get("/whoami", &issued.key).status,
                if may { 401 } else { 200 },
                "{operator}"
            );
        }
    }
}

#[test]
fn an_admins_list_has_full_pages_of_visible_keys() {
    let server = Server::of("yousign");
    let mut expected = Vec::new();
    for at in 0..12 {
        let (_, workspaces) = &kinds_of_keys()[at % 4];
        let issued = server.issue(body(&format!("key {at}"), workspaces));
        if at % 4 < 2 {
            expected.push(issued.id().to_owned());
        }
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&server, "admin", &format!("?limit=2{cursor}"));
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(ids(&page).len(), 2, "keys that are not shown take no place");
                cursor = format!("&cursor={next}");
            }
            None => break,
        }
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(ids(&list(&server, "owner", "")).len(), 12);
    assert_eq!(ids(&list(&server, "outsider", "")), [""; 0]);
}

#[test]
fn an_admin_hands_out_no_more_than_the_own_workspace() {
    let server = Server::of("yousign");
    for workspaces in [
        json!([OTHER]),
        json!([OWN, OTHER]),
        json!([OTHER, OWN]),
        json!([OWN, OWN, OTHER]),
    ] {
        let answer = server.admin(
            "admin",
            Call::post("/keys").json(&body("more", &workspaces)),
        );
        assert_problem(&answer, 403, "FORBIDDEN", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
    let issued = server.issue_as("admin", body("own", &json!([OWN])));
    assert_eq!(
        server
            .get("/v3/workspaces/ws1/templates", &issued.key)
            .status,
        200
    );
    assert_eq!(
        server
            .get("/v3/workspaces/ws2/templates", &issued.key)
            .status,
        403
    );
}

#[test]
fn an_empty_list_of_workspaces_is_refused() {
    let server = Server::of("yousign");
    for operator in ["owner", "admin"] {
        let answer = server.admin(
            operator,
            Call::post("/keys").json(&body("none", &json!([]))),
        );
        let detail = assert_problem(&answer, 400, "INVALID_REQUEST", &[]);
        assert!(detail.starts_with("workspaces"), "{detail}");
    }
    assert_eq!(
        ids(&list(&server, "owner", "")),
        [""; 0],
        "and above all no key of the whole organization"
    );
}

#[test]
fn workspaces_that_there_are_not_and_permissions_that_there_are_not_cannot_be_given() {
    let server = Server::of("yousign");
    for (field, value) in [
        ("workspaces", json!([UNKNOWN])),
        ("workspaces", json!([OWN, UNKNOWN])),
        ("workspaces", json!(["WS1"])),
        ("workspaces", json!([""])),
        ("workspaces", json!(["ws1 "])),
        ("workspaces", json!(["%77s1"])),
        ("workspaces", json!(["ws1/"])),
        ("workspaces", json!(["*"])),
        ("workspaces", json!([null])),
        ("workspaces", json!("ws1")),
        ("workspaces", json!({ "0": "ws1" })),
        ("workspaces", json!([["ws1"]])),
        ("access", json!("read_only")),
        ("access", json!("Read-Only")),
        ("access", json!("")),
        ("access", json!("none")),
        ("scope", json!("organization")),
    ] {
        let mut body = json!({ "name": "n" });
        body[field] = value;
        let answer = server.admin("owner", Call::post("/keys").json(&body));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
}

#[test]
fn a_record_shows_workspaces_and_access_level() {
    let server = Server::of("yousign");
    for (asked, workspaces, access) in [
        (json!({}), json!(null), "full-access"),
        (json!({ "access": "read-only" }), json!(null), "read-only"),
        (
            json!({ "access": "full-access", "workspaces": [OTHER] }),
            json!([OTHER]),
            "full-access",
        ),
        (
            json!({ "access": "read-only", "workspaces": [OWN, OTHER] }),
            json!([OWN, OTHER]),
            "read-only",
        ),
    ] {
        let issued = server.issue(asked);
        for record in [&issued.record, &server.record(issued.id())] {
            assert_eq!(
                (&record["workspaces"], &record["access"]),
                (&workspaces, &json!(access))
            );
        }
    }
}
