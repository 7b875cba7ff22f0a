//! What an authenticator compiles from the settings of a record, which keys often have in common.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;

use super::Charger;
use crate::actor::{self, ActorMode};
use crate::key::{Access, Environment, KeyRecord, KeySettings};
use crate::limit::PlanLimits;
use crate::network::AllowList;
use crate::respond::Responder;
use crate::scope::ScopeSet;

/// The maximum number of compiled settings that further keys share.
const MOST_SHARED: usize = 1000;

/// The part of an entry that keys with equal settings share.
pub(crate) struct CompiledSettings {
    pub(crate) facts: KeyFacts,
    pub(crate) scopes: Arc<dyn ScopeSet>,
    /// The maximum authority when the key acts for a user, if it is limited.
    pub(crate) delegated: Option<Arc<dyn ScopeSet>>,
    /// The limits of the key's plan, with its own quotas. `None` if the plan of its tenant applies,
    /// or if the key has a plan that is not declared.
    pub(crate) plan: Option<Arc<PlanLimits>>,
    pub(crate) common: Arc<Common>,
}

/// What all entries of an authenticator share. It also tells them from those of other authenticators.
pub(crate) struct Common {
    pub(crate) responder: Arc<Responder>,
    pub(crate) charger: Arc<dyn Charger>,
}

/// What each request needs of a record. It is read here, where the rest of the entry is: a record is
/// large, and what it refers to is elsewhere in memory.
pub(crate) struct KeyFacts {
    /// Whether the key is of the environment that is served.
    pub(crate) is_of_environment: bool,
    /// Whether the owner is a user.
    pub(crate) is_of_user: bool,
    /// The mode in which the key acts for its owner.
    pub(crate) mode: ActorMode,
    pub(crate) access: Access,
    /// Whether the key is restricted to workspaces.
    pub(crate) is_restricted: bool,
    pub(crate) networks: Option<AllowList>,
}

impl KeyFacts {
    pub(crate) fn new(record: &KeyRecord, served: Option<&Environment>) -> Self {
        Self {
            is_of_environment: served.is_none_or(|served| *served == record.environment),
            is_of_user: record.owner.user_id.is_some(),
            mode: actor::own_mode(record.kind),
            access: record.access,
            is_restricted: record.workspaces.is_some(),
            networks: record.allowed_ips.clone(),
        }
    }
}

impl CompiledSettings {
    /// Returns whether an authenticator has compiled them.
    #[inline]
    pub(super) fn is_by(&self, by: &Arc<Common>) -> bool {
        Arc::ptr_eq(&self.common, by)
    }

    fn has(&self, scopes: &Arc<dyn ScopeSet>, delegated: Option<&Arc<dyn ScopeSet>>) -> bool {
        let same_delegated = match (&self.delegated, delegated) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_delegated && Arc::ptr_eq(&self.scopes, scopes)
    }
}

/// The settings that an authenticator has compiled lately, by the settings and by whether the owner is
/// a user.
pub(crate) struct SharedSettings(Cache<(Arc<KeySettings>, bool), Arc<CompiledSettings>>);

impl SharedSettings {
    /// Returns the compiled settings of a record with these sets of scopes: those of another key if
    /// they are equal, or else new ones. The sets are compared, because the host's scope model decides
    /// which ones names stand for, each time that a key is compiled.
    pub(crate) fn of(
        &self,
        record: &KeyRecord,
        scopes: Arc<dyn ScopeSet>,
        delegated: Option<Arc<dyn ScopeSet>>,
        compile: impl FnOnce(Arc<dyn ScopeSet>, Option<Arc<dyn ScopeSet>>) -> CompiledSettings,
    ) -> Arc<CompiledSettings> {
        let Some(settings) = record.shared_settings() else {
            return Arc::new(compile(scopes, delegated));
        };
        let key = (Arc::clone(settings), record.owner.user_id.is_some());
        if let Some(known) = self.0.get(&key)
            && known.has(&scopes, delegated.as_ref())
        {
            return known;
        }
        let new = Arc::new(compile(scopes, delegated));
        self.0.insert(key, Arc::clone(&new));
        new
    }
}

impl Default for SharedSettings {
    fn default() -> Self {
        Self(Cache::new(MOST_SHARED))
    }
}

impl fmt::Debug for SharedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSettings")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::entry::Entry;
    use crate::key::{Delegation, KeyId, KeyKind, Owner};
    use crate::scope;
    use crate::scope::{ScopeModel, WildcardModel};

    fn record(owner: Owner) -> KeyRecord {
        let (id, live) = (KeyId::generate().unwrap(), "live".parse().unwrap());
        let mut record = KeyRecord::new(id, "n", KeyKind::App, live, owner, SystemTime::UNIX_EPOCH);
        record.scopes = vec![scope!("document:read")];
        record
    }

    fn tenants() -> KeyRecord {
        record(Owner::tenant("acme".parse().unwrap()))
    }

    fn sets(record: &KeyRecord) -> Arc<dyn ScopeSet> {
        WildcardModel.compile(&record.scopes).unwrap()
    }

    fn compiled(
        shared: &SharedSettings,
        record: &KeyRecord,
        scopes: Arc<dyn ScopeSet>,
        delegated: Option<Arc<dyn ScopeSet>>,
    ) -> Arc<CompiledSettings> {
        let common = Entry::bare(record.clone(), sets(record), Arc::default());
        let common = Arc::clone(&common.common);
        shared.of(record, scopes, delegated, |scopes, delegated| {
            CompiledSettings {
                facts: KeyFacts::new(record, None),
                scopes,
                delegated,
                plan: None,
                common,
            }
        })
    }

    fn are_shared(one: &KeyRecord, other: &KeyRecord) -> bool {
        let shared = SharedSettings::default();
        let [one, other] = [one, other].map(|record| compiled(&shared, record, sets(record), None));
        Arc::ptr_eq(&one, &other)
    }

    #[test]
    fn keys_share_what_is_compiled_from_equal_settings_only() {
        let one = tenants();
        assert!(are_shared(&one, &tenants()));
        let users = Owner::user("acme".parse().unwrap(), "u1".parse().unwrap());
        assert!(!are_shared(&one, &record(users)));
        let changes: [fn(&mut KeyRecord); 8] = [
            |record| record.access = Access::ReadOnly,
            |record| record.allowed_ips = AllowList::parse(["192.0.2.1"]).ok(),
            |record| record.scopes.clear(),
            |record| record.environment = "test".parse().unwrap(),
            |record| record.kind = KeyKind::User,
            |record| record.plan = "large".parse().ok(),
            |record| record.delegation = Delegation::On,
            |record| record.description = Some("of one key".into()),
        ];
        for change in changes {
            let mut other = tenants();
            change(&mut other);
            assert!(!are_shared(&one, &other), "{other:?}");
        }
    }

    #[test]
    fn a_scope_model_that_changes_its_mind_is_asked_for_each_key() {
        let (shared, record) = (SharedSettings::default(), tenants());
        let [less, more] = [scope!("document:read"), scope!("*")]
            .map(|scope| WildcardModel.compile(&[scope]).unwrap());
        let before = compiled(&shared, &record, Arc::clone(&less), None);
        let after = compiled(&shared, &record, Arc::clone(&more), None);
        assert!(Arc::ptr_eq(&after.scopes, &more) && Arc::ptr_eq(&before.scopes, &less));
        let limited = compiled(&shared, &record, Arc::clone(&more), Some(Arc::clone(&less)));
        assert!(limited.delegated.is_some() && after.delegated.is_none());
        let narrower = compiled(&shared, &record, Arc::clone(&less), Some(Arc::clone(&less)));
        assert!(Arc::ptr_eq(&narrower.scopes, &less));
    }
}
