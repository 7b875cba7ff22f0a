//! Failed attempts, by client address: well-formed keys that no store knows.
//!
//! The count is asked before a store is, and never touches a key's own quota; a success takes nothing back. IPv6 clients
//! are counted by /64, clients without an address together. Memory is bounded: when it is full, newcomers share one
//! count.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{BucketId, Decision, LimitBucket, LimitRequest, LocalLimiter, Quotas};
use crate::clock::Clock;

/// No more addresses are told apart at once.
const MOST_ADDRESSES: usize = 50_000;

/// Counts failures. Cloning shares the counts.
#[derive(Debug, Clone)]
pub(crate) struct FailureLimits {
    limiter: LocalLimiter,
    quotas: Quotas,
}

impl FailureLimits {
    pub(crate) fn new(quotas: Quotas, clock: Arc<dyn Clock>) -> Self {
        Self { limiter: LocalLimiter::builder().most_buckets(MOST_ADDRESSES).clock(clock).build(), quotas }
    }

    /// How long this client must wait before another key of its is looked up; `None` if it need not.
    pub(crate) fn blocked(&self, client: Option<IpAddr>) -> Option<Duration> {
        let (buffer, length) = name(client);
        let bucket = [LimitBucket::new(BucketId::Custom(text(&buffer, length)), &self.quotas)];
        self.limiter.wait(&LimitRequest::new(&bucket, 1))
    }

    /// Counts a failure. Returns how long to wait where there were too many already.
    pub(crate) fn count(&self, client: Option<IpAddr>) -> Option<Duration> {
        let (buffer, length) = name(client);
        let decide = |name: &str| {
            let bucket = [LimitBucket::new(BucketId::Custom(name), &self.quotas)];
            self.limiter.decide(&LimitRequest::new(&bucket, 1))
        };
        let decided = decide(text(&buffer, length)).or_else(|_| decide(OVERFLOW));
        decided.ok().as_ref().and_then(Decision::retry_after)
    }
}

const UNKNOWN: &str = "unknown";
const OVERFLOW: &str = "overflow";

/// The name of a client's bucket: 16 hexadecimal digits of the /64, or of the IPv4 address, without an allocation.
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
    std::str::from_utf8(&buffer[..length]).unwrap_or(OVERFLOW)
}
