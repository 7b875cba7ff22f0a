//! The list of all statements, whose query plans the tests check.
//!
//! With debug assertions enabled, a statement that is not listed cannot be run, and so fails the
//! first test that needs it.

use super::*;

/// The statements that a request, a management operation or a periodic job may run, except those of
/// buses.
pub(crate) fn statements(dialect: &'static Dialect) -> Vec<&'static str> {
    let mut all = vec![
        dialect.find_one,
        dialect.find_each,
        dialect.find,
        RECORD,
        OWNERS,
        RECORDS_OF_USER,
        SIGNING,
        TENANT_OF,
        DIGEST_OF,
        IS_ID_KNOWN,
        IS_DIGEST_KNOWN,
        KNOW_DIGEST,
        INSERT,
        REPLACE,
        REHASH,
        SET_SIGNING,
        KNOW_DELETED,
        DELETE,
        usage::DELETE_USAGE,
        usage::DELETE_USAGE_BY_HOUR,
        DELETE_PRIMARY,
        SET_PRIMARY,
        UNSET_PRIMARY,
        usage::USAGE_BY_HOUR,
        usage::FORGET_USAGE,
        events::OLDEST,
        bulk::ADD,
        bulk::STEP,
        bulk::OF_ID,
        dialect.open_bulk,
        bulk::FORGET,
        credit::LOAD,
        credit::ADD,
        credit::REPLACE,
        credit::ENTRIES,
        credit::ACCOUNTS,
        credit::FORGET,
        outbox::RECORD,
        outbox::OLDEST,
        dialect.forget_recorded,
        dialect.append_entries,
        dialect.primaries,
        dialect.unpinned,
        dialect.set_primaries,
        dialect.unset_primaries,
        dialect.add_totals,
        dialect.usage_of,
        dialect.note_use,
        dialect.insert_many.known,
        dialect.insert_many.know_digests,
        dialect.insert_many.insert,
        dialect.events.insert,
        dialect.events.insert_parties,
        dialect.events.delete,
        dialect.events.delete_parties,
    ];
    all.extend(
        PRIMARY
            .0
            .iter()
            .chain(&COUNT_ACTIVE.0)
            .chain(&COUNT_FAMILIES.0),
    );
    all.extend(dialect.add_usage);
    all.extend(dialect.lists.statements());
    all.extend(dialect.events.lanes.statements());
    all.extend(dialect.hold);
    match dialect.tell {
        #[cfg(feature = "sqlite")]
        Tell::Count(count, remember) => all.extend([count, remember]),
        #[cfg(feature = "postgres")]
        Tell::Notify(sql) => all.push(sql),
    }
    all
}

/// The statements about the schema itself.
#[cfg(debug_assertions)]
fn about_the_schema(dialect: &'static Dialect) -> impl Iterator<Item = &'static str> {
    let all = [
        dialect.has_schema,
        dialect.version_table,
        dialect.place,
        NEWEST_STEP,
        OLDEST_PROGRAM,
        NOTE_EARLY_STEP,
        NOTE_STEP,
        #[cfg(feature = "postgres")]
        INDEX_STATE,
        #[cfg(feature = "postgres")]
        TAKE_TURN,
        #[cfg(feature = "postgres")]
        ABOUT_SERVER,
        #[cfg(feature = "postgres")]
        SERVER_TIME,
        #[cfg(feature = "postgres")]
        ISOLATION,
        #[cfg(feature = "postgres")]
        SEARCH_PATH,
        #[cfg(feature = "postgres")]
        SET_SEARCH_PATH,
        #[cfg(feature = "postgres")]
        MISSING_RIGHTS,
        #[cfg(feature = "sqlite")]
        FILE,
        #[cfg(feature = "sqlite")]
        CHANGE_NOTHING,
    ];
    all.into_iter()
}

/// Whether a statement is listed.
#[cfg(debug_assertions)]
pub(crate) fn is_known(dialect: &'static Dialect, sql: &'static str) -> bool {
    use std::collections::HashSet;
    use std::sync::OnceLock;
    #[cfg(feature = "sqlite")]
    static OF_SQLITE: OnceLock<HashSet<&str>> = OnceLock::new();
    #[cfg(feature = "postgres")]
    static OF_POSTGRES: OnceLock<HashSet<&str>> = OnceLock::new();
    let known = match dialect.tell {
        #[cfg(feature = "sqlite")]
        Tell::Count(..) => &OF_SQLITE,
        #[cfg(feature = "postgres")]
        Tell::Notify(_) => &OF_POSTGRES,
    };
    let all = || {
        statements(dialect)
            .into_iter()
            .chain(about_the_schema(dialect))
    };
    known.get_or_init(|| all().collect()).contains(sql)
}
