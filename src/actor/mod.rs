//! Who acts: the key's owner, the application itself, or a user it acts for.
//!
//! An application's key that was given the permission acts for a user by `X-User-Id`,
//! `X-On-Behalf-Of` or, as an aid for newcomers, `X-On-Behalf-Email`. The host's [`Directory`] says
//! who that is. Authority is then the intersection: what the key has, what its delegation permits,
//! what the user has; of scopes, access and workspaces alike.
//!
//! Without a directory no key acts for anybody else, and the fields that ask for it are refused
//! rather than ignored: a caller that believes to act as somebody must not act as somebody else.

mod cached;
mod directory;
mod intersection;
mod user_ids;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use cached::CachedDirectory;
pub use directory::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
pub(crate) use intersection::Intersection;
pub use user_ids::UserIds;

use crate::key::{KeyKind, Owner, UserId};

/// In which way a key acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

impl<'a> Actor<'a> {
    /// Somebody who acts: for a [`Principal`](crate::Principal) of the host's own.
    #[must_use]
    pub const fn new(
        mode: ActorMode,
        user_id: Option<&'a UserId>,
        user_email: Option<&'a str>,
    ) -> Self {
        Self {
            mode,
            user_id,
            user_email,
        }
    }
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
    Actor {
        mode,
        user_id: owner.user_id.as_ref(),
        user_email: owner.user_email.as_deref(),
    }
}
