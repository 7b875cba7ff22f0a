//! Times as RFC 3339 in UTC.
//!
//! Of `jiff`, the calendar is used: its instants end a day before the year 9999 does.

use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use crate::key::MAX_TIME;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Returns the date and time in UTC, to be written with its precision and a `Z`. A time before 1970
/// or after [`MAX_TIME`] is clamped to that bound.
pub(crate) fn utc(at: SystemTime) -> DateTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().min(MAX_TIME);
    EPOCH.saturating_add(SignedDuration::try_from(since).unwrap_or_default())
}

/// Returns `None` for anything but a time in UTC from 1970 on.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let pieces = Pieces::parse(text).ok()?;
    let at = pieces.date().to_datetime(pieces.time()?);
    let since = Duration::try_from(at.duration_since(EPOCH)).ok()?;
    let is_utc = pieces.to_numeric_offset() == Some(Offset::UTC);
    is_utc.then(|| SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_time_is_written_with_the_digits_that_are_asked_for_and_read_again() {
        let last = u64::try_from(MAX_TIME.as_millis()).unwrap();
        for (time, told) in [
            (at(0), "1970-01-01T00:00:00.000Z"),
            (at(1), "1970-01-01T00:00:00.001Z"),
            (at(951_782_399_999), "2000-02-28T23:59:59.999Z"),
            (at(951_782_400_000), "2000-02-29T00:00:00.000Z"),
            (at(1_609_459_199_990), "2020-12-31T23:59:59.990Z"),
            (at(4_107_542_400_000), "2100-03-01T00:00:00.000Z"),
            // Later than the last instant of `jiff`.
            (at(last - 3_600_000), "9999-12-31T22:59:59.999Z"),
            (at(last), "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format!("{:.3}Z", utc(time)), told);
            assert_eq!(format!("{:.0}Z", utc(time)), format!("{}Z", &told[..19]));
            assert_eq!(parse(told), Some(time), "{told}");
            // What is below a millisecond is cut off, never rounded up.
            let later = time + Duration::from_nanos(999_999);
            assert_eq!(format!("{:.3}Z", utc(later)), told);
        }
    }

    #[test]
    fn a_time_out_of_bounds_is_written_as_the_bound() {
        let year = Duration::from_secs(31_536_000);
        for early in [at(0) - Duration::from_nanos(1), at(0) - 200 * year] {
            assert_eq!(utc(early), EPOCH);
        }
        let last = SystemTime::UNIX_EPOCH + MAX_TIME;
        for late in [last + Duration::from_nanos(1), last + 1_000_000 * year] {
            assert_eq!(utc(late), utc(last));
        }
    }

    #[test]
    fn a_time_without_utc_or_before_1970_is_not_read() {
        assert_eq!(
            parse("2000-02-29T00:00:00+00:00"),
            Some(at(951_782_400_000))
        );
        for wrong in [
            "",
            "Z",
            "2000-02-29",
            "2000-02-29T00:00:00",
            "2000-02-29T00:00:00+01:00",
            "2000-02-29T00:00:00-00:01",
            "2000-02-30T00:00:00Z",
            "2000-02-29T24:00:00Z",
            "2000-02-29T00:00:00Zx",
            "1969-12-31T23:59:59.999Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
