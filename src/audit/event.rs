//! One event: who did what to what, from where, when, and what came of it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RequestId, shortened};
use crate::actor::ActorMode;
use crate::error::ErrorCode;
use crate::key::{Environment, KeyId, TenantId, UserId, WorkspaceId};

/// Something that happened. It carries no secret and no digest.
///
/// As JSON, absent facts are left out and the time is RFC 3339 with milliseconds, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Its own id. A sink that is given an event twice keeps it once.
    pub id: EventId,
    /// When, to the millisecond.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// What was tried.
    pub action: Action,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// The HTTP status of the answer; of a refused gRPC call, that of the same refusal over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The tenant that it concerns; unknown where no real key was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The key that was presented, or that was managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The environment of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// The only workspaces that the key reaches, the first of them where there are many; absent for
    /// all, and where no key is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// How many workspaces the key reaches besides those.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_workspaces: u64,
    /// In which way the key acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ActorMode>,
    /// As whom it was done: the user that was acted for, else the owner (RFC 8693 §4.1: `sub`).
    /// Where acting for somebody was refused, whom the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Party>,
    /// Who did it: the owner of the key (RFC 8693 §4.1: `act`), or the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Party>,
    /// The authority that it was done with: the first scopes of it where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How many scopes there are besides those.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_scopes: u64,
    /// The client's address, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<IpAddr>,
    /// The method of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The pattern of the route where the framework knows it, else the path. Never the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// More for people: a reason, the fields that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many events are missing here, for [`Action::EventsLost`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl AuditEvent {
    /// An event of which only this is known.
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
            detail: None,
            count: None,
        }
    }

    /// No event names more scopes than this, nor more workspaces.
    pub(crate) const MOST_NAMES: usize = 64;
    /// How many bytes the names of scopes take at most, and those of workspaces.
    pub(crate) const LONGEST_NAMES: usize = 4096;

    /// Names scopes, the first of them where there are many.
    pub(crate) fn name_scopes<T: fmt::Display>(&mut self, scopes: impl IntoIterator<Item = T>) {
        let scopes = scopes.into_iter().map(|scope| scope.to_string());
        (self.scopes, self.more_scopes) = first_names(scopes, String::len);
    }

    /// Names the only workspaces that a key reaches, the first of them where there are many.
    pub(crate) fn name_workspaces(&mut self, workspaces: Option<&[WorkspaceId]>) {
        let named = workspaces.map(|all| first_names(all.iter().cloned(), |id| id.as_str().len()));
        let (named, more) = named.map_or((None, 0), |(named, more)| (Some(named), more));
        (self.workspaces, self.more_workspaces) = (named, more);
    }

    /// About how much memory it takes, in bytes.
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
        let ids = 3 * 128;
        let all = texts.chain(scopes).chain(workspaces);
        size_of::<Self>() + ids + all.chain(parties.map(Party::bytes)).sum::<usize>()
    }

    /// Whether somebody took part in it under this name: a user's id, an e-mail address in any
    /// case, an operator's name.
    #[must_use]
    pub fn involves(&self, who: &str) -> bool {
        [&self.actor, &self.subject]
            .into_iter()
            .flatten()
            .any(|party| party.is(who))
    }
}

/// The first of some names, and how many more there are.
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

/// The longest e-mail address and the longest name of somebody, in bytes.
const LONGEST_PARTY: usize = 320;

/// Somebody who takes part in an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Party {
    /// The user's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_email: Option<String>,
    /// The name of an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Party {
    /// A user; `None` where neither is known. Texts longer than 320 bytes are cut.
    #[must_use]
    pub fn user(id: Option<&UserId>, email: Option<&str>) -> Option<Self> {
        let party = Self {
            user_id: id.cloned(),
            user_email: email.map(|email| shortened(email, LONGEST_PARTY)),
            name: None,
        };
        (party.user_id.is_some() || party.user_email.is_some()).then_some(party)
    }

    /// An operator. A name longer than 320 bytes is cut.
    #[must_use]
    pub fn operator(name: impl Into<String>) -> Self {
        Self {
            name: Some(shortened(&name.into(), LONGEST_PARTY)),
            ..Self::default()
        }
    }

    fn bytes(&self) -> usize {
        let id = self.user_id.as_ref().map_or(0, |id| id.as_str().len());
        let texts = [&self.user_email, &self.name];
        id + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Whether somebody goes by this name here.
    #[must_use]
    pub fn is(&self, who: &str) -> bool {
        self.user_id
            .as_ref()
            .is_some_and(|id| id.as_str().eq_ignore_ascii_case(who))
            || self
                .user_email
                .as_deref()
                .is_some_and(|email| email.eq_ignore_ascii_case(who))
            || self.name.as_deref() == Some(who)
    }
}

macro_rules! named {
    (
        $(#[$doc:meta])* $type:ident, $error:ident, $what:literal,
        { $($(#[$each:meta])* $variant:ident = $name:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $($(#[$each])* $variant,)* }

        impl $type {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        #[doc = concat!("A name that is no ", $what, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("{0:?} is no {what}", what = $what)]
        pub struct $error(pub(super) String);

        impl FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                let found = Self::ALL.iter().find(|known| known.as_str() == text);
                found.copied().ok_or_else(|| $error(text.chars().take(40).collect()))
            }
        }
    };
}

named! {
    /// What was tried.
    Action, ParseActionError, "action", {
        /// A request with a key.
        Request = "request",
        /// A key was issued.
        KeyIssue = "key.issue",
        /// A key from another system was taken over.
        KeyImport = "key.import",
        /// A key's facts were changed.
        KeyUpdate = "key.update",
        /// A key was switched on.
        KeyEnable = "key.enable",
        /// A key was switched off.
        KeyDisable = "key.disable",
        /// A key was revoked.
        KeyRevoke = "key.revoke",
        /// A key got a successor.
        KeyRotate = "key.rotate",
        /// A key became its owner's primary one.
        KeyMakePrimary = "key.make_primary",
        /// A key was deleted.
        KeyDelete = "key.delete",
        /// A key's record was looked at; noted only where that was refused.
        KeyRead = "key.read",
        /// Management at all, noted where nobody is proven to ask for it, where the operator may manage
        /// nothing, and where what was asked for is no act.
        Manage = "manage",
        /// A secret was verified for an operator.
        KeyVerify = "key.verify",
        /// Events that could not be kept, with their count.
        EventsLost = "audit.lost",
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It was let through or done: `OK`. What a handler made of the request is told by the status.
    Ok,
    /// It was refused, by the authenticator, the route or the handler: the error's code.
    Refused(ErrorCode),
    /// The caller was let through and went away, or the handler panicked, before there was an
    /// answer: `ABANDONED`.
    Abandoned,
    /// The service that was called failed without an answer: `FAILED`.
    Failed,
}

impl AuditOutcome {
    /// `OK`, `ABANDONED`, `FAILED`, or the code.
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

/// A name that is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no outcome")]
pub struct ParseOutcomeError(String);

impl FromStr for AuditOutcome {
    type Err = ParseOutcomeError;
    /// In any case (ASCII).
    fn from_str(text: &str) -> Result<Self, ParseOutcomeError> {
        let codes = ErrorCode::ALL.iter().map(|code| Self::Refused(*code));
        let mut all = [Self::Ok, Self::Abandoned, Self::Failed]
            .into_iter()
            .chain(codes);
        let found = all.find(|outcome| outcome.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| ParseOutcomeError(text.chars().take(40).collect()))
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
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of an event is 32 hexadecimal digits")]
pub struct ParseEventIdError;

impl FromStr for EventId {
    type Err = ParseEventIdError;
    fn from_str(text: &str) -> Result<Self, ParseEventIdError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        id.map(Self).ok_or(ParseEventIdError)
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

/// RFC 3339 with milliseconds.
mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, SystemTime};

    pub(super) fn serialize<S: Serializer>(
        at: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // What lies outside of these bounds cannot be written.
        let last = SystemTime::UNIX_EPOCH + crate::key::MAX_TIME;
        let shown = (*at).clamp(SystemTime::UNIX_EPOCH, last);
        serializer.collect_str(&humantime::format_rfc3339_millis(shown))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)
    }
}
