//! A hand-made principal, for testing handlers without keys.

use std::net::IpAddr;
use std::sync::Arc;

use super::{ManualClock, valid};
use crate::actor::{ActorMode, Intersection, User, own_mode};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::key::{Access, KeyId, KeyKind, KeyRecord, Owner};
use crate::principal::{Acting, KeyPrincipal};
use crate::respond::Responder;
use crate::scope::{Scope, ScopeModel, ScopeSet, WildcardModel};

/// Builder for a [`KeyPrincipal`] without a presented key.
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
    /// Creates the principal of an application key of a tenant, without scopes, in the environment
    /// `production`, which is also the default of issued keys.
    ///
    /// # Panics
    /// Panics if the tenant is not a valid identifier.
    pub fn app(tenant: &str) -> Self {
        Self::new(KeyKind::App, Owner::tenant(valid(tenant.parse())))
    }

    /// Creates the principal of a user key.
    ///
    /// # Panics
    /// Panics if the tenant or the user is not a valid identifier.
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

    /// Sets the granted scopes.
    ///
    /// # Panics
    /// Panics if a scope is invalid.
    pub fn scopes<'s>(mut self, scopes: impl IntoIterator<Item = &'s str>) -> Self {
        self.record.scopes = scopes
            .into_iter()
            .map(|name| valid(Scope::new(name)))
            .collect();
        self
    }

    /// Makes the key read-only.
    pub fn read_only(mut self) -> Self {
        self.record.access = Access::ReadOnly;
        self
    }

    /// Sets the only workspaces that the key can access.
    ///
    /// # Panics
    /// Panics if a workspace is not a valid identifier.
    pub fn workspaces<'w>(mut self, workspaces: impl IntoIterator<Item = &'w str>) -> Self {
        self.record.workspaces = Some(
            workspaces
                .into_iter()
                .map(|name| valid(name.parse()))
                .collect(),
        );
        self
    }

    /// Sets the key's plan.
    ///
    /// # Panics
    /// Panics if the plan is not a valid name.
    pub fn plan(mut self, plan: &str) -> Self {
        self.record.plan = Some(valid(plan.parse()));
        self
    }

    /// Sets the environment.
    ///
    /// # Panics
    /// Panics if the environment is not a valid name.
    pub fn environment(mut self, environment: &str) -> Self {
        self.record.environment = valid(environment.parse());
        self
    }

    /// Changes any other field of the key's record.
    pub fn with(mut self, change: impl FnOnce(&mut KeyRecord)) -> Self {
        change(&mut self.record);
        self
    }

    /// Makes the key act in this mode for a user of the host's directory. It may do what both of
    /// them may do.
    pub fn acting_for(mut self, mode: ActorMode, user: User) -> Self {
        self.acting = Some((mode, user));
        self
    }

    /// Sets the client address of the request.
    pub fn client_ip(mut self, address: IpAddr) -> Self {
        self.client_ip = Some(address);
        self
    }

    /// Sets how scopes are compared. The default is [`WildcardModel`].
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.model = Arc::new(model);
        self
    }

    /// Renders refusals of this principal in this authenticator's format.
    pub fn dialect_of(mut self, authenticator: &Authenticator) -> Self {
        self.responder = Arc::clone(authenticator.responder());
        self
    }

    /// Builds the principal.
    ///
    /// # Panics
    /// Panics if the scope model rejects the scopes.
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
        let entry = Entry::bare(self.record, scopes, self.responder);
        KeyPrincipal::new(entry, mode, acting, self.client_ip, None, None, None)
    }
}
