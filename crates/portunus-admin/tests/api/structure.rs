//! The document itself: complete, stable, and only about this router.

use std::collections::BTreeSet;

use axum::Router;
use portunus::audit::MemoryAudit;
use portunus_test_support::Setup;
use serde_json::{Value, json};

use crate::fixture::{Ask, Fixture, NEST, send};

fn each<'v>(value: &'v Value, see: &mut impl FnMut(&'v serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            see(object);
            object.values().for_each(|value| each(value, see));
        }
        Value::Array(values) => values.iter().for_each(|value| each(value, see)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_nothing_is_left_over() {
    let document = Fixture::new().await.document.whole;
    let mut referred = BTreeSet::new();
    each(&document, &mut |object| {
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            assert!(
                document
                    .pointer(reference.strip_prefix('#').unwrap())
                    .is_some(),
                "{reference}"
            );
            referred.insert(reference.to_owned());
        }
    });
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            // Responses to other methods belong to no operation.
            let used = referred.contains(&format!("#/components/{kind}/{name}"))
                || name == "MethodNotAllowed";
            assert!(used, "{kind}/{name} is used nowhere");
        }
    }
}

#[tokio::test]
async fn operations_have_unique_names_and_the_parameters_of_their_paths() {
    let fixture = Fixture::new().await;
    let mut ids = BTreeSet::new();
    for (method, path, operation) in fixture.document.operations() {
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{method} {path}"
        );
        assert!(
            operation["summary"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{method} {path}"
        );
        let mut names = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (place, name) = (
                parameter["in"].as_str().unwrap(),
                parameter["name"].as_str().unwrap(),
            );
            assert!(names.insert((place, name)), "{method} {path}: {name} twice");
            assert_eq!(
                place == "path",
                path.contains(&format!("{{{name}}}")),
                "{method} {path}: {name}"
            );
            assert_eq!(
                parameter["required"],
                place == "path",
                "{method} {path}: {name}"
            );
        }
        assert_eq!(
            path.contains("{id}"),
            names.contains(&("path", "id")),
            "{method} {path}"
        );
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(
                fixture.document.resolved(response)["description"].is_string(),
                "{method} {path} {status}"
            );
        }
    }
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn every_schema_is_one_and_every_object_says_whether_it_has_other_members() {
    let fixture = Fixture::new().await;
    let schemas = fixture.document.whole["components"]["schemas"]
        .as_object()
        .unwrap();
    for (name, schema) in schemas {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        // Conditions on members are no objects of their own.
        let mut schema = schema.clone();
        schema.as_object_mut().unwrap().remove("allOf");
        each(&schema, &mut |object| {
            let Some(members) = object.get("properties").and_then(Value::as_object) else {
                return;
            };
            let others = &object["additionalProperties"];
            assert!(*others == false || others.is_object(), "{name}");
            for required in object
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(
                    members.contains_key(required.as_str().unwrap()),
                    "{name}: {required}"
                );
            }
        });
    }
}

#[tokio::test]
async fn the_document_has_the_form_of_openapi_3_1() {
    let fixture = Fixture::new().await;
    let document = &fixture.document.whole;
    let members: Vec<_> = document
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "openapi",
            "info",
            "servers",
            "paths",
            "components",
            "security"
        ]
    );
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{ "url": NEST }]));
    assert_eq!(document["security"], json!([{ "bearer": [] }]));
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["type"],
        "http"
    );
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    let limit = |path: &str| {
        let parameters = fixture.document.operation("GET", path)["parameters"]
            .as_array()
            .unwrap();
        parameters
            .iter()
            .find(|parameter| parameter["name"] == "limit")
            .unwrap()["schema"]
            .clone()
    };
    for path in ["/keys", "/events", "/credits/{id}/ledger"] {
        assert_eq!(
            limit(path),
            json!({ "type": "integer", "minimum": 1, "maximum": 500, "default": 50 })
        );
    }
}

#[tokio::test]
async fn two_requests_and_two_processes_read_the_same_bytes() {
    let (one, other) = (Fixture::new().await, Fixture::new().await);
    let ask = Ask::new("GET", "/openapi.json");
    let first = send(&one.router, &ask).await.body;
    assert_eq!(first, send(&one.router, &ask).await.body);
    assert_eq!(first, send(&other.router, &ask.by("admin")).await.body);
}

#[tokio::test]
async fn the_server_is_the_path_under_which_the_router_is_nested() {
    let Fixture { router, .. } = Fixture::new().await;
    let outer = Router::new().nest("/of/{tenant}", router);
    let path = |tenant: &str| format!("/of/{tenant}{NEST}/openapi.json");
    for (tenant, shown) in [("acme", "acme"), ("a%22b", "a%22b"), ("a{x}b", "a%7Bx%7Db")] {
        use tower::ServiceExt;
        let request =
            axum::http::Request::get(path(tenant)).header("authorization", "Bearer owner");
        let response = outer
            .clone()
            .oneshot(request.body(axum::body::Body::empty()).unwrap())
            .await
            .unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        let document: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document["servers"],
            json!([{ "url": format!("/of/{shown}{NEST}") }])
        );
    }
}

#[tokio::test]
async fn a_path_answers_exactly_the_methods_that_are_documented_and_head() {
    let fixture = Fixture::new().await;
    let paths = fixture.document.whole["paths"].as_object().unwrap();
    let other = &fixture.document.whole["components"]["responses"]["MethodNotAllowed"];
    for (template, item) in paths {
        let documented: BTreeSet<_> = item
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .collect();
        for method in [
            "GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "M-SEARCH",
        ] {
            let answer = send(&fixture.router, &Ask::new(method, template)).await;
            assert_eq!(
                answer.status != 405,
                documented.contains(method),
                "{method} {template}"
            );
            if answer.status == 405 {
                fixture.document.check_response(other, &answer, template);
                let allowed = answer.headers["allow"]
                    .to_str()
                    .unwrap()
                    .split(',')
                    .map(|method| method.trim().to_owned());
                let allowed: BTreeSet<_> = allowed.filter(|method| method != "HEAD").collect();
                assert_eq!(allowed, documented, "{template}");
            }
        }
        if documented.contains("GET") {
            let ask = Ask::new("GET", template).of(&fixture.plain().await);
            let (get, head) = (
                send(&fixture.router, &ask).await,
                send(
                    &fixture.router,
                    &Ask {
                        method: "HEAD".into(),
                        ..ask
                    },
                )
                .await,
            );
            assert_eq!(
                (head.status, head.body.len()),
                (get.status, 0),
                "{template}"
            );
        }
    }
    for unknown in [
        "/keys/",
        "/nothing",
        "/keys/a/b",
        "/openapi.json/",
        "//keys",
    ] {
        let answer = send(&fixture.router, &Ask::new("GET", unknown)).await;
        fixture.document.check_response(
            &fixture.document.whole["components"]["responses"]["NotFound"],
            &answer,
            unknown,
        );
        assert_eq!(answer.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn the_document_follows_the_parts_that_the_host_omits_or_adds() {
    use portunus::key::{Alphabet, KeyFormat};
    use portunus::store::MemoryStore;
    use portunus_admin::Admin;
    let format = KeyFormat::builder("k_")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let keys = Setup::on(MemoryStore::new()).bearer([format]).keys();
    let admin = || Admin::new(&keys, crate::fixture::Names);
    let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let without = read(admin().openapi("https://keys.example.com/v1"));
    assert_eq!(
        without["servers"],
        json!([{ "url": "https://keys.example.com/v1" }])
    );
    assert!(without["paths"].get("/events").is_none());
    let text = without.to_string();
    for name in ["/credits/", "CreditAccount", "LedgerKind", "GrantRequest"] {
        assert!(!text.contains(name), "{name}, of a service without credits");
    }
    let with = admin()
        .events(MemoryAudit::new(1))
        .event_view(|_, members| {
            members.insert("more".into(), json!(1));
        });
    let with = read(with.openapi("/\"quoted\""));
    assert_eq!(with["servers"], json!([{ "url": "/\"quoted\"" }]));
    assert!(with["paths"].get("/events").is_some());
    assert!(
        with["components"]["schemas"]["Event"]
            .get("additionalProperties")
            .is_none()
    );
}
