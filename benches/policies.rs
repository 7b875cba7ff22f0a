//! What a second policy, a class and credits cost on the hit path: attempts with 100 hot keys, with
//! the variants interleaved in each round.
//!
//! `cargo bench --bench policies`; `POLICIES_ROUNDS=200` for more rounds. Prints the median of each
//! variant, the median over all rounds of its difference to the first, and the difference of the
//! shortest rounds. On an idle machine, medians of differences are more stable than the timings
//! themselves; on a busy one, only the shortest rounds tell something. Fails if a variant allocates
//! more than the first.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::env;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use allocation_counter::measure;
use http::Request;
use portunus::adapter::tower::HttpHead;
use portunus::authenticator::Attempt;
use portunus::credit::{CreditAccount, Credits, MemoryCreditStore, NewGrant};
use portunus::key::{Owner, TenantId};
use portunus::limit::LimitPolicy;
use portunus::manage::NewKey;
use portunus::quota::Quota;
use portunus::store::MemoryStore;
use portunus::{Limits, Portunus};
use portunus_profiles::Profile;
use portunus_test_support::Setup;

const KEYS: usize = 100;
const CALLS: usize = 20_000;
/// More than is ever used, so that no refusal is measured.
const MANY: u64 = u32::MAX as u64;

fn base() -> Limits {
    Limits::per_key([Quota::per_minute(MANY), Quota::per_hour(MANY)])
}

fn variants() -> Vec<(&'static str, Variant)> {
    let limited = |(name, limits)| (name, Variant::new(limits, None));
    let mut all: Vec<_> = policies().into_iter().map(limited).collect();
    let paid = |credits: Credits| Variant::new(base(), Some(credits.block(NonZeroU64::MAX)));
    let store = MemoryCreditStore::new;
    all.extend([
        ("+ credits of a tenant", paid(Credits::per_tenant(store()))),
        ("+ credits of each key", paid(Credits::per_key(store()))),
    ]);
    all
}

fn policies() -> Vec<(&'static str, Limits)> {
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

/// A service with a store of its own, because a stored key holds the entries of all authenticators
/// that have seen it.
struct Variant {
    keys: Portunus,
    requests: Vec<Request<()>>,
}

impl Variant {
    fn new(limits: Limits, credits: Option<Credits>) -> Self {
        let store = MemoryStore::new();
        let manager = Setup::of(store.clone(), Profile::AllSign).manager();
        let setup = Setup::of(store, Profile::AllSign).failure_quotas(None);
        let mut service = setup.limits(limits).builder();
        if let Some(credits) = credits {
            service = service.credits(credits);
        }
        let keys = service.build().expect("valid settings");
        let tenant: TenantId = "tenant_abc123".parse().expect("a valid id");
        let request = |_| {
            let owner = Owner::tenant(tenant.clone());
            let issued = now(manager.issue(NewKey::new("bench", owner))).expect("issued");
            if keys.credits().is_some() {
                let family = issued.record.family.clone();
                for account in [
                    CreditAccount::Tenant(tenant.clone()),
                    CreditAccount::Key(family),
                ] {
                    let grant = keys.manager().grant_credits(&account, NewGrant::new(MANY));
                    now(grant).expect("granted");
                }
            }
            Request::get("/v2/documents")
                .header("authorization", format!("Bearer {}", issued.key.reveal()))
                .body(())
                .expect("a valid request")
        };
        let requests = (0..KEYS).map(request).collect();
        Self { keys, requests }
    }

    /// Takes blocks of credits, or reports them, so that their minute begins anew.
    fn prepare(&self) {
        now(self.keys.maintain());
        for request in &self.requests {
            let head = HttpHead::new(request, None);
            now(self.keys.authenticator().authenticate(&head)).expect("it passes");
        }
    }

    fn call(&self, key: usize) -> bool {
        let head = HttpHead::new(&self.requests[key], None);
        let attempt = self.keys.authenticator().attempt(&head);
        matches!(black_box(attempt), Attempt::Ready(Ok(_)))
    }
}

/// Runs a future. Those of the in-memory stores are ready at once, those of jobs soon.
fn now<F: Future>(future: F) -> F::Output {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let variants = variants();
    let round = |variant: &Variant| {
        variant.prepare();
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
        "{:<52} {:>8} {:>12} {:>12} {:>12}",
        "", "ns", "difference", "of shortest", "allocations"
    );
    for (place, (name, _)) in variants.iter().enumerate() {
        let each = times[place].iter().zip(&times[0]);
        let mut differences: Vec<_> = each.map(|(time, first)| time - first).collect();
        let (time, difference) = (median(&mut times[place].clone()), median(&mut differences));
        let shortest = |place: usize| times[place].iter().copied().fold(f64::MAX, f64::min);
        println!(
            "{name:<52} {time:>8.1} {difference:>12.1} {:>12.1} {:>12}",
            shortest(place) - shortest(0),
            allocations[place]
        );
    }
    assert!(
        allocations.iter().all(|count| *count == allocations[0]),
        "a policy, a class or a block of credits allocates"
    );
}
