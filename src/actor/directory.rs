//! The host's user directory: the trait and its types.
//!
//! A directory says who a user is and what the user is allowed to do. It never decides whether a
//! key may act for the user: the library checks the key's permission and the tenant, and intersects
//! the authorities.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::key::{Access, Owner, PlanName, TenantId, UserId, WorkspaceId};
use crate::pointer::to_the_pointee;
use crate::scope::Scope;
use crate::telemetry::Labeled;

/// Finds users. It is also implemented for `Arc` and `Box` of a directory.
///
/// # Requirements for implementations
/// - Return a user of another tenant only if keys of the asking tenant are allowed to act for
///   that user, and mark it with [`User::collaborating`]. Otherwise return `None`, after the same
///   work as for a user that does not exist.
/// - E-mail addresses are compared ASCII-case-insensitively, and are not normalized further: no
///   dots, no `+tags`.
/// - An id is never compared with addresses, or an address with ids.
/// - Return a suspended user too, with [`User::suspended`] set.
/// - Return `None`, not an error, for an unknown tenant and for an id or a string of any form that
///   no user has.
/// - Return `None`, not an error, as the plan of an unknown tenant.
/// - Return the same result for the same query while the directory does not change, however many
///   queries run at once.
#[async_trait]
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// Finds the user that a key of this tenant names.
    ///
    /// # Errors
    /// Returns an error if the directory does not answer: the request is refused with 503
    /// `DIRECTORY_UNAVAILABLE`.
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError>;

    /// Finds a user without waiting. `None`, the default, means that [`resolve`](Self::resolve)
    /// must be awaited. The result is the one that `resolve` would return.
    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        let _ = (tenant, user);
        None
    }

    /// Returns the plan that a tenant pays for; `None`, the default, if it has none. It is asked for
    /// keys without a plan of their own if [`Limits`](crate::Limits::plan) declares plans, and the
    /// answer is kept for a [bounded time](crate::config::Actors::plan_bound).
    ///
    /// # Errors
    /// Returns an error if the directory does not answer: the request is refused with 503
    /// `DIRECTORY_UNAVAILABLE`.
    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        let _ = tenant;
        Ok(None)
    }

    /// Drops what is cached for a tenant, because it changed. The default does nothing.
    fn tenant_changed(&self, tenant: &TenantId) {
        let _ = tenant;
    }

    /// Drops everything that is cached, because any tenant may have changed: the service missed
    /// messages of its bus. The default does nothing.
    fn all_changed(&self) {}

    /// Frees expired cache entries. It is called about once a minute and must not block. The
    /// default does nothing.
    fn sweep(&self) {}
}

/// A reference to a user, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserRef {
    /// A user id. If the host's ids are UUIDs ([`UserIds::Uuid`](super::UserIds::Uuid)), a
    /// hyphenated UUID (RFC 9562 §4) is in lower case; other ids are unchanged.
    Id(UserId),
    /// An e-mail address, in ASCII lower case.
    Email(String),
}

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The canonical id. If ids are UUIDs, it may be in any case.
    pub id: UserId,
    /// The e-mail address for display.
    pub email: Option<String>,
    /// The tenant that the user belongs to.
    pub tenant_id: TenantId,
    /// Whether keys of the asking tenant are allowed to act for this user of another tenant.
    /// `false` for a user of the asking tenant.
    pub collaborates: bool,
    /// The user's scopes; `None` sets no limit beyond the key's.
    pub scopes: Option<Vec<Scope>>,
    /// The user's access level; [`Access::FullAccess`], which sets no limit beyond the key's, by
    /// default.
    pub access: Access,
    /// The workspaces that the user is restricted to; `None` sets no limit beyond the key's. An
    /// empty list gives access to none.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// Whether the user is suspended: no key may act for the user.
    pub suspended: bool,
}

impl User {
    /// Creates a user of a tenant, with no limits beyond the key's.
    #[must_use]
    pub fn new(id: UserId, tenant_id: TenantId) -> Self {
        Self {
            id,
            email: None,
            tenant_id,
            collaborates: false,
            scopes: None,
            access: Access::FullAccess,
            workspaces: None,
            suspended: false,
        }
    }

    /// Sets the e-mail address.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Sets the user's own scopes. A key that acts for the user has the scopes that both have.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = Some(scopes.into_iter().collect());
        self
    }

    /// Sets the access level. A key that acts for a read-only user is read-only.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Restricts the user to these workspaces. A key that acts for the user has access to those
    /// that both have access to.
    #[must_use]
    pub fn in_workspaces(mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) -> Self {
        self.workspaces = Some(workspaces.into_iter().collect());
        self
    }

    /// Marks the user as one that keys of the asking tenant are allowed to act for.
    #[must_use]
    pub fn collaborating(mut self) -> Self {
        self.collaborates = true;
        self
    }
}

/// Reports the standing of key owners. It is also implemented for `Arc` and `Box`.
#[async_trait]
pub trait OwnerStanding: fmt::Debug + Send + Sync + 'static {
    /// Returns the current standing of a key's owner.
    ///
    /// # Errors
    /// Returns an error if the standing is unknown: the request is refused with 503
    /// `DIRECTORY_UNAVAILABLE`.
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError>;

    /// Returns the standing without waiting. `None`, the default, means that
    /// [`standing`](Self::standing) must be awaited.
    fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>> {
        let _ = owner;
        None
    }
}

/// The standing of a key's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// The owner's keys work.
    Good,
    /// The owner is suspended.
    Suspended,
    /// The owner no longer has the role that the key requires.
    RoleLost,
}

impl<E> Labeled for Result<Standing, E> {
    fn label(&self) -> &'static str {
        if self.is_ok() { "found" } else { "failed" }
    }
}

/// Error returned when a user directory does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the user directory did not answer")]
pub struct DirectoryError(#[source] Box<dyn Error + Send + Sync>);

impl DirectoryError {
    /// Creates an error from its cause.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

to_the_pointee! {
    Directory {
        async fn resolve(
            &self,
            tenant: &TenantId,
            user: &UserRef,
        ) -> Result<Option<Arc<User>>, DirectoryError>;
        async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError>;
        fn resolve_now(
            &self,
            tenant: &TenantId,
            user: &UserRef,
        ) -> Option<Result<Option<Arc<User>>, DirectoryError>>;
        fn tenant_changed(&self, tenant: &TenantId);
        fn all_changed(&self);
        fn sweep(&self);
    }
    OwnerStanding {
        async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError>;
        fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>>;
    }
}
