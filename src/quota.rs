//! Quotas: named limits of at most N units in every interval of length W.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::{ParseError, start};

/// The maximum window, and the maximum number of units in one.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
const MOST_UNITS: u64 = u32::MAX as u64;
/// The maximum number of quotas of one bucket.
const MOST_QUOTAS: usize = 16;

/// At most `limit` units in every interval of length `window`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub struct Quota {
    name: Arc<str>,
    limit: u64,
    /// In nanoseconds.
    window: u64,
}

/// The stored form of a quota.
#[derive(Clone, Serialize, Deserialize)]
struct Plain {
    name: String,
    limit: u64,
    window_ns: u64,
}

/// Creates the error for an invalid quota or list of quotas.
fn refused(why: String) -> ParseError {
    ParseError::new("quota", why)
}

impl Quota {
    /// Creates a quota. The name appears in response fields: 1 to 32 lower-case letters, digits,
    /// `-` and `_`.
    ///
    /// # Errors
    /// Returns an error if the limit is 0 or over 2³²-1, if the window is under a second or over
    /// 400 days, or if the name has another form.
    pub fn new(name: &str, limit: u64, window: Duration) -> Result<Self, ParseError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if name.is_empty() || name.len() > 32 || !name.bytes().all(fits) {
            let name = start(name, 40);
            return Err(refused(format!(
                "a quota's name must be 1 to 32 characters of a-z 0-9 - _, not {name:?}"
            )));
        }
        if limit == 0 || limit > MOST_UNITS {
            return Err(refused(format!(
                "a quota must be 1 to {MOST_UNITS} units, not {limit}"
            )));
        }
        if window < Duration::from_secs(1) || window > LONGEST {
            return Err(refused(format!(
                "a window must be 1 second to 400 days, not {window:?}"
            )));
        }
        Ok(Self {
            name: name.into(),
            limit,
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// Creates a quota per minute, named `minute`.
    ///
    /// # Errors
    /// Returns an error if the limit is 0 or over 2³²-1.
    pub fn per_minute(limit: u64) -> Result<Self, ParseError> {
        Self::new("minute", limit, Duration::from_secs(60))
    }

    /// Creates a quota per hour, named `hour`.
    ///
    /// # Errors
    /// Returns an error if the limit is 0 or over 2³²-1.
    pub fn per_hour(limit: u64) -> Result<Self, ParseError> {
        Self::new("hour", limit, Duration::from_secs(3600))
    }

    /// Returns the same quota under a longer name, for response fields.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self {
            name: name.into(),
            ..self.clone()
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of units.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the length of the window.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// Returns the length of the window in nanoseconds.
    #[inline]
    pub(crate) const fn nanos(&self) -> u64 {
        self.window
    }
}

impl TryFrom<Plain> for Quota {
    type Error = ParseError;
    fn try_from(plain: Plain) -> Result<Self, ParseError> {
        Self::new(
            &plain.name,
            plain.limit,
            Duration::from_nanos(plain.window_ns),
        )
    }
}

impl From<Quota> for Plain {
    fn from(quota: Quota) -> Self {
        Self {
            name: quota.name.as_ref().into(),
            limit: quota.limit,
            window_ns: quota.window,
        }
    }
}

/// The quotas of a bucket, all of which must admit a request. Clones share the list.
///
/// ```
/// use portunus::quota::{Quota, Quotas};
///
/// let quotas = Quotas::new([Quota::per_minute(60)?, Quota::per_hour(1000)?])?;
/// assert_eq!(quotas, Quotas::default());
/// assert_eq!(quotas.to_string(), r#""minute";q=60;w=60, "hour";q=1000;w=3600"#);
/// # Ok::<(), portunus::error::ParseError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<Quota>", into = "Vec<Quota>")]
pub struct Quotas(Arc<[Quota]>);

impl Quotas {
    /// Creates a list of quotas, in the order in which response fields show them.
    ///
    /// # Errors
    /// Returns an error if there are no quotas, more than 16, or two with the same name.
    pub fn new(quotas: impl IntoIterator<Item = Quota>) -> Result<Self, ParseError> {
        let quotas: Vec<Quota> = quotas.into_iter().take(MOST_QUOTAS + 1).collect();
        let twice = quotas
            .iter()
            .enumerate()
            .any(|(at, quota)| quotas[..at].iter().any(|q| q.name == quota.name));
        if quotas.is_empty() || quotas.len() > MOST_QUOTAS || twice {
            return Err(refused(format!(
                "a bucket must have 1 to {MOST_QUOTAS} quotas with distinct names"
            )));
        }
        Ok(Self(quotas.into()))
    }

    /// Returns the quotas in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Quota] {
        &self.0
    }

    /// Returns these quotas limited by others: in no window do they allow more.
    pub(crate) fn within(&self, ceiling: &Self) -> Self {
        let all = || self.0.iter().chain(ceiling.0.iter());
        let limited = |quota: &Quota| {
            let as_long = |of: &&Quota| of.window >= quota.window;
            let limits = ceiling.0.iter().filter(as_long).map(|of| of.limit);
            // A name of the ceiling's with another window: responses need another one.
            let alike = |of: &Quota| of.name == quota.name && of.window != quota.window;
            let mut name = quota.name.to_string();
            if ceiling.0.iter().any(alike) {
                while all().any(|of| *of.name == *name) {
                    name.insert_str(0, "key-");
                }
            }
            Quota {
                limit: limits.fold(quota.limit, u64::min),
                ..quota.renamed(&name)
            }
        };
        let own: Vec<_> = self.0.iter().map(limited).collect();
        // The ceiling's quotas that none of these implies.
        let is_implied = |of: &&Quota| {
            let implies = |own: &Quota| own.window >= of.window && own.limit <= of.limit;
            own.iter().any(implies)
        };
        let needed = ceiling.0.iter().filter(|of| !is_implied(of)).cloned();
        Self(needed.chain(own.iter().cloned()).collect())
    }

    /// Returns the share of one of this many nodes: a part of each quota, but enough for a request of
    /// this cost if the quota is.
    pub(crate) fn share(&self, nodes: NonZeroU32, cost: u64) -> Self {
        let share = |quota: &Quota| Quota {
            limit: (quota.limit / u64::from(nodes.get()))
                .max(cost)
                .clamp(1, quota.limit),
            ..quota.clone()
        };
        Self(self.0.iter().map(share).collect())
    }

    /// Returns whether both are the same list, not only equal: a fast check for the hot path.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the smallest limit among the quotas.
    pub(crate) fn least(&self) -> u64 {
        self.0.iter().map(|quota| quota.limit).min().unwrap_or(0)
    }
}

/// 60 units per minute and 1000 per hour.
impl Default for Quotas {
    fn default() -> Self {
        let quota = |name: &str, limit, seconds: u64| Quota {
            name: name.into(),
            limit,
            window: seconds * 1_000_000_000,
        };
        Self([quota("minute", 60, 60), quota("hour", 1000, 3600)].into())
    }
}

impl PartialEq for Quotas {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0 == other.0
    }
}
impl Eq for Quotas {}

impl Hash for Quotas {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl TryFrom<Vec<Quota>> for Quotas {
    type Error = ParseError;
    fn try_from(quotas: Vec<Quota>) -> Result<Self, ParseError> {
        Self::new(quotas)
    }
}

impl From<Quotas> for Vec<Quota> {
    fn from(quotas: Quotas) -> Self {
        quotas.0.to_vec()
    }
}

/// Formats the value of a `RateLimit-Policy` field (draft-ietf-httpapi-ratelimit-headers-10).
impl fmt::Display for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, quota) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { ", " };
            // A window that is not a whole number of seconds is rounded up.
            let seconds = quota.window.div_ceil(1_000_000_000);
            write!(
                f,
                "{between}\"{}\";q={};w={seconds}",
                quota.name, quota.limit
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quotas({self})")
    }
}
