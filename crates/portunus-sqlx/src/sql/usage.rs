//! The statements about usage.

pub(crate) const DELETE_USAGE: &str = "DELETE FROM portunus_usage WHERE key_id = $1";
/// Deletes at most `$2` hours of the key `$1`, oldest first.
pub(crate) const DELETE_USAGE_BY_HOUR: &str = "DELETE FROM portunus_usage_by_hour \
     WHERE key_id = $1 AND start IN (SELECT start FROM portunus_usage_by_hour \
     WHERE key_id = $1 ORDER BY start LIMIT $2)";

/// The counts of the keys of a JSON array `$1` of ids, in no particular order.
macro_rules! usage_of {
    ($from:literal, $id:literal) => {
        concat!(
            "SELECT key_id, uses, last_used_at, last_ip FROM ",
            $from,
            " AS asked JOIN portunus_usage ON key_id = ",
            $id
        )
    };
}

pub(crate) const USAGE_BY_HOUR: &str = "SELECT start, uses \
     FROM portunus_usage_by_hour JOIN portunus_keys ON id = key_id \
     WHERE key_id = $1 AND start >= $2 AND start < $3 ORDER BY start";
/// Deletes at most `$2` hours that began before `$1`, of all keys together, oldest first.
pub(crate) const FORGET_USAGE: &str = "DELETE FROM portunus_usage_by_hour \
     WHERE (key_id, start) IN (SELECT key_id, start FROM portunus_usage_by_hour \
     WHERE start < $1 ORDER BY start LIMIT $2)";

/// The sum of the stored and the new value, capped at the largest number.
macro_rules! added_up {
    ($table:literal) => {
        concat!(
            "uses = CASE WHEN ",
            $table,
            ".uses > 9223372036854775807 - excluded.uses THEN 9223372036854775807 ELSE ",
            $table,
            ".uses + excluded.uses END"
        )
    };
}

/// Raises the day of the last use in the rows of keys, which lists of unused keys search. At most ten
/// rows in one transaction, because a row of a key is large and has many indexes: the others follow
/// with their next uses, and until then seem to be unused for longer than they are.
macro_rules! note_use {
    ($before:literal, $day:literal, $from:expr, $after:literal) => {
        concat!(
            $before,
            "SELECT portunus_keys.id AS used_id, ",
            $day,
            " AS day FROM ",
            $from,
            " WHERE used_on < ",
            $day,
            " ORDER BY portunus_keys.id LIMIT 10",
            $after
        )
    };
}

/// Adds to the totals, from rows with the id of an existing key.
macro_rules! add {
    ($from:expr, $id:literal, $uses:literal, $at:literal, $ip:literal) => {
        concat!(
            "INSERT INTO portunus_usage (key_id, uses, last_used_at, last_ip) SELECT ",
            $id,
            ", ",
            $uses,
            ", ",
            $at,
            ", ",
            $ip,
            $from,
            " ON CONFLICT (key_id) DO UPDATE SET ",
            added_up!("portunus_usage"),
            ", last_ip = CASE WHEN portunus_usage.last_used_at <= excluded.last_used_at \
             THEN COALESCE(excluded.last_ip, portunus_usage.last_ip) ELSE portunus_usage.last_ip END, \
             last_used_at = CASE WHEN portunus_usage.last_used_at <= excluded.last_used_at \
             THEN excluded.last_used_at ELSE portunus_usage.last_used_at END"
        )
    };
}

/// Adds to the counts of an hour.
macro_rules! add_by_hour {
    ($from:expr, $id:literal, $hour:literal, $uses:literal) => {
        concat!(
            "INSERT INTO portunus_usage_by_hour (key_id, start, uses) SELECT ",
            $id,
            ", ",
            $hour,
            ", ",
            $uses,
            $from,
            " ON CONFLICT (key_id, start) DO UPDATE SET ",
            added_up!("portunus_usage_by_hour")
        )
    };
}

#[cfg(feature = "sqlite")]
macro_rules! of_existing_keys {
    () => {
        " FROM json_each($1) JOIN portunus_keys ON portunus_keys.id = (value ->> 'key') \
         WHERE 1 = 1 ORDER BY portunus_keys.id"
    };
}

#[cfg(feature = "sqlite")]
pub(super) const SQLITE_OF: &str = usage_of!("json_each($1)", "asked.value");
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_NOTE: &str = note_use!(
    "UPDATE portunus_keys SET used_on = day FROM (",
    "(value ->> 'at') / 86400000",
    "json_each($1) JOIN portunus_keys ON portunus_keys.id = (value ->> 'key')",
    ") AS used WHERE id = used_id"
);
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_ADD: [&str; 2] = [
    add!(
        of_existing_keys!(),
        "portunus_keys.id",
        "value ->> 'uses'",
        "value ->> 'at'",
        "value ->> 'ip'"
    ),
    add_by_hour!(
        of_existing_keys!(),
        "portunus_keys.id",
        "value ->> 'hour'",
        "value ->> 'uses'"
    ),
];

#[cfg(feature = "sqlite")]
pub(super) const SQLITE_ADD_TOTALS: &str = SQLITE_ADD[0];

#[cfg(feature = "postgres")]
pub(super) const POSTGRES_OF: &str = usage_of!("json_array_elements_text($1::json)", "asked");
/// Does not wait for a row that a change of the key has locked.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_NOTE: &str = note_use!(
    "WITH used AS MATERIALIZED (",
    "given.at / 86400000",
    "json_to_recordset($1::json) AS given (key text, at bigint) \
     JOIN portunus_keys ON portunus_keys.id = given.key",
    " FOR NO KEY UPDATE OF portunus_keys SKIP LOCKED) \
     UPDATE portunus_keys SET used_on = day FROM used WHERE id = used_id"
);
/// The existing keys are looked up once for both tables. Their rows are locked in the order of the
/// ids. PostgreSQL runs a `WITH` that nothing refers to last, so totals are locked before hours, as by
/// earlier versions; it does not promise that order, and a deadlock would be retried.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_ADD: [&str; 1] = [concat!(
    "WITH delta AS MATERIALIZED (SELECT portunus_keys.id, given.uses, given.at, given.ip, given.hour \
     FROM json_to_recordset($1::json) AS given (key text, uses bigint, at bigint, ip text, hour bigint) \
     JOIN portunus_keys ON portunus_keys.id = given.key ORDER BY portunus_keys.id), \
     hours AS (",
    add_by_hour!(" FROM delta", "id", "hour", "uses"),
    ") ",
    add!(" FROM delta", "id", "uses", "at", "ip")
)];
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_ADD_TOTALS: &str = add!(
    " FROM json_to_recordset($1::json) AS given (key text, uses bigint, at bigint, ip text) \
     JOIN portunus_keys ON portunus_keys.id = given.key ORDER BY portunus_keys.id",
    "portunus_keys.id",
    "given.uses",
    "given.at",
    "given.ip"
);
