//! The statements that insert many keys, which save a round trip for each.

/// Inserts the keys of a JSON array `$1` of objects with the columns of a record, its digest in
/// hexadecimal, its scheme, and the day of its last use.
pub(crate) struct Many {
    /// One of the ids that were ever used.
    pub(crate) known_id: &'static str,
    /// Records those digests that are not known.
    pub(crate) know_digests: &'static str,
    /// Inserts those keys whose id does not exist.
    pub(crate) insert: &'static str,
}

macro_rules! many {
    ($from:literal, $id:literal, $digest:literal, $scheme:literal, $used:literal, $values:expr) => {
        Many {
            known_id: concat!(
                "SELECT key_id FROM ",
                $from,
                " JOIN portunus_digests ON portunus_digests.key_id = ",
                $id,
                " LIMIT 1"
            ),
            know_digests: concat!(
                "INSERT INTO portunus_digests (digest, scheme, key_id) SELECT ",
                $digest,
                ", ",
                $scheme,
                ", ",
                $id,
                " FROM ",
                $from,
                " WHERE 1 = 1 ON CONFLICT DO NOTHING"
            ),
            insert: concat!(
                "INSERT INTO portunus_keys (digest, scheme, used_on, ",
                record_columns!(),
                ") SELECT ",
                $digest,
                ", ",
                $scheme,
                ", ",
                $used,
                ", ",
                $values,
                " FROM ",
                $from,
                " WHERE 1 = 1 ON CONFLICT (id) DO NOTHING"
            ),
        }
    };
}

#[cfg(feature = "sqlite")]
pub(super) const SQLITE: Many = many!(
    "json_each($1) AS given",
    "(given.value ->> 'id')",
    "unhex(given.value ->> 'digest')",
    "given.value ->> 'scheme'",
    "given.value ->> 'used_on'",
    "given.value ->> 'id', given.value ->> 'family', given.value ->> 'version', \
     given.value ->> 'kind', given.value ->> 'environment', given.value ->> 'tenant_id', \
     given.value ->> 'user_id', given.value ->> 'name', given.value ->> 'description', \
     given.value ->> 'masked', given.value ->> 'created_at', given.value ->> 'not_before', \
     given.value ->> 'expires_at', given.value ->> 'enabled', given.value ->> 'revoked_at', \
     given.value ->> 'may_be_primary', given.value ->> 'record'"
);

#[cfg(feature = "postgres")]
pub(super) const POSTGRES: Many = many!(
    "json_to_recordset($1::json) AS given (id text, family text, version bigint, kind text, \
     environment text, tenant_id text, user_id text, name text, description text, masked text, \
     created_at bigint, not_before bigint, expires_at bigint, enabled bigint, revoked_at bigint, \
     may_be_primary bigint, record text, digest text, scheme text, used_on bigint)",
    "given.id",
    "decode(given.digest, 'hex')",
    "given.scheme",
    "given.used_on",
    "given.id, family, version, kind, environment, tenant_id, user_id, name, description, masked, \
     created_at, not_before, expires_at, enabled, revoked_at, may_be_primary, record"
);
