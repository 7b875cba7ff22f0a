//! How many calls without a proven operator a client may make, by its address.
//!
//! A failure is counted for the client's address, and for IPv6 for its /48, /56 and /64 with 16, 4
//! and 1 times the number, so that nobody gets a new allowance with each address of a network.
//! Past that number failures are answered with 429. The proof is still asked, as a working one is
//! found out in no other way and neighbours behind the same address may have it, until ten times as
//! many have failed. From then on it is a flood: credentials that were not proven lately share
//! [four proofs a second](TRICKLE).
//!
//! Memory is bounded: while as many addresses are known as may be, newcomers share one count.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterError, LocalLimiter};
use portunus::quota::{Quota, Quotas};
use portunus::{Clock, RateLimiter};

/// No more counts are kept at once.
const MOST_COUNTS: usize = 100_000;

/// How many times the allowed failures make a flood.
const FLOOD: u64 = 10;

/// How many proofs a second are asked for in a flood, for one network.
const TRICKLE: u64 = 4;

/// Counts failures by client address.
pub(crate) struct Failures {
    counts: LocalLimiter,
    /// The one count of all who come while `counts` is full.
    newcomers: LocalLimiter,
    /// For a network of the narrowest kind, and for the wider ones.
    allowed: [Quotas; 3],
    flood: [Quotas; 3],
    trickle: Option<Quotas>,
}

/// A network whose clients are counted together.
struct Network {
    name: String,
    /// The place of its quotas: how wide it is.
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
            counts: of(MOST_COUNTS),
            newcomers: of(1),
            allowed: times(1),
            flood: times(FLOOD),
            trickle: trickle.and_then(|quota| Quotas::new([quota])).ok(),
        }
    }

    /// Counts a failure. Returns how long to wait where there were too many already.
    pub(crate) fn count(&self, client: IpAddr) -> Option<Duration> {
        if let Some((network, wait)) = networks(client).find_map(|network| {
            let wait = self.wait(&network.name, &self.allowed[network.width])?;
            (!wait.is_zero()).then_some((network, wait))
        }) {
            // Narrower networks are not told apart any more, as whoever owns this one would fill the
            // memory; and the wider ones have nothing to do with it.
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

    /// Whether this client has failed lately.
    pub(crate) fn suspects(&self, client: IpAddr) -> bool {
        networks(client).any(|network| {
            let allowed = &self.allowed[network.width];
            self.wait(&network.name, allowed).is_some()
        })
    }

    /// Lets credentials that are not known be tried.
    ///
    /// # Errors
    /// In a flood of this client's, how long to wait.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<(), Duration> {
        for network in networks(client) {
            let flood = network.flood();
            let wait = self.wait(&flood, &self.flood[network.width]);
            let (Some(_), Some(trickle)) = (wait.filter(|wait| !wait.is_zero()), &self.trickle)
            else {
                continue;
            };
            let trickled = take(&self.counts, &format!("trickle {}", network.name), trickle);
            return match trickled {
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

/// Takes one unit of a bucket; how long to wait where there is none.
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

/// The networks of a client, the widest first.
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

/// The narrowest network of a client, as a name.
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

/// Each quota, times this number; as it is where that is more than can be counted.
fn multiplied(quotas: &Quotas, factor: u64) -> Quotas {
    let each = quotas.as_slice().iter().map(|quota| {
        let limit = quota.limit().saturating_mul(factor);
        Quota::new(quota.name(), limit, quota.window()).unwrap_or_else(|_| quota.clone())
    });
    Quotas::new(each).unwrap_or_else(|_| quotas.clone())
}
