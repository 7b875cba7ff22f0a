//! Throttling of refusals per source, so that a source that is refused repeatedly does not displace
//! all other audit events.
//!
//! Keys and clients are counted separately, so that a flood of clients hides no key. IPv6 clients
//! are counted by /64, and clients without an address together. Memory is bounded: if it is full,
//! new sources share one count.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::limit::{BucketId, Decision, LimitBucket, LimitRequest, LocalLimiter};
use crate::quota::Quotas;

/// The maximum number of sources of one kind that are counted separately.
const MOST_SOURCES: usize = 50_000;

pub(super) struct Throttle {
    keys: LocalLimiter,
    clients: LocalLimiter,
    /// Shared counts for new sources while the table is full: one for keys, one for clients.
    overflow: LocalLimiter,
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
            overflow: of(2),
            quotas,
        }
    }

    /// Counts a refusal against the key or operator if known, or else against the client. Returns
    /// whether to record it.
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
        let decided = within(sources, name).or_else(|_| within(&self.overflow, all));
        decided.as_ref().is_ok_and(Decision::is_admitted)
    }
}

/// Returns a client's IPv4 address or IPv6 /64 as a string.
fn name_of(client: Option<IpAddr>) -> String {
    match client.map(|ip| ip.to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("{:x}::/64", ip.to_bits() >> 64),
    }
}
