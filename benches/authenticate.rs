//! The cost of authentication: each step, a whole attempt, and the layer around a service that does
//! nothing.
//!
//! `cargo bench --bench authenticate`. Timings depend on the machine; compare within one run.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use http_body_util::Full;
use portunus::adapter::tower::{AuthLayer, HttpHead, require};
use portunus::authenticator::{Attempt, Authenticated};
use portunus::key::{KeyHasher, Owner, Pepper};
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::store::MemoryStore;
use portunus::{Authenticator, Principal, Requirement, scope};
use portunus_profiles::Profile;
use portunus_test_support::Setup;
use tower::{Layer, Service, service_fn};

/// Runs a future that is ready immediately.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the in-memory store never waits"),
    }
}

fn request(key: &str) -> Request<Full<Bytes>> {
    Request::get("/v2/documents")
        .header("authorization", format!("Bearer {key}"))
        .body(Full::default())
        .expect("a valid request")
}

/// Builds an authenticator with this many keys, and returns some of the keys.
fn authenticator(keys: usize, hasher: &KeyHasher) -> (Authenticator, Vec<String>) {
    let (builder, some) = described(keys, hasher);
    (builder.build().expect("a valid authenticator"), some)
}

/// The same with quotas per minute and hour that are never used up.
fn limited(keys: usize) -> (Authenticator, Vec<String>) {
    let most = u64::from(u32::MAX);
    let quotas =
        [Quota::per_minute(most), Quota::per_hour(most)].map(|quota| quota.expect("valid quotas"));
    let (builder, some) = described(keys, &KeyHasher::sha256());
    let builder = builder
        .limiter(LocalLimiter::default())
        .quotas(Quotas::new(quotas).expect("valid quotas"));
    (builder.build().expect("a valid authenticator"), some)
}

fn described(keys: usize, hasher: &KeyHasher) -> (Setup, Vec<String>) {
    let store = MemoryStore::new();
    let manager = Setup::of(store.clone(), Profile::AllSign)
        .hasher(hasher.clone())
        .manager();
    let owner = Owner::tenant("tenant_abc123".parse().expect("a valid id"));
    let mut some = Vec::new();
    for number in 0..keys {
        let scopes = [
            scope!("document:read"),
            scope!("document:write"),
            scope!("signature:read"),
        ];
        let issued = now(manager.issue(NewKey::new("bench", owner.clone()).with_scopes(scopes)))
            .expect("issued");
        if number < 10_000 {
            some.push(issued.key.reveal());
        }
    }
    (
        Setup::of(store, Profile::AllSign)
            .hasher(hasher.clone())
            .failure_quotas(None),
        some,
    )
}

fn attempts(c: &mut Criterion) {
    let plain = KeyHasher::sha256();
    let peppered = KeyHasher::hmac_sha256(Pepper::new(1, &[7; 32]).expect("long enough"));
    let needed = Requirement::scope(scope!("document:read"));

    let format = Profile::AllSign.key_format();
    let (auth, keys) = authenticator(100, &plain);
    c.bench_function("parse", |b| {
        b.iter(|| format.parse(black_box(&keys[0])).is_ok());
    });
    c.bench_function("digest/sha256", |b| {
        b.iter(|| plain.digest(black_box(&keys[0])));
    });
    c.bench_function("digest/hmac-sha256", |b| {
        b.iter(|| peppered.digest(black_box(&keys[0])));
    });

    let mut bench = |name: &str, auth: &Authenticator, requests: &[Request<Full<Bytes>>]| {
        let mut turn = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                turn = (turn + 1) % requests.len();
                match auth.attempt(&HttpHead::new(&requests[turn], None)) {
                    Attempt::Ready(Ok(Authenticated {
                        principal: Some(principal),
                        ..
                    })) => principal.require(&needed).is_ok(),
                    outcome => matches!(black_box(outcome), Attempt::Pending(_)),
                }
            });
        });
    };
    let requests: Vec<_> = keys.iter().map(|key| request(key)).collect();
    bench("attempt/hit/100 keys", &auth, &requests);
    let (auth, keys) = authenticator(100, &peppered);
    let requests: Vec<_> = keys.iter().map(|key| request(key)).collect();
    bench("attempt/hit/100 keys, peppered", &auth, &requests);
    let (auth, keys) = limited(100);
    let requests: Vec<_> = keys.iter().map(|key| request(key)).collect();
    bench("attempt/hit/100 keys, limited", &auth, &requests);
    let (auth, keys) = authenticator(10_000, &plain);
    let requests: Vec<_> = keys.iter().map(|key| request(key)).collect();
    bench("attempt/hit/10000 keys", &auth, &requests);
    bench(
        "attempt/unknown",
        &auth,
        &[request("allsign_live_sk_00000000000000000000000000000000")],
    );
    bench("attempt/garbage", &auth, &[request("nothing-like-a-key")]);
}

fn layers(c: &mut Criterion) {
    let (auth, keys) = authenticator(100, &KeyHasher::sha256());
    let inner = service_fn(|request: Request<Full<Bytes>>| async move {
        black_box(&request);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut bare = inner;
    c.bench_function("service/bare", |b| {
        b.iter_batched(
            || request(&keys[0]),
            |request| now(bare.call(request)),
            BatchSize::SmallInput,
        );
    });
    let mut layered = AuthLayer::new(auth).layer(require(scope!("document:read")).layer(inner));
    c.bench_function("service/authenticated", |b| {
        b.iter_batched(
            || request(&keys[0]),
            |request| now(layered.call(request)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, attempts, layers);
criterion_main!(benches);
