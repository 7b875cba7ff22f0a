//! The record of a key: everything about it except the secret.
//!
//! A record can be shown, logged and serialized. Its rules (who may use the key, when, for what)
//! are typed: stored data that cannot be parsed never becomes a record.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::id::{KeyFamily, KeyId, PlanName, TenantId, UserId, WorkspaceId};
use super::kind::{Environment, KeyKind};
use super::settings::{self, KeySettings, Stored};
use super::text::Text;
use crate::json;
use crate::scope::Scope;
use crate::text::{ParseError, start};

/// The latest time that is read, written or calculated anywhere, since the Unix epoch:
/// `9999-12-31T23:59:59.999Z`, the last millisecond that RFC 3339 can represent.
pub const MAX_TIME: Duration = Duration::from_millis(253_402_300_799_999);

/// The owner of a key. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owner {
    /// The tenant. No key reaches another tenant's data.
    pub tenant_id: TenantId,
    /// The user, for keys that act as a user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<UserId>,
    /// The user's or the platform's e-mail address, for people and audit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_email: Option<Box<str>>,
}

impl Owner {
    /// Creates an owner that is a tenant.
    #[must_use]
    pub fn tenant(tenant_id: TenantId) -> Self {
        Self {
            tenant_id,
            user_id: None,
            user_email: None,
        }
    }

    /// Creates an owner that is a user of a tenant.
    #[must_use]
    pub fn user(tenant_id: TenantId, user_id: UserId) -> Self {
        Self {
            tenant_id,
            user_id: Some(user_id),
            user_email: None,
        }
    }

    /// Sets the e-mail address.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<Box<str>>) -> Self {
        self.user_email = Some(email.into());
        self
    }
}

/// The access level of a key, which applies in addition to its scopes.
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
    /// Returns the name: `full-access`, `read-only`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FullAccess => "full-access",
            Self::ReadOnly => "read-only",
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    /// Accepts the name only: a derived implementation would also accept an object with the name as
    /// its member.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
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
                "unknown access level {:?}: expected full-access or read-only",
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
    /// The key acts as its owner only.
    #[default]
    Off,
    /// The key may act for users, with all of its own scopes, limited to what the user may do.
    On,
    /// The key may act for users, with at most these scopes.
    Only(Vec<Scope>),
}

/// When and why a key was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Revocation {
    /// The time from which the key is refused.
    pub at: SystemTime,
    /// The reason, as given by the actor.
    pub reason: Option<String>,
}

impl Revocation {
    /// Creates a revocation.
    #[must_use]
    pub fn new(at: SystemTime, reason: Option<String>) -> Self {
        Self { at, reason }
    }
}

/// The status of a key at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyStatus {
    /// The key can be used.
    Active,
    /// The key is not valid yet (`now < not_before`).
    NotYetValid,
    /// The key has expired (`now >= expires_at`).
    Expired,
    /// The key is disabled and can be enabled again.
    Disabled,
    /// The key is refused permanently.
    Revoked,
    /// A newer version wrote the record, possibly with restrictions that are unknown here
    /// ([`KeyRecord::needs`]). This version refuses the key.
    Unreadable,
}

impl KeyStatus {
    /// Returns the name used in responses: `active`, `not_yet_valid`, `expired`, `disabled`,
    /// `revoked`, `unreadable`.
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
            let why = format!("unknown key status {:?}", start(text, 40));
            ParseError::new("state", why)
        })
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A JSON object that the host stores with a key, at most 16 KiB.
///
/// No object in it has duplicate members. Integers have at most 64 bits; fractions are doubles.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "serde_json::Map<String, serde_json::Value>")]
pub struct Metadata(Cow<'static, str>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let value = json::deserialize(reader)?;
        Self::try_from(value).map_err(D::Error::custom)
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self(Cow::Borrowed("{}"))
    }
}

impl Metadata {
    /// The maximum size as JSON, in bytes.
    pub const MAX_LENGTH: usize = 16 * 1024;

    /// Parses a JSON object (RFC 8259) [strictly](crate::json).
    ///
    /// # Errors
    /// Returns an error if the text is longer than 16 KiB, is not a JSON object, has a duplicate
    /// member, or has a number that cannot be represented.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        if text.len() > Self::MAX_LENGTH {
            return Err(too_long(text.len()));
        }
        let invalid = |error| ParseError::new("metadata", format!("metadata: {error}"));
        Self::try_from(json::parse(text.as_bytes()).map_err(invalid)?)
    }

    /// Returns the JSON object as text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

fn too_long(bytes: usize) -> ParseError {
    let why = format!("metadata must be at most 16 KiB; this has {bytes} bytes");
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
            text if text == "{}" => Ok(Self::default()),
            text => Ok(Self(text.into())),
        }
    }
}

impl From<Metadata> for serde_json::Map<String, serde_json::Value> {
    fn from(metadata: Metadata) -> Self {
        // The text was written from a map or parsed as one, so this cannot fail.
        serde_json::from_str(&metadata.0).unwrap_or_default()
    }
}

/// Everything about a key except its secret.
///
/// The fields that keys often have in common, such as their scopes and networks, are those of
/// [`KeySettings`]. They are read and set like the record's: `record.scopes`. Records that were read
/// from a database share settings that are equal.
///
/// Stores keep a record as [`to_json`](Self::to_json) writes it, or create it with
/// [`KeyRecord::new`] and set the other fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
#[non_exhaustive]
pub struct KeyRecord {
    /// The key's id.
    pub id: KeyId,
    /// The id shared by the key and its successors by rotation.
    pub family: KeyFamily,
    /// The version, incremented by each change except usage; the basis of compare-and-swap and of
    /// `ETag`.
    pub version: u64,
    /// The display name.
    pub name: Text,
    /// The owner.
    pub owner: Owner,
    /// The displayable part of the secret: everything before the random part, and the last four
    /// characters.
    pub masked: Text,
    /// When the key was created.
    pub created_at: SystemTime,
    /// The first instant at which the key no longer works; never if `None`.
    pub expires_at: Option<SystemTime>,
    #[serde(flatten, serialize_with = "settings::serialize")]
    pub(super) settings: Arc<KeySettings>,
}

impl KeyRecord {
    /// Estimates the memory of the record and its compiled form, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let owner = &self.owner;
        let texts = [
            Some(self.id.as_str()),
            Some(self.name.as_str()),
            Some(self.masked.as_str()),
            self.description.as_deref(),
            self.origin.as_deref(),
            Some(self.metadata.as_json()),
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
        // Twice: the names and their compiled form.
        let names = scopes.chain(workspaces);
        let names: usize = names
            .map(|name| 2 * (name.len() + size_of::<String>()))
            .sum();
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        let networks = self.allowed_ips.as_ref();
        let networks = networks.map_or(0, |list| list.entries().len() * 64);
        let quotas = self.quotas.as_ref();
        let quotas = quotas.map_or(0, |quotas| quotas.as_slice().len() * 128);
        size_of::<Self>() + size_of::<KeySettings>() + texts + names + networks + quotas
    }

    /// Creates a record with the data that every key has. The other fields are public and start as:
    /// version 1, no scopes, full access, enabled, no time limit, its own family.
    #[must_use]
    pub fn new(
        id: KeyId,
        name: impl Into<Text>,
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
            owner,
            masked: "…".into(),
            created_at,
            expires_at: None,
            settings: Arc::new(KeySettings::new(kind, environment)),
        }
    }

    /// Returns the status at an instant. Final states take precedence: a key that is revoked and
    /// expired is revoked.
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

    /// Whether the key counts against a quota of active keys: it is neither revoked nor expired.
    /// Disabled keys count, access tokens never do.
    #[must_use]
    pub fn counts_as_active(&self, now: SystemTime) -> bool {
        self.kind != KeyKind::AccessToken
            && !matches!(self.status(now), KeyStatus::Revoked | KeyStatus::Expired)
    }

    /// Whether two records have the same owner (tenant and user) and family. Two records of one key
    /// always do.
    #[must_use]
    pub fn is_of_the_same_owner(&self, other: &Self) -> bool {
        (&self.owner.tenant_id, &self.owner.user_id, &self.family)
            == (&other.owner.tenant_id, &other.owner.user_id, &other.family)
    }

    /// Whether the key can be its owner's primary key at an instant: it counts as active and
    /// [`may_be_primary`](KeySettings::may_be_primary) is set.
    #[must_use]
    pub fn can_be_primary(&self, now: SystemTime) -> bool {
        self.may_be_primary && self.counts_as_active(now)
    }
}
