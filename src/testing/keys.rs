//! A store with keys that are ready to use.

use futures_util::FutureExt;

use super::{ManualClock, valid};
use crate::clock::Clock;
use crate::config::{Credentials, Limits};
use crate::key::{Alphabet, KeyFormat, KeyId, Owner};
use crate::manage::{Issued, KeyManager, NewKey};
use crate::scope::Scope;
use crate::service::{Portunus, PortunusBuilder};
use crate::store::MemoryStore;
use std::time::{Duration, SystemTime};

/// An in-memory key store with its clock and key format. Clones share the keys and the clock.
#[derive(Debug, Clone)]
pub struct TestKeys {
    store: MemoryStore,
    format: KeyFormat,
    clock: ManualClock,
}

impl Default for TestKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl TestKeys {
    /// Creates an empty store. Its keys begin with `test_`.
    #[must_use]
    pub fn new() -> Self {
        Self::of(valid(
            KeyFormat::builder("test_")
                .random(Alphabet::BASE62, 32)
                .build(),
        ))
    }

    /// Creates an empty store. Its keys have the service's own format.
    #[must_use]
    pub fn of(format: KeyFormat) -> Self {
        Self {
            store: MemoryStore::new(),
            format,
            clock: ManualClock::new(),
        }
    }

    /// Issues an application key of a tenant and returns its secret.
    ///
    /// # Panics
    /// Panics if the tenant or a scope is invalid.
    #[must_use]
    pub fn issue<'s>(&self, tenant: &str, scopes: impl IntoIterator<Item = &'s str>) -> String {
        self.issue_with(tenant, scopes, |_| {})
    }

    /// Issues a key with changed settings and returns its secret.
    ///
    /// # Panics
    /// Panics if the tenant or a scope is invalid, or if the manager refuses the key.
    #[must_use]
    pub fn issue_with<'s>(
        &self,
        tenant: &str,
        scopes: impl IntoIterator<Item = &'s str>,
        describe: impl FnOnce(&mut NewKey),
    ) -> String {
        self.try_issue(tenant, scopes, describe).key.reveal()
    }

    fn try_issue<'s>(
        &self,
        tenant: &str,
        scopes: impl IntoIterator<Item = &'s str>,
        describe: impl FnOnce(&mut NewKey),
    ) -> Issued {
        let scopes: Vec<_> = scopes
            .into_iter()
            .map(|name| valid(Scope::new(name)))
            .collect();
        let mut new = NewKey::new("a key for tests", Owner::tenant(valid(tenant.parse())))
            .with_scopes(scopes);
        describe(&mut new);
        valid(at_once(self.manager().issue(new)))
    }

    /// Returns the id of the key with this secret.
    ///
    /// # Panics
    /// Panics if no key has this secret.
    #[must_use]
    pub fn id_of(&self, key: &str) -> KeyId {
        match at_once(self.manager().verify(key)) {
            Ok(Some(found)) => found.record.id.clone(),
            _ => panic!("no key has this secret"),
        }
    }

    /// Revokes the key with this secret.
    ///
    /// # Panics
    /// Panics if no key has this secret.
    pub fn revoke(&self, key: &str) {
        valid(at_once(self.manager().revoke(&self.id_of(key), None)));
    }

    /// Returns a builder of a service with these keys, accepted as Bearer and as Basic, with this
    /// clock and without limits. The test completes it like the host's own service.
    pub fn builder(&self) -> PortunusBuilder {
        let format = || [self.format.clone()];
        Portunus::builder(Credentials::new().bearer(format()).basic(format()))
            .store(self.store.clone())
            .limits(Limits::none())
            .clock(self.clock.clone())
    }

    fn manager(&self) -> KeyManager {
        valid(self.builder().build()).manager().clone()
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Returns the instant that is this far in the future by the clock.
    #[must_use]
    pub fn in_the(&self, future: Duration) -> SystemTime {
        self.clock.now() + future
    }
}

/// Returns the result of a future that an in-memory store completes immediately.
fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer
        .now_or_never()
        .unwrap_or_else(|| panic!("an in-memory store must answer immediately"))
}
