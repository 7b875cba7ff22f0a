//! The statements about bulk operations.

/// Adds an operation.
pub(crate) const ADD: &str = "INSERT INTO portunus_bulk (id, step, started_at, ended_at, operation) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
/// Stores the step `$2` of an operation, after the one before. Of concurrent writers of a step, one
/// changes a row.
pub(crate) const STEP: &str = "UPDATE portunus_bulk SET step = $2, started_at = $3, ended_at = $4, \
     operation = $5 WHERE id = $1 AND step = $2 - 1";
pub(crate) const OF_ID: &str = "SELECT operation FROM portunus_bulk WHERE id = $1";
/// The oldest operations that have not ended, started after `$1`.
pub(crate) const OPEN: &str = "SELECT id, operation FROM portunus_bulk WHERE ended_at IS NULL \
     AND started_at > $1 ORDER BY started_at, id LIMIT 100";
/// Deletes the operations that ended before `$1`.
pub(crate) const FORGET: &str =
    "DELETE FROM portunus_bulk WHERE ended_at IS NOT NULL AND ended_at < $1";
