//! A limiter's request as keys and arguments of the script, and its reply as a decision.
//!
//! The key of a bucket is `PREFIX:{TAG}:KIND:ID:CLASS`, where only what is in braces decides the
//! slot: the tenant of a key, a user or a tenant; the address; `shared`. In ids and classes, `%`,
//! `:` and braces are written as in a URL, so that no two buckets have one key and no id ends the
//! tag.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError, WindowState};
use portunus::quota::Quota;
use redis::Value;

/// The largest quota that is counted exactly, with the time of each request.
const MOST_EXACT: u64 = 64;
/// The number of slots of a window with a larger quota.
const SLOTS_PER_WINDOW: u64 = 256;
/// No quota is larger than this many units.
const MOST_UNITS: u64 = u32::MAX as u64;

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) args: Vec<Vec<u8>>,
}

impl Request {
    /// Prepares a request; `None` if it has no buckets.
    ///
    /// # Errors
    /// Returns an error if the cost can never pass, if a bucket is of an unknown kind or there
    /// twice, or if the buckets are not all in one slot of a cluster.
    pub(crate) fn new(
        request: &LimitRequest<'_>,
        prefix: &str,
        in_one_slot: bool,
    ) -> Result<Option<Self>, LimiterError> {
        let quotas = request
            .buckets
            .iter()
            .flat_map(|bucket| bucket.quotas.as_slice());
        let Some(least) = quotas.map(Quota::limit).min() else {
            return Ok(None);
        };
        let cost = request.cost;
        if cost == 0 || (cost > least && !request.overdraw) {
            return Err(LimiterError::Cost { cost, limit: least });
        }
        let (mut keys, mut tags) = (Vec::with_capacity(request.buckets.len()), Vec::new());
        for bucket in request.buckets {
            let tag = tag(request, bucket)
                .ok_or_else(|| LimiterError::unavailable("a bucket of an unknown kind"))?;
            let key = key(prefix, &tag, bucket);
            if keys.contains(&key) {
                return Err(LimiterError::unavailable("a bucket is there twice"));
            }
            keys.push(key);
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if in_one_slot && tags.len() > 1 {
            let why = "a cluster cannot count this request: its buckets belong to several of a \
                       tenant, an address and all requests";
            return Err(LimiterError::unavailable(why));
        }
        let mut args = vec![
            number(cost.min(MOST_UNITS)),
            number(u64::from(request.overdraw)),
        ];
        args.extend(
            request
                .buckets
                .iter()
                .map(|bucket| Windows::of(bucket).packed()),
        );
        Ok(Some(Self { keys, args }))
    }

    /// Logs a decision with the server's time.
    pub(crate) fn trace(&self, time: i64, admitted: bool) {
        let key = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
        let keys = || self.keys.iter().map(key).collect::<Vec<_>>().join(" ");
        tracing::trace!(time, admitted, keys = keys(), "decided");
    }
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The hash tag of a bucket; `None` for a kind of bucket that a newer version has.
fn tag(request: &LimitRequest<'_>, bucket: &LimitBucket<'_>) -> Option<String> {
    Some(match bucket.id {
        BucketId::Family(family) => match request.tenant {
            Some(tenant) => escaped(tenant.as_str()),
            None => escaped(family.as_str()),
        },
        BucketId::User(tenant, _) | BucketId::Tenant(tenant) => escaped(tenant.as_str()),
        BucketId::Address(ip) | BucketId::Anonymous(ip) => address(ip),
        BucketId::Shared | BucketId::AnonymousShared => "shared".to_owned(),
        // An empty tag would be none.
        BucketId::Custom(name) => format!("+{}", escaped(name)),
        _ => return None,
    })
}

fn key(prefix: &str, tag: &str, bucket: &LimitBucket<'_>) -> Vec<u8> {
    let (kind, id) = match bucket.id {
        BucketId::Family(family) => ("k", escaped(family.as_str())),
        BucketId::User(_, user) => ("u", escaped(user.as_str())),
        BucketId::Tenant(_) => ("t", String::new()),
        BucketId::Address(_) => ("a", String::new()),
        BucketId::Anonymous(_) => ("n", String::new()),
        BucketId::Shared => ("s", String::new()),
        BucketId::AnonymousShared => ("m", String::new()),
        _ => ("c", String::new()),
    };
    let mut key = format!("{prefix}:{{{tag}}}:{kind}:{id}");
    if let Some(class) = bucket.class {
        key.push(':');
        key.push_str(&escaped(class));
    }
    key.into_bytes()
}

fn address(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "unknown".to_owned(), |ip| escaped(&ip.to_string()))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '%' | ':' | '{' | '}' => {
                let _ = write!(escaped, "%{:02X}", u32::from(character));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A window of a bucket, in microseconds, with the smallest and the largest limit of its quotas.
#[derive(Debug, Clone, Copy)]
struct Window {
    length: u64,
    least: u64,
    most: u64,
}

impl Window {
    fn length_of(quota: &Quota) -> u64 {
        // A window that is longer by a part of a microsecond never admits more.
        u64::try_from(quota.window().as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// Returns the length of its slots, and whether these are W/256 (1) or as good as exact (0).
    fn slots(self) -> (u64, u8) {
        if self.most > MOST_EXACT {
            return ((self.length / SLOTS_PER_WINDOW).max(1), 1);
        }
        // A microsecond, or the power of ten by which 32 bits hold a window.
        let mut step = 1;
        while self.length / step >= u64::from(u32::MAX) {
            step *= 10;
        }
        (step, 0)
    }
}

/// The windows of a bucket, each length once.
#[derive(Debug)]
struct Windows(Vec<Window>);

impl Windows {
    fn of(bucket: &LimitBucket<'_>) -> Self {
        let mut all: Vec<Window> = Vec::new();
        for quota in bucket.quotas.as_slice() {
            let (length, limit) = (Window::length_of(quota), quota.limit());
            match all.iter_mut().find(|window| window.length == length) {
                Some(window) => {
                    window.least = window.least.min(limit);
                    window.most = window.most.max(limit);
                }
                None => all.push(Window {
                    length,
                    least: limit,
                    most: limit,
                }),
            }
        }
        Self(all)
    }

    /// Returns the windows as the script reads them: three doubles and a byte for each.
    #[expect(
        clippy::cast_precision_loss,
        reason = "lengths and limits are far below 2^53"
    )]
    fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(self.0.len() * 25);
        for window in &self.0 {
            let (step, kind) = window.slots();
            for number in [window.length, window.least, step] {
                packed.extend((number as f64).to_le_bytes());
            }
            packed.push(kind);
        }
        packed
    }
}

/// What the script replied.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The decision, and the server's time at which it was made, in microseconds.
    Decided(Decision, i64),
    /// The request came later than its sender waited for it. The server's time, in microseconds.
    TooLate(i64),
}

impl Reply {
    /// Reads a reply. Anything unexpected is an error, so that nothing but a decision can admit.
    pub(crate) fn of(request: &LimitRequest<'_>, reply: &Value) -> Result<Self, LimiterError> {
        Self::read(request, reply).ok_or_else(|| {
            LimiterError::unavailable("the server returned something else than a decision")
        })
    }

    fn read(request: &LimitRequest<'_>, reply: &Value) -> Option<Self> {
        let Value::Array(numbers) = reply else {
            return None;
        };
        let mut numbers = numbers.iter().map(|number| match number {
            Value::Int(number) => Some(*number),
            _ => None,
        });
        let (time, wait) = (numbers.next()??, numbers.next()??);
        if wait < 0 {
            return Some(Self::TooLate(time));
        }
        let mut decision = match wait {
            0 => Decision::admitted(),
            wait => Decision::refused(Duration::from_micros(wait.unsigned_abs())),
        };
        for bucket in request.buckets {
            let mut states = Vec::new();
            for window in Windows::of(bucket).0 {
                let (live, reset) = (numbers.next()??, numbers.next()??);
                let live = u64::try_from(live).ok()?;
                let reset = u64::try_from(reset).ok().map(Duration::from_micros);
                states.push((window.length, live, reset));
            }
            for quota in bucket.quotas.as_slice() {
                let length = Window::length_of(quota);
                let (_, live, reset) = states.iter().find(|state| state.0 == length)?;
                let left = quota.limit().saturating_sub(*live);
                let state = WindowState::new(left, *reset);
                let refused = wait > 0 && left < request.cost;
                decision = decision.with_windows([if refused { state.violated() } else { state }]);
            }
        }
        let is_whole = numbers.next().is_none();
        is_whole.then_some(Self::Decided(decision, time))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use portunus::quota::Quotas;

    fn numbers(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().map(|number| Value::Int(*number)).collect())
    }

    #[test]
    fn nothing_but_a_whole_decision_is_one() {
        let quotas = Quotas::default();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 1);
        let whole = [1, 0, 1, 60_000_001, 1, 3_614_062_500];
        let Ok(Reply::Decided(decision, 1)) = Reply::of(&request, &numbers(&whole)) else {
            panic!("not a decision");
        };
        assert!(decision.is_admitted());
        let mut others = vec![
            Value::Nil,
            Value::Okay,
            Value::Int(1),
            Value::Boolean(true),
            Value::SimpleString("OK".to_owned()),
            Value::BulkString(b"1".to_vec()),
            numbers(&[]),
            numbers(&[1, 0, 1, 60_000_001, 1, 3_614_062_500, 1]),
            numbers(&[1, 0, -1, 60_000_001, 1, 3_614_062_500]),
            Value::Array(vec![
                Value::Int(1),
                Value::Nil,
                Value::Int(0),
                Value::Int(0),
            ]),
        ];
        others.extend((0..whole.len()).map(|length| numbers(&whole[..length])));
        for other in others {
            let read = Reply::of(&request, &other);
            assert!(
                matches!(read, Err(LimiterError::Unavailable(_))),
                "{other:?}"
            );
        }
        let late = Reply::of(&request, &numbers(&[7, -1]));
        assert!(matches!(late, Ok(Reply::TooLate(7))), "{late:?}");
    }

    #[test]
    fn quotas_of_one_length_are_one_window_and_each_is_judged() {
        let quota = |name, limit| Quota::new(name, limit, Duration::from_secs(60)).unwrap();
        let quotas = Quotas::new([quota("a", 3), quota("b", 5), quota("c", 100)]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 3);
        let prepared = Request::new(&request, "p", true).unwrap().unwrap();
        assert_eq!(prepared.args.len(), 3);
        assert_eq!(prepared.args[2].len(), 25);
        let Ok(Reply::Decided(decision, _)) = Reply::of(&request, &numbers(&[1, 9, 2, 9])) else {
            panic!("not a decision");
        };
        let states = decision.windows().iter();
        let states: Vec<_> = states
            .map(|state| (state.remaining(), state.is_violated()))
            .collect();
        assert_eq!(states, [(1, true), (3, false), (98, false)]);
    }

    #[test]
    fn a_request_that_is_no_request_is_refused() {
        let quotas = Quotas::default();
        let shared = LimitBucket::new(BucketId::Shared, &quotas);
        let twice = [shared, shared];
        let refused = Request::new(&LimitRequest::new(&twice, 1), "p", false);
        assert!(
            matches!(refused, Err(LimiterError::Unavailable(_))),
            "{refused:?}"
        );
        let none = Request::new(&LimitRequest::new(&[], 1), "p", false);
        assert!(matches!(none, Ok(None)), "{none:?}");
    }
}
