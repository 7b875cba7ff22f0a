//! Builder for [`Portunus`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::jobs::{self, Jobs};
use super::lookup_only::LookupOnly;
use super::notices::{CreditNotices, Days, Notices, Passed};
use super::work::Retention;
use super::{Parts, Portunus};
use crate::audit::AuditTrail;
use crate::authenticator::{Authenticator, AuthenticatorParts};
use crate::clock::{Clock, SystemClock};
use crate::config::{Actors, BuildError, Credentials, Limits, Policy, Responses};
use crate::credit::Credits;
use crate::lock::Mutex;
use crate::manage::{KeyManager, Management};
use crate::store::{Cache, CachedStore, InvalidationListener, KeyLookup, KeyStore};
use crate::telemetry;

/// See [`PortunusBuilder::count_uses_every`].
const LEAST_BETWEEN_COUNTS: Duration = Duration::from_millis(500);
const MOST_BETWEEN_COUNTS: Duration = Duration::from_secs(600);

/// Builder for [`Portunus`].
///
/// Only credentials and a store are required. Each method sets a whole group; a second call
/// replaces the first.
#[must_use = "a builder does nothing until build()"]
pub struct PortunusBuilder {
    credentials: Credentials,
    /// The store, and whether keys can be managed in it.
    store: Option<(Arc<dyn KeyStore>, bool)>,
    cache: Cache,
    limits: Limits,
    credits: Option<Credits>,
    actors: Actors,
    policy: Policy,
    management: Management,
    responses: Responses,
    audit: Option<AuditTrail>,
    counts_every: Duration,
    retention: Retention,
    notices: Days,
    clock: Arc<dyn Clock>,
}

impl PortunusBuilder {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            store: None,
            cache: Cache::new(),
            limits: Limits::default(),
            credits: None,
            actors: Actors::new(),
            policy: Policy::new(),
            management: Management::new(),
            responses: Responses::new(),
            audit: None,
            counts_every: LEAST_BETWEEN_COUNTS,
            retention: Retention::default(),
            notices: Days::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Sets the key store. A store that must be awaited gets a [cache](Self::cache), which learns
    /// of changes on other nodes through the store's own [bus](KeyLookup::bus).
    pub fn store(mut self, store: impl KeyStore) -> Self {
        self.store = Some((Arc::new(store), true));
        self
    }

    /// Sets a lookup instead of a store, for a service that only authenticates: its keys are
    /// managed elsewhere, and usage is not counted. Answers that must be awaited are cached for at
    /// most 2 seconds, unless the host calls [`Portunus::forget`].
    pub fn lookup(mut self, lookup: impl KeyLookup) -> Self {
        self.store = Some((Arc::new(LookupOnly(Arc::new(lookup))), false));
        self
    }

    /// Sets how much is cached, for how long, and which bus reports changes on other nodes.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Sets the rate limits. The default is 60 requests a minute and 1000 an hour for each key.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what requests cost, and who pays. By default they cost nothing.
    pub fn credits(mut self, credits: Credits) -> Self {
        self.credits = Some(credits);
        self
    }

    /// Sets which actors a key can act for. By default a key acts for its owner only.
    pub fn actors(mut self, actors: Actors) -> Self {
        self.actors = actors;
        self
    }

    /// Sets where keys work: environment, transport, client addresses, scope model.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets which keys can be issued, and what operators can do with them.
    pub fn management(mut self, management: Management) -> Self {
        self.management = management;
        self
    }

    /// Sets the format of refusals and the fields of responses.
    pub fn responses(mut self, responses: Responses) -> Self {
        self.responses = responses;
        self
    }

    /// Sets the audit trail, which records requests and management operations with the service's
    /// [clock](Self::clock). By default nothing is recorded.
    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.audit = Some(trail);
        self
    }

    /// Sets how often each node writes the uses of keys to the store: every half second by default, which
    /// is also the least, and at most every ten minutes. A key that is used often is then written less
    /// often. After each write, the next one waits for twenty times as long as it took, at most five
    /// seconds, and for this interval if everything is written. What is not written within 2.5 seconds
    /// waits for later writes, with five seconds in between. A node that is killed loses the uses that it
    /// has not written, and until they are, `last_used_at` and the counts of an hour lack them.
    pub fn count_uses_every(mut self, every: Duration) -> Self {
        self.counts_every = every.clamp(LEAST_BETWEEN_COUNTS, MOST_BETWEEN_COUNTS);
        self
    }

    /// Sets how long hourly usage counts and audit events are kept; `None` keeps them forever.
    /// Events are deleted only from sinks that support it. The default is 90 days for both.
    pub fn retention(mut self, usage: Option<Duration>, events: Option<Duration>) -> Self {
        self.retention = Retention { usage, events };
        self
    }

    /// Sets how many days before the expiry of a key, and after how many days without a use of it,
    /// the audit gets an event: [`Action::KeyExpiring`](crate::audit::Action::KeyExpiring) and
    /// `KeyUnused`. The default is 60, 30, 7 and 1, and 90. A key that lives for fewer days gets no such
    /// event, and of several days that are due at once, the last one counts.
    ///
    /// The periodic jobs record these events, and with them `CreditLow` (as
    /// [`Credits::notices`](crate::credit::Credits::notices) says), `KeyRotatedInUse` and, if the host
    /// states [`OwnerStanding`](crate::actor::OwnerStanding), `KeyOwnerLeft`. Keys that expire are looked
    /// at every hour, all others every day. Each node does so, but the id of an event follows from the
    /// key, the action and the day on which it became due, and a sink keeps an event once. A sink that
    /// passes events on should pass on this id.
    pub fn notices(
        mut self,
        expiring: impl IntoIterator<Item = u16>,
        unused: impl IntoIterator<Item = u16>,
    ) -> Self {
        let (expiring, unused) = (expiring.into_iter().collect(), unused.into_iter().collect());
        self.notices = Days { expiring, unused };
        self
    }

    /// Sets the clock of all parts. The default is the system clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the service.
    ///
    /// # Errors
    /// [`BuildError`] if the settings contradict each other or would let requests pass unchecked.
    /// The message says what to change.
    pub fn build(self) -> Result<Portunus, BuildError> {
        let (store, managed) = self.store.ok_or(BuildError::NoStore)?;
        if managed && self.management.signs_events() && store.signing().is_none() {
            return Err(BuildError::NoSigning);
        }
        let own_bus = self.cache.own_bus();
        // A store that answers an empty lookup immediately never needs to be awaited.
        let must_wait = store.find_now(&[]).is_none();
        let cache = (must_wait && !self.cache.is_off())
            .then(|| CachedStore::of(self.cache, Arc::clone(&store), Arc::clone(&self.clock)));
        let store = match &cache {
            Some(cache) => Arc::new(cache.clone()),
            None => store,
        };
        if let Some(trail) = &self.audit {
            trail.keep_time(&self.clock);
        }
        let (days, standing) = (self.notices, self.actors.standing.clone());
        let is_noted = managed || self.credits.is_some();
        let notices = self
            .audit
            .clone()
            .filter(|trail| is_noted && trail.sinks() > 0);
        let notices = notices.map(|trail| Notices {
            days,
            trail,
            store: Arc::clone(&store),
            usage: store.usage(),
            standing,
            managed,
            state: Mutex::default(),
            passed: Passed::default(),
            credits: CreditNotices::default(),
        });
        let mut credits = self.credits;
        if let (Some(credits), None) = (&mut credits, &notices) {
            credits.notices.clear();
        }
        let formats = self.credentials.formats();
        let counts = store.usage();
        let authenticator = Authenticator::new(AuthenticatorParts {
            credentials: self.credentials,
            rehash_in: managed.then(|| Arc::clone(&store)),
            store: Arc::clone(&store) as Arc<dyn KeyLookup>,
            counts_uses: counts.is_some(),
            limits: self.limits,
            credits,
            actors: self.actors,
            policy: self.policy,
            responses: self.responses,
            audit: self.audit,
            clock: self.clock,
        })?;
        // Of an uncached store, only if the plans of tenants are cached.
        let is_needed = cache.is_some() || authenticator.directory().is_some();
        let bus = own_bus.or_else(|| is_needed.then(|| store.bus()).flatten());
        if let Some(bus) = &bus {
            let plans = Arc::clone(authenticator.tenant_plans()) as Arc<dyn InvalidationListener>;
            bus.subscribe(Arc::downgrade(&plans));
        }
        let manager = KeyManager::new(
            authenticator.clone(),
            store,
            cache.clone(),
            formats,
            self.management,
        )?;
        let jobs = Jobs::new(jobs::Parts {
            counts,
            counts_every: self.counts_every,
            cache: cache.clone(),
            authenticator: authenticator.clone(),
            retention: self.retention,
            notices,
            manager: manager.clone(),
        });
        telemetry::describe();
        Ok(Portunus {
            parts: Arc::new(Parts {
                authenticator,
                manager,
                cache,
                bus,
                jobs,
            }),
        })
    }
}

impl fmt::Debug for PortunusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortunusBuilder")
            .field("credentials", &self.credentials)
            .field("store", &self.store)
            .field("limits", &self.limits)
            .field("policy", &self.policy)
            .field("management", &self.management)
            .finish_non_exhaustive()
    }
}
