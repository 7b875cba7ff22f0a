//! Response fields that report the state of quotas (draft-ietf-httpapi-ratelimit-headers-10).

use std::fmt::Write;

use super::{LimitReport, WindowState};
use crate::quota::Quota;

/// The rate-limit fields that responses carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LimitFields {
    /// `RateLimit-Policy` and `RateLimit`.
    #[default]
    Standard,
    /// `RateLimit-Policy`, `RateLimit`, and `X-RateLimit-Limit`, `-Remaining` and `-Reset`
    /// (seconds) of the window with the smallest share left.
    WithLegacy,
    /// No fields.
    Off,
}

impl LimitFields {
    /// Calls `add` with each field; names are in lower case.
    pub(crate) fn each(self, report: &LimitReport, add: &mut dyn FnMut(&'static str, String)) {
        if self == Self::Off || report.quotas().next().is_none() {
            return;
        }
        let mut state = String::with_capacity(48);
        for (quota, window) in report.quotas() {
            let between = if state.is_empty() { "" } else { ", " };
            let (name, remaining) = (quota.name(), window.remaining());
            let _ = write!(state, "{between}\"{name}\";r={remaining}");
            if let Some(reset) = reset_seconds(quota, window) {
                let _ = write!(state, ";t={reset}");
            }
        }
        add("ratelimit-policy", report.policy_field());
        add("ratelimit", state);
        if self == Self::WithLegacy
            && let Some((quota, window)) = nearest(report)
        {
            add("x-ratelimit-limit", quota.limit().to_string());
            add("x-ratelimit-remaining", window.remaining().to_string());
            add(
                "x-ratelimit-reset",
                reset_seconds(quota, window).unwrap_or(0).to_string(),
            );
        }
    }
}

/// Returns the time until the first units are available again, in whole seconds, but at most the
/// window's length, as clients expect. A unit can be counted longer than that, by a slot and a tick
/// of the clock; `Retry-After` has the full wait.
fn reset_seconds(quota: &Quota, window: &WindowState) -> Option<u64> {
    let reset = window.reset()?.min(quota.window());
    Some(whole_seconds(reset))
}

/// Returns the window with the smallest share left.
fn nearest(report: &LimitReport) -> Option<(&Quota, &WindowState)> {
    report.quotas().min_by(|(a, x), (b, y)| {
        let share = |window: &WindowState, other: &Quota| {
            u128::from(window.remaining()) * u128::from(other.limit())
        };
        share(x, b).cmp(&share(y, a))
    })
}

/// Converts to whole seconds, rounded up.
pub(crate) fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
