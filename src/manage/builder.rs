//! How a manager is described, and what keys of an API may be like.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::host::NoRules;
use super::{ByRole, Inner, KeyManager, Operator, OperatorPolicy};
use crate::actor::UserIds;
use crate::audit::AuditTrail;
use crate::clock::{Clock, SystemClock};
use crate::key::{Delegation, Environment, FormatError, KeyFormat, KeyHasher, KeyKind, TenantId};
use crate::scope::{ScopeModel, Vocabulary, WildcardModel};
use crate::store::KeyStore;
use crate::usage::UsageRecorder;

/// What keys of an API may be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssueRules {
    /// At most this many active keys per tenant.
    pub active_keys: Option<u64>,
    /// At most this many active keys per owner: a user, or the tenant itself.
    pub active_keys_per_owner: Option<u64>,
    /// Whether application keys may act for users unless it is said otherwise when they are issued.
    pub delegation: Delegation,
    /// Whether API keys go without scopes; access tokens may carry some.
    pub unscoped: bool,
    /// Whether API keys may be given an expiry.
    pub never_expire: bool,
    /// How long an access token lives unless it says so.
    pub access_token_lifetime: Option<Duration>,
    /// How long a key that an operator of a tenant makes may live at most. Where it is set, such a
    /// key cannot be without an end, and rotation gives its successor no more than this.
    pub longest_lifetime: Option<Duration>,
    /// How often keys should be rotated: reported, not enforced.
    pub rotate_every: Option<Duration>,
    /// Whether a rotated key stays as it is until it is deleted by hand, so that no grace can be
    /// asked for.
    pub rotated_keys_stay: bool,
    /// Whether the owner's primary key signs events: then a key whose secret was never seen cannot
    /// become one.
    pub sign_events: bool,
}

impl IssueRules {
    pub(super) fn delegation_of(&self, kind: KeyKind) -> Delegation {
        if kind == KeyKind::App {
            self.delegation.clone()
        } else {
            Delegation::Off
        }
    }
}

/// Describes a [`KeyManager`].
#[must_use = "a builder does nothing until build()"]
pub struct KeyManagerBuilder {
    inner: Inner,
}

impl KeyManagerBuilder {
    pub(super) fn new(store: Arc<dyn KeyStore>, format: KeyFormat) -> Self {
        Self {
            inner: Inner {
                counts: store.usage(),
                store,
                formats: vec![(Vec::new(), format)],
                hasher: KeyHasher::default(),
                vocabulary: None,
                scope_model: Arc::new(WildcardModel),
                environments: Vec::new(),
                clock: Arc::new(SystemClock::default()),
                rules: IssueRules::default(),
                user_ids: UserIds::default(),
                active_keys_of: None,
                policy: Arc::new(ByRole::new()),
                audit: None,
            },
        }
    }

    /// Issues keys of these kinds in a format of their own.
    pub fn format_for(
        mut self,
        kinds: impl IntoIterator<Item = KeyKind>,
        format: KeyFormat,
    ) -> Self {
        self.inner
            .formats
            .insert(0, (kinds.into_iter().collect(), format));
        self
    }

    /// How digests are made: as the authenticator's.
    pub fn hasher(mut self, hasher: KeyHasher) -> Self {
        self.inner.hasher = hasher;
        self
    }

    /// The scopes that may be granted; any valid one unless set.
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.inner.vocabulary = Some(vocabulary);
        self
    }

    /// How scopes are understood where it is decided whether an operator may grant them: as the
    /// authenticator's; as wildcards unless set.
    pub fn scope_model(mut self, model: impl ScopeModel) -> Self {
        self.inner.scope_model = Arc::new(model);
        self
    }

    /// The environments that keys may be issued for; the first is the default. Unset, `production`
    /// alone.
    pub fn environments(mut self, environments: impl IntoIterator<Item = Environment>) -> Self {
        self.inner.environments = environments.into_iter().collect();
        self
    }

    /// What keys may be like.
    pub fn rules(mut self, rules: IssueRules) -> Self {
        self.inner.rules = rules;
        self
    }

    /// Which identifiers name users: as the authenticator's. Owners of keys that are issued or
    /// imported, and owners that are asked about, get the one spelling
    /// ([`UserIds::canonical`]). Any, byte for byte, unless set.
    pub fn user_ids(mut self, ids: UserIds) -> Self {
        self.inner.user_ids = ids;
        self
    }

    /// How many active keys a tenant may have, where it differs from the rules' number: `None`
    /// leaves that.
    pub fn active_keys_of(
        mut self,
        of: impl Fn(&TenantId) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.inner.active_keys_of = Some(Arc::new(of));
        self
    }

    /// What operators may do; [`ByRole`] unless set.
    pub fn policy(mut self, policy: impl OperatorPolicy) -> Self {
        self.inner.policy = Arc::new(policy);
        self
    }

    /// Where every act is noted; nowhere unless set.
    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.inner.audit = Some(trail);
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.inner.clock = Arc::new(clock);
        self
    }

    /// The manager.
    ///
    /// # Errors
    /// Where a format cannot write an environment that keys may be issued for.
    pub fn build(mut self) -> Result<KeyManager, FormatError> {
        if self.inner.environments.is_empty() {
            self.inner
                .environments
                .push(Environment::new("production")?);
        }
        for environment in &self.inner.environments {
            if !self
                .inner
                .formats
                .iter()
                .all(|(_, format)| format.allows_environment(environment))
            {
                return Err(FormatError::Environment(environment.to_string()));
            }
        }
        Ok(KeyManager {
            inner: Arc::new(self.inner),
            operator: Arc::new(Operator::host()),
            precondition: None,
            host_rules: Arc::new(NoRules),
            authenticator: None,
            usage: UsageRecorder::default(),
        })
    }
}

impl fmt::Debug for KeyManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManagerBuilder")
            .field("formats", &self.inner.formats)
            .finish_non_exhaustive()
    }
}
