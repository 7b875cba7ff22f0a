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

mod lookup_only;

use std::fmt;
use std::sync::Arc;

pub use builder::PortunusBuilder;

use crate::audit::AuditTrail;
use crate::authenticator::Authenticator;
use crate::config::Credentials;
use crate::key::KeyId;
use crate::manage::KeyManager;
use crate::store::CachedStore;

/// The API keys of a service. Cloning shares everything.
#[derive(Clone)]
pub struct Portunus {
    parts: Arc<Parts>,
}

struct Parts {
    authenticator: Authenticator,
    manager: KeyManager,
    cache: Option<CachedStore>,
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
