//! A store with keys that are ready to be used.

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

/// Keys in memory, with the clock and the format that they are made with. Cloning shares the keys
/// and the clock.
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
    /// No keys yet; they will begin with `test_`.
    #[must_use]
    pub fn new() -> Self {
        Self::of(valid(
            KeyFormat::builder("test_")
                .random(Alphabet::BASE62, 32)
                .build(),
        ))
    }

    /// No keys yet; they will be of the service's own format.
    #[must_use]
    pub fn of(format: KeyFormat) -> Self {
        Self {
            store: MemoryStore::new(),
            format,
            clock: ManualClock::new(),
        }
    }

    /// The secret of a new application key of a tenant.
    ///
    /// # Panics
    /// Where a tenant or scope has no valid name.
    #[must_use]
    pub fn issue<'s>(&self, tenant: &str, scopes: impl IntoIterator<Item = &'s str>) -> String {
        self.issue_with(tenant, scopes, |_| {})
    }

    /// The same for a key that is otherwise than usual.
    ///
    /// # Panics
    /// Where a tenant or scope has no valid name, or the manager refuses the key.
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

    /// The id of the key with this secret.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn id_of(&self, key: &str) -> KeyId {
        match at_once(self.manager().verify(key)) {
            Ok(Some(found)) => found.record.id.clone(),
            _ => panic!("this is none of the keys"),
        }
    }

    /// Revokes the key with this secret.
    ///
    /// # Panics
    /// Where there is none.
    pub fn revoke(&self, key: &str) {
        valid(at_once(self.manager().revoke(&self.id_of(key), None)));
    }

    /// The description of a service with these keys, as Bearer and as Basic, by this clock and without
    /// limits: to be completed as the service's own is.
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

    /// The store.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// The instant that is this far away by the clock.
    #[must_use]
    pub fn in_the(&self, future: Duration) -> SystemTime {
        self.clock.now() + future
    }
}

/// What a store in memory answers without waiting.
fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer
        .now_or_never()
        .unwrap_or_else(|| panic!("a store in memory never waits"))
}
