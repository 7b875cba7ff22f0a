//! `POST /verify` agrees with the actual request for every key and every request.

use async_trait::async_trait;
use axum::Router;
use portunus::actor::{DirectoryError, OwnerStanding, Standing};
use portunus::key::{Access, Alphabet, Environment, KeyFormat, Owner, TenantId, WorkspaceId};
use portunus::manage::{KeyManager, NewKey};
use portunus::network::AllowList;
use portunus::policy::WorkspaceOf;
use portunus::store::MemoryStore;
use portunus::testing::TestRequest;
use portunus::{Authenticator, ErrorCode, Requirement, scope};
use portunus_admin::Admin;
use portunus_test_support::Setup;
use serde_json::{Value, json};

use crate::fixture::{Answer, Ask, NEST, Names, send};

/// The standing of owners, by the name of the user.
#[derive(Debug)]
struct Owners;

#[async_trait]
impl OwnerStanding for Owners {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        match owner.user_id.as_ref().map_or("", |id| id.as_str()) {
            "suspended" => Ok(Standing::Suspended),
            "roleless" => Ok(Standing::RoleLost),
            "unknowable" => Err(DirectoryError::unavailable("hr.internal does not answer")),
            _ => Ok(Standing::Good),
        }
    }
}

struct Service {
    manager: KeyManager,
    authenticator: Authenticator,
    router: Router,
}

impl Service {
    /// A service that serves `live` and also issues keys for `test`.
    fn new() -> Self {
        let store = MemoryStore::default();
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        let format = format.build().unwrap();
        let keys = Setup::on(store)
            .bearer([format])
            .environments(["live", "test"].map(|name| Environment::new(name).unwrap()))
            .environment(Environment::new("live").unwrap())
            .owner_standing(Owners)
            .keys();
        let admin = Admin::new(&keys, Names).quotas(None);
        Self {
            manager: keys.manager().clone(),
            authenticator: keys.authenticator().clone(),
            router: Router::new().nest(NEST, admin.into_router()),
        }
    }

    async fn issue(&self, change: impl FnOnce(&mut NewKey)) -> String {
        let owner = Owner::tenant(TenantId::new("tenant_ours").unwrap());
        let mut new = NewKey::new("key", owner).with_scopes([scope!("document:read")]);
        change(&mut new);
        self.manager.issue(new).await.unwrap().key.reveal()
    }

    async fn verify(&self, body: &Value) -> Answer {
        send(&self.router, &Ask::new("POST", "/verify").json(body)).await
    }

    /// Returns the code that refuses a request, if any.
    async fn request(&self, asked: &Value) -> Option<ErrorCode> {
        let text = |member: &str| asked[member].as_str();
        let method = text("method").unwrap_or("GET");
        let mut request = TestRequest::new(method, "/").bearer(text("key").unwrap());
        if let Some(ip) = text("ip") {
            request = request.peer(ip);
        }
        let mut route = match &asked["require"] {
            Value::Null => Requirement::none(),
            Value::String(name) => Requirement::scope(name.parse().unwrap()),
            names => {
                let names = names.as_array().unwrap().iter();
                let scopes = names.map(|name| name.as_str().unwrap().parse().unwrap());
                // An empty list is never met.
                Requirement::all_of_list(scopes.map(Requirement::scope))
                    .unwrap_or(Requirement::any_of::<Requirement>([]))
            }
        };
        if let Some(workspace) = text("workspace") {
            request = request.parameter("ws", workspace);
            route = route.and(Requirement::workspace(WorkspaceOf::parameter("ws")));
        } else {
            route = route.any_workspace();
        }
        let admission = match self.authenticator.authenticate(&request).await {
            Ok(admission) => admission,
            Err(error) => return Some(error.code()),
        };
        let refused = route.check(&admission.principal.unwrap(), Some(&request));
        refused.err().map(|error| error.code())
    }
}

/// Keys with every kind of restriction.
async fn keys(service: &Service) -> Vec<String> {
    let mut keys = Vec::new();
    for user in ["", "suspended", "roleless", "unknowable"] {
        for environment in ["live", "test"] {
            for restricted in 0..8_u8 {
                let key = service.issue(|new| {
                    new.environment = Some(Environment::new(environment).unwrap());
                    new.owner.user_id = user.parse().ok();
                    if restricted & 1 > 0 {
                        new.allowed_ips = AllowList::parse(["192.0.2.0/24"]).ok();
                    }
                    if restricted & 2 > 0 {
                        new.access = Access::ReadOnly;
                    }
                    if restricted & 4 > 0 {
                        new.workspaces = Some(vec![WorkspaceId::new("ws1").unwrap()]);
                    }
                });
                keys.push(key.await);
            }
        }
    }
    keys
}

#[tokio::test]
async fn verifying_agrees_with_the_actual_request() {
    let service = Service::new();
    let requirements = [
        json!(null),
        json!([]),
        json!("document:read"),
        json!(["document:read", "document:write"]),
    ];
    let (mut allowed, mut refused, mut unknown) = (0, 0, 0);
    for key in keys(&service).await {
        for ip in [json!(null), json!("192.0.2.7"), json!("198.51.100.1")] {
            for method in [json!(null), json!("GET"), json!("DELETE")] {
                for workspace in [json!(null), json!("ws1"), json!("ws2")] {
                    for require in &requirements {
                        let asked = json!({
                            "key": key, "ip": ip, "method": method, "workspace": workspace,
                            "require": require,
                        });
                        let answer = service.verify(&asked).await;
                        let told = answer.json();
                        match service.request(&asked).await {
                            Some(ErrorCode::DirectoryUnavailable) => {
                                unknown += 1;
                                assert_eq!(answer.status, 503, "{asked}: {told}");
                                assert_eq!(told["code"], "DIRECTORY_UNAVAILABLE");
                            }
                            code => {
                                *(if code.is_none() {
                                    &mut allowed
                                } else {
                                    &mut refused
                                }) += 1;
                                assert_eq!(answer.status, 200, "{asked}: {told}");
                                assert_eq!(told["active"], true, "{asked}: {told}");
                                assert_eq!(told["allowed"], code.is_none(), "{asked}: {told}");
                                assert!(code.is_none() || told["explain"] != "", "{asked}: {told}");
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(
        allowed > 100 && refused > 1000 && unknown > 1000,
        "{allowed} {refused} {unknown}"
    );
}

#[tokio::test]
async fn the_reason_is_explained_and_workspaces_are_named() {
    let service = Service::new();
    let of = async |user: &str| {
        service
            .issue(|new| new.owner.user_id = user.parse().ok())
            .await
    };
    let listed = |new: &mut NewKey| new.allowed_ips = AllowList::parse(["192.0.2.0/24"]).ok();
    let elsewhere = |new: &mut NewKey| new.environment = Environment::new("test").ok();
    let ids = || ["ws1", "ws2"].map(|id| WorkspaceId::new(id).unwrap());
    let one = service
        .issue(|new| new.workspaces = Some(ids().into()))
        .await;
    for (key, more, allowed, words) in [
        (of("suspended").await, json!({}), false, "owner"),
        (of("roleless").await, json!({}), false, "owner"),
        (
            service.issue(elsewhere).await,
            json!({}),
            false,
            "another environment",
        ),
        (service.issue(listed).await, json!({}), false, "allow-list"),
        (
            service.issue(|_| {}).await,
            json!({ "workspace": "ws1" }),
            true,
            "ws1",
        ),
        (one.clone(), json!({}), true, "ws1, ws2"),
        (one.clone(), json!({ "workspace": null }), true, "ws1, ws2"),
        (
            one.clone(),
            json!({ "workspace": "ws2", "method": "POST" }),
            true,
            "ws2",
        ),
        (one.clone(), json!({ "workspace": "ws3" }), false, "ws3"),
    ] {
        let mut asked = json!({ "key": key });
        asked
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = service.verify(&asked).await.json();
        assert_eq!(answer["active"], true, "{asked}: {answer}");
        assert_eq!(answer["allowed"], allowed, "{asked}: {answer}");
        let explain = answer["explain"].as_str().unwrap();
        assert!(explain.contains(words), "{asked}: {explain}");
    }
    for workspace in [json!(""), json!("ws 1"), json!(1), json!(["ws1"])] {
        let asked = json!({ "key": one, "workspace": workspace });
        assert_eq!(service.verify(&asked).await.status, 422, "{asked}");
    }
}

#[tokio::test]
async fn nothing_is_revealed_about_an_inactive_key_whatever_its_owners_standing() {
    let service = Service::new();
    let unknowable = |new: &mut NewKey| new.owner.user_id = "unknowable".parse().ok();
    let theirs = |new: &mut NewKey| new.owner.tenant_id = TenantId::new("tenant_theirs").unwrap();
    let early = |new: &mut NewKey| {
        unknowable(new);
        new.not_before = Some(std::time::SystemTime::now() + std::time::Duration::from_secs(3600));
    };
    let (early, theirs) = (service.issue(early).await, service.issue(theirs).await);
    for key in [
        &*early,
        &*theirs,
        "acme_0123456789abcdefghijABCDEFGHIJ01",
        "",
        "x",
    ] {
        for more in [
            json!({}),
            json!({ "ip": "192.0.2.7", "workspace": "ws1", "method": "GET" }),
        ] {
            let mut asked = json!({ "key": key });
            asked
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let answer = service.verify(&asked).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body, br#"{"active":false}"#, "{asked}");
        }
    }
}
