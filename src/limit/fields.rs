//! Response fields that report the state of quotas (draft-ietf-httpapi-ratelimit-headers-10).

use smallvec::SmallVec;

use super::{LimitState, WindowState};
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
    pub(crate) fn each(self, state: LimitState<'_>, add: &mut dyn FnMut(&'static str, &[u8])) {
        if self == Self::Off || state.decision.windows().is_empty() {
            return;
        }
        let mut field = Field::new();
        state.write_policies(&mut field);
        add("ratelimit-policy", &field);
        field.clear();
        for (quota, window) in state.quotas() {
            let between: &[u8] = if field.is_empty() { b"\"" } else { b", \"" };
            field.extend_from_slice(between);
            field.extend_from_slice(quota.name().as_bytes());
            field.extend_from_slice(b"\";r=");
            write_number(&mut field, window.remaining());
            if let Some(reset) = reset_seconds(quota, window) {
                field.extend_from_slice(b";t=");
                write_number(&mut field, reset);
            }
        }
        add("ratelimit", &field);
        if self == Self::WithLegacy
            && let Some((quota, window)) = nearest(state)
        {
            let reset = reset_seconds(quota, window).unwrap_or(0);
            for (name, number) in [
                ("x-ratelimit-limit", quota.limit()),
                ("x-ratelimit-remaining", window.remaining()),
                ("x-ratelimit-reset", reset),
            ] {
                field.clear();
                write_number(&mut field, number);
                add(name, &field);
            }
        }
    }
}

/// The value of a field. The usual one needs no memory of its own.
pub(super) type Field = SmallVec<[u8; 128]>;

fn write_number(field: &mut Field, number: u64) {
    field.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Returns the time until the first units are available again, in whole seconds, but at most the
/// window's length, as clients expect. A unit can be counted longer than that, by a slot and a tick
/// of the clock; `Retry-After` has the full wait.
fn reset_seconds(quota: &Quota, window: &WindowState) -> Option<u64> {
    let reset = window.reset()?.min(quota.window());
    Some(whole_seconds(reset))
}

/// Returns the window with the smallest share left.
fn nearest(state: LimitState<'_>) -> Option<(&Quota, &WindowState)> {
    state.quotas().min_by(|(a, x), (b, y)| {
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
