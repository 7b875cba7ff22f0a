//! The statements about changes that are not published yet.

/// Records the change `$1`.
pub(crate) const RECORD: &str = "INSERT INTO portunus_outbox (what) VALUES ($1)";
/// The `$2` oldest changes after the place `$1`.
pub(crate) const OLDEST: &str =
    "SELECT place, what FROM portunus_outbox WHERE place > $1 ORDER BY place LIMIT $2";

/// Delete the changes at the places of a JSON array `$1`.
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_FORGET: &str =
    "DELETE FROM portunus_outbox WHERE place IN (SELECT value FROM json_each($1))";
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_FORGET: &str = "DELETE FROM portunus_outbox WHERE place IN \
     (SELECT CAST(given AS BIGINT) FROM json_array_elements_text($1::json) AS given)";
