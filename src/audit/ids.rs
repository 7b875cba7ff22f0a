//! Ids of events and requests that are unique across processes: 64 random bits and a counter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rand::TryRng;

pub(super) struct Ids {
    process: u64,
    count: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 8];
        // This provides uniqueness, not secrecy. Without system randomness, keys cannot be issued
        // either, but the service must still start.
        let random = rand::rngs::SysRng.try_fill_bytes(&mut bytes).is_ok();
        let clock = || {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_nanos()
        };
        let process = if random {
            u64::from_le_bytes(bytes)
        } else {
            u64::try_from(clock()).unwrap_or_default()
        };
        Self {
            process,
            count: AtomicU64::new(1),
        }
    }

    pub(super) fn next(&self) -> u128 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        u128::from(self.process) << 64 | u128::from(count)
    }
}
