//! The PostgreSQL indexes that are created concurrently with other operations, or at once on empty
//! tables. SQLite's are part of its schema.

macro_rules! indexes {
    ($($name:literal on $what:expr,)*) => {
        /// By name, with the statement that creates it.
        pub(super) const POSTGRES: &[(&str, &str)] = &[
            $(($name, concat!("CREATE INDEX CONCURRENTLY IF NOT EXISTS ", $name, " ON ", $what)),)*
        ];

        /// Creates all of them in a transaction, on tables without rows.
        pub(crate) const AT_ONCE: &str = concat!(
            $("CREATE INDEX IF NOT EXISTS ", $name, " ON ", $what, ";",)*
        );
    };
}

indexes! {
    "portunus_keys_of_environment" on
        "portunus_keys (tenant_id, environment, created_at DESC, id)",
    "portunus_keys_of_family" on "portunus_keys (tenant_id, family, created_at DESC, id)",
    // An unreadable record must not prevent the index from being created, as a cast to JSON would.
    // A quote in a string is escaped by a backslash, and members of that name in the metadata come
    // after the plan: for a record without a plan, this matches too much rather than too little.
    "portunus_keys_of_plan" on
        "portunus_keys (tenant_id, (substring(record from '\"plan\":\"([^\"]*)\"')), created_at DESC, id) \
         WHERE substring(record from '\"plan\":\"([^\"]*)\"') IS NOT NULL",
    "portunus_keys_revoked" on
        "portunus_keys (tenant_id, created_at DESC, id) WHERE revoked_at IS NOT NULL",
    "portunus_keys_disabled" on
        "portunus_keys (tenant_id, created_at DESC, id) WHERE enabled = 0",
    "portunus_keys_expiring" on
        "portunus_keys (tenant_id, expires_at) WHERE expires_at IS NOT NULL",
    "portunus_keys_of_kind" on "portunus_keys (tenant_id, kind, created_at DESC, id)",
    "portunus_keys_starting" on
        "portunus_keys (tenant_id, not_before) WHERE not_before IS NOT NULL",
    "portunus_keys_used" on "portunus_keys (tenant_id, used_on)",
    "portunus_keys_revoked_by_age" on
        "portunus_keys (created_at DESC, id) WHERE revoked_at IS NOT NULL",
    "portunus_keys_disabled_by_age" on "portunus_keys (created_at DESC, id) WHERE enabled = 0",
    "portunus_keys_expiring_of_all" on
        "portunus_keys (expires_at) WHERE expires_at IS NOT NULL",
    "portunus_keys_starting_of_all" on
        "portunus_keys (not_before) WHERE not_before IS NOT NULL",
    "portunus_keys_used_of_all" on "portunus_keys (used_on)",
    "portunus_keys_of_environment_of_all" on
        "portunus_keys (environment, created_at DESC, id)",
    "portunus_keys_of_user_of_all" on
        "portunus_keys (user_id, created_at DESC, id) WHERE user_id IS NOT NULL",
    "portunus_keys_of_family_of_all" on "portunus_keys (family, created_at DESC, id)",
    "portunus_keys_of_kind_of_all" on "portunus_keys (kind, created_at DESC, id)",
    "portunus_keys_of_plan_of_all" on
        "portunus_keys ((substring(record from '\"plan\":\"([^\"]*)\"')), created_at DESC, id) \
         WHERE substring(record from '\"plan\":\"([^\"]*)\"') IS NOT NULL",
    "portunus_keys_primary_of_tenant" on
        "portunus_keys (tenant_id, created_at DESC, id) \
         WHERE user_id IS NULL AND revoked_at IS NULL AND may_be_primary = 1",
    "portunus_events_refused_of_key" on
        "portunus_events (key_id, outcome, place) WHERE outcome <> 'OK'",
    "portunus_events_acts_of_key" on
        "portunus_events (key_id, action, place) WHERE action <> 'request'",
}
