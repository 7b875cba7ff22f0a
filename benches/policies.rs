//! What a second policy and a class cost on the hit path: attempts with 100 hot keys, with the
//! variants interleaved in each round.
//!
//! `cargo bench --bench policies`; `POLICIES_ROUNDS=200` for more rounds. Prints the median of each
//! variant, and the median over all rounds of its difference to the first; medians of differences
//! are more stable than the timings themselves. Fails if a variant allocates more than the first.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::env;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use allocation_counter::measure;
use http::Request;
use portunus::adapter::tower::HttpHead;
use portunus::authenticator::Attempt;
use portunus::key::Owner;
use portunus::limit::LimitPolicy;
use portunus::manage::NewKey;
use portunus::quota::Quota;
use portunus::store::MemoryStore;
use portunus::{Authenticator, Limits};
use portunus_profiles::Profile;
use portunus_test_support::Setup;

const KEYS: usize = 100;
const CALLS: usize = 20_000;
/// More than is ever used, so that no refusal is measured.
const MANY: u64 = u32::MAX as u64;

fn base() -> Limits {
    Limits::per_key([Quota::per_minute(MANY), Quota::per_hour(MANY)])
}

fn variants() -> Vec<(&'static str, Limits)> {
    vec![
        ("a policy per key, two windows", base()),
        ("the same again", base()),
        (
            "+ a policy per tenant, one window",
            base().policy(LimitPolicy::per_tenant([Quota::per_minute(MANY)])),
        ),
        (
            "+ a policy per tenant, two windows",
            base().policy(LimitPolicy::per_tenant([
                Quota::per_minute(MANY),
                Quota::per_hour(MANY),
            ])),
        ),
        (
            "+ a policy per key for another class, by route",
            base()
                .class("reports", [LimitPolicy::per_key([Quota::per_minute(MANY)])])
                .on("GET /v2/reports"),
        ),
        (
            "+ a class without a policy that applies, by route",
            base()
                .class(
                    "reports",
                    [LimitPolicy::per_address([Quota::per_minute(1)]).anonymous()],
                )
                .on("GET /v2/documents"),
        ),
    ]
}

/// An authenticator with a store of its own, because a stored key holds the entries of all
/// authenticators that have seen it.
struct Variant {
    authenticator: Authenticator,
    requests: Vec<Request<()>>,
}

impl Variant {
    fn new(limits: Limits) -> Self {
        let store = MemoryStore::new();
        let manager = Setup::of(store.clone(), Profile::AllSign).manager();
        let setup = Setup::of(store, Profile::AllSign).failure_quotas(None);
        let request = |_| {
            let owner = Owner::tenant("tenant_abc123".parse().expect("a valid id"));
            let issued = now(manager.issue(NewKey::new("bench", owner))).expect("issued");
            Request::get("/v2/documents")
                .header("authorization", format!("Bearer {}", issued.key.reveal()))
                .body(())
                .expect("a valid request")
        };
        Self {
            authenticator: setup.limits(limits).build().expect("valid settings"),
            requests: (0..KEYS).map(request).collect(),
        }
    }

    fn call(&self, key: usize) -> bool {
        let head = HttpHead::new(&self.requests[key], None);
        let attempt = self.authenticator.attempt(&head);
        matches!(black_box(attempt), Attempt::Ready(Ok(_)))
    }
}

/// Runs a future that is ready immediately.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the in-memory store never waits"),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let variants: Vec<_> = variants()
        .into_iter()
        .map(|(name, limits)| (name, Variant::new(limits)))
        .collect();
    let round = |variant: &Variant| {
        let start = Instant::now();
        for turn in 0..CALLS {
            assert!(variant.call(turn % KEYS), "it passes at once");
        }
        start.elapsed().as_nanos() as f64 / CALLS as f64
    };
    for (_, variant) in &variants {
        round(variant);
    }
    let rounds = env::var("POLICIES_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let mut times = vec![Vec::new(); variants.len()];
    for turn in 0..rounds.unwrap_or(60) {
        // Each round begins with another variant.
        for step in 0..variants.len() {
            let place = (turn + step) % variants.len();
            times[place].push(round(&variants[place].1));
        }
    }
    let allocations: Vec<_> = variants
        .iter()
        .map(|(_, variant)| {
            measure(|| {
                black_box(variant.call(0));
            })
            .count_total
        })
        .collect();
    println!(
        "{:<52} {:>8} {:>12} {:>12}",
        "", "ns", "difference", "allocations"
    );
    for (place, (name, _)) in variants.iter().enumerate() {
        let each = times[place].iter().zip(&times[0]);
        let mut differences: Vec<_> = each.map(|(time, first)| time - first).collect();
        let (time, difference) = (median(&mut times[place].clone()), median(&mut differences));
        println!(
            "{name:<52} {time:>8.1} {difference:>12.1} {:>12}",
            allocations[place]
        );
    }
    assert!(
        allocations.iter().all(|count| *count == allocations[0]),
        "a policy or a class allocates"
    );
}
