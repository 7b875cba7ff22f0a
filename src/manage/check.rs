//! What a text and a time may be, whoever asks for it.

use std::time::{Duration, SystemTime};

use super::ManageError;

/// The most characters of a name, a description or a reason.
pub const MAX_TEXT_LENGTH: usize = 1000;

/// A name for people: not empty, bounded, one line.
pub(super) fn check_name(name: &str) -> Result<(), ManageError> {
    if name.trim().is_empty() {
        return Err(ManageError::invalid("name", "a key needs a name"));
    }
    check_line("name", name)
}

/// The end of the year 9999: what any storage and any notation can hold.
pub(super) const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A time that any storage can hold, in whole milliseconds, not later than it was.
pub(super) fn check_time(field: &'static str, at: SystemTime) -> Result<SystemTime, ManageError> {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since <= LATEST => Ok(to_the_millisecond(at)),
        _ => Err(ManageError::invalid(
            field,
            "it lies before 1970 or after the year 9999",
        )),
    }
}

pub(super) fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    at - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000))
}

/// A beginning before the end.
pub(super) fn check_order(
    not_before: Option<SystemTime>,
    expires_at: Option<SystemTime>,
) -> Result<(), ManageError> {
    match (not_before, expires_at) {
        (Some(start), Some(end)) if start >= end => Err(ManageError::invalid(
            "not_before",
            "it is not before expires_at",
        )),
        _ => Ok(()),
    }
}

/// One line for people, that reads as it is written: no controls, and none of those that turn the
/// direction of a text.
pub(super) fn check_line(field: &'static str, text: &str) -> Result<(), ManageError> {
    check_text(field, text)?;
    let turns = |c: char| {
        matches!(
            c,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}'
        )
    };
    if text.contains(|c: char| c == '\n' || turns(c)) {
        return Err(ManageError::invalid(
            field,
            "one line, without characters that turn its direction",
        ));
    }
    Ok(())
}

/// A text for people: bounded, and without control characters.
pub(super) fn check_text(field: &'static str, text: &str) -> Result<(), ManageError> {
    if text.chars().count() > MAX_TEXT_LENGTH {
        return Err(ManageError::invalid(
            field,
            format!("at most {MAX_TEXT_LENGTH} characters"),
        ));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(ManageError::invalid(field, "no control characters"));
    }
    Ok(())
}
