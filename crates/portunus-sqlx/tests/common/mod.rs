//! What the tests share: keys made by hand, and homes, which are databases that stores can be
//! opened on again and again.

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
pub(crate) mod contract;
pub(crate) mod corrupt;
pub(crate) mod crowd;
pub(crate) mod dump;
pub(crate) mod everything;
pub(crate) mod fold;
pub(crate) mod lists;
pub(crate) mod model;
pub(crate) mod newer;
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

/// A database.
/// A store with all that can stand beside its keys.
pub(crate) trait WholeStore: KeyStore + UsageStore + SigningStore {}

impl<S: KeyStore + UsageStore + SigningStore> WholeStore for S {}

pub(crate) trait Home: Clone + Send + Sync + 'static {
    type Store: WholeStore + Clone;
    type Audit: AuditSink + AuditReader + Clone;
    type Raw: Send;

    /// The events beside the keys of a store.
    fn audit(store: &Self::Store) -> Self::Audit;

    /// Forgets old events.
    fn forget(
        audit: &Self::Audit,
        before: SystemTime,
    ) -> impl Future<Output = Result<u64, AuditError>> + Send;

    /// Opens a store on it, with connections of its own, and brings its schema up to date.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Gives each user one spelling.
    fn fold(store: &Self::Store) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Closes a store.
    fn close(&self, store: Self::Store) -> impl Future<Output = ()> + Send;

    /// Brings the schema up to date; the error as text.
    fn migrate(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Runs a statement behind the store's back; returns how many rows it touched.
    fn execute(&self, sql: String) -> impl Future<Output = u64> + Send;

    /// The text that a query gives.
    fn text(&self, sql: &'static str) -> impl Future<Output = String> + Send;

    /// How bytes are written in a statement.
    fn bytes(&self, bytes: &[u8]) -> String;

    /// A home of the same kind, with nothing in it.
    #[must_use]
    fn another(&self) -> Self;

    /// A connection that no store has.
    fn raw(&self) -> impl Future<Output = Self::Raw> + Send;

    /// How many rows a query gives on it.
    fn rows(raw: &mut Self::Raw, sql: &str) -> impl Future<Output = usize> + Send;

    /// Puts what an earlier schema wrote in place, see [`written`].
    fn written(&self, schema: u32) -> impl Future<Output = ()> + Send;

    /// Everything that the database holds, as it lies on the disk or in a backup.
    fn dump(&self) -> impl Future<Output = Vec<u8>> + Send;
}

/// A SQLite file in a folder of its own.
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

    /// A connection that no store has.
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

/// A condition that is never met.
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

/// The database of a home with the key `a` under digest 1.
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
        "the key store gave no answer",
        "{error:?}"
    );
}

/// Every case that both databases must pass.
macro_rules! every_case {
    ($run:ident) => {
        $run! {
            contract::a_key_is_found_by_its_digest_and_scheme_and_by_nothing_else
            contract::one_trip_finds_a_key_under_any_of_its_candidates
            contract::more_candidates_than_a_statement_takes_are_all_tried
            contract::what_was_written_is_what_is_read
            contract::a_revoked_key_is_found_and_says_so
            contract::a_batch_whose_condition_fails_changes_nothing
            contract::a_batch_that_fails_in_its_last_change_changes_nothing
            contract::an_empty_batch_does_nothing_and_still_checks_its_conditions
            contract::the_first_condition_that_fails_is_told_and_quotas_come_last
            contract::an_update_of_what_has_changed_since_is_rejected
            contract::an_owner_and_a_family_never_change
            contract::a_deleted_key_is_gone_and_its_id_and_digests_are_known_for_good
            contract::a_rehashed_key_is_found_under_its_new_digest_only_and_has_no_new_version
            contract::a_rehash_from_or_onto_another_digest_is_rejected
            contract::the_primary_key_is_the_one_that_was_set_else_the_newest
            contract::a_pinned_primary_key_stays_when_a_newer_one_comes
            contract::a_key_of_another_owner_cannot_be_primary
            contract::quotas_count_the_keys_of_their_owner_that_are_active
            contract::a_signing_state_is_kept_replaced_and_gone_with_its_key
            contract::times_are_kept_to_the_millisecond_and_never_widen_a_key
            contract::a_time_that_cannot_be_kept_is_refused
            contract::texts_of_any_kind_are_kept
            contract::two_stores_on_one_database_see_each_others_writes_at_once
            contract::everything_is_there_after_it_was_closed_and_opened_again
            contract::the_schema_is_made_once_however_many_make_it
            contract::a_newer_schema_is_refused
            contract::a_store_shows_no_secret
            lists::a_list_is_newest_first_and_then_by_id
            lists::pages_hold_every_key_once_while_others_come_and_go
            lists::a_list_is_filtered_by_tenant_status_environment_and_text
            lists::the_characters_of_patterns_mean_themselves
            lists::a_list_within_workspaces_fills_its_pages
            lists::every_filter_agrees_with_the_definition
            lists::keys_of_one_millisecond_are_paged_in_the_order_of_their_bytes
            primaries::the_primary_keys_of_many_owners_are_those_that_each_has
            primaries::a_key_that_cannot_be_read_keeps_no_other_one_from_being_ended
            primaries::a_newest_key_that_cannot_be_read_does_not_hide_the_one_that_was_set
            usage::usage_adds_up_and_its_time_never_moves_back
            usage::usage_of_keys_that_are_gone_is_skipped_and_that_of_others_kept
            usage::usage_outlives_an_update_and_is_no_new_version
            usage::hours_add_up_and_are_forgotten
            usage::a_large_batch_of_usage_is_kept_whole
            usage::very_many_hours_are_forgotten_step_by_step
            usage::the_hours_of_a_deleted_key_are_gone
            crowd::of_200_keys_at_once_a_quota_of_4_lets_4_in
            crowd::of_50_updates_at_one_version_one_succeeds
            crowd::of_many_who_make_another_key_primary_one_succeeds
            crowd::pinned_while_keys_are_revoked_there_is_always_one_primary
            crowd::a_key_that_moves_between_digests_is_found_at_every_moment
            crowd::one_id_or_digest_inserted_by_many_is_inserted_once
            crowd::batches_that_name_the_same_keys_in_other_orders_all_end
            fold::each_user_gets_one_spelling_and_nothing_else_changes
            fold::of_two_primary_keys_the_newer_one_stays
            fold::a_primary_key_that_has_ended_gives_way_to_one_that_works
            fold::more_owners_than_a_page_are_all_folded
            fold::folding_again_or_twice_at_once_changes_nothing_more
            fold::keys_that_are_managed_meanwhile_end_up_with_one_owner
            fold::a_record_that_cannot_be_read_is_told_and_the_rest_goes_on_the_next_time
            corrupt::no_column_can_be_changed_unnoticed
            corrupt::no_part_of_a_record_can_be_lost_unnoticed
            corrupt::broken_schemes_states_and_usage_are_told_with_row_and_column
            unread_counts::counts_that_cannot_be_read_stop_no_list_and_keep_no_key_from_being_ended
            corrupt::a_row_is_named_to_a_tenant_only_where_it_is_surely_its_own
            audit::random_pages_agree_with_the_log_in_memory
            audit::an_event_given_twice_is_kept_once
            audit::a_large_batch_is_kept_in_its_order_and_its_rare_events_are_found_quickly
            audit::names_of_any_kind_are_found_as_they_are_written
            audit::old_events_are_forgotten_and_no_place_is_given_again
            audit::pages_hold_every_event_once_while_others_are_written
            audit::a_filter_that_lets_nothing_through_gives_short_pages_that_go_on
            audit::an_event_that_cannot_be_read_is_named_and_not_a_gap
            written::what_every_earlier_schema_wrote_is_there_after_it_was_brought_up_to_date
            written::an_earlier_schema_is_brought_up_to_date_once_however_many_do_it
            written::the_look_ups_of_the_version_before_go_on_while_a_big_table_is_brought_up_to_date
            written::a_node_of_the_version_before_may_go_on_and_what_it_deletes_counts_for_every_tenant
            written::a_schema_of_a_later_version_is_used_where_that_allows_it
            newer::a_record_of_a_newer_version_is_refused_and_can_only_be_ended
            newer::what_ends_a_record_of_a_newer_version_changes_no_byte_that_is_not_known_here
            admin_reads::look_ups_go_on_beside_reads_of_management_that_stop_after_ten_thousand_rows
            dump::no_dump_holds_a_key
            model::random_batches_do_what_the_store_in_memory_does
        }
    };
}
pub(crate) use every_case;
