//! `rate_limit_config`: a key's windows, each as `requests_per_<name>`.
//!
//! `minute` and `hour` are always accepted. Other windows are accepted if the key or the default
//! has them. A window that is not named is left unchanged. The limit of a window can be changed,
//! but not its length.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use portunus::error::ParseError;
use portunus::quota::{Quota, Quotas};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::Fault;
use crate::body::Whole;

/// The prefix of the name of a window.
const PREFIX: &str = "requests_per_";

/// Maximum number of members of a request; a key has fewer windows.
const MAX_WINDOWS: usize = 64;

/// The windows that every key can have, independently of the default.
const USUAL: [(&str, Duration); 2] = [
    ("minute", Duration::from_secs(60)),
    ("hour", Duration::from_secs(3600)),
];

/// Maximum number of requests in a window.
#[derive(Serialize, ToSchema)]
#[schema(minimum = 1, maximum = 4_294_967_295_u64)]
pub(crate) struct Limit(u64);

/// Maximum number of requests in a window, or `null` for the default.
#[derive(Serialize, ToSchema)]
#[schema(minimum = 1, maximum = 4_294_967_295_u64)]
pub(crate) struct LimitOrNull(Option<u64>);

/// Rate limits by window. An omitted window is left unchanged (in a new key: the default); `null`
/// restores the default. A limit above the default is refused (403) unless the service allows it.
/// Windows other than minute and hour are those of the key or the default, as `requests_per_`
/// followed by the name.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what `Windows` reads")]
pub(crate) struct RateLimitRequest {
    requests_per_minute: Option<Limit>,
    requests_per_hour: Option<Limit>,
    #[serde(flatten)]
    others: BTreeMap<String, LimitOrNull>,
}

/// Rate limits of an existing key, which may have its own windows. Rules as in `RateLimitRequest`.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what `Windows` reads")]
pub(crate) struct RateLimitChange {
    requests_per_minute: Option<Limit>,
    requests_per_hour: Option<Limit>,
    #[serde(flatten)]
    others: BTreeMap<String, LimitOrNull>,
}

/// The windows of a request, each with a limit, or `None` for the default.
#[derive(Clone)]
pub(crate) struct Windows(Vec<(String, Option<u64>)>);

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Windows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Windows, A::Error> {
                let mut windows: Vec<(String, _)> = Vec::new();
                while let Some(member) = map.next_key::<String>()? {
                    // Each name is compared with those before it.
                    if windows.len() == MAX_WINDOWS {
                        let why = format!("rate_limit_config: at most {MAX_WINDOWS} members");
                        return Err(A::Error::custom(why));
                    }
                    let name = member
                        .strip_prefix(PREFIX)
                        .ok_or_else(|| A::Error::custom(unknown(&member)))?;
                    if windows.iter().any(|(known, _)| known == name) {
                        return Err(A::Error::custom(format!("duplicate field `{member}`")));
                    }
                    let limit = map.next_value::<Option<Whole>>()?;
                    windows.push((name.to_owned(), limit.map(|Whole(limit)| limit)));
                }
                Ok(Windows(windows))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Windows {
    /// Windows with their limits, as a form has them.
    #[cfg(feature = "dashboard")]
    pub(crate) const fn of(limits: Vec<(String, Option<u64>)>) -> Self {
        Self(limits)
    }

    /// Returns the new quotas of a key whose current own quotas are `own`. A window that is not
    /// named is left unchanged, and `null` restores the default (that of the key's plan; `None` if it
    /// sets no limit). Returns `None` if the key then has no quotas of its own and follows the
    /// default.
    pub(crate) fn merged_into(
        &self,
        own: Option<&Quotas>,
        default: Option<&Quotas>,
    ) -> Result<Option<Quotas>, Fault> {
        if self.0.is_empty() {
            return Ok(own.cloned());
        }
        let invalid = |error: ParseError| Fault::invalid("rate_limit_config", error);
        let default = default.map_or(&[][..], Quotas::as_slice);
        let mut quotas = own.map_or(default, Quotas::as_slice).to_vec();
        for (name, limit) in &self.0 {
            let place = quotas.iter().position(|quota| quota.name() == name);
            let usual = find(default, name).cloned();
            let new = match limit {
                None => usual,
                Some(limit) => {
                    let known = place.map(|place| quotas[place].window());
                    let known = known.or_else(|| usual.as_ref().map(Quota::window));
                    let window = known
                        .or_else(|| always_known(name))
                        .ok_or_else(|| Fault::malformed("body", unknown(&member(name))))?;
                    Some(Quota::new(name, *limit, window).map_err(invalid)?)
                }
            };
            match (place, new) {
                (Some(place), Some(new)) => quotas[place] = new,
                (Some(place), None) => drop(quotas.remove(place)),
                (None, Some(new)) => quotas.push(new),
                (None, None) if always_known(name).is_some() => {}
                (None, None) => return Err(Fault::malformed("body", unknown(&member(name)))),
            }
        }
        let restored = self.0.iter().any(|(_, limit)| limit.is_none());
        if quotas.is_empty() || (restored && quotas == default) {
            return Ok(None);
        }
        Quotas::new(quotas).map(Some).map_err(invalid)
    }
}

/// The effective rate limits of a key, as `requests_per_` followed by the window's name: its own,
/// or those of its plan. `null` if the window does not limit the key.
#[derive(Serialize, ToSchema)]
pub(crate) struct RateLimits {
    #[schema(required)]
    requests_per_minute: Option<Limit>,
    #[schema(required)]
    requests_per_hour: Option<Limit>,
    #[serde(flatten)]
    others: BTreeMap<String, Limit>,
}

impl RateLimits {
    pub(crate) fn of(quotas: Option<&Quotas>) -> Self {
        let quotas = quotas.map_or(&[][..], Quotas::as_slice);
        let limit = |quota: &Quota| Limit(quota.limit());
        let usual = |name| find(quotas, name).map(limit);
        let others = quotas.iter();
        let others = others.filter(|quota| always_known(quota.name()).is_none());
        Self {
            requests_per_minute: usual("minute"),
            requests_per_hour: usual("hour"),
            others: others
                .map(|quota| (member(quota.name()), limit(quota)))
                .collect(),
        }
    }
}

pub(crate) fn member(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn find<'q>(quotas: &'q [Quota], name: &str) -> Option<&'q Quota> {
    quotas.iter().find(|quota| quota.name() == name)
}

/// A limit that applies to requests with a key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy<'q> {
    /// The name in `RateLimit-Policy`: `minute` counts the key, `tenant-minute` its tenant,
    /// `reports-minute` the key's requests of class `reports`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    name: &'q str,
    /// Maximum number of units in the window.
    #[schema(minimum = 1, maximum = 4_294_967_295_u64)]
    limit: u64,
    /// Length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
}

impl<'q> Policy<'q> {
    pub(crate) fn of(quota: &'q Quota) -> Self {
        let window = quota.window();
        Self {
            name: quota.name(),
            limit: quota.limit(),
            window_seconds: window.as_secs() + u64::from(window.subsec_nanos() > 0),
        }
    }
}

fn always_known(name: &str) -> Option<Duration> {
    let found = USUAL.iter().find(|(known, _)| *known == name);
    found.map(|(_, window)| *window)
}

fn unknown(member: &str) -> String {
    let member: String = member.chars().take(60).collect();
    format!("unknown field `{member}` of rate_limit_config")
}
