//! The host's users, as far as keys act for them: the trait, and what it answers.
//!
//! A directory says who a user is and what the user may do. It never decides whether a key may act:
//! the key's own permission, the tenant's wall and the intersection of authorities are the
//! library's.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::key::{Access, Owner, TenantId, UserId, WorkspaceId};
use crate::pointer::to_the_pointee;
use crate::scope::Scope;
use crate::telemetry::Labeled;

/// Finds users. `Arc` and `Box` of a directory are directories.
///
/// # What an implementation promises
/// - A user of another tenant is returned only where that user may be acted for from the asking
///   tenant, and then with [`User::collaborating`]. Anything else is `None`, after the same work as
///   for a user that does not exist.
/// - E-mail addresses are compared ASCII-case-insensitively, and are not normalized further: no
///   dots, no `+tags`.
#[async_trait]
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// The user that a key of this tenant means.
    ///
    /// # Errors
    /// Where the directory gives no answer: the request is refused with 503
    /// `DIRECTORY_UNAVAILABLE`.
    async fn resolve(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError>;

    /// The same for directories that can answer without waiting; `None` (the default) says that
    /// this one must be awaited.
    fn resolve_now(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Option<Result<Option<Arc<User>>, DirectoryError>> {
        let _ = (tenant, user);
        None
    }

    /// Frees what it remembers and does not use any more. It is called about once a minute and must
    /// not wait; a directory that remembers nothing has nothing to do, which is the default.
    fn sweep(&self) {}
}

/// How a request names a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserRef {
    /// By id. Where the host says that its ids are UUIDs ([`UserIds::Uuid`](super::UserIds::Uuid)),
    /// a hyphenated UUID (RFC 9562 §4) is in lower case; other ids are as the request wrote them.
    Id(UserId),
    /// By e-mail address, in ASCII lower case.
    Email(String),
}

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The id: the canonical identifier. Where ids are UUIDs, it may be in any case.
    pub id: UserId,
    /// The e-mail address, as people should see it.
    pub email: Option<String>,
    /// The tenant the user belongs to.
    pub tenant_id: TenantId,
    /// Whether the directory grants that keys of the asking tenant act for this user of another
    /// one.
    pub collaborates: bool,
    /// What the user may do; whatever the key may, if absent.
    pub scopes: Option<Vec<Scope>>,
    /// Whether the user may write; [`Access::FullAccess`], as far as the key's goes, unless set.
    pub access: Access,
    /// The only workspaces that the user reaches; those that the key reaches, if absent. An empty
    /// list reaches none.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// Whether nobody may act for the user now.
    pub suspended: bool,
}

impl User {
    /// A user of a tenant, who may do whatever the key may.
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

    /// The same with an e-mail address.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// The same with authority of the user's own: acting for the user gives what both the key and
    /// the user have.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = Some(scopes.into_iter().collect());
        self
    }

    /// The same with this access: acting for a user who only reads, a key only reads.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The same as a member of these workspaces only: acting for the user, a key reaches those that
    /// both reach.
    #[must_use]
    pub fn in_workspaces(mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) -> Self {
        self.workspaces = Some(workspaces.into_iter().collect());
        self
    }

    /// The same as a user whom the asking tenant was explicitly granted to act for.
    #[must_use]
    pub fn collaborating(mut self) -> Self {
        self.collaborates = true;
        self
    }
}

/// The standing of a key's owner. `Arc` and `Box` of one are one.
#[async_trait]
pub trait OwnerStanding: fmt::Debug + Send + Sync + 'static {
    /// How the owner of a key stands now.
    ///
    /// # Errors
    /// Where that cannot be told: the request is refused with 503 `DIRECTORY_UNAVAILABLE`.
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError>;

    /// The same where it can be told without waiting; `None` (the default) says that it must be
    /// awaited.
    fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>> {
        let _ = owner;
        None
    }
}

/// How an owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// The owner's keys work.
    Good,
    /// The owner is suspended.
    Suspended,
    /// The owner no longer has the role that keys need.
    RoleLost,
}

impl<E> Labeled for Result<Standing, E> {
    fn told(&self) -> &'static str {
        if self.is_ok() { "found" } else { "failed" }
    }
}

/// The directory gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("the directory of users gave no answer")]
pub struct DirectoryError(#[source] Box<dyn Error + Send + Sync>);

impl DirectoryError {
    /// No answer, and why.
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
        fn resolve_now(
            &self,
            tenant: &TenantId,
            user: &UserRef,
        ) -> Option<Result<Option<Arc<User>>, DirectoryError>>;
        fn sweep(&self);
    }
    OwnerStanding {
        async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError>;
        fn standing_now(&self, owner: &Owner) -> Option<Result<Standing, DirectoryError>>;
    }
}
