//! What an authenticator compiles from a record.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use super::{CompiledSettings, Rare, StoredKey, UsageCell};
use crate::clock::millis;
use crate::credit::Purse;
use crate::key::KeyRecord;
use crate::limit::{LimiterSlot, PlanLimits};

/// What an authenticator compiles from a key record, shared by all requests until the record changes.
/// It is small: what keys have in common is in one place for all of them, and what few keys have is
/// elsewhere in memory.
pub(crate) struct KeyEntry {
    /// When nothing about the key itself refuses it, in milliseconds since the Unix epoch; empty if
    /// something does at all times.
    pub(crate) valid: Range<u64>,
    settings: Arc<CompiledSettings>,
    pub(crate) record: Arc<KeyRecord>,
    /// Of the first bucket that counts the key; see [`slot`](Self::slot).
    pub(super) first_slot: LimiterSlot,
    pub(super) rare: OnceLock<Box<Rare>>,
    /// Pays for the requests, if they cost credits.
    pub(crate) purse: Option<Arc<Purse>>,
    pub(crate) usage: UsageCell,
}

impl KeyEntry {
    /// Creates the entry of a key, with a number of slots for the limiter.
    pub(crate) fn new(
        record: &Arc<KeyRecord>,
        settings: Arc<CompiledSettings>,
        purse: Option<Arc<Purse>>,
        slots: usize,
    ) -> Self {
        let usable = record.revoked.is_none() && record.enabled && record.needs().is_none();
        // Rounded inwards. The last milliseconds are decided by the exact clock anyway.
        let from = record.not_before.map_or(0, |from| millis(from) + 1);
        let until = record.expires_at.map_or(u64::MAX, millis);
        Self {
            valid: if usable { from..until } else { 0..0 },
            settings,
            record: Arc::clone(record),
            first_slot: LimiterSlot::new(),
            rare: Rare::with_slots(slots.saturating_sub(1)),
            purse,
            usage: UsageCell::default(),
        }
    }

    /// Returns the place of the same key for another authenticator.
    pub(super) fn next(&self) -> &OnceLock<Arc<StoredKey>> {
        &self.rare().next
    }

    /// Returns the limits of requests, unless those of the tenant's plan apply.
    pub(crate) fn limits(&self) -> &PlanLimits {
        match &self.plan {
            Some(plan) => plan,
            None => PlanLimits::none(),
        }
    }
}

impl Deref for KeyEntry {
    type Target = CompiledSettings;
    #[inline]
    fn deref(&self) -> &CompiledSettings {
        &self.settings
    }
}

impl fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEntry")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}
