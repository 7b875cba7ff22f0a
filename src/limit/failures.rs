//! Failed requests by their source, for what is noted of them: the key that was refused, else the
//! client's address.
//!
//! IPv6 clients are counted by /64, clients without an address together. Memory is bounded: when it
//! is full, newcomers share one count.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{BucketId, Decision, LimitBucket, LimitRequest, LocalLimiter};
use crate::clock::Clock;
use crate::quota::Quotas;

/// No more addresses are told apart at once.
const MOST_ADDRESSES: usize = 50_000;

/// Counts failures. Cloning shares the counts.
#[derive(Debug, Clone)]
pub(crate) struct FailureLimits {
    by_client: LocalLimiter,
    /// The one count of all who come while `by_client` is full.
    newcomers: LocalLimiter,
    quotas: Quotas,
}

impl FailureLimits {
    pub(crate) fn new(quotas: Quotas, clock: &Arc<dyn Clock>) -> Self {
        let of = |most| {
            LocalLimiter::builder()
                .most_buckets(most)
                .clock(Arc::clone(clock))
                .build()
        };
        Self {
            by_client: of(MOST_ADDRESSES),
            newcomers: of(1),
            quotas,
        }
    }

    /// Counts a failure. Returns how long to wait where there were too many already.
    pub(crate) fn count(&self, client: Option<IpAddr>) -> Option<Duration> {
        let (buffer, length) = name(client);
        self.count_name(text(&buffer, length))
    }

    /// The same for whoever has this name.
    pub(crate) fn count_name(&self, name: &str) -> Option<Duration> {
        let by_client = self
            .by_client
            .decide(&LimitRequest::new(&[self.bucket(name)], 1));
        let decided = by_client.or_else(|_| {
            self.newcomers
                .decide(&LimitRequest::new(&[self.bucket(NEWCOMERS)], 1))
        });
        decided.ok().as_ref().and_then(Decision::retry_after)
    }

    fn bucket<'a>(&'a self, name: &'a str) -> LimitBucket<'a> {
        LimitBucket::new(BucketId::Custom(name), &self.quotas)
    }
}

const UNKNOWN: &str = "unknown";
const NEWCOMERS: &str = "newcomers";

/// The name of a client's bucket: 16 hexadecimal digits of the /64, or of the IPv4 address, without
/// an allocation.
fn name(client: Option<IpAddr>) -> ([u8; 17], usize) {
    let mut buffer = [0; 17];
    let prefix = match client.map(|ip| ip.to_canonical()) {
        None => {
            buffer[..UNKNOWN.len()].copy_from_slice(UNKNOWN.as_bytes());
            return (buffer, UNKNOWN.len());
        }
        Some(IpAddr::V4(ip)) => {
            buffer[0] = b'4';
            u64::from(ip.to_bits())
        }
        Some(IpAddr::V6(ip)) => {
            buffer[0] = b'6';
            upper_half(ip)
        }
    };
    for (place, byte) in buffer[1..].chunks_exact_mut(2).zip(prefix.to_be_bytes()) {
        place[0] = HEX[usize::from(byte >> 4)];
        place[1] = HEX[usize::from(byte & 15)];
    }
    (buffer, 17)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn upper_half(ip: Ipv6Addr) -> u64 {
    u64::try_from(ip.to_bits() >> 64).unwrap_or(0)
}

fn text(buffer: &[u8; 17], length: usize) -> &str {
    std::str::from_utf8(&buffer[..length]).unwrap_or(UNKNOWN)
}
