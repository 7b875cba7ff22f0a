//! `rate_limit_config`: a key's windows, each as `requests_per_<name>`.
//!
//! `minute` and `hour` are always known. Other windows are those that the key or the default has:
//! they are shown, they stay if they are not named, and their number may be changed, but not their
//! length.

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

/// The windows that every key may have, whatever the default is.
const USUAL: [(&str, Duration); 2] = [
    ("minute", Duration::from_secs(60)),
    ("hour", Duration::from_secs(3600)),
];

/// A number of requests in a window.
#[derive(Serialize, ToSchema)]
#[schema(minimum = 1, maximum = 4_294_967_295_u64)]
pub(crate) struct Limit(u64);

/// The same, or `null` for the default's.
#[derive(Serialize, ToSchema)]
#[schema(minimum = 1, maximum = 4_294_967_295_u64)]
struct LimitOrNull(Option<u64>);

/// Windows by their names. A window that is left out stays as it is, in a new key as by default;
/// `null` restores the default's number. More than the default is refused (403), unless the service
/// allows it. Other windows are those that the key or the default has, as `requests_per_` and the
/// name.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "describes what `Windows` reads")]
pub(crate) struct RateLimitRequest {
    requests_per_minute: Option<Limit>,
    requests_per_hour: Option<Limit>,
    #[serde(flatten)]
    others: BTreeMap<String, LimitOrNull>,
}

/// The windows of a request: a number, or `null` for the default's.
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
    /// The quotas of a key that has `own` ones now. A window that is not named stays as it is, and
    /// `null` restores the default's. `None` where the key has none of its own, and so follows the
    /// default.
    pub(crate) fn merged_into(
        &self,
        own: Option<&Quotas>,
        default: &Quotas,
    ) -> Result<Option<Quotas>, Fault> {
        if self.0.is_empty() {
            return Ok(own.cloned());
        }
        let invalid = |error: ParseError| Fault::invalid("rate_limit_config", error);
        let mut quotas = own.unwrap_or(default).as_slice().to_vec();
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
                        .ok_or_else(|| Fault::invalid("body", unknown(&member(name))))?;
                    Some(Quota::new(name, *limit, window).map_err(invalid)?)
                }
            };
            match (place, new) {
                (Some(place), Some(new)) => quotas[place] = new,
                (Some(place), None) => drop(quotas.remove(place)),
                (None, Some(new)) => quotas.push(new),
                (None, None) if always_known(name).is_some() => {}
                (None, None) => return Err(Fault::invalid("body", unknown(&member(name)))),
            }
        }
        let restored = self.0.iter().any(|(_, limit)| limit.is_none());
        if quotas.is_empty() || (restored && quotas == default.as_slice()) {
            return Ok(None);
        }
        Quotas::new(quotas).map(Some).map_err(invalid)
    }
}

/// Every window of a key, as `requests_per_` and its name: its own, or the default's. `null` if this
/// window does not limit the key.
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
    pub(crate) fn of(quotas: &Quotas) -> Self {
        let limit = |quota: &Quota| Limit(quota.limit());
        let usual = |name| find(quotas, name).map(limit);
        let others = quotas.as_slice().iter();
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

fn member(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn find<'q>(quotas: &'q Quotas, name: &str) -> Option<&'q Quota> {
    quotas.as_slice().iter().find(|quota| quota.name() == name)
}

fn always_known(name: &str) -> Option<Duration> {
    let found = USUAL.iter().find(|(known, _)| *known == name);
    found.map(|(_, window)| *window)
}

fn unknown(member: &str) -> String {
    let member: String = member.chars().take(60).collect();
    format!("unknown field `{member}` of rate_limit_config")
}
