//! How many look-ups of unknown keys a client may cause.

use std::time::Duration;

use crate::quota::{Quota, Quotas};

/// The limits on look-ups of keys that are not known on this node: by how often a client's keys
/// turned out to be nobody's, and by how many look-ups are in flight.
///
/// A key is known while it is in the cache, however stale the entry is. Known keys are never
/// refused because of these limits, and take nothing from them. A store that answers at once is
/// asked first, whatever a client has failed; only keys that it does not have are refused.
///
/// Clients are told apart by their address: IPv4 addresses, and the /64 of IPv6 addresses. Requests
/// without a client address are bound by [`in_flight`](Self::in_flight) alone.
///
/// ```
/// use portunus::limit::LookupBudget;
///
/// let mut budget = LookupBudget::default();
/// budget.in_flight = 128;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LookupBudget {
    /// How many look-ups of an IPv4 address or an IPv6 /64 may find nothing: 100 a minute by
    /// default, `None` for any number. An answer that the cache gives counts as a look-up.
    pub failures: Option<Quotas>,
    /// How many times as many the addresses of an IPv6 /56 may cause together; 4 by default.
    pub factor_56: u32,
    /// How many times as many the addresses of an IPv6 /48 may cause together; 16 by default.
    pub factor_48: u32,
    /// How many look-ups a second the addresses of a prefix share once it has used up its
    /// [`failures`](Self::failures), whether they find anything or not; 4 by default. Requests
    /// beyond are refused with 429 `TOO_MANY_FAILURES`. With 0, all of them are.
    pub per_second_past_failures: u32,
    /// How many look-ups may be in flight at once; 64 by default, at least 1.
    pub in_flight: usize,
    /// How many of one address may be in flight at once; 16 by default, at least 1.
    pub in_flight_per_address: usize,
    /// How many of the look-ups in flight are reserved for addresses without a failure in the last
    /// minute; 16 by default, and always less than [`in_flight`](Self::in_flight).
    pub reserved: usize,
    /// How long a request waits for its turn, in the order of arrival, before it is refused with
    /// 503 and `Retry-After: 1`; one second by default.
    pub longest_wait: Duration,
}

impl Default for LookupBudget {
    fn default() -> Self {
        let per_minute = Quota::per_minute(100).and_then(|quota| Quotas::new([quota]));
        Self {
            failures: per_minute.ok(),
            factor_56: 4,
            factor_48: 16,
            per_second_past_failures: 4,
            in_flight: 64,
            in_flight_per_address: 16,
            reserved: 16,
            longest_wait: Duration::from_secs(1),
        }
    }
}
