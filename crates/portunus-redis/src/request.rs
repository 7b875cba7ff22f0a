//! A limiter's request as keys and an argument of the script.
//!
//! The key of a bucket is `PREFIX:{TAG}:KIND:ID:CLASS`, where only what is in braces decides the
//! slot: the tenant of a key, a user or a tenant; the address; `shared`. In ids and classes, `%`,
//! `:` and braces are written as in a URL, so that no two buckets have one key and no id ends the
//! tag.

use std::net::IpAddr;

use portunus::key::TenantId;
use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterError};
use portunus::quota::Quota;

/// The largest quota that is counted exactly, with the time of each request.
const MOST_EXACT: u64 = 64;
/// The number of slots of a window with a larger quota.
const SLOTS_PER_WINDOW: u64 = 256;
/// No quota is larger than this many units.
const MOST_UNITS: u64 = u32::MAX as u64;

/// A request, ready to be sent. Requests that are equal cannot be told apart by the script.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) keys: Vec<Vec<u8>>,
    /// The cost, whether the units count although they do not fit, the number of buckets, and the
    /// windows of each.
    pub(crate) asks: Vec<u8>,
    /// Whether the windows are only read.
    pub(crate) reads: bool,
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
        let mut keys: Vec<Vec<u8>> = Vec::with_capacity(request.buckets.len());
        let mut tag: Option<Vec<u8>> = None;
        for bucket in request.buckets {
            let (key, tag_ends) = key(prefix, request, bucket)
                .ok_or_else(|| LimiterError::unavailable("a bucket of an unknown kind"))?;
            if keys.contains(&key) {
                return Err(LimiterError::unavailable("a bucket is there twice"));
            }
            if in_one_slot {
                let of_key = &key[..tag_ends];
                if *tag.get_or_insert_with(|| of_key.to_vec()) != of_key {
                    let why = "a cluster cannot count this request: its buckets belong to \
                               several of a tenant, an address and all requests";
                    return Err(LimiterError::unavailable(why));
                }
            }
            keys.push(key);
        }
        let mut asks = Vec::with_capacity(128);
        asks.extend(double(cost.min(MOST_UNITS)));
        asks.push(request.overdraw.into());
        let buckets = u16::try_from(keys.len());
        let many = |_| LimiterError::unavailable("a request has too many buckets");
        asks.extend(buckets.map_err(many)?.to_le_bytes());
        for bucket in request.buckets {
            pack(&mut asks, bucket);
        }
        Ok(Some(Self {
            keys,
            asks,
            reads: false,
        }))
    }

    /// Prepares a request that reads the windows; `None` if it has no buckets. Its cost is not used.
    ///
    /// # Errors
    /// As for [`new`](Self::new), except for the cost.
    pub(crate) fn reading(
        request: &LimitRequest<'_>,
        prefix: &str,
        in_one_slot: bool,
    ) -> Result<Option<Self>, LimiterError> {
        let request = LimitRequest::new(request.buckets, 1).of_tenant(request.tenant);
        let prepared = Self::new(&request, prefix, in_one_slot)?;
        Ok(prepared.map(|prepared| Self {
            reads: true,
            ..prepared
        }))
    }

    /// Logs a decision with the server's time.
    pub(crate) fn trace(&self, time: i64, admitted: bool) {
        let key = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
        let keys = || self.keys.iter().map(key).collect::<Vec<_>>().join(" ");
        tracing::trace!(time, admitted, keys = keys(), "decided");
    }
}

/// Returns the key of a bucket, and where its hash tag ends; `None` for a kind of bucket that a newer
/// version has.
fn key(
    prefix: &str,
    request: &LimitRequest<'_>,
    bucket: &LimitBucket<'_>,
) -> Option<(Vec<u8>, usize)> {
    let mut key = Vec::with_capacity(prefix.len() + 96);
    key.extend(prefix.as_bytes());
    key.extend(b":{");
    let (kind, id) = match bucket.id {
        BucketId::Family(family) => {
            let tag = request.tenant.map_or(family.as_str(), TenantId::as_str);
            escape(&mut key, tag);
            (b'k', family.as_str())
        }
        BucketId::User(tenant, user) => {
            escape(&mut key, tenant.as_str());
            (b'u', user.as_str())
        }
        BucketId::Tenant(tenant) => {
            escape(&mut key, tenant.as_str());
            (b't', "")
        }
        BucketId::Address(ip) => {
            address(&mut key, ip);
            (b'a', "")
        }
        BucketId::Anonymous(ip) => {
            address(&mut key, ip);
            (b'n', "")
        }
        BucketId::Shared => {
            key.extend(b"shared");
            (b's', "")
        }
        BucketId::AnonymousShared => {
            key.extend(b"shared");
            (b'm', "")
        }
        BucketId::Custom(name) => {
            // An empty tag would be none.
            key.push(b'+');
            escape(&mut key, name);
            (b'c', "")
        }
        _ => return None,
    };
    let tag_ends = key.len();
    key.extend([b'}', b':', kind, b':']);
    escape(&mut key, id);
    if let Some(class) = bucket.class {
        key.push(b':');
        escape(&mut key, class);
    }
    Some((key, tag_ends))
}

fn address(key: &mut Vec<u8>, ip: Option<IpAddr>) {
    match ip {
        Some(ip) => escape(key, &ip.to_string()),
        None => key.extend(b"unknown"),
    }
}

fn escape(key: &mut Vec<u8>, text: &str) {
    let is_special = |byte: u8| matches!(byte, b'%' | b':' | b'{' | b'}');
    if !text.bytes().any(is_special) {
        return key.extend(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            special if is_special(special) => key.extend(format!("%{byte:02X}").as_bytes()),
            other => key.push(other),
        }
    }
}

/// A window of a bucket, in microseconds, with the smallest and the largest limit of its quotas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) length: u64,
    least: u64,
    most: u64,
}

/// Returns the length of a quota's window in microseconds.
pub(crate) fn length_of(quota: &Quota) -> u64 {
    let window = quota.window();
    // A window that is longer by a part of a microsecond never admits more.
    let micros = window.subsec_nanos().div_ceil(1000);
    window.as_secs().saturating_mul(1_000_000) + u64::from(micros)
}

/// Returns the windows of a bucket, each length once.
pub(crate) fn windows<'a>(bucket: &'a LimitBucket<'_>) -> impl Iterator<Item = Window> + 'a {
    let quotas = bucket.quotas.as_slice();
    quotas.iter().enumerate().filter_map(|(place, quota)| {
        let length = length_of(quota);
        let is_equal = |other: &&Quota| length_of(other) == length;
        if quotas[..place].iter().any(|other| is_equal(&other)) {
            return None;
        }
        let limits = quotas[place..].iter().filter(is_equal).map(Quota::limit);
        let (least, most) = limits.fold((u64::MAX, 0), |(least, most), limit| {
            (least.min(limit), most.max(limit))
        });
        Some(Window {
            length,
            least,
            most,
        })
    })
}

impl Window {
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

/// Appends the windows of a bucket as the script reads them: their number, then three doubles and a
/// byte for each.
fn pack(asks: &mut Vec<u8>, bucket: &LimitBucket<'_>) {
    let place = asks.len();
    asks.push(0);
    for window in windows(bucket) {
        // A bucket has at most 16 quotas.
        asks[place] += 1;
        let (step, kind) = window.slots();
        for number in [window.length, window.least, step] {
            asks.extend(double(number));
        }
        asks.push(kind);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "lengths and limits are far below 2^53"
)]
fn double(number: u64) -> [u8; 8] {
    (number as f64).to_le_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use portunus::quota::Quotas;
    use std::time::Duration;

    #[test]
    fn quotas_of_one_length_are_asked_as_one_window() {
        let quota = |name, limit| Quota::new(name, limit, Duration::from_secs(60)).unwrap();
        let quotas = Quotas::new([quota("a", 3), quota("b", 5), quota("c", 100)]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let request = LimitRequest::new(&bucket, 3);
        let prepared = Request::new(&request, "p", true).unwrap().unwrap();
        // The cost, no overdraft, one bucket, one window.
        assert_eq!(prepared.asks.len(), 8 + 1 + 2 + 1 + 25);
        assert_eq!(prepared.asks[9..12], [1, 0, 1]);
        let windows: Vec<Window> = windows(&bucket[0]).collect();
        let [window] = windows[..] else {
            panic!("{windows:?}");
        };
        assert_eq!((window.least, window.most), (3, 100));
    }

    #[test]
    fn only_requests_that_the_script_cannot_tell_apart_are_equal() {
        let quota = |limit, seconds| Quota::new("q", limit, Duration::from_secs(seconds)).unwrap();
        let of = |name: &str, quota: Quota, cost: u64| {
            let quotas = Quotas::new([quota]).unwrap();
            let bucket = [LimitBucket::new(BucketId::Custom(name), &quotas)];
            Request::new(&LimitRequest::new(&bucket, cost), "p", false)
                .unwrap()
                .unwrap()
        };
        let one = of("a", quota(9, 60), 1);
        assert_eq!(one, of("a", quota(9, 60), 1));
        for other in [
            of("b", quota(9, 60), 1),
            of("a", quota(8, 60), 1),
            of("a", quota(9, 61), 1),
            of("a", quota(9, 60), 2),
        ] {
            assert_ne!(one, other);
        }
        // A reading is in no group of requests that count.
        let quotas = Quotas::new([quota(9, 60)]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Custom("a"), &quotas)];
        let reading = Request::reading(&LimitRequest::new(&bucket, 7), "p", false);
        let reading = reading.unwrap().unwrap();
        assert_eq!((&reading.keys, &reading.asks), (&one.keys, &one.asks));
        assert_ne!(reading, one);
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
