//! The actor of a request: the key's owner, the application itself, or a user it acts for.
//!
//! An application's key with the permission to delegate can act for a user named in `X-User-Id`,
//! `X-On-Behalf-Of` or, to ease onboarding, `X-On-Behalf-Email`. The host's [`Directory`] resolves
//! the user. The authority is then the intersection of what the key has, what its delegation
//! permits and what the user has, for scopes, access and workspaces alike.
//!
//! Without a directory, keys cannot act for other users. Requests with these headers are then
//! refused rather than treated as the owner's: a caller must never act as a different user than
//! intended.

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

/// The mode in which a key acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorMode {
    /// A user's own key.
    User,
    /// An application, as itself.
    App,
    /// An application, as a user that the request names.
    AppUser,
    /// An application, on behalf of a user; both are recorded in the audit event.
    Delegated,
}

impl ActorMode {
    /// Returns the name used in responses: `user`, `app`, `app_user` or `delegated`.
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

/// The actor of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actor<'a> {
    /// The mode.
    pub mode: ActorMode,
    /// The user, if any.
    pub user_id: Option<&'a UserId>,
    /// The user's e-mail address, if known.
    pub user_email: Option<&'a str>,
}

impl<'a> Actor<'a> {
    /// Creates an actor, for a host's own [`Principal`](crate::Principal).
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

/// Returns the mode of a key that acts as its owner.
pub(crate) fn own_mode(kind: KeyKind) -> ActorMode {
    match kind {
        KeyKind::App => ActorMode::App,
        KeyKind::User | KeyKind::AccessToken => ActorMode::User,
    }
}

/// Returns the owner as the actor.
pub(crate) fn as_owner(mode: ActorMode, owner: &Owner) -> Actor<'_> {
    Actor {
        mode,
        user_id: owner.user_id.as_ref(),
        user_email: owner.user_email.as_deref(),
    }
}
