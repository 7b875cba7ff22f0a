//! gRPC over real sockets: tonic's server behind the layers, and tonic's client, which parses
//! refusals.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use portunus::adapter::tower::{AuthLayer, EitherBody, GrpcMethods, GrpcMethodsLayer};
use portunus::audit::{AuditEvent, AuditOutcome, AuditTrail, MemoryAudit};
use portunus::key::Owner;
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, Requirement};
use portunus_profiles::Profile;
use portunus_test_support::wait::{eventually_async, soon};
use portunus_test_support::{
    FIND, Fixture, Setup, base64, scope, stranger, tenant, with_last_character_wrong,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;
use tower::ServiceBuilder;

/// A service with a unary method that answers with the caller's id, refuses during its work, or
/// hangs, and a method that streams three answers.
#[derive(Default)]
struct Clinic {
    called: Arc<Notify>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

fn who<T>(request: &Request<T>) -> Option<&KeyPrincipal> {
    request.extensions().get()
}

#[tonic::async_trait]
impl Health for Clinic {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.called.notify_one();
        match request.get_ref().service.as_str() {
            "hangs" => pending().await,
            "refuses" => {
                let principal = who(&request).unwrap();
                let error = principal
                    .require(&Requirement::scope(scope("never:granted")))
                    .unwrap_err();
                let status = principal.responder().grpc_status(&error);
                Err(Status::with_details(
                    Code::from_i32(status.code),
                    status.message,
                    status.details.into(),
                ))
            }
            _ => {
                let mut response = tonic::Response::new(HealthCheckResponse { status: 1 });
                let name = who(&request).map_or("nobody", |principal| principal.key_id().as_str());
                response
                    .metadata_mut()
                    .insert("x-who", name.parse().unwrap());
                Ok(response)
            }
        }
    }

    type WatchStream = Answers;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Answers>, Status> {
        let answers = (0..3).map(|status| Ok(HealthCheckResponse { status }));
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter(answers))))
    }
}

struct Site {
    address: SocketAddr,
    called: Arc<Notify>,
}

fn methods() -> GrpcMethodsLayer {
    GrpcMethods::new()
        .method("/grpc.health.v1.Health/Check", Requirement::none())
        .method("/grpc.health.v1.Health/Watch", scope("health:watch"))
        .build()
        .unwrap()
}

async fn serve(layer: AuthLayer, methods: GrpcMethodsLayer) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer =
        layer.peer(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
    let layers = ServiceBuilder::new()
        .layer(layer)
        .layer(methods)
        .map_response(|response: Response<Body>| response.map(EitherBody::inner));
    let clinic = Clinic::default();
    let called = Arc::clone(&clinic.called);
    let router = Server::builder()
        .layer(layers)
        .add_service(HealthServer::new(clinic));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Site { address, called }
}

async fn site(builder: Setup) -> Site {
    serve(AuthLayer::new(builder.build().unwrap()).grpc(), methods()).await
}

impl Site {
    async fn client(&self) -> HealthClient<Channel> {
        HealthClient::new(
            Endpoint::from_shared(format!("http://{}", self.address))
                .unwrap()
                .connect()
                .await
                .unwrap(),
        )
    }

    async fn check(
        &self,
        authorization: &str,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        self.client().await.check(request(authorization, "")).await
    }
}

fn request(authorization: &str, service: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest {
        service: service.into(),
    });
    if !authorization.is_empty() {
        request
            .metadata_mut()
            .insert("authorization", authorization.parse().unwrap());
    }
    request
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The stable code, as a client reads it.
fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"))
        .reason
}

fn told(answer: Result<tonic::Response<HealthCheckResponse>, Status>) -> (Code, String) {
    let status = answer.expect_err("a refusal");
    (status.code(), reason(&status))
}

#[tokio::test]
async fn a_call_with_a_key_reaches_the_handler_with_its_principal() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, record) = fixture.issue(&[]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let site = site(fixture.bearer()).await;
        for scheme in ["Bearer", "bEaReR", "bearer "] {
            let response = site.check(&format!("{scheme} {key}")).await.unwrap();
            assert_eq!(
                response.metadata().get("x-who").unwrap(),
                record.id.as_str()
            );
            assert_eq!(response.get_ref().status, 1);
        }
    }
}

#[tokio::test]
async fn every_refusal_of_a_credential_is_a_status_whose_reason_is_the_stable_code() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (revoked, record) = fixture.issue(&[]).await;
        fixture.manager().revoke(&record.id, None).await.unwrap();
        let (expired, record) = fixture.issue(&[]).await;
        let now = portunus::Clock::now(&fixture.clock);
        fixture
            .change(&record.id, |record| record.expires_at = Some(now))
            .await;
        if late {
            fixture.store.answer_late(1);
        }
        let site = site(fixture.bearer().realm("acme")).await;
        for (authorization, code, expected) in [
            (String::new(), Code::Unauthenticated, "MISSING_KEY"),
            ("Token x".into(), Code::Unauthenticated, "MISSING_KEY"),
            (bearer("garbage"), Code::Unauthenticated, "INVALID_FORMAT"),
            (
                bearer(&with_last_character_wrong(&stranger())),
                Code::Unauthenticated,
                "INVALID_KEY",
            ),
            (bearer(&stranger()), Code::Unauthenticated, "INVALID_KEY"),
            (bearer(&revoked), Code::Unauthenticated, "KEY_REVOKED"),
            (bearer(&expired), Code::Unauthenticated, "KEY_EXPIRED"),
            (
                "Bearer a, Bearer b".into(),
                Code::InvalidArgument,
                "INVALID_REQUEST",
            ),
        ] {
            let status = site.check(&authorization).await.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (code, expected),
                "{authorization:?}"
            );
            assert_eq!(status.get_details_error_info().unwrap().domain, "acme");
            assert!(!status.message().is_empty() && status.get_details_retry_info().is_none());
            let challenge = status
                .metadata()
                .get("www-authenticate")
                .unwrap()
                .to_str()
                .unwrap();
            assert!(
                challenge.starts_with(r#"Bearer realm="acme""#),
                "{challenge}"
            );
        }
    }
}

#[tokio::test]
async fn scopes_are_required_per_method_and_unlisted_methods_are_refused() {
    let fixture = Fixture::new();
    let (watcher, _) = fixture.issue(&["health:watch"]).await;
    let (other, _) = fixture.issue(&["health:wash"]).await;
    let site = site(fixture.bearer()).await;
    let mut client = site.client().await;
    for key in [&watcher, &other] {
        client.check(request(&bearer(key), "")).await.unwrap();
    }
    let stream = client
        .watch(request(&bearer(&watcher), ""))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<i32> = stream.map(|answer| answer.unwrap().status).collect().await;
    assert_eq!(answers, [0, 1, 2]);
    let status = client
        .watch(request(&bearer(&other), ""))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "INSUFFICIENT_SCOPE")
    );
    assert!(
        status.message().contains("health:watch"),
        "{}",
        status.message()
    );

    let only_check = GrpcMethods::new()
        .method("/grpc.health.v1.Health/Check", Requirement::none())
        .build()
        .unwrap();
    let site = serve(
        AuthLayer::new(fixture.bearer().build().unwrap()).grpc(),
        only_check,
    )
    .await;
    let status = site
        .client()
        .await
        .watch(request(&bearer(&watcher), ""))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "FORBIDDEN")
    );
}

#[tokio::test]
async fn a_public_method_needs_no_key_but_refuses_a_wrong_one() {
    let fixture = Fixture::new();
    let table = GrpcMethods::new()
        .public_method("/grpc.health.v1.Health/Check")
        .build()
        .unwrap();
    let site = serve(
        AuthLayer::new(fixture.bearer().optional().build().unwrap()).grpc(),
        table,
    )
    .await;
    assert_eq!(
        site.check("")
            .await
            .unwrap()
            .metadata()
            .get("x-who")
            .unwrap(),
        "nobody"
    );
    assert_eq!(
        told(site.check(&bearer(&stranger())).await),
        (Code::Unauthenticated, "INVALID_KEY".into())
    );
    let status = site
        .client()
        .await
        .watch(request("", ""))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "MISSING_KEY")
    );
}

#[tokio::test]
async fn a_limited_call_says_when_to_retry_and_then_passes() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let quotas = Quotas::new([Quota::per_minute(2).unwrap()]).unwrap();
    let site = site(fixture.bearer().limiter(limiter).quotas(quotas)).await;
    for remaining in ["\"minute\";r=1;", "\"minute\";r=0;"] {
        let response = site.check(&bearer(&key)).await.unwrap();
        let told = response
            .metadata()
            .get("ratelimit")
            .unwrap()
            .to_str()
            .unwrap();
        assert!(told.starts_with(remaining), "{told}");
    }
    fixture.clock.advance(Duration::from_millis(1_500));
    let status = site.check(&bearer(&key)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    let delay = status
        .get_details_retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert!(
        delay > Duration::from_secs(58) && delay <= Duration::from_secs(60),
        "{delay:?}"
    );
    let metadata = status.metadata();
    let pushback = metadata
        .get("grpc-retry-pushback-ms")
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(pushback.parse(), Ok(delay.as_nanos().div_ceil(1_000_000)));
    assert!(metadata.get("ratelimit").is_some() && metadata.get("ratelimit-policy").is_some());
    assert!(
        metadata.get("retry-after").is_none(),
        "no meaning beside a 200"
    );
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata.get("violated-policies").unwrap(), "minute");
    fixture.clock.advance(delay - Duration::from_millis(1));
    assert_eq!(
        told(site.check(&bearer(&key)).await).0,
        Code::ResourceExhausted,
        "not earlier"
    );
    fixture.clock.advance(Duration::from_millis(1));
    site.check(&bearer(&key)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable_and_worth_a_retry() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        if late {
            fixture.store.answer_late(1);
        }
        fixture.store.fail(FIND);
        let site = site(fixture.bearer()).await;
        let status = site.check(&bearer(&key)).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "STORE_UNAVAILABLE")
        );
        assert_eq!(
            status.get_details_retry_info().unwrap().retry_delay,
            Some(Duration::from_secs(1))
        );
        assert!(!status.message().contains("db.internal"));
        fixture.store.recover();
        site.check(&bearer(&key)).await.unwrap();
    }
}

#[tokio::test]
async fn a_profile_decides_over_grpc_as_over_http() {
    let fixture = Fixture::new();
    let profile = Profile::DropboxSign;
    let manager = Setup::of(fixture.store.clone(), profile)
        .clock(fixture.clock.clone())
        .manager();
    let key = manager
        .issue(NewKey::new("key", Owner::tenant(tenant("acme"))))
        .await
        .unwrap()
        .key
        .reveal();
    let site = site(Setup::of(fixture.store.clone(), profile).clock(fixture.clock.clone())).await;
    let basic = |pair: String| format!("Basic {}", base64(pair.as_bytes()));
    site.check(&basic(format!("{key}:"))).await.unwrap();
    site.check(&basic(format!("{key}:")).replace("Basic", "bAsIc"))
        .await
        .unwrap();
    assert_eq!(
        told(site.check(&basic(format!("{key}:password"))).await).0,
        Code::Unauthenticated
    );
    let status = site.check(&bearer(&key)).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::Unauthenticated,
        "API keys are Basic only there"
    );
    assert_eq!(
        status.metadata().get_all("www-authenticate").iter().count(),
        2,
        "one for each scheme"
    );
}

#[tokio::test]
async fn the_address_of_the_peer_is_the_sockets() {
    let fixture = Fixture::new();
    let issue = async |network: &str| {
        let mut new = NewKey::new("key", Owner::tenant(tenant("acme")));
        new.allowed_ips = Some(AllowList::parse([network]).unwrap());
        fixture.issue_new(new).await.0
    };
    let (here, elsewhere) = (issue("127.0.0.0/8").await, issue("203.0.113.0/24").await);
    let site = site(fixture.bearer()).await;
    site.check(&bearer(&here)).await.unwrap();
    assert_eq!(
        told(site.check(&bearer(&elsewhere)).await),
        (Code::PermissionDenied, "IP_NOT_ALLOWED".into())
    );
}

#[tokio::test]
async fn a_handler_refuses_in_the_librarys_words() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let site = site(fixture.bearer()).await;
    let status = site
        .client()
        .await
        .check(request(&bearer(&key), "refuses"))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "INSUFFICIENT_SCOPE")
    );
}

#[tokio::test]
async fn a_message_arrives_as_it_was_meant_and_never_too_long() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    for detail in [
        "100 % gesperrt\n– für Dich \u{1F511}".to_owned(),
        "ü".repeat(5_000),
    ] {
        let refuse = detail.clone();
        let layer = AuthLayer::new(fixture.bearer().build().unwrap())
            .grpc()
            .try_map_principal(move |_| {
                let error = AuthError::with_detail(ErrorCode::Forbidden, refuse.clone());
                async move { Err::<(), _>(error) }
            });
        let status = serve(layer, methods())
            .await
            .check(&bearer(&key))
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::PermissionDenied, "FORBIDDEN")
        );
        assert!(detail.starts_with(status.message()), "{}", status.message());
        assert!(
            status.message().len() >= detail.len().min(1_000),
            "{}",
            status.message().len()
        );
    }
}

/// Waits for the single event, which may be recorded after the client has its response.
async fn event(trail: &AuditTrail, log: &MemoryAudit) -> AuditEvent {
    let look = async || {
        trail.flush().await.unwrap();
        log.all().into_iter().next()
    };
    eventually_async(look).await.expect("an event")
}

fn audited() -> (AuditTrail, MemoryAudit) {
    let log = MemoryAudit::new(100);
    (AuditTrail::builder().sink(log.clone()).build(), log)
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_is_audited_as_abandoned() {
    for by_deadline in [false, true] {
        let fixture = Fixture::new();
        let (key, record) = fixture.issue(&[]).await;
        let (trail, log) = audited();
        let site = site(fixture.bearer().audit(trail.clone())).await;
        let mut client = site.client().await;
        let mut hanging = request(&bearer(&key), "hangs");
        if by_deadline {
            hanging.set_timeout(Duration::from_secs(1));
            let code = client.check(hanging).await.unwrap_err().code();
            assert!(
                matches!(code, Code::DeadlineExceeded | Code::Cancelled),
                "{code:?}"
            );
        } else {
            tokio::select! {
                _ = client.check(hanging) => panic!("it hangs"),
                () = site.called.notified() => {} // and the call is dropped
            }
        }
        let event = event(&trail, &log).await;
        assert_eq!(
            (event.outcome, event.status),
            (AuditOutcome::Abandoned, None)
        );
        assert_eq!(event.key_id.as_ref(), Some(&record.id));
        assert_eq!(event.route.as_deref(), Some("/grpc.health.v1.Health/Check"));
    }
}

#[tokio::test]
async fn a_refused_call_is_audited_with_the_status_of_the_same_refusal_over_http() {
    let fixture = Fixture::new();
    let (trail, log) = audited();
    let site = site(fixture.bearer().audit(trail.clone())).await;
    site.check("").await.unwrap_err();
    let event = event(&trail, &log).await;
    assert_eq!(
        (event.outcome, event.status),
        (AuditOutcome::Refused(ErrorCode::MissingKey), Some(401))
    );
}

/// Encodes literal header fields without indexing (RFC 7541 §6.2.2) and without Huffman coding.
fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    fields
        .iter()
        .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
        .collect()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_refusal_is_one_frame_of_headers_that_ends_the_stream_though_the_call_has_not() {
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let site = site(Fixture::new().bearer()).await;
    let mut socket = TcpStream::connect(site.address).await.unwrap();
    let call = header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    let opening = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, &call),
    ];
    socket.write_all(&opening.concat()).await.unwrap();
    // A ping follows it: everything before the ping's answer belongs to the response.
    let mut pinged = false;
    let mut of_the_stream = Vec::new();
    let reading = async {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            socket.read_exact(&mut payload).await.unwrap();
            match (head[3], head[8]) {
                (kind, 1) => {
                    of_the_stream.push((kind, head[4]));
                    if !std::mem::replace(&mut pinged, true) {
                        socket.write_all(&frame(6, 0, 0, &[7; 8])).await.unwrap();
                    }
                }
                (6, 0) if head[4] == 1 && payload == [7; 8] => break,
                _ => {}
            }
        }
    };
    soon(reading).await;
    assert_eq!(of_the_stream[0], (HEADERS, END_STREAM | END_HEADERS));
    let rest: Vec<_> = of_the_stream[1..].iter().map(|(kind, _)| *kind).collect();
    assert!(
        rest.iter().all(|kind| *kind == 3),
        "nothing but a reset may follow: {rest:?}"
    );
}
