//! The statements about lookups by digest.

#[cfg(feature = "postgres")]
macro_rules! one_of_eight {
    () => {
        "IN ($1, $2, $3, $4, $5, $6, $7, $8)"
    };
}
/// With statistics, SQLite compiles a statement again each time that a value is bound which these may
/// say something about. They say nothing about the result of a subquery.
#[cfg(feature = "sqlite")]
macro_rules! one_of_eight_unseen {
    () => {
        "IN ((SELECT $1), (SELECT $2), (SELECT $3), (SELECT $4), (SELECT $5), (SELECT $6), (SELECT $7), \
         (SELECT $8))"
    };
}

/// A lookup of a single digest, which is the most frequent case: the keys with it, and whether it was
/// another key's before. Whether it is of a deleted key, or of one that has another digest now, does
/// not matter: there is no key then.
macro_rules! find_one {
    ($columns:expr, $digest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM portunus_keys WHERE digest = ",
            $digest
        )
    };
}

/// The same for up to eight digests of different secrets, each row with its digest.
macro_rules! find_each {
    ($columns:expr, $digests:expr) => {
        concat!(
            "SELECT digest, ",
            $columns,
            " FROM portunus_keys WHERE digest ",
            $digests
        )
    };
}

/// Whether the row's digest is recorded as that of another key.
macro_rules! is_of_another {
    () => {
        "(SELECT known.key_id <> portunus_keys.id FROM portunus_digests AS known \
         WHERE known.digest = portunus_keys.digest AND known.scheme = portunus_keys.scheme)"
    };
}

/// What a lookup reads.
#[cfg(feature = "sqlite")]
macro_rules! packed {
    () => {
        concat!(
            "json_array(COALESCE(",
            is_of_another!(),
            ", 0), scheme, ",
            columns!(),
            "), record"
        )
    };
}
#[cfg(feature = "postgres")]
macro_rules! unpacked {
    () => {
        concat!(
            "CAST(CAST(COALESCE(",
            is_of_another!(),
            ", FALSE) AS INT) AS BIGINT), scheme, ",
            record_columns!()
        )
    };
}

/// A lookup of up to eight digests: the keys with these digests (0), and the ids of the keys with
/// which a digest was associated before: deleted keys (1), with their tenant if it is known, and keys
/// that have another digest now (2). The caller compares the schemes, so that it also notices unknown
/// ones.
macro_rules! find {
    ($digests:expr) => {
        concat!(
            "SELECT CAST(0 AS BIGINT) AS ended, id, scheme, digest, ",
            record_columns!(),
            " FROM portunus_keys WHERE digest ",
            $digests,
            " UNION ALL SELECT CAST(CASE WHEN holder.id IS NULL THEN 1 ELSE 2 END AS BIGINT), \
             known.key_id, known.scheme, known.digest, \
             NULL, NULL, NULL, NULL, NULL, COALESCE(holder.tenant_id, portunus_deleted.tenant_id), \
             NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
             FROM portunus_digests AS known \
             LEFT JOIN portunus_keys AS holder ON holder.id = known.key_id \
             LEFT JOIN portunus_deleted ON portunus_deleted.key_id = known.key_id \
             WHERE known.digest ",
            $digests,
            " AND (holder.id IS NULL OR holder.digest <> known.digest OR holder.scheme <> known.scheme)"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(super) const SQLITE: &str = find!(one_of_eight_unseen!());
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_ONE: &str = find_one!(packed!(), "(SELECT $1)");
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_EACH: &str = find_each!(packed!(), one_of_eight_unseen!());
#[cfg(feature = "postgres")]
pub(super) const POSTGRES: &str = find!(one_of_eight!());
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_ONE: &str = find_one!(unpacked!(), "$1");
#[cfg(feature = "postgres")]
pub(super) const POSTGRES_EACH: &str = find_each!(unpacked!(), one_of_eight!());
