//! The record of a key: everything about it but its secret.
//!
//! A record can be shown, logged and serialized. Its rules (who may use it, when, for what) are
//! typed; what could not be read from storage never becomes a record.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::id::{KeyFamily, KeyId, PlanName, TenantId, UserId, WorkspaceId};
use super::kind::{Environment, KeyKind};
use super::newer::Newer;
use crate::json;
use crate::network::AllowList;
use crate::quota::Quotas;
use crate::scope::Scope;
use crate::text::{ParseError, start};

/// The latest time that is read, written or calculated anywhere, since the Unix epoch:
/// `9999-12-31T23:59:59.999Z`, the last one that RFC 3339 can write to the millisecond.
pub const MAX_TIME: Duration = Duration::from_millis(253_402_300_799_999);

/// Whom a key belongs to. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owner {
    /// The tenant: the wall that no key looks over.
    pub tenant_id: TenantId,
    /// The user, for keys that act as one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<UserId>,
    /// The user's or the platform's e-mail address, for people and audit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_email: Option<String>,
}

impl Owner {
    /// A tenant as owner.
    #[must_use]
    pub fn tenant(tenant_id: TenantId) -> Self {
        Self {
            tenant_id,
            user_id: None,
            user_email: None,
        }
    }

    /// A user of a tenant as owner.
    #[must_use]
    pub fn user(tenant_id: TenantId, user_id: UserId) -> Self {
        Self {
            tenant_id,
            user_id: Some(user_id),
            user_email: None,
        }
    }

    /// The same owner with an e-mail address.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<String>) -> Self {
        self.user_email = Some(email.into());
        self
    }
}

/// What a key may do at all, whatever its scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Access {
    /// Read, create, update and delete.
    #[default]
    FullAccess,
    /// Read only.
    ReadOnly,
}

impl Access {
    /// The name: `full-access`, `read-only`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FullAccess => "full-access",
            Self::ReadOnly => "read-only",
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    /// From its name only: a derived one would also read an object with the name as a member.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Access {
    type Err = ParseError;
    fn from_str(name: &str) -> Result<Self, ParseError> {
        let found = [Self::FullAccess, Self::ReadOnly]
            .into_iter()
            .find(|access| access.as_str() == name);
        found.ok_or_else(|| {
            let why = format!(
                "no access {:?}: there are full-access, read-only",
                start(name, 40)
            );
            ParseError::new("access", why)
        })
    }
}

/// Whether a key may act for users, and with which authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delegation {
    /// It acts as its owner only.
    #[default]
    Off,
    /// It may act for users, with all that it may itself, as far as they may.
    On,
    /// It may act for users, with these scopes at most.
    Only(Vec<Scope>),
}

/// When and why a key was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Revocation {
    /// Since when the key is refused.
    pub at: SystemTime,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
}

impl Revocation {
    /// A revocation.
    #[must_use]
    pub fn new(at: SystemTime, reason: Option<String>) -> Self {
        Self { at, reason }
    }
}

/// The state of a key at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyStatus {
    /// It works.
    Active,
    /// Its time has not come (`not_before`).
    NotYetValid,
    /// Its time is over: `now >= expires_at`.
    Expired,
    /// It is switched off, and can be switched on again.
    Disabled,
    /// It is refused for good.
    Revoked,
    /// A newer version wrote it, and this one may not know what restricts it
    /// ([`KeyRecord::needs`]): it is refused here.
    Unreadable,
}

impl KeyStatus {
    /// The name in answers: `active`, `not_yet_valid`, `expired`, `disabled`, `revoked`,
    /// `unreadable`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Unreadable => "unreadable",
        }
    }
}

impl FromStr for KeyStatus {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut all = [
            Self::Active,
            Self::NotYetValid,
            Self::Expired,
            Self::Disabled,
            Self::Revoked,
            Self::Unreadable,
        ]
        .into_iter();
        all.find(|known| known.as_str() == text).ok_or_else(|| {
            let why = format!("{:?} is no state of a key", start(text, 40));
            ParseError::new("state", why)
        })
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A JSON object of the host's own, kept beside a key: at most 16 KiB.
///
/// No object in it has two members with the same name; integers have at most 64 bits, and fractions
/// are doubles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "serde_json::Map<String, serde_json::Value>")]
pub struct Metadata(String);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let value = json::deserialize(reader)?;
        Self::try_from(value).map_err(D::Error::custom)
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl Metadata {
    /// The most bytes that metadata takes as JSON.
    pub const MAX_LENGTH: usize = 16 * 1024;

    /// Metadata from the text of a JSON object (RFC 8259), read [strictly](crate::json).
    ///
    /// # Errors
    /// Where the text is longer than 16 KiB or not a JSON object, names a member of an object twice,
    /// or has a number that cannot be kept.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        if text.len() > Self::MAX_LENGTH {
            return Err(too_long(text.len()));
        }
        let invalid = |error| ParseError::new("metadata", format!("metadata: {error}"));
        Self::try_from(json::parse(text.as_bytes()).map_err(invalid)?)
    }

    /// The text of the JSON object.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

fn too_long(bytes: usize) -> ParseError {
    let why = format!("metadata takes at most 16 KiB; this has {bytes} bytes");
    ParseError::new("metadata", why)
}

impl TryFrom<serde_json::Value> for Metadata {
    type Error = ParseError;
    fn try_from(value: serde_json::Value) -> Result<Self, ParseError> {
        match value {
            serde_json::Value::Object(object) => Self::try_from(object),
            _ => Err(ParseError::new(
                "metadata",
                "metadata must be a JSON object",
            )),
        }
    }
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Metadata {
    type Error = ParseError;
    fn try_from(object: serde_json::Map<String, serde_json::Value>) -> Result<Self, ParseError> {
        match serde_json::Value::Object(object).to_string() {
            text if text.len() > Self::MAX_LENGTH => Err(too_long(text.len())),
            text => Ok(Self(text)),
        }
    }
}

impl From<Metadata> for serde_json::Map<String, serde_json::Value> {
    fn from(metadata: Metadata) -> Self {
        // The text came from a map, or was read as one: what cannot happen reads as empty.
        serde_json::from_str(&metadata.0).unwrap_or_default()
    }
}

/// A restriction that may be absent, but not left out: a record that lost the field is no record.
fn stated<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Everything about a key but its secret.
///
/// Stores keep one as [`to_json`](Self::to_json) writes it, or make one with [`KeyRecord::new`] and
/// set what else they have read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyRecord {
    /// The key's own id.
    pub id: KeyId,
    /// What it shares with its successors by rotation.
    pub family: KeyFamily,
    /// Raised by one at each change but usage; the basis of compare-and-swap and of `ETag`.
    pub version: u64,
    /// A name for people.
    pub name: String,
    /// More for people.
    pub description: Option<String>,
    /// Whom the key stands for.
    pub kind: KeyKind,
    /// The only environment it works in.
    pub environment: Environment,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What people may see of the secret: the last four characters and what stands before the
    /// random part.
    pub masked: String,
    /// What it grants.
    pub scopes: Vec<Scope>,
    /// Whether it may write.
    pub access: Access,
    /// The only workspaces it reaches; all of the tenant's if absent.
    #[serde(deserialize_with = "stated")]
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan that its owner pays for.
    #[serde(deserialize_with = "stated")]
    pub plan: Option<PlanName>,
    /// Whether it may act for users. User keys never do.
    pub delegation: Delegation,
    /// Where it may be used from; anywhere if absent.
    #[serde(deserialize_with = "stated")]
    pub allowed_ips: Option<AllowList>,
    /// How often it may be used; as often as the authenticator's default allows if absent.
    #[serde(deserialize_with = "stated")]
    pub quotas: Option<Quotas>,
    /// The host's own facts.
    pub metadata: Metadata,
    /// When it was made.
    pub created_at: SystemTime,
    /// From when on it works; at once if absent.
    #[serde(deserialize_with = "stated")]
    pub not_before: Option<SystemTime>,
    /// The first instant at which it no longer works; never if absent.
    #[serde(deserialize_with = "stated")]
    pub expires_at: Option<SystemTime>,
    /// Whether it is switched on.
    pub enabled: bool,
    /// Whether it has been revoked.
    #[serde(deserialize_with = "stated")]
    pub revoked: Option<Revocation>,
    /// The key whose place it took by rotation.
    #[serde(default)]
    pub predecessor: Option<KeyId>,
    /// The key that took its place by rotation.
    #[serde(default)]
    pub successor: Option<KeyId>,
    /// A fingerprint of the request that made it, where that can be repeated.
    #[serde(default)]
    pub origin: Option<String>,
    /// Whether it may become its owner's primary key: not where events are signed and its secret
    /// was never seen.
    pub may_be_primary: bool,
    /// What a newer version wrote.
    #[serde(rename = "understands", default, skip_serializing)]
    pub(super) newer: Newer,
}

impl KeyRecord {
    /// About how much memory it takes with what is compiled of it, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let owner = &self.owner;
        let texts = [
            Some(self.id.as_str()),
            Some(self.name.as_str()),
            self.description.as_deref(),
            Some(self.metadata.0.as_str()),
            Some(owner.tenant_id.as_str()),
            owner.user_id.as_ref().map(UserId::as_str),
            owner.user_email.as_deref(),
            self.plan.as_ref().map(PlanName::as_str),
        ];
        let delegated = match &self.delegation {
            Delegation::Only(scopes) => scopes.as_slice(),
            Delegation::Off | Delegation::On => &[],
        };
        let scopes = self.scopes.iter().chain(delegated).map(Scope::as_str);
        let workspaces = self.workspaces.iter().flatten().map(WorkspaceId::as_str);
        // Twice: as they are written, and compiled.
        let names = scopes.chain(workspaces);
        let names: usize = names
            .map(|name| 2 * (name.len() + size_of::<String>()))
            .sum();
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        let networks = self.allowed_ips.as_ref();
        let networks = networks.map_or(0, |list| list.entries().len() * 64);
        let quotas = self.quotas.as_ref();
        let quotas = quotas.map_or(0, |quotas| quotas.as_slice().len() * 128);
        size_of::<Self>() + texts + names + networks + quotas
    }

    /// A record with the facts that every key has; the rest is public and starts as: version 1, no
    /// scopes, full access, enabled, without a time limit, a family of its own.
    #[must_use]
    pub fn new(
        id: KeyId,
        name: impl Into<String>,
        kind: KeyKind,
        environment: Environment,
        owner: Owner,
        created_at: SystemTime,
    ) -> Self {
        Self {
            family: KeyFamily::from(&id),
            id,
            version: 1,
            name: name.into(),
            description: None,
            kind,
            environment,
            owner,
            masked: "…".into(),
            scopes: Vec::new(),
            access: Access::default(),
            workspaces: None,
            plan: None,
            delegation: Delegation::default(),
            allowed_ips: None,
            quotas: None,
            metadata: Metadata::default(),
            created_at,
            not_before: None,
            expires_at: None,
            enabled: true,
            revoked: None,
            predecessor: None,
            successor: None,
            origin: None,
            may_be_primary: true,
            newer: Newer::default(),
        }
    }

    /// The state at an instant. What is final comes first: a key that is revoked and expired is
    /// revoked.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> KeyStatus {
        if self.revoked.is_some() {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyStatus::Expired
        } else if !self.enabled {
            KeyStatus::Disabled
        } else if self.needs().is_some() {
            KeyStatus::Unreadable
        } else if self.not_before.is_some_and(|start| now < start) {
            KeyStatus::NotYetValid
        } else {
            KeyStatus::Active
        }
    }

    /// Whether the key counts against a quota of active keys: not revoked and not expired. Disabled
    /// keys count, access tokens never do.
    #[must_use]
    pub fn counts_as_active(&self, now: SystemTime) -> bool {
        self.kind != KeyKind::AccessToken
            && !matches!(self.status(now), KeyStatus::Revoked | KeyStatus::Expired)
    }

    /// Whether two records are of one owner (tenant and user) and one family: of one key, they
    /// always are.
    #[must_use]
    pub fn is_of_the_same_owner(&self, other: &Self) -> bool {
        (&self.owner.tenant_id, &self.owner.user_id, &self.family)
            == (&other.owner.tenant_id, &other.owner.user_id, &other.family)
    }

    /// Whether the key can be its owner's primary at an instant: it counts as active and nothing
    /// speaks against it.
    #[must_use]
    pub fn can_be_primary(&self, now: SystemTime) -> bool {
        self.may_be_primary && self.counts_as_active(now)
    }
}
