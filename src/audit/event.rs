//! An audit event: who did what to what, from where, when, and with which outcome.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{Party, RequestId};
use crate::actor::ActorMode;
use crate::error::ErrorCode;
use crate::key::{Environment, KeyId, KeyRecord, TenantId, UserId, WorkspaceId};
use crate::text::{ParseError, start};

/// An audit event. It contains no secret and no digest.
///
/// In JSON, absent fields are omitted, and the time is RFC 3339 with milliseconds, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The id of the event. A sink that receives an event twice keeps it once.
    pub id: EventId,
    /// The time, to the millisecond. Of a request, by [`Clock::recently`](crate::Clock::recently): on
    /// Linux, up to 10 ms early.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The attempted action.
    pub action: Action,
    /// The outcome of the action.
    pub outcome: AuditOutcome,
    /// The HTTP status of the response. For a refused gRPC call, the status of the same refusal
    /// over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The tenant concerned; absent if no real key was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The key that was presented or managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The user that the managed key belongs to; absent for requests, where it is the actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_owner: Option<UserId>,
    /// The environment of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// The only workspaces that the key reaches, or the first ones if there are many. Absent if the
    /// key reaches all workspaces, or if no key is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// How many more workspaces the key reaches.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_workspaces: u64,
    /// The mode in which the key acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ActorMode>,
    /// On whose behalf the action was done: the user acted for, or else the owner (RFC 8693 §4.1:
    /// `sub`). If acting for a user was refused, the user that the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Party>,
    /// Who acted: the owner of the key (RFC 8693 §4.1: `act`) or the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Party>,
    /// The scopes with which the action was done, or the first ones if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How many more scopes there are.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_scopes: u64,
    /// The client address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
    /// The request method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The route pattern if the framework knows it, or else the path. Never the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The bulk operation of which the action was a part, or which was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<KeyId>,
    /// A description for people: a reason, or the fields that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The number of missing events, for [`Action::EventsLost`]; of days, for
    /// [`Action::KeyExpiring`] and [`Action::KeyUnused`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl AuditEvent {
    /// Creates an event without optional fields.
    #[must_use]
    pub fn new(id: EventId, at: SystemTime, action: Action, outcome: AuditOutcome) -> Self {
        Self {
            id,
            at,
            action,
            outcome,
            status: None,
            tenant_id: None,
            key_id: None,
            key_owner: None,
            environment: None,
            workspaces: None,
            more_workspaces: 0,
            mode: None,
            subject: None,
            actor: None,
            scopes: Vec::new(),
            more_scopes: 0,
            client_ip: None,
            method: None,
            route: None,
            request_id: None,
            operation: None,
            detail: None,
            count: None,
        }
    }

    /// The maximum number of scopes, and of workspaces, that an event names.
    pub(crate) const MOST_NAMES: usize = 64;
    /// The maximum total length of the scope names, and of the workspace names, in bytes.
    pub(crate) const LONGEST_NAMES: usize = 4096;

    /// Sets the scopes, keeping the first ones if there are many.
    pub(crate) fn name_scopes<T: fmt::Display>(&mut self, scopes: impl IntoIterator<Item = T>) {
        let scopes = scopes.into_iter().map(|scope| scope.to_string());
        (self.scopes, self.more_scopes) = first_names(scopes, String::len);
    }

    /// Sets the only workspaces that a key reaches, keeping the first ones if there are many.
    pub(crate) fn name_workspaces(&mut self, workspaces: Option<&[WorkspaceId]>) {
        let named = workspaces.map(|all| first_names(all.iter().cloned(), |id| id.as_str().len()));
        let (named, more) = named.map_or((None, 0), |(named, more)| (Some(named), more));
        (self.workspaces, self.more_workspaces) = (named, more);
    }

    /// Adds a key, with what decides who can see the event.
    pub(crate) fn name_key(&mut self, record: &KeyRecord) {
        self.key_id = Some(record.id.clone());
        self.tenant_id = Some(record.owner.tenant_id.clone());
        self.environment = Some(record.environment.clone());
        self.name_workspaces(record.workspaces.as_deref());
        self.key_owner.clone_from(&record.owner.user_id);
    }

    /// Returns the approximate memory size of the event, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.method, &self.route, &self.detail];
        let texts = texts.into_iter().flatten().map(String::len);
        let scopes = self
            .scopes
            .iter()
            .map(|name| name.len() + size_of::<String>());
        let workspaces = self.workspaces.iter().flatten();
        let workspaces = workspaces.map(|id| id.as_str().len() + size_of::<WorkspaceId>());
        let parties = [&self.subject, &self.actor].into_iter().flatten();
        let ids = 4 * 128;
        let all = texts.chain(scopes).chain(workspaces);
        size_of::<Self>() + ids + all.chain(parties.map(Party::bytes)).sum::<usize>()
    }

    /// Returns whether the event is about a key that belongs to this user of the event's tenant: a
    /// request with it, or its management.
    #[must_use]
    pub fn is_about_key_of(&self, user: &UserId) -> bool {
        let owner = match self.action {
            Action::Request => self.actor.as_ref().and_then(|actor| actor.user_id.as_ref()),
            _ => self.key_owner.as_ref(),
        };
        self.key_id.is_some() && owner == Some(user)
    }

    /// Returns whether a party of the event matches a user id, an e-mail address in any case, or the
    /// name of the service itself.
    #[must_use]
    pub fn involves(&self, who: &str) -> bool {
        [&self.actor, &self.subject]
            .into_iter()
            .flatten()
            .any(|party| party.is(who))
    }
}

/// Returns the first names, and how many more there are.
fn first_names<T>(names: impl Iterator<Item = T>, length: impl Fn(&T) -> usize) -> (Vec<T>, u64) {
    let (mut first, mut more, mut bytes) = (Vec::new(), 0, 0);
    for name in names {
        bytes += length(&name);
        let fits = first.len() < AuditEvent::MOST_NAMES && bytes <= AuditEvent::LONGEST_NAMES;
        match fits && more == 0 {
            true => first.push(name),
            false => more += 1,
        }
    }
    (first, more)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

macro_rules! named {
    (
        $(#[$doc:meta])* $type:ident, $what:literal,
        { $($(#[$each:meta])* $variant:ident = $name:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $($(#[$each])* $variant,)* }

        impl $type {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name that is used in events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl FromStr for $type {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let found = Self::ALL.iter().find(|known| known.as_str() == text);
                found.copied().ok_or_else(|| unknown($what, text))
            }
        }
    };
}

named! {
    /// An audited action.
    Action, "action", {
        /// A request with a key.
        Request = "request",
        /// A key was issued.
        KeyIssue = "key.issue",
        /// A key from another system was imported.
        KeyImport = "key.import",
        /// A key was updated.
        KeyUpdate = "key.update",
        /// A key was enabled.
        KeyEnable = "key.enable",
        /// A key was disabled.
        KeyDisable = "key.disable",
        /// A key was revoked.
        KeyRevoke = "key.revoke",
        /// A key was rotated.
        KeyRotate = "key.rotate",
        /// A key became its owner's primary key.
        KeyMakePrimary = "key.make_primary",
        /// A key was deleted.
        KeyDelete = "key.delete",
        /// An operation on many keys was started ([`KeyManager::bulk`]). Each of its keys has its own
        /// event, with its own action.
        ///
        /// [`KeyManager::bulk`]: crate::manage::KeyManager::bulk
        KeyBulk = "key.bulk",
        /// A key was read; recorded only if that was refused.
        KeyRead = "key.read",
        /// Management in general; recorded if the operator is not proven, if the operator is not
        /// allowed to manage anything, or if the call is not a known operation.
        Manage = "manage",
        /// Credits were granted.
        CreditGrant = "credit.grant",
        /// A grant of credits was voided.
        CreditVoid = "credit.void",
        /// Credits of a crashed node were given back.
        CreditGiveBack = "credit.give_back",
        /// Credits were read; recorded only if that was refused.
        CreditRead = "credit.read",
        /// An account of credits has used as many percent of its grants as the event's count.
        CreditLow = "credit.low",
        /// A secret was verified for an operator.
        KeyVerify = "key.verify",
        /// A key expires within as many days as the event's count.
        KeyExpiring = "key.expiring",
        /// A key was not used for as many days as the event's count.
        KeyUnused = "key.unused",
        /// A key is still used although another one has replaced it.
        KeyRotatedInUse = "key.rotated_in_use",
        /// The owner of a key is not in good standing.
        KeyOwnerLeft = "key.owner_left",
        /// Events were lost; the event has their number.
        EventsLost = "audit.lost",
    }
}

/// The outcome of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditOutcome {
    /// `OK`: the request was admitted, or the operation was done. The status shows the handler's
    /// result.
    Ok,
    /// Refused by the authenticator, the route or the handler: the error's code.
    Refused(ErrorCode),
    /// `ABANDONED`: the request was admitted, but the client disconnected or the handler panicked
    /// before there was a response. For a management operation, its caller did not wait for the
    /// result, or did not report that its transaction was committed.
    Abandoned,
    /// `FAILED`: the inner service failed without a response.
    Failed,
}

impl AuditOutcome {
    /// Returns `OK`, `ABANDONED`, `FAILED` or the error code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Refused(code) => code.as_str(),
            Self::Abandoned => "ABANDONED",
            Self::Failed => "FAILED",
        }
    }
}

fn unknown(what: &'static str, text: &str) -> ParseError {
    ParseError::new(what, format!("unknown {what} {:?}", start(text, 40)))
}

impl FromStr for AuditOutcome {
    type Err = ParseError;
    /// Ignores ASCII case.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let codes = ErrorCode::ALL.iter().map(|code| Self::Refused(*code));
        let mut all = [Self::Ok, Self::Abandoned, Self::Failed]
            .into_iter()
            .chain(codes);
        let found = all.find(|outcome| outcome.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| unknown("outcome", text))
    }
}

macro_rules! as_text {
    ($($type:ident),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Action, AuditOutcome);

/// The id of an event: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

impl EventId {
    pub(super) const fn new(id: u128) -> Self {
        Self(id)
    }

    /// Returns the id that follows from a text: the same in each process.
    pub(crate) fn of(text: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let (id, _) = digest.as_chunks::<16>();
        Self(u128::from_be_bytes(id[0]))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for EventId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        id.map(Self)
            .ok_or_else(|| ParseError::new("event id", "an event id must be 32 hexadecimal digits"))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Truncates to milliseconds, which every sink can store.
pub(super) fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// RFC 3339 with milliseconds.
mod rfc3339 {
    use serde::de::Error;

    use super::{Deserialize, Deserializer, Serializer, SystemTime};
    use crate::rfc3339::{parse, utc};

    pub(super) fn serialize<S: Serializer>(
        at: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}Z", utc(*at)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("expected an RFC 3339 time in UTC since 1970"))
    }
}
