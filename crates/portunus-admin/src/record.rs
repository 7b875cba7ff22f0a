//! A key's record as the management API shows it: never a secret, never a digest.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use portunus::key::Metadata;
use portunus::limit::Quotas;
use portunus::manage::ManagedKey;
use serde_json::{Map, Value, json};

use crate::limits;

/// A key with its usage.
pub(crate) fn managed(key: &ManagedKey, defaults: &Quotas, now: SystemTime) -> Value {
    let (record, usage) = (&key.record, &key.usage);
    json!({
        "id": record.id,
        "key_family": record.family,
        "version": record.version,
        "name": record.name,
        "description": record.description,
        "kind": record.kind,
        "environment": record.environment,
        "owner": record.owner,
        "masked": record.masked,
        "scopes": record.scopes,
        "access": record.access,
        "workspaces": record.workspaces,
        "plan": record.plan,
        "allowed_ips": record.allowed_ips,
        "rate_limit_config": limits::shown(record.quotas.as_ref().unwrap_or(defaults)),
        "status": record.status(now).as_str(),
        "primary": key.primary,
        "enabled": record.enabled,
        "predecessor": record.predecessor,
        "successor": record.successor,
        "rotation_due_at": key.rotation_due.map(time_text),
        "created_at": time_text(record.created_at),
        "not_before": record.not_before.map(time_text),
        "expires_at": record.expires_at.map(time_text),
        "revoked_at": record.revoked.as_ref().map(|revoked| time_text(revoked.at)),
        "revoke_reason": record.revoked.as_ref().and_then(|revoked| revoked.reason.as_deref()),
        "last_used_at": usage.last_used_at.map(time_text),
        "request_count": usage.count,
        "metadata": metadata(&record.metadata),
    })
}

fn metadata(metadata: &Metadata) -> Map<String, Value> {
    metadata.clone().into()
}

/// RFC 3339 with milliseconds, in UTC.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "out of range".into(), |time| format!("{time:.3}"))
}

/// A time as callers write it: RFC 3339 §5.6, and nothing that is merely ISO 8601.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_time(text: &str) -> Result<SystemTime, String> {
    let unknown = || {
        format!(
            "{:?} is no RFC 3339 time",
            text.chars().take(40).collect::<String>()
        )
    };
    if !is_rfc3339(text.as_bytes()) {
        return Err(unknown());
    }
    let time: Timestamp = text.parse().map_err(|_| unknown())?;
    let millis =
        u64::try_from(time.as_millisecond()).map_err(|_| "it lies before 1970".to_owned())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// `2027-01-15T08:00:00.5Z` or `…+01:00`, by its shape.
fn is_rfc3339(text: &[u8]) -> bool {
    let fits = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                other => byte.eq_ignore_ascii_case(other),
            })
    };
    let Some((date_time, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let digits = match rest.strip_prefix(b".") {
        Some(fraction) => fraction
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count(),
        None => 0,
    };
    let zone = if digits > 0 {
        &rest[digits + 1..]
    } else {
        rest
    };
    fits(date_time, b"0000-00-00T00:00:00")
        && (fits(zone, b"Z") || fits(zone, b"+00:00") || fits(zone, b"-00:00"))
}
