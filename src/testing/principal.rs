//! A principal made by hand, for handlers that are tested without any key.

use std::net::IpAddr;
use std::sync::Arc;

use super::{ManualClock, valid};
use crate::actor::{ActorMode, Intersection, User, own_mode};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::key::{Access, KeyId, KeyKind, KeyRecord, Owner};
use crate::limit::LimiterSlot;
use crate::principal::{Acting, KeyEntry, KeyPrincipal};
use crate::quota::Quotas;
use crate::respond::Responder;
use crate::scope::{Scope, ScopeModel, ScopeSet, WildcardModel};
use crate::usage::UsageRecorder;

/// Describes a [`KeyPrincipal`] that no key was presented for.
///
/// ```
/// use portunus::testing::TestPrincipal;
/// use portunus::{Principal, scope};
///
/// let caller = TestPrincipal::user("acme", "u1").scopes(["document:*"]).read_only().build();
/// assert!(caller.require_scope(scope!("document:read")).is_ok());
/// assert_eq!(caller.actor().user_id.map(|id| id.as_str()), Some("u1"));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a description does nothing until build()"]
pub struct TestPrincipal {
    record: KeyRecord,
    acting: Option<(ActorMode, User)>,
    client_ip: Option<IpAddr>,
    model: Arc<dyn ScopeModel>,
    responder: Arc<Responder>,
}

impl TestPrincipal {
    /// An application key of a tenant: without scopes, in the environment `production`, as issued
    /// keys are unless it is said.
    ///
    /// # Panics
    /// Where the tenant has no valid name, as everything here does where a name is none.
    pub fn app(tenant: &str) -> Self {
        Self::new(KeyKind::App, Owner::tenant(valid(tenant.parse())))
    }

    /// A key of a user.
    ///
    /// # Panics
    /// Where a name is none.
    pub fn user(tenant: &str, user: &str) -> Self {
        Self::new(
            KeyKind::User,
            Owner::user(valid(tenant.parse()), valid(user.parse())),
        )
    }

    fn new(kind: KeyKind, owner: Owner) -> Self {
        let (id, now) = (valid(KeyId::new("key_of_a_test")), ManualClock::new().now());
        Self {
            record: KeyRecord::new(
                id,
                "a key for tests",
                kind,
                valid("production".parse()),
                owner,
                now,
            ),
            acting: None,
            client_ip: None,
            model: Arc::new(WildcardModel),
            responder: Arc::default(),
        }
    }

    /// What is granted.
    ///
    /// # Panics
    /// Where a scope has no valid name.
    pub fn scopes<'s>(mut self, scopes: impl IntoIterator<Item = &'s str>) -> Self {
        self.record.scopes = scopes
            .into_iter()
            .map(|name| valid(Scope::new(name)))
            .collect();
        self
    }

    /// The key only reads.
    pub fn read_only(mut self) -> Self {
        self.record.access = Access::ReadOnly;
        self
    }

    /// The only workspaces that the key reaches.
    ///
    /// # Panics
    /// Where a workspace has no valid name.
    pub fn workspaces<'w>(mut self, workspaces: impl IntoIterator<Item = &'w str>) -> Self {
        self.record.workspaces = Some(
            workspaces
                .into_iter()
                .map(|name| valid(name.parse()))
                .collect(),
        );
        self
    }

    /// The plan that the owner pays for.
    ///
    /// # Panics
    /// Where the plan has no valid name.
    pub fn plan(mut self, plan: &str) -> Self {
        self.record.plan = Some(valid(plan.parse()));
        self
    }

    /// The environment.
    ///
    /// # Panics
    /// Where the environment has no valid name.
    pub fn environment(mut self, environment: &str) -> Self {
        self.record.environment = valid(environment.parse());
        self
    }

    /// Changes anything else that is known of the key.
    pub fn with(mut self, change: impl FnOnce(&mut KeyRecord)) -> Self {
        change(&mut self.record);
        self
    }

    /// The key acts for a user of the host's directory, in this way: with what both of them may.
    pub fn acting_for(mut self, mode: ActorMode, user: User) -> Self {
        self.acting = Some((mode, user));
        self
    }

    /// Where the request came from.
    pub fn client_ip(mut self, address: IpAddr) -> Self {
        self.client_ip = Some(address);
        self
    }

    /// How scopes are compared; with wildcards unless set.
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.model = Arc::new(model);
        self
    }

    /// Refusals of this caller are worded as this authenticator's.
    pub fn dialect_of(mut self, authenticator: &Authenticator) -> Self {
        self.responder = Arc::clone(authenticator.responder());
        self
    }

    /// The principal.
    ///
    /// # Panics
    /// Where the scopes cannot be understood by their model.
    #[must_use]
    pub fn build(self) -> KeyPrincipal {
        let compile = |scopes: &[Scope]| valid(self.model.compile(scopes));
        let scopes = compile(&self.record.scopes);
        let (mode, acting) = match self.acting {
            None => (own_mode(self.record.kind), None),
            Some((mode, user)) => {
                let mut sets: Vec<Arc<dyn ScopeSet>> = vec![Arc::clone(&scopes)];
                sets.extend(user.scopes.as_deref().map(compile));
                let scopes = Arc::new(Intersection::of(sets));
                (
                    mode,
                    Some(Arc::new(Acting::new(&self.record, Arc::new(user), scopes))),
                )
            }
        };
        let entry = KeyEntry {
            scopes,
            delegated: None,
            quotas: Quotas::default(),
            family_slot: LimiterSlot::new(),
            tenant_slot: LimiterSlot::new(),
            usage: UsageRecorder::default().cell(&self.record.id),
            responder: self.responder,
            record: Arc::new(self.record),
        };
        KeyPrincipal::new(Arc::new(entry), mode, acting, self.client_ip)
    }
}
