//! The counter of a key's uses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime};

/// How often an address that is being written is read at most. The store then keeps the former one.
const MOST_READS: u32 = 100;

/// The uses of one key that nobody has taken yet. Small, because each entry has one.
#[derive(Default)]
pub(crate) struct UsageCell {
    count: AtomicU32,
    /// For the address, which is read whole, although it is written without a lock: odd while it is
    /// being written; 0 before the first.
    version: AtomicU32,
    /// The last address, as an IPv6 address.
    halves: [AtomicU64; 2],
    /// Time of the last counted use, in milliseconds since the Unix epoch; 0 before the first. Taking
    /// the uses leaves it unchanged.
    last_used: AtomicU64,
}

impl UsageCell {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
    fn set_address(&self, ip: IpAddr) {
        let ipv6 = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let bits = ipv6.to_bits();
        let halves = [(bits >> 64) as u64, bits as u64];
        let version = self.version.load(Ordering::Relaxed);
        // A thread that finds another one writing skips the address.
        if (halves == self.halves() && version > 0) || version % 2 == 1 {
            return;
        }
        let (relaxed, acquire) = (Ordering::Relaxed, Ordering::Acquire);
        let turn = self
            .version
            .compare_exchange(version, version + 1, acquire, relaxed);
        if turn.is_ok() {
            // A reader that sees one of the halves sees the odd version, too.
            fence(Ordering::Release);
            for (place, half) in self.halves.iter().zip(halves) {
                place.store(half, relaxed);
            }
            let written = version.wrapping_add(2).max(2);
            self.version.store(written, Ordering::Release);
        }
    }

    fn halves(&self) -> [u64; 2] {
        [0, 1].map(|half: usize| self.halves[half].load(Ordering::Relaxed))
    }

    /// Returns the address; `None` before the first, and while it is being written.
    fn address(&self) -> Option<IpAddr> {
        let version = self.version.load(Ordering::Acquire);
        let [high, low] = self.halves();
        fence(Ordering::Acquire);
        let is_whole = version > 0
            && version.is_multiple_of(2)
            && self.version.load(Ordering::Relaxed) == version;
        let bits = u128::from(high) << 64 | u128::from(low);
        is_whole.then(|| IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical())
    }

    /// Counts one use at this time, in milliseconds since the Unix epoch. Returns how many had not been
    /// taken before it.
    #[inline]
    pub(crate) fn count(&self, now: u64, ip: Option<IpAddr>) -> u32 {
        // The time is stored first, so that a thread that sees the count sees a time that belongs
        // to it. It is the time of the last counted use, not the latest time: a wrong time from a
        // clock that was ahead lasts only until the next use, unless it is taken before.
        if self.last_used.load(Ordering::Relaxed) != now {
            self.last_used.store(now, Ordering::Relaxed);
        }
        let before = self.count.fetch_add(1, Ordering::Release);
        if let Some(ip) = ip {
            self.set_address(ip);
        }
        before
    }

    /// Returns whether there are uses that nobody has taken.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Takes the uses: their number, and the time and the address of the last one.
    pub(crate) fn take(&self) -> (u32, SystemTime, Option<IpAddr>) {
        let count = self.count.swap(0, Ordering::Acquire);
        let ip = (0..MOST_READS).find_map(|_| self.address());
        let last = Duration::from_millis(self.last_used.load(Ordering::Relaxed));
        (count, SystemTime::UNIX_EPOCH + last, ip)
    }
}

impl fmt::Debug for UsageCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageCell")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_address_of_the_last_use_is_never_made_of_two() {
        let addresses: [IpAddr; 4] = [
            "::".parse().unwrap(),
            "192.0.2.1".parse().unwrap(),
            "2001:db8:1:1:1:1:1:1".parse().unwrap(),
            "2001:db8:2:2:2:2:2:2".parse().unwrap(),
        ];
        let last = UsageCell::default();
        assert_eq!(last.address(), None);
        for address in addresses {
            last.set_address(address);
            assert_eq!(last.address(), Some(address));
        }
        let writing = AtomicU32::new(2);
        let seen: HashSet<_> = std::thread::scope(|scope| {
            for part in addresses.chunks(2) {
                let (last, writing) = (&last, &writing);
                scope.spawn(move || {
                    (0..100_000).for_each(|turn| last.set_address(part[turn % 2]));
                    writing.fetch_sub(1, Ordering::Release);
                });
            }
            let go_on = std::iter::from_fn(|| {
                (writing.load(Ordering::Acquire) > 0).then(|| last.address())
            });
            go_on.flatten().collect()
        });
        assert!(seen.iter().all(|seen| addresses.contains(seen)), "{seen:?}");
        assert!(addresses.contains(&last.address().unwrap()));
    }
}
