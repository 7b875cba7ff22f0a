//! The statements about bulk operations.

/// Adds an operation.
pub(crate) const ADD: &str = "INSERT INTO portunus_bulk (id, step, started_at, ended_at, operation) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
/// Stores the step `$2` of an operation, after the one before. Of concurrent writers of a step, one
/// changes a row.
pub(crate) const STEP: &str = "UPDATE portunus_bulk SET step = $2, started_at = $3, ended_at = $4, \
     operation = $5 WHERE id = $1 AND step = $2 - 1";
pub(crate) const OF_ID: &str = "SELECT operation FROM portunus_bulk WHERE id = $1";
/// Selects the operations that have not ended, started after `$1`: the oldest one of each tenant, then
/// the second one of each, and so on. `$tenant` is an expression for the tenant, as it is in the plan
/// of the operation. It must not fail for an unreadable row, which would keep all others from being
/// continued; such a row counts as one without a tenant. `$alias` names the subquery.
macro_rules! open {
    ($tenant:literal, $alias:literal) => {
        concat!(
            "SELECT id, operation FROM (SELECT id, operation, started_at, \
             row_number() OVER (PARTITION BY ",
            $tenant,
            " ORDER BY started_at, id) AS place FROM portunus_bulk \
             WHERE ended_at IS NULL AND started_at > $1)",
            $alias,
            " ORDER BY place, started_at, id LIMIT 100"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(super) const SQLITE_OPEN: &str = open!(
    "CASE WHEN json_valid(operation) THEN CASE WHEN json_valid(operation ->> 'plan') \
     THEN (operation ->> 'plan') ->> '$.by.user[1]' END END",
    ""
);
/// Before version 16, PostgreSQL cannot tell whether a text is JSON without failing. The plan is JSON
/// within JSON and begins with the operator: the text between two marks is the user, and the next one
/// is the tenant, still escaped. Neither mark can occur within an escaped text.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_OPEN: &str = open!(
    r#"split_part(split_part(operation, '"plan":"{\"by\":{\"user\":[\"', 2), '\",\"', 2)"#,
    " AS open"
);

/// Deletes the operations that ended before `$1`.
pub(crate) const FORGET: &str =
    "DELETE FROM portunus_bulk WHERE ended_at IS NOT NULL AND ended_at < $1";
