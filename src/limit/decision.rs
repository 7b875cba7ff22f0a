//! The decision of a limiter, and the state of all windows after it.

use std::fmt;
use std::time::Duration;

/// The decision about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a decision has no effect until it is checked"]
pub struct Decision {
    /// In nanoseconds; [`NEVER`] if the request is admitted.
    retry_after: u64,
    windows: Windows,
}

/// The `retry_after` of a request that is admitted.
const NEVER: u64 = u64::MAX;

/// The number of windows that need no memory of their own.
const INLINE: usize = 3;

/// The states of windows: a few inline, or more in a list. Small, because a decision is copied often.
#[derive(Clone)]
enum Windows {
    Few {
        count: u8,
        states: [WindowState; INLINE],
    },
    #[expect(clippy::box_collection, reason = "the list itself would be larger")]
    Many(Box<Vec<WindowState>>),
}

impl Windows {
    #[inline]
    const fn new() -> Self {
        let unused = WindowState::of_nanos(0, None);
        Self::Few {
            count: 0,
            states: [unused; INLINE],
        }
    }

    #[inline]
    fn push(&mut self, state: WindowState) {
        if let Self::Few { count, states } = self
            && let Some(place) = states.get_mut(usize::from(*count))
        {
            *place = state;
            *count += 1;
        } else {
            self.push_beyond(state);
        }
    }

    #[cold]
    fn push_beyond(&mut self, state: WindowState) {
        match self {
            Self::Few { states, .. } => {
                let all = states.iter().copied().chain([state]);
                *self = Self::Many(Box::new(all.collect()));
            }
            Self::Many(all) => all.push(state),
        }
    }

    #[inline]
    fn as_slice(&self) -> &[WindowState] {
        match self {
            Self::Few { count, states } => states.get(..usize::from(*count)).unwrap_or_default(),
            Self::Many(all) => all,
        }
    }
}

impl PartialEq for Windows {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for Windows {}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The state of one window.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WindowState {
    /// In nanoseconds; [`NONE_USED`] if no units are used. In halves, so that three states take 36
    /// bytes; the highest bit is [`VIOLATED`].
    reset: [u32; 2],
    remaining: u32,
}

const VIOLATED: u32 = 1 << 31;
const NONE_USED: u64 = u64::MAX >> 1;

impl WindowState {
    /// Creates the state of a window that did not refuse the request: the number of units left, and
    /// the time until the first used units are available again; `None` if none are used.
    #[must_use]
    pub fn new(remaining: u64, reset: Option<Duration>) -> Self {
        let nanos = |reset: Duration| u64::try_from(reset.as_nanos()).unwrap_or(u64::MAX);
        Self::of_nanos(remaining, reset.map(nanos))
    }

    /// Like [`new`](Self::new), in nanoseconds.
    #[inline]
    pub(super) const fn of_nanos(remaining: u64, reset: Option<u64>) -> Self {
        let reset = match reset {
            Some(reset) if reset < NONE_USED => reset,
            Some(_) => NONE_USED - 1,
            None => NONE_USED,
        };
        let most = u32::MAX as u64;
        let remaining = if remaining < most { remaining } else { most };
        Self {
            reset: [reset as u32, (reset >> 32) as u32],
            remaining: remaining as u32,
        }
    }

    /// Marks the window as one that refused the request.
    #[must_use]
    pub const fn violated(mut self) -> Self {
        self.reset[1] |= VIOLATED;
        self
    }

    /// Returns the number of units left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining as u64
    }

    /// Returns the time until the first used units are available again; `None` if none are used.
    #[must_use]
    pub const fn reset(&self) -> Option<Duration> {
        let high = self.reset[1] & !VIOLATED;
        match (high as u64) << 32 | self.reset[0] as u64 {
            NONE_USED => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns whether this window refused the request.
    #[must_use]
    pub const fn is_violated(&self) -> bool {
        self.reset[1] & VIOLATED != 0
    }
}

impl fmt::Debug for WindowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowState")
            .field("remaining", &self.remaining())
            .field("reset", &self.reset())
            .field("violated", &self.is_violated())
            .finish()
    }
}

impl Decision {
    /// Creates a decision that admits the request.
    pub fn admitted() -> Self {
        Self {
            retry_after: NEVER,
            windows: Windows::new(),
        }
    }

    /// Creates a decision that refuses the request. A lone retry passes after exactly this time.
    pub fn refused(retry_after: Duration) -> Self {
        Self {
            retry_after: u64::try_from(retry_after.as_nanos())
                .map_or(NEVER - 1, |at| at.min(NEVER - 1)),
            windows: Windows::new(),
        }
    }

    /// Adds the windows of a bucket: one state per quota, in the order of the quotas.
    pub fn with_windows(mut self, windows: impl IntoIterator<Item = WindowState>) -> Self {
        windows
            .into_iter()
            .for_each(|window| self.windows.push(window));
        self
    }

    #[inline]
    pub(super) fn push(&mut self, window: WindowState) {
        self.windows.push(window);
    }

    /// Returns whether the request is admitted.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.retry_after == NEVER
    }

    /// Returns how long a lone retry must wait; `None` if the request is admitted.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.retry_after {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns the state of each quota of each bucket, in the order of the request. Empty if nothing
    /// was counted.
    #[must_use]
    pub fn windows(&self) -> &[WindowState] {
        self.windows.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_window_is_what_it_was_made_of() {
        let (year, never) = (Duration::from_secs(365 * 24 * 60 * 60), Duration::MAX);
        let high = Duration::from_nanos(0x1234_5678_9abc_def0);
        for reset in [None, Some(Duration::ZERO), Some(year), Some(high)] {
            for remaining in [0, 1, u64::from(u32::MAX)] {
                let state = WindowState::new(remaining, reset);
                for (state, violated) in [(state, false), (state.violated(), true)] {
                    assert_eq!((state.remaining(), state.reset()), (remaining, reset));
                    assert_eq!(state.is_violated(), violated);
                }
            }
        }
        // What is more than fits is the most that does, and never "none used" or "violated".
        let most = WindowState::new(u64::MAX, Some(never));
        assert_eq!(most.remaining(), u64::from(u32::MAX));
        assert!(most.reset() > Some(100 * year) && !most.is_violated());
    }

    #[test]
    fn a_decision_has_its_windows_in_order_however_many() {
        for count in 0..=9 {
            let state = |left| WindowState::new(left, Some(Duration::from_secs(left)));
            let states: Vec<_> = (0..count).map(state).collect();
            let decision = Decision::admitted().with_windows(states.iter().copied());
            assert_eq!(decision.windows(), states);
            assert_eq!(decision, decision.clone());
            let more = decision.clone().with_windows([state(count)]);
            assert_eq!(
                (more.windows().len(), more == decision),
                (states.len() + 1, false)
            );
        }
    }
}
