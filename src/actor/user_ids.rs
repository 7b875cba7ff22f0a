//! The format of user ids, and their comparison.

use std::sync::Arc;

use super::directory::User;
use crate::key::{Owner, UserId};

/// The format of user ids. The authenticator and the manager of a service must use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UserIds {
    /// Any visible ASCII, kept and compared byte for byte.
    #[default]
    Any,
    /// Hyphenated UUIDs in any case (RFC 9562 §4), kept and compared in lower case; anything else
    /// in `X-User-Id` is refused with 400. Records written before this was set are found under
    /// their old spelling only, until they are rewritten; the stores of `portunus-sqlx` have
    /// `fold_user_ids()` for this.
    Uuid,
}

impl UserIds {
    /// Returns the canonical spelling of an id: lower case for a UUID if ids are UUIDs, unchanged
    /// otherwise.
    ///
    /// ```
    /// use portunus::actor::UserIds;
    /// use portunus::key::UserId;
    ///
    /// let upper = UserId::new("550E8400-E29B-41D4-A716-446655440000")?;
    /// assert_eq!(
    ///     UserIds::Uuid.canonical(upper.clone()).as_str(),
    ///     "550e8400-e29b-41d4-a716-446655440000"
    /// );
    /// assert_eq!(UserIds::Any.canonical(upper.clone()), upper);
    /// # Ok::<(), portunus::error::ParseError>(())
    /// ```
    #[must_use]
    pub fn canonical(self, id: UserId) -> UserId {
        let text = id.as_str();
        let folds = self == Self::Uuid
            && is_uuid(text)
            && text.bytes().any(|byte| byte.is_ascii_uppercase());
        match folds {
            true => UserId::new(&text.to_ascii_lowercase()).unwrap_or(id),
            false => id,
        }
    }

    /// Returns whether a string has the format of a user id.
    pub(crate) fn permits(self, text: &str) -> bool {
        self == Self::Any || is_uuid(text)
    }

    /// Returns whether two ids name the same user, even if one was stored before ids were folded.
    pub(crate) fn are_one(self, one: &UserId, other: &UserId) -> bool {
        one == other || self.canonical(one.clone()) == self.canonical(other.clone())
    }

    /// Canonicalizes the user id of an owner.
    pub(crate) fn owner(self, mut owner: Owner) -> Owner {
        owner.user_id = owner.user_id.map(|id| self.canonical(id));
        owner
    }

    /// Canonicalizes the id of a directory user.
    pub(crate) fn user(self, user: Arc<User>) -> Arc<User> {
        match self.canonical(user.id.clone()) {
            id if id == user.id => user,
            id => Arc::new(User {
                id,
                ..(*user).clone()
            }),
        }
    }
}

/// Returns whether a string consists of five groups of hexadecimal digits, 8-4-4-4-12.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
