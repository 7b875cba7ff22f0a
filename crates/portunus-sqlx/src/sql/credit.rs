//! The statements about credits.

pub(crate) const LOAD: &str = "SELECT version, state FROM portunus_credits WHERE account = $1";
/// Adds an account at version 1.
pub(crate) const ADD: &str = "INSERT INTO portunus_credits (account, version, state) \
     VALUES ($1, 1, $2) ON CONFLICT (account) DO NOTHING";
/// Replaces the text of an account at version `$3`. Of concurrent writers of a version, one changes a
/// row: the others wait for it, and then find another version.
pub(crate) const REPLACE: &str = "UPDATE portunus_credits SET version = version + 1, state = $2 \
     WHERE account = $1 AND version = $3";
/// At most `$3` entries after number `$2`.
pub(crate) const ENTRIES: &str = "SELECT number, at, grant_id, kind, change, taken_id \
     FROM portunus_credit_entries WHERE account = $1 AND number > $2 ORDER BY number LIMIT $3";

/// The next `$2` accounts after the account `$1`.
pub(crate) const ACCOUNTS: &str = "SELECT account, version, state FROM portunus_credits \
     WHERE account > $1 ORDER BY account LIMIT $2";
/// Deletes at most `$3` entries up to number `$2`, oldest first.
pub(crate) const FORGET: &str = "DELETE FROM portunus_credit_entries \
     WHERE account = $1 AND number IN (SELECT number FROM portunus_credit_entries \
     WHERE account = $1 AND number <= $2 ORDER BY number LIMIT $3)";

/// Append the entries of a JSON array `$2` to the ledger of the account `$1`. An entry with the number
/// of a stored one is an error.
macro_rules! append {
    ($values:literal, $from:literal) => {
        concat!(
            "INSERT INTO portunus_credit_entries \
             (account, number, at, grant_id, kind, change, taken_id) SELECT $1, ",
            $values,
            " FROM ",
            $from
        )
    };
}

#[cfg(feature = "sqlite")]
pub(super) const SQLITE_APPEND: &str = append!(
    "value ->> 'number', value ->> 'at_ms', value ->> 'grant', value ->> 'kind', \
     value ->> 'change', value ->> 'taken'",
    "json_each($2)"
);
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_APPEND: &str = append!(
    "number, at_ms, \"grant\", kind, change, taken",
    "json_to_recordset($2::json) AS given \
     (number bigint, at_ms bigint, \"grant\" text, kind text, change bigint, taken text)"
);
