//! The suite for a [`Directory`]: who is found, by which identifier, and from which tenant.
//!
//! A suite cannot fill a directory, so the host describes its contents ([`DirectoryFacts`]), and
//! the suite queries what must and must not be there.

mod checks;

use std::sync::Arc;

use super::report::{Violations, valid};
use super::runner::{Calls, Suite, Watched};
use checks::{CHECKS, Tried};
use portunus::actor::Directory;
use portunus::key::{PlanName, TenantId, UserId};

/// Facts about the contents of a directory.
#[derive(Debug, Clone)]
pub struct DirectoryFacts {
    tenant: TenantId,
    user: UserId,
    email: Option<String>,
    other_tenant: TenantId,
    other_user: UserId,
    other_email: Option<String>,
    unknown: UserId,
    unknown_email: String,
    aliases: Vec<String>,
    collaborator: Option<(UserId, TenantId)>,
    suspended: Option<UserId>,
    plan: Option<PlanName>,
}

impl DirectoryFacts {
    /// Creates facts with a user of a tenant, and a user of another tenant for whom the first
    /// tenant may not act. Neither user is suspended.
    #[must_use]
    pub fn new(tenant: TenantId, user: UserId, other_tenant: TenantId, other_user: UserId) -> Self {
        Self {
            tenant,
            user,
            email: None,
            other_tenant,
            other_user,
            other_email: None,
            unknown: valid(UserId::new("6f1c0f9e-0000-4000-8000-c0f0a11ce000")),
            unknown_email: "nobody.at.all@conformance.invalid".into(),
            aliases: Vec::new(),
            collaborator: None,
            suspended: None,
            plan: None,
        }
    }

    /// Sets the plan of the tenant. By default its plan is not checked.
    #[must_use]
    pub fn with_plan(mut self, plan: PlanName) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Sets the email address of the user, as it is stored, if users are found by it.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Sets the email address of the user of the other tenant.
    #[must_use]
    pub fn with_other_email(mut self, email: impl Into<String>) -> Self {
        self.other_email = Some(email.into());
        self
    }

    /// Sets an id and an email address that no user has; by default, plausible made-up values.
    #[must_use]
    pub fn with_unknown(mut self, user: UserId, email: impl Into<String>) -> Self {
        (self.unknown, self.unknown_email) = (user, email.into());
        self
    }

    /// Adds further addresses of the tenant that are in the directory, so that the suite does not
    /// treat them as errors when it leaves out a dot or adds a `+tag`.
    #[must_use]
    pub fn with_aliases(mut self, aliases: impl IntoIterator<Item = String>) -> Self {
        self.aliases = aliases
            .into_iter()
            .map(|alias| alias.to_ascii_lowercase())
            .collect();
        self
    }

    /// Sets a user of another tenant for whom the first tenant is authorized to act.
    #[must_use]
    pub fn with_collaborator(mut self, user: UserId, of: TenantId) -> Self {
        self.collaborator = Some((user, of));
        self
    }

    /// Sets a user of the first tenant who is suspended.
    #[must_use]
    pub fn with_suspended(mut self, user: UserId) -> Self {
        self.suspended = Some(user);
        self
    }
}

/// Checks a [`Directory`] against all promises of the trait, given facts about its contents.
///
/// The directory is only read. To keep it, pass a clone of its `Arc`, which is a directory too.
///
/// ```
/// # use std::sync::Arc;
/// # use portunus::actor::{Directory, DirectoryError, User, UserRef};
/// # use portunus::key::{TenantId, UserId};
/// use portunus_conformance::DirectoryFacts;
///
/// # #[derive(Debug)]
/// # struct OurUsers;
/// # #[async_trait::async_trait]
/// # impl Directory for OurUsers {
/// #     async fn resolve(
/// #         &self,
/// #         tenant: &TenantId,
/// #         user: &UserRef,
/// #     ) -> Result<Option<Arc<User>>, DirectoryError> {
/// #         let found = |at: &str, id: &str, email: &str| {
/// #             let named = match user {
/// #                 UserRef::Id(known) => known.as_str() == id,
/// #                 UserRef::Email(e) => e.eq_ignore_ascii_case(email),
/// #                 _ => false,
/// #             };
/// #             (named && tenant.as_str() == at)
/// #                 .then(|| Arc::new(User::new(UserId::new(id).unwrap(), tenant.clone())))
/// #         };
/// #         Ok(found("acme", "ann", "ann@example.com").or(found("other", "olaf", "")))
/// #     }
/// # }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let facts = DirectoryFacts::new("acme".parse()?, "ann".parse()?, "other".parse()?, "olaf".parse()?)
///     .with_email("Ann@example.com");
/// portunus_conformance::directory(OurUsers, facts).await?;
/// # Ok(()) }
/// # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(run()).unwrap();
/// ```
///
/// # Errors
/// Returns every check that failed, with what was observed.
pub async fn directory(directory: impl Directory, facts: DirectoryFacts) -> Result<(), Violations> {
    let mut suite = Suite::new("directory");
    let directory: Arc<dyn Directory> = Arc::new(directory);
    let mut tried = |calls: Calls| {
        std::future::ready(Tried {
            directory: Arc::new(Watched::new(Arc::clone(&directory), calls)),
            facts: facts.clone(),
        })
    };
    suite.run(CHECKS, &mut tried).await;
    suite.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_depend_on_earlier_ones_and_have_unique_names() {
        crate::runner::assert_grounds(&[CHECKS]);
    }
}
