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
const INLINE: usize = 4;

/// The states of windows: the first few inline, or all of them in a list.
#[derive(Clone)]
struct Windows {
    inline: [WindowState; INLINE],
    count: u8,
    #[expect(
        clippy::box_collection,
        reason = "a decision is copied often, and seldom has a list"
    )]
    all: Option<Box<Vec<WindowState>>>,
}

impl Windows {
    #[inline]
    const fn new() -> Self {
        const UNUSED: WindowState = WindowState {
            reset: NONE_USED,
            remaining: 0,
            violated: false,
        };
        Self {
            inline: [UNUSED; INLINE],
            count: 0,
            all: None,
        }
    }

    #[inline]
    fn push(&mut self, state: WindowState) {
        match self.inline.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = state;
                self.count += 1;
            }
            // Not the state itself: as one piece, it would be written to memory first, and the
            // processor would wait before it reads that as one piece.
            None => self.push_beyond(state.reset, state.remaining, state.violated),
        }
    }

    #[cold]
    fn push_beyond(&mut self, reset: u64, remaining: u32, violated: bool) {
        let inline = self.inline;
        let state = WindowState {
            reset,
            remaining,
            violated,
        };
        let all = self.all.get_or_insert_with(|| Box::new(inline.into()));
        all.push(state);
    }

    #[inline]
    fn as_slice(&self) -> &[WindowState] {
        match &self.all {
            Some(all) => all,
            None => self.inline.get(..self.count.into()).unwrap_or_default(),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowState {
    /// In nanoseconds; [`NONE_USED`] if no units are used.
    reset: u64,
    remaining: u32,
    violated: bool,
}

const NONE_USED: u64 = u64::MAX;

impl WindowState {
    /// Creates the state of a window that did not refuse the request: the number of units left, and
    /// the time until the first used units are available again; `None` if none are used.
    #[must_use]
    pub fn new(remaining: u64, reset: Option<Duration>) -> Self {
        let nanos = |reset: Duration| u64::try_from(reset.as_nanos()).unwrap_or(NONE_USED - 1);
        Self {
            reset: reset.map_or(NONE_USED, nanos),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            violated: false,
        }
    }

    /// Like [`new`](Self::new), in nanoseconds.
    #[inline]
    pub(super) fn of_nanos(remaining: u64, reset: Option<u64>) -> Self {
        Self {
            reset: reset.unwrap_or(NONE_USED),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            violated: false,
        }
    }

    /// Marks the window as one that refused the request.
    #[must_use]
    pub const fn violated(mut self) -> Self {
        self.violated = true;
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
        match self.reset {
            NONE_USED => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Returns whether this window refused the request.
    #[must_use]
    pub const fn is_violated(&self) -> bool {
        self.violated
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
