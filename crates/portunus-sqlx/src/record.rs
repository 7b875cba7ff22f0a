//! A record as a row: the whole record as JSON, and beside it the columns that queries use.
//!
//! The columns are derived from the record when it is written. Whenever a row is read, they are
//! derived again and compared: a row whose columns and JSON disagree is corrupt, whichever of them
//! is wrong.

use portunus::key::{KeyRecord, Revocation};

use crate::fault::{Fault, Refusal};
use crate::time;
use crate::value::{Row, Value};

/// The table name, for errors.
pub(crate) const TABLE: &str = "portunus_keys";

/// The columns of a record except the JSON, in the order of the statements.
fn columns(record: &KeyRecord) -> Result<[(&'static str, Value); 16], Refusal> {
    let version = i64::try_from(record.version).map_err(|_| Refusal::OutOfRange("version"))?;
    let millis = |at: &Option<_>| Value::Int(at.map(time::floor));
    Ok([
        ("id", record.id.as_str().into()),
        ("family", record.family.as_str().into()),
        ("version", version.into()),
        ("kind", record.kind.as_str().into()),
        ("environment", record.environment.as_str().into()),
        ("tenant_id", record.owner.tenant_id.as_str().into()),
        (
            "user_id",
            Value::Text(
                record
                    .owner
                    .user_id
                    .as_ref()
                    .map(|user| user.as_str().to_owned()),
            ),
        ),
        ("name", text(&record.name).into()),
        (
            "description",
            Value::Text(record.description.as_deref().map(text)),
        ),
        ("masked", text(&record.masked).into()),
        ("created_at", time::floor(record.created_at).into()),
        ("not_before", millis(&record.not_before)),
        ("expires_at", millis(&record.expires_at)),
        ("enabled", record.enabled.into()),
        (
            "revoked_at",
            Value::Int(
                record
                    .revoked
                    .as_ref()
                    .map(|revoked| time::floor(revoked.at)),
            ),
        ),
        ("may_be_primary", record.may_be_primary.into()),
    ])
}

/// A string as its column stores it: PostgreSQL rejects NUL.
pub(crate) fn text(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

/// All columns of a record, the JSON last.
pub(crate) fn named(
    record: &KeyRecord,
) -> Result<impl Iterator<Item = (&'static str, Value)> + use<>, Refusal> {
    let record = in_milliseconds(record.clone())?;
    let json = record.to_json().map_err(Refusal::Json)?;
    Ok(columns(&record)?
        .into_iter()
        .chain([("record", json.into())]))
}

/// The values of all columns of a record, the JSON last.
pub(crate) fn values(record: &KeyRecord) -> Result<Vec<Value>, Refusal> {
    Ok(named(record)?.map(|(_, value)| value).collect())
}

/// The record with times that can be stored: times with a fraction of a millisecond are rounded so
/// that the key becomes valid slightly later or expires slightly earlier.
fn in_milliseconds(mut record: KeyRecord) -> Result<KeyRecord, Refusal> {
    record.created_at = time::cut(record.created_at).ok_or(Refusal::OutOfRange("created_at"))?;
    if let Some(at) = record.not_before {
        record.not_before = Some(time::raised(at).ok_or(Refusal::OutOfRange("not_before"))?);
    }
    if let Some(at) = record.expires_at {
        record.expires_at = Some(time::cut(at).ok_or(Refusal::OutOfRange("expires_at"))?);
    }
    if let Some(Revocation { at, .. }) = &mut record.revoked {
        *at = time::cut(*at).ok_or(Refusal::OutOfRange("revocation time"))?;
    }
    Ok(record)
}

/// The column of the tenant that owns the row.
const TENANT: &str = "tenant_id";

/// The column to name if the JSON cannot be read: the tenant's column if the JSON still names a
/// different tenant.
pub(crate) fn unreadable(
    json: &str,
    pointer: &str,
    tenant: &Value,
    otherwise: &'static str,
) -> &'static str {
    let json: Option<serde_json::Value> = serde_json::from_str(json).ok();
    let named = json
        .as_ref()
        .and_then(|json| json.pointer(pointer)?.as_str());
    if named.is_some_and(|named| !same(&named.into(), tenant)) {
        TENANT
    } else {
        otherwise
    }
}

/// The first column that differs from its derived value. The tenant comes before all others.
pub(crate) fn first_wrong(mut wrong: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let first = wrong.next()?;
    let is_tenant = first == TENANT || wrong.any(|column| column == TENANT);
    Some(if is_tenant { TENANT } else { first })
}

/// Whether an unreadable row, as named by [`Row::corrupt`], may belong to another tenant than its
/// column says.
pub(crate) fn may_be_foreign(what: &str) -> bool {
    what.strip_suffix(TENANT)
        .is_some_and(|rest| rest.ends_with(", column "))
}

/// Reads the columns of a record, the next ones of a row.
pub(crate) fn read(row: &mut Row) -> Result<KeyRecord, Fault> {
    let id = row.value("id")?;
    if let Value::Text(Some(id)) = &id {
        row.rename(TABLE, id);
    }
    const NAMES: [&str; 15] = [
        "family",
        "version",
        "kind",
        "environment",
        "tenant_id",
        "user_id",
        "name",
        "description",
        "masked",
        "created_at",
        "not_before",
        "expires_at",
        "enabled",
        "revoked_at",
        "may_be_primary",
    ];
    let mut stored = vec![id];
    for name in NAMES {
        stored.push(row.value(name)?);
    }
    let json = row.text("record")?;
    let otherwise = || row.corrupt(unreadable(&json, "/owner/tenant_id", &stored[5], "record"));
    let record = KeyRecord::from_json(&json).map_err(|_| otherwise())?;
    let derived = columns(&record).map_err(|_| otherwise())?;
    // Another version may derive other columns, except those for the owner and the end of a key.
    const SURE: [&str; 5] = ["id", "tenant_id", "user_id", "enabled", "revoked_at"];
    let is_sure = |column: &str| record.needs().is_none() || SURE.contains(&column);
    let wrong = derived
        .iter()
        .zip(&stored)
        .filter(|((column, derived), stored)| is_sure(column) && !same(derived, stored))
        .map(|((column, _), _)| *column);
    match first_wrong(wrong) {
        Some(column) => Err(row.corrupt(column)),
        None => Ok(record),
    }
}

/// Whether two values are equal; NULL has no type.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let is_null = |value: &Value| {
        matches!(
            value,
            Value::Int(None) | Value::Text(None) | Value::Bytes(None)
        )
    };
    one == other || (is_null(one) && is_null(other))
}
