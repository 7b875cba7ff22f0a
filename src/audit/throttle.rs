//! How many refusals of one source are kept: a source that is refused again and again must not push
//! everything else out of the audit.
//!
//! Keys and clients are counted apart, so that a flood of clients hides no key. IPv6 clients are
//! counted by /64, clients without an address together. Memory is bounded: where it is full,
//! newcomers share one count.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::limit::{BucketId, Decision, LimitBucket, LimitRequest, LocalLimiter};
use crate::quota::Quotas;

/// No more sources of one kind are told apart at once.
const MOST_SOURCES: usize = 50_000;

pub(super) struct Throttle {
    keys: LocalLimiter,
    clients: LocalLimiter,
    /// The counts of all who come while there is no room: of keys, and of clients.
    newcomers: LocalLimiter,
    quotas: Quotas,
}

impl Throttle {
    pub(super) fn new(quotas: Quotas, clock: &Arc<dyn Clock>) -> Self {
        let of = |most| {
            LocalLimiter::builder()
                .most_buckets(most)
                .clock(Arc::clone(clock))
                .build()
        };
        Self {
            keys: of(MOST_SOURCES),
            clients: of(MOST_SOURCES),
            newcomers: of(2),
            quotas,
        }
    }

    /// Counts a refusal, of the key or operator where one is known, else of the client; whether it is
    /// one of those that are kept.
    pub(super) fn admits(&self, known: Option<&str>, client: Option<IpAddr>) -> bool {
        match known {
            Some(name) => self.count(&self.keys, name, "keys"),
            None => self.count(&self.clients, &name_of(client), "clients"),
        }
    }

    fn count(&self, sources: &LocalLimiter, name: &str, all: &str) -> bool {
        let within = |limiter: &LocalLimiter, name| {
            let bucket = LimitBucket::new(BucketId::Custom(name), &self.quotas);
            limiter.decide(&LimitRequest::new(&[bucket], 1))
        };
        let decided = within(sources, name).or_else(|_| within(&self.newcomers, all));
        decided.as_ref().is_ok_and(Decision::is_admitted)
    }
}

/// A client's address, or the /64 that it is in.
fn name_of(client: Option<IpAddr>) -> String {
    match client.map(|ip| ip.to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("{:x}::/64", ip.to_bits() >> 64),
    }
}
