//! Keys of [`portunus`] in a database: [`SqliteStore`] for one machine, [`PostgresStore`] for many.
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
//! # What is kept
//! A record is kept whole, as JSON, and its facts that are asked about beside it, in columns.
//! Whoever reads a row compares the two: a row that cannot be read or contradicts itself is
//! [`StoreError::corrupt`], never a weaker key. Of secrets there are only digests, and the states
//! that sign events; these stand in one column that lists never read. Copies of them in the buffers
//! of the database driver are not wiped from memory.
//!
//! Times are kept to the millisecond; the part beyond is cut so that a key begins later and ends
//! earlier. Usage is told to the millisecond, and counts above 2⁶³-2 as [`u64::MAX`]. A record
//! whose times lie before 1970 or after [`MAX_TIME`](portunus::key::MAX_TIME), or whose version needs
//! more than 63 bits, is refused, as [`StoreError::unavailable`].
//!
//! # Roles and versions
//! `open` and `connect` make the schema. Where the role of a service may only read and write rows,
//! let a role that owns the tables do it once, by [`PostgresStore::connect`] or
//! [`PostgresStore::migrate`]: on a finished schema nothing is written at the start. A role that may
//! not read one of the tables is refused then. Each schema says which version of this crate may still
//! use it, so that nodes of two versions may run side by side;
//! a node that is too old is refused at its start ([`OpenError::Newer`]). Look-ups go on while a big
//! table is brought up to date; on SQLite writes wait meanwhile.
//!
//! # User ids
//! A host whose ids of users are UUIDs says so ([`UserIds::Uuid`](portunus::actor::UserIds::Uuid)):
//! then ids are lower-cased before they come here. For records from before,
//! [`SqliteStore::fold_user_ids`] and [`PostgresStore::fold_user_ids`] do that once.
//!
//! # Events
//! `store.audit()` is an [`AuditSink`](portunus::audit::AuditSink) and an
//! [`AuditReader`](portunus::audit::AuditReader) on the same database. Events and hourly usage grow;
//! the periodic jobs of a service ([`Portunus::run`](portunus::Portunus), or `maintain`) delete what is
//! older than its retention, 90 days unless it is set.
//!
//! # Several nodes
//! Where answers are cached, a node must hear what another one changed. [`PostgresStore::bus`] and
//! [`SqliteStore::watch`] are an [`InvalidationBus`](portunus::store::InvalidationBus) each:
//! [`PostgresBus`] over `LISTEN` and `NOTIFY`, told by the transaction of the write itself;
//! [`SqliteWatch`] by looking at the file every 50 milliseconds. Both say nothing rather than too
//! much: while they cannot prove that they hear everything, there is no
//! [`caught_up`](portunus::store::InvalidationListener::caught_up).
//!
//! # Behind a connection pooler
//! A pooler that gives each transaction another connection of the server, such as PgBouncer in its
//! transaction mode, needs [`PostgresStore::behind_pooler`], and a bus that goes past it:
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
//! A look-up is then one message there and back, which the server plans anew each time; other
//! reads and writes are a transaction each. [`PostgresStore::connect`] refuses such a pooler.
//!
//! # What is promised
//! - A write that was acknowledged is on the disk: SQLite's with `synchronous = FULL`, PostgreSQL's
//!   with `synchronous_commit`, which a write switches on where it is off.
//! - Batches are atomic and isolated, between threads and between processes. A batch of which
//!   storage gave no answer may have been applied.
//! - Look-ups read where writes are acknowledged. Give [`PostgresStore`] the primary server, never
//!   a replica, which is refused at the start.
//! - The database's own errors are told by code and message; values, which PostgreSQL adds to some,
//!   are left out.
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `sqlite` (default) | [`SqliteStore`], with SQLite built in |
//! | `postgres` (default) | [`PostgresStore`] |
//! | `tls-rustls` | TLS to PostgreSQL by rustls, with the root certificates of the system |
//!
//! [`StoreError::corrupt`]: portunus::store::StoreError::corrupt
//! [`StoreError::unavailable`]: portunus::store::StoreError::unavailable

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("portunus-sqlx needs one of its features `sqlite` and `postgres`");

#[cfg(feature = "postgres")]
mod address;
mod audit;
mod bus;
mod fault;
#[cfg(feature = "postgres")]
mod lease;
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
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use store::Store;
