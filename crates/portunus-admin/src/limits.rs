//! `rate_limit_config`: a key's windows, each as `requests_per_<name>`.
//!
//! `minute` and `hour` are always known. Other windows are those that the key or the default has:
//! they are shown, they stay where they are not named, and their number may be changed. Their
//! length may not.

use std::fmt;
use std::time::Duration;

use portunus::error::ParseError;
use portunus::quota::{Quota, Quotas};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::Fault;
use crate::body::Whole;

/// What stands before the name of a window.
const PREFIX: &str = "requests_per_";

/// The windows that every key may have, whatever the default is.
const USUAL: [(&str, Duration); 2] = [
    ("minute", Duration::from_secs(60)),
    ("hour", Duration::from_secs(3600)),
];

/// What a caller says of windows: a number, or `null` for the default's.
#[derive(Clone)]
pub(crate) struct RateLimitBody(Vec<(String, Option<u64>)>);

impl<'de> Deserialize<'de> for RateLimitBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Windows;
        impl<'de> Visitor<'de> for Windows {
            type Value = RateLimitBody;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RateLimitBody, A::Error> {
                let mut windows = Vec::new();
                while let Some(member) = map.next_key::<String>()? {
                    let name = member
                        .strip_prefix(PREFIX)
                        .ok_or_else(|| A::Error::custom(unknown(&member)))?;
                    let limit = map.next_value::<Option<Whole>>()?;
                    windows.push((name.to_owned(), limit.map(|Whole(limit)| limit)));
                }
                Ok(RateLimitBody(windows))
            }
        }
        deserializer.deserialize_map(Windows)
    }
}

impl RateLimitBody {
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

/// All windows of a key. The two usual ones are always there, as `null` where they limit nothing.
pub(crate) fn shown(quotas: &Quotas) -> Map<String, Value> {
    let usual = USUAL.map(|(name, _)| (member(name), find(quotas, name).map(Quota::limit).into()));
    let all = quotas.as_slice().iter();
    let all = all.map(|quota| (member(quota.name()), quota.limit().into()));
    // A member that is there already keeps its place.
    usual.into_iter().chain(all).collect()
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
