//! How much a key is used: in all, and by the hour.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::key::KeyId;

/// How often a key was used in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HourOfUse {
    /// When the hour began: whole hours since the epoch.
    pub start: SystemTime,
    /// How often.
    pub count: u64,
}

impl HourOfUse {
    /// The length of an hour.
    pub const LENGTH: Duration = Duration::from_secs(3600);

    /// An hour with its count.
    #[must_use]
    pub fn new(start: SystemTime, count: u64) -> Self {
        Self { start, count }
    }

    /// When the hour of an instant began.
    #[must_use]
    pub fn start_of(at: SystemTime) -> SystemTime {
        let seconds = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds - seconds % Self::LENGTH.as_secs())
    }
}

/// How often a key was used, hour by hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsageByHour {
    /// The hours in which it was used, the oldest first.
    pub hours: Vec<HourOfUse>,
    /// The rows that cannot be read and were left out, as
    /// [`StoreError::corrupt`](super::StoreError::corrupt) names them.
    #[serde(skip)]
    pub corrupt: Vec<String>,
}

impl UsageByHour {
    /// Hours, all of which could be read.
    #[must_use]
    pub fn new(hours: Vec<HourOfUse>) -> Self {
        let corrupt = Vec::new();
        Self { hours, corrupt }
    }

    /// Adds what was counted since, to the hour of its last use.
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

    /// The hours from the one of `from` to before `to`.
    #[must_use]
    pub fn between(&self, from: SystemTime, to: SystemTime) -> Self {
        let from = HourOfUse::start_of(from);
        let within = |hour: &&HourOfUse| hour.start >= from && hour.start < to;
        Self::new(self.hours.iter().filter(within).copied().collect())
    }

    /// Forgets the hours that ended before this instant; returns how many.
    pub fn forget_before(&mut self, before: SystemTime) -> u64 {
        let known = self.hours.len();
        self.hours
            .retain(|hour| hour.start + HourOfUse::LENGTH >= before);
        (known - self.hours.len()) as u64
    }
}

/// How a key has been used, as far as it has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// The last time.
    pub last_used_at: Option<SystemTime>,
    /// The client's address then, where it was known.
    pub last_ip: Option<IpAddr>,
    /// How often.
    pub count: u64,
}

impl Usage {
    /// Adds what was counted since. Times never move back.
    pub fn add(&mut self, delta: &UsageDelta) {
        self.count = self.count.saturating_add(delta.count);
        if self
            .last_used_at
            .is_none_or(|last| last <= delta.last_used_at)
        {
            self.last_used_at = Some(delta.last_used_at);
            self.last_ip = delta.last_ip.or(self.last_ip);
        }
    }
}

/// Usage of one key since it was last recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UsageDelta {
    /// Which key.
    pub id: KeyId,
    /// How often it was used.
    pub count: u64,
    /// The last time.
    pub last_used_at: SystemTime,
    /// The client's address then, where it was known.
    pub last_ip: Option<IpAddr>,
}

impl UsageDelta {
    /// Usage to record.
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
