//! A service's API keys, described once.
//!
//! [`Portunus::builder`] takes everything that the parts of the library must agree on: credentials,
//! store and cache, limits, actors, policy, responses, audit and clock. What it builds has all parts:
//! the authenticator behind the layers of each framework, the manager that issues and revokes keys,
//! and the periodic jobs.
//!
//! ```
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::manage::NewKey;
//! use portunus::store::MemoryStore;
//! use portunus::{Portunus, scope};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//! let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//!
//! let owner = Owner::tenant("tenant-1".parse()?);
//! let new = NewKey::new("first key", owner).with_scopes([scope!("document:read")]);
//! let issued = keys.manager().issue(new).await?;
//! let shown_once: String = issued.key.reveal();
//! # Ok(())
//! # }
//! ```

mod builder;
mod jobs;
mod lookup_only;
mod maintenance;

use std::fmt;
use std::sync::Arc;

pub use builder::PortunusBuilder;
pub use maintenance::Maintenance;

use crate::audit::AuditTrail;
use crate::authenticator::Authenticator;
use crate::config::Credentials;
use crate::key::KeyId;
use crate::manage::KeyManager;
use crate::store::CachedStore;
use jobs::Jobs;

/// The API keys of a service. Cloning shares everything.
#[derive(Clone)]
pub struct Portunus {
    parts: Arc<Parts>,
}

struct Parts {
    authenticator: Authenticator,
    manager: KeyManager,
    cache: Option<CachedStore>,
    jobs: Jobs,
}

impl Portunus {
    /// Starts the description of a service that accepts and issues these credentials. A
    /// [`KeyFormat`](crate::key::KeyFormat) alone is presented as `Authorization: Bearer KEY`.
    pub fn builder(credentials: impl Into<Credentials>) -> PortunusBuilder {
        PortunusBuilder::new(credentials.into())
    }

    /// Decides about requests: for frameworks that have no adapter, and for documents of the API.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.parts.authenticator
    }

    /// Issues, lists, changes and revokes keys, on behalf of the service itself. For an operator, see
    /// [`KeyManager::by`].
    ///
    /// Where the service was given a [lookup](PortunusBuilder::lookup) instead of a store, every
    /// call fails with an error that says so.
    #[must_use]
    pub fn manager(&self) -> &KeyManager {
        &self.parts.manager
    }

    /// The audit, where there is one.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.parts.authenticator.audit()
    }

    /// Forgets what this process remembers of a key, so that the next request with it looks it up.
    ///
    /// Needed only where keys are changed behind the library's back, for example in a table of the
    /// host's own that is given as a [lookup](PortunusBuilder::lookup). Without it a change there
    /// takes effect within the bound of the cache (2 seconds unless set).
    pub fn forget(&self, id: &KeyId) {
        if let Some(cache) = &self.parts.cache {
            cache.forget(id);
        }
    }
}

impl Portunus {
    /// Does the periodic jobs that are due, in any async runtime: writes usage and audit events,
    /// tells other nodes of changes that they could not be told of, stores keys under newer digests,
    /// frees memory, and deletes usage and events that are older than their
    /// [retention](PortunusBuilder::retention). Call it at least once a second, or let
    #[cfg_attr(feature = "tokio", doc = "[`run`](Self::run) do it on tokio.")]
    #[cfg_attr(
        not(feature = "tokio"),
        doc = "`run` (feature `tokio`) do it on tokio."
    )]
    ///
    /// Each job has five seconds: a sink or a store that hangs stops no other job, and the call
    /// returns within ten seconds. Dropping the future loses nothing. Calls at the same time are
    /// harmless: none waits for another, and no job runs twice at once. A flush that was asked for
    /// ([`AuditTrail::request_flush`]) is due at once.
    ///
    /// Returns what was done and lost since the call before, what still waits, and which jobs failed.
    ///
    /// ```
    /// # async fn sleep(_: std::time::Duration) {}
    /// # async fn with(keys: portunus::Portunus) {
    /// loop {
    ///     sleep(std::time::Duration::from_secs(1)).await;
    ///     for (job, error) in keys.maintain().await.failures {
    ///         eprintln!("{job}: {error}");
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn maintain(&self) -> Maintenance {
        self.parts.jobs.maintain().await
    }

    /// Does the periodic jobs, as [`maintain`](Self::maintain) does them, whenever they are due,
    /// until `shutdown` ends. Then, within ten seconds, writes all that waits.
    ///
    /// Returns what was done and lost since it began. What still waits then
    /// ([`Maintenance::uses_waiting`], [`Maintenance::events_waiting`]) is lost with the process: let
    /// its exit code say so. Serve until the last request has ended, and only then end `shutdown`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer.
    #[cfg(feature = "tokio")]
    pub fn run<S: Future<Output = ()> + Send>(
        &self,
        shutdown: S,
    ) -> impl Future<Output = Maintenance> + Send + use<S> {
        let parts = Arc::clone(&self.parts);
        async move { parts.jobs.run(shutdown).await }
    }
}

#[cfg(feature = "tower")]
impl Portunus {
    /// A tower layer that lets only authenticated requests through.
    pub fn layer(&self) -> crate::adapter::tower::AuthLayer {
        crate::adapter::tower::AuthLayer::new(self.authenticator().clone())
    }
}

#[cfg(feature = "axum")]
impl Portunus {
    /// An axum router on which every route must state what it requires.
    pub fn router<S: Clone + Send + Sync + 'static>(
        &self,
    ) -> crate::adapter::axum::ProtectedRouter<S> {
        crate::adapter::axum::ProtectedRouter::new(self.layer())
    }
}

#[cfg(feature = "actix-web")]
impl Portunus {
    /// actix-web middleware that lets only authenticated requests through.
    ///
    /// Build the service once, outside of the closure that `HttpServer::new` calls for every worker.
    pub fn middleware(&self) -> crate::adapter::actix::Auth {
        crate::adapter::actix::Auth::new(self.authenticator().clone())
    }
}

impl fmt::Debug for Portunus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portunus")
            .field("authenticator", &self.parts.authenticator)
            .finish_non_exhaustive()
    }
}
