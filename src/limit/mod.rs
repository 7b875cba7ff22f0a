//! Rate limiting: the limiter trait and the strict in-process limiter.
//!
//! A quota of N per W admits at most N in **every** interval of length W, not only in
//! calendar-aligned ones. A request is admitted by all windows or by none, and a refusal changes no
//! count.
//!
//! Common algorithms admit more. For a burst of sixty requests followed by a flood:
//!
//! | algorithm | admitted in under 60 s | in 60 s, both ends included |
//! |---|---|---|
//! | fixed window of 60 per minute | 120 | 120 |
//! | GCRA with burst 60 (as in `governor`) | 119 | 120 |
//! | [`LocalLimiter`] | 60 | 60 |
//!
//! The test `limits_beside_gcra` of `portunus-integration-tests` verifies the last two rows.

mod bucket;
mod cell;
mod class;
mod compile;
mod decision;
mod entry;
mod fields;
mod kind;
mod local;
mod lookups;
mod overflow;
mod plan;
mod policy;
mod report;
mod ring;
mod table;
mod window;

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use async_trait::async_trait;

pub use bucket::{BucketId, LimitBucket, LimitRequest, LimiterSlot};
pub(crate) use class::{ClassRules, is_method};
pub use decision::{Decision, WindowState};
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) use fields::Kept;
pub use fields::LimitFields;
pub(crate) use fields::{CreditState, Value as FieldValue, whole_seconds};
pub use local::{LocalLimiter, LocalLimiterBuilder};
pub use lookups::LookupBudget;
pub(crate) use plan::Bound;
pub use plan::Plan;
pub use policy::{CountedBy, LimitPolicy};
pub use report::LimitReport;
pub(crate) use report::{LimitState, PolicySource};
pub(crate) use table::{Counter, LimitTable, Place, PlanLimits, Policy, Variant, counted_address};
pub(crate) use window::{Recorders, nanos};

use crate::pointer::to_the_pointee;
use crate::text::{ParseError, start};

/// Decides whether a request is within its quotas.
///
/// # Requirements for implementations
/// - In every interval of length W, both ends included, at most N units are admitted, for each
///   quota of each bucket.
/// - A request is admitted by all quotas of all buckets or by none; a refusal changes no count.
/// - [`Decision::retry_after`] is exactly how long a lone retry must wait.
/// - Buckets are independent of each other. Two of them are the same only if the kinds and all
///   bytes of their ids and their classes are equal.
/// - With [`overdraw`](LimitRequest::overdraw), all units count although they do not fit.
/// - A request is refused only if its units do not fit into a quota, even if requests are
///   concurrent. A unit never counts for less than W. While the quotas do not change, it counts for
///   at most W/256 and a millisecond longer; waits, remaining units and reset times agree with
///   this.
/// - A limiter with an injected [`Clock`](crate::Clock) uses its monotonic time, so that changes of
///   the wall clock have no effect.
///
/// It is also implemented for `Arc` and `Box` of a limiter.
#[async_trait]
pub trait RateLimiter: fmt::Debug + Send + Sync + 'static {
    /// Admits or refuses a request. The decision reports every window of every bucket, in the order
    /// of the request, as it is after the decision.
    ///
    /// # Errors
    /// Returns an error if the limiter does not answer; the host's [`OnOutage`] mode then decides.
    /// Returns [`LimiterError::Cost`] if the cost is 0, or exceeds a quota without
    /// [`overdraw`](LimitRequest::overdraw); no count changes then.
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError>;

    /// Reads the state of every window of every bucket as it is now, in the order of the request,
    /// and changes nothing: no count, no cell, no expiry, no quotas. A bucket that is not known has
    /// all units left, and no window is [violated](WindowState::is_violated). Cost and overdraft of
    /// the request have no effect.
    ///
    /// `None`, the default, means that this limiter cannot be read: operators then see the limits of a
    /// key without their state
    /// ([`KeyManager::limit_states`](crate::manage::KeyManager::limit_states)). Requests that are
    /// counted meanwhile may be in some of the windows and not in others.
    ///
    /// # Errors
    /// Returns an error if the limiter does not answer.
    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        let _ = request;
        Ok(None)
    }

    /// Admits or refuses a request without waiting. `None`, the default, means that
    /// [`acquire`](Self::acquire) must be awaited. Both methods count in the same buckets, and
    /// return the same errors.
    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        let _ = request;
        None
    }

    /// Returns whether buckets of keys, users and tenants, those of addresses and shared ones can be
    /// in one request. A limiter that keeps them on different servers returns `false`: a service
    /// with a request that needs two of the three kinds is then not built. `true` by default.
    fn counts_together(&self) -> bool {
        true
    }

    /// Frees the memory of idle buckets. It is called about three times a minute and must not block. The
    /// default does nothing, which is right for a limiter that keeps no state in this process.
    fn sweep(&self) {}
}

/// Error returned when a limiter does not decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimiterError {
    /// The limiter cannot be reached.
    #[error("the rate limiter did not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The limiter has the maximum number of live buckets, none of which it may evict.
    #[error("the rate limiter is full: it has {0} live buckets")]
    Full(usize),
    /// The request can never pass: its cost exceeds a quota, which is answered with 403
    /// `FORBIDDEN`, or is 0, which is a mistake of the host.
    #[error("a request of cost {cost} can never pass a quota of {limit}")]
    Cost {
        /// The cost.
        cost: u64,
        /// The quota.
        limit: u64,
    },
}

impl LimiterError {
    /// Creates an `Unavailable` error from its cause.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// How requests are handled while the limiter does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOutage {
    /// Requests are counted in this process only: quotas apply per process.
    #[default]
    Local,
    /// Requests are counted in this process only, with each quota divided by this number of
    /// processes, but at least 1 and enough for the request's cost.
    LocalShare(NonZeroU32),
    /// Requests are refused with 503 `LIMITER_UNAVAILABLE`.
    Closed,
    /// Requests pass uncounted.
    Open,
}

impl OnOutage {
    /// Returns the name: `local`, `closed` or `open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local | Self::LocalShare(_) => "local",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// Formats the name, and after it the number of processes: `local/4`.
impl fmt::Display for OnOutage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::LocalShare(nodes) => write!(f, "/{nodes}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for OnOutage {
    type Err = ParseError;
    fn from_str(name: &str) -> Result<Self, ParseError> {
        let share = || Some(Self::LocalShare(name.strip_prefix("local/")?.parse().ok()?));
        let found = [Self::Local, Self::Closed, Self::Open]
            .into_iter()
            .find(|mode| mode.as_str() == name);
        found.or_else(share).ok_or_else(|| {
            let why = format!(
                "unknown mode {:?}: expected local, local/NODES, closed or open",
                start(name, 40)
            );
            ParseError::new("mode", why)
        })
    }
}

to_the_pointee! {
    RateLimiter {
        async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError>;
        async fn peek(
            &self,
            request: &LimitRequest<'_>,
        ) -> Result<Option<Vec<WindowState>>, LimiterError>;
        fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>>;
        fn counts_together(&self) -> bool;
        fn sweep(&self);
    }
}
