//! Policy of a service: where keys work, and how their scopes are compared.

use std::sync::Arc;

use crate::key::{Environment, KeyKind};
use crate::network::{ClientIp, Transport};
use crate::scope::{ScopeModel, WildcardModel};

/// Restrictions on where keys work, and the model that compares their scopes.
#[derive(Debug, Clone)]
#[must_use = "a policy does nothing until it is given to a builder"]
pub struct Policy {
    pub(crate) unscoped: Vec<KeyKind>,
    pub(crate) scope_model: Arc<dyn ScopeModel>,
    pub(crate) serve_only: Option<Environment>,
    pub(crate) transport: Option<Transport>,
    pub(crate) client_ip: ClientIp,
}

impl Policy {
    /// Returns the default policy: wildcard scopes, keys of all environments, any transport, and
    /// the peer address as the client address.
    pub fn new() -> Self {
        Self {
            unscoped: Vec::new(),
            scope_model: Arc::new(WildcardModel),
            serve_only: None,
            transport: None,
            client_ip: ClientIp::peer(),
        }
    }

    /// Exempts keys of these kinds from scopes, for an API without scopes. Such keys have full
    /// access and cannot be issued with scopes.
    pub fn unscoped(mut self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.unscoped = kinds.into_iter().collect();
        self
    }

    /// Sets how scopes are compared. The default is [`WildcardModel`].
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.scope_model = Arc::new(model);
        self
    }

    /// Accepts keys of this environment only. By default keys of all environments pass, and the
    /// host separates its data by the principal's environment.
    pub fn serve_only(mut self, environment: Environment) -> Self {
        self.serve_only = Some(environment);
        self
    }

    /// Sets the transport requirement. `None`, the default, accepts any connection.
    pub fn transport(mut self, transport: Option<Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// Sets how the client address is determined. The default is the peer address.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.client_ip = client_ip;
        self
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}
