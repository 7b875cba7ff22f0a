//! Who acts: the key's owner, the application itself, or a user it acts for.
//!
//! Without a directory of users no key acts for anybody else, and the fields that ask for it are refused rather than
//! ignored: a caller that believes to act as somebody must not act as somebody else.

use std::fmt;

use serde::Serialize;

use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyKind, KeyRecord, Owner, UserId};
use crate::request::{FieldName, RequestHead, Single};

/// In which way a key acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorMode {
    /// A user's own key.
    User,
    /// An application, as itself.
    App,
    /// An application, as a user that it names by id.
    AppUser,
    /// An application, on behalf of a user: both are audited.
    Delegated,
}

impl ActorMode {
    /// The name in answers: `user`, `app`, `app_user`, `delegated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::App => "app",
            Self::AppUser => "app_user",
            Self::Delegated => "delegated",
        }
    }
}

impl fmt::Display for ActorMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who acts on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actor<'a> {
    /// In which way.
    pub mode: ActorMode,
    /// The user, where there is one.
    pub user_id: Option<&'a UserId>,
    /// The user's e-mail address, where it is known.
    pub user_email: Option<&'a str>,
}

/// The mode of a key that acts as its owner.
pub(crate) fn own_mode(kind: KeyKind) -> ActorMode {
    match kind {
        KeyKind::App => ActorMode::App,
        KeyKind::User | KeyKind::AccessToken => ActorMode::User,
    }
}

/// The owner as the actor.
pub(crate) fn as_owner(mode: ActorMode, owner: &Owner) -> Actor<'_> {
    Actor { mode, user_id: owner.user_id.as_ref(), user_email: owner.user_email.as_deref() }
}

/// What a request says about whom the key shall act for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// Nothing.
    Owner,
    /// `X-User-Id`.
    UserId(String),
    /// `X-On-Behalf-Of` or `X-On-Behalf-Email`.
    OnBehalf,
}

impl Wanted {
    /// Reads the fields. Two of them, or one twice, or an empty one: the caller's mind cannot be known.
    pub(crate) fn read(head: &dyn RequestHead) -> Result<Self, AuthError> {
        let mut wanted = Self::Owner;
        for name in [FieldName::UserId, FieldName::OnBehalfOf, FieldName::OnBehalfEmail] {
            let value = match head.single(name) {
                Single::Absent => continue,
                Single::Repeated => return Err(unclear(name, "stands more than once")),
                Single::One(value) => value.trim_ascii(),
            };
            if !matches!(wanted, Self::Owner) {
                return Err(unclear(name, "stands beside another that names a user"));
            }
            let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.len() <= 320);
            let Some(text) = text else { return Err(unclear(name, "names nobody")) };
            wanted = match name {
                FieldName::UserId => Self::UserId(text.to_owned()),
                _ => Self::OnBehalf,
            };
        }
        Ok(wanted)
    }

    /// Whether this key may act as wanted.
    pub(crate) fn resolve(&self, record: &KeyRecord) -> Result<ActorMode, AuthError> {
        match self {
            Self::Owner => Ok(own_mode(record.kind)),
            // A user key may name its own user, which changes nothing.
            Self::UserId(id)
                if record.kind == KeyKind::User
                    && record.owner.user_id.as_ref().is_some_and(|own| own.as_str().eq_ignore_ascii_case(id)) =>
            {
                Ok(ActorMode::User)
            }
            Self::UserId(_) | Self::OnBehalf => Err(AuthError::new(ErrorCode::UnknownActor)),
        }
    }
}

fn unclear(name: FieldName<'_>, how: &str) -> AuthError {
    AuthError::with_detail(ErrorCode::InvalidRequest, format!("The field {} {how}", name.as_str()))
}
