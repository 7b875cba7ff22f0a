//! Times as the management API writes and reads them: RFC 3339, from 1970 to [`MAX_TIME`].
//!
//! Only `jiff`'s calendar is used: its instants end a day before the year 9999 ends, and its parser
//! accepts more than RFC 3339.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use portunus::key::MAX_TIME;

const EARLIEST: &str = "1970-01-01T00:00:00.000Z";
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Formats a time as RFC 3339 in UTC with milliseconds. A time before 1970 or after
/// [`MAX_TIME`](portunus::key::MAX_TIME) is clamped to that bound.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .min(MAX_TIME);
    let date_time = EPOCH.saturating_add(SignedDuration::try_from(since).unwrap_or_default());
    format!("{date_time:.3}Z")
}

/// Parses an RFC 3339 §5.6 time; other ISO 8601 formats are not accepted. Digits beyond
/// milliseconds are truncated. A leap second (`23:59:60` UTC at the end of June or December, §5.7)
/// is read as the last millisecond of the day.
///
/// # Errors
/// Returns a message that describes the problem and the bounds: 1970 to
/// [`MAX_TIME`](portunus::key::MAX_TIME).
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    let excerpt = || text.chars().take(40).collect::<String>();
    let latest = || time_text(SystemTime::UNIX_EPOCH + MAX_TIME);
    let (utc, nanos) = parse(text.as_bytes()).ok_or_else(|| {
        format!(
            "{:?} is not an RFC 3339 time such as 2027-01-15T08:00:00Z, from {EARLIEST} to {}",
            excerpt(),
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
        .ok_or_else(|| {
            format!(
                "{:?} is out of range: expected {EARLIEST} to {}",
                excerpt(),
                latest()
            )
        })
}

/// Returns the whole seconds since 1970, which can be negative, and the nanoseconds.
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

/// Returns the value of decimal digits.
fn number(digits: &[u8]) -> i32 {
    digits
        .iter()
        .fold(0, |number, digit| number * 10 + i32::from(digit - b'0'))
}

/// Parses an optional fraction of any length. Returns its nanoseconds and the remaining text.
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

/// Returns the seconds by which local time is ahead of UTC.
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

/// Returns whether a second is the last one of June or December in UTC.
fn ends_a_half_year(utc: i64) -> bool {
    let next = EPOCH.checked_add(SignedDuration::from_secs(utc + 1));
    // The calendar ends with the year 9999, so the last second of that year has no successor.
    next.map_or(true, |next| {
        next.time() == Time::midnight() && next.day() == 1 && matches!(next.month(), 1 | 7)
    })
}
