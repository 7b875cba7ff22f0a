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
    ($index:expr) => {
        concat!(" INDEXED BY ", $index)
    };
}

/// PostgreSQL decides based on its statistics.
#[cfg(feature = "postgres")]
macro_rules! of_its_own {
    ($index:expr) => {
        ""
    };
}

pub(crate) mod bulk;
pub(crate) mod credit;
pub(crate) mod events;
pub(crate) mod find;
#[cfg(feature = "postgres")]
mod indexes;
pub(crate) mod insert;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod outbox;
#[cfg(test)]
mod plans;
#[cfg(any(test, debug_assertions))]
mod registry;
pub(crate) mod usage;

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

/// The same, without the second key of each family. Grouped by an expression: SQLite would read the
/// keys of all users of the tenant from the index of families, to save a sort.
pub(crate) const COUNT_FAMILIES: PerOwner = per_owner!(
    "SELECT CAST(COALESCE(sum(CASE keys WHEN 1 THEN 1 ELSE keys - 1 END), 0) AS BIGINT) \
     FROM (SELECT count(*) AS keys FROM portunus_keys WHERE ",
    concat!(counts_as_active!(), " GROUP BY family || '') AS families")
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
pub(crate) const DELETE_PRIMARY: &str = "DELETE FROM portunus_primaries WHERE key_id = $1";

pub(crate) const SET_PRIMARY: &str = "INSERT INTO portunus_primaries \
     (owner_kind, owner_tenant, owner_user, key_id) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (owner_kind, owner_tenant, owner_user) DO UPDATE SET key_id = excluded.key_id";
pub(crate) const UNSET_PRIMARY: &str = "DELETE FROM portunus_primaries \
     WHERE owner_kind = $1 AND owner_tenant = $2 AND owner_user = $3";

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

/// Whether the server is a replica, and when it was started, in microseconds.
#[cfg(feature = "postgres")]
macro_rules! about_server {
    () => {
        "CAST(CAST(pg_is_in_recovery() AS INT) AS BIGINT), \
         CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT)"
    };
}
#[cfg(feature = "postgres")]
pub(crate) use about_server;
#[cfg(feature = "postgres")]
pub(crate) const ABOUT_SERVER: &str = concat!("SELECT ", about_server!());
/// The server's time of day, in milliseconds.
#[cfg(feature = "postgres")]
pub(crate) const SERVER_TIME: &str =
    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
/// The tables on which the role lacks SELECT or INSERT, and whether it has SELECT.
#[cfg(feature = "postgres")]
pub(crate) const MISSING_RIGHTS: &str = "SELECT CAST(relname AS TEXT), \
     CAST(CAST(has_table_privilege(oid, 'SELECT') AS INT) AS BIGINT) FROM pg_class WHERE oid IN \
     (to_regclass('portunus_keys'), to_regclass('portunus_digests'), to_regclass('portunus_deleted'), \
     to_regclass('portunus_primaries'), to_regclass('portunus_usage'), \
     to_regclass('portunus_usage_by_hour'), to_regclass('portunus_events'), \
     to_regclass('portunus_event_parties'), to_regclass('portunus_outbox'), \
     to_regclass('portunus_bulk'), to_regclass('portunus_credits'), \
     to_regclass('portunus_credit_entries')) \
     AND NOT (has_table_privilege(oid, 'SELECT') \
     AND has_table_privilege(oid, 'INSERT')) ORDER BY relname";

/// The isolation level of a transaction, which waits for the disk at its end from now on.
#[cfg(feature = "postgres")]
pub(crate) const ISOLATION: &str = "SELECT current_setting('transaction_isolation'), \
     CASE current_setting('synchronous_commit') WHEN 'off' \
     THEN set_config('synchronous_commit', 'on', true) END";

/// The search path of a connection, and how to set it until the end of the transaction.
#[cfg(feature = "postgres")]
pub(crate) const SEARCH_PATH: &str = "SELECT current_setting('search_path')";
#[cfg(feature = "postgres")]
pub(crate) const SET_SEARCH_PATH: &str = "SELECT set_config('search_path', $1, true)";

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
    /// Selects the keys with one of eight digests of one secret, and what else the digests were used for.
    pub(crate) find: &'static str,
    /// Selects the keys with a digest: whether it is recorded as that of another key, the scheme, and
    /// the record.
    pub(crate) find_one: &'static str,
    /// The same for each of eight digests, after the digest.
    pub(crate) find_each: &'static str,
    /// Whether the first column of these is an array of all of them except the JSON. On SQLite, the
    /// driver copies each column on its own, which takes longer than to find the row.
    pub(crate) is_packed: bool,
    pub(crate) lists: &'static lists::Lanes,
    /// Selects the primary keys of several owners.
    pub(crate) primaries: &'static str,
    /// Selects those of several owners whose primary key is not one that was set.
    pub(crate) unpinned: &'static str,
    /// Sets the primary keys of the owners of a JSON array `$1` of objects with kind, tenant, user
    /// and key.
    pub(crate) set_primaries: &'static str,
    /// Clears those of such owners.
    pub(crate) unset_primaries: &'static str,
    pub(crate) usage_of: &'static str,
    /// Records in the rows of some keys that they were used, from such an array.
    pub(crate) note_use: &'static str,
    /// Add usage from a JSON array `$1` of objects with key, uses, at, ip and hour. No key occurs
    /// twice in it.
    pub(crate) add_usage: &'static [&'static str],
    /// The same for the totals only.
    pub(crate) add_totals: &'static str,
    /// Selects the bulk operations that have not ended.
    pub(crate) open_bulk: &'static str,
    /// Deletes recorded changes.
    pub(crate) forget_recorded: &'static str,
    /// Appends entries to the ledger of an account.
    pub(crate) append_entries: &'static str,
    /// Inserts many keys.
    pub(crate) insert_many: &'static insert::Many,
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
    /// Names the database and the tables that a connection uses.
    pub(crate) place: &'static str,
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Dialect = Dialect {
    find: find::SQLITE,
    find_one: find::SQLITE_ONE,
    find_each: find::SQLITE_EACH,
    is_packed: true,
    lists: &lists::SQLITE,
    primaries: keys::SQLITE_PRIMARIES,
    unpinned: keys::SQLITE_UNPINNED,
    set_primaries: keys::SQLITE_SET,
    unset_primaries: keys::SQLITE_UNSET,
    usage_of: usage::SQLITE_OF,
    note_use: usage::SQLITE_NOTE,
    add_usage: &usage::SQLITE_ADD,
    add_totals: usage::SQLITE_ADD_TOTALS,
    open_bulk: bulk::SQLITE_OPEN,
    forget_recorded: outbox::SQLITE_FORGET,
    append_entries: credit::SQLITE_APPEND,
    insert_many: &insert::SQLITE,
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
        Migration {
            script: include_str!("../schema/sqlite_4.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/sqlite_5.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/sqlite_6.sql"),
            oldest: 2,
        },
    ],
    #[cfg(feature = "postgres")]
    indexes: &[],
    indexes_at_once: None,
    version_table: "CREATE TABLE IF NOT EXISTS portunus_schema (version INTEGER NOT NULL PRIMARY KEY) STRICT",
    has_schema: "SELECT count(*) FROM sqlite_master WHERE name = 'portunus_schema'",
    place: "SELECT CASE WHEN EXISTS \
         (SELECT 1 FROM sqlite_temp_master WHERE name LIKE 'portunus!_%' ESCAPE '!') \
         THEN 'temporary tables' ELSE file END FROM pragma_database_list WHERE name = 'main'",
};

#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Dialect = Dialect {
    find: find::POSTGRES,
    find_one: find::POSTGRES_ONE,
    find_each: find::POSTGRES_EACH,
    is_packed: false,
    lists: &lists::POSTGRES,
    primaries: keys::POSTGRES_PRIMARIES,
    unpinned: keys::POSTGRES_UNPINNED,
    set_primaries: keys::POSTGRES_SET,
    unset_primaries: keys::POSTGRES_UNSET,
    usage_of: usage::POSTGRES_OF,
    note_use: usage::POSTGRES_NOTE,
    add_usage: &usage::POSTGRES_ADD,
    add_totals: usage::POSTGRES_ADD_TOTALS,
    open_bulk: bulk::POSTGRES_OPEN,
    forget_recorded: outbox::POSTGRES_FORGET,
    append_entries: credit::POSTGRES_APPEND,
    insert_many: &insert::POSTGRES,
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
        Migration {
            script: include_str!("../schema/postgres_4.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/postgres_5.sql"),
            oldest: 2,
        },
        Migration {
            script: include_str!("../schema/postgres_6.sql"),
            oldest: 2,
        },
    ],
    indexes: indexes::POSTGRES,
    indexes_at_once: Some(indexes::AT_ONCE),
    version_table: "CREATE TABLE IF NOT EXISTS portunus_schema (version BIGINT NOT NULL PRIMARY KEY)",
    has_schema: "SELECT count(*) FROM pg_class WHERE oid = to_regclass('portunus_schema')",
    place: "SELECT current_database() || ', table ' || \
         COALESCE(CAST(CAST(to_regclass('portunus_keys') AS OID) AS TEXT), 'missing')",
};
