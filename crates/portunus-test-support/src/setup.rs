//! A service configuration with flat setters, for tests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portunus::actor::{Directory, OwnerStanding, UserIds};
use portunus::audit::AuditTrail;
use portunus::config::{Actors, BuildError, Credentials, Limits, Policy, Responses};
use portunus::error::ParseError;
use portunus::key::{Environment, KeyFormat, KeyHasher, KeyKind, TenantId};
use portunus::limit::{LimitFields, LimitPolicy, LookupBudget, OnOutage};
use portunus::manage::{HostRules, IssueRules, KeyManager, Management, OperatorPolicy};
use portunus::network::{ClientIp, Transport};
use portunus::quota::{Quota, Quotas};
use portunus::respond::RejectionRenderer;
use portunus::scope::{ScopeModel, Vocabulary};
use portunus::store::{Cache, KeyStore};
use portunus::{
    Authenticator, Clock, Portunus, PortunusBuilder, RateLimiter, RequestHead, TokenVerifier,
};

/// Builder for a service. Without a limiter or quotas, nothing is limited; only the store itself
/// may cache.
#[derive(Debug, Clone)]
#[must_use]
pub struct Setup {
    store: Arc<dyn KeyStore>,
    credentials: Credentials,
    limit_settings: LimitSettings,
    lookups: LookupBudget,
    actors: Actors,
    policy: Policy,
    management: Management,
    responses: Responses,
    audit: Option<AuditTrail>,
    clock: Option<Arc<dyn Clock>>,
    environments: Vec<Environment>,
    bound: Option<Environment>,
}

/// The settings of rate limits.
#[derive(Clone, Default)]
struct LimitSettings {
    limiter: Option<Arc<dyn RateLimiter>>,
    on_outage: Option<OnOutage>,
    quotas: Option<Quotas>,
    tenant_quotas: Option<Quotas>,
    /// Instead of the others.
    limits: Option<Limits>,
    cost_of: Option<Arc<CostOf>>,
}

type CostOf = dyn Fn(&dyn RequestHead) -> u64 + Send + Sync;

impl fmt::Debug for LimitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitSettings")
            .field("quotas", &self.quotas)
            .finish_non_exhaustive()
    }
}

impl LimitSettings {
    fn limits(self) -> Limits {
        if let Some(limits) = self.limits {
            return limits;
        }
        if self.limiter.is_none() && self.quotas.is_none() && self.tenant_quotas.is_none() {
            return Limits::none();
        }
        let mut limits = Limits::from(self.quotas.unwrap_or_default());
        if let Some(limiter) = self.limiter {
            limits = limits.limiter(limiter);
        }
        if let Some(mode) = self.on_outage {
            limits = limits.on_outage(mode);
        }
        if let Some(quotas) = self.tenant_quotas {
            limits = limits.policy(LimitPolicy::per_tenant(each(&quotas)));
        }
        if let Some(of) = self.cost_of {
            limits = limits.cost(move |head| of(head));
        }
        limits
    }
}

fn each(quotas: &Quotas) -> Vec<Result<Quota, ParseError>> {
    quotas.as_slice().iter().cloned().map(Ok).collect()
}

impl Setup {
    pub fn on(store: impl KeyStore) -> Self {
        Self {
            store: Arc::new(store),
            credentials: Credentials::new(),
            limit_settings: LimitSettings::default(),
            lookups: LookupBudget::default(),
            actors: Actors::new(),
            policy: Policy::new(),
            management: Management::new(),
            responses: Responses::new(),
            audit: None,
            clock: None,
            environments: Vec::new(),
            bound: None,
        }
    }

    /// Starts from the groups of a profile.
    pub fn of(store: impl KeyStore, profile: portunus_profiles::Profile) -> Self {
        Self {
            credentials: profile.credentials(),
            actors: profile.actors(),
            policy: profile.policy(),
            management: profile.management(),
            responses: profile.responses(),
            environments: profile.environments(),
            ..Self::on(store)
        }
    }

    fn credentials(mut self, change: impl FnOnce(Credentials) -> Credentials) -> Self {
        self.credentials = change(self.credentials);
        self
    }

    fn actors(mut self, change: impl FnOnce(Actors) -> Actors) -> Self {
        self.actors = change(self.actors);
        self
    }

    fn access(mut self, change: impl FnOnce(Policy) -> Policy) -> Self {
        self.policy = change(self.policy);
        self
    }

    fn management(mut self, change: impl FnOnce(Management) -> Management) -> Self {
        self.management = change(self.management);
        self
    }

    fn responses(mut self, change: impl FnOnce(Responses) -> Responses) -> Self {
        self.responses = change(self.responses);
        self
    }

    pub fn bearer(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.credentials(|group| group.bearer(formats))
    }

    pub fn basic(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.credentials(|group| group.basic(formats))
    }

    pub fn header(self, name: &str, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.credentials(|group| group.header(name, formats))
    }

    pub fn format_for(self, kinds: impl IntoIterator<Item = KeyKind>, format: KeyFormat) -> Self {
        self.credentials(|group| group.issue(kinds, format))
    }

    pub fn hasher(self, hasher: KeyHasher) -> Self {
        self.credentials(|group| group.hasher(hasher))
    }

    pub fn optional(self) -> Self {
        self.credentials(Credentials::optional)
    }

    pub fn token_verifier(self, verifier: impl TokenVerifier) -> Self {
        self.credentials(|group| group.tokens(verifier))
    }

    pub fn limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.limit_settings.limiter = Some(Arc::new(limiter));
        self
    }

    pub fn on_limiter_outage(mut self, mode: OnOutage) -> Self {
        self.limit_settings.on_outage = Some(mode);
        self
    }

    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.limit_settings.quotas = Some(quotas);
        self
    }

    pub fn tenant_quotas(mut self, quotas: Quotas) -> Self {
        self.limit_settings.tenant_quotas = Some(quotas);
        self
    }

    /// Sets all limits. The other settings of limits have no effect then.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limit_settings.limits = Some(limits);
        self
    }

    pub fn plan_bound(self, bound: Duration) -> Self {
        self.actors(|group| group.plan_bound(bound))
    }

    pub fn cost(mut self, of: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static) -> Self {
        self.limit_settings.cost_of = Some(Arc::new(of));
        self
    }

    pub fn lookup_budget(mut self, budget: LookupBudget) -> Self {
        self.lookups = budget;
        self
    }

    pub fn failure_quotas(mut self, quotas: Option<Quotas>) -> Self {
        self.lookups.failures = quotas;
        self
    }

    pub fn limit_fields(self, fields: LimitFields) -> Self {
        self.responses(|group| group.limit_fields(fields))
    }

    pub fn renderer(self, renderer: impl RejectionRenderer) -> Self {
        self.responses(|group| group.renderer(renderer))
    }

    pub fn realm(self, realm: &str) -> Self {
        self.responses(|group| group.realm(realm))
    }

    pub fn owner_standing(self, owners: impl OwnerStanding) -> Self {
        self.actors(|group| group.standing(owners))
    }

    pub fn directory(self, directory: impl Directory) -> Self {
        self.actors(|group| group.directory(directory))
    }

    pub fn user_ids(self, ids: UserIds) -> Self {
        self.actors(|group| group.user_ids(ids))
    }

    pub fn scope_model(self, model: impl ScopeModel) -> Self {
        self.access(|group| group.scope_model(model))
    }

    pub fn grant_everything_to(self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.access(|group| group.unscoped(kinds))
    }

    /// Accepts only keys of this environment. Keys of other environments can still be issued.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.bound = Some(environment.clone());
        self.access(|group| group.serve_only(environment))
    }

    pub fn transport(self, transport: Option<Transport>) -> Self {
        self.access(|group| group.transport(transport))
    }

    pub fn client_ip(self, client_ip: ClientIp) -> Self {
        self.access(|group| group.client_ip(client_ip))
    }

    pub fn vocabulary(self, vocabulary: Vocabulary) -> Self {
        self.management(|group| group.vocabulary(vocabulary))
    }

    pub fn environments(mut self, environments: impl IntoIterator<Item = Environment>) -> Self {
        self.environments = environments.into_iter().collect();
        self
    }

    pub fn rules(self, rules: IssueRules) -> Self {
        self.management(|group| group.rules(rules))
    }

    pub fn active_keys_of(
        self,
        of: impl Fn(&TenantId) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.management(|group| group.active_keys_of(of))
    }

    pub fn policy(self, policy: impl OperatorPolicy) -> Self {
        self.management(|group| group.operators(policy))
    }

    pub fn host_rules(self, rules: impl HostRules) -> Self {
        self.management(|group| group.host_rules(rules))
    }

    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.audit = Some(trail);
        self
    }

    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Returns the library's builder with all settings applied.
    pub fn builder(self) -> PortunusBuilder {
        let limits = self.limit_settings.limits().lookups(self.lookups);
        let mut environments = self.environments;
        if let Some(bound) = self.bound
            && !environments.contains(&bound)
        {
            environments.insert(0, bound);
        }
        let mut builder = Portunus::builder(self.credentials)
            .store(self.store)
            .cache(Cache::none())
            .limits(limits)
            .actors(self.actors)
            .policy(self.policy)
            .management(self.management.environments(environments))
            .responses(self.responses);
        if let Some(trail) = self.audit {
            builder = builder.audit(trail);
        }
        if let Some(clock) = self.clock {
            builder = builder.clock(clock);
        }
        builder
    }

    /// Builds the service.
    pub fn keys(self) -> Portunus {
        self.builder().build().unwrap()
    }

    /// Builds the service and returns its authenticator.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub fn build(self) -> Result<Authenticator, BuildError> {
        Ok(self.builder().build()?.authenticator().clone())
    }

    /// Builds the service and returns its manager.
    pub fn manager(self) -> KeyManager {
        self.keys().manager().clone()
    }
}
