//! The least that the same checks can cost: an upper bound for every library, not a proposal.
//!
//! An identity hash of the digest's first word, networks as masks, scopes as bits, two fixed
//! windows of one atomic word each, and one reading of a coarse clock. Fixed windows admit twice
//! the quota around the end of a window: the second contender has the limiter of Portunus instead,
//! whose windows slide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Request, StatusCode};
use ipnet::IpNet;
use portunus::RateLimiter;
use portunus::key::KeyFamily;
use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterSlot, LocalLimiter};
use portunus::quota::Quotas;

use crate::contender::{Check, Contender, Credentials};
use crate::gate::{Gate, Gated};
use crate::limiters::quotas;
use crate::shape::{
    Body, NEEDED, NETWORKS, SCOPES, Settings, bearer, digest, next_year, peer, secret,
};

/// Uses a word of a digest as its own hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only words are hashed");
    }
}

/// The number of the window and how much of it is used, in one word.
#[derive(Default)]
struct Window(AtomicU64);

impl Window {
    fn admits(&self, number: u64, most: u64) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let used = if seen >> 32 == number {
                seen & 0xffff_ffff
            } else {
                0
            };
            if used >= most {
                return false;
            }
            let next = number << 32 | (used + 1);
            let order = Ordering::Relaxed;
            match self.0.compare_exchange_weak(seen, next, order, order) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
    }
}

/// The limits of all keys.
trait Limits: Send + Sync + 'static {
    /// What a key has used.
    type Used: Send + Sync;

    fn new(settings: Settings) -> Self;
    fn unused(number: u64) -> Self::Used;

    /// Whether one more request is admitted, at this second.
    fn admit(&self, used: &Self::Used, second: u64) -> bool;
}

/// Two windows that begin when the one before has ended.
struct Fixed {
    per_minute: u64,
    per_hour: u64,
}

impl Limits for Fixed {
    type Used = [Window; 2];

    fn new(settings: Settings) -> Self {
        Self {
            per_minute: settings.per_minute.into(),
            per_hour: settings.per_hour.into(),
        }
    }

    fn unused(_: u64) -> [Window; 2] {
        Self::Used::default()
    }

    fn admit(&self, [minute, hour]: &[Window; 2], second: u64) -> bool {
        minute.admits(second / 60, self.per_minute) && hour.admits(second / 3600, self.per_hour)
    }
}

/// The limiter of Portunus.
struct Sliding {
    limiter: LocalLimiter,
    quotas: Quotas,
}

impl Limits for Sliding {
    type Used = (KeyFamily, LimiterSlot);

    fn new(settings: Settings) -> Self {
        let limiter = LocalLimiter::builder().most_buckets(settings.keys + 1);
        Self {
            limiter: limiter.build(),
            quotas: quotas(settings),
        }
    }

    fn unused(number: u64) -> Self::Used {
        let family = KeyFamily::new(&format!("key_{number:022}"));
        (family.expect("a valid name"), LimiterSlot::new())
    }

    fn admit(&self, (family, slot): &Self::Used, _: u64) -> bool {
        let bucket = LimitBucket::new(BucketId::Family(family), &self.quotas).with_slot(slot);
        let answer = self.limiter.try_acquire(&LimitRequest::new(&[bucket], 1));
        matches!(answer, Some(Ok(decision)) if decision.is_admitted())
    }
}

/// The principal that handlers find in the extensions.
pub struct KeyInfo<U> {
    digest: [u64; 4],
    /// Networks as mask and address, with IPv4 mapped into IPv6.
    networks: [(u128, u128); 3],
    /// A bit for each of [`SCOPES`].
    scopes: u8,
    is_live: bool,
    /// In seconds since 1970.
    expires_at: u64,
    uses: AtomicU64,
    used: U,
}

struct Floor<L: Limits> {
    keys: HashMap<u64, Arc<KeyInfo<L::Used>>, BuildHasherDefault<Identity>>,
    needed: u8,
    limits: L,
}

fn words(digest: [u8; 32]) -> [u64; 4] {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(text: &str) -> (u128, u128) {
    let network: IpNet = text.parse().expect("a valid network");
    let rest = network.max_prefix_len() - network.prefix_len();
    let mask = u128::MAX << rest;
    (mask, bits(network.network()) & mask)
}

fn scope_bits(scopes: &[&str]) -> u8 {
    let known = SCOPES.iter().enumerate();
    let granted = known.filter(|(_, scope)| scopes.contains(scope));
    granted.fold(0, |bits, (place, _)| bits | 1 << place)
}

/// The seconds since 1970.
#[cfg(target_os = "linux")]
fn seconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    time.tv_sec.cast_unsigned()
}

/// The seconds since 1970, where there is no coarse clock.
#[cfg(not(target_os = "linux"))]
fn seconds() -> u64 {
    since_1970(SystemTime::now())
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

impl<L: Limits> Floor<L> {
    fn add(&mut self, number: u64, scopes: &[&str]) -> String {
        let secret = secret(number);
        let digest = words(digest(&secret));
        let info = KeyInfo {
            digest,
            networks: NETWORKS.map(mask),
            scopes: scope_bits(scopes),
            is_live: true,
            expires_at: since_1970(next_year()),
            uses: AtomicU64::new(0),
            used: L::unused(number),
        };
        self.keys.insert(digest[0], Arc::new(info));
        format!("Bearer {secret}")
    }
}

impl<L: Limits> Gate for Floor<L> {
    fn admit(&self, request: &mut Request<Body>) -> Result<(), StatusCode> {
        let secret = bearer(request).ok_or(StatusCode::UNAUTHORIZED)?;
        let digest = words(digest(secret));
        let info = self.keys.get(&digest[0]).ok_or(StatusCode::UNAUTHORIZED)?;
        let differing = (0..4).fold(0, |bits, word| bits | (info.digest[word] ^ digest[word]));
        let now = seconds();
        if differing != 0 || now >= info.expires_at {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let from = bits(peer(request).ok_or(StatusCode::FORBIDDEN)?);
        let may_call_from = info.networks.iter().any(|(mask, net)| from & mask == *net);
        if !info.is_live || !may_call_from {
            return Err(StatusCode::FORBIDDEN);
        }
        if !self.limits.admit(&info.used, now) {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        info.uses.fetch_add(1, Ordering::Relaxed);
        if info.scopes & self.needed == 0 {
            return Err(StatusCode::FORBIDDEN);
        }
        let info = Arc::clone(info);
        request.extensions_mut().insert(info);
        Ok(())
    }
}

fn built<L: Limits>(name: &'static str, settings: Settings) -> Contender {
    let mut floor = Floor {
        keys: HashMap::default(),
        needed: scope_bits(&[NEEDED]),
        limits: L::new(settings),
    };
    let numbers = 0..settings.keys as u64;
    let credentials = Credentials {
        good: numbers.map(|number| floor.add(number, &SCOPES)).collect(),
        unknown: format!("Bearer {}", secret(u64::MAX)),
        without_scope: floor.add(u64::MAX - 1, &SCOPES[..2]),
    };
    Contender::tower(name, Check::COMPLETE, credentials, Gated::new(floor))
}

pub fn contender(settings: Settings) -> Contender {
    built::<Fixed>("floor", settings)
}

pub fn with_sliding_windows(settings: Settings) -> Contender {
    built::<Sliding>("floor, sliding windows", settings)
}
