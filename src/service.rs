//! Entry point of the library: one description of a service's API keys.
//!
//! [`Portunus::builder`] takes everything that the parts of the library must agree on: credentials,
//! store and cache, limits, actors, policy, responses, audit and clock. The result contains the
//! authenticator behind each framework's layer, the manager that issues and revokes keys, and the
//! periodic jobs.
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
mod notices;
mod work;

use std::fmt;
use std::sync::Arc;

pub use builder::PortunusBuilder;
pub use maintenance::Maintenance;

use crate::audit::AuditTrail;
use crate::authenticator::Authenticator;
use crate::config::Credentials;
use crate::credit::CreditAccounts;
use crate::key::{KeyId, TenantId};
use crate::manage::KeyManager;
#[cfg(doc)]
use crate::store::KeyLookup;
use crate::store::{BusError, CachedStore, Invalidation, InvalidationBus};
use jobs::Jobs;

/// The API keys of a service. Clones share all state.
#[derive(Clone)]
pub struct Portunus {
    parts: Arc<Parts>,
}

struct Parts {
    authenticator: Authenticator,
    manager: KeyManager,
    cache: Option<CachedStore>,
    bus: Option<Arc<dyn InvalidationBus>>,
    jobs: Jobs,
}

impl Portunus {
    /// Returns a builder for a service that accepts and issues these credentials. A
    /// [`KeyFormat`](crate::key::KeyFormat) alone means `Authorization: Bearer KEY`.
    pub fn builder(credentials: impl Into<Credentials>) -> PortunusBuilder {
        PortunusBuilder::new(credentials.into())
    }

    /// Returns the authenticator, for frameworks without an adapter and for API documents.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.parts.authenticator
    }

    /// Returns the manager, which issues, lists, changes and revokes keys on behalf of the service
    /// itself. For an operator, see [`KeyManager::by`].
    ///
    /// If the service was built with a [lookup](PortunusBuilder::lookup) instead of a store, every
    /// call fails with an error that says so.
    #[must_use]
    pub fn manager(&self) -> &KeyManager {
        &self.parts.manager
    }

    /// Returns the accounts of [credits](PortunusBuilder::credits), for the service's own code:
    /// reservations, settlements, balances. `None` if requests cost no credits.
    #[must_use]
    pub fn credits(&self) -> Option<&CreditAccounts> {
        self.parts
            .authenticator
            .spending()
            .map(|credits| credits.accounts())
    }

    /// Returns the audit trail, if one is set.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.parts.authenticator.audit()
    }

    /// Removes a key, or the tokens with this id, from this process's cache, so that the next
    /// request queries the store or the [`TokenVerifier`](crate::TokenVerifier).
    ///
    /// Needed only if keys are changed without the library, for example in the host's own table
    /// behind a [lookup](PortunusBuilder::lookup), or if a token is revoked. Otherwise such a change
    /// takes effect within the cache's bound (2 seconds by default, and always for tokens).
    pub fn forget(&self, id: &KeyId) {
        self.parts.authenticator.forget_tokens(id);
        if let Some(cache) = &self.parts.cache {
            cache.forget(id);
        }
    }
}

impl Portunus {
    /// Tells the service that a tenant changed: its plan, or its users. This node drops what it has
    /// cached for the tenant, and the [bus](KeyLookup::bus) notifies the other nodes. Without this
    /// call, a plan is used for at most [`Actors::plan_bound`](crate::config::Actors::plan_bound),
    /// and a user for as long as the directory caches it.
    ///
    /// # Errors
    /// [`BusError`] if other nodes could not be notified, in which case those bounds apply to them.
    /// This node has dropped its data.
    pub async fn tenant_changed(&self, tenant: &TenantId) -> Result<(), BusError> {
        self.parts.authenticator.tenant_plans().changed(tenant);
        let Some(bus) = &self.parts.bus else {
            return Ok(());
        };
        let mut what = Invalidation::default();
        what.tenants.push(tenant.clone());
        bus.publish(&what).await
    }

    /// Runs the periodic jobs that are due, in any async runtime: writes usage and audit events,
    /// publishes key changes that could not be published before, stores keys under newer digests,
    /// continues bulk operations ([`KeyManager::bulk`]), records what the host must act on, reports
    /// the use of credits, frees memory, and deletes usage and events that are older than their
    /// [retention](PortunusBuilder::retention). Call it at least once a second, or let
    #[cfg_attr(feature = "tokio", doc = "[`run`](Self::run) do so on tokio.")]
    #[cfg_attr(
        not(feature = "tokio"),
        doc = "`run` (feature `tokio`) do so on tokio."
    )]
    ///
    /// Each job is limited to five seconds, so that a sink or store that hangs does not block other
    /// jobs, and the call returns within ten seconds. Dropping the future loses nothing. Concurrent
    /// calls are safe: they do not wait for each other, and a job never runs twice at once. A flush
    /// that was requested ([`AuditTrail::request_flush`]) is due immediately.
    ///
    /// Returns what was done and lost since the previous call, what is still waiting, and which
    /// jobs failed.
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

    /// Runs the periodic jobs, like [`maintain`](Self::maintain), whenever they are due, until
    /// `shutdown` completes. Then writes everything that is waiting, within ten seconds.
    ///
    /// Returns what was done and lost since the start. Anything still waiting
    /// ([`Maintenance::uses_waiting`], [`Maintenance::events_waiting`]) is lost when the process
    /// exits: report it with the exit code. Complete `shutdown` only after the last request has
    /// ended.
    ///
    /// # Panics
    /// Panics outside a tokio runtime with a timer.
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
    /// Returns a tower layer that lets only authenticated requests through.
    pub fn layer(&self) -> crate::adapter::tower::AuthLayer {
        crate::adapter::tower::AuthLayer::new(self.authenticator().clone())
    }
}

#[cfg(feature = "axum")]
impl Portunus {
    /// Returns an axum router on which every route must state its requirement.
    pub fn router<S: Clone + Send + Sync + 'static>(
        &self,
    ) -> crate::adapter::axum::ProtectedRouter<S> {
        crate::adapter::axum::ProtectedRouter::new(self.layer())
    }
}

#[cfg(feature = "actix-web")]
impl Portunus {
    /// Returns actix-web middleware that lets only authenticated requests through.
    ///
    /// Build the service once, outside the closure that `HttpServer::new` calls for every worker.
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
