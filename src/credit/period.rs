//! Calendar periods: computed on demand from their anchor, never from the period before.

use std::fmt;
use std::num::NonZeroU16;
use std::time::SystemTime;

use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::{from_millis, millis};
use crate::text::{ParseError, start};

/// A repeating period of the calendar, at whose start a grant is refilled.
///
/// A period includes its start and excludes its end, which is the start of the next one. Without
/// an [anchor](Self::anchored), months begin on the 1st, weeks on Monday and days at 0:00. The time
/// zone is UTC unless it is [set](Self::in_zone); a local time that a change of the clock skips is
/// moved later by as much as the clock, and of one that occurs twice the first is meant.
///
/// ```
/// use portunus::credit::Period;
///
/// let monthly = Period::monthly().in_zone("Europe/Paris")?;
/// let signed_up = std::time::SystemTime::now();
/// let anniversary = Period::monthly().anchored(signed_up); // on the 31st: 30 April, 31 May
/// # Ok::<(), portunus::error::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    unit: Unit,
    count: NonZeroU16,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anchor: Option<u64>,
    /// The IANA name; `None` for UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Month,
    Week,
    Day,
}

impl Period {
    const fn of(unit: Unit) -> Self {
        Self {
            unit,
            count: NonZeroU16::MIN,
            anchor: None,
            zone: None,
        }
    }

    /// Returns a period of one month.
    #[must_use]
    pub const fn monthly() -> Self {
        Self::of(Unit::Month)
    }

    /// Returns a period of one week.
    #[must_use]
    pub const fn weekly() -> Self {
        Self::of(Unit::Week)
    }

    /// Returns a period of one day of the calendar, which is 23 to 25 hours where clocks change.
    #[must_use]
    pub const fn daily() -> Self {
        Self::of(Unit::Day)
    }

    /// Makes the period this many months, weeks or days long: 12 months for a year.
    #[must_use]
    pub const fn every(mut self, count: NonZeroU16) -> Self {
        self.count = count;
        self
    }

    /// Sets an instant, in whole milliseconds, at which one of the periods starts: an anniversary.
    /// Periods n months later start on the same day of the month, or on the month's last day if it
    /// has no such day, at the same local time. An instant before 1970 counts as 1970.
    #[must_use]
    pub fn anchored(mut self, at: SystemTime) -> Self {
        self.anchor = Some(millis(at));
        self
    }

    /// Sets the time zone by its IANA name, such as `Europe/Paris`.
    ///
    /// # Errors
    /// Returns an error if the system does not know the name, nor the library, which knows all with
    /// the feature `bundled-time-zones`.
    pub fn in_zone(mut self, name: &str) -> Result<Self, ParseError> {
        if name.len() > 64 || TimeZone::get(name).is_err() {
            let why = format!(
                "unknown time zone {:?}: expected an IANA name such as Europe/Paris",
                start(name, 40)
            );
            return Err(ParseError::new("time zone", why));
        }
        self.zone = Some(name.into());
        Ok(self)
    }

    /// Returns the unit of the calendar: `month`, `week` or `day`.
    #[must_use]
    pub const fn unit(&self) -> &'static str {
        match self.unit {
            Unit::Month => "month",
            Unit::Week => "week",
            Unit::Day => "day",
        }
    }

    /// Returns how many months, weeks or days long the period is.
    #[must_use]
    pub const fn count(&self) -> NonZeroU16 {
        self.count
    }

    /// Returns the instant at which one of the periods starts, if it was set.
    #[must_use]
    pub fn anchor(&self) -> Option<SystemTime> {
        self.anchor.and_then(from_millis)
    }

    /// Returns the IANA name of the time zone.
    #[must_use]
    pub fn zone_name(&self) -> &str {
        self.zone.as_deref().unwrap_or("UTC")
    }

    /// Returns the start and the end of the period that contains an instant. `None` if they are out
    /// of range (the year 9999), or if this machine does not know the time zone.
    #[must_use]
    pub fn around(&self, at: SystemTime) -> Option<(SystemTime, SystemTime)> {
        let at = millis(at);
        let index = self.index(at)?;
        Some((
            from_millis(self.start(index)?)?,
            from_millis(self.start(index + 1)?)?,
        ))
    }

    /// Returns the number of the period that contains an instant: 0 for the one at the anchor.
    pub(super) fn index(&self, at: u64) -> Option<i64> {
        let instant = Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()?;
        let zone = self.zone()?;
        let (anchor, local) = (self.local_anchor(&zone)?, zone.to_datetime(instant));
        let units = match self.unit {
            Unit::Month => {
                let months = |time: DateTime| i64::from(time.year()) * 12 + i64::from(time.month());
                months(local) - months(anchor)
            }
            Unit::Week | Unit::Day => {
                let days = anchor.date().until(local.date()).ok()?.get_days();
                i64::from(days) / if self.unit == Unit::Week { 7 } else { 1 }
            }
        };
        // Right to one period: the rest follows from the starts themselves.
        let mut index = units.div_euclid(i64::from(self.count.get()));
        while self.start(index)? > at {
            index -= 1;
        }
        while self.start(index + 1)? <= at {
            index += 1;
        }
        Some(index)
    }

    /// Returns the start of a period, in milliseconds since the Unix epoch; 0 for one before it.
    pub(super) fn start(&self, index: i64) -> Option<u64> {
        let zone = self.zone()?;
        // Its local time may occur twice, and another instant would be meant.
        if let (0, Some(anchor)) = (index, self.anchor) {
            return Some(anchor);
        }
        let units = index.checked_mul(i64::from(self.count.get()))?;
        let span = match self.unit {
            Unit::Month => Span::new().try_months(units),
            Unit::Week => Span::new().try_weeks(units),
            Unit::Day => Span::new().try_days(units),
        };
        let local = self.local_anchor(&zone)?.checked_add(span.ok()?).ok()?;
        let at = zone.to_timestamp(local).ok()?.as_millisecond();
        Some(u64::try_from(at).unwrap_or(0))
    }

    fn zone(&self) -> Option<TimeZone> {
        match &self.zone {
            None => Some(TimeZone::UTC),
            Some(name) => TimeZone::get(name).ok(),
        }
    }

    /// Returns the local time of the anchor.
    fn local_anchor(&self, zone: &TimeZone) -> Option<DateTime> {
        match (self.anchor, self.unit) {
            (Some(at), _) => {
                let instant = Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()?;
                Some(zone.to_datetime(instant))
            }
            // A Monday.
            (None, Unit::Week) => Some(date(1970, 1, 5).at(0, 0, 0, 0)),
            (None, Unit::Month | Unit::Day) => Some(date(1970, 1, 1).at(0, 0, 0, 0)),
        }
    }
}

/// Formats it like `1 month`, `12 months` or `2 weeks (Europe/Paris)`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Month => "month",
            Unit::Week => "week",
            Unit::Day => "day",
        };
        let plural = if self.count == NonZeroU16::MIN {
            ""
        } else {
            "s"
        };
        write!(f, "{} {unit}{plural}", self.count)?;
        match &self.zone {
            Some(zone) => write!(f, " ({zone})"),
            None => Ok(()),
        }
    }
}
