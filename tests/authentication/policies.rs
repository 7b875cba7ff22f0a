//! Requirements of routes: reading and writing, users, workspaces, plans, secure transport, and
//! their combinations.
//!
//! Requirements are checked alone, with a principal and a request built by hand, and then on axum's
//! routes with real keys.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use portunus::actor::Actor;
use portunus::adapter::axum::{ProtectedRouter, RequireExt, any, delete, get, post};
use portunus::adapter::tower::AuthLayer;
use portunus::key::{
    Access, Environment, KeyId, KeyRecord, Owner, PlanName, Revocation, WorkspaceId,
};
use portunus::manage::NewKey;
use portunus::network::{AllowList, Cidr, ClientIp, ForwardedHeader, Transport};
use portunus::policy::{PlanOrder, WorkspaceOf};
use portunus::request::{FieldName, TlsVersion};
use portunus::scope::{ScopeModel, WildcardModel};
use portunus::testing::TestRequest;
use portunus::{
    Authenticator, Clock, ErrorCode, KeyPrincipal, Principal, RequestHead, Requirement, Scope,
    ScopeSet,
};
use portunus_test_support::{Fixture, Head, scope, stranger, tenant, test};
use tower::ServiceExt;

const READING: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
/// Including unknown methods, and names that only look like those of safe methods.
const WRITING: [&str; 12] = [
    "POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "PROPFIND", "QUERY", "get", "Head",
    "GETS", "",
];

// ---- tools ----

/// A request built by hand.
#[derive(Debug, Clone)]
struct Call {
    method: String,
    path: String,
    fields: Head,
    tls: Option<TlsVersion>,
}

fn call(method: &str, path: &str) -> Call {
    Call {
        method: method.into(),
        path: path.into(),
        fields: Head::new(),
        tls: None,
    }
}

impl Call {
    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields = self.fields.with(name, value);
        self
    }
    fn key(self, key: &str) -> Self {
        self.with("authorization", format!("Bearer {key}"))
    }
    fn from(mut self, peer: &str) -> Self {
        self.fields = self.fields.from(peer);
        self
    }
    fn over(mut self, tls: impl Into<Option<TlsVersion>>) -> Self {
        self.tls = tls.into();
        self
    }
}

impl RequestHead for Call {
    fn method(&self) -> &str {
        &self.method
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn peer_ip(&self) -> Option<IpAddr> {
        self.fields.peer_ip()
    }
    fn tls(&self) -> Option<TlsVersion> {
        self.tls
    }
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        self.fields.visit(name, see);
    }
}

/// A host's own principal with only the mandatory methods, except for what a test sets.
#[derive(Debug, Clone)]
struct Caller {
    /// Only for its actor, and for values that are irrelevant to the tests.
    like: KeyPrincipal,
    scopes: Arc<dyn ScopeSet>,
    access: Access,
    workspaces: Option<Vec<WorkspaceId>>,
    plan: Option<PlanName>,
}

impl Principal for Caller {
    fn key_id(&self) -> &KeyId {
        self.like.key_id()
    }
    fn owner(&self) -> &Owner {
        self.like.owner()
    }
    fn actor(&self) -> Actor<'_> {
        self.like.actor()
    }
    fn environment(&self) -> &Environment {
        self.like.environment()
    }
    fn scopes(&self) -> &dyn ScopeSet {
        &*self.scopes
    }
    fn access(&self) -> Access {
        self.access
    }
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        self.workspaces.as_deref()
    }
    fn plan(&self) -> Option<&PlanName> {
        self.plan.as_ref()
    }
}

impl Caller {
    /// An application without scopes, with full access everywhere and no plan.
    async fn app() -> Self {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let like = fixture
            .bearer()
            .build()
            .unwrap()
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap()
            .principal
            .unwrap();
        let scopes = WildcardModel.compile(&[]).unwrap();
        Self {
            like,
            scopes,
            access: Access::FullAccess,
            workspaces: None,
            plan: None,
        }
    }
    fn may(mut self, scopes: &[&str]) -> Self {
        let scopes: Vec<_> = scopes.iter().map(|text| scope(text)).collect();
        self.scopes = WildcardModel.compile(&scopes).unwrap();
        self
    }
    fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }
    fn within(mut self, workspaces: &[&str]) -> Self {
        self.workspaces = Some(workspace_ids(workspaces));
        self
    }
    fn paying(mut self, plan: &str) -> Self {
        self.plan = Some(PlanName::new(plan).unwrap());
        self
    }
    fn on(&self, requirement: &Requirement, request: &Call) -> Result<(), ErrorCode> {
        requirement
            .check(self, Some(request))
            .map_err(|error| error.code())
    }
}

fn workspace_ids(names: &[&str]) -> Vec<WorkspaceId> {
    names
        .iter()
        .map(|name| WorkspaceId::new(name).unwrap())
        .collect()
}

fn needs(text: &str) -> Requirement {
    Requirement::scope(scope(text))
}

fn in_path() -> Requirement {
    Requirement::workspace(WorkspaceOf::path_after("workspaces"))
}

fn plans() -> PlanOrder {
    PlanOrder::new(["free", "standard", "enterprise"]).unwrap()
}

// ---- reading and writing ----

#[tokio::test]
async fn a_read_only_key_is_limited_to_safe_methods_by_every_requirement() {
    let app = Caller::app().await.may(&["*"]).paying("enterprise");
    let reader = app.clone().read_only();
    let plan = plans().at_least("free").unwrap();
    for requirement in [
        Requirement::none(),
        needs("a"),
        needs("a").or(needs("b")),
        needs("a").and(needs("b")),
        in_path(),
        Requirement::organization(),
        plan.clone(),
        plan.or(needs("a")),
    ] {
        for (methods, expected) in [
            (&READING[..], Ok(())),
            (&WRITING[..], Err(ErrorCode::ReadOnlyKey)),
        ] {
            for method in methods {
                let request = call(method, "/workspaces/ws1");
                assert_eq!(
                    reader.on(&requirement, &request),
                    expected,
                    "{method}: {requirement}"
                );
                assert_eq!(
                    app.on(&requirement, &request),
                    Ok(()),
                    "{method}: {requirement}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_route_says_itself_that_it_reads_or_writes() {
    let app = Caller::app().await.may(&["a"]);
    let reader = app.clone().read_only();
    for method in READING.iter().chain(&WRITING) {
        let request = call(method, "/");
        for requirement in [
            Requirement::reading(),
            needs("a").and(Requirement::reading()),
            Requirement::reading().and(needs("a")),
            Requirement::all_of([needs("a"), Requirement::all_of([Requirement::reading()])]),
        ] {
            assert_eq!(
                reader.on(&requirement, &request),
                Ok(()),
                "{method}: {requirement}"
            );
            assert_eq!(
                app.on(&requirement, &request),
                Ok(()),
                "{method}: {requirement}"
            );
        }
        for requirement in [
            Requirement::writing(),
            needs("a").and(Requirement::writing()),
            Requirement::reading().and(Requirement::writing()),
        ] {
            assert_eq!(
                reader.on(&requirement, &request),
                Err(ErrorCode::ReadOnlyKey),
                "{method}: {requirement}"
            );
            assert_eq!(
                app.on(&requirement, &request),
                Ok(()),
                "{method}: {requirement}"
            );
        }
    }
}

#[tokio::test]
async fn reading_opens_a_method_and_nothing_else() {
    let reader = Caller::app().await.may(&["b"]).within(&["ws1"]).read_only();
    let search = call("POST", "/workspaces/ws2/search");
    for (requirement, code) in [
        (needs("a"), ErrorCode::InsufficientScope),
        (in_path(), ErrorCode::WorkspaceForbidden),
        (plans().at_least("free").unwrap(), ErrorCode::PlanRequired),
        (Requirement::user(), ErrorCode::ActorRequired),
    ] {
        assert_eq!(
            reader.on(&requirement.and(Requirement::reading()), &search),
            Err(code)
        );
    }
}

/// Only an alternative that declares reading counts as reading: it must not open another
/// alternative that does not.
#[tokio::test]
async fn an_alternative_that_does_not_say_that_it_reads_stays_closed_to_read_only_keys() {
    let reader = Caller::app().await.may(&["write"]).read_only();
    let alternatives = || [needs("search").and(Requirement::reading()), needs("write")];
    let [search, write] = alternatives();
    for requirement in [
        search.or(write),
        Requirement::any_of(alternatives().into_iter().rev()),
    ] {
        for method in WRITING {
            let outcome = reader.on(&requirement, &call(method, "/"));
            assert!(
                outcome.is_err(),
                "{method}: {requirement} lets a read-only key write"
            );
        }
        assert_eq!(reader.on(&requirement, &call("GET", "/")), Ok(()));
    }
}

/// An alternative that declares writing must not open the others.
#[tokio::test]
async fn an_alternative_that_writes_opens_no_other_to_read_only_keys() {
    let reader = Caller::app().await.may(&["a"]).read_only();
    for requirement in [
        Requirement::writing().or(needs("a")),
        needs("a").or(Requirement::writing()),
        needs("a").and(Requirement::any_of([Requirement::writing(), needs("a")])),
    ] {
        assert_eq!(
            reader.on(&requirement, &call("POST", "/")),
            Err(ErrorCode::ReadOnlyKey),
            "{requirement}"
        );
    }
}

// ---- the organization ----

#[tokio::test]
async fn a_key_of_some_workspaces_only_reads_the_organization() {
    let requirement = Requirement::organization();
    let everywhere = Caller::app().await;
    let somewhere = everywhere.clone().within(&["ws1"]);
    for method in READING {
        assert_eq!(
            somewhere.on(&requirement, &call(method, "/users")),
            Ok(()),
            "{method}"
        );
    }
    for method in WRITING {
        let request = call(method, "/users");
        assert_eq!(
            somewhere.on(&requirement, &request),
            Err(ErrorCode::WorkspaceForbidden),
            "{method}"
        );
        assert_eq!(everywhere.on(&requirement, &request), Ok(()), "{method}");
        let reader = somewhere.clone().read_only();
        assert_eq!(
            reader.on(&requirement, &request),
            Err(ErrorCode::ReadOnlyKey),
            "{method}"
        );
    }
}

/// A GET that changes the organization is declared as `writing()`; a key of some workspaces can
/// only read the organization.
#[tokio::test]
async fn a_route_that_says_that_it_writes_the_organization_is_closed_to_keys_of_some_workspaces() {
    let somewhere = Caller::app().await.within(&["ws1"]);
    for requirement in [
        Requirement::organization().and(Requirement::writing()),
        Requirement::writing().and(Requirement::organization()),
    ] {
        for method in READING.iter().chain(&WRITING) {
            let outcome = somewhere.on(&requirement, &call(method, "/users/rotate"));
            assert_eq!(
                outcome,
                Err(ErrorCode::WorkspaceForbidden),
                "{method}: {requirement}"
            );
        }
    }
}

// ---- workspaces ----

/// Without a workspace requirement, the whole organization is required.
#[tokio::test]
async fn a_key_of_some_workspaces_is_refused_where_nothing_is_said_about_workspaces() {
    let everywhere = Caller::app().await.may(&["a"]).paying("enterprise");
    let somewhere = everywhere.clone().within(&["ws1"]);
    let nowhere = everywhere.clone().within(&[]);
    let request = call("GET", "/workspaces/ws1/things");
    let plan = || plans().at_least("standard").unwrap();
    for requirement in [
        Requirement::none(),
        needs("a"),
        plan(),
        Requirement::reading(),
        Requirement::writing(),
        needs("a").and(plan()),
        needs("a").or(plan()),
        Requirement::none().or(needs("a")),
    ] {
        assert_eq!(
            everywhere.on(&requirement, &request),
            Ok(()),
            "{requirement}"
        );
        for caller in [&somewhere, &nowhere] {
            let refused = Err(ErrorCode::WorkspaceForbidden);
            assert_eq!(caller.on(&requirement, &request), refused, "{requirement}");
            let any = requirement.clone().any_workspace();
            assert_eq!(caller.on(&any, &request), Ok(()), "{requirement}");
            assert_eq!(any.to_string(), requirement.to_string());
            let words = requirement.explain_for(caller, Some(&request)).to_string();
            assert_eq!(words, "missing access to the whole organization");
            // In a handler, the route has already declared it.
            assert!(caller.require(&requirement).is_ok(), "{requirement}");
        }
        let named = requirement.clone().and(in_path());
        assert_eq!(somewhere.on(&named, &request), Ok(()), "{requirement}");
        if requirement != Requirement::writing() {
            let organization = requirement.and(Requirement::organization());
            assert_eq!(somewhere.on(&organization, &request), Ok(()));
        }
    }
}

#[tokio::test]
async fn of_alternatives_one_alone_must_open_a_route_to_a_key_of_some_workspaces() {
    let caller = Caller::app().await.may(&["a"]).within(&["ws1"]);
    let refused = Err(ErrorCode::WorkspaceForbidden);
    for (requirement, on_ws1, on_ws2) in [
        (needs("a").or(in_path()), Ok(()), refused),
        (in_path().or(needs("a")), Ok(()), refused),
        (needs("a").or(needs("b").any_workspace()), refused, refused),
        (needs("b").or(needs("a").any_workspace()), Ok(()), Ok(())),
        // A requirement outside the alternatives applies to all of them.
        (needs("b").or(needs("a")).any_workspace(), Ok(()), Ok(())),
        (needs("b").or(needs("a")).and(in_path()), Ok(()), refused),
    ] {
        for (path, expected) in [("/workspaces/ws1", on_ws1), ("/workspaces/ws2", on_ws2)] {
            let got = caller.on(&requirement, &call("GET", path));
            assert_eq!(got, expected, "{requirement} on {path}");
        }
    }
    // One opens the method, the other the workspace: neither opens both.
    let reader = caller.read_only();
    let torn = needs("a").and(Requirement::reading()).or(in_path());
    let post = call("POST", "/workspaces/ws1");
    assert!(reader.on(&torn, &post).is_err());
    let whole = torn.or(in_path().and(Requirement::reading()));
    assert_eq!(reader.on(&whole, &post), Ok(()));
}

#[tokio::test]
async fn a_wrong_workspace_or_a_missing_scope_is_reported_before_an_undeclared_workspace() {
    let caller = Caller::app().await.may(&["a"]).within(&["ws1"]);
    let request = call("GET", "/workspaces/ws2");
    assert_eq!(
        caller.on(&needs("b"), &request),
        Err(ErrorCode::InsufficientScope)
    );
    let error = in_path().check(&caller, Some(&request)).unwrap_err();
    assert!(error.detail().contains("this workspace"), "{error}");
    let error = needs("a").check(&caller, Some(&request)).unwrap_err();
    assert!(
        error.detail().contains("restricted to specific workspaces"),
        "{error}"
    );
}

#[tokio::test]
async fn the_workspace_is_the_path_segment_after_the_only_one_of_a_name() {
    let one = Caller::app().await.within(&["ws1", "a.b-c_D9"]);
    for (path, reached) in [
        ("/workspaces/ws1", true),
        ("/workspaces/ws1/", true),
        ("/v3/workspaces/ws1/templates/7", true),
        ("/v3/workspaces/a.b-c_D9/templates", true),
        ("workspaces/ws1", true),
        // Twice before the end: it is ambiguous which of them the handler uses.
        ("/workspaces/ws1/workspaces/ws2", false),
        ("/workspaces/ws2/workspaces/ws1", false),
        ("/workspaces/ws1/workspaces/", false),
        ("/workspaces/ws1/workspaces", true),
        ("/workspaces/ws1/templates/workspaces", true),
        ("/workspaces/ws1/%77orkspaces/ws2", false),
        ("/%77orkspaces/ws2/workspaces/ws1", false),
        ("/%57orkspaces/ws2/workspaces/ws1", true),
        ("/%workspaces/%7/%/workspaces/ws1", true),
        ("/workspaces/workspaces/ws1", false),
        ("/workspaces/ws2", false),
        ("/workspaces/WS1", false),
        ("/workspaces/ws1x", false),
        ("/workspaces/ws", false),
        // An encoded name matches no workspace of a key; the same holds for the collection's
        // segment.
        ("/workspaces/%77s1", false),
        ("/workspaces/ws1%20", false),
        ("/workspaces/ws1%00", false),
        ("/workspaces/ws1%2Ftemplates", false),
        ("/workspaces/ws1%2f..%2fws2", false),
        ("/workspaces/ws1;ws2", false),
        ("/%77orkspaces/ws1", false),
        ("/workspaces/.", false),
        ("/workspaces/..", false),
        ("/workspaces/../ws1", false),
        // An empty name is not a workspace.
        ("/workspaces", false),
        ("/workspaces/", false),
        ("/workspaces//", false),
        ("/workspaces//ws1", false),
        ("//workspaces//ws1", false),
        ("//workspaces/ws1", true),
        ("/Workspaces/ws1", false),
        ("/my-workspaces/ws1", false),
        ("/workspaces2/ws1", false),
        ("/", false),
        ("", false),
        ("*", false),
    ] {
        for method in ["GET", "POST"] {
            let expected = if reached {
                Ok(())
            } else {
                Err(ErrorCode::WorkspaceForbidden)
            };
            assert_eq!(
                one.on(&in_path(), &call(method, path)),
                expected,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_of_the_whole_organization_reaches_every_workspace_that_is_named() {
    let everywhere = Caller::app().await;
    for path in ["/workspaces/ws1", "/workspaces/anything/at/all"] {
        assert_eq!(
            everywhere.on(&in_path(), &call("GET", path)),
            Ok(()),
            "{path}"
        );
    }
    for path in [
        "/workspaces",
        "/workspaces/",
        "/workspaces//ws1",
        "/",
        "/elsewhere/ws1",
    ] {
        assert_eq!(
            everywhere.on(&in_path(), &call("GET", path)),
            Err(ErrorCode::WorkspaceForbidden),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_workspace_is_the_route_parameter_at_any_position() {
    let one = Caller::app().await.within(&["ws1"]);
    let everywhere = Caller::app().await;
    let of = Requirement::workspace(WorkspaceOf::parameter("ws"));
    let at = || TestRequest::get("/workspaces/ws2/workspaces/ws3");
    for (request, for_one, for_all) in [
        (at().parameter("ws", "ws1"), true, true),
        (
            at().parameter("other", "ws2").parameter("ws", "ws1"),
            true,
            true,
        ),
        (at().parameter("ws", "ws2"), false, true),
        // Already decoded: nothing is decoded twice.
        (at().parameter("ws", "ws%31"), false, true),
        // Missing, empty, ambiguous or not text: no workspace, to which no key has access.
        (at(), false, false),
        (at().parameter("WS", "ws1"), false, false),
        (at().parameter("ws", ""), false, false),
        (
            at().parameter("ws", "ws1").parameter("ws", "ws1"),
            false,
            false,
        ),
        (at().parameter("ws", "ws1\u{fffd}"), false, false),
    ] {
        let reached = |caller: &Caller| of.check(caller, Some(&request)).is_ok();
        assert_eq!(
            (reached(&one), reached(&everywhere)),
            (for_one, for_all),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn a_key_of_no_workspace_reaches_none() {
    let nowhere = Caller::app().await.within(&[]);
    assert_eq!(
        nowhere.on(&in_path(), &call("GET", "/workspaces/ws1")),
        Err(ErrorCode::WorkspaceForbidden)
    );
    assert!(!nowhere.reaches("ws1") && !nowhere.reaches(""));
}

#[tokio::test]
async fn the_workspace_may_come_from_a_single_header() {
    let requirement = Requirement::workspace(WorkspaceOf::header("X-Workspace"));
    let one = Caller::app().await.within(&["ws1"]);
    let plain = || call("GET", "/");
    for (request, reached) in [
        (plain().with("x-workspace", "ws1"), true),
        (plain().with("X-WORKSPACE", "  ws1\t"), true),
        (plain().with("x-workspace", "ws2"), false),
        (plain().with("x-workspace", "WS1"), false),
        (plain().with("x-workspace", "ws1, ws2"), false),
        (plain().with("x-workspace", "%77s1"), false),
        (plain().with("x-workspace", b"ws1\xff"), false),
        (plain().with("x-workspace", ""), false),
        (
            plain()
                .with("x-workspace", "ws1")
                .with("x-workspace", "ws1"),
            false,
        ),
        (
            plain().with("x-workspace", "ws1").with("x-workspace", ""),
            false,
        ),
        (
            plain()
                .with("x-workspace", "ws2")
                .with("X-Workspace", "ws1"),
            false,
        ),
        (plain().with("x-workspaces", "ws1"), false),
        (plain(), false),
    ] {
        let expected = if reached {
            Ok(())
        } else {
            Err(ErrorCode::WorkspaceForbidden)
        };
        assert_eq!(one.on(&requirement, &request), expected, "{request:?}");
    }
}

/// Absent, repeated and empty are equivalent: no workspace is named, and no key has access to it,
/// whatever else it can access.
#[tokio::test]
async fn a_header_that_names_no_workspace_is_met_by_no_key() {
    let requirement = Requirement::workspace(WorkspaceOf::header("x-workspace"));
    let everywhere = Caller::app().await;
    let plain = || call("GET", "/");
    assert_eq!(
        everywhere.on(&requirement, &plain().with("x-workspace", "ws1")),
        Ok(())
    );
    for request in [
        plain(),
        plain()
            .with("x-workspace", "ws1")
            .with("x-workspace", "ws1"),
        plain().with("x-workspace", b"\xff"),
        plain().with("x-workspace", ""),
        plain().with("x-workspace", "  "),
    ] {
        assert_eq!(
            everywhere.on(&requirement, &request),
            Err(ErrorCode::WorkspaceForbidden),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn the_workspace_may_come_from_a_function() {
    let of = WorkspaceOf::function(|head| {
        head.path()
            .strip_prefix("/w/")
            .map(str::to_ascii_lowercase)
            .filter(|name| !name.is_empty())
    });
    let requirement = Requirement::workspace(of.clone());
    let one = Caller::app().await.within(&["ws1"]);
    for (path, reached) in [
        ("/w/WS1", true),
        ("/w/ws1", true),
        ("/w/ws2", false),
        ("/w/", false),
        ("/", false),
    ] {
        let expected = if reached {
            Ok(())
        } else {
            Err(ErrorCode::WorkspaceForbidden)
        };
        assert_eq!(one.on(&requirement, &call("GET", path)), expected, "{path}");
    }
    assert_eq!(
        Caller::app().await.on(&requirement, &call("GET", "/")),
        Err(ErrorCode::WorkspaceForbidden)
    );
    // Two functions are equal only if they are the same instance.
    assert_eq!(requirement, Requirement::workspace(of));
    assert_ne!(
        requirement,
        Requirement::workspace(WorkspaceOf::function(|_| None))
    );
    assert_ne!(
        Requirement::workspace(WorkspaceOf::header("a")),
        Requirement::workspace(WorkspaceOf::path_after("a"))
    );
}

#[tokio::test]
async fn a_handler_can_filter_by_the_keys_workspaces() {
    let app = Caller::app().await;
    let some = app.clone().within(&["ws1", "ws3"]);
    let reached: Vec<_> = ["ws1", "ws2", "ws3", "WS1", ""]
        .into_iter()
        .filter(|name| some.reaches(name))
        .collect();
    assert_eq!(reached, ["ws1", "ws3"]);
    assert!(app.reaches("ws2"));
}

#[test]
fn a_workspace_is_the_same_in_every_encoding_of_a_path() {
    for bad in [
        "",
        "a/b",
        "a b",
        "%77s1",
        "a%",
        "é",
        "a:b",
        "a?b",
        "a#b",
        &"w".repeat(129),
    ] {
        assert!(WorkspaceId::new(bad).is_err(), "{bad:?}");
    }
    for good in ["ws1", "WS-1_a.b", ".", &"w".repeat(128)] {
        assert_eq!(WorkspaceId::new(good).unwrap().as_str(), good);
    }
}

// ---- plans ----

#[tokio::test]
async fn a_plan_is_met_by_itself_and_by_higher_ones() {
    let app = Caller::app().await;
    for (least, meet) in [
        ("free", &["free", "standard", "enterprise"][..]),
        ("standard", &["standard", "enterprise"]),
        ("enterprise", &["enterprise"]),
    ] {
        let requirement = plans().at_least(least).unwrap();
        for plan in [
            "free",
            "standard",
            "enterprise",
            "trial",
            "enterprise2",
            "enterpris",
        ] {
            let expected = if meet.contains(&plan) {
                Ok(())
            } else {
                Err(ErrorCode::PlanRequired)
            };
            assert_eq!(
                app.clone().paying(plan).on(&requirement, &call("GET", "/")),
                expected,
                "{plan} for {least}"
            );
        }
        assert_eq!(
            app.on(&requirement, &call("GET", "/")),
            Err(ErrorCode::PlanRequired),
            "no plan for {least}"
        );
        let error = app.require(&requirement).unwrap_err();
        assert_eq!(
            (error.status(), error.detail()),
            (403, &*format!("This requires plan {least} or higher"))
        );
    }
}

#[test]
fn a_plan_order_has_unique_names() {
    for bad in ["", "Enterprise", "a b", "plan/1", &"p".repeat(129)] {
        let error = PlanOrder::new(["free", bad]).unwrap_err();
        assert_eq!(error, PlanName::new(bad).unwrap_err(), "{bad:?}");
    }
    let twice = PlanOrder::new(["free", "standard", "free"]).unwrap_err();
    assert_eq!(twice.to_string(), "duplicate plan free");
    for unknown in ["Free", "", "premium"] {
        assert_eq!(
            plans().at_least(unknown).unwrap_err().to_string(),
            format!("unknown plan {unknown:?}")
        );
    }
    assert!(plans().knows(&PlanName::new("free").unwrap()));
    assert!(!plans().knows(&PlanName::new("premium").unwrap()));
    assert!(PlanOrder::new([]).unwrap().at_least("free").is_err());
}

// ---- combinations ----

#[tokio::test]
async fn all_parts_are_required_and_the_first_missing_one_is_reported() {
    let plan = || plans().at_least("standard").unwrap();
    let all = Requirement::all_of([needs("a"), in_path(), plan(), Requirement::user()]);
    let app = Caller::app().await;
    let there = call("GET", "/workspaces/ws1");
    let away = call("GET", "/workspaces/ws2");
    for (caller, request, code) in [
        (app.clone(), &away, ErrorCode::InsufficientScope),
        (
            app.clone().may(&["a"]).within(&["ws1"]),
            &away,
            ErrorCode::WorkspaceForbidden,
        ),
        (
            app.clone().may(&["a"]).within(&["ws1"]),
            &there,
            ErrorCode::PlanRequired,
        ),
        (
            app.clone().may(&["a"]).within(&["ws1"]).paying("standard"),
            &there,
            ErrorCode::ActorRequired,
        ),
        (
            app.clone().read_only(),
            &call("PUT", "/workspaces/ws2"),
            ErrorCode::ReadOnlyKey,
        ),
    ] {
        assert_eq!(caller.on(&all, request), Err(code));
    }
    let reversed = Requirement::all_of([plan(), in_path(), needs("a")]);
    assert_eq!(
        app.clone().within(&["ws1"]).on(&reversed, &away),
        Err(ErrorCode::PlanRequired)
    );
    let met = app.may(&["a"]).within(&["ws1"]).paying("enterprise");
    assert_eq!(met.on(&reversed, &there), Ok(()));
}

#[tokio::test]
async fn one_alternative_is_enough_and_the_first_is_reported() {
    let plan = plans().at_least("enterprise").unwrap();
    let requirement = plan.clone().or(needs("a").and(in_path()));
    let app = Caller::app().await;
    let there = call("GET", "/workspaces/ws1");
    assert_eq!(app.on(&requirement, &there), Err(ErrorCode::PlanRequired));
    assert_eq!(app.clone().may(&["a"]).on(&requirement, &there), Ok(()));
    assert_eq!(
        app.clone()
            .paying("enterprise")
            .on(&requirement, &call("GET", "/")),
        Ok(())
    );
    // Half of one alternative and half of another do not satisfy a requirement.
    assert_eq!(
        app.clone().may(&["a"]).on(&requirement, &call("GET", "/")),
        Err(ErrorCode::PlanRequired)
    );
    let other_way = needs("a").and(in_path()).or(plan);
    assert_eq!(
        app.on(&other_way, &there),
        Err(ErrorCode::InsufficientScope)
    );
    assert_eq!(
        app.may(&["a"]).on(&other_way, &call("GET", "/")),
        Err(ErrorCode::WorkspaceForbidden)
    );
}

#[tokio::test]
async fn alternatives_and_parts_nest() {
    let nested = needs("admin").or(Requirement::all_of([
        needs("a").or(needs("b")),
        in_path().or(plans().at_least("enterprise").unwrap()),
    ]));
    let app = Caller::app().await;
    let (here, away) = (call("GET", "/workspaces/ws1"), call("GET", "/"));
    for (scopes, plan, request, met) in [
        (&["admin"][..], "free", &away, true),
        (&["a"], "free", &here, true),
        (&["b"], "free", &here, true),
        (&["b"], "free", &away, false),
        (&["b"], "enterprise", &away, true),
        (&["c"], "enterprise", &here, false),
        (&[], "enterprise", &here, false),
    ] {
        let caller = app.clone().may(scopes).paying(plan);
        assert_eq!(
            caller.on(&nested, request).is_ok(),
            met,
            "{scopes:?} {plan} {}",
            request.path
        );
    }
}

#[tokio::test]
async fn an_empty_requirement_is_always_met_and_an_empty_list_never() {
    let none: [Requirement; 0] = [];
    let app = Caller::app().await.may(&["*"]).paying("enterprise");
    let request = call("GET", "/workspaces/ws1");
    assert_eq!(app.on(&Requirement::none(), &request), Ok(()));
    assert_eq!(Requirement::all_of_list(none.clone()), None);
    assert!(
        app.on(&Requirement::any_of(none.clone()), &request)
            .is_err()
    );
    assert!(
        app.on(&in_path().and(Requirement::any_of(none.clone())), &request)
            .is_err()
    );
    assert_eq!(
        app.on(&in_path().or(Requirement::any_of(none)), &request),
        Ok(())
    );
}

#[tokio::test]
async fn all_required_scopes_are_reported() {
    let app = Caller::app().await.may(&["c"]);
    let choice = needs("a").or(needs("b"));
    let error = app.require(&choice).unwrap_err();
    let missing = error.missing_scope().unwrap();
    assert_eq!(missing.required.scopes(), [&scope("a"), &scope("b")]);
    assert_eq!(missing.granted, ["c"]);
    // Next to other requirements, the scopes are still reported together.
    let error = app
        .require(&Requirement::all_of([
            choice,
            plans().at_least("free").unwrap(),
        ]))
        .unwrap_err();
    assert_eq!(error.missing_scope().unwrap().required.scopes().len(), 2);
}

#[test]
fn requirements_have_a_textual_form() {
    let plan = plans().at_least("standard").unwrap();
    for (requirement, words) in [
        (Requirement::none(), "nothing"),
        (Requirement::reading(), "reading"),
        (Requirement::writing(), "full access"),
        (Requirement::user(), "a user"),
        (in_path(), "access to the workspace"),
        (
            Requirement::organization(),
            "write access to the organization",
        ),
        (plan.clone(), "plan standard or higher"),
        (needs("a").and(in_path()), "a and access to the workspace"),
        (
            needs("a").or(needs("b")).and(plan.clone()),
            "(any of a, b) and plan standard or higher",
        ),
        (
            needs("a").or(plan.and(Requirement::user())),
            "any of a, (plan standard or higher and a user)",
        ),
    ] {
        assert_eq!(requirement.to_string(), words);
    }
}

#[test]
fn the_scopes_of_a_requirement_are_those_needed_if_all_else_is_met() {
    let plan = || plans().at_least("standard").unwrap();
    for (requirement, sets) in [
        (Requirement::none(), vec![vec![]]),
        (plan(), vec![vec![]]),
        (needs("a").and(needs("b")), vec![vec!["a", "b"]]),
        (needs("a").and(plan()), vec![vec!["a"]]),
        (
            needs("a").or(needs("b")).and(plan()),
            vec![vec!["a"], vec!["b"]],
        ),
        (needs("a").or(plan()), vec![vec!["a"], vec![]]),
        (plan().or(needs("a")), vec![vec![], vec!["a"]]),
        (Requirement::any_of(Vec::<Requirement>::new()), vec![]),
    ] {
        let part = requirement.scope_part();
        let sets: Vec<Vec<Scope>> = sets
            .iter()
            .map(|set| set.iter().map(|name| scope(name)).collect())
            .collect();
        let told: Vec<Vec<Scope>> = part
            .scope_sets()
            .iter()
            .map(|set| set.iter().copied().cloned().collect())
            .collect();
        assert_eq!(told, sets, "{requirement}");
    }
}

// ---- in a handler, without a request ----

#[tokio::test]
async fn in_a_handler_the_method_is_not_looked_at_and_no_workspace_is_met() {
    let app = Caller::app().await.may(&["a"]).paying("standard");
    let reader = app.clone().read_only();
    for requirement in [
        Requirement::none(),
        needs("a"),
        Requirement::reading(),
        plans().at_least("free").unwrap(),
    ] {
        assert!(reader.require(&requirement).is_ok(), "{requirement}");
    }
    let code = |caller: &Caller, requirement: &Requirement| {
        caller.require(requirement).unwrap_err().code()
    };
    assert_eq!(
        code(&reader, &Requirement::writing()),
        ErrorCode::ReadOnlyKey
    );
    assert!(app.require(&Requirement::writing()).is_ok());
    for of in [
        WorkspaceOf::parameter("ws"),
        WorkspaceOf::path_after("workspaces"),
        WorkspaceOf::header("x-workspace"),
        WorkspaceOf::function(|_| Some("ws1".into())),
    ] {
        let requirement = Requirement::workspace(of);
        for caller in [&app, &app.clone().within(&["ws1"])] {
            assert_eq!(
                code(caller, &requirement),
                ErrorCode::WorkspaceForbidden,
                "{requirement}"
            );
        }
    }
    // Whether the organization is read or written is unknown: refused, except for keys that may do
    // both.
    assert!(app.require(&Requirement::organization()).is_ok());
    assert_eq!(
        code(&app.within(&["ws1"]), &Requirement::organization()),
        ErrorCode::WorkspaceForbidden
    );
}

#[tokio::test]
async fn a_principal_with_only_mandatory_methods_has_full_access_everywhere_and_no_plan() {
    #[derive(Debug)]
    struct Least(KeyPrincipal);
    impl Principal for Least {
        fn key_id(&self) -> &KeyId {
            self.0.key_id()
        }
        fn owner(&self) -> &Owner {
            self.0.owner()
        }
        fn actor(&self) -> Actor<'_> {
            self.0.actor()
        }
        fn environment(&self) -> &Environment {
            self.0.environment()
        }
        fn scopes(&self) -> &dyn ScopeSet {
            self.0.scopes()
        }
    }
    let least = Least(Caller::app().await.like);
    let on = |requirement: Requirement| {
        requirement
            .check(&least, Some(&call("POST", "/workspaces/ws1")))
            .map_err(|error| error.code())
    };
    assert_eq!(
        on(Requirement::writing()
            .and(in_path())
            .and(Requirement::organization())),
        Ok(())
    );
    assert_eq!(
        on(plans().at_least("free").unwrap()),
        Err(ErrorCode::PlanRequired)
    );
    assert_eq!(on(Requirement::user()), Err(ErrorCode::ActorRequired));
    let boxed: Box<dyn Principal> = Box::new(least);
    assert!(boxed.require(&Requirement::writing()).is_ok());
}

// ---- keys through routes ----

/// Keys by their properties, and a layer that knows them.
struct Door {
    fixture: Fixture,
    auth: AuthLayer,
}

impl Door {
    fn new() -> Self {
        let fixture = Fixture::new();
        let auth = AuthLayer::new(fixture.bearer().build().unwrap());
        Self { fixture, auth }
    }
    async fn key(&self, set: impl FnOnce(&mut NewKey)) -> String {
        let mut new = NewKey::new("a key", Owner::tenant(tenant("acme")));
        set(&mut new);
        self.fixture.issue_new(new).await.0
    }
}

/// The status and the code of the response to a call.
async fn answer(app: &Router, method: &str, path: &str, key: &str) -> (u16, Option<String>) {
    ask(
        app,
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}")),
    )
    .await
}

async fn ask(app: &Router, request: http::request::Builder) -> (u16, Option<String>) {
    let response = app
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let code = serde_json::from_slice::<serde_json::Value>(&body).ok();
    (
        status,
        code.and_then(|body| body["code"].as_str().map(str::to_owned)),
    )
}

fn ok() -> (u16, Option<String>) {
    (200, None)
}

fn forbidden(code: &str) -> (u16, Option<String>) {
    (403, Some(code.into()))
}

async fn done() -> &'static str {
    "done"
}

#[tokio::test]
async fn routes_refuse_read_only_keys_by_the_method() {
    let door = Door::new();
    let full = door.key(|_| {}).await;
    let reader = door.key(|new| new.access = Access::ReadOnly).await;
    let plain: Router = Router::new()
        .route("/things", routing::any(done).require(Requirement::none()))
        .route(
            "/search",
            routing::post(done).require(Requirement::reading()),
        )
        .route(
            "/rotate",
            routing::get(done).require(Requirement::writing()),
        )
        .route_layer(door.auth.clone());
    let whole: Router = Router::new()
        .route("/things", routing::any(done))
        .require(Requirement::none())
        .route_layer(door.auth.clone());
    let protected: Router = ProtectedRouter::new(door.auth.clone())
        .route("/things", any(done).any_key())
        .route("/search", post(done).require(Requirement::reading()))
        .route("/rotate", get(done).require(Requirement::writing()))
        .into_router();
    for app in [&plain, &whole, &protected] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(
                answer(app, method, "/things", &reader).await,
                ok(),
                "{method}"
            );
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"] {
            assert_eq!(
                answer(app, method, "/things", &reader).await,
                forbidden("READ_ONLY_KEY"),
                "{method}"
            );
            assert_eq!(
                answer(app, method, "/things", &full).await,
                ok(),
                "{method}"
            );
        }
    }
    for app in [&plain, &protected] {
        assert_eq!(answer(app, "POST", "/search", &reader).await, ok());
        assert_eq!(
            answer(app, "GET", "/rotate", &reader).await,
            forbidden("READ_ONLY_KEY")
        );
        assert_eq!(answer(app, "GET", "/rotate", &full).await, ok());
        // HEAD runs the handler of GET.
        assert_eq!(answer(app, "HEAD", "/rotate", &reader).await.0, 403);
    }
}

#[tokio::test]
async fn each_method_of_a_path_has_its_own_requirement() {
    let door = Door::new();
    let reader = door
        .key(|new| (new.access, new.scopes) = (Access::ReadOnly, vec![scope("*")]))
        .await;
    let free = door
        .key(|new| {
            (new.plan, new.scopes) = (Some(PlanName::new("free").unwrap()), vec![scope("read")]);
        })
        .await;
    let paid = door
        .key(|new| {
            (new.plan, new.scopes) = (
                Some(PlanName::new("standard").unwrap()),
                vec![scope("write")],
            );
        })
        .await;
    let plan = plans().at_least("standard").unwrap();
    let app: Router = ProtectedRouter::new(door.auth.clone())
        .route("/things", get(done).require(needs("read").or(plan.clone())))
        .route(
            "/things",
            post(done).require(needs("write").and(plan.clone())),
        )
        .route(
            "/things",
            delete(done).require(plan.or(needs("delete")).and(Requirement::writing())),
        )
        .into_router();
    for (key, get, post, delete) in [
        (
            &reader,
            ok(),
            forbidden("READ_ONLY_KEY"),
            forbidden("READ_ONLY_KEY"),
        ),
        (
            &free,
            ok(),
            forbidden("INSUFFICIENT_SCOPE"),
            forbidden("PLAN_REQUIRED"),
        ),
        (&paid, ok(), ok(), ok()),
    ] {
        assert_eq!(answer(&app, "GET", "/things", key).await, get);
        assert_eq!(answer(&app, "POST", "/things", key).await, post);
        assert_eq!(answer(&app, "DELETE", "/things", key).await, delete);
    }
}

#[tokio::test]
async fn routes_find_the_workspace_in_the_path_as_it_was_sent() {
    let door = Door::new();
    let one = door
        .key(|new| new.workspaces = Some(workspace_ids(&["ws1"])))
        .await;
    let all = door.key(|_| {}).await;
    let plain: Router = Router::new()
        .route(
            "/workspaces/{ws}/things",
            routing::any(done).require(in_path()),
        )
        .route(
            "/workspaces/{ws}/workspaces/{other}",
            routing::any(done).require(in_path()),
        )
        .route_layer(door.auth.clone());
    let protected: Router = ProtectedRouter::new(door.auth.clone())
        .route("/workspaces/{ws}/things", any(done).require(in_path()))
        .route(
            "/workspaces/{ws}/workspaces/{other}",
            any(done).require(in_path()),
        )
        .into_router();
    for app in [plain, protected] {
        for (path, expected) in [
            ("/workspaces/ws1/things", ok()),
            ("/workspaces/ws1/things?workspaces/ws2", ok()),
            ("/workspaces/ws2/things", forbidden("WORKSPACE_FORBIDDEN")),
            (
                "/workspaces/ws2/things?x=/workspaces/ws1",
                forbidden("WORKSPACE_FORBIDDEN"),
            ),
            ("/workspaces/%77s1/things", forbidden("WORKSPACE_FORBIDDEN")),
            (
                "/workspaces/ws1%2Fthings/things",
                forbidden("WORKSPACE_FORBIDDEN"),
            ),
            (
                "/workspaces/ws2/workspaces/ws1",
                forbidden("WORKSPACE_FORBIDDEN"),
            ),
            (
                "/workspaces/ws1/workspaces/ws2",
                forbidden("WORKSPACE_FORBIDDEN"),
            ),
        ] {
            assert_eq!(answer(&app, "GET", path, &one).await, expected, "{path}");
            assert_eq!(answer(&app, "DELETE", path, &one).await, expected, "{path}");
            // Twice before the end, it names no workspace.
            let expected = if path.contains("/workspaces/ws2/workspaces/")
                || path.contains("/workspaces/ws1/workspaces/")
            {
                forbidden("WORKSPACE_FORBIDDEN")
            } else {
                ok()
            };
            assert_eq!(answer(&app, "GET", path, &all).await, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn under_a_prefix_the_workspace_is_found_as_well() {
    let door = Door::new();
    let one = door
        .key(|new| new.workspaces = Some(workspace_ids(&["ws1"])))
        .await;
    let inner = ProtectedRouter::new(door.auth.clone())
        .route("/workspaces/{ws}/things", get(done).require(in_path()));
    let app: Router = ProtectedRouter::new(door.auth.clone())
        .nest("/v3", inner)
        .into_router();
    assert_eq!(
        answer(&app, "GET", "/v3/workspaces/ws1/things", &one).await,
        ok()
    );
    assert_eq!(
        answer(&app, "GET", "/v3/workspaces/ws2/things", &one).await,
        forbidden("WORKSPACE_FORBIDDEN")
    );
}

/// The part that a nest strips belongs to the path, and its parameters to the route, wherever the
/// layer is placed.
#[tokio::test]
async fn a_workspace_in_the_prefix_of_a_nest_is_found() {
    let door = Door::new();
    let one = door
        .key(|new| new.workspaces = Some(workspace_ids(&["ws1"])))
        .await;
    let all = door.key(|_| {}).await;
    const PREFIX: &str = "/v3/workspaces/{ws}";
    let by_parameter = || Requirement::workspace(WorkspaceOf::parameter("ws"));
    for required in [in_path(), by_parameter()] {
        let route = || any(done).require(required.clone());
        let plain = || {
            Router::new()
                .route("/things", routing::any(done))
                .route("/workspaces/{other}", routing::any(done))
        };
        let protected = ProtectedRouter::new(door.auth.clone())
            .route("/things", route())
            .route("/workspaces/{other}", route());
        let apps: [Router; 4] = [
            ProtectedRouter::new(door.auth.clone())
                .nest(PREFIX, protected)
                .into_router(),
            Router::new()
                .nest(PREFIX, plain().require(required.clone()))
                .route_layer(door.auth.clone()),
            Router::new()
                .nest(PREFIX, plain())
                .require(required.clone())
                .route_layer(door.auth.clone()),
            Router::new()
                .nest_service(PREFIX, plain().require(required.clone()))
                .route_layer(door.auth.clone()),
        ];
        for (place, app) in apps.iter().enumerate() {
            let refused = forbidden("WORKSPACE_FORBIDDEN");
            for (path, key, expected) in [
                ("/v3/workspaces/ws1/things", &one, ok()),
                ("/v3/workspaces/ws2/things", &one, refused.clone()),
                ("/v3/workspaces/ws2/things", &all, ok()),
                ("/v3/workspaces/ws2/workspaces/ws1", &one, refused.clone()),
            ] {
                let context = format!("{required:?}, app {place}: {path}");
                assert_eq!(answer(app, "GET", path, key).await, expected, "{context}");
            }
        }
    }
    let refused = forbidden("WORKSPACE_FORBIDDEN");
    let app: Router = ProtectedRouter::new(door.auth.clone())
        .route("/w/{ws}/{ws2}", any(done).require(by_parameter()))
        .route("/elsewhere/{id}", any(done).require(by_parameter()))
        .into_router();
    for (path, key, expected) in [
        ("/w/ws1/ws2", &one, ok()),
        ("/w/ws2/ws1", &one, refused.clone()),
        ("/w/%77s1/x", &one, ok()),
        ("/w/ws%2531/x", &one, refused.clone()),
        ("/w/%ff/x", &all, refused.clone()),
        ("/w/x/%ff", &all, refused.clone()),
        ("/elsewhere/ws1", &all, refused.clone()),
    ] {
        assert_eq!(answer(&app, "GET", path, key).await, expected, "{path}");
    }
}

#[tokio::test]
async fn with_an_optional_key_a_route_serves_anonymous_requests_and_refuses_failing_keys() {
    let door = Door::new();
    let who = |principal: Option<KeyPrincipal>| async move {
        match principal {
            Some(_) => "somebody",
            None => "nobody",
        }
    };
    let good = door.key(|_| {}).await;
    let reader = door.key(|new| new.access = Access::ReadOnly).await;
    let (revoked, record) = door
        .fixture
        .issue_new(NewKey::new("a key", Owner::tenant(tenant("acme"))))
        .await;
    door.fixture
        .manager()
        .revoke(&record.id, None)
        .await
        .unwrap();
    let app: Router = ProtectedRouter::new(door.auth.clone())
        .route("/", get(who).optional_key())
        .route("/", post(who).any_key())
        .route("/", delete(done).public())
        .route("/all", any(who).optional_key())
        .method_not_allowed(|| async { (StatusCode::METHOD_NOT_ALLOWED, "no such method") })
        .into_router();
    let ask = async |method: &str, path: &str, credentials: Option<String>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    for (method, path, credentials, status, words) in [
        ("GET", "/", None, 200, "nobody"),
        ("GET", "/", bearer(&good), 200, "somebody"),
        ("GET", "/", bearer(&revoked), 401, "KEY_REVOKED"),
        ("GET", "/", bearer(&stranger()), 401, "INVALID_KEY"),
        ("GET", "/", Some("Token x".into()), 401, "MISSING_KEY"),
        (
            "GET",
            "/",
            Some(format!("Token {good}")),
            401,
            "MISSING_KEY",
        ),
        ("HEAD", "/", None, 200, ""),
        ("HEAD", "/", bearer(&revoked), 401, ""),
        // The requirements of the path's other methods and those that all methods share stay
        // unchanged.
        ("POST", "/", None, 401, "MISSING_KEY"),
        ("POST", "/", bearer(&good), 200, "somebody"),
        ("DELETE", "/", bearer(&revoked), 200, "done"),
        ("PUT", "/", None, 401, "MISSING_KEY"),
        ("PUT", "/", bearer(&good), 405, "no such method"),
        ("POST", "/all", None, 200, "nobody"),
        ("POST", "/all", bearer(&good), 200, "somebody"),
        ("POST", "/all", bearer(&reader), 403, "READ_ONLY_KEY"),
        ("GET", "/all", bearer(&reader), 200, "somebody"),
    ] {
        let (answered, body) = ask(method, path, credentials.clone()).await;
        let context = format!("{method} {path} {credentials:?}: {body}");
        assert_eq!(answered, status, "{context}");
        assert!(body.contains(words), "{context}");
    }
}

#[tokio::test]
async fn a_key_that_is_narrowed_is_refused_on_the_next_request() {
    let door = Door::new();
    let (key, record) = door
        .fixture
        .issue_new(NewKey::new("a key", Owner::tenant(tenant("acme"))))
        .await;
    let app: Router = ProtectedRouter::new(door.auth.clone())
        .route("/workspaces/{ws}", any(done).require(in_path()))
        .route(
            "/paid",
            get(done).require(plans().at_least("standard").unwrap().any_workspace()),
        )
        .into_router();
    assert_eq!(answer(&app, "POST", "/workspaces/ws2", &key).await, ok());
    door.fixture
        .change(&record.id, |record| {
            record.workspaces = Some(workspace_ids(&["ws1"]));
        })
        .await;
    assert_eq!(
        answer(&app, "POST", "/workspaces/ws2", &key).await,
        forbidden("WORKSPACE_FORBIDDEN")
    );
    assert_eq!(answer(&app, "POST", "/workspaces/ws1", &key).await, ok());
    door.fixture
        .change(&record.id, |record| record.access = Access::ReadOnly)
        .await;
    assert_eq!(
        answer(&app, "POST", "/workspaces/ws1", &key).await,
        forbidden("READ_ONLY_KEY")
    );
    assert_eq!(
        answer(&app, "GET", "/paid", &key).await,
        forbidden("PLAN_REQUIRED")
    );
    door.fixture
        .change(&record.id, |record| {
            record.plan = Some(PlanName::new("enterprise").unwrap());
        })
        .await;
    assert_eq!(answer(&app, "GET", "/paid", &key).await, ok());
}

#[tokio::test]
async fn an_unknown_plan_in_a_record_meets_nothing() {
    let door = Door::new();
    let key = door
        .key(|new| new.plan = Some(PlanName::new("legacy").unwrap()))
        .await;
    let app: Router = Router::new()
        .route(
            "/free",
            routing::get(done).require(plans().at_least("free").unwrap()),
        )
        .route_layer(door.auth.clone());
    assert_eq!(
        answer(&app, "GET", "/free", &key).await,
        forbidden("PLAN_REQUIRED")
    );
}

// ---- transport ----

const VERSIONS: [TlsVersion; 4] = [
    TlsVersion::V1_0,
    TlsVersion::V1_1,
    TlsVersion::V1_2,
    TlsVersion::V1_3,
];

fn proxies(networks: &[&str]) -> Vec<Cidr> {
    networks
        .iter()
        .map(|network| network.parse().unwrap())
        .collect()
}

#[test]
fn a_connection_is_as_secure_as_its_version_of_tls() {
    for (rank, least) in VERSIONS.into_iter().enumerate() {
        let transport = Transport::tls(least);
        for (at, version) in VERSIONS.into_iter().enumerate() {
            assert_eq!(
                transport.is_met_by(&call("GET", "/").over(version)),
                at >= rank,
                "{version} for {least}"
            );
        }
        assert!(!transport.is_met_by(&call("GET", "/")), "{least}");
    }
}

#[test]
fn a_clients_word_proves_no_security() {
    let plain = Transport::tls(TlsVersion::V1_0);
    let behind =
        Transport::tls(TlsVersion::V1_0).or_proven_by(proxies(&["10.0.0.0/8"]), "X-TLS-Version");
    for name in [
        "X-TLS-Version",
        "X-Forwarded-Proto",
        "X-Forwarded-Ssl",
        "Forwarded",
    ] {
        for value in ["TLSv1.3", "https", "on", "proto=https"] {
            for peer in [
                None,
                Some("192.0.2.1"),
                Some("::1"),
                Some("127.0.0.1"),
                Some("11.0.0.1"),
            ] {
                let mut request = call("GET", "/").with(name, value);
                if let Some(peer) = peer {
                    request = request.from(peer);
                }
                assert!(!plain.is_met_by(&request), "{name}: {value} from {peer:?}");
                assert!(!behind.is_met_by(&request), "{name}: {value} from {peer:?}");
            }
        }
    }
}

#[test]
fn a_trusted_proxy_reports_the_tls_version_in_a_single_header() {
    let transport = |least| {
        Transport::tls(least)
            .or_proven_by(proxies(&["10.0.0.0/8", "2001:db8::/32"]), "X-TLS-Version")
    };
    for (value, version) in [
        ("TLSv1.3", Some(TlsVersion::V1_3)),
        (" TLSv1.2\t", Some(TlsVersion::V1_2)),
        ("TLSv1.1", Some(TlsVersion::V1_1)),
        ("TLSv1.0", Some(TlsVersion::V1_0)),
        ("TLSv1", Some(TlsVersion::V1_0)),
        ("https", Some(TlsVersion::V1_0)),
        ("", None),
        ("http", None),
        ("HTTPS", None),
        ("tlsv1.3", None),
        ("TLS1.3", None),
        ("TLSv1.4", None),
        ("TLSv1.30", None),
        ("TLSv2", None),
        ("1.3", None),
        ("on", None),
        ("TLSv1.3, TLSv1.3", None),
        ("TLSv1.3;", None),
        ("SSLv3", None),
    ] {
        for peer in ["10.0.0.1", "::ffff:10.9.8.7", "2001:db8::1"] {
            for least in VERSIONS {
                let request = call("GET", "/").from(peer).with("x-tls-version", value);
                let met = version.is_some_and(|version| version >= least);
                assert_eq!(
                    transport(least).is_met_by(&request),
                    met,
                    "{value:?} from {peer} for {least}"
                );
            }
        }
    }
    let any = transport(TlsVersion::V1_0);
    let proxy = || call("GET", "/").from("10.0.0.1");
    assert!(!any.is_met_by(&proxy()));
    assert!(
        !any.is_met_by(
            &proxy()
                .with("X-TLS-Version", "TLSv1.3")
                .with("x-tls-version", "TLSv1.3")
        ),
        "twice"
    );
    assert!(!any.is_met_by(&proxy().with("x-tls-version", b"TLSv1.3\xff")));
    assert!(
        !any.is_met_by(&proxy().with("x-forwarded-proto", "https")),
        "another header"
    );
    assert!(
        !any.is_met_by(
            &call("GET", "/")
                .from("2001:db9::1")
                .with("x-tls-version", "TLSv1.3")
        )
    );
}

#[test]
fn a_proven_tls_version_needs_no_header() {
    let transport =
        Transport::tls(TlsVersion::V1_2).or_proven_by(proxies(&["10.0.0.0/8"]), "x-tls-version");
    let direct = call("GET", "/").from("192.0.2.1").over(TlsVersion::V1_3);
    assert!(transport.is_met_by(&direct));
    assert!(transport.is_met_by(&direct.clone().with("x-tls-version", "garbage")));
    let old = call("GET", "/").from("10.0.0.1").over(TlsVersion::V1_1);
    assert!(!transport.is_met_by(&old));
    assert!(
        transport.is_met_by(&old.with("x-tls-version", "TLSv1.3")),
        "the client's connection ended at the proxy"
    );
    // A trusted proxy without a network does not count.
    let nobody = Transport::tls(TlsVersion::V1_0).or_proven_by([], "x-tls-version");
    assert!(
        !nobody.is_met_by(
            &call("GET", "/")
                .from("10.0.0.1")
                .with("x-tls-version", "TLSv1.3")
        )
    );
}

#[test]
fn tls_versions_are_displayed_and_parsed_identically() {
    for version in VERSIONS {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert!(VERSIONS.is_sorted());
    assert!("".parse::<TlsVersion>().is_err());
}

/// The key's record, for fixtures whose authenticator is built from it.
async fn outcome(authenticator: &Authenticator, request: &Call) -> Result<(), (ErrorCode, u16)> {
    authenticator
        .authenticate(request)
        .await
        .map(drop)
        .map_err(|error| (error.code(), error.status()))
}

async fn demanding(
    set: impl FnOnce(&mut NewKey),
) -> (Fixture, String, Arc<KeyRecord>, Authenticator) {
    let fixture = Fixture::new();
    let mut new = NewKey::new("a key", Owner::tenant(tenant("acme")));
    set(&mut new);
    let (key, record) = fixture.issue_new(new).await;
    let authenticator = fixture
        .bearer()
        .transport(Some(Transport::tls(TlsVersion::V1_3)))
        .build()
        .unwrap();
    (fixture, key, record, authenticator)
}

#[tokio::test]
async fn insecure_transport_is_reported_only_with_a_working_key() {
    let (fixture, key, record, authenticator) = demanding(|_| {}).await;
    let plain = || call("GET", "/");
    assert_eq!(
        outcome(&authenticator, &plain()).await,
        Err((ErrorCode::MissingKey, 401))
    );
    assert_eq!(
        outcome(&authenticator, &plain().key("nonsense")).await,
        Err((ErrorCode::InvalidFormat, 401))
    );
    let wrong = portunus_test_support::with_last_character_wrong(&key);
    for unknown in [&stranger(), &wrong] {
        assert_eq!(
            outcome(&authenticator, &plain().key(unknown)).await,
            Err((ErrorCode::InvalidKey, 401))
        );
    }
    for old in [None, Some(TlsVersion::V1_0), Some(TlsVersion::V1_2)] {
        let request = plain().key(&key).over(old);
        assert_eq!(
            outcome(&authenticator, &request).await,
            Err((ErrorCode::InsecureTransport, 403)),
            "{old:?}"
        );
    }
    assert_eq!(
        outcome(&authenticator, &plain().key(&key).over(TlsVersion::V1_3)).await,
        Ok(())
    );
    let now = fixture.clock.now();
    fixture
        .change(&record.id, |record| {
            record.revoked = Some(Revocation::new(now, None));
        })
        .await;
    assert_eq!(
        outcome(&authenticator, &plain().key(&key)).await,
        Err((ErrorCode::KeyRevoked, 401))
    );
}

#[tokio::test]
async fn the_transport_requirement_also_holds_for_awaited_lookups() {
    let (fixture, key, _, authenticator) = demanding(|_| {}).await;
    fixture.store.answer_late(1);
    let request = call("GET", "/").key(&key);
    assert_eq!(
        outcome(&authenticator, &request).await,
        Err((ErrorCode::InsecureTransport, 403))
    );
    assert_eq!(
        outcome(&authenticator, &request.over(TlsVersion::V1_3)).await,
        Ok(())
    );
}

#[tokio::test]
async fn without_a_transport_requirement_any_transport_passes() {
    let (fixture, key, _, _) = demanding(|_| {}).await;
    let authenticator = fixture
        .bearer()
        .transport(Some(Transport::tls(TlsVersion::V1_3)))
        .transport(None)
        .build()
        .unwrap();
    assert_eq!(
        outcome(&authenticator, &call("GET", "/").key(&key)).await,
        Ok(())
    );
}

#[tokio::test]
async fn environment_comes_before_transport_and_transport_before_network() {
    let (fixture, key, _, _) =
        demanding(|new| new.allowed_ips = Some(AllowList::parse(["192.0.2.1"]).unwrap())).await;
    let serving = |environment: Environment| {
        fixture
            .bearer()
            .environment(environment)
            .transport(Some(Transport::tls(TlsVersion::V1_3)))
            .build()
            .unwrap()
    };
    let (theirs, other) = (serving(portunus_test_support::live()), serving(test()));
    let allowed = call("GET", "/").key(&key).from("192.0.2.1");
    let elsewhere = call("GET", "/").key(&key).from("192.0.2.2");
    let wrong_environment = Err((ErrorCode::WrongEnvironment, 401));
    assert_eq!(outcome(&other, &elsewhere).await, wrong_environment);
    assert_eq!(
        outcome(&other, &allowed.clone().over(TlsVersion::V1_3)).await,
        wrong_environment
    );
    assert_eq!(
        outcome(&theirs, &elsewhere).await,
        Err((ErrorCode::InsecureTransport, 403))
    );
    assert_eq!(
        outcome(&theirs, &allowed).await,
        Err((ErrorCode::InsecureTransport, 403))
    );
    assert_eq!(
        outcome(&theirs, &elsewhere.over(TlsVersion::V1_3)).await,
        Err((ErrorCode::IpNotAllowed, 403))
    );
    assert_eq!(
        outcome(&theirs, &allowed.over(TlsVersion::V1_3)).await,
        Ok(())
    );
}

#[tokio::test]
async fn the_proxy_that_proves_the_connection_need_not_be_the_client() {
    let (fixture, key, _, _) =
        demanding(|new| new.allowed_ips = Some(AllowList::parse(["192.0.2.1"]).unwrap())).await;
    let authenticator = fixture
        .bearer()
        .client_ip(ClientIp::behind(
            proxies(&["10.0.0.0/8"]),
            ForwardedHeader::XForwardedFor,
        ))
        .transport(Some(
            Transport::tls(TlsVersion::V1_2)
                .or_proven_by(proxies(&["10.0.0.0/8"]), "x-tls-version"),
        ))
        .build()
        .unwrap();
    let through = |client: &str| {
        let request = call("GET", "/").key(&key).from("10.0.0.1");
        request
            .with("x-forwarded-for", client)
            .with("x-tls-version", "TLSv1.2")
    };
    assert_eq!(outcome(&authenticator, &through("192.0.2.1")).await, Ok(()));
    assert_eq!(
        outcome(&authenticator, &through("192.0.2.2")).await,
        Err((ErrorCode::IpNotAllowed, 403))
    );
    let direct = call("GET", "/")
        .key(&key)
        .from("192.0.2.1")
        .with("x-tls-version", "TLSv1.3");
    assert_eq!(
        outcome(&authenticator, &direct).await,
        Err((ErrorCode::InsecureTransport, 403))
    );
}

#[tokio::test]
async fn the_layer_takes_the_version_from_where_the_server_puts_it() {
    let (_, key, _, authenticator) = demanding(|_| {}).await;
    #[derive(Clone)]
    struct Handshake(&'static str);
    let by_default: Router = Router::new()
        .route("/", routing::get(done))
        .layer(AuthLayer::new(authenticator.clone()));
    let by_host: Router =
        Router::new()
            .route("/", routing::get(done))
            .layer(AuthLayer::new(authenticator).tls(|extensions| {
                extensions
                    .get::<Handshake>()
                    .and_then(|known| known.0.parse().ok())
            }));
    let request = || Request::get("/").header("authorization", format!("Bearer {key}"));
    for app in [&by_default, &by_host] {
        assert_eq!(ask(app, request()).await, forbidden("INSECURE_TRANSPORT"));
    }
    assert_eq!(
        ask(&by_default, request().extension(TlsVersion::V1_3)).await,
        ok()
    );
    assert_eq!(
        ask(&by_default, request().extension(TlsVersion::V1_2)).await,
        forbidden("INSECURE_TRANSPORT")
    );
    assert_eq!(
        ask(&by_host, request().extension(Handshake("TLSv1.3"))).await,
        ok()
    );
    assert_eq!(
        ask(&by_host, request().extension(TlsVersion::V1_3)).await,
        forbidden("INSECURE_TRANSPORT")
    );
}
