//! The statements about the primary keys of many owners.

/// The columns of a record in a join with other tables.
macro_rules! of_keys {
    () => {
        "portunus_keys.id, family, version, kind, environment, tenant_id, user_id, name, \
         description, masked, created_at, not_before, expires_at, enabled, revoked_at, \
         may_be_primary, record"
    };
}

/// The primary keys that were set (place 0), and the newest keys that can be primary (place 1), of
/// the owners of a JSON array `$1` of objects with number, tenant and user, which is absent if the
/// tenant itself is the owner; at `$2`, of any kind except `$3`.
macro_rules! primaries {
    ($from:literal, $number:literal, $tenant:literal, $user:literal) => {
        concat!(
            "SELECT ",
            $number,
            " AS number, CAST(0 AS BIGINT) AS place, ",
            of_keys!(),
            " FROM ",
            $from,
            " JOIN portunus_primaries ON owner_tenant = ",
            $tenant,
            " AND owner_user = COALESCE(",
            $user,
            ", '') AND owner_kind = CASE WHEN ",
            $user,
            " IS NULL THEN 'tenant_itself' ELSE 'user' END \
             JOIN portunus_keys ON portunus_keys.id = portunus_primaries.key_id",
            primaries!(@newest $from, $number, $tenant, $user, " IS NOT NULL",
                "newest.user_id = ", $user),
            primaries!(@newest $from, $number, $tenant, $user, " IS NULL",
                "newest.user_id IS NULL", "")
        )
    };
    (@newest $from:literal, $number:literal, $tenant:literal, $user:literal, $which:literal,
        $owner:literal, $is:literal) => {
        concat!(
            " UNION ALL SELECT ",
            $number,
            ", CAST(1 AS BIGINT), ",
            of_keys!(),
            " FROM ",
            $from,
            " JOIN portunus_keys ON portunus_keys.id = \
             (SELECT newest.id FROM portunus_keys AS newest WHERE newest.tenant_id = ",
            $tenant,
            " AND ",
            $owner,
            $is,
            " AND newest.kind <> $3 AND newest.revoked_at IS NULL \
             AND (newest.expires_at IS NULL OR newest.expires_at > $2) AND newest.may_be_primary = 1 \
             ORDER BY newest.created_at DESC, newest.id LIMIT 1) WHERE ",
            $user,
            $which
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) const SQLITE_PRIMARIES: &str = primaries!(
    "json_each($1) AS owner",
    "(owner.value ->> 'number')",
    "(owner.value ->> 'tenant')",
    "(owner.value ->> 'user')"
);
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_PRIMARIES: &str = primaries!(
    "json_to_recordset($1::json) AS owner (number bigint, tenant text, \"user\" text)",
    "owner.number",
    "owner.tenant",
    "owner.\"user\""
);

/// The numbers of those of the same owners of which no key was set that can be primary, as far as its
/// columns say. `OFFSET` keeps PostgreSQL from making a join of it, which would read all primary keys.
macro_rules! unpinned {
    ($from:literal, $number:literal, $tenant:literal, $user:literal) => {
        concat!(
            "SELECT ",
            $number,
            " AS number FROM ",
            $from,
            " WHERE NOT EXISTS (SELECT 1 FROM portunus_primaries \
             JOIN portunus_keys ON portunus_keys.id = portunus_primaries.key_id \
             WHERE owner_tenant = ",
            $tenant,
            " AND owner_user = COALESCE(",
            $user,
            ", '') AND owner_kind = CASE WHEN ",
            $user,
            " IS NULL THEN 'tenant_itself' ELSE 'user' END AND tenant_id = ",
            $tenant,
            " AND COALESCE(user_id, '') = COALESCE(",
            $user,
            ", '') AND kind <> $3 AND revoked_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $2) AND may_be_primary = 1 LIMIT 1 OFFSET 0)"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) const SQLITE_UNPINNED: &str = unpinned!(
    "json_each($1) AS owner",
    "(owner.value ->> 'number')",
    "(owner.value ->> 'tenant')",
    "(owner.value ->> 'user')"
);
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_UNPINNED: &str = unpinned!(
    "json_to_recordset($1::json) AS owner (number bigint, tenant text, \"user\" text)",
    "owner.number",
    "owner.tenant",
    "owner.\"user\""
);

macro_rules! set {
    ($values:literal, $from:literal) => {
        concat!(
            "INSERT INTO portunus_primaries (key_id, owner_kind, owner_tenant, owner_user) SELECT ",
            $values,
            $from,
            " WHERE 1 = 1 ON CONFLICT (owner_kind, owner_tenant, owner_user) \
             DO UPDATE SET key_id = excluded.key_id WHERE portunus_primaries.key_id <> excluded.key_id"
        )
    };
}

macro_rules! unset {
    ($values:literal, $from:literal) => {
        concat!(
            "DELETE FROM portunus_primaries WHERE (owner_kind, owner_tenant, owner_user) IN (SELECT ",
            $values,
            $from,
            ")"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) const SQLITE_SET: &str = set!(
    "value ->> 'key', value ->> 'kind', value ->> 'tenant', value ->> 'user'",
    " FROM json_each($1)"
);
#[cfg(feature = "sqlite")]
pub(crate) const SQLITE_UNSET: &str = unset!(
    "value ->> 'kind', value ->> 'tenant', value ->> 'user'",
    " FROM json_each($1)"
);
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_SET: &str = set!(
    "key, kind, tenant, \"user\"",
    " FROM json_to_recordset($1::json) AS given (key text, kind text, tenant text, \"user\" text)"
);
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_UNSET: &str = unset!(
    "kind, tenant, \"user\"",
    " FROM json_to_recordset($1::json) AS given (kind text, tenant text, \"user\" text)"
);
