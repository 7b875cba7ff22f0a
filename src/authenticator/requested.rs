//! The user that a request asks the key to act for.

use crate::actor::{ActorMode, UserIds, UserRef};
use crate::error::{AuthError, ErrorCode, NamedUser};
use crate::key::UserId;
use crate::request::{FieldName, RequestHead, Single};

/// The maximum length of an identifier (RFC 5321 §4.5.3.1: 64 + 1 + 255).
const LONGEST: usize = 320;

/// The header fields that name a user.
const FIELDS: [FieldName<'static>; 3] = [
    FieldName::UserId,
    FieldName::OnBehalfOf,
    FieldName::OnBehalfEmail,
];

/// The actor that a request names.
#[derive(Debug, Clone)]
pub(super) enum RequestedActor {
    /// None: the key acts for its owner.
    Owner,
    /// A user, and the mode in which to act.
    User(ActorMode, UserRef),
}

impl RequestedActor {
    /// Returns whether the request may name a user.
    #[inline(always)] // So that the type of the head is known.
    pub(super) fn may_be_in(head: &dyn RequestHead) -> bool {
        head.may_have_any(&FIELDS)
    }

    /// Reads the fields. Multiple, repeated or empty fields are ambiguous and rejected.
    pub(super) fn read(head: &dyn RequestHead, ids: UserIds) -> Result<Self, AuthError> {
        let mut requested = Self::Owner;
        for name in FIELDS {
            let value = match head.single(name) {
                Single::Absent => continue,
                Single::Repeated => return Err(invalid(name, "is repeated")),
                Single::One(value) => value.trim_ascii(),
            };
            if !matches!(requested, Self::Owner) {
                return Err(invalid(
                    name,
                    "cannot be combined with another header that names a user",
                ));
            }
            let text = std::str::from_utf8(value).ok();
            let text = text.filter(|t| {
                !t.is_empty() && t.len() <= LONGEST && t.bytes().all(|b| b.is_ascii_graphic())
            });
            let text = text.ok_or_else(|| invalid(name, "does not name a user"))?;
            let user = match name {
                FieldName::UserId => by_id(text, ids)
                    .filter(|_| ids.permits(text))
                    .ok_or_else(|| invalid(name, "is not a valid user id"))?,
                FieldName::OnBehalfEmail => {
                    by_email(text).ok_or_else(|| invalid(name, "is not a valid e-mail address"))?
                }
                _ => by_email(text)
                    .or_else(|| by_id(text, ids))
                    .ok_or_else(|| invalid(name, "does not name a user"))?,
            };
            let mode = if name == FieldName::OnBehalfOf {
                ActorMode::Delegated
            } else {
                ActorMode::AppUser
            };
            requested = Self::User(mode, user);
        }
        Ok(requested)
    }
}

/// Converts the user for the audit event of a refusal.
pub(super) fn named(mode: ActorMode, user: &UserRef) -> NamedUser {
    let (id, email) = match user.clone() {
        UserRef::Id(id) => (Some(id), None),
        UserRef::Email(email) => (None, Some(email)),
    };
    NamedUser {
        on_behalf: mode == ActorMode::Delegated,
        id,
        email,
    }
}

fn by_id(text: &str, ids: UserIds) -> Option<UserRef> {
    let id = UserId::new(text).ok()?;
    Some(UserRef::Id(ids.canonical(id)))
}

fn by_email(text: &str) -> Option<UserRef> {
    let (local, domain) = text.rsplit_once('@')?;
    (!local.is_empty() && !domain.is_empty()).then(|| UserRef::Email(text.to_ascii_lowercase()))
}

fn invalid(name: FieldName<'_>, how: &str) -> AuthError {
    AuthError::with_detail(
        ErrorCode::InvalidRequest,
        format!("The header {} {how}", name.as_str()),
    )
}
