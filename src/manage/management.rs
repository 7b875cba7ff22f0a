//! Settings for key management: which keys can be issued, and what operators can do with them.

use std::fmt;
use std::sync::Arc;

use super::{ByRole, HostRules, IssueRules, OperatorPolicy, host::NoRules};
use crate::key::{Environment, TenantId};
use crate::scope::Vocabulary;

pub(super) type ActiveKeysOf = dyn Fn(&TenantId) -> Option<u64> + Send + Sync;

/// Settings for key management: which keys can be issued, and what operators can do with them.
#[derive(Clone)]
#[must_use = "settings do nothing until they are given to a builder"]
pub struct Management {
    pub(super) rules: IssueRules,
    pub(super) vocabulary: Option<Vocabulary>,
    pub(super) environments: Vec<Environment>,
    pub(super) operators: Arc<dyn OperatorPolicy>,
    pub(super) host_rules: Arc<dyn HostRules>,
    pub(super) active_keys_of: Option<Arc<ActiveKeysOf>>,
}

impl Management {
    /// Returns the default settings: any valid scope, the environments of the key formats, and the
    /// operator policy [`ByRole`].
    pub fn new() -> Self {
        Self {
            rules: IssueRules::default(),
            vocabulary: None,
            environments: Vec::new(),
            operators: Arc::new(ByRole::new()),
            host_rules: Arc::new(NoRules),
            active_keys_of: None,
        }
    }

    /// Sets the rules for keys.
    pub fn rules(mut self, rules: IssueRules) -> Self {
        self.rules = rules;
        self
    }

    pub(crate) fn signs_events(&self) -> bool {
        self.rules.sign_events
    }

    /// Sets the scopes that can be granted. The default is any valid scope.
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.vocabulary = Some(vocabulary);
        self
    }

    /// Sets the environments that keys can be issued for. The first one is the default environment.
    /// By default these are the environments that the key formats represent, or `production` if
    /// there are none.
    pub fn environments(mut self, environments: impl IntoIterator<Item = Environment>) -> Self {
        self.environments = environments.into_iter().collect();
        self
    }

    /// Sets the operator policy. The default is [`ByRole`].
    pub fn operators(mut self, policy: impl OperatorPolicy) -> Self {
        self.operators = Arc::new(policy);
        self
    }

    /// Adds the host's own rules for keys that are issued, imported or changed.
    pub fn host_rules(mut self, rules: impl HostRules) -> Self {
        self.host_rules = Arc::new(rules);
        self
    }

    /// Overrides the maximum number of active keys for individual tenants. `None` keeps
    /// [`IssueRules::active_keys`].
    pub fn active_keys_of(
        mut self,
        of: impl Fn(&TenantId) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.active_keys_of = Some(Arc::new(of));
        self
    }
}

impl Default for Management {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management")
            .field("rules", &self.rules)
            .field("environments", &self.environments)
            .field("operators", &self.operators)
            .field("host_rules", &self.host_rules)
            .finish_non_exhaustive()
    }
}
