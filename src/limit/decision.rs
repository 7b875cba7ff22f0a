//! What a limiter decided, and how all windows stand after it.

use std::time::Duration;

use smallvec::SmallVec;

use crate::quota::Quotas;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a decision that is not looked at limits nothing"]
pub struct Decision {
    retry_after: Option<Duration>,
    buckets: SmallVec<[(Quotas, WindowStates); 1]>,
}

type WindowStates = SmallVec<[WindowState; 3]>;

/// How one window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowState {
    /// How many units are left.
    pub remaining: u64,
    /// How long until the first units come back; `None` where all are there.
    pub reset: Option<Duration>,
    /// Whether it refused the request.
    pub violated: bool,
}

impl WindowState {
    /// A window that did not refuse.
    #[must_use]
    pub const fn new(remaining: u64, reset: Option<Duration>) -> Self {
        Self {
            remaining,
            reset,
            violated: false,
        }
    }

    /// The same window, as one that refused.
    #[must_use]
    pub const fn violated(mut self) -> Self {
        self.violated = true;
        self
    }
}

impl Decision {
    /// The request passes.
    pub fn admitted() -> Self {
        Self {
            retry_after: None,
            buckets: SmallVec::new(),
        }
    }

    /// The request does not pass; a lone retry passes after exactly this time.
    pub fn refused(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            buckets: SmallVec::new(),
        }
    }

    /// The decision with how the windows of a bucket stand, one for each of its quotas, in their
    /// order.
    pub fn with_bucket(
        mut self,
        quotas: &Quotas,
        windows: impl IntoIterator<Item = WindowState>,
    ) -> Self {
        self.buckets
            .push((quotas.clone(), windows.into_iter().collect()));
        self
    }

    /// Whether the request passes.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        self.retry_after.is_none()
    }

    /// How long a lone retry must wait; `None` for a request that passes.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The quotas and windows of each bucket, in the request's order.
    pub fn buckets(&self) -> impl Iterator<Item = (&Quotas, &[WindowState])> {
        self.buckets
            .iter()
            .map(|(quotas, windows)| (quotas, windows.as_slice()))
    }

    /// The names of the quotas that refused.
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
