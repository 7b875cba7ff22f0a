//! The statements that insert many keys, which save a round trip for each.

/// The statements about keys of a JSON array `$1` of objects.
pub(crate) struct Many {
    /// A row if one of the ids was ever used, or one of the digests. Reads id, digest in hexadecimal,
    /// and scheme.
    pub(crate) known: &'static str,
    /// Records those digests that are not known. Reads the same.
    pub(crate) know_digests: &'static str,
    /// Inserts those keys whose id does not exist. Reads in addition the other columns of a record,
    /// and the day of its last use.
    pub(crate) insert: &'static str,
}

macro_rules! many {
    ($digests:literal, $keys:literal, $id:literal, $digest:literal, $scheme:literal, $used:literal,
        $values:expr) => {
        Many {
            known: concat!(
                $digests,
                "SELECT portunus_digests.key_id FROM given \
                 JOIN portunus_digests ON portunus_digests.key_id = ",
                $id,
                " UNION ALL SELECT portunus_digests.key_id FROM given \
                 JOIN portunus_digests ON portunus_digests.digest = ",
                $digest,
                " AND portunus_digests.scheme = ",
                $scheme,
                " UNION ALL SELECT portunus_keys.id FROM given \
                 JOIN portunus_keys ON portunus_keys.id = ",
                $id,
                " LIMIT 1"
            ),
            know_digests: concat!(
                $digests,
                "INSERT INTO portunus_digests (digest, scheme, key_id) SELECT ",
                $digest,
                ", ",
                $scheme,
                ", ",
                $id,
                " FROM given WHERE 1 = 1 ON CONFLICT DO NOTHING"
            ),
            insert: concat!(
                $keys,
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
                " FROM given WHERE 1 = 1 ON CONFLICT (id) DO NOTHING"
            ),
        }
    };
}

/// Each object is made into a text once, and not for each of its members.
#[cfg(feature = "sqlite")]
pub(super) const SQLITE: Many = many!(
    "WITH given (one) AS MATERIALIZED (SELECT value FROM json_each($1)) ",
    "WITH given (one) AS MATERIALIZED (SELECT value FROM json_each($1)) ",
    "(one ->> 'id')",
    "unhex(one ->> 'digest')",
    "(one ->> 'scheme')",
    "one ->> 'used_on'",
    "one ->> 'id', one ->> 'family', one ->> 'version', one ->> 'kind', one ->> 'environment', \
     one ->> 'tenant_id', one ->> 'user_id', one ->> 'name', one ->> 'description', \
     one ->> 'masked', one ->> 'created_at', one ->> 'not_before', one ->> 'expires_at', \
     one ->> 'enabled', one ->> 'revoked_at', one ->> 'may_be_primary', one ->> 'record'"
);

#[cfg(feature = "postgres")]
pub(super) const POSTGRES: Many = many!(
    "WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS given \
     (id text, digest text, scheme text)) ",
    "WITH given AS (SELECT * FROM json_to_recordset($1::json) AS given (id text, family text, \
     version bigint, kind text, environment text, tenant_id text, user_id text, name text, \
     description text, masked text, created_at bigint, not_before bigint, expires_at bigint, \
     enabled bigint, revoked_at bigint, may_be_primary bigint, record text, digest text, \
     scheme text, used_on bigint)) ",
    "given.id",
    "decode(given.digest, 'hex')",
    "given.scheme",
    "given.used_on",
    "given.id, family, version, kind, environment, tenant_id, user_id, name, description, masked, \
     created_at, not_before, expires_at, enabled, revoked_at, may_be_primary, record"
);
