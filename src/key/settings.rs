//! The part of a record that keys often have in common. Equal ones are shared.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use quick_cache::sync::Cache;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::{KeyFamily, KeyId, PlanName, WorkspaceId};
use super::kind::{Environment, KeyKind};
use super::newer::Newer;
use super::record::{Access, Delegation, KeyRecord, Metadata, Owner, Revocation};
use super::text::Text;
use crate::network::AllowList;
use crate::quota::Quotas;
use crate::scope::Scope;

/// The maximum number of shared settings, and of the items of a list in them.
const MOST_SHARED: usize = 1000;
const LONGEST_SHARED: usize = 16;

/// The part of a [`KeyRecord`] that keys often have in common. A record's settings are read and set
/// like its other fields, as in `record.scopes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct KeySettings {
    /// The description.
    pub description: Option<String>,
    /// The kind of key.
    pub kind: KeyKind,
    /// The only environment in which the key works.
    pub environment: Environment,
    /// The granted scopes.
    pub scopes: Vec<Scope>,
    /// The access level.
    pub access: Access,
    /// The only workspaces that the key can access; all of the tenant's if `None`.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan of the key's owner.
    pub plan: Option<PlanName>,
    /// Whether the key may act for users. User keys never do.
    pub delegation: Delegation,
    /// The networks that the key may be used from; any if `None`.
    pub allowed_ips: Option<AllowList>,
    /// The rate limits; the authenticator's defaults if `None`.
    pub quotas: Option<Quotas>,
    /// The host's own data.
    pub metadata: Metadata,
    /// The first instant at which the key works; at once if `None`.
    pub not_before: Option<SystemTime>,
    /// Whether the key is enabled.
    pub enabled: bool,
    /// The revocation, if the key has been revoked.
    pub revoked: Option<Revocation>,
    /// The key that this one replaced by rotation.
    pub predecessor: Option<KeyId>,
    /// The key that replaced this one by rotation.
    pub successor: Option<KeyId>,
    /// A fingerprint of the request that created the key, if that request can be repeated.
    pub origin: Option<String>,
    /// Whether the key may become its owner's primary key. False if events are signed and the key's
    /// secret was never seen.
    pub may_be_primary: bool,
    /// Content of a newer version.
    #[serde(skip)]
    pub(super) newer: Newer,
}

impl KeySettings {
    pub(super) fn new(kind: KeyKind, environment: Environment) -> Self {
        Self {
            description: None,
            kind,
            environment,
            scopes: Vec::new(),
            access: Access::default(),
            workspaces: None,
            plan: None,
            delegation: Delegation::default(),
            allowed_ips: None,
            quotas: None,
            metadata: Metadata::default(),
            not_before: None,
            enabled: true,
            revoked: None,
            predecessor: None,
            successor: None,
            origin: None,
            may_be_primary: true,
            newer: Newer::default(),
        }
    }

    /// Whether other keys may have the same settings: nothing in them is about one key.
    fn may_be_shared(&self) -> bool {
        let delegated = match &self.delegation {
            Delegation::Only(scopes) => scopes.len(),
            Delegation::Off | Delegation::On => 0,
        };
        let networks = self.allowed_ips.as_ref();
        let networks = networks.map_or(0, |list| list.entries().len());
        let workspaces = self.workspaces.as_ref().map_or(0, Vec::len);
        let lists = [self.scopes.len(), delegated, networks, workspaces];
        let links = [&self.predecessor, &self.successor];
        lists.iter().all(|length| *length <= LONGEST_SHARED)
            && links.iter().all(|link| link.is_none())
            && (&self.description, &self.origin) == (&None, &None)
            && self.metadata == Metadata::default()
            && self.not_before.is_none()
            && self.revoked.is_none()
            && self.newer == Newer::default()
    }

    /// Returns the settings, in the place that records with equal ones share.
    fn shared(self) -> Arc<Self> {
        static SHARED: LazyLock<Cache<Arc<KeySettings>, Arc<KeySettings>>> =
            LazyLock::new(|| Cache::new(MOST_SHARED));
        if !self.may_be_shared() {
            return Arc::new(self);
        }
        if let Some(known) = SHARED.get(&self) {
            return known;
        }
        let own = Arc::new(self);
        SHARED.insert(Arc::clone(&own), Arc::clone(&own));
        own
    }
}

impl KeyRecord {
    /// Returns the settings, if other keys may have the same ones.
    pub(crate) fn shared_settings(&self) -> Option<&Arc<KeySettings>> {
        self.settings.may_be_shared().then_some(&self.settings)
    }
}

impl Deref for KeyRecord {
    type Target = KeySettings;
    fn deref(&self) -> &KeySettings {
        &self.settings
    }
}

impl DerefMut for KeyRecord {
    /// Returns the record's own copy: other records keep what they have.
    fn deref_mut(&mut self) -> &mut KeySettings {
        Arc::make_mut(&mut self.settings)
    }
}

/// Writes the settings as members of the record.
pub(super) fn serialize<S: Serializer>(
    settings: &Arc<KeySettings>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    settings.as_ref().serialize(serializer)
}

/// A record as it is read. Restrictions may be `null`, but must be present: a record that lost the
/// member must not become an unrestricted one.
#[derive(Deserialize)]
#[serde(rename = "KeyRecord")]
pub(super) struct Stored {
    id: KeyId,
    family: KeyFamily,
    version: u64,
    name: Text,
    description: Option<String>,
    kind: KeyKind,
    environment: Environment,
    owner: Owner,
    masked: Text,
    scopes: Vec<Scope>,
    access: Access,
    #[serde(deserialize_with = "nullable_but_present")]
    workspaces: Option<Vec<WorkspaceId>>,
    #[serde(deserialize_with = "nullable_but_present")]
    plan: Option<PlanName>,
    delegation: Delegation,
    #[serde(deserialize_with = "nullable_but_present")]
    allowed_ips: Option<AllowList>,
    #[serde(deserialize_with = "nullable_but_present")]
    quotas: Option<Quotas>,
    metadata: Metadata,
    created_at: SystemTime,
    #[serde(deserialize_with = "nullable_but_present")]
    not_before: Option<SystemTime>,
    #[serde(deserialize_with = "nullable_but_present")]
    expires_at: Option<SystemTime>,
    enabled: bool,
    #[serde(deserialize_with = "nullable_but_present")]
    revoked: Option<Revocation>,
    #[serde(default)]
    predecessor: Option<KeyId>,
    #[serde(default)]
    successor: Option<KeyId>,
    #[serde(default)]
    origin: Option<String>,
    may_be_primary: bool,
    #[serde(rename = "understands", default)]
    newer: Newer,
}

fn nullable_but_present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

impl From<Stored> for KeyRecord {
    fn from(stored: Stored) -> Self {
        let settings = KeySettings {
            description: stored.description,
            kind: stored.kind,
            environment: stored.environment,
            scopes: stored.scopes,
            access: stored.access,
            workspaces: stored.workspaces,
            plan: stored.plan,
            delegation: stored.delegation,
            allowed_ips: stored.allowed_ips,
            quotas: stored.quotas,
            metadata: stored.metadata,
            not_before: stored.not_before,
            enabled: stored.enabled,
            revoked: stored.revoked,
            predecessor: stored.predecessor,
            successor: stored.successor,
            origin: stored.origin,
            may_be_primary: stored.may_be_primary,
            newer: stored.newer,
        };
        // Long ones share their memory.
        let family = match stored.family.as_str() == stored.id.as_str() {
            true => KeyFamily::from(&stored.id),
            false => stored.family,
        };
        Self {
            id: stored.id,
            family,
            version: stored.version,
            name: stored.name,
            owner: stored.owner,
            masked: stored.masked,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            settings: settings.shared(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scope;

    fn read(record: &KeyRecord) -> KeyRecord {
        let read = KeyRecord::from_json(&record.to_json().unwrap()).unwrap();
        assert_eq!(read, *record);
        read
    }

    fn is_shared(one: &KeyRecord, other: &KeyRecord) -> bool {
        Arc::ptr_eq(&one.settings, &other.settings)
    }

    fn record(tenant: &str) -> KeyRecord {
        let (id, owner) = (KeyId::generate().unwrap(), tenant.parse().unwrap());
        let environment = "live".parse().unwrap();
        let (kind, owner) = (KeyKind::App, Owner::tenant(owner));
        let mut record = KeyRecord::new(id, "n", kind, environment, owner, SystemTime::UNIX_EPOCH);
        record.scopes = vec![scope!("settings:read")];
        record
    }

    #[test]
    fn equal_settings_are_shared_until_one_is_changed() {
        let (one, mut other) = (read(&record("a")), read(&record("b")));
        assert!(is_shared(&one, &other));
        other.scopes.push(scope!("*"));
        other.enabled = false;
        assert_eq!(one.scopes, [scope!("settings:read")]);
        assert!(one.enabled && !is_shared(&one, &other));
        assert!(!is_shared(&one, &read(&other)));
        // Nor does a record that is read later get what was changed.
        assert_eq!(read(&record("c")).scopes, one.scopes);
    }

    #[test]
    fn what_only_one_key_has_is_not_kept_for_others() {
        let own: [fn(&mut KeyRecord); 8] = [
            |record| record.description = Some("d".into()),
            |record| record.origin = Some("o".into()),
            |record| record.metadata = Metadata::from_json(r#"{"a":1}"#).unwrap(),
            |record| record.not_before = Some(SystemTime::UNIX_EPOCH),
            |record| record.revoked = Some(Revocation::new(SystemTime::UNIX_EPOCH, None)),
            |record| record.predecessor = Some(KeyId::generate().unwrap()),
            |record| record.successor = Some(KeyId::generate().unwrap()),
            |record| record.scopes = vec![scope!("a"); LONGEST_SHARED + 1],
        ];
        for set in own {
            let mut record = record("a");
            set(&mut record);
            assert!(!is_shared(&read(&record), &read(&record)), "{record:?}");
        }
    }
}
