//! Connecting to a PostgreSQL database: as a service, which brings the schema up to date, or as a tool,
//! which leaves it alone.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;

use super::PostgresStore;
use crate::door::{self, Primary};
use crate::fault::{Fault, OpenError};
use crate::lease::{self, CONNECT_LIMIT, Limit};
use crate::operation::Operation;
use crate::share::Purpose;
use crate::store::Database;
use crate::value::Session;
use crate::{address, sql, time};

impl PostgresStore {
    /// Connects to the database at an address such as `postgres://user@host/database`, with
    /// [`pool_options`](Self::pool_options), and creates its schema or brings it up to date
    /// ([`migrate`](Self::migrate)).
    ///
    /// Reports an unreachable server at once, or after 5 seconds if it does not respond. Where the
    /// role lacks the privilege to change tables, call this once with a role that has it.
    ///
    /// # Errors
    /// An invalid address, a server that does not answer or is a replica, a pooler in transaction
    /// mode, a schema that this version must not use or cannot create, or a table that the role
    /// cannot read.
    pub async fn connect(address: &str) -> Result<Self, OpenError> {
        Self::connect_with(address::read(address)?).await
    }

    /// Connects with the host's own connection options and [`pool_options`](Self::pool_options);
    /// otherwise the same as [`connect`](Self::connect).
    ///
    /// # Errors
    /// The same as [`connect`](Self::connect).
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, OpenError> {
        // Boxed, so that a caller's future is not as large as this one-time setup.
        Box::pin(async move {
            let store = Self::attach_to_server(options).await?;
            store.migrate().await?;
            Ok(store)
        })
        .await
    }

    /// Connects to a database behind a pooler that assigns a different server connection to each
    /// transaction, such as PgBouncer in transaction mode; otherwise the same as
    /// [`connect`](Self::connect).
    ///
    /// No setting outlasts a transaction, no prepared statement is named, and no startup parameter
    /// is sent that PgBouncer rejects. A lookup takes a single round trip; every other operation is
    /// a separate transaction. A bus cannot listen through such a pooler: see
    /// [`bus_on`](Self::bus_on).
    ///
    /// # Errors
    /// The same as [`connect`](Self::connect).
    pub async fn behind_pooler(address: &str) -> Result<Self, OpenError> {
        Self::behind_pooler_with(address::read(address)?).await
    }

    /// Connects with the host's own connection options; otherwise the same as
    /// [`behind_pooler`](Self::behind_pooler).
    ///
    /// # Errors
    /// The same as [`connect`](Self::connect).
    pub async fn behind_pooler_with(options: PgConnectOptions) -> Result<Self, OpenError> {
        Box::pin(async move {
            let store = Self::attach_to_pooler(options).await?;
            store.migrate().await?;
            Ok(store)
        })
        .await
    }

    /// Connects, directly or through a pooler ([`is_behind_pooler`](Self::is_behind_pooler)), without
    /// changing the schema: for tools, which must not migrate the database of a running service by
    /// accident. Check the [`schema`](Self::schema) before anything else.
    ///
    /// # Errors
    /// An invalid address, or a server that does not answer or is a replica.
    pub async fn attach(address: &str) -> Result<Self, OpenError> {
        let options = address::read(address)?;
        Box::pin(async move {
            match Self::attach_to_server(options.clone()).await {
                Err(OpenError::Pooler { .. }) => Self::attach_to_pooler(options).await,
                attached => attached,
            }
        })
        .await
    }

    async fn attach_to_server(options: PgConnectOptions) -> Result<Self, OpenError> {
        // A pool would retry until its timeout, and then not report the cause.
        let mut connection = lease::connect(&options).await?;
        door::refuse_recovery(&mut connection).await?;
        if !lease::keeps_its_server(connection, &options).await? {
            let cause = "two transactions of one connection used two server connections".into();
            return Err(OpenError::Pooler { cause });
        }
        let primary = Arc::<Primary>::default();
        let pool = Self::pool_options_for(Arc::clone(&primary)).connect_lazy_with(options);
        Ok(Self::on(pool, primary))
    }

    async fn attach_to_pooler(options: PgConnectOptions) -> Result<Self, OpenError> {
        let options = options.extra_float_digits(None);
        let mut connection = lease::connect(&options).await?;
        door::refuse_recovery(&mut connection).await?;
        let close = async { Ok(connection.close().await?) };
        Limit::of(CONNECT_LIMIT).on(close).await?;
        let mut store = Self::new(Self::plain_pool_options(None).connect_lazy_with(options));
        store.0.is_pooled = true;
        Ok(store)
    }

    /// Returns whether this store is used as one [behind a pooler](Self::behind_pooler).
    #[must_use]
    pub fn is_behind_pooler(&self) -> bool {
        self.0.is_pooled
    }

    /// Returns the time of day of the server, to the millisecond.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn server_time(&self) -> Result<SystemTime, OpenError> {
        Ok(self.0.read(ServerTime).await?)
    }
}

/// Reads the server's clock.
struct ServerTime;

#[async_trait]
impl Operation for ServerTime {
    type Answer = SystemTime;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<SystemTime, Fault> {
        let row = session.first(sql::SERVER_TIME, Vec::new()).await?;
        let mut row = row.ok_or_else(|| Fault::Corrupt("the server's time".to_owned()))?;
        let millis = row.int("time")?;
        time::from_millis(millis).ok_or_else(|| row.corrupt("time"))
    }
}
