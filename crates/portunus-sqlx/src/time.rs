//! Times as a database stores them: whole milliseconds since the epoch.
//!
//! Times of records are rounded to the millisecond when they are written, each in the direction
//! that grants less. Times in queries may be arbitrary; they are rounded so that the result is the
//! same as without rounding.

use std::time::{Duration, SystemTime};

use portunus::key::MAX_TIME;

const NANOS_PER_MILLI: i128 = 1_000_000;

fn nanos(at: SystemTime) -> i128 {
    let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(error) => -nanos(error.duration()),
    }
}

fn clamped(millis: i128) -> i64 {
    i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX })
}

/// The last whole millisecond that is not later.
pub(crate) fn floor(at: SystemTime) -> i64 {
    clamped(nanos(at).div_euclid(NANOS_PER_MILLI))
}

/// The first whole millisecond that is not earlier.
pub(crate) fn ceil(at: SystemTime) -> i64 {
    clamped(-(-nanos(at)).div_euclid(NANOS_PER_MILLI))
}

/// The time of a number of milliseconds; `None` if it is out of range.
pub(crate) fn from_millis(millis: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(millis.unsigned_abs());
    if millis < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// [`MAX_TIME`] in milliseconds.
pub(crate) fn max_millis() -> i64 {
    clamped(nanos(SystemTime::UNIX_EPOCH + MAX_TIME) / NANOS_PER_MILLI)
}

/// The time of a number of milliseconds, if it can be stored.
fn kept(millis: i64) -> Option<SystemTime> {
    (0..=max_millis())
        .contains(&millis)
        .then(|| from_millis(millis))
        .flatten()
}

/// A time rounded down to the millisecond; `None` if it cannot be stored.
pub(crate) fn cut(at: SystemTime) -> Option<SystemTime> {
    kept(floor(at))
}

/// A time rounded up to the millisecond; `None` if it cannot be stored.
pub(crate) fn raised(at: SystemTime) -> Option<SystemTime> {
    kept(ceil(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_to_the_side_that_is_asked_for() {
        let at = |nanos: u64| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!((floor(at(1_999_999)), ceil(at(1_000_001))), (1, 2));
        assert_eq!((floor(at(2_000_000)), ceil(at(2_000_000))), (2, 2));
        let before = SystemTime::UNIX_EPOCH - Duration::from_micros(1_500);
        assert_eq!((floor(before), ceil(before)), (-2, -1));
        assert_eq!(
            (cut(before), cut(at(1_999_999))),
            (None, Some(at(1_000_000)))
        );
        assert_eq!(raised(at(1_000_001)), Some(at(2_000_000)));
    }

    #[test]
    fn the_latest_time_can_be_kept_and_no_later_one() {
        let last = SystemTime::UNIX_EPOCH + MAX_TIME;
        let beyond = last + Duration::from_nanos(1);
        assert_eq!((cut(last), raised(last)), (Some(last), Some(last)));
        assert_eq!((cut(beyond), raised(beyond)), (Some(last), None));
        assert_eq!(cut(last + Duration::from_millis(1)), None);
        let farthest = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs());
        assert_eq!((floor(farthest), cut(farthest)), (i64::MAX, None));
    }
}
