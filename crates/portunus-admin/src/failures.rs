//! Limits calls without an authenticated operator, by client address.
//!
//! A failure counts against the client's address; for IPv6, against its /48, /56 and /64 with 16, 4
//! and 1 times the limit, so that a client cannot get a new allowance with each address of a
//! network. Beyond the limit, failures get 429. The proof still runs, because only the proof can
//! recognize a valid operator, who may share the address. Ten times the limit is treated as a
//! flood: from then on, credentials that were not recently proven share [four proofs a
//! second](TRICKLE).
//!
//! Memory is bounded: once the maximum number of addresses is tracked, new ones share one count.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterError, LocalLimiter};
use portunus::quota::{Quota, Quotas};
use portunus::{Clock, RateLimiter};

/// Maximum number of tracked counts.
const MAX_COUNTS: usize = 100_000;

/// Multiple of the allowed failures that is treated as a flood.
const FLOOD: u64 = 10;

/// Proofs per second for one network during a flood.
const TRICKLE: u64 = 4;

/// Counts failures by client address.
pub(crate) struct Failures {
    counts: LocalLimiter,
    /// The shared count of all clients that arrive while `counts` is full.
    newcomers: LocalLimiter,
    /// By network width, from the narrowest to the widest.
    allowed: [Quotas; 3],
    flood: [Quotas; 3],
    trickle: Option<Quotas>,
}

/// A network whose clients are counted together.
struct Network {
    name: String,
    /// Index of its quotas: 0 for the narrowest network.
    width: usize,
}

impl Failures {
    pub(crate) fn new(allowed: &Quotas, clock: &Arc<dyn Clock>) -> Self {
        let of = |most| {
            let limiter = LocalLimiter::builder().most_buckets(most);
            limiter.clock(Arc::clone(clock)).build()
        };
        let times = |factor| [1, 4, 16].map(|width| multiplied(allowed, width * factor));
        let trickle = Quota::new("second", TRICKLE, Duration::from_secs(1));
        Self {
            counts: of(MAX_COUNTS),
            newcomers: of(1),
            allowed: times(1),
            flood: times(FLOOD),
            trickle: trickle.and_then(|quota| Quotas::new([quota])).ok(),
        }
    }

    /// Counts a failure. Returns the time to wait if the limit was already exceeded.
    pub(crate) fn count(&self, client: IpAddr) -> Option<Duration> {
        if let Some((network, wait)) = networks(client).find_map(|network| {
            let wait = self.wait(&network.name, &self.allowed[network.width])?;
            (!wait.is_zero()).then_some((network, wait))
        }) {
            // Narrower networks are no longer counted, because the owner of this network could fill
            // the memory with them. Wider networks are not charged for it either.
            let _ = take(&self.counts, &network.flood(), &self.flood[network.width]);
            return Some(wait);
        }
        let mut over = None;
        for network in networks(client) {
            let allowed = &self.allowed[network.width];
            match take(&self.counts, &network.name, allowed) {
                Ok(wait) => over = over.or(wait),
                Err(_) => return take(&self.newcomers, "", allowed).ok().flatten(),
            }
        }
        over
    }

    /// Returns whether this client has recent failures.
    pub(crate) fn suspects(&self, client: IpAddr) -> bool {
        networks(client).any(|network| {
            let allowed = &self.allowed[network.width];
            self.wait(&network.name, allowed).is_some()
        })
    }

    /// Admits an attempt with credentials that are not known.
    ///
    /// # Errors
    /// Returns the time to wait during a flood from this client.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<(), Duration> {
        for network in networks(client) {
            let flood = network.flood();
            let wait = self.wait(&flood, &self.flood[network.width]);
            let (Some(_), Some(trickle)) = (wait.filter(|wait| !wait.is_zero()), &self.trickle)
            else {
                continue;
            };
            let decision = take(&self.counts, &format!("trickle {}", network.name), trickle);
            return match decision {
                Ok(None) => Ok(()),
                Ok(Some(wait)) => Err(wait),
                Err(_) => Err(Duration::from_secs(1)),
            };
        }
        Ok(())
    }

    fn wait(&self, name: &str, quotas: &Quotas) -> Option<Duration> {
        let bucket = LimitBucket::new(BucketId::Custom(name), quotas);
        self.counts.wait(&bucket)
    }
}

/// Takes one unit of a bucket. Returns the time to wait if none is left.
pub(crate) fn take(
    limiter: &LocalLimiter,
    name: &str,
    quotas: &Quotas,
) -> Result<Option<Duration>, LimiterError> {
    let bucket = LimitBucket::new(BucketId::Custom(name), quotas);
    match limiter.try_acquire(&LimitRequest::new(&[bucket], 1)) {
        Some(decided) => decided.map(|decision| decision.retry_after()),
        None => Ok(None),
    }
}

impl Network {
    fn flood(&self) -> String {
        format!("flood {}", self.name)
    }
}

/// Returns the networks of a client, widest first.
fn networks(client: IpAddr) -> impl Iterator<Item = Network> {
    let (prefixes, single) = match client.to_canonical() {
        IpAddr::V4(ip) => (None, Some(ip.to_string())),
        IpAddr::V6(ip) => (Some(ip), None),
    };
    let of = |ip: Ipv6Addr| {
        [(48, 2), (56, 1), (64, 0)].map(|(length, width)| Network {
            name: prefix(ip, length),
            width,
        })
    };
    let single = single.map(|name| Network { name, width: 0 });
    let prefixes = prefixes.map(of).into_iter().flatten();
    prefixes.chain(single)
}

/// Returns the name of the narrowest network of a client.
pub(crate) fn narrowest(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => prefix(ip, 64),
    }
}

fn prefix(ip: Ipv6Addr, length: u32) -> String {
    let kept = ip.to_bits() & (u128::MAX << (128 - length));
    format!("{}/{length}", Ipv6Addr::from_bits(kept))
}

/// Multiplies each quota by the factor. A quota that would exceed the maximum is left unchanged.
fn multiplied(quotas: &Quotas, factor: u64) -> Quotas {
    let each = quotas.as_slice().iter().map(|quota| {
        let limit = quota.limit().saturating_mul(factor);
        Quota::new(quota.name(), limit, quota.window()).unwrap_or_else(|_| quota.clone())
    });
    Quotas::new(each).unwrap_or_else(|_| quotas.clone())
}
