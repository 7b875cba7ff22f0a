//! One variant of the hot path, called a number of times, to count its instructions under callgrind:
//! `scripts/counts`. Run alone, it prints nothing.
//!
//! Arguments: the variant, and the number of calls.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::convert::Infallible;
use std::env;
use std::hint::black_box;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use portunus::adapter::tower::{AuthLayer, HttpHead};
use portunus::audit::{AuditTrail, MemoryAudit};
use portunus::authenticator::Attempt;
use portunus::credit::{CreditAccount, Credits, MemoryCreditStore, NewGrant};
use portunus::key::{
    Alphabet, Checksum, Environment, KeyFormat, KeyHasher, KeyKind, Owner, TenantId,
};
use portunus::limit::{LimitFields, LimitPolicy};
use portunus::manage::NewKey;
use portunus::quota::Quota;
use portunus::store::MemoryStore;
use portunus::{ErrorCode, Limits, Portunus, Requirement};
use portunus_profiles::Profile;
use portunus_test_support::Setup;
use tower::{Layer, Service, service_fn};

const MANY: u64 = u32::MAX as u64;

/// Runs a future that is ready immediately.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the in-memory store never waits"),
    }
}

fn limits(variant: &str) -> Limits {
    let base = Limits::per_key([Quota::per_minute(MANY), Quota::per_hour(MANY)]);
    match variant {
        "none" => Limits::none(),
        "tenant" => base.policy(LimitPolicy::per_tenant([Quota::per_minute(MANY)])),
        "class" => base
            .class("reports", [LimitPolicy::per_key([Quota::per_minute(MANY)])])
            .on("GET /v2/reports"),
        _ => base,
    }
}

/// A format with a checksum.
fn format() -> KeyFormat {
    let live = Environment::new("live").expect("a valid name");
    let format = KeyFormat::builder("example_")
        .environment("live", live)
        .kind("sk", KeyKind::App)
        .random(Alphabet::BASE62, 32)
        .checksum(Checksum::Crc32Base62);
    format.build().expect("a valid format")
}

/// A key of it, except for the checksum.
const MISTYPED: &str = "example_live_sk_0123456789abcdefghijklmnopqrstuv000000";

/// Refuses a value that is not a key, without a lookup.
fn refused(value: &str, code: ErrorCode, calls: u64) {
    let service = Portunus::builder(format())
        .store(MemoryStore::new())
        .build();
    let authenticator = service.expect("valid settings").authenticator().clone();
    let request = Request::get("/v2/documents")
        .header("authorization", format!("Bearer {value}"))
        .body(())
        .expect("a valid request");
    for _ in 0..calls {
        let attempt = authenticator.attempt(&HttpHead::new(&request, None));
        assert!(matches!(black_box(&attempt), Attempt::Ready(Err(error)) if error.code() == code));
    }
}

fn main() {
    let mut arguments = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"));
    let variant = arguments.next().unwrap_or_default();
    let calls = arguments
        .next()
        .and_then(|calls| calls.parse().ok())
        .unwrap_or(1);
    let store = MemoryStore::new();
    let manager = Setup::of(store.clone(), Profile::AllSign).manager();
    let tenant: TenantId = "tenant_abc123".parse().expect("a valid id");
    let owner = Owner::tenant(tenant.clone());
    let issued = now(manager.issue(NewKey::new("bench", owner))).expect("issued");
    let setup = Setup::of(store, Profile::AllSign).failure_quotas(None);
    let setup = match variant.as_str() {
        "layer-without-fields" => setup.limit_fields(LimitFields::Off),
        "layer-audit" => {
            let trail = AuditTrail::new([MemoryAudit::new(1)]);
            // The events stay in the queue: writing and freeing them is the work of another thread.
            std::mem::forget(trail.clone());
            setup.audit(trail)
        }
        _ => setup,
    };
    let mut service = setup.limits(limits(&variant)).builder();
    if variant.ends_with("credits") {
        let credits = Credits::per_tenant(MemoryCreditStore::new());
        service = service.credits(credits.block(NonZeroU64::MAX));
    }
    let service = service.build().expect("valid settings");
    let authenticator = service.authenticator().clone();
    if service.credits().is_some() {
        let account = CreditAccount::Tenant(tenant);
        let grant = service
            .manager()
            .grant_credits(&account, NewGrant::new(MANY));
        now(grant).expect("granted");
    }
    let key = issued.key.reveal();
    let value = format!("Bearer {key}");
    // With the peer's address, where axum's server puts it.
    let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 443)));
    let request = || {
        Request::get("/v2/documents")
            .header("authorization", &value)
            .extension(peer)
            .body(Full::<Bytes>::default())
            .expect("a valid request")
    };
    let inner = service_fn(|request: Request<Full<Bytes>>| async move {
        black_box(&request);
        // With a header, as nearly all responses.
        let mut response = Response::new(Full::<Bytes>::default());
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok::<_, Infallible>(response)
    });
    // Takes a block of credits; the calls are paid from it.
    let first = request();
    now(authenticator.authenticate(&HttpHead::new(&first, None))).expect("it passes");
    match variant.as_str() {
        // The service alone, and with the layer and a requirement around it.
        "service" => (0..calls).for_each(|_| {
            let mut service = inner;
            black_box(now(service.call(request()))).expect("it never fails");
        }),
        // The digest of a key, which the others include.
        "digest" => {
            let hasher = KeyHasher::sha256();
            (0..calls).for_each(|_| {
                black_box(hasher.digest(black_box(&key)));
            });
        }
        "layer" | "layer-without-fields" | "layer-audit" | "layer-credits" => {
            let needed = Requirement::none().any_workspace();
            let mut service = AuthLayer::new(authenticator).require(needed).layer(inner);
            (0..calls).for_each(|_| {
                let response = now(service.call(request())).expect("it never fails");
                assert_eq!(black_box(response).status(), 200);
            });
        }
        "garbage-shape" => refused("nothing-like-a-key", ErrorCode::InvalidFormat, calls),
        "garbage-checksum" => refused(MISTYPED, ErrorCode::InvalidKey, calls),
        _ => {
            let request = request();
            for _ in 0..calls {
                let attempt = authenticator.attempt(&HttpHead::new(&request, None));
                assert!(matches!(black_box(attempt), Attempt::Ready(Ok(_))));
            }
        }
    }
}
