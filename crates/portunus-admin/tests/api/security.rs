//! The host's API in its own OpenAPI document: security schemes, scopes and refusals as the router
//! enforces them.

use portunus::adapter::axum::{ProtectedRouter, RouteDemand, any, delete, get, post};
use portunus::adapter::tower::AuthLayer;
use portunus::key::{Alphabet, KeyFormat};
use portunus::policy::WorkspaceOf;
use portunus::respond::{ErrorBody, from_error};
use portunus::store::MemoryStore;
use portunus::{AuthError, Authenticator, Requirement, scope};
use portunus_admin::ApiSecurity;
use portunus_test_support::Setup;
use serde_json::{Value, json};
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::{OpenApi, OpenApiBuilder, PathItem, PathsBuilder, ResponseBuilder};

fn format() -> KeyFormat {
    KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap()
}

fn three_ways() -> Setup {
    Setup::on(MemoryStore::new())
        .bearer([format()])
        .basic([format()])
        .header("X-Api-Key", [format()])
}

fn document(operations: &[(HttpMethod, &str)]) -> OpenApi {
    let paths = operations
        .iter()
        .fold(PathsBuilder::new(), |paths, (method, path)| {
            paths.path(
                *path,
                PathItem::new(
                    method.clone(),
                    OperationBuilder::new().description(Some("Something.")),
                ),
            )
        });
    OpenApiBuilder::new().paths(paths).build()
}

async fn nothing() {}

fn router(authenticator: &Authenticator) -> ProtectedRouter {
    ProtectedRouter::new(AuthLayer::new(authenticator.clone()))
}

#[test]
fn each_way_to_present_a_key_is_a_scheme_of_its_own() {
    let authenticator = three_ways().build().unwrap();
    let mut api = document(&[]);
    ApiSecurity::of(&authenticator)
        .describe(&mut api, &[])
        .unwrap();
    let schemes = serde_json::to_value(&api).unwrap()["components"]["securitySchemes"].clone();
    let expected = json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "basic": { "type": "http", "scheme": "basic" },
        "x-api-key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
    });
    assert_eq!(schemes, expected);
}

#[test]
fn where_a_key_is_optional_no_credentials_are_a_choice_too() {
    let authenticator = three_ways().build().unwrap();
    let router: ProtectedRouter = router(&authenticator)
        .route("/", get(nothing).optional_key())
        .route("/keyed", get(nothing).any_key());
    let told: Vec<_> = router
        .demands()
        .iter()
        .map(|demand| (&*demand.path, demand.key_optional))
        .collect();
    assert_eq!(told, [("/", true), ("/keyed", false)]);
    let mut api = document(&[(HttpMethod::Get, "/"), (HttpMethod::Get, "/keyed")]);
    ApiSecurity::of(&authenticator)
        .describe(&mut api, router.demands())
        .unwrap();
    let api = serde_json::to_value(&api).unwrap();
    let keyed = api["paths"]["/keyed"]["get"]["security"].clone();
    assert_eq!(keyed.as_array().unwrap().len(), 3);
    let mut optional = api["paths"]["/"]["get"]["security"].clone();
    assert_eq!(optional.as_array_mut().unwrap().remove(0), json!({}));
    assert_eq!(optional, keyed);
    assert!(api["paths"]["/"]["get"]["responses"]["401"].is_object());
}

#[test]
fn a_choice_of_scopes_is_a_choice_of_security_requirements() {
    let authenticator = Setup::on(MemoryStore::new())
        .bearer([format()])
        .build()
        .unwrap();
    let security = ApiSecurity::of(&authenticator);
    let told = |requirement: &Requirement| {
        serde_json::to_value(security.requirements(Some(requirement))).unwrap()
    };
    let (read, write, all) = (
        scope!("document:read"),
        scope!("document:write"),
        scope!("document:*"),
    );
    assert_eq!(
        told(&Requirement::none()),
        json!([{ "bearer": [] }]),
        "a key, and nothing of it"
    );
    let either = Requirement::any_of([write, all]);
    assert_eq!(
        told(&either),
        json!([{ "bearer": ["document:write"] }, { "bearer": ["document:*"] }])
    );
    let both = either.clone().and(read.clone());
    let expected = json!([
        { "bearer": ["document:write", "document:read"] },
        { "bearer": ["document:*", "document:read"] },
    ]);
    assert_eq!(told(&both), expected);
    assert_eq!(
        told(&Requirement::any_of::<Requirement>([])),
        json!([]),
        "what nobody has, nobody can present"
    );
    let elsewhere = Requirement::workspace(WorkspaceOf::path_after("workspaces")).and(read);
    assert_eq!(told(&elsewhere), json!([{ "bearer": ["document:read"] }]));
    // Alternatives beyond the limit are not written out.
    let many = (0..7).fold(Requirement::none(), |all, _| all.and(either.clone()));
    assert_eq!(security.requirements(Some(&many)).len(), 1);
    assert!(security.requirements(None).is_empty(), "a public route");
}

#[test]
fn an_operation_documents_its_requirement_and_its_refusals() {
    let authenticator = three_ways().build().unwrap();
    let router = router(&authenticator)
        .route("/documents", get(nothing).require(scope!("document:read")))
        .route(
            "/documents",
            post(nothing).require(scope!("document:write")),
        )
        .route(
            "/documents/{id}",
            delete(nothing).require(scope!("document:delete")),
        )
        .route("/files/{*path}", any(nothing).any_key())
        .route("/healthz", get(nothing).public());
    let operations = [
        (HttpMethod::Get, "/documents"),
        (HttpMethod::Post, "/documents"),
        (HttpMethod::Delete, "/documents/{document_id}"),
        (HttpMethod::Get, "/files/{path}"),
        (HttpMethod::Head, "/files/{path}"),
        (HttpMethod::Get, "/healthz"),
    ];
    let mut api = document(&operations);
    let get = api.paths.paths["/documents"].get.as_mut().unwrap();
    get.responses.responses.insert(
        "403".into(),
        ResponseBuilder::new().description("mine").build().into(),
    );
    ApiSecurity::of(&authenticator)
        .describe(&mut api, router.demands())
        .unwrap();
    let told = serde_json::to_value(&api).unwrap();
    let operation = |path: &str, method: &str| told["paths"][path][method].clone();
    for (path, method, scopes) in [
        ("/documents", "get", json!(["document:read"])),
        ("/documents", "post", json!(["document:write"])),
        (
            "/documents/{document_id}",
            "delete",
            json!(["document:delete"]),
        ),
        ("/files/{path}", "get", json!([])),
        ("/files/{path}", "head", json!([])),
    ] {
        let expected = json!([{ "bearer": scopes }, { "basic": scopes }, { "x-api-key": scopes }]);
        assert_eq!(
            operation(path, method)["security"],
            expected,
            "{method} {path}"
        );
        for status in ["400", "401", "403", "429", "503"] {
            assert!(
                operation(path, method)["responses"][status].is_object(),
                "{method} {path}: {status}"
            );
        }
    }
    assert_eq!(
        operation("/documents", "get")["description"],
        "Something.\n\nRequires document:read."
    );
    assert_eq!(
        operation("/documents", "get")["responses"]["403"]["description"],
        "mine",
        "the host's own word stays"
    );
    let refused = operation("/documents", "post")["responses"]["403"].clone();
    assert!(
        refused["description"]
            .as_str()
            .unwrap()
            .contains("INSUFFICIENT_SCOPE"),
        "{refused}"
    );
    assert!(
        refused["content"]["application/problem+json"].is_object(),
        "{refused}"
    );
    let public = operation("/healthz", "get");
    assert_eq!(
        (
            &public["security"],
            &public["responses"],
            &public["description"]
        ),
        (&json!([]), &json!({}), &json!("Something."))
    );
}

#[test]
fn refusals_have_the_media_type_of_the_hosts_dialect() {
    let renderer = from_error(|_: &AuthError| ErrorBody::new("text/x-refusal", b"no".as_slice()));
    let authenticator = three_ways().renderer(renderer).build().unwrap();
    let mut api = document(&[(HttpMethod::Get, "/documents")]);
    let router = router(&authenticator).route("/documents", get(nothing).any_key());
    ApiSecurity::of(&authenticator)
        .describe(&mut api, router.demands())
        .unwrap();
    let told = serde_json::to_value(&api).unwrap();
    let content = &told["paths"]["/documents"]["get"]["responses"]["401"]["content"];
    assert_eq!(
        content
            .as_object()
            .map(|types| types.keys().map(String::as_str).collect()),
        Some(vec!["text/x-refusal"])
    );
}

#[test]
fn differences_between_document_and_router_are_reported() {
    let authenticator = three_ways().build().unwrap();
    let router = router(&authenticator)
        .route("/documents", get(nothing).require(scope!("document:read")))
        .route(
            "/documents",
            post(nothing).require(scope!("document:write")),
        )
        .route("/other", any(nothing).any_key());
    let mut api = document(&[
        (HttpMethod::Get, "/documents"),
        (HttpMethod::Put, "/documents"),
        (HttpMethod::Get, "/x"),
    ]);
    let missing = ApiSecurity::of(&authenticator)
        .describe(&mut api, router.demands())
        .unwrap_err();
    assert_eq!(missing.routes, ["POST /documents", "* /other"]);
    assert_eq!(missing.operations, ["PUT /documents", "GET /x"]);
    let text = "undocumented routes: POST /documents, * /other; \
                operations without a route: PUT /documents, GET /x";
    assert_eq!(missing.to_string(), text);
    assert!(
        api.paths.paths["/documents"]
            .get
            .as_ref()
            .unwrap()
            .security
            .is_some(),
        "what they share is described"
    );
}

#[test]
fn nested_and_merged_routers_keep_their_requirements() {
    let authenticator = three_ways().build().unwrap();
    let inner = || {
        router(&authenticator)
            .route("/", get(nothing).any_key())
            .route("/a", get(nothing).public())
    };
    let all = router(&authenticator)
        .nest("/v1", inner())
        .merge(inner())
        .route("/b", post(nothing).any_key());
    let told: Vec<_> = all
        .demands()
        .iter()
        .map(|demand: &RouteDemand| (&*demand.path, demand.method))
        .collect();
    let (get, post) = (Some("GET"), Some("POST"));
    assert_eq!(
        told,
        [
            ("/v1", get),
            ("/v1/a", get),
            ("/", get),
            ("/a", get),
            ("/b", post)
        ]
    );
    let any_key = Requirement::none().any_workspace();
    assert_eq!(all.demands()[0].requirement, Some(any_key));
    assert_eq!(all.demands()[1].requirement, None);
    assert_eq!(
        serde_json::to_value(all.demands().len()).unwrap(),
        Value::from(5)
    );
}
