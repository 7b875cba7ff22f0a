//! SQL storage for [`portunus`]: [`SqliteStore`] for a single machine, [`PostgresStore`] for many.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use portunus::Portunus;
//! use portunus::key::{Alphabet, KeyFormat, KeyKind, Owner, TenantId};
//! use portunus::manage::NewKey;
//! use portunus_sqlx::SqliteStore;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("keys.db");
//! let store = SqliteStore::open(path).await?;
//!
//! let format = KeyFormat::builder("acme_")
//!     .environment("live", "live".parse()?)
//!     .kind("sk", KeyKind::App)
//!     .random(Alphabet::BASE62, 32)
//!     .build()?;
//! let keys = Portunus::builder(format).store(store).build()?;
//! let new = NewKey::new("billing", Owner::tenant(TenantId::new("acme")?));
//! let issued = keys.manager().issue(new).await?;
//! assert!(issued.key.reveal().starts_with("acme_live_sk_"));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # What is stored
//! Each record is stored whole, as JSON, with the facts that queries need in columns beside it. The
//! two are compared whenever a row is read: a row that cannot be read or contradicts itself is
//! [`StoreError::corrupt`], never a weaker key. Of secrets, only digests and the states that sign
//! events are stored; the latter are in a column that lists never read. Copies of them in the
//! buffers of the database driver are not wiped from memory.
//!
//! Times are stored to the millisecond. The remainder is rounded so that a key becomes valid later
//! and expires earlier. Usage times are reported to the millisecond, and counts above 2⁶³-2 as
//! [`u64::MAX`]. A record whose times are before 1970 or after
//! [`MAX_TIME`](portunus::key::MAX_TIME), or whose version needs more than 63 bits, is rejected
//! with [`StoreError::unavailable`].
//!
//! # Roles and versions
//! `open` and `connect` create the schema. Where the service's role may only read and write rows,
//! run [`PostgresStore::connect`] or [`PostgresStore::migrate`] once with a role that owns the
//! tables: on a finished schema, nothing is written at startup. A role that lacks the privilege to
//! read one of the tables is then rejected. Each schema states which version of this crate may
//! still use it, so that nodes of two versions can run side by side; a node that is too old is
//! rejected at startup ([`OpenError::Newer`]). Lookups continue while a large table is migrated; on
//! SQLite, writes wait meanwhile.
//!
//! # User ids
//! A host whose user ids are UUIDs declares this
//! ([`UserIds::Uuid`](portunus::actor::UserIds::Uuid)): ids are then lower-cased before they reach
//! the store. [`SqliteStore::fold_user_ids`] and [`PostgresStore::fold_user_ids`] do the same,
//! once, for records written earlier.
//!
//! # Credits
//! A store is also a [`CreditStore`](portunus::credit::CreditStore): one line keeps the accounts of
//! a service in the database of its keys. The guide `credits` of `portunus` has the details.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # use portunus::{Portunus, credit::Credits, key::{Alphabet, KeyFormat}};
//! # use portunus_sqlx::SqliteStore;
//! # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//! let store = SqliteStore::open("keys.db").await?;
//! let keys = Portunus::builder(format)
//!     .store(store.clone())
//!     .credits(Credits::per_tenant(store))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! A change of an account is one transaction, which replaces the account's row only from the version
//! that was read, and appends to the ledger. Of nodes that change an account at the same time, one
//! succeeds, and the others begin again. Do not write rows of accounts by SQL: the rules are in
//! [`CreditAccounts`](portunus::credit::CreditAccounts). Each block of units that a node takes adds an
//! entry or more to the ledger, where they stay unless
//! [`Credits::keep_entries`](portunus::credit::Credits::keep_entries) sets an age.
//!
//! # Events
//! `store.audit()` is an [`AuditSink`](portunus::audit::AuditSink) and an
//! [`AuditReader`](portunus::audit::AuditReader) on the same database. Events and hourly usage
//! accumulate; the periodic jobs of a service ([`Portunus::run`](portunus::Portunus), or
//! `maintain`) delete rows older than their retention, 90 days by default.
//!
//! # In the host's own transaction
//! [`SqliteStore::in_transaction`] and [`PostgresStore::in_transaction`] run key management in a
//! transaction of the host, so that a key and the host's own row are committed together or not at
//! all; their pages have programs. What to keep in mind:
//! - The transaction must be READ COMMITTED on PostgreSQL, and begun with `BEGIN IMMEDIATE` on
//!   SQLite (sqlx: `pool.begin_with("BEGIN IMMEDIATE")`).
//! - Call [`Written::committed`] after the COMMIT, also if that took long. Without it, the change
//!   is effective all the same, and this node learns of it as the others do.
//! - After a ROLLBACK, or a crash before the COMMIT, there is no key, no message to other nodes and
//!   no event that says that it was issued.
//! - The audit records an operation when it is reported as committed: events are queued then, as
//!   those of other operations are. If it is not reported, the event says `ABANDONED`: it may or
//!   may not have been done. An operation that was refused is recorded as such at once.
//! - Credits are not part of the transaction: granting them there is an error.
//! - Other writes to the tenant's keys (on SQLite: all writes) wait until the transaction ends.
//!
//! # Several nodes
//! Where lookups are cached, a node must be notified of changes made by other nodes.
//! [`PostgresStore::bus`] and [`SqliteStore::watch`] each return an
//! [`InvalidationBus`](portunus::store::InvalidationBus): [`PostgresBus`] uses `LISTEN` and
//! `NOTIFY`, with the notification sent by the transaction of the write itself; [`SqliteWatch`]
//! polls the file every 50 milliseconds. Both are conservative: while they cannot prove that they
//! receive everything, they do not call
//! [`caught_up`](portunus::store::InvalidationListener::caught_up).
//!
//! # Behind a connection pooler
//! A pooler that assigns a different server connection to each transaction, such as PgBouncer in
//! transaction mode, needs [`PostgresStore::behind_pooler`], and a bus that bypasses it:
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn run() -> Result<(), portunus_sqlx::OpenError> {
//! use portunus_sqlx::PostgresStore;
//!
//! let store = PostgresStore::behind_pooler("postgres://portunus@pooler/keys").await?;
//! let bus = store.bus_on("postgres://portunus@db/keys")?;
//! bus.check().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A lookup then takes a single round trip, which the server plans anew each time; every other read
//! or write is a transaction. [`PostgresStore::connect`] rejects such a pooler.
//!
//! # Across a failover
//! Give [`PostgresStore`] an address that leads to the primary server wherever it is: a virtual IP
//! address, or a proxy such as HAProxy. After it moved to a promoted standby server, lookups and
//! writes continue within five seconds, also if the connections to the old server were not closed
//! but became silent. Until then they fail, which is a 503 of the service.
//!
//! - **A server in recovery is not used.** Its data may lack a revocation. Each new connection, and
//!   each that was idle for a second, is asked, in a message that is sent anyway; behind a pooler,
//!   each transaction is. A host's own pool asks if its options are from
//!   [`PostgresStore::pool_options`].
//! - **Acknowledged writes are kept** if replication is synchronous (`synchronous_standby_names`),
//!   `synchronous_commit` is at least `on`, which is the default, and the promoted server is a
//!   synchronous standby. Otherwise the last writes may be lost: a key that was revoked last is
//!   accepted again, and units of credit may be spent twice (the guide `credits` has the list).
//! - **Fencing is the duty of the failover manager.** A node that sees only the old primary server
//!   cannot detect that another one was promoted: it accepts keys that were revoked there, and its
//!   own writes are lost. Stop the old server, or cut it off from all nodes, before another one is
//!   promoted. If only some connections of a node lead to the old server, its bus notices when two
//!   heartbeats took different ways, and closes all connections.
//!
//! # In a schema of the host's choice
//! [`PostgresStore::in_schema`] keeps the tables in a schema that the host chooses, on any pool.
//!
//! # Guarantees
//! - An acknowledged write is on disk: on SQLite with `synchronous = FULL`, on PostgreSQL with
//!   `synchronous_commit`, which a write enables if it is off.
//! - Batches are atomic and isolated, between threads and between processes. A batch that ended
//!   without an answer from the database may have been applied.
//! - Lookups read where writes are acknowledged. Connect [`PostgresStore`] to the primary server,
//!   never to a replica, which is rejected.
//! - Database errors are reported by code and message; values, which PostgreSQL adds to some
//!   errors, are left out.
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `sqlite` (default) | [`SqliteStore`], with SQLite built in |
//! | `postgres` (default) | [`PostgresStore`] |
//! | `tls-rustls` | TLS to PostgreSQL by rustls, with the system's root certificates |
//!
//! [`StoreError::corrupt`]: portunus::store::StoreError::corrupt
//! [`StoreError::unavailable`]: portunus::store::StoreError::unavailable

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("portunus-sqlx needs one of its features `sqlite` and `postgres`");

#[cfg(feature = "postgres")]
mod address;
mod audit;
mod bus;
mod credit;
#[cfg(feature = "postgres")]
mod door;
mod fault;
mod joined;
#[cfg(feature = "postgres")]
mod lease;
mod lookups;
mod operation;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod share;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod time;
mod value;
mod write_queue;

pub use audit::Audit;
#[cfg(feature = "postgres")]
pub use audit::PostgresAudit;
#[cfg(feature = "sqlite")]
pub use audit::SqliteAudit;
#[cfg(feature = "postgres")]
pub use bus::PostgresBus;
#[cfg(feature = "sqlite")]
pub use bus::SqliteWatch;
pub use fault::OpenError;
pub use joined::Written;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use store::Store;
