//! The actix-web middleware gives the answers of the tower layer: status, fields and body, for
//! whatever a request may try.

use std::convert::Infallible;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use actix_web::dev::{Service as _, ServiceResponse};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpMessage, HttpResponse, web};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::adapter::tower::AuthLayer;
use portunus::adapter::{actix, tower as tower_adapter};
use portunus::key::{Access, Delegation, KeyKind, KeyRecord, Owner, TenantId, WorkspaceId};
use portunus::limit::{LimitFields, LocalLimiter, Quota, Quotas};
use portunus::manage::NewKey;
use portunus::network::{AllowList, ClientIp, ForwardedHeader, TlsVersion, Transport};
use portunus::policy::WorkspaceOf;
use portunus::respond::{ErrorBody, ProblemDetails};
use portunus::{
    AuthError, AuthenticatorBuilder, KeyPrincipal, Principal, RequestHead, Requirement,
};
use portunus_test_support::{
    FIND, House, base64, corrupt, format, scope, stranger, tenant, user, with_last_character_wrong,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// A request as data, for both frameworks.
#[derive(Debug, Clone)]
struct Ask {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    peer: Option<SocketAddr>,
    tls: Option<TlsVersion>,
}

fn ask() -> Ask {
    Ask {
        method: "GET".into(),
        target: "/documents".into(),
        fields: vec![],
        peer: None,
        tls: None,
    }
}

impl Ask {
    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
    fn authorization(self, value: impl AsRef<[u8]>) -> Self {
        self.with("authorization", value)
    }
    fn bearer(self, key: &str) -> Self {
        self.authorization(format!("Bearer {key}"))
    }
    fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }
    fn at(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }
    fn from(mut self, peer: &str) -> Self {
        self.peer = Some(SocketAddr::new(peer.parse().unwrap(), 4711));
        self
    }
    fn over(mut self, tls: TlsVersion) -> Self {
        self.tls = Some(tls);
        self
    }

    fn tower(&self) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::from_bytes(self.method.as_bytes()).unwrap();
        *request.uri_mut() = self.target.parse().unwrap();
        for (name, value) in &self.fields {
            let name: http::HeaderName = name.parse().unwrap();
            request
                .headers_mut()
                .append(name, http::HeaderValue::from_bytes(value).unwrap());
        }
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(tls) = self.tls {
            request.extensions_mut().insert(tls);
        }
        request
    }

    fn actix(&self) -> TestRequest {
        let method = actix_web::http::Method::from_bytes(self.method.as_bytes()).unwrap();
        let mut request = TestRequest::default().method(method).uri(&self.target);
        for (name, value) in &self.fields {
            request = request.append_header((
                name.as_str(),
                actix_web::http::header::HeaderValue::from_bytes(value).unwrap(),
            ));
        }
        match self.peer {
            Some(peer) => request.peer_addr(peer),
            None => request,
        }
    }
}

/// What comes over the wire: fields by name, the lines of one name in their order.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Bytes,
    /// The error and the id that middleware further out is told of.
    told: Option<String>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn describe(principal: &KeyPrincipal) -> String {
    format!(
        "{} {:?} {:?} {:?}",
        principal.key_id(),
        principal.actor(),
        principal.client_ip(),
        principal.scopes()
    )
}

/// Both adapters around the same handler, each with an authenticator of its own.
struct Both {
    auths: [portunus::Authenticator; 2],
    requirement: Option<Requirement>,
}

impl Both {
    fn of(make: impl Fn() -> AuthenticatorBuilder) -> Self {
        Self {
            auths: [(); 2].map(|()| make().build().unwrap()),
            requirement: None,
        }
    }
    fn requiring(mut self, requirement: impl Into<Requirement>) -> Self {
        self.requirement = Some(requirement.into());
        self
    }

    async fn by_tower(&self, ask: &Ask) -> Answer {
        let handler = service_fn(|request: http::Request<()>| {
            let text = request
                .extensions()
                .get::<KeyPrincipal>()
                .map_or("nobody".into(), describe);
            ready(Ok::<_, Infallible>(http::Response::new(Full::new(
                Bytes::from(text),
            ))))
        });
        let demand = self.requirement.clone().map(tower_adapter::require);
        let auth = AuthLayer::new(self.auths[0].clone());
        let service = ServiceBuilder::new()
            .layer(auth)
            .option_layer(demand)
            .service(handler);
        let response = service.oneshot(ask.tower()).await.unwrap();
        let mut fields: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let told = response
            .extensions()
            .get::<AuthError>()
            .map(|error| format!("{error:?}"));
        let status = response.status().as_u16();
        Answer {
            status,
            fields,
            body: response.into_body().collect().await.unwrap().to_bytes(),
            told,
        }
    }

    async fn by_actix(&self, ask: &Ask) -> Answer {
        async fn handler(principal: Option<KeyPrincipal>) -> HttpResponse {
            HttpResponse::with_body(
                actix_web::http::StatusCode::OK,
                principal.as_ref().map_or("nobody".to_owned(), describe),
            )
            .map_into_boxed_body()
        }
        let demand = self.requirement.clone().map(actix::require);
        let auth = actix::Auth::new(self.auths[1].clone());
        let request = ask.actix().to_request();
        if let Some(tls) = ask.tls {
            request.extensions_mut().insert(tls);
        }
        let everything = || web::resource("{any:.*}").to(handler);
        match demand {
            None => {
                answer(
                    init_service(App::new().service(everything()).wrap(auth))
                        .await
                        .call(request)
                        .await,
                )
                .await
            }
            Some(demand) => {
                let app = App::new().service(everything()).wrap(demand).wrap(auth);
                answer(init_service(app).await.call(request).await).await
            }
        }
    }

    /// The answer of both, which is one.
    async fn ask(&self, ask: &Ask) -> Answer {
        let (tower, actix) = (self.by_tower(ask).await, self.by_actix(ask).await);
        assert_eq!(actix, tower, "{ask:?}");
        actix
    }
}

async fn answer<B: actix_web::body::MessageBody>(
    response: Result<ServiceResponse<B>, actix_web::Error>,
) -> Answer {
    let response = response.unwrap();
    let headers = response.headers();
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    let told = response
        .response()
        .extensions()
        .get::<AuthError>()
        .map(|error| format!("{error:?}"));
    let status = response.status().as_u16();
    let body = actix_web::body::to_bytes(response.into_body())
        .await
        .unwrap_or_else(|_| panic!("no body"));
    Answer {
        status,
        fields,
        body,
        told,
    }
}

#[actix_web::test]
async fn whatever_is_presented_is_answered_alike() {
    let house = House::new();
    let (key, _) = house.issue(&["document:read"]).await;
    let basic = |pair: &[u8]| format!("Basic {}", base64(pair));
    let twice = |second: &str| ask().bearer(&key).authorization(second);
    let asks = [
        (ask(), 401),
        (ask().bearer(&key), 200),
        (ask().authorization(format!("bEaReR  {key}")), 200),
        (ask().authorization(format!("  Bearer {key} ")), 200),
        (ask().authorization("Bearer a, Bearer b"), 400),
        (ask().authorization(""), 401),
        (ask().authorization("Bearer"), 400),
        (ask().authorization("Bearer "), 400),
        (ask().authorization("Token x"), 401),
        (ask().authorization("Digest username=\"x\""), 401),
        (ask().authorization(key.as_str()), 401),
        (
            ask().authorization(basic(format!("{key}:").as_bytes())),
            200,
        ),
        (
            ask().authorization(basic(format!("{key}:password").as_bytes())),
            401,
        ),
        (ask().authorization(basic(key.as_bytes())), 401),
        (ask().authorization(basic(b"\xff\xfe:")), 401),
        (ask().authorization(basic(b"a\x00b:")), 401),
        (ask().authorization("Basic not base64!"), 401),
        (ask().authorization("Basic"), 401),
        (ask().bearer(&"a".repeat(8 << 10)), 401),
        (ask().bearer(&"a".repeat(1 << 20)), 401),
        (ask().authorization(b"\xff\xfe"), 401),
        (ask().authorization(b"Bearer \xff"), 400),
        (
            ask().authorization([b"Bearer ", key.as_bytes(), b"\xa0"].concat()),
            400,
        ),
        (ask().bearer(&with_last_character_wrong(&key)), 401),
        (ask().bearer(&stranger()), 401),
        (ask().bearer(&format!("{key}x")), 401),
        (twice("Bearer x"), 400),
        (twice(&format!("Bearer {key}")), 400),
        (twice("Token x"), 400),
        (
            ask().at(&format!("/documents?authorization=Bearer%20{key}")),
            401,
        ),
        (ask().bearer(&key).method("HEAD"), 200),
        (ask().method("HEAD"), 401),
        (ask().method("OPTIONS"), 401),
        (ask().method("PROPFIND"), 401),
        (ask().bearer(&key).method("BREW"), 200),
        (ask().bearer(&key).with("x_user_id", "admin"), 200),
        (ask().bearer(&key).with("x-request-id", "a\tb"), 200),
        (ask().bearer(&key).from("192.0.2.7"), 200),
        (ask().bearer(&key).from("::ffff:192.0.2.7"), 200),
    ];
    for late in [false, true] {
        if late {
            house.store.answer_late(1);
        }
        let both = Both::of(|| house.bearer().basic([format()]).realm("acme"));
        for (ask, status) in &asks {
            assert_eq!(both.ask(ask).await.status, *status, "{ask:?}");
        }
    }
}

#[actix_web::test]
async fn however_a_key_stands_it_is_answered_alike() {
    let house = House::new();
    let expiry = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    type Change = Box<dyn Fn(&mut KeyRecord)>;
    let now = portunus::Clock::now(&house.clock);
    let changes: [(Change, u16); 6] = [
        (Box::new(move |record| record.expires_at = Some(now)), 401),
        (
            Box::new(move |record| record.expires_at = Some(expiry)),
            200,
        ),
        (Box::new(|record| record.enabled = false), 401),
        (
            Box::new(move |record| record.not_before = Some(expiry)),
            401,
        ),
        (
            Box::new(|record| record.allowed_ips = AllowList::parse(["203.0.113.0/24"]).ok()),
            403,
        ),
        (
            Box::new(|record| record.environment = portunus_test_support::test()),
            401,
        ),
    ];
    for (change, status) in changes {
        for late in [false, true] {
            let house = if late { House::new() } else { house.clone() };
            let (key, record) = house.issue(&["a"]).await;
            house.change(&record.id, &change).await;
            if late {
                house.store.answer_late(1);
            }
            let both = Both::of(|| house.bearer().environment(portunus_test_support::live()));
            assert_eq!(
                both.ask(&ask().bearer(&key).from("192.0.2.7")).await.status,
                status
            );
        }
    }
    let (key, record) = house.issue(&["a"]).await;
    house.manager().revoke(&record.id, None).await.unwrap();
    let revoked = Both::of(|| house.bearer()).ask(&ask().bearer(&key)).await;
    assert!(revoked.text().contains("KEY_REVOKED"), "{revoked:?}");
}

#[actix_web::test]
async fn an_outage_and_a_flood_are_answered_alike() {
    let house = House::new();
    let (key, _) = house.issue(&[]).await;
    let quotas = || Quotas::new([Quota::per_minute(3).unwrap()]).ok();
    let both = Both::of(|| house.bearer().failure_quotas(quotas()));
    for expected in [401, 401, 401, 429, 429] {
        assert_eq!(
            both.ask(&ask().bearer(&stranger()).from("192.0.2.7"))
                .await
                .status,
            expected
        );
    }
    assert_eq!(
        both.ask(&ask().bearer(&key).from("192.0.2.7")).await.status,
        200
    );
    for late in [false, true] {
        if late {
            house.store.answer_late(1);
        }
        for broken in [store_down, store_corrupt] {
            broken(&house);
            let down = both.ask(&ask().bearer(&key).from("192.0.2.8")).await;
            assert_eq!((down.status, down.field("retry-after")), (503, Some("1")));
            house.store.recover();
        }
    }
}

fn store_down(house: &House) {
    house.store.fail(FIND);
}
fn store_corrupt(house: &House) {
    house.store.fail_with(FIND, corrupt);
}

#[actix_web::test]
async fn limits_are_told_alike_on_every_answer() {
    for fields in [
        LimitFields::Standard,
        LimitFields::WithLegacy,
        LimitFields::Off,
    ] {
        for late in [false, true] {
            let house = House::new();
            let (key, _) = house.issue(&["a"]).await;
            if late {
                house.store.answer_late(1);
            }
            let both = Both::of(|| {
                let limiter = LocalLimiter::builder().clock(house.clock.clone()).build();
                let quotas = Quotas::new([
                    Quota::per_minute(3).unwrap(),
                    Quota::per_hour(1000).unwrap(),
                ])
                .unwrap();
                house
                    .bearer()
                    .limiter(limiter)
                    .quotas(quotas)
                    .limit_fields(fields)
            });
            let both = both.requiring(scope("a"));
            for expected in [200, 200, 200, 429, 429] {
                let answer = both.ask(&ask().bearer(&key)).await;
                assert_eq!(answer.status, expected);
                assert_eq!(
                    answer.field("ratelimit").is_some(),
                    fields != LimitFields::Off
                );
                house.clock.advance(Duration::from_millis(700));
            }
            house.clock.advance(Duration::from_secs(60));
            assert_eq!(
                both.requiring(scope("b"))
                    .ask(&ask().bearer(&key))
                    .await
                    .status,
                403
            );
        }
    }
}

/// Knows `u1`, by id and by e-mail.
#[derive(Debug)]
struct People;

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let known = match named {
            UserRef::Id(id) => match id.as_str() {
                "down" => return Err(DirectoryError::unavailable("ldap: no route to host")),
                id => id == "u1",
            },
            UserRef::Email(email) => email.eq_ignore_ascii_case("u1@acme.com"),
            _ => false,
        };
        Ok(
            known
                .then(|| Arc::new(User::new(user("u1"), tenant.clone()).with_email("u1@acme.com"))),
        )
    }
}

#[actix_web::test]
async fn whoever_a_key_acts_for_is_answered_alike() {
    let house = House::new();
    let mut new = NewKey::new("app", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
    new.delegation = Some(Delegation::On);
    let (app, _) = house.issue_new(new).await;
    let mut new =
        NewKey::new("user", Owner::user(tenant("acme"), user("u1"))).with_scopes([scope("a")]);
    new.kind = KeyKind::User;
    let (own, _) = house.issue_new(new).await;
    let both = Both::of(|| house.bearer().directory(People)).requiring(scope("a"));
    for (key, fields, status) in [
        (&app, vec![("x-user-id", "u1")], 200),
        (&app, vec![("X-User-Id", "u1")], 200),
        (&app, vec![("x-user-id", "u2")], 403),
        (&app, vec![("x-user-id", "")], 400),
        (&app, vec![("x-user-id", "u1"), ("x-user-id", "u1")], 400),
        (
            &app,
            vec![("x-user-id", "u1"), ("x-on-behalf-of", "u1")],
            400,
        ),
        (&app, vec![("x-on-behalf-of", "u1")], 200),
        (&app, vec![("x-on-behalf-email", "U1@acme.com")], 200),
        (&app, vec![("x-on-behalf-email", "u2@acme.com")], 403),
        (&app, vec![("x-user-id", "down")], 503),
        (&own, vec![("x-user-id", "u1")], 200),
        (&own, vec![("x-user-id", "u2")], 403),
        (&own, vec![("x-on-behalf-of", "u1")], 403),
    ] {
        let asked = fields.iter().fold(ask().bearer(key), |ask, (name, value)| {
            ask.with(name, value)
        });
        let answer = both.ask(&asked).await;
        assert_eq!(answer.status, status, "{asked:?}: {}", answer.text());
        let canonical = fields[0].0 == "x-on-behalf-email" && status == 200;
        assert_eq!(answer.field("x-user-id"), canonical.then_some("u1"));
    }
    let odd = both
        .ask(&ask().bearer(&app).with("x-user-id", b"\xff"))
        .await;
    assert!([400, 403].contains(&odd.status), "{odd:?}");
}

#[actix_web::test]
async fn requirements_are_answered_alike() {
    let house = House::new();
    let (reader, _) = house.issue(&["document:read"]).await;
    let (all, record) = house.issue(&["document:*"]).await;
    house
        .change(&record.id, |record| record.access = Access::ReadOnly)
        .await;
    let make = || house.bearer().realm("acme");
    for requirement in [
        Requirement::none(),
        scope("document:read").into(),
        Requirement::any_of([scope("document:write"), scope("document:*")]),
        Requirement::all_of([scope("document:read"), scope("signature:read")]),
        Requirement::user(),
        Requirement::organization(),
        scope("documents:read").into(),
        scope("document").into(),
        scope("document.read").into(),
    ] {
        let both = Both::of(make).requiring(requirement.clone());
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            for key in [&reader, &all] {
                both.ask(&ask().bearer(key).method(method)).await;
            }
        }
        let nobody = Both::of(|| make().optional()).requiring(requirement);
        assert_eq!(nobody.ask(&ask()).await.status, 401);
    }
}

#[actix_web::test]
async fn a_workspace_in_the_path_is_read_alike() {
    let house = House::new();
    let (key, record) = house.issue(&[]).await;
    house
        .change(&record.id, |record| {
            record.workspaces = Some(vec![WorkspaceId::new("ws1").unwrap()])
        })
        .await;
    let both = Both::of(|| house.bearer()).requiring(Requirement::workspace(
        WorkspaceOf::path_after("workspaces"),
    ));
    for (target, status) in [
        ("/workspaces/ws1/templates", 200),
        ("/workspaces/ws2/templates", 403),
        ("/workspaces/ws%31/templates", 403),
        ("/workspaces/%77s1/templates", 403),
        ("/workspaces/ws1%00/templates", 403),
        ("/workspaces/ws1%2F/templates", 403),
        ("/workspaces//templates", 403),
        ("/workspaces/", 403),
        ("/templates?x=/workspaces/ws1", 403),
        ("/a%20b/workspaces/ws1/%ff", 200),
    ] {
        assert_eq!(
            both.ask(&ask().bearer(&key).at(target)).await.status,
            status,
            "{target}"
        );
    }
}

#[actix_web::test]
async fn the_clients_address_is_found_alike() {
    let house = House::new();
    let (key, record) = house.issue(&[]).await;
    let listed = || AllowList::parse(["203.0.113.42"]).ok();
    house
        .change(&record.id, |record| record.allowed_ips = listed())
        .await;
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let (name, wrap): (_, fn(&str) -> String) = match header {
            ForwardedHeader::Forwarded => ("forwarded", |address| format!("for={address}")),
            _ => ("x-forwarded-for", str::to_owned),
        };
        let proxies = || ClientIp::behind(["10.0.0.0/8".parse().unwrap()], header.clone());
        let both = Both::of(|| house.bearer().client_ip(proxies()));
        let one = |address: &str| {
            ask()
                .bearer(&key)
                .from("10.0.0.1")
                .with(name, wrap(address))
        };
        for (asked, status) in [
            (one("203.0.113.42"), 200),
            (one("198.51.100.1"), 403),
            (
                ask()
                    .bearer(&key)
                    .from("192.0.2.1")
                    .with(name, wrap("203.0.113.42")),
                403,
            ),
            (one("198.51.100.1").with(name, wrap("203.0.113.42")), 200),
            (one("203.0.113.42").with(name, wrap("198.51.100.1")), 403),
            (one(&format!("203.0.113.42, {}", wrap("198.51.100.1"))), 403),
            (one("_x"), 403),
            (one("192.0.2.999"), 403),
            (one(""), 403),
            (ask().bearer(&key).from("10.0.0.1"), 403),
            (ask().bearer(&key), 403),
            (ask().bearer(&key).from("203.0.113.42"), 200),
            (ask().bearer(&key).from("::ffff:203.0.113.42"), 200),
        ] {
            assert_eq!(both.ask(&asked).await.status, status, "{asked:?}");
        }
    }
}

#[actix_web::test]
async fn a_connection_is_judged_alike() {
    let house = House::new();
    let (key, _) = house.issue(&[]).await;
    let demanded = || {
        let proxies: [portunus::network::Cidr; 1] = ["10.0.0.0/8".parse().unwrap()];
        Some(Transport::tls(TlsVersion::V1_3).or_proven_by(proxies, "X-TLS-Version"))
    };
    let both = Both::of(|| house.bearer().transport(demanded()));
    let asked = || ask().bearer(&key);
    for (asked, status) in [
        (asked(), 403),
        (asked().over(TlsVersion::V1_2), 403),
        (asked().over(TlsVersion::V1_3), 200),
        (asked().with("x-tls-version", "TLSv1.3"), 403),
        (
            asked().with("x-tls-version", "TLSv1.3").from("192.0.2.1"),
            403,
        ),
        (
            asked().with("x-tls-version", "TLSv1.3").from("10.0.0.1"),
            200,
        ),
        (
            asked().with("x-tls-version", "TLSv1.2").from("10.0.0.1"),
            403,
        ),
    ] {
        assert_eq!(both.ask(&asked).await.status, status, "{asked:?}");
    }
}

#[actix_web::test]
async fn dialects_and_ways_to_present_a_key_are_alike() {
    let house = House::new();
    let (key, _) = house.issue(&["a"]).await;
    let words = |error: &AuthError, head: &dyn RequestHead| {
        let text = format!(
            "{} {} {} {:?}",
            head.method(),
            head.path(),
            error.code(),
            head.peer_ip()
        );
        ErrorBody::new("text/plain", text.into_bytes())
    };
    let splits = |_: &AuthError, _: &dyn RequestHead| {
        ErrorBody::new("text/plain\r\nSet-Cookie: a=b", b"x".to_vec())
    };
    let makes: [&dyn Fn() -> AuthenticatorBuilder; 4] = [
        &|| house.bearer().renderer(words),
        &|| house.bearer().renderer(splits),
        &|| {
            house
                .bare()
                .header("X-API-Key", [format()])
                .renderer(ProblemDetails::with_type_base("https://e.x/"))
        },
        &|| house.bearer().header("X-API-Key", [format()]).optional(),
    ];
    for make in makes {
        let both = Both::of(make).requiring(scope("b"));
        for asked in [
            ask().at("/documents/7?api_key=secret").from("192.0.2.7"),
            ask().at("/a%20b/%ff"),
            ask().bearer(&key),
            ask().with("x-api-key", &key),
            ask().with("x-api-key", &key).bearer(&key),
            ask().with("x-api-key", &key).with("X-API-Key", "x"),
            ask().with("x-api-key", b"\xff"),
            ask().with("x-api-key", "a".repeat(5000)),
        ] {
            let answer = both.ask(&asked).await;
            assert!(matches!(answer.status, 400 | 401 | 403), "{answer:?}");
            assert!(answer.field("set-cookie").is_none());
        }
    }
}

#[actix_web::test]
async fn every_profile_answers_alike() {
    use portunus::profile::Profile;
    for profile in Profile::ALL {
        let house = House::new();
        let both = Both::of(|| profile.authenticator(house.store.clone()).transport(None));
        for asked in [
            ask(),
            ask().bearer("garbage"),
            ask().bearer(""),
            ask().authorization(format!("Basic {}", base64(b"garbage:"))),
            ask().authorization("Basic !"),
            ask().bearer("x").bearer("y"),
        ] {
            assert!(both.ask(&asked).await.told.is_some());
        }
        let manager = profile.manager(house.store.clone()).build().unwrap();
        let owner = Owner::user(tenant("acme"), user("u1"));
        let issued = manager
            .issue(NewKey::new("key", owner).with_scopes([scope("document:read")]))
            .await;
        let Ok(issued) = issued else { continue };
        let key = issued.key.reveal();
        let both = both.requiring(scope("document:write"));
        for asked in [
            ask().bearer(&key),
            ask().authorization(format!("Basic {}", base64(format!("{key}:").as_bytes()))),
            ask().bearer(&with_last_character_wrong(&key)),
        ] {
            both.ask(&asked).await;
        }
    }
}

#[actix_web::test]
async fn the_peer_is_found_where_the_host_says() {
    let house = House::new();
    let (key, _) = house.issue(&[]).await;
    let auth = actix::Auth::new(house.bearer().build().unwrap())
        .peer(|_| Some(IpAddr::from([198, 51, 100, 7])));
    let handler = |caller: KeyPrincipal| ready(format!("{:?}", caller.client_ip()));
    let app = init_service(
        App::new()
            .service(web::resource("/documents").to(handler))
            .wrap(auth),
    )
    .await;
    let response = answer(
        app.call(ask().bearer(&key).from("192.0.2.7").actix().to_request())
            .await,
    )
    .await;
    assert_eq!(response.text(), "Some(198.51.100.7)");
}

#[tokio::test]
async fn calls_of_grpc_are_refused_alike() {
    let house = House::new();
    let (key, _) = house.issue(&["a"]).await;
    for both in [
        Both::of(|| house.bearer()),
        Both::of(|| house.bearer()).requiring(scope("b")),
    ] {
        let call = || {
            ask()
                .method("POST")
                .at("/a.B/C")
                .with("content-type", "application/grpc+proto")
        };
        let demanded = if both.requirement.is_some() {
            Some("7")
        } else {
            None
        };
        for (call, status) in [
            (call(), Some("16")),
            (call().bearer(&stranger()), Some("16")),
            (call().bearer(&key), demanded),
        ] {
            let answer = both.ask(&call).await;
            assert_eq!(
                (answer.status, answer.field("grpc-status")),
                (200, status),
                "{call:?}"
            );
            assert_eq!(answer.body.is_empty(), status.is_some());
        }
    }
}
