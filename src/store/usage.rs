//! Usage of a key: totals and counts by the hour.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::key::KeyId;

/// How often a key was used in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HourOfUse {
    /// The start of the hour, a whole number of hours since the Unix epoch.
    pub start: SystemTime,
    /// The number of uses.
    pub count: u64,
}

impl HourOfUse {
    /// The length of an hour.
    pub const LENGTH: Duration = Duration::from_secs(3600);

    /// Creates an hour with its count.
    #[must_use]
    pub fn new(start: SystemTime, count: u64) -> Self {
        Self { start, count }
    }

    /// Returns the start of the hour that contains an instant.
    #[must_use]
    pub fn start_of(at: SystemTime) -> SystemTime {
        let seconds = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds - seconds % Self::LENGTH.as_secs())
    }
}

/// How often a key was used, by the hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsageByHour {
    /// The hours in which the key was used, oldest first.
    pub hours: Vec<HourOfUse>,
    /// Names of unreadable rows that were omitted, in the form of
    /// [`StoreError::corrupt`](super::StoreError::corrupt).
    #[serde(skip)]
    pub corrupt: Vec<String>,
}

impl UsageByHour {
    /// Creates a list of hours without unreadable rows.
    #[must_use]
    pub fn new(hours: Vec<HourOfUse>) -> Self {
        let corrupt = Vec::new();
        Self { hours, corrupt }
    }

    /// Adds new uses to the hour of the last of them.
    pub fn add(&mut self, delta: &UsageDelta) {
        let start = HourOfUse::start_of(delta.last_used_at);
        match self.hours.binary_search_by_key(&start, |hour| hour.start) {
            Ok(at) => {
                let count = &mut self.hours[at].count;
                *count = count.saturating_add(delta.count);
            }
            Err(at) => self.hours.insert(at, HourOfUse::new(start, delta.count)),
        }
    }

    /// Returns the hours from the one that contains `from` to the last that starts before `to`.
    #[must_use]
    pub fn between(&self, from: SystemTime, to: SystemTime) -> Self {
        let from = HourOfUse::start_of(from);
        let within = |hour: &&HourOfUse| hour.start >= from && hour.start < to;
        Self::new(self.hours.iter().filter(within).copied().collect())
    }

    /// Removes the hours that ended before this instant, and returns their number.
    pub fn forget_before(&mut self, before: SystemTime) -> u64 {
        let known = self.hours.len();
        self.hours
            .retain(|hour| hour.start + HourOfUse::LENGTH >= before);
        (known - self.hours.len()) as u64
    }
}

/// Recorded usage of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// The time of the last use.
    pub last_used_at: Option<SystemTime>,
    /// The client address of the last use, if known.
    pub last_ip: Option<IpAddr>,
    /// The number of uses.
    pub count: u64,
}

impl Usage {
    /// Adds new uses. The time of the last use never moves back. The address is replaced only by
    /// the known address of a use that is not older than the last one.
    pub fn add(&mut self, delta: &UsageDelta) {
        self.add_uses(delta.count, delta.last_used_at, delta.last_ip);
    }

    /// The same, without the key.
    pub(crate) fn add_uses(&mut self, count: u64, last: SystemTime, ip: Option<IpAddr>) {
        self.count = self.count.saturating_add(count);
        if self.last_used_at.is_none_or(|known| known <= last) {
            self.last_used_at = Some(last);
            self.last_ip = ip.or(self.last_ip);
        }
    }
}

/// Usage of one key since the last time that it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsageDelta {
    /// The key.
    pub id: KeyId,
    /// The number of uses.
    pub count: u64,
    /// The time of the last use.
    pub last_used_at: SystemTime,
    /// The client address of the last use, if known.
    pub last_ip: Option<IpAddr>,
}

impl UsageDelta {
    /// Creates a delta.
    #[must_use]
    pub fn new(id: KeyId, count: u64, last_used_at: SystemTime, last_ip: Option<IpAddr>) -> Self {
        Self {
            id,
            count,
            last_used_at,
            last_ip,
        }
    }
}
