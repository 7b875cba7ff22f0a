//! The budget for lookups of unknown keys.

use std::time::Duration;

use crate::quota::{Quota, Quotas};

/// The limits on lookups of keys that are not known on this node: on failed lookups per client, and
/// on lookups in flight.
///
/// A key is known while it is in the cache, however stale the entry is. Known keys are never
/// refused because of these limits, and do not count towards them. A store that answers without
/// waiting is queried regardless of a client's failures; only keys that it does not have are
/// refused.
///
/// Clients are identified by address: the IPv4 address, or the /64 of an IPv6 address. Requests
/// without a client address are subject to [`in_flight`](Self::in_flight) only.
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
    /// The maximum number of failed lookups per IPv4 address or IPv6 /64: 100 per minute by
    /// default; `None` for no limit. A result from the cache counts as a lookup.
    pub failures: Option<Quotas>,
    /// The failures that the addresses of an IPv6 /56 may cause together, as a multiple of
    /// [`failures`](Self::failures); 4 by default.
    pub factor_56: u32,
    /// The failures that the addresses of an IPv6 /48 may cause together, as a multiple of
    /// [`failures`](Self::failures); 16 by default.
    pub factor_48: u32,
    /// The lookups per second, successful or not, that the addresses of a prefix share once it has
    /// used up its [`failures`](Self::failures); 4 by default. Further requests are refused with
    /// 429 `TOO_MANY_FAILURES`. With 0, all of them are.
    pub per_second_past_failures: u32,
    /// The maximum number of lookups in flight; 64 by default, at least 1.
    pub in_flight: usize,
    /// The maximum number of lookups in flight per address; 16 by default, at least 1.
    pub in_flight_per_address: usize,
    /// The number of lookups in flight that are reserved for addresses without a failure in the
    /// last minute; 16 by default, and always less than [`in_flight`](Self::in_flight).
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
