//! Response fields that report the state of quotas (draft-ietf-httpapi-ratelimit-headers-10).

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use super::{LimitState, WindowState};
use crate::lock::Mutex;
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
    pub(crate) fn each(self, state: LimitState<'_>, add: &mut dyn FnMut(&'static str, Value<'_>)) {
        let credits = state.credits;
        if self == Self::Off || (state.decision.windows().is_empty() && credits.is_none()) {
            return;
        }
        let mut field = Field::new();
        match state.kept_policies().filter(|_| credits.is_none()) {
            Some(kept) => add("ratelimit-policy", Value::Kept(kept)),
            None => {
                state.write_policies(&mut field);
                add("ratelimit-policy", field.value());
                field.clear();
            }
        }
        let mut between = "\"";
        for (quota, window) in state.quotas() {
            field.push(between);
            field.push(quota.name());
            field.push("\";r=");
            field.push_number(window.remaining());
            if let Some(reset) = reset_seconds(quota, window) {
                field.push(";t=");
                field.push_number(reset);
            }
            between = ", \"";
        }
        if let Some(credits) = credits {
            field.push(between);
            field.push("credits\";r=");
            field.push_number(credits.left);
            if let Some(refills) = credits.refills_in {
                field.push(";t=");
                field.push_number(whole_seconds(refills));
            }
        }
        add("ratelimit", field.value());
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
                field.push_number(number);
                add(name, field.value());
            }
        }
    }
}

/// The credits of a request, for response fields. They have no window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CreditState {
    /// The units of all grants, in a period if there are periods.
    pub(crate) granted: u64,
    pub(crate) left: u64,
    /// The time until a period refills.
    pub(crate) refills_in: Option<std::time::Duration>,
}

/// The value of a response field: visible ASCII characters and spaces.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Kept(&'static Kept),
    Written(&'a [u8]),
}

impl Value<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(kept) => kept.text.as_bytes(),
            Self::Written(bytes) => bytes,
        }
    }
}

/// A value that is kept for the life of the process, so that a response need not copy it.
#[cfg_attr(
    not(any(feature = "actix-web", feature = "tower")),
    allow(dead_code, unreachable_pub, reason = "adapters use it")
)]
pub struct Kept {
    pub(super) text: &'static str,
    /// As a value of the first framework that used it, which has checked each byte.
    native: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Kept {
    /// Returns the value as one of a framework.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn native<T: Clone + Send + Sync + 'static>(
        &self,
        make: impl Fn(&'static str) -> T,
    ) -> T {
        let native = self.native.get_or_init(|| Box::new(make(self.text)));
        let known = native.downcast_ref::<T>();
        known.map_or_else(|| make(self.text), T::clone)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// The maximum number of texts that are kept, and the length of one.
const MOST_KEPT: usize = 1000;
const LONGEST_KEPT: usize = 512;

/// Keeps the value of a field for the life of the process, once. `None` if it is long or many
/// others are kept already.
pub(super) fn kept(text: &str) -> Option<&'static Kept> {
    static KEPT: Mutex<Option<HashMap<&'static str, &'static Kept>>> = Mutex::new(None);
    let mut texts = KEPT.lock();
    let texts = texts.get_or_insert_default();
    if let Some(kept) = texts.get(text) {
        return Some(kept);
    }
    let is_value = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.len() > LONGEST_KEPT || texts.len() >= MOST_KEPT || !is_value {
        return None;
    }
    let text: &'static str = Box::leak(text.into());
    let native = OnceLock::new();
    let kept = Box::leak(Box::new(Kept { text, native }));
    Some(texts.entry(text).or_insert(kept))
}

/// A value while it is written. The usual one needs no allocation.
pub(super) struct Field {
    inline: [u8; INLINE],
    used: usize,
    /// The whole value, once it is longer.
    long: Vec<u8>,
}

const INLINE: usize = 128;

impl Field {
    const fn new() -> Self {
        Self {
            inline: [0; INLINE],
            used: 0,
            long: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.long.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, text: &str) {
        let end = self.used + text.len();
        match self.inline.get_mut(self.used..end) {
            Some(place) if self.long.is_empty() => {
                place.copy_from_slice(text.as_bytes());
                self.used = end;
            }
            _ => self.push_long(text),
        }
    }

    #[cold]
    fn push_long(&mut self, text: &str) {
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.inline[..self.used]);
        }
        self.long.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(super) fn push_number(&mut self, number: u64) {
        self.push(itoa::Buffer::new().format(number));
    }

    fn value(&self) -> Value<'_> {
        Value::Written(match self.long.as_slice() {
            [] => &self.inline[..self.used],
            long => long,
        })
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
