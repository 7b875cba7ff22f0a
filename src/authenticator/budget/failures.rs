//! Counts of failed lookups by address prefix.
//!
//! An IPv6 address is counted in its /64, its /56 and its /48, each with its own quota. The number
//! of prefixes is bounded; at the cap, the prefix that was used least recently is evicted, and no
//! request is refused because of it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use smallvec::SmallVec;

use crate::limit::{LookupBudget, Recorders, nanos};

/// The maximum number of prefixes.
const MOST_PREFIXES: usize = 50_000;

/// How long an address is suspect after a failure, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// The window for lookups of prefixes that have used up their failures, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// An address prefix, by which clients are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Prefix {
    kind: Kind,
    bits: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    V4,
    V6By64,
    V6By56,
    V6By48,
}

impl Prefix {
    /// Returns the narrowest prefix, which counts as one address.
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self {
                kind: Kind::V4,
                bits: ip.to_bits().into(),
            },
            IpAddr::V6(ip) => Self {
                kind: Kind::V6By64,
                bits: u64::try_from(ip.to_bits() >> 64).unwrap_or(u64::MAX),
            },
        }
    }

    /// Returns all prefixes in which an address is counted, narrowest first.
    fn all(ip: IpAddr) -> SmallVec<[Self; 3]> {
        let own = Self::of(ip);
        let mut all = SmallVec::from_slice(&[own]);
        if own.kind == Kind::V6By64 {
            for (kind, shorter) in [(Kind::V6By56, 8), (Kind::V6By48, 16)] {
                let bits = own.bits >> shorter;
                all.push(Self { kind, bits });
            }
        }
        all
    }
}

pub(super) struct Failures {
    /// Length and limit of each window, for one address.
    windows: Vec<(u64, u64)>,
    widest: u64,
    factor_56: u64,
    factor_48: u64,
    past: u64,
    prefixes: HashMap<Prefix, Count>,
    /// All prefixes, least recently used first.
    by_touch: BTreeMap<u64, Prefix>,
    touches: u64,
    now: u64,
}

/// The counts of one prefix.
struct Count {
    /// One for each window.
    failures: Recorders,
    /// The lookups that were admitted after its failures were used up.
    past: Option<Box<Recorders>>,
    failed_at: u64,
    touch: u64,
}

impl Failures {
    pub(super) fn new(settings: &LookupBudget) -> Self {
        let quotas = settings.failures.as_ref();
        let quotas = quotas.map_or(&[][..], |quotas| quotas.as_slice());
        let window = |quota: &crate::quota::Quota| (nanos(quota.window()), quota.limit());
        let windows: Vec<_> = quotas.iter().map(window).collect();
        let widest = windows.iter().map(|(length, _)| *length).max();
        Self {
            widest: widest.unwrap_or(0).max(MINUTE),
            windows,
            factor_56: settings.factor_56.max(1).into(),
            factor_48: settings.factor_48.max(1).into(),
            past: settings.per_second_past_failures.into(),
            prefixes: HashMap::new(),
            by_touch: BTreeMap::new(),
            touches: 0,
            now: 0,
        }
    }

    fn factor(&self, prefix: Prefix) -> u64 {
        match prefix.kind {
            Kind::V4 | Kind::V6By64 => 1,
            Kind::V6By56 => self.factor_56,
            Kind::V6By48 => self.factor_48,
        }
    }

    /// Returns the current time, which never decreases.
    fn at(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    /// Returns how long until a prefix may fail again; 0 if it may now.
    fn wait_of(&mut self, prefix: Prefix, now: u64) -> u64 {
        let factor = self.factor(prefix);
        let Some(count) = self.prefixes.get_mut(&prefix) else {
            return 0;
        };
        let windows = self.windows.iter();
        let windows = windows.map(|(length, limit)| (*length, limit.saturating_mul(factor)));
        count.failures.wait(windows, now, 1)
    }

    /// Returns how long until a prefix that has used up its failures may look up another key; 0 if
    /// it may now.
    fn wait_past(&mut self, prefix: Prefix, now: u64) -> u64 {
        let most = self.past;
        match self.prefixes.get_mut(&prefix).map(|count| &mut count.past) {
            _ if most == 0 => u64::MAX,
            Some(Some(past)) => past.wait([(SECOND, most)], now, 1),
            _ => 0,
        }
    }

    /// Returns how long until all prefixes of the client may fail again.
    pub(super) fn exhausted(&mut self, client: IpAddr, now: u64) -> Option<Duration> {
        let now = self.at(now);
        let prefixes = Prefix::all(client).into_iter();
        positive(prefixes.map(|prefix| self.wait_of(prefix, now)).max())
    }

    /// Returns how long until the client may look up an unknown key, including lookups past its
    /// failures.
    pub(super) fn wait(&mut self, client: IpAddr, now: u64) -> Option<Duration> {
        let now = self.at(now);
        let prefixes = Prefix::all(client).into_iter();
        let waits = prefixes.map(|prefix| match self.wait_of(prefix, now) {
            0 => 0,
            wait => wait.min(self.wait_past(prefix, now)),
        });
        positive(waits.max())
    }

    /// Admits a lookup of an unknown key, or returns how long the client must wait.
    pub(super) fn admit(&mut self, client: IpAddr, now: u64) -> Result<(), Duration> {
        if let Some(wait) = self.wait(client, now) {
            return Err(wait);
        }
        let (now, most) = (self.now, self.past);
        for prefix in Prefix::all(client) {
            if self.wait_of(prefix, now) == 0 {
                continue;
            }
            if let Some(count) = self.prefixes.get_mut(&prefix) {
                let new = || Box::new(Recorders::of([(SECOND, most)]));
                let past = count.past.get_or_insert_with(new);
                past.remember(&[(SECOND, 0)], now, 1);
            }
            self.touch(prefix);
        }
        Ok(())
    }

    /// Counts a failure.
    pub(super) fn record(&mut self, client: IpAddr, now: u64) {
        let now = self.at(now);
        for prefix in Prefix::all(client) {
            self.evict_for(prefix, now);
            let windows = &self.windows;
            let count = self.prefixes.entry(prefix).or_insert_with(|| Count {
                // By their times at first: most prefixes fail only once.
                failures: Recorders::of(windows.iter().map(|(length, _)| (*length, 1))),
                past: None,
                failed_at: now,
                touch: u64::MAX,
            });
            count.failed_at = now;
            let windows = windows.iter().copied();
            count.failures.wait(windows.clone(), now, 0);
            count.failures.remember(&windows, now, 1);
            self.touch(prefix);
        }
    }

    /// Returns whether an address has failed within the last minute, or one of its prefixes has
    /// used up its failures.
    pub(super) fn is_suspect(&mut self, client: IpAddr, now: u64) -> bool {
        let now = self.at(now);
        let own = self.prefixes.get(&Prefix::of(client));
        own.is_some_and(|own| now.saturating_sub(own.failed_at) < MINUTE)
            || self.exhausted(client, now).is_some()
    }

    fn touch(&mut self, prefix: Prefix) {
        if let Some(count) = self.prefixes.get_mut(&prefix) {
            self.by_touch.remove(&count.touch);
            self.touches += 1;
            count.touch = self.touches;
            self.by_touch.insert(count.touch, prefix);
        }
    }

    /// Evicts up to two prefixes: those that are past and, at the cap, the least recently used one.
    fn evict_for(&mut self, newcomer: Prefix, now: u64) {
        for _ in 0..2 {
            let full =
                self.prefixes.len() >= MOST_PREFIXES && !self.prefixes.contains_key(&newcomer);
            let Some(oldest) = self.by_touch.first_entry() else {
                return;
            };
            let idle_since = self
                .prefixes
                .get(oldest.get())
                .map_or(0, |count| count.failed_at);
            let past =
                now.saturating_sub(idle_since) > self.widest.saturating_add(self.widest / 256);
            if !full && !past {
                return;
            }
            self.prefixes.remove(&oldest.remove());
        }
    }
}

fn positive(wait: Option<u64>) -> Option<Duration> {
    wait.filter(|wait| *wait > 0).map(Duration::from_nanos)
}
