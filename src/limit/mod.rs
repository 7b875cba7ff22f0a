//! How many requests a key may make: quotas, the limiter trait, and the strict in-process limiter.
//!
//! A quota of N per W admits at most N in **every** interval of length W, not only in
//! calendar-aligned ones. A request is admitted by all windows or by none, and a refusal changes
//! nothing.
//!
//! The usual algorithms admit more. A burst of sixty, then a flood:
//!
//! | algorithm | admitted in under 60 s | in 60 s, both ends included |
//! |---|---|---|
//! | fixed window of 60 per minute | 120 | 120 |
//! | GCRA with burst 60 (as in `governor`) | 119 | 120 |
//! | [`LocalLimiter`] | 60 | 60 |
//!
//! The test `tests/limits_beside_gcra.rs` counts the last two rows.

mod cell;
mod decision;
mod fields;
mod local;
mod lookups;
mod window;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

pub use decision::{Decision, WindowState};
pub use fields::LimitFields;
pub(crate) use fields::whole_seconds;
pub use local::{LocalLimiter, LocalLimiterBuilder};
pub use lookups::LookupBudget;
pub(crate) use window::{Recorder, nanos};

use crate::key::{KeyFamily, TenantId};
use crate::pointer::to_the_pointee;
use crate::quota::Quotas;
use crate::text::{ParseError, start};

/// Decides whether a request may pass.
///
/// # What an implementation promises
/// - For every interval of length W, both ends included, at most N units are admitted, for each
///   quota of each bucket.
/// - A request is admitted by all quotas of all buckets or by none; a refusal changes no count.
/// - [`Decision::retry_after`] is how long a lone retry must wait, exactly.
/// - Buckets are apart: nothing that happens to one is seen in another.
///
/// `Arc` and `Box` of a limiter are limiters.
#[async_trait]
pub trait RateLimiter: fmt::Debug + Send + Sync + 'static {
    /// Admits or refuses a request.
    ///
    /// # Errors
    /// Where the limiter gives no answer; then the mode that the host chose decides ([`OnOutage`]).
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError>;

    /// The same for limiters that can answer without waiting; `None` (the default) says that this
    /// one must be awaited.
    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        let _ = request;
        None
    }

    /// Frees what it keeps for buckets that are idle. It is called about twice a minute and must not
    /// wait; a limiter that keeps nothing in this process has nothing to do, which is the default.
    fn sweep(&self) {}
}

/// One request, as a limiter sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LimitRequest<'a> {
    /// The buckets it is counted in, each with its quotas: one of each kind at most, in the order
    /// of [`BucketId`].
    pub buckets: &'a [LimitBucket<'a>],
    /// How many units it takes, 1 or more.
    pub cost: u64,
}

impl<'a> LimitRequest<'a> {
    /// A request of this cost.
    #[must_use]
    pub const fn new(buckets: &'a [LimitBucket<'a>], cost: u64) -> Self {
        Self { buckets, cost }
    }
}

/// A bucket with the quotas that hold for it now.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LimitBucket<'a> {
    /// Which bucket.
    pub id: BucketId<'a>,
    /// Its quotas. They may differ from the last time; what was admitted then still counts.
    pub quotas: &'a Quotas,
    /// Where an in-process limiter may keep a pointer to its cell.
    pub slot: Option<&'a LimiterSlot>,
}

impl<'a> LimitBucket<'a> {
    /// A bucket without a slot.
    #[must_use]
    pub const fn new(id: BucketId<'a>, quotas: &'a Quotas) -> Self {
        Self {
            id,
            quotas,
            slot: None,
        }
    }

    /// The same with a slot.
    #[must_use]
    pub const fn with_slot(mut self, slot: &'a LimiterSlot) -> Self {
        self.slot = Some(slot);
        self
    }
}

/// What requests are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BucketId<'a> {
    /// A key and its successors by rotation.
    Family(&'a KeyFamily),
    /// All keys of a tenant.
    Tenant(&'a TenantId),
    /// A name that the host chose.
    Custom(&'a str),
}

/// A place beside a cached key in which a limiter may keep a pointer to its cell, so that a request
/// needs no second look-up. It holds the pointer of one limiter, the first that filled it; others
/// look up.
#[derive(Default)]
pub struct LimiterSlot {
    filled: OnceLock<(u64, Arc<dyn Any + Send + Sync>)>,
}

impl LimiterSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            filled: OnceLock::new(),
        }
    }

    /// What the limiter with this number has put here.
    #[must_use]
    pub fn get<T: 'static>(&self, limiter: u64) -> Option<&T> {
        let (owner, value) = self.filled.get()?;
        if *owner == limiter {
            value.downcast_ref()
        } else {
            None
        }
    }

    /// Puts a pointer here, unless there is one. `limiter` is a number that no other limiter in the
    /// process uses.
    pub fn fill(&self, limiter: u64, value: Arc<dyn Any + Send + Sync>) {
        let _ = self.filled.set((limiter, value));
    }
}

impl fmt::Debug for LimiterSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimiterSlot(filled: {})", self.filled.get().is_some())
    }
}

/// Why a limiter did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimiterError {
    /// It cannot be reached.
    #[error("the rate limiter gave no answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It keeps as many live buckets as it may, and will not forget any of them.
    #[error("the rate limiter keeps {0} live buckets, the most that it may")]
    Full(usize),
    /// The request can never pass: it costs more than a quota admits at once, which is answered with
    /// 403 `FORBIDDEN`; or nothing, which is an error of the host's.
    #[error("a request of cost {cost} can never pass a quota of {limit}")]
    Cost {
        /// The cost.
        cost: u64,
        /// The quota.
        limit: u64,
    },
}

impl LimiterError {
    /// It gave no answer, and why.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// What happens to a request while the limiter gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOutage {
    /// It is counted in this process alone: the promise holds per process.
    #[default]
    Local,
    /// It is refused with 503 `LIMITER_UNAVAILABLE`.
    Closed,
    /// It passes uncounted.
    Open,
}

impl OnOutage {
    /// The name: `local`, `closed`, `open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for OnOutage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnOutage {
    type Err = ParseError;
    fn from_str(name: &str) -> Result<Self, ParseError> {
        let found = [Self::Local, Self::Closed, Self::Open]
            .into_iter()
            .find(|mode| mode.as_str() == name);
        found.ok_or_else(|| {
            let why = format!(
                "no mode {:?}: there are local, closed, open",
                start(name, 40)
            );
            ParseError::new("mode", why)
        })
    }
}

to_the_pointee! {
    RateLimiter {
        async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError>;
        fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>>;
        fn sweep(&self);
    }
}
