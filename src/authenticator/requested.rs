//! What a request says about whom the key shall act for.

use crate::actor::{ActorMode, UserIds, UserRef};
use crate::error::{AuthError, ErrorCode, NamedUser};
use crate::key::UserId;
use crate::request::{FieldName, RequestHead, Single};

/// No identifier longer than this is looked up (RFC 5321 §4.5.3.1: 64 + 1 + 255).
const LONGEST: usize = 320;

/// The fields that name a user.
const FIELDS: [FieldName<'static>; 3] = [
    FieldName::UserId,
    FieldName::OnBehalfOf,
    FieldName::OnBehalfEmail,
];

/// Whom a request names.
#[derive(Debug, Clone)]
pub(super) enum RequestedActor {
    /// Nobody: the key acts for itself.
    Owner,
    /// A user, in this way.
    User(ActorMode, UserRef),
}

impl RequestedActor {
    /// Reads the fields. Several of them, a repeated one and an empty one are ambiguous, and refused.
    pub(super) fn read(head: &dyn RequestHead, ids: UserIds) -> Result<Self, AuthError> {
        let mut requested = Self::Owner;
        if !head.may_have_any(&FIELDS) {
            return Ok(requested);
        }
        for name in FIELDS {
            let value = match head.single(name) {
                Single::Absent => continue,
                Single::Repeated => return Err(unclear(name, "stands more than once")),
                Single::One(value) => value.trim_ascii(),
            };
            if !matches!(requested, Self::Owner) {
                return Err(unclear(name, "stands beside another that names a user"));
            }
            let text = std::str::from_utf8(value).ok();
            let text = text.filter(|t| {
                !t.is_empty() && t.len() <= LONGEST && t.bytes().all(|b| b.is_ascii_graphic())
            });
            let text = text.ok_or_else(|| unclear(name, "names nobody"))?;
            let user = match name {
                FieldName::UserId => by_id(text, ids)
                    .filter(|_| ids.permits(text))
                    .ok_or_else(|| unclear(name, "is no user id"))?,
                FieldName::OnBehalfEmail => {
                    by_email(text).ok_or_else(|| unclear(name, "is no e-mail address"))?
                }
                _ => by_email(text)
                    .or_else(|| by_id(text, ids))
                    .ok_or_else(|| unclear(name, "names nobody"))?,
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

/// The user, as a refusal tells the audit.
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

fn unclear(name: FieldName<'_>, how: &str) -> AuthError {
    AuthError::with_detail(
        ErrorCode::InvalidRequest,
        format!("The field {} {how}", name.as_str()),
    )
}
