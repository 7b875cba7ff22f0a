//! What issuing and importing accept, for a document that describes it.

use std::time::Duration;

use super::{KeyManager, Setting};
use crate::key::{DigestScheme, Environment, KeyKind, PlanName};
use crate::scope::Vocabulary;

/// The values that a service accepts for new keys, by its settings. Host rules and the operator
/// policy can refuse more.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Accepted {
    /// The kinds of keys that have a format.
    pub kinds: Vec<KeyKind>,
    /// The kinds whose keys have no scopes.
    pub unscoped: Vec<KeyKind>,
    /// The environments that keys can be issued for.
    pub environments: Vec<Environment>,
    /// The schemes of digests that can be imported.
    pub schemes: Vec<DigestScheme>,
    /// The scopes that can be granted; `None` for any valid scope.
    pub vocabulary: Option<Vocabulary>,
    /// The plans that keys can have; `None` for any, if the limits declare none.
    pub plans: Option<Vec<PlanName>>,
    /// The names of the windows by which the plans limit each key.
    pub windows: Vec<String>,
    /// Whether API keys cannot have an expiry. Access tokens can.
    pub never_expire: bool,
    /// Whether rotated keys work until they are deleted, so that no grace period can be set.
    pub rotated_keys_stay: bool,
    /// How often keys should be rotated, if the rules say so.
    pub rotate_every: Option<Duration>,
}

impl KeyManager {
    /// Returns what this service accepts for new keys.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        let settings = &self.inner.settings;
        let all = [KeyKind::App, KeyKind::User, KeyKind::AccessToken];
        let authenticator = &self.inner.authenticator;
        let has_format = |kind: &KeyKind| self.format_of(*kind).is_ok();
        let is_unscoped = |kind: &KeyKind| authenticator.is_unscoped(*kind);
        let table = authenticator.limit_table();
        Accepted {
            kinds: all.into_iter().filter(has_format).collect(),
            unscoped: all.into_iter().filter(is_unscoped).collect(),
            environments: settings.environments.clone(),
            schemes: authenticator.hasher().schemes().collect(),
            vocabulary: settings.vocabulary.clone(),
            plans: table.has_plans().then(|| table.plan_names.clone()),
            windows: table.windows(),
            never_expire: settings.rules.never_expire,
            rotated_keys_stay: settings.rules.rotated_keys_stay,
            rotate_every: settings.rules.rotate_every,
        }
    }

    /// Returns what this operator can ask for: what the service [accepts](Self::accepted), without the
    /// kinds, environments, scopes and plans that the policy refuses to it. For a form; each request
    /// is still checked.
    #[must_use]
    pub fn offered(&self) -> Accepted {
        let mut offered = self.accepted();
        if let Some(own) = self.kinds() {
            offered.kinds.retain(|kind| own.contains(kind));
        }
        if let Some(own) = &self.operator().environments {
            offered.environments.retain(|name| own.contains(name));
        }
        if let Some(vocabulary) = &offered.vocabulary {
            let names = vocabulary.names().iter();
            let within = names.filter(|name| self.may_grant_scope(name)).cloned();
            offered.vocabulary = Some(within.collect());
        }
        if !self.may_exceed(Setting::Plan) {
            offered.plans = Some(Vec::new());
        }
        offered
    }
}
