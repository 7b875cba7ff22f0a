//! Response fields that tell callers how their quotas stand
//! (draft-ietf-httpapi-ratelimit-headers-10).

use std::fmt::Write;

use super::{Decision, WindowState};
use crate::quota::Quota;

/// Which fields answers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LimitFields {
    /// `RateLimit-Policy` and `RateLimit`.
    #[default]
    Standard,
    /// Those, and `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) of the window that is
    /// nearest to refusing.
    WithLegacy,
    /// None.
    Off,
}

impl LimitFields {
    /// Calls `add` with each field, name in lower case.
    pub(crate) fn each(self, decision: &Decision, add: &mut dyn FnMut(&'static str, String)) {
        if self == Self::Off || decision.buckets().next().is_none() {
            return;
        }
        let mut policy = String::with_capacity(48);
        let mut state = String::with_capacity(48);
        for (quotas, windows) in decision.buckets() {
            let between = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, "{between}{quotas}");
            for (quota, window) in quotas.as_slice().iter().zip(windows) {
                let between = if state.is_empty() { "" } else { ", " };
                let _ = write!(
                    state,
                    "{between}\"{}\";r={}",
                    quota.name(),
                    window.remaining
                );
                if let Some(reset) = told_reset(quota, window) {
                    let _ = write!(state, ";t={reset}");
                }
            }
        }
        add("ratelimit-policy", policy);
        add("ratelimit", state);
        if self == Self::WithLegacy
            && let Some((quota, window)) = nearest(decision)
        {
            add("x-ratelimit-limit", quota.limit().to_string());
            add("x-ratelimit-remaining", window.remaining.to_string());
            add(
                "x-ratelimit-reset",
                told_reset(quota, window).unwrap_or(0).to_string(),
            );
        }
    }
}

/// When the first units come back, in whole seconds: at most the window's length, as clients
/// expect. A window keeps a little longer than its length, by a slot and a tick of the clock;
/// `Retry-After` tells the whole wait.
fn told_reset(quota: &Quota, window: &WindowState) -> Option<u64> {
    let reset = window.reset?.min(quota.window());
    Some(whole_seconds(reset))
}

/// The window with the smallest share left.
fn nearest(decision: &Decision) -> Option<(&Quota, &WindowState)> {
    let windows = decision
        .buckets()
        .flat_map(|(quotas, windows)| quotas.as_slice().iter().zip(windows));
    windows.min_by(|(a, x), (b, y)| {
        let share = |window: &WindowState, other: &Quota| {
            u128::from(window.remaining) * u128::from(other.limit())
        };
        share(x, b).cmp(&share(y, a))
    })
}

/// Whole seconds, never early.
pub(crate) fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
