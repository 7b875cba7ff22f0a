//! Shared test support: keys made by hand, and homes, which are databases on which stores can be
//! opened repeatedly.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

pub(crate) mod admin_reads;
pub(crate) mod audit;
pub(crate) mod bulk;
pub(crate) mod contract;
pub(crate) mod corrupt;
pub(crate) mod crowd;
pub(crate) mod dump;
pub(crate) mod everything;
pub(crate) mod fold;
pub(crate) mod lists;
pub(crate) mod model;
pub(crate) mod newer;
pub(crate) mod outbox;
pub(crate) mod primaries;
pub(crate) mod recording_listener;
pub(crate) mod secrets;
pub(crate) mod unread_counts;
pub(crate) mod usage;
pub(crate) mod written;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use portunus::audit::{AuditError, AuditReader, AuditSink};
use portunus::events::SigningStore;
use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, Revocation,
    SigningState, TenantId, UserId,
};
use portunus::store::{
    Change, Condition, KeyLookup, KeyStore, ListQuery, OwnerRef, Rejected, StoreError, Usage,
    UsageStore, WriteBatch,
};
use portunus_sqlx::{PostgresAudit, PostgresStore, SqliteAudit, SqliteStore};
use portunus_test_support::postgres::Postgres;
pub(crate) use portunus_test_support::random::Random;
pub(crate) use portunus_test_support::text::hex;
use portunus_test_support::wait::{eventually_async, until_async};
pub(crate) use portunus_test_support::{live, tenant, test, used, user};
use sqlx::{AssertSqlSafe, Connection, Row};

/// A store with everything that can belong to its keys.
pub(crate) trait WholeStore: KeyStore + UsageStore + SigningStore {}

impl<S: KeyStore + UsageStore + SigningStore> WholeStore for S {}

/// A database.
pub(crate) trait Home: Clone + Send + Sync + 'static {
    type Store: WholeStore + Clone;
    type Audit: AuditSink + AuditReader + Clone;
    type Raw: Send;

    /// The events in the database of a store.
    fn audit(store: &Self::Store) -> Self::Audit;

    /// Deletes old events.
    fn forget(
        audit: &Self::Audit,
        before: SystemTime,
    ) -> impl Future<Output = Result<u64, AuditError>> + Send;

    /// Opens a store on it, with its own connections, and brings its schema up to date.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Gives each user one spelling.
    fn fold(store: &Self::Store) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Closes a store.
    fn close(&self, store: Self::Store) -> impl Future<Output = ()> + Send;

    /// Brings the schema up to date; returns the error as text.
    fn migrate(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Runs a statement behind the store's back; returns the number of affected rows.
    fn execute(&self, sql: String) -> impl Future<Output = u64> + Send;

    /// The text that a query returns.
    fn text(&self, sql: &'static str) -> impl Future<Output = String> + Send;

    /// The literal of bytes in a statement.
    fn bytes(&self, bytes: &[u8]) -> String;

    /// An empty home of the same kind.
    #[must_use]
    fn another(&self) -> Self;

    /// A connection that belongs to no store.
    fn raw(&self) -> impl Future<Output = Self::Raw> + Send;

    /// How many rows a query returns on it.
    fn rows(raw: &mut Self::Raw, sql: &str) -> impl Future<Output = usize> + Send;

    /// Installs the data that an earlier schema wrote, see [`written`].
    fn written(&self, schema: u32) -> impl Future<Output = ()> + Send;

    /// Everything that the database contains, as on disk or in a backup.
    fn dump(&self) -> impl Future<Output = Vec<u8>> + Send;
}

/// A SQLite file in its own folder.
#[derive(Clone)]
pub(crate) struct SqliteHome(std::sync::Arc<tempfile::TempDir>);

impl SqliteHome {
    pub(crate) fn new() -> Self {
        Self(std::sync::Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("keys.db")
    }

    pub(crate) async fn connection(&self) -> sqlx::SqliteConnection {
        sqlx::SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", self.path().display()))
            .await
            .unwrap()
    }
}

impl Home for SqliteHome {
    type Store = SqliteStore;
    type Audit = SqliteAudit;
    type Raw = sqlx::SqliteConnection;

    fn audit(store: &SqliteStore) -> SqliteAudit {
        store.audit()
    }

    async fn forget(audit: &SqliteAudit, before: SystemTime) -> Result<u64, AuditError> {
        audit.forget_before(before).await
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(self.path()).await.unwrap()
    }

    async fn fold(store: &SqliteStore) -> Result<u64, StoreError> {
        store.fold_user_ids().await
    }

    async fn close(&self, store: SqliteStore) {
        store.close().await;
    }

    async fn migrate(&self) -> Result<(), String> {
        let opened = SqliteStore::open(self.path()).await;
        opened.map(drop).map_err(|error| error.to_string())
    }

    async fn execute(&self, sql: String) -> u64 {
        let mut connection = self.connection().await;
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap()
            .rows_affected()
    }

    async fn text(&self, sql: &'static str) -> String {
        let mut connection = self.connection().await;
        sqlx::query(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
            .get(0)
    }

    fn bytes(&self, bytes: &[u8]) -> String {
        format!("x'{}'", hex(bytes))
    }

    fn another(&self) -> Self {
        Self::new()
    }

    async fn raw(&self) -> sqlx::SqliteConnection {
        self.connection().await
    }

    async fn rows(raw: &mut sqlx::SqliteConnection, sql: &str) -> usize {
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(raw)
            .await;
        rows.unwrap().len()
    }

    async fn written(&self, schema: u32) {
        std::fs::copy(written::file(schema, "sqlite"), self.path()).unwrap();
    }

    async fn dump(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.0.path()).unwrap() {
            all.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
        all
    }
}

/// A database of a PostgreSQL server.
#[derive(Clone)]
pub(crate) struct PostgresHome {
    pub(crate) server: std::sync::Arc<Postgres>,
    pub(crate) name: String,
}

impl PostgresHome {
    /// A new database on this server.
    pub(crate) fn new(server: &std::sync::Arc<Postgres>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("keys{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.database(&name);
        Self {
            server: std::sync::Arc::clone(server),
            name,
        }
    }

    /// A connection that belongs to no store.
    pub(crate) async fn connection(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.server.address(&self.name))
            .await
            .unwrap()
    }
}

impl Home for PostgresHome {
    type Store = PostgresStore;
    type Audit = PostgresAudit;
    type Raw = sqlx::PgConnection;

    fn audit(store: &PostgresStore) -> PostgresAudit {
        store.audit()
    }

    async fn forget(audit: &PostgresAudit, before: SystemTime) -> Result<u64, AuditError> {
        audit.forget_before(before).await
    }

    async fn open(&self) -> PostgresStore {
        PostgresStore::connect(&self.server.address(&self.name))
            .await
            .unwrap()
    }

    async fn fold(store: &PostgresStore) -> Result<u64, StoreError> {
        store.fold_user_ids().await
    }

    async fn close(&self, store: PostgresStore) {
        store.close().await;
    }

    async fn migrate(&self) -> Result<(), String> {
        let opened = PostgresStore::connect(&self.server.address(&self.name)).await;
        opened.map(drop).map_err(|error| error.to_string())
    }

    async fn execute(&self, sql: String) -> u64 {
        let mut connection = self.connection().await;
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap()
            .rows_affected()
    }

    async fn text(&self, sql: &'static str) -> String {
        let mut connection = self.connection().await;
        sqlx::query(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
            .get(0)
    }

    fn bytes(&self, bytes: &[u8]) -> String {
        format!("'\\x{}'::bytea", hex(bytes))
    }

    fn another(&self) -> Self {
        Self::new(&self.server)
    }

    async fn raw(&self) -> sqlx::PgConnection {
        self.connection().await
    }

    async fn rows(raw: &mut sqlx::PgConnection, sql: &str) -> usize {
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(raw)
            .await;
        rows.unwrap().len()
    }

    async fn written(&self, schema: u32) {
        let dump = std::fs::read_to_string(written::file(schema, "sql")).unwrap();
        self.server.sql(&self.name, &dump);
    }

    async fn dump(&self) -> Vec<u8> {
        self.server.dump(&self.name)
    }
}

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

pub(crate) fn acme() -> OwnerRef {
    OwnerRef::Tenant(tenant("acme"))
}

pub(crate) fn acme_itself() -> OwnerRef {
    OwnerRef::TenantItself(tenant("acme"))
}

/// A digest with this number in its first bytes.
pub(crate) fn digest(number: u32) -> KeyDigest {
    digest_of(DigestScheme::Sha256, number)
}

pub(crate) fn peppered(number: u32) -> KeyDigest {
    digest_of(DigestScheme::HmacSha256 { pepper: 1 }, number)
}

pub(crate) fn digest_of(scheme: DigestScheme, number: u32) -> KeyDigest {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    KeyDigest::new(scheme, bytes)
}

pub(crate) fn record(name: &str) -> KeyRecord {
    KeyRecord::new(
        id(name),
        name,
        KeyKind::App,
        live(),
        Owner::tenant(tenant("acme")),
        at(1_000),
    )
}

pub(crate) fn insert(digest: KeyDigest, record: KeyRecord) -> Change {
    Change::Insert {
        digest,
        record: Box::new(record),
    }
}

pub(crate) fn rehash(name: &str, from: KeyDigest, to: KeyDigest) -> Change {
    Change::Rehash {
        id: id(name),
        from,
        to,
    }
}

pub(crate) fn batch(changes: impl IntoIterator<Item = Change>) -> WriteBatch {
    changes
        .into_iter()
        .fold(WriteBatch::new(), WriteBatch::change)
}

pub(crate) fn signing(number: u8) -> SigningState {
    let mut bytes = [number; SigningState::LENGTH];
    bytes[0] = 1;
    SigningState::from_bytes(&bytes).unwrap()
}

/// A condition that never holds.
pub(crate) fn never() -> Condition {
    Condition::Version {
        id: id("nobody"),
        version: 1,
    }
}

pub(crate) fn at_most(limit: u64) -> Condition {
    Condition::ActiveKeysAtMost {
        owner: acme(),
        at: at(1_000),
        limit,
    }
}

pub(crate) async fn rejected(store: &impl KeyStore, batch: WriteBatch) -> Rejected {
    let error = store.apply(&batch).await.unwrap_err();
    error
        .as_rejected()
        .unwrap_or_else(|| panic!("expected to be rejected: {error:?}"))
        .clone()
}

pub(crate) async fn all(store: &impl KeyStore) -> Vec<Arc<KeyRecord>> {
    let mut query = ListQuery::new(at(1_000));
    query.limit = 500;
    store.list(&query).await.unwrap().items
}

pub(crate) async fn found(store: &impl KeyStore, digest: KeyDigest) -> Option<KeyId> {
    let found = store.find(&[digest]).await.unwrap();
    found.map(|stored| {
        assert_eq!(*stored.digest(), digest);
        stored.record().id.clone()
    })
}

pub(crate) async fn get(store: &impl KeyStore, name: &str) -> KeyRecord {
    (*store.get(&id(name)).await.unwrap().unwrap()).clone()
}

/// A store on a home with the key `a` under digest 1.
pub(crate) async fn with_a<H: Home>(home: &H) -> H::Store {
    let store = home.open().await;
    store
        .apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    store
}

pub(crate) fn assert_unavailable(error: &StoreError) {
    assert_eq!(
        error.to_string(),
        "the key store is unavailable",
        "{error:?}"
    );
}

/// Every case that both databases must pass.
macro_rules! every_case {
    ($run:ident) => {
        $run! {
            contract::a_key_is_found_only_by_its_digest_and_scheme
            contract::one_trip_finds_a_key_under_any_of_its_candidates
            contract::more_candidates_than_a_statement_takes_are_all_tried
            contract::records_are_read_as_written
            contract::a_revoked_key_is_found_with_its_revocation
            contract::a_batch_whose_condition_fails_changes_nothing
            contract::a_batch_that_fails_in_its_last_change_changes_nothing
            contract::an_empty_batch_changes_nothing_but_checks_its_conditions
            contract::the_first_failing_condition_is_reported_and_quotas_come_last
            contract::an_update_of_a_stale_version_is_rejected
            contract::an_owner_and_a_family_never_change
            contract::a_deleted_key_is_gone_and_its_id_and_digests_stay_reserved
            contract::a_rehashed_key_is_found_under_its_new_digest_only_and_has_no_new_version
            contract::a_rehash_from_or_onto_another_digest_is_rejected
            contract::the_primary_key_is_the_one_that_was_set_else_the_newest
            contract::a_pinned_primary_key_stays_when_a_newer_one_is_added
            contract::a_key_of_another_owner_cannot_be_primary
            contract::quotas_count_the_keys_of_their_owner_that_are_active
            contract::a_signing_state_is_kept_replaced_and_gone_with_its_key
            contract::times_are_kept_to_the_millisecond_and_never_widen_a_key
            contract::a_time_that_cannot_be_stored_is_rejected
            contract::strings_of_any_kind_are_stored
            contract::many_keys_in_one_batch_are_inserted_as_if_one_by_one
            contract::many_lookups_at_once_find_each_its_own_key
            contract::under_load_a_lookup_sees_what_was_written_before_it
            contract::two_stores_on_one_database_see_each_others_writes_at_once
            contract::everything_survives_closing_and_reopening
            contract::the_schema_is_created_once_by_concurrent_stores
            contract::a_newer_schema_is_refused
            contract::a_store_shows_no_secret
            lists::a_list_is_newest_first_and_then_by_id
            lists::pages_hold_every_key_once_while_others_are_added_and_deleted
            lists::a_list_is_filtered_by_tenant_status_environment_and_text
            lists::pattern_characters_are_literal
            lists::a_list_within_workspaces_fills_its_pages
            lists::every_filter_agrees_with_the_definition
            lists::keys_of_one_millisecond_are_paged_in_the_order_of_their_bytes
            primaries::the_primary_keys_of_many_owners_match_those_of_each
            primaries::an_unreadable_key_does_not_prevent_ending_another
            primaries::a_newest_key_that_cannot_be_read_does_not_hide_the_one_that_was_set
            usage::usage_accumulates_and_its_time_never_decreases
            usage::rows_of_keys_learn_of_their_use_a_few_at_a_time
            usage::usage_of_deleted_keys_is_ignored_and_that_of_others_recorded
            usage::usage_survives_an_update_and_does_not_change_versions
            usage::hours_accumulate_and_are_deleted
            usage::a_large_batch_of_usage_is_recorded_completely
            usage::very_many_hours_are_deleted_in_steps
            usage::the_hours_of_a_deleted_key_are_deleted
            crowd::a_quota_of_4_admits_4_of_200_concurrent_keys
            crowd::one_of_50_updates_of_one_version_succeeds
            crowd::one_of_many_concurrent_changes_of_a_primary_key_succeeds
            crowd::pinned_while_keys_are_revoked_there_is_always_one_primary
            crowd::a_key_that_moves_between_digests_is_found_at_every_moment
            crowd::one_id_or_digest_inserted_by_many_is_inserted_once
            crowd::batches_with_the_same_keys_in_different_orders_do_not_deadlock
            fold::each_user_gets_one_spelling_and_nothing_else_changes
            fold::the_newer_of_two_primary_keys_is_kept
            fold::an_ended_primary_key_is_replaced_by_a_valid_one
            fold::more_owners_than_a_page_are_all_folded
            fold::folding_again_or_twice_at_once_changes_nothing_more
            fold::keys_that_are_managed_meanwhile_end_up_with_one_owner
            fold::an_unreadable_record_is_reported_and_the_next_run_continues
            corrupt::no_column_can_be_changed_unnoticed
            corrupt::no_part_of_a_record_can_be_lost_unnoticed
            corrupt::broken_schemes_states_and_usage_are_reported_with_row_and_column
            corrupt::a_digest_that_is_recorded_for_another_key_is_reported
            unread_counts::unreadable_counts_prevent_neither_lists_nor_ending_a_key
            corrupt::a_corrupt_row_is_named_only_to_its_own_tenant
            audit::random_pages_agree_with_the_log_in_memory
            audit::an_event_recorded_twice_is_stored_once
            audit::a_large_batch_is_stored_in_order_and_its_rare_events_are_found_quickly
            audit::names_of_any_kind_are_found_as_they_are_written
            audit::old_events_are_deleted_and_no_place_is_reused
            audit::pages_hold_every_event_once_while_others_are_written
            audit::a_filter_without_matches_gives_short_pages_that_continue
            audit::an_unreadable_event_is_reported_rather_than_omitted
            written::data_of_every_earlier_schema_survives_migration
            written::an_earlier_schema_is_migrated_once_by_concurrent_nodes
            written::lookups_of_the_previous_version_continue_during_migration
            written::a_previous_node_continues_and_its_deletions_apply_to_every_tenant
            written::uses_that_a_previous_node_counts_exclude_keys_from_lists_of_unused_ones
            written::a_compatible_later_schema_is_accepted
            newer::a_record_of_a_newer_version_is_refused_and_can_only_be_ended
            newer::ending_a_record_of_a_newer_version_changes_no_unknown_byte
            admin_reads::lookups_continue_during_management_reads_that_stop_after_ten_thousand_rows
            outbox::changes_are_recorded_only_for_a_bus_of_the_hosts_own
            outbox::a_change_that_one_node_left_is_published_by_another
            outbox::an_unreadable_change_is_published_as_a_change_of_everything
            bulk::several_nodes_share_a_bulk_operation
            dump::no_dump_contains_a_key
            model::random_batches_match_the_in_memory_store
        }
    };
}
pub(crate) use every_case;
