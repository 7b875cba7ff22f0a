//! The SQL statements. Every value is bound; no string from a caller ever becomes part of a
//! statement.

/// The columns of a record except the JSON, as [`record`](crate::record) reads and writes them.
macro_rules! columns {
    () => {
        "id, family, version, kind, environment, tenant_id, user_id, name, description, masked, \
         created_at, not_before, expires_at, enabled, revoked_at, may_be_primary"
    };
}

/// The columns of a record, as [`record`](crate::record) reads and writes them.
macro_rules! record_columns {
    () => {
        concat!(columns!(), ", record")
    };
}

/// Without statistics, SQLite cannot tell which index is the most selective.
#[cfg(feature = "sqlite")]
macro_rules! indexed_by {
    ($index:literal) => {
        concat!(" INDEXED BY ", $index)
    };
}

/// PostgreSQL decides based on its statistics.
#[cfg(feature = "postgres")]
macro_rules! of_its_own {
    ($index:literal) => {
        ""
    };
}

pub(crate) mod events;
#[cfg(feature = "postgres")]
mod indexes;
pub(crate) mod keys;
#[cfg(test)]
mod plans;
#[cfg(any(test, debug_assertions))]
mod registry;

use portunus::store::OwnerRef;

use crate::operation::Migration;

#[cfg(debug_assertions)]
pub(crate) use registry::is_known;

/// A statement in three forms: for all keys of a tenant, for those of the tenant itself, and for
/// those of a user.
pub(crate) struct PerOwner([&'static str; 3]);

impl PerOwner {
    /// The form for an owner; `None` for an unknown kind of owner.
    pub(crate) fn of(&self, owner: &OwnerRef) -> Option<&'static str> {
        match owner {
            OwnerRef::Tenant(_) => Some(self.0[0]),
            OwnerRef::TenantItself(_) => Some(self.0[1]),
            OwnerRef::User(..) => Some(self.0[2]),
            _ => None,
        }
    }
}

/// `$1` is the tenant and `$2` the user, or an empty string.
macro_rules! per_owner {
    ($before:expr, $after:expr) => {
        PerOwner([
            concat!($before, "tenant_id = $1 AND $2 = ''", $after),
            concat!(
                $before,
                "tenant_id = $1 AND user_id IS NULL AND $2 = ''",
                $after
            ),
            concat!($before, "tenant_id = $1 AND user_id = $2", $after),
        ])
    };
}

/// The condition for active keys at `$3`; `$4` is the kind of key that never counts as active.
macro_rules! counts_as_active {
    () => {
        " AND kind <> $4 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)"
    };
}

/// A lookup of a single digest, which is the most frequent case: the keys with it, and whether it was
/// another key's before. Whether it is of a deleted key, or of one that has another digest now, does
/// not matter: there is no key then.
macro_rules! find_one {
    ($columns:expr) => {
        concat!("SELECT ", $columns, " FROM portunus_keys WHERE digest = $1")
    };
}

/// Whether the row's digest is recorded as that of another key.
macro_rules! is_of_another {
    () => {
        "(SELECT known.key_id <> portunus_keys.id FROM portunus_digests AS known \
         WHERE known.digest = portunus_keys.digest AND known.scheme = portunus_keys.scheme)"
    };
}

macro_rules! one_of_eight {
    () => {
        "IN ($1, $2, $3, $4, $5, $6, $7, $8)"
    };
}

/// A lookup of up to eight digests: the keys with these digests (0), and the ids of the keys with
/// which a digest was associated before: deleted keys (1), with their tenant if it is known, and keys
/// that have another digest now (2). The caller compares the schemes, so that it also notices unknown
/// ones.
pub(crate) const FIND: &str = concat!(
    "SELECT CAST(0 AS BIGINT) AS ended, id, scheme, digest, ",
    record_columns!(),
    " FROM portunus_keys WHERE digest ",
    one_of_eight!(),
    " UNION ALL SELECT CAST(CASE WHEN holder.id IS NULL THEN 1 ELSE 2 END AS BIGINT), \
     known.key_id, known.scheme, known.digest, \
     NULL, NULL, NULL, NULL, NULL, COALESCE(holder.tenant_id, portunus_deleted.tenant_id), \
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
     FROM portunus_digests AS known \
     LEFT JOIN portunus_keys AS holder ON holder.id = known.key_id \
     LEFT JOIN portunus_deleted ON portunus_deleted.key_id = known.key_id \
     WHERE known.digest ",
    one_of_eight!(),
    " AND (holder.id IS NULL OR holder.digest <> known.digest OR holder.scheme <> known.scheme)"
);

/// Selects one record.
pub(crate) const RECORD: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM portunus_keys WHERE id = $1"
);

/// The primary key that was set (place 0) and the newest key that can be primary (place 1). `$5` is
/// the kind of owner.
pub(crate) const PRIMARY: PerOwner = per_owner!(
    concat!(
        "SELECT CAST(0 AS BIGINT) AS place, the_set.* FROM (SELECT ",
        record_columns!(),
        " FROM portunus_keys WHERE id = (SELECT key_id FROM portunus_primaries \
         WHERE owner_kind = $5 AND owner_tenant = $1 AND owner_user = $2)) AS the_set \
         UNION ALL SELECT CAST(1 AS BIGINT) AS place, the_newest.* FROM (SELECT ",
        record_columns!(),
        " FROM portunus_keys WHERE "
    ),
    concat!(
        counts_as_active!(),
        " AND may_be_primary = 1 ORDER BY created_at DESC, id LIMIT 1) AS the_newest"
    )
);

/// The next `$3` users that own keys, by tenant and id, after the position `$1`, `$2`.
pub(crate) const OWNERS: &str = "SELECT DISTINCT tenant_id, user_id FROM portunus_keys \
     WHERE user_id IS NOT NULL AND (tenant_id, user_id) > ($1, $2) \
     ORDER BY tenant_id, user_id LIMIT $3";

/// All records of user `$2` of tenant `$1`, newest first.
pub(crate) const RECORDS_OF_USER: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM portunus_keys WHERE tenant_id = $1 AND user_id = $2 ORDER BY created_at DESC, id"
);

/// The number of an owner's active keys.
pub(crate) const COUNT_ACTIVE: PerOwner = per_owner!(
    "SELECT count(*) FROM portunus_keys WHERE ",
    counts_as_active!()
);

pub(crate) const SIGNING: &str = "SELECT signing FROM portunus_keys WHERE id = $1";
pub(crate) const TENANT_OF: &str = "SELECT tenant_id FROM portunus_keys WHERE id = $1";
pub(crate) const DIGEST_OF: &str = "SELECT scheme, digest FROM portunus_keys WHERE id = $1";
pub(crate) const IS_ID_KNOWN: &str =
    "SELECT key_id FROM portunus_digests WHERE key_id = $1 LIMIT 1";
pub(crate) const IS_DIGEST_KNOWN: &str =
    "SELECT key_id FROM portunus_digests WHERE digest = $1 AND scheme = $2";

pub(crate) const KNOW_DIGEST: &str = "INSERT INTO portunus_digests (digest, scheme, key_id) \
     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

pub(crate) const INSERT: &str = concat!(
    "INSERT INTO portunus_keys (",
    record_columns!(),
    ", digest, scheme) VALUES \
     ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
     ON CONFLICT (id) DO NOTHING"
);

pub(crate) const REPLACE: &str = "UPDATE portunus_keys SET family = $2, version = $3, kind = $4, \
     environment = $5, tenant_id = $6, user_id = $7, name = $8, description = $9, masked = $10, \
     created_at = $11, not_before = $12, expires_at = $13, enabled = $14, revoked_at = $15, \
     may_be_primary = $16, record = $17 WHERE id = $1";

pub(crate) const REHASH: &str = "UPDATE portunus_keys SET digest = $2, scheme = $3 WHERE id = $1";
pub(crate) const SET_SIGNING: &str = "UPDATE portunus_keys SET signing = $2 WHERE id = $1";

pub(crate) const KNOW_DELETED: &str = "INSERT INTO portunus_deleted (key_id, tenant_id) \
     SELECT id, tenant_id FROM portunus_keys WHERE id = $1";
pub(crate) const DELETE: &str = "DELETE FROM portunus_keys WHERE id = $1";
pub(crate) const DELETE_USAGE: &str = "DELETE FROM portunus_usage WHERE key_id = $1";
/// Deletes at most `$2` hours of the key `$1`, oldest first.
pub(crate) const DELETE_USAGE_BY_HOUR: &str = "DELETE FROM portunus_usage_by_hour \
     WHERE key_id = $1 AND start IN (SELECT start FROM portunus_usage_by_hour \
     WHERE key_id = $1 ORDER BY start LIMIT $2)";
pub(crate) const DELETE_PRIMARY: &str = "DELETE FROM portunus_primaries WHERE key_id = $1";

pub(crate) const SET_PRIMARY: &str = "INSERT INTO portunus_primaries \
     (owner_kind, owner_tenant, owner_user, key_id) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (owner_kind, owner_tenant, owner_user) DO UPDATE SET key_id = excluded.key_id";
pub(crate) const UNSET_PRIMARY: &str = "DELETE FROM portunus_primaries \
     WHERE owner_kind = $1 AND owner_tenant = $2 AND owner_user = $3";

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

/// Adds usage from a JSON array `$1` of objects with id, uses, at, ip and hour. No id occurs twice
/// in it.
macro_rules! add_usage {
    ($from:literal, $id:literal, $uses:literal, $at:literal, $ip:literal) => {
        concat!(
            "INSERT INTO portunus_usage (key_id, uses, last_used_at, last_ip) SELECT portunus_keys.id, ",
            $uses,
            ", ",
            $at,
            ", ",
            $ip,
            " FROM ",
            $from,
            " JOIN portunus_keys ON portunus_keys.id = ",
            $id,
            " WHERE 1 = 1 ORDER BY portunus_keys.id ON CONFLICT (key_id) DO UPDATE SET ",
            added_up!("portunus_usage"),
            ", last_ip = CASE WHEN portunus_usage.last_used_at <= excluded.last_used_at \
             THEN COALESCE(excluded.last_ip, portunus_usage.last_ip) ELSE portunus_usage.last_ip END, \
             last_used_at = CASE WHEN portunus_usage.last_used_at <= excluded.last_used_at \
             THEN excluded.last_used_at ELSE portunus_usage.last_used_at END"
        )
    };
}

macro_rules! add_usage_by_hour {
    ($from:literal, $id:literal, $hour:literal, $uses:literal) => {
        concat!(
            "INSERT INTO portunus_usage_by_hour (key_id, start, uses) SELECT portunus_keys.id, ",
            $hour,
            ", ",
            $uses,
            " FROM ",
            $from,
            " JOIN portunus_keys ON portunus_keys.id = ",
            $id,
            " WHERE 1 = 1 ORDER BY portunus_keys.id ON CONFLICT (key_id, start) DO UPDATE SET ",
            added_up!("portunus_usage_by_hour")
        )
    };
}

/// Sends the payload `$1` to the listeners of channel `portunus_changes` when the transaction
/// commits.
#[cfg(feature = "postgres")]
pub(crate) const NOTIFY: &str = "SELECT pg_notify('portunus_changes', $1)";

/// The newest step of the schema.
pub(crate) const NEWEST_STEP: &str = "SELECT MAX(version) FROM portunus_schema";
/// The oldest schema that a program must know.
pub(crate) const OLDEST_PROGRAM: &str =
    "SELECT MAX(COALESCE(oldest, version)) FROM portunus_schema";
/// Records a step, before the table has the column `oldest`.
pub(crate) const NOTE_EARLY_STEP: &str = "INSERT INTO portunus_schema (version) VALUES ($1)";
/// Records a step.
pub(crate) const NOTE_STEP: &str = "INSERT INTO portunus_schema (version, oldest) VALUES ($1, $2)";

/// Whether the index `$1` can be used; no row if it does not exist.
#[cfg(feature = "postgres")]
pub(crate) const INDEX_STATE: &str = "SELECT CAST(CAST(indisvalid AS INT) AS BIGINT) \
     FROM pg_index WHERE indexrelid = to_regclass($1)";

/// Whether the server is a replica.
#[cfg(feature = "postgres")]
pub(crate) const IS_REPLICA: &str = "SELECT CAST(CAST(pg_is_in_recovery() AS INT) AS BIGINT)";
/// The tables on which the role lacks SELECT or INSERT, and whether it has SELECT.
#[cfg(feature = "postgres")]
pub(crate) const MISSING_RIGHTS: &str = "SELECT CAST(relname AS TEXT), \
     CAST(CAST(has_table_privilege(oid, 'SELECT') AS INT) AS BIGINT) FROM pg_class WHERE oid IN \
     (to_regclass('portunus_keys'), to_regclass('portunus_digests'), to_regclass('portunus_deleted'), \
     to_regclass('portunus_primaries'), to_regclass('portunus_usage'), \
     to_regclass('portunus_usage_by_hour'), to_regclass('portunus_events'), \
     to_regclass('portunus_event_parties')) AND NOT (has_table_privilege(oid, 'SELECT') \
     AND has_table_privilege(oid, 'INSERT')) ORDER BY relname";

/// Takes the turn to create indexes until the end of the transaction, if it is free. It does not
/// wait: creating an index waits for every statement that began before, including a waiting one.
#[cfg(feature = "postgres")]
pub(crate) const TAKE_TURN: &str =
    "SELECT CAST(CAST(pg_try_advisory_xact_lock(8101251880330302464) AS INT) AS BIGINT)";

/// Counts a change of keys.
#[cfg(feature = "sqlite")]
const COUNT_CHANGE: &str = "INSERT INTO portunus_changes (only, counter) VALUES (1, 1) \
     ON CONFLICT (only) DO UPDATE SET counter = counter + 1";
/// Records the content of the last counted change, `$1`, in the slot of a much older one.
#[cfg(feature = "sqlite")]
const REMEMBER_CHANGE: &str = "INSERT INTO portunus_recent_changes (slot, counter, what) \
     SELECT counter % 1024, counter, $1 FROM portunus_changes WHERE only = 1 \
     ON CONFLICT (slot) DO UPDATE SET counter = excluded.counter, what = excluded.what";
/// The number of changes that are remembered.
#[cfg(feature = "sqlite")]
pub(crate) const REMEMBERED_CHANGES: i64 = 1024;
/// The content of the changes after number `$1` up to number `$2`, as far as it is remembered.
#[cfg(feature = "sqlite")]
pub(crate) const RECENT_CHANGES: &str = "WITH RECURSIVE missed (counter) AS \
     (SELECT $1 + 1 UNION ALL SELECT counter + 1 FROM missed WHERE counter < $2) \
     SELECT what FROM missed JOIN portunus_recent_changes AS recent \
     ON recent.slot = missed.counter % 1024 AND recent.counter = missed.counter";
/// The number of counted changes of keys.
#[cfg(feature = "sqlite")]
pub(crate) const CHANGES: &str =
    "SELECT COALESCE(MAX(counter), 0) FROM portunus_changes WHERE only = 1";
/// The file of the database; empty if it has none.
#[cfg(feature = "sqlite")]
pub(crate) const FILE: &str = "SELECT file FROM pragma_database_list WHERE name = 'main'";
/// Fails if the file is read-only.
#[cfg(feature = "sqlite")]
pub(crate) const CHANGE_NOTHING: &str = "DELETE FROM portunus_schema WHERE version < 0";
/// Differs after another connection has written.
#[cfg(feature = "sqlite")]
pub(crate) const DATA_VERSION: &str = "PRAGMA data_version";

/// How a write announces a change of data that others may have cached.
#[derive(Clone, Copy)]
pub(crate) enum Tell {
    /// With a statement without values that counts the change, and one that records it.
    #[cfg(feature = "sqlite")]
    Count(&'static str, &'static str),
    /// With a statement that takes the change.
    #[cfg(feature = "postgres")]
    Notify(&'static str),
}

/// The statements that differ between the two databases.
pub(crate) struct Dialect {
    /// Selects the keys with a digest: whether it is recorded as that of another key, the scheme, and
    /// the record.
    pub(crate) find_one: &'static str,
    /// Whether the first column of that is an array of all of them except the JSON. On SQLite, the
    /// driver copies each column on its own, which takes longer than to find the row.
    pub(crate) is_packed: bool,
    pub(crate) keys: &'static keys::Lanes,
    /// Selects the primary keys of several owners.
    pub(crate) primaries: &'static str,
    pub(crate) usage_of: &'static str,
    pub(crate) add_usage: &'static str,
    pub(crate) add_usage_by_hour: &'static str,
    /// Waits until no other transaction holds any of the names of the JSON array `$1`, and holds
    /// them until the end of this one; `$2` is the kind of names. `None` if there is only one
    /// writing transaction at a time anyway.
    pub(crate) hold: Option<&'static str>,
    pub(crate) events: &'static events::Events,
    pub(crate) tell: Tell,
    /// The schema, step by step.
    pub(crate) migrations: &'static [Migration],
    /// Indexes that are created one by one, concurrently with other operations, by name.
    #[cfg(feature = "postgres")]
    pub(crate) indexes: &'static [(&'static str, &'static str)],
    /// Creates those indexes on tables without rows.
    pub(crate) indexes_at_once: Option<&'static str>,
    /// Creates the table of steps if it does not exist.
    pub(crate) version_table: &'static str,
    /// Counts the tables of steps.
    pub(crate) has_schema: &'static str,
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Dialect = Dialect {
    find_one: find_one!(concat!(
        "json_array(COALESCE(",
        is_of_another!(),
        ", 0), scheme, ",
        columns!(),
        "), record"
    )),
    is_packed: true,
    keys: &keys::SQLITE,
    primaries: keys::SQLITE_PRIMARIES,
    usage_of: usage_of!("json_each($1)", "asked.value"),
    add_usage: add_usage!(
        "json_each($1)",
        "(value ->> 'key')",
        "value ->> 'uses'",
        "value ->> 'at'",
        "value ->> 'ip'"
    ),
    add_usage_by_hour: add_usage_by_hour!(
        "json_each($1)",
        "(value ->> 'key')",
        "value ->> 'hour'",
        "value ->> 'uses'"
    ),
    hold: None,
    events: &events::SQLITE,
    tell: Tell::Count(COUNT_CHANGE, REMEMBER_CHANGE),
    migrations: &[
        Migration {
            script: include_str!("../schema/sqlite_1.sql"),
            oldest: 1,
        },
        Migration {
            script: include_str!("../schema/sqlite_2.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/sqlite_3.sql"),
            oldest: 2,
        },
    ],
    #[cfg(feature = "postgres")]
    indexes: &[],
    indexes_at_once: None,
    version_table: "CREATE TABLE IF NOT EXISTS portunus_schema (version INTEGER NOT NULL PRIMARY KEY) STRICT",
    has_schema: "SELECT count(*) FROM sqlite_master WHERE name = 'portunus_schema'",
};

#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Dialect = Dialect {
    find_one: find_one!(concat!(
        "CAST(CAST(COALESCE(",
        is_of_another!(),
        ", FALSE) AS INT) AS BIGINT), scheme, ",
        record_columns!()
    )),
    is_packed: false,
    keys: &keys::POSTGRES,
    primaries: keys::POSTGRES_PRIMARIES,
    usage_of: usage_of!("json_array_elements_text($1::json)", "asked"),
    add_usage: add_usage!(
        "json_to_recordset($1::json) AS delta (key text, uses bigint, at bigint, ip text)",
        "delta.key",
        "delta.uses",
        "delta.at",
        "delta.ip"
    ),
    add_usage_by_hour: add_usage_by_hour!(
        "json_to_recordset($1::json) AS delta (key text, uses bigint, hour bigint)",
        "delta.key",
        "delta.hour",
        "delta.uses"
    ),
    hold: Some(
        // At most a thousand locks of each kind, whatever the size of a batch: unrelated names that
        // share a lock only wait unnecessarily. They are taken in order, so that transactions never
        // deadlock.
        "SELECT pg_advisory_xact_lock(slot) FROM (SELECT DISTINCT \
         8101251880330297344 + $2 * 1024 + (hashtextextended(name, 0) & 1023) AS slot \
         FROM json_array_elements_text($1::json) AS names (name) ORDER BY slot) AS slots",
    ),
    events: &events::POSTGRES,
    tell: Tell::Notify(NOTIFY),
    migrations: &[
        Migration {
            script: include_str!("../schema/postgres_1.sql"),
            oldest: 1,
        },
        Migration {
            script: include_str!("../schema/postgres_2.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/postgres_3.sql"),
            oldest: 2,
        },
    ],
    indexes: indexes::POSTGRES,
    indexes_at_once: Some(indexes::AT_ONCE),
    version_table: "CREATE TABLE IF NOT EXISTS portunus_schema (version BIGINT NOT NULL PRIMARY KEY)",
    has_schema: "SELECT count(*) FROM pg_class WHERE oid = to_regclass('portunus_schema')",
};
