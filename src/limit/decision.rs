//! The decision of a limiter, and the state of all windows after it.

use std::time::Duration;

use smallvec::SmallVec;

use crate::quota::Quotas;

/// The decision about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a decision has no effect until it is checked"]
pub struct Decision {
    retry_after: Option<Duration>,
    buckets: SmallVec<[(Quotas, WindowStates); 1]>,
}

type WindowStates = SmallVec<[WindowState; 3]>;

/// The state of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowState {
    /// The number of units left.
    pub remaining: u64,
    /// The time until the first units are available again; `None` if none are used.
    pub reset: Option<Duration>,
    /// Whether this window refused the request.
    pub violated: bool,
}

impl WindowState {
    /// Creates the state of a window that did not refuse the request.
    #[must_use]
    pub const fn new(remaining: u64, reset: Option<Duration>) -> Self {
        Self {
            remaining,
            reset,
            violated: false,
        }
    }

    /// Marks the window as one that refused the request.
    #[must_use]
    pub const fn violated(mut self) -> Self {
        self.violated = true;
        self
    }
}

impl Decision {
    /// Creates a decision that admits the request.
    pub fn admitted() -> Self {
        Self {
            retry_after: None,
            buckets: SmallVec::new(),
        }
    }

    /// Creates a decision that refuses the request. A lone retry passes after exactly this time.
    pub fn refused(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            buckets: SmallVec::new(),
        }
    }

    /// Adds the windows of a bucket: one state per quota, in the order of the quotas.
    pub fn with_bucket(
        mut self,
        quotas: &Quotas,
        windows: impl IntoIterator<Item = WindowState>,
    ) -> Self {
        self.buckets
            .push((quotas.clone(), windows.into_iter().collect()));
        self
    }

    /// Returns whether the request is admitted.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.retry_after.is_none()
    }

    /// Returns how long a lone retry must wait; `None` if the request is admitted.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the quotas and windows of each bucket, in the order of the request.
    pub fn buckets(&self) -> impl Iterator<Item = (&Quotas, &[WindowState])> {
        self.buckets
            .iter()
            .map(|(quotas, windows)| (quotas, windows.as_slice()))
    }

    /// Returns the names of the quotas that refused the request.
    #[must_use]
    pub fn violated(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (quotas, windows) in &self.buckets {
            for (quota, window) in quotas.as_slice().iter().zip(windows) {
                if window.violated {
                    names.push(quota.name());
                }
            }
        }
        names
    }
}
