//! Times as the management API writes and reads them: RFC 3339, from 1970 to [`MAX_TIME`].
//!
//! Only `jiff`'s calendar is used. Its instants end a day before the year 9999 does, and its parser
//! takes more than RFC 3339 has.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use portunus::key::MAX_TIME;

const EARLIEST: &str = "1970-01-01T00:00:00.000Z";
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// RFC 3339 with milliseconds, in UTC. A time before 1970 or after
/// [`MAX_TIME`](portunus::key::MAX_TIME) is written as the one or the other.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .min(MAX_TIME);
    let shown = EPOCH.saturating_add(SignedDuration::try_from(since).unwrap_or_default());
    format!("{shown:.3}Z")
}

/// A time as callers write it: RFC 3339 §5.6, and nothing that is merely ISO 8601. What lies beyond
/// the millisecond is cut. A leap second (`23:59:60` UTC at the end of June or December, §5.7) is
/// read as the millisecond before the next day.
///
/// # Errors
/// A sentence that says what is wrong with it, and the bounds: 1970 to
/// [`MAX_TIME`](portunus::key::MAX_TIME).
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    let shown = || text.chars().take(40).collect::<String>();
    let latest = || time_text(SystemTime::UNIX_EPOCH + MAX_TIME);
    let (utc, nanos) = parse(text.as_bytes()).ok_or_else(|| {
        format!(
            "{:?} is no RFC 3339 time, such as 2027-01-15T08:00:00Z, from {EARLIEST} to {}",
            shown(),
            latest()
        )
    })?;
    u64::try_from(utc)
        .ok()
        .map(|seconds| {
            Duration::from_secs(seconds) + Duration::from_millis(u64::from(nanos / 1_000_000))
        })
        .filter(|since| *since <= MAX_TIME)
        .map(|since| SystemTime::UNIX_EPOCH + since)
        .ok_or_else(|| format!("{:?} is not from {EARLIEST} to {}", shown(), latest()))
}

/// Whole seconds since 1970, perhaps negative, and nanoseconds.
fn parse(text: &[u8]) -> Option<(i64, u32)> {
    let (fixed, rest) = text.split_at_checked(19)?;
    let shape = fixed.iter().zip(b"0000-00-00T00:00:00");
    for (byte, wanted) in shape {
        let fits = match wanted {
            b'0' => byte.is_ascii_digit(),
            separator => byte.eq_ignore_ascii_case(separator),
        };
        fits.then_some(())?;
    }
    let small = |at: usize| i8::try_from(number(&fixed[at..at + 2])).ok();
    let year = i16::try_from(number(&fixed[..4])).ok()?;
    let date = Date::new(year, small(5)?, small(8)?).ok()?;
    let second = small(17)?;
    let leap = second == 60;
    let time = Time::new(small(11)?, small(14)?, if leap { 59 } else { second }, 0).ok()?;
    let (nanos, zone) = fraction(rest)?;
    let utc = date
        .to_datetime(time)
        .duration_since(EPOCH)
        .as_secs()
        .checked_sub(offset(zone)?)?;
    match leap {
        false => Some((utc, nanos)),
        true => ends_a_half_year(utc).then_some((utc, 999_999_999)),
    }
}

/// The value of some decimal digits.
fn number(digits: &[u8]) -> i32 {
    digits
        .iter()
        .fold(0, |number, digit| number * 10 + i32::from(digit - b'0'))
}

/// The nanoseconds of a fraction of any length, where there is one, and what follows.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at(length);
    let padded = digits
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanos = padded.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    (length > 0).then_some((nanos, zone))
}

/// The seconds by which local time is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let [h, hh, b':', m, mm] = digits else {
        return None;
    };
    let all = [*h, *hh, *m, *mm];
    all.iter().all(u8::is_ascii_digit).then_some(())?;
    let (hours, minutes) = (number(&all[..2]), number(&all[2..]));
    (hours < 24 && minutes < 60).then(|| i64::from(sign * (hours * 3600 + minutes * 60)))
}

/// Whether a second is the last one of June or December, in UTC.
fn ends_a_half_year(utc: i64) -> bool {
    let next = EPOCH.checked_add(SignedDuration::from_secs(utc + 1));
    // There is no year 10000, whose beginning would be the end of this one.
    next.map_or(true, |next| {
        next.time() == Time::midnight() && next.day() == 1 && matches!(next.month(), 1 | 7)
    })
}
