//! Validation and arithmetic of times, and removal of duplicates from lists.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{Duration, SystemTime};

use super::ManageError;
use crate::key::{Delegation, MAX_TIME};

/// The bounds of a time, as the end of an error message.
pub(super) const BOUNDS: &str =
    "must be between 1970-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z";

/// Returns the latest supported time.
pub(super) fn latest() -> SystemTime {
    SystemTime::UNIX_EPOCH + MAX_TIME
}

/// Truncates a time to milliseconds and checks that every store can represent it.
pub(super) fn check_time(field: &'static str, at: SystemTime) -> Result<SystemTime, ManageError> {
    let at = to_the_millisecond(at);
    if (SystemTime::UNIX_EPOCH..=latest()).contains(&at) {
        Ok(at)
    } else {
        Err(ManageError::invalid(field, BOUNDS))
    }
}

/// Adds a duration to a time and truncates it to milliseconds; `None` beyond the latest time.
pub(super) fn later(at: SystemTime, by: Duration) -> Option<SystemTime> {
    let end = at.checked_add(by).map(to_the_millisecond)?;
    (end <= latest()).then_some(end)
}

pub(super) fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    at - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000))
}

/// Checks that a key's start is before its expiry.
pub(super) fn check_order(
    not_before: Option<SystemTime>,
    expires_at: Option<SystemTime>,
) -> Result<(), ManageError> {
    match (not_before, expires_at) {
        (Some(start), Some(end)) if start >= end => Err(ManageError::invalid(
            "not_before",
            "must be before expires_at",
        )),
        _ => Ok(()),
    }
}

/// Removes duplicates and keeps the order.
pub(super) fn once<T: Clone + Eq + Hash>(values: &mut Vec<T>) {
    let mut seen = HashSet::new();
    values.retain(|value| seen.insert(value.clone()));
}

/// Removes duplicates from the scopes of a delegation.
pub(super) fn once_in(delegation: &mut Delegation) {
    if let Delegation::Only(scopes) = delegation {
        once(scopes);
    }
}
